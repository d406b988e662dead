// Asks a person for a token.

import { byId, setText } from "./dom.js";

/**
 * The token in what was pasted: itself, or the line that `emitter dev` printed.
 * @param {string} pasted
 * @returns {string | null}
 */
export function tokenIn(pasted) {
  return /[\w-]+\.[\w-]+\.[\w-]+(?=\s*$)/.exec(pasted.replace(/^.*#token=/s, ""))?.[0] ?? null;
}

export class TokenForm {
  #keeper;
  shown = false;

  /** @param {import("./token.js").TokenKeeper} keeper */
  constructor(keeper) {
    this.#keeper = keeper;
    byId("token-use").addEventListener("click", () => this.#use());
    byId("token-field").addEventListener("keydown", ({ key }) => key === "Enter" && this.#use());
  }

  /** @param {string} [problem] */
  show(problem = "") {
    this.shown = true;
    byId("token").hidden = false;
    byId("welcome").hidden = true;
    // The service that answered is the one to get a token for.
    setText(byId("token-line"), `${location.origin}/#token=eyJ…`);
    setText(byId("token-command"), `echo "${location.origin}/#token=$(emitter token --sub demo --scope subscribe)"`);
    setText(byId("token-problem"), problem);
    byId("token-field").focus();
  }

  #use() {
    /** @type {HTMLInputElement} */
    const field = byId("token-field");
    const token = tokenIn(field.value);
    if (token === null) {
      setText(byId("token-problem"), "That is no token: it has three parts with dots between, and begins with eyJ.");
      return;
    }
    this.#keeper.keep(token);
    location.reload();
  }
}
