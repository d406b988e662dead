// Puts the page together: the token, the client, what is kept, what is drawn.

import { tokenOfAddress } from "./address.js";
import { Announcer } from "./announcer.js";
import { byId, setText } from "./dom.js";
import { parse } from "./format.js";
import { Budget, Frames } from "./frames.js";
import { EventLog } from "./log.js";
import { formatRoute, parseRoute } from "./route.js";
import { RunView } from "./run-view.js";
import { RunsView } from "./runs-view.js";
import { ServerClock } from "./server-clock.js";
import { drawStatus } from "./status-view.js";
import { TokenForm } from "./token-form.js";
import { UserSwitch } from "./user-switch.js";
import { TokenKeeper, TokenRefused } from "./token.js";
import { EmitterClient, EmitterError } from "/emitter.js";

/** @typedef {import("/emitter.js").Item} Item */
/** @typedef {import("/emitter.js").Frame} Frame */
/** @typedef {import("./route.js").Route} Route */

/** The most events that are applied between two frames. */
const PER_FRAME = 200;

const TICK_MS = 250;
const NOTICE_MS = 6_000;
const TROUBLE_MS = 10_000;
const UNREACHABLE = "The service cannot be reached.";

/** @type {Record<string, import("./announcer.js").RunNews>} */
const NEWS = {
  agent_started: "started",
  agent_completed: "completed",
  agent_failed: "failed",
  agent_cancelled: "cancelled",
  agent_waiting: "waiting",
};

class Page {
  #keeper;
  #log = new EventLog((runId) => this.client.runs.has(runId));
  #clock = new ServerClock();
  /** Which runs are in the list. @type {Set<string>} */
  #listed = new Set();
  #frames = new Frames(() => this.#render());
  #budget = new Budget(PER_FRAME, () => this.#frames.next());
  #announcer = new Announcer((words) => setText(byId("announcer"), words));
  /** @type {Set<string>} */
  #touched = new Set();
  #caughtUp = false;
  #lost = false;
  /** Whether the service began anew, and whether that is still to be drawn. */
  #anew = { ever: false, now: false };
  /** What the address asks for. @type {Route} */
  #asked = parseRoute(location.hash);
  /** The run that is shown while the address asks for none. */
  #followed = "";
  /** A sample run whose first event is on its way. */
  #expected = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #noticeTimer;
  #ticks = 0;

