// Draws the list of runs.

import { h, icon, setAttribute, setIcon, setText } from "./dom.js";
import { UNKNOWN, brief, clock, counted, duration, gapReason, hasUsage, line, price, stateName } from "./format.js";
import { ALL, flatten, runKey } from "./tree.js";
import { VirtualList } from "./virtual.js";

/** @typedef {import("/emitter.js").RunState} RunState */
/** @typedef {import("./tree.js").Item} Item */
/** @typedef {import("./route.js").Route} Route */
/** @typedef {import("./virtual.js").Drawn & {parts: ReturnType<typeof parts>}} DrawnItem */

const ROW = 60;

/**
 * How long a run has taken.
 * @param {RunState} run
 * @param {number} now by the service's clock
 */
export function took(run, now) {
  const start = Date.parse(run.startedAt ?? "");
  const end = run.endedAt ? Date.parse(run.endedAt) : now;
  return Number.isNaN(start) ? "" : duration(end - start);
}

export class RunsView {
  /** @type {ReadonlyMap<string, RunState>} */
  #runs;
  #log;
  /** @type {Set<string>} */
  #folded = new Set();
  #stale = true;
  #chosen = "";
  /** @type {VirtualList<Item>} */
  #list;
  #choose;
  #now;

  /**
   * @param {{scroller: HTMLElement, canvas: HTMLElement}} elements
   * @param {{runs: ReadonlyMap<string, RunState>, log: import("./log.js").EventLog}} model
   * @param {{request: () => void, choose: (route: Route) => void, now: () => number}} page
   */
  constructor(elements, { runs, log }, { request, choose, now }) {
    this.#now = now;
    this.#runs = runs;
    this.#log = log;
    this.#choose = choose;
    this.#list = new VirtualList({
      ...elements,
      key: (item) => item.key,
      estimate: () => ROW,
      create: (item) => this.#create(item),
      update: (drawn, item) => this.#update(drawn, item),
      stick: "start",
      request,
      onKey: (event, item) => this.#onKey(event, item),
    });
  }

  /** How many rows are in the document. */
  get drawn() {
    return this.#list.drawn;
  }

  /** Runs or gaps came or went. */
  restack() {
    this.#stale = true;
  }

  /** @param {Iterable<string>} runIds */
  touch(runIds) {
    for (const runId of runIds) {
      this.#list.touch(runKey(runId));
    }
    this.#list.touch(ALL);
  }

  /** Marks what is shown beside the list. @param {Route} route */
  mark(route) {
    const key = route.kind === "run" ? runKey(route.runId) : route.kind === "all" ? ALL : "";
    if (key !== this.#chosen) {
      this.#chosen = key;
      this.#list.touchAll();
    }
  }

  render() {
    if (this.#stale) {
      this.#stale = false;
      this.#list.items = flatten(this.#runs, this.#log.gaps, this.#folded);
      this.#list.moved(0);
    }
    this.#list.render();
  }

  /** Moves what runs on by itself. @returns {boolean} whether anything does */
  tick() {
    let moves = false;
    for (const { key, item } of this.#list.rows()) {
      if (item.run && item.run.endedAt === null) {
        this.#list.touch(key);
        moves = true;
      }
    }
    return moves;
  }

  /** Gives the chosen line the keyboard's focus. */
  focus() {
    const chosen = this.#list.items.findIndex(({ key }) => key === this.#chosen);
    this.#list.focus(chosen < 0 ? Math.max(0, this.#list.activeIndex) : chosen);
  }

  /** @param {Item} item @returns {DrawnItem} */
  #create(item) {
    const made = parts(item.kind);
    const element = h("div", { role: "treeitem", class: `run run-${item.kind}` }, ...made.children);
    const { key } = item;
    element.addEventListener("click", (event) => {
      const current = this.#list.items.find((other) => other.key === key);
      if (current && made.fold.contains(/** @type {Node} */ (event.target)) && current.unfolded !== null) {
        this.#fold(current, current.unfolded);
      } else if (current) {
        this.#enter(current);
      }
    });
    return { element, focus: element, parts: made };
  }

  /**
   * @param {DrawnItem} drawn
   * @param {Item} item
   */
  #update({ element, parts: made }, item) {
    setAttribute(element, "aria-level", String(item.level));
    setAttribute(element, "aria-posinset", String(item.position));
    setAttribute(element, "aria-setsize", String(item.siblings));
    setAttribute(element, "aria-expanded", item.unfolded === null ? null : String(item.unfolded));
    setAttribute(element, "aria-selected", String(item.key === this.#chosen));
    element.style.setProperty("--level", String(item.level - 1));
    if (item.run) {
      drawRun(element, made, item.run, this.#now());
    } else if (item.gap) {
      setText(made.name, "Gap: events may be missing");
      setText(made.state, gapReason(item.gap.gap?.reason ?? ""));
    } else {
      setText(made.state, counted(this.#log.eventCount, "event"));
    }
    const said = [made.name, made.state, made.took, made.tokens, made.cost, made.cost.title, made.clock];
    const words = said.map((part) => (typeof part === "string" ? part : (part.textContent ?? "")));
    setAttribute(element, "aria-label", words.filter((word) => word && !word.startsWith(UNKNOWN)).join(", "));
  }

  /** @param {Item} item */
  #enter(item) {
    this.#choose(item.run ? { kind: "run", runId: item.run.runId } : { kind: "all" });
  }

  /**
   * @param {Item} item
   * @param {boolean} fold
   */
  #fold(item, fold) {
    if (!item.run) {
      return;
    }
    fold ? this.#folded.add(item.run.runId) : this.#folded.delete(item.run.runId);
    this.restack();
    // The next key may come before the next frame.
    this.render();
  }

  /**
   * @param {KeyboardEvent} event
   * @param {Item} item
   */
  #onKey(event, item) {
    const index = this.#list.items.indexOf(item);
    if (event.key === "Enter" || event.key === " ") {
      this.#enter(item);
    } else if (event.key === "ArrowRight" && item.unfolded === false) {
      this.#fold(item, false);
    } else if (event.key === "ArrowRight" && item.unfolded) {
      this.#list.focus(index + 1);
    } else if (event.key === "ArrowLeft" && item.unfolded) {
      this.#fold(item, true);
    } else if (event.key === "ArrowLeft" && item.level > 1) {
      const parent = this.#list.items.findLastIndex((other, at) => at < index && other.level < item.level);
      this.#list.focus(parent);
    } else {
      return;
    }
    event.preventDefault();
  }
}

