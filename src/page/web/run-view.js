// Draws what is chosen: a run's head and totals, and its timeline or its events.

import { byId, copy, h, setAttribute, setIcon, setText } from "./dom.js";
import { UNKNOWN, count, counted, hasUsage, line, price, stateName } from "./format.js";
import { EventsView } from "./events-view.js";
import { took } from "./runs-view.js";
import { TimelineView, drawChoices } from "./timeline-view.js";
import { descendants, together } from "./waterfall.js";
import { WaterfallView } from "./waterfall-view.js";

/** @typedef {import("/emitter.js").RunState} RunState */
/** @typedef {import("./route.js").Route} Route */
/** @typedef {"timeline" | "waterfall" | "events"} Tab */

/** @type {Tab[]} */
const TABS = ["timeline", "waterfall", "events"];

export class RunView {
  #model;
  #page;
  /** @type {Route} */
  #route = { kind: "none" };
  /** @type {Tab} */
  #tab = "timeline";
  #timeline;
  #waterfall;
  #events;

  /**
   * @param {{runs: ReadonlyMap<string, RunState>, log: import("./log.js").EventLog}} model
   * @param {{request: () => void, choose: (route: Route) => void, tell: (words: string) => void, now: () => number}} page
   */
  constructor(model, page) {
    this.#model = model;
    this.#page = page;
    const { request, choose, tell, now } = page;
    const open = (/** @type {string} */ runId) => choose({ kind: "run", runId });
    this.#timeline = new TimelineView(listElements("timeline"), { request, open, now });
    this.#waterfall = new WaterfallView(waterfallElements(), model, { request, open, now });
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
    return this.#timeline.drawn + this.#waterfall.drawn + this.#events.drawn;
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
    const tab = all ? "events" : this.#tab;
    for (const name of TABS) {
      byId(`${name}-panel`).hidden = name !== tab;
    }
    if (run) {
      this.#drawHead(run);
    } else if (all) {
      this.#drawAll();
    }
    if (run && tab === "timeline") {
      this.#timeline.show(run, this.#model.log.of(run.runId));
      this.#timeline.render();
    } else if (run && tab === "waterfall") {
      this.#waterfall.render(run);
    } else if (run || all) {
      this.#events.show(run ? this.#model.log.of(run.runId) : this.#model.log.all, run?.runId ?? null);
      this.#events.render();
    }
  }

  /** Moves what runs on by itself. @returns {boolean} whether anything does */
  tick() {
    const run = this.#run;
    const moves = run !== null && run.endedAt === null;
    const waterfall = this.#tab === "waterfall" && run !== null && this.#waterfall.moves;
    return this.#timeline.tick() || waterfall || moves;
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
    drawWaits([]);
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
    drawTotals(run, descendants(this.#model.runs, run), this.#page.now());
    drawWaits(run.waits);
  }

  /** @param {string | null} runId */
  #nameOf(runId) {
    return this.#model.runs.get(runId ?? "")?.agentName || runId || "";
  }

  #listenToTabs() {
    TABS.forEach((tab, at) => {
      const element = byId(`${tab}-tab`);
      element.addEventListener("click", () => this.#openTab(tab));
      element.addEventListener("keydown", (event) => {
        const last = TABS.length - 1;
        const to = { ArrowLeft: Math.max(at - 1, 0), ArrowRight: Math.min(at + 1, last), Home: 0, End: last }[event.key];
        const other = to === undefined ? undefined : TABS[to];
        if (other) {
          event.preventDefault();
          this.#openTab(other);
          byId(`${other}-tab`).focus();
        }
      });
    });
  }

  /** @param {Tab} tab */
  #openTab(tab) {
    this.#tab = tab;
    for (const name of TABS) {
      setAttribute(byId(`${name}-tab`), "aria-selected", String(name === tab));
      byId(`${name}-tab`).tabIndex = name === tab ? 0 : -1;
    }
    this.#page.request();
  }
}

/**
 * What a run came to, and beside its consumption what it is with that of its sub-agents.
 * @param {RunState} run
 * @param {RunState[]} below
 * @param {number} now
 */
function drawTotals(run, below, now) {
  const { inputTokens, outputTokens, cachedInputTokens, reasoningTokens } = run.usage;
  const known = hasUsage(run.usage);
  const cost = price(run.usage);
  const { toolCalls, openToolCalls } = run;
  const all = together([run, ...below]);
  const withAll = (/** @type {string} */ total) => (below.length > 0 && hasUsage(all) ? `${total} with sub-agents` : "");
  const note = (/** @type {string[]} */ ...parts) => parts.filter(Boolean).join(" · ");
  setText(byId("total-took"), took(run, now) || UNKNOWN);
  setText(byId("total-tools"), count(toolCalls.length));
  setText(byId("total-tools-note"), openToolCalls > 0 ? `${count(openToolCalls)} running` : "");
  setText(byId("total-in"), known ? count(inputTokens) : UNKNOWN);
  setText(byId("total-in-note"), note(cachedInputTokens > 0 ? `${count(cachedInputTokens)} cached` : "", withAll(count(all.inputTokens))));
  setText(byId("total-out"), known ? count(outputTokens) : UNKNOWN);
  setText(byId("total-out-note"), note(reasoningTokens > 0 ? `${count(reasoningTokens)} reasoning` : "", withAll(count(all.outputTokens))));
  setText(byId("total-cost"), cost.text);
  setText(byId("total-cost-note"), note(cost.note, withAll(price(all).text)));
  setText(byId("events-count"), count(run.events));
}

/**
 * The questions that are open, above everything else, until they are answered.
 * @param {import("/emitter.js").Wait[]} waits
 */
function drawWaits(waits) {
  const list = byId("run-waits");
  list.hidden = waits.length === 0;
  if (list.childElementCount !== waits.length) {
    const made = () => h("li", {}, h("strong", { dir: "auto" }), h("span", { class: "note", dir: "auto" }), h("ul", { class: "choices", "aria-label": "Choices" }));
    list.replaceChildren(...waits.map(made));
  }
  waits.forEach(({ prompt, reason, kind, choices }, at) => {
    const [question, note, answers] = list.children[at].children;
    setText(question, line(prompt, 400) || "Waits for a person");
    setText(note, line(reason || kind, 160));
    drawChoices(/** @type {HTMLElement} */ (answers), choices);
  });
}

function waterfallElements() {
  return {
    scroller: byId("waterfall-scroll"),
    canvas: byId("waterfall-list"),
    axis: byId("waterfall-axis"),
    totals: byId("waterfall-totals"),
    note: byId("waterfall-note"),
  };
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