  /** @param {TokenKeeper} keeper */
  constructor(keeper) {
    this.#keeper = keeper;
    this.client = new EmitterClient({ start: "oldest", join: false, token: (request) => this.#token(request) });
    const model = { runs: this.client.runs, log: this.#log };
    const page = {
      request: () => this.#frames.request(),
      choose: (/** @type {Route} */ route) => this.#choose(route),
      tell: (/** @type {string} */ words) => this.#notice(words),
      now: () => this.#clock.now(),
    };
    this.runs = new RunsView({ scroller: byId("runs-scroll"), canvas: byId("runs-list") }, model, page);
    this.run = new RunView(model, page);
    this.form = new TokenForm(keeper);
    new UserSwitch(keeper);
    this.#listen();
  }

  /** What tests ask for. */
  get stats() {
    return { rows: this.runs.drawn + this.run.drawn, mostPerFrame: this.#budget.most, events: this.#log.eventCount };
  }

  async start() {
    setInterval(() => this.#tick(), TICK_MS);
    this.#frames.request();
    try {
      for await (const item of this.client) {
        this.#apply(item);
        this.#frames.request();
        const frame = item.kind === "event" ? this.#budget.spend() : null;
        if (frame) {
          await frame;
        }
      }
    } catch (error) {
      // The server says not to come back, and the connection says why.
      if (!(error instanceof EmitterError)) {
        throw error;
      }
    }
  }

  #listen() {
    this.client.addEventListener("run", (event) => this.#onRun(/** @type {CustomEvent} */ (event).detail));
    addEventListener("popstate", () => this.#route());
    addEventListener("keydown", (event) => this.#onEscape(event));
    for (const id of ["sample", "welcome-sample"]) {
      byId(id).addEventListener("click", () => this.#playSample());
    }
    for (const id of ["back", "lost-back"]) {
      byId(id).addEventListener("click", () => this.#leave());
    }
    byId("again").addEventListener("click", () => location.reload());
  }

  /** @param {Item} item */
  #apply(item) {
    switch (item.kind) {
      case "event":
        this.#applyEvent(item.frame, item.run);
        break;
      case "gap":
        this.#applyGap(item.frame);
        break;
      case "reset":
        // Only the runs are told anew. The events that were told before stay, while the service is the same.
        this.#listed.clear();
        this.runs.restack();
        break;
      case "caughtup":
        // While the past came in, the newest run was another one each time.
        this.#followed = this.#caughtUp ? this.#followed : "";
        this.#caughtUp = true;
        this.#settleAnew();
        break;
      case "connection":
        this.#applyConnection(item.connection);
        break;
    }
  }

  /** @param {Frame} frame @param {import("/emitter.js").RunState | null} run */
  #applyEvent(frame, run) {
    this.#clock.observe(parse(frame.recorded_at), this.#caughtUp);
    this.#log.append(frame, run?.waits.length ? run.waits.map(({ sequence }) => sequence) : undefined);
    if (frame.type === "agent_started") {
      // Until now a run that was open already had no place among the others.
      this.runs.restack();
    }
    const news = frame.custom ? undefined : NEWS[frame.type];
    if (news && this.#caughtUp) {
      this.#announcer.run(news, frame.agent_name ?? "");
    }
  }

  /** @param {Frame} frame */
  #applyGap(frame) {
    if (frame.reason === "epoch_changed") {
      this.#log.beginAnew();
      this.#anew = { ever: true, now: true };
    }
    const open = [...this.client.runs.values()].filter(({ endedAt }) => endedAt === null);
    this.#log.appendGap(frame, open.map(({ runId }) => runId));
    this.#announcer.gap();
    this.runs.restack();
  }

  /** Once it is known which runs a service that began anew has: what is chosen may be none of them. */
  #settleAnew() {
    if (!this.#anew.now) {
      return;
    }
    this.#anew.now = false;
    if (this.#asked.kind === "run" && !this.client.runs.has(this.#asked.runId)) {
      history.replaceState(null, "", location.pathname + location.search);
      this.#asked = { kind: "none" };
    }
    if (this.client.runs.size > 0) {
      this.#notice("The service began anew. What was here before is gone.");
    }
  }

  /** @param {import("/emitter.js").Connection} connection */
  #applyConnection(connection) {
    const { state, reason, retryAt } = connection;
    if (state === "open") {
      this.#unsay(UNREACHABLE);
    }
    this.#caughtUp &&= state === "open";
    if (state === "stopped" && reason === "UNAUTHENTICATED") {
      this.#refuseToken();
    } else if (state === "stopped") {
      this.#announcer.tell(`Stopped by the service: ${reason}`);
    } else if (state === "waiting" && retryAt !== null && !this.#lost) {
      this.#lost = true;
      this.#announcer.tell("The connection is lost; the page keeps trying.");
    } else if (state === "open" && this.#lost) {
      this.#lost = false;
      this.#announcer.tell("The connection is back.");
    }
  }

  /** @param {{run: import("/emitter.js").RunState, removed: boolean}} detail */
  #onRun({ run: { runId }, removed }) {
    if (removed) {
      this.#log.forget(runId);
      this.#listed.delete(runId);
      this.runs.restack();
    } else if (!this.#listed.has(runId)) {
      this.#listed.add(runId);
      this.runs.restack();
    }
    if (runId === this.#expected) {
      this.#expected = "";
    }
    this.#touched.add(runId);
    this.#frames.request();
  }

  #render() {
    const route = this.#shown();
    this.runs.touch(this.#touched);
    this.#touched.clear();
    this.runs.mark(route);
    this.run.show(route);
    this.runs.render();
    this.run.render();
    this.#drawPlaces(route);
    const { connection, position } = this.client;
    const { gapCount: gaps, eventCount: events } = this.#log;
    drawStatus({ connection, position }, { caughtUp: this.#caughtUp, gaps, events });
    byId("again").hidden = connection.state !== "stopped";
  }

  /** Which of the page's parts are there. @param {Route} route */
  #drawPlaces(route) {
    const form = this.form.shown;
    const empty = this.client.runs.size === 0 && this.#log.eventCount === 0;
    document.body.dataset.view = form ? "form" : this.#asked.kind === "none" ? "list" : "run";
    document.body.dataset.empty = String(empty);
    byId("welcome").hidden = form || route.kind !== "none" || !empty;
    byId("welcome-anew").hidden = !this.#anew.ever;
    const expected = this.#asked.kind === "run" && this.#asked.runId === this.#expected;
    byId("lost").hidden = form || expected || !this.run.lost || !this.#caughtUp;
    const running = [...this.client.runs.values()].filter(({ endedAt }) => endedAt === null).length;
    const title = running > 0 ? `(${running}) emitter` : "emitter";
    if (document.title !== title) {
      document.title = title;
    }
  }

  /** What the address asks for; else the newest run, and the next one once that has ended. @returns {Route} */
  #shown() {
    if (this.#asked.kind !== "none") {
      return this.#asked;
    }
    const { runs } = this.client;
    const followed = runs.get(this.#followed);
    if (!followed || followed.endedAt !== null) {
      const newest = [...runs.values()].findLast(({ parentRunId }) => !parentRunId || !runs.has(parentRunId));
      this.#followed = newest?.runId ?? "";
    }
    return this.#followed ? { kind: "run", runId: this.#followed } : { kind: "none" };
  }

  #tick() {
    if (document.hidden) {
      return;
    }
    this.#ticks += 1;
    const moves = [this.run.tick(), this.#ticks % 4 === 0 && this.runs.tick(), this.client.connection.state === "waiting"];
    if (moves.includes(true)) {
      this.#frames.request();
    }
  }

  /** @param {Route} route */
  #choose(route) {
    const { pathname, search } = location;
    history.pushState(null, "", route.kind === "none" ? pathname + search : formatRoute(route));
    this.#route();
  }

  #route() {
    this.#asked = parseRoute(location.hash);
    this.#render();
    if (this.#asked.kind !== "none") {
      byId("run-title").focus({ preventScroll: true });
    }
  }

  /** Back to the list. */
  #leave() {
    this.#choose({ kind: "none" });
    this.runs.focus();
  }

  /** @param {KeyboardEvent} event */
  #onEscape(event) {
    const inside = byId("run").contains(document.activeElement) || byId("lost").contains(document.activeElement);
    if (event.key === "Escape" && inside) {
      getComputedStyle(byId("back")).display === "none" ? this.runs.focus() : this.#leave();
    }
  }