/**
 * @param {HTMLElement} element
 * @param {ReturnType<typeof parts>} made
 * @param {RunState} run
 * @param {number} now
 */
function drawRun(element, made, run, now) {
  const { inputTokens, outputTokens } = run.usage;
  const tokens = hasUsage(run.usage) ? brief(inputTokens + outputTokens) : UNKNOWN;
  const cost = price(run.usage);
  element.dataset.tone = run.state;
  setIcon(made.icon, run.state);
  setText(made.name, line(run.agentName, 128) || "Run");
  setText(made.state, stateName(run.state));
  setText(made.clock, clock(run.startedAt));
  setText(made.took, took(run, now));
  setText(made.tokens, `${tokens} tokens`);
  setText(made.cost, cost.text);
  setAttribute(made.cost, "title", cost.note || null);
}

/**
 * The elements of a line.
 * @param {Item["kind"]} kind
 */
function parts(kind) {
  const drawing = icon(kind === "run" ? "running" : kind);
  const fold = h("span", { class: "fold" }, icon("fold"));
  const name = h("span", { class: "name", dir: "auto" }, kind === "all" ? "All events" : "");
  const [state, time, length, tokens, price] = ["state", "clock", "took", "tokens", "cost"].map(
    (part) => h("span", { class: part }),
  );
  const first = h("span", { class: "first" }, name, time, length);
  const second = h("span", { class: "second" }, state, tokens, price);
  const children = [fold, drawing, first, second];
  return { icon: drawing, fold, name, state, clock: time, took: length, tokens, cost: price, children };
}
