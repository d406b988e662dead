// Shows another user's stream: `emitter dev` has a token for each.

import { byId, setText } from "./dom.js";

export class UserSwitch {
  #keeper;

  /** @param {import("./token.js").TokenKeeper} keeper */
  constructor(keeper) {
    this.#keeper = keeper;
    byId("switch").addEventListener("click", () => this.#unfold(byId("switch-panel").hidden === true));
    byId("switch-use").addEventListener("click", () => this.#use());
    byId("switch-panel").addEventListener("keydown", ({ key }) => key === "Escape" && this.#unfold(false));
    byId("switch-field").addEventListener("keydown", ({ key }) => key === "Enter" && this.#use());
  }

  /** @param {boolean} unfolded */
  #unfold(unfolded) {
    byId("switch-panel").hidden = !unfolded;
    byId("switch").setAttribute("aria-expanded", String(unfolded));
    setText(byId("switch-problem"), "");
    byId(unfolded ? "switch-field" : "switch").focus();
  }

  async #use() {
    /** @type {HTMLInputElement} */
    const field = byId("switch-field");
    const user = field.value.trim();
    if (user === "") {
      setText(byId("switch-problem"), "Enter a user's id, such as demo.");
      return;
    }
    try {
      await this.#keeper.switchTo(user);
      // The runs of the user before are not this one's.
      location.assign(location.pathname);
    } catch (error) {
      setText(byId("switch-problem"), `The user was not switched: ${/** @type {Error} */ (error).message}.`);
    }
  }
}