  async #playSample() {
    try {
      const headers = { authorization: `Bearer ${await this.#keeper.current()}` };
      const answer = await fetch("/dev/sample", { method: "POST", headers });
      if (answer.ok) {
        const { run_id: runId } = await answer.json();
        this.#expected = runId;
        this.#choose({ kind: "run", runId });
        this.#unsay(UNREACHABLE);
        this.#announcer.tell("The sample run begins.");
      } else {
        const problem = await answer.json().catch(() => ({}));
        this.#notice(answer.status === 429 ? "Four samples are playing already." : problem.message ?? `Refused with ${answer.status}.`);
      }
    } catch (error) {
      // What the browser says of a failed `fetch` is in its own words.
      const words = error instanceof TypeError ? UNREACHABLE : `The sample could not be played: ${/** @type {Error} */ (error).message}.`;
      this.#notice(words, TROUBLE_MS);
    }
  }

  /** Says something for a while. @param {string} words @param {number} [ms] */
  #notice(words, ms = NOTICE_MS) {
    setText(byId("notice"), words);
    clearTimeout(this.#noticeTimer);
    this.#noticeTimer = setTimeout(() => this.#unsay(words), ms);
  }

  /** Takes back what is said, where it is this. @param {string} words */
  #unsay(words) {
    if (byId("notice").textContent === words) {
      setText(byId("notice"), "");
    }
  }

  /** @param {import("/emitter.js").TokenRequest} request */
  async #token(request) {
    try {
      return await this.#keeper.current(request);
    } catch (error) {
      if (error instanceof TokenRefused) {
        this.#refuseToken();
      }
      throw error;
    }
  }

  #refuseToken() {
    this.#keeper.forget();
    this.client.close();
    this.form.show("The token is no longer good. Its service may have begun anew, or it is too old.");
    this.#frames.request();
  }
}

/** The tab's storage, where the browser lets a page have one. */
function storage() {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

const keeper = new TokenKeeper({ storage: storage(), fetch: (url, init) => fetch(url, init) });
if (tokenOfAddress) {
  keeper.keep(tokenOfAddress);
}
if (keeper.present) {
  const page = new Page(keeper);
  Object.assign(window, { emitterPage: page });
  page.start();
} else {
  document.body.dataset.view = "form";
  new TokenForm(keeper).show();
}
// Another token in the address of a page that is open.
addEventListener("hashchange", () => location.hash.includes("token=") && location.reload());
