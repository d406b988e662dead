// Draws a run and its sub-agents as bars over one time axis.

import { h, icon, setAttribute, setIcon, setText } from "./dom.js";
import { UNKNOWN, brief, duration, hasUsage, line, offset, price, stateName } from "./format.js";
import { VirtualList } from "./virtual.js";
import { axisOf, descendants, lanesOf, placeOf, together } from "./waterfall.js";

/** @typedef {import("/emitter.js").RunState} RunState */
/** @typedef {import("./waterfall.js").Lane} Lane */
/** @typedef {import("./virtual.js").Drawn & {parts: ReturnType<typeof parts>}} DrawnLane */

const ROW = 30;

export class WaterfallView {
  #runs;
  #now;
  /** @type {VirtualList<Lane>} */
  #list;
  #elements;
  /** @type {RunState | null} */
  #run = null;
  #axis = { from: 0, to: 1 };

  /**
   * @param {{scroller: HTMLElement, canvas: HTMLElement, axis: HTMLElement, totals: HTMLElement, note: HTMLElement}} elements
   * @param {{runs: ReadonlyMap<string, RunState>}} model
   * @param {{request: () => void, open: (runId: string) => void, now: () => number}} page
   */
  constructor(elements, { runs }, { request, open, now }) {
    this.#elements = elements;
    this.#runs = runs;
    this.#now = now;
    this.#list = new VirtualList({
      ...elements,
      key: (lane) => lane.key,
      estimate: () => ROW,
      create: (lane) => create(lane, open),
      update: (drawn, lane, index) => this.#update(drawn, lane, index),
      stick: "start",
      request,
    });
  }

  /** How many rows are in the document. */
  get drawn() {
    return this.#list.drawn;
  }

  /** @param {RunState} run */
  render(run) {
    if (run !== this.#run) {
      this.#run = run;
      this.#list.show([]);
    }
    const { lanes, more } = lanesOf(this.#runs, run);
    this.#axis = axisOf(lanes, this.#now());
    this.#list.items = lanes;
    this.#list.moved(0);
    this.#list.touchAll();
    this.#list.render();
    this.#elements.note.hidden = !more;
    drawAxis(this.#elements.axis, this.#axis);
    drawTotals(this.#elements.totals, run, descendants(this.#runs, run));
  }

  /** Whether something is drawn that grows by itself. */
  get moves() {
    return this.#list.items.some(({ end }) => end === null);
  }

  /**
   * @param {DrawnLane} drawn
   * @param {Lane} lane
   * @param {number} index
   */
  #update({ element, focus, parts: made }, lane, index) {
    const now = this.#now();
    const { left, width } = placeOf(lane, this.#axis, now);
    const took = duration((lane.end ?? Math.max(now, lane.start)) - lane.start);
    const { name, tone, drawing, state } = named(lane);
    setAttribute(element, "aria-setsize", String(this.#list.items.length));
    setAttribute(element, "aria-posinset", String(index + 1));
    element.dataset.tone = tone;
    element.style.setProperty("--level", String(lane.level));
    made.bar.style.setProperty("--left", String(left));
    made.bar.style.setProperty("--width", String(width));
    setIcon(made.icon, drawing);
    setText(made.name, name);
    setText(made.took, took);
    setText(made.tokens, lane.kind === "run" && hasUsage(lane.run.usage) ? tokensAndCost([lane.run]) : "");
    const said = [name, lane.kind === "run" ? "run" : lane.kind, state, offset(lane.start - this.#axis.from), took, made.tokens.textContent];
    setAttribute(focus, "aria-label", said.filter(Boolean).join(", "));
  }
}

/**
 * @param {Lane} lane
 * @param {(runId: string) => void} open
 * @returns {DrawnLane}
 */
function create(lane, open) {
  const made = parts();
  const element = h("div", { role: "listitem", class: `lane lane-${lane.kind}` }, made.head, made.track, made.took);
  made.head.addEventListener("click", () => open(lane.run.runId));
  return { element, focus: made.head, parts: made };
}

/** The elements of a lane. */
function parts() {
  const drawing = icon("dot");
  const name = h("span", { class: "name", dir: "auto" });
  const tokens = h("span", { class: "tokens" });
  const head = h("button", { type: "button", class: "head" }, drawing, name, tokens);
  const bar = h("span", { class: "extent" });
  const track = h("div", { class: "track" }, bar);
  // The head says it all to whoever does not see the bar.
  const took = h("span", { class: "took", "aria-hidden": "true" });
  return { icon: drawing, name, tokens, head, bar, took, track };
}

/**
 * How a lane is called and coloured.
 * @param {Lane} lane
 */
function named({ kind, run, call, wait }) {
  if (call) {
    const running = call.state === "open";
    const drawing = { open: "running", succeeded: "completed", failed: "failed" }[/** @type {string} */ (call.state)] ?? "cancelled";
    const tone = running ? "running" : call.state === "failed" ? "failed" : "tool";
    return { name: line(call.toolName, 128) || "tool", tone, drawing, state: running ? "running" : call.state };
  }
  if (wait) {
    return { name: line(wait.prompt || wait.reason, 128) || "Waits for a person", tone: "waiting", drawing: "waiting", state: "waiting" };
  }
  return { name: line(run.agentName, 128) || "Run", tone: run.state, drawing: kind === "run" ? run.state : "dot", state: stateName(run.state) };
}

/** @param {RunState[]} runs at least one */
function tokensAndCost(runs) {
  const usage = together(runs);
  const tokens = hasUsage(usage) ? brief(usage.inputTokens + usage.outputTokens) : UNKNOWN;
  const { text, note } = price(usage);
  return `${tokens} tokens · ${text}${note ? ` (${note})` : ""}`;
}

/** The parts of the axis that have a mark. */
const MARKS = [0, 0.25, 0.5, 0.75, 1];

/**
 * @param {HTMLElement} element
 * @param {{from: number, to: number}} axis
 */
function drawAxis(element, { from, to }) {
  if (element.childElementCount === 0) {
    element.append(...MARKS.map(() => h("span")));
  }
  MARKS.forEach((mark, at) => setText(element.children[at], offset(mark * (to - from))));
}

/**
 * @param {HTMLElement} element
 * @param {RunState} run
 * @param {RunState[]} below
 */
function drawTotals(element, run, below) {
  const parts = [`This run ${tokensAndCost([run])}`];
  if (below.length > 0) {
    parts.push(`Sub-agents (${below.length}) ${tokensAndCost(below)}`, `Together ${tokensAndCost([run, ...below])}`);
  }
  if (element.childElementCount !== parts.length) {
    element.replaceChildren(...parts.map(() => h("span")));
  }
  parts.forEach((words, at) => setText(element.children[at], words));
}
