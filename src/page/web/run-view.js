// Draws what is chosen: a run's head and totals, and its timeline or its events.

import { byId, copy, setAttribute, setIcon, setText } from "./dom.js";
import { UNKNOWN, count, counted, hasUsage, line, price, stateName } from "./format.js";
import { EventsView } from "./events-view.js";
import { took } from "./runs-view.js";
import { TimelineView } from "./timeline-view.js";

/** @typedef {import("/emitter.js").RunState} RunState */
/** @typedef {import("./route.js").Route} Route */
/** @typedef {"timeline" | "events"} Tab */

export class RunView {
  #model;
  #page;
  /** @type {Route} */
  #route = { kind: "none" };
  /** @type {Tab} */
  #tab = "timeline";
  #timeline;
  #events;

  /**
   * @param {{runs: ReadonlyMap<string, RunState>, log: import("./log.js").EventLog}} model
   * @param {{request: () => void, choose: (route: Route) => void, tell: (words: string) => void}} page
   */
  constructor(model, page) {
    this.#model = model;
    this.#page = page;
    const { request, choose, tell } = page;
    const open = (/** @type {string} */ runId) => choose({ kind: "run", runId });
    this.#timeline = new TimelineView(listElements("timeline"), { request, open });
    this.#events = new EventsView(listElements("events"), { request, tell });
    this.#listenToTabs();
    byId("run-parent").addEventListener("click", () => {
      const parent = this.#run?.parentRunId;
      if (parent) {
        open(parent);
      }
    });
    byId("copy-run").addEventListener("click", async () => {
      const copied = await copy(this.#run?.runId ?? "", byId("run-id"));
      tell(copied ? "The run's id is copied." : "Selected: copy it with the keyboard.");
    });
  }

  /** How many rows are in the document. */
  get drawn() {
    return this.#timeline.drawn + this.#events.drawn;
  }

  /** @param {Route} route */
  show(route) {
    this.#route = route;
  }

  render() {
    const run = this.#run;
    const all = this.#route.kind === "all";
    byId("run").hidden = !run && !all;
    byId("tabs").hidden = all;
    byId("run-facts").hidden = !run;
    const events = all || this.#tab === "events";
    byId("timeline-panel").hidden = events;
    byId("events-panel").hidden = !events;
    if (run) {
      this.#drawHead(run);
    } else if (all) {
      this.#drawAll();
    }
    if (run && !events) {
      this.#timeline.show(run, this.#model.log.of(run.runId));
      this.#timeline.render();
    } else if (run || all) {
      this.#events.show(run ? this.#model.log.of(run.runId) : this.#model.log.all, run?.runId ?? null);
      this.#events.render();
    }
  }

  /** Moves what runs on by itself. @returns {boolean} whether anything does */
  tick() {
    const run = this.#run;
    const moves = run !== null && run.endedAt === null;
    return this.#timeline.tick() || moves;
  }

  /** Whether what is chosen is a run that is not known. */
  get lost() {
    return this.#route.kind === "run" && !this.#run;
  }

  /** @returns {RunState | null} */
  get #run() {
    return this.#route.kind === "run" ? (this.#model.runs.get(this.#route.runId) ?? null) : null;
  }

  #drawAll() {
    setText(byId("run-title"), "All events");
    setText(byId("run-message"), `${counted(this.#model.log.eventCount, "event")} of all runs, as they came.`);
    byId("run-message").hidden = false;
    byId("run-state").hidden = true;
  }

  /** @param {RunState} run */
  #drawHead(run) {
    setText(byId("run-title"), line(run.agentName, 128) || "Run");
    byId("run-state").hidden = false;
    byId("run-state").dataset.tone = run.state;
    setIcon(/** @type {any} */ (byId("run-icon")), run.state);
    setText(byId("run-state-word"), stateName(run.state));
    setText(byId("run-message"), line(run.message ?? run.error?.message ?? "", 400));
    byId("run-message").hidden = !byId("run-message").textContent;
    setText(byId("run-id"), run.runId);
    setText(byId("run-thread"), run.threadId ? `Thread ${run.threadId}` : "");
    byId("run-parent").hidden = run.parentRunId === null;
    setText(byId("run-parent"), `Sub-agent of ${line(this.#nameOf(run.parentRunId), 60)}`);
    byId("run-partial").hidden = !run.partial;
    drawTotals(run);
  }

  /** @param {string | null} runId */
  #nameOf(runId) {
    return this.#model.runs.get(runId ?? "")?.agentName || runId || "";
  }

  #listenToTabs() {
    const tabs = /** @type {Tab[]} */ (["timeline", "events"]);
    for (const tab of tabs) {
      const element = byId(`${tab}-tab`);
      element.addEventListener("click", () => this.#openTab(tab));
      element.addEventListener("keydown", (event) => {
        const other = { ArrowLeft: tabs[0], ArrowRight: tabs[1], Home: tabs[0], End: tabs[1] }[event.key];
        if (other) {
          event.preventDefault();
          this.#openTab(other);
          byId(`${other}-tab`).focus();
        }
      });
    }
  }

  /** @param {Tab} tab */
  #openTab(tab) {
    this.#tab = tab;
    for (const name of ["timeline", "events"]) {
      setAttribute(byId(`${name}-tab`), "aria-selected", String(name === tab));
      byId(`${name}-tab`).tabIndex = name === tab ? 0 : -1;
    }
    this.#page.request();
  }
}

/** @param {RunState} run */
function drawTotals(run) {
  const { inputTokens, outputTokens, cachedInputTokens, reasoningTokens } = run.usage;
  const known = hasUsage(run.usage);
  const cost = price(run.usage);
  const { toolCalls, openToolCalls } = run;
  setText(byId("total-took"), took(run, Date.now()) || UNKNOWN);
  setText(byId("total-tools"), count(toolCalls.length));
  setText(byId("total-tools-note"), openToolCalls > 0 ? `${count(openToolCalls)} running` : "");
  setText(byId("total-in"), known ? count(inputTokens) : UNKNOWN);
  setText(byId("total-in-note"), cachedInputTokens > 0 ? `${count(cachedInputTokens)} cached` : "");
  setText(byId("total-out"), known ? count(outputTokens) : UNKNOWN);
  setText(byId("total-out-note"), reasoningTokens > 0 ? `${count(reasoningTokens)} reasoning` : "");
  setText(byId("total-cost"), cost.text);
  setText(byId("total-cost-note"), cost.note);
  setText(byId("events-count"), count(run.events));
}

/** @param {string} name */
function listElements(name) {
  return {
    scroller: byId(`${name}-scroll`),
    canvas: byId(`${name}-list`),
    latest: byId(`${name}-latest`),
    note: byId(`${name}-note`),
  };
}
