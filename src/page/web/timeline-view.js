// Draws a run's timeline.

import { h, icon, setAttribute, setIcon, setText } from "./dom.js";
import { offset } from "./format.js";
import { pretty, showJson } from "./json.js";
import { Rows } from "./rows.js";
import { describe } from "./steps.js";
import { apply, seed } from "./timeline.js";
import { VirtualList } from "./virtual.js";

/** @typedef {import("/emitter.js").RunState} RunState */
/** @typedef {import("./log.js").Story} Story */
/** @typedef {import("./rows.js").Row} Row */
/** @typedef {import("./virtual.js").Drawn & {parts: ReturnType<typeof parts>}} DrawnStep */

/** How many entries of a run that was just chosen are taken in at once. */
const AT_ONCE = 1_000;

export class TimelineView {
  #rows = new Rows();
  /** @type {RunState | null} */
  #run = null;
  /** @type {Story | null} */
  #story = null;
  #read = 0;
  /** @type {Set<string>} */
  #unfolded = new Set();
  /** @type {VirtualList<Row>} */
  #list;
  #elements;
  #request;
  #open;
  #now;

  /**
   * @param {{scroller: HTMLElement, canvas: HTMLElement, latest: HTMLElement, note: HTMLElement}} elements
   * @param {{request: () => void, open: (runId: string) => void, now: () => number}} page
   */
  constructor(elements, { request, open, now }) {
    this.#elements = elements;
    this.#request = request;
    this.#now = now;
    this.#open = open;
    this.#list = new VirtualList({
      ...elements,
      key: (row) => row.key,
      estimate,
      create: (row) => this.#create(row),
      update: (drawn, row, index) => this.#update(drawn, row, index),
      stick: "end",
      request,
    });
    elements.latest.addEventListener("click", () => this.#list.toEnd());
  }

  /** How many rows are in the document. */
  get drawn() {
    return this.#list.drawn;
  }

  /**
   * @param {RunState} run
   * @param {Story} story
   */
  show(run, story) {
    if (this.#run === run && this.#story === story) {
      return;
    }
    this.#run = run;
    this.#story = story;
    this.#read = story.gone;
    this.#rows = new Rows();
    this.#unfolded.clear();
    if (run.partial) {
      seed(this.#rows, run);
    }
    this.#list.show(this.#rows.list);
    // Who opens a run that is over reads it from its beginning.
    this.#list.stuck = run.endedAt === null;
  }

  render() {
    const run = this.#run;
    const story = this.#story;
    if (!run || !story) {
      return;
    }
    this.#take(run, story);
    const { rows, from } = this.#rows.takeChanges();
    this.#list.moved(from);
    for (const row of rows) {
      this.#list.touch(row.key);
    }
    this.#list.render();
    this.#elements.latest.hidden = this.#list.endInSight || run.endedAt !== null;
    this.#elements.note.hidden = !this.#rows.shortened && story.gone === 0;
  }

  /** Moves what runs on by itself. @returns {boolean} whether anything does */
  tick() {
    let moves = false;
    for (const { key, item } of this.#list.rows()) {
      const { kind, facts } = item.block;
      if ((kind === "tool" && facts.state === "open") || (kind === "waiting" && facts.ended === undefined)) {
        this.#list.touch(key);
        moves = true;
      }
    }
    return moves;
  }

  /**
   * @param {RunState} run
   * @param {Story} story
   */
  #take(run, story) {
    this.#read = Math.max(this.#read, story.gone);
    const end = Math.min(story.end, this.#read + AT_ONCE);
    for (; this.#read < end; this.#read += 1) {
      const entry = story.at(this.#read);
      if (entry) {
        apply(this.#rows, entry, run.runId);
      }
    }
    if (this.#read < story.end) {
      this.#request();
    }
  }

  get #start() {
    return Date.parse(this.#run?.startedAt ?? this.#run?.lastEventAt ?? "") || this.#now();
  }

  /** @param {Row} row @returns {DrawnStep} */
  #create(row) {
    const { block } = row;
    const first = block.rows[0] === row;
    const made = parts(block.kind);
    const element = h("div", { role: "listitem", class: `step step-${block.kind}` }, made.when, made.mark, made.what);
    element.classList.toggle("step-more", !first);
    made.head.addEventListener("click", () => this.#toggle(row));
    made.link.addEventListener("click", () => this.#open(block.facts.runId));
    const focus = made.head instanceof HTMLButtonElement ? made.head : block.kind === "child" ? made.link : element;
    return { element, focus, parts: made };
  }

  /**
   * @param {DrawnStep} drawn
   * @param {Row} row
   * @param {number} index
   */
  #update({ element, parts: made }, row, index) {
    setAttribute(element, "aria-setsize", String(this.#list.items.length));
    setAttribute(element, "aria-posinset", String(index + 1));
    grow(made.words, row.text);
    const { block } = row;
    if (block.rows[0] !== row) {
      element.classList.add("step-more");
      return;
    }
    element.classList.remove("step-more");
    const step = describe(block, this.#now());
    // A call that is known by its end alone may say that it took longer than the run.
    setText(made.when, block.at === null ? "" : offset(Math.max(0, block.at - this.#start)));
    setIcon(made.icon, step.icon);
    element.dataset.tone = step.tone;
    setText(made.label, step.label);
    setText(made.note, step.note);
    setText(made.state, step.state);
    setText(made.took, step.took);
    setText(made.status, step.status);
    made.bar.hidden = step.progress === null;
    made.bar.style.setProperty("--progress", String(step.progress ?? 0));
    drawChoices(made.choices, step.choices);
    this.#drawDetails(made, row, step.details);
  }

  /**
   * @param {DrawnStep["parts"]} made
   * @param {Row} row
   * @param {[string, unknown][]} details
   */
  #drawDetails(made, row, details) {
    const unfolded = details.length > 0 && this.#unfolded.has(row.key);
    made.fold.classList.toggle("fold-none", details.length === 0);
    setAttribute(made.head, "aria-expanded", details.length > 0 ? String(unfolded) : null);
    made.panel.hidden = !unfolded;
    const text = unfolded ? JSON.stringify(details) : "";
    if (unfolded && made.panel.dataset.shown !== String(text.length)) {
      made.panel.dataset.shown = String(text.length);
      made.panel.replaceChildren(...details.flatMap(([name, value]) => {
        const shown = h("pre", { class: "json", tabindex: "0", role: "group", "aria-label": name });
        showJson(shown, pretty(value));
        return [h("h4", {}, name), shown];
      }));
    }
  }

  /** @param {Row} row */
  #toggle(row) {
    if (!this.#unfolded.delete(row.key)) {
      this.#unfolded.add(row.key);
    }
    this.#list.stuck = false;
    this.#list.touch(row.key);
    this.#request();
  }
}

/** The kinds that can be unfolded. */
const FOLDING = new Set(["tool", "end", "other"]);

/**
 * The elements of a step.
 * @param {import("./rows.js").Block["kind"]} kind
 */
function parts(kind) {
  const when = h("span", { class: "when" });
  const drawing = icon("dot");
  const mark = h("span", { class: "mark" }, drawing);
  const label = h("span", { class: "label", dir: "auto" });
  const note = h("span", { class: "note", dir: "auto" });
  const state = h("span", { class: "unseen" });
  const took = h("span", { class: "took" });
  const fold = icon("fold");
  const inHead = [label, note, state, took];
  const head = FOLDING.has(kind)
    ? h("button", { type: "button", class: "head" }, fold, ...inHead)
    : h("div", { class: "head" }, ...inHead);
  const status = h("p", { class: "status-line", dir: "auto" });
  const bar = h("div", { class: "bar", "aria-hidden": "true" });
  const words = document.createTextNode("");
  const said = h("p", { class: "words", dir: "auto" }, words);
  const choices = h("ul", { class: "choices", "aria-label": "Choices" });
  const link = h("button", { type: "button", class: "link" }, "Open its run");
  link.hidden = kind !== "child";
  const panel = h("div", { class: "panel" });
  panel.hidden = true;
  const what = h("div", { class: "what" }, head, status, bar, said, choices, link, panel);
  return { when, mark, icon: drawing, what, head, fold, label, note, state, took, status, bar, words, choices, link, panel };
}

/**
 * @param {HTMLElement} element
 * @param {string[]} choices
 */
export function drawChoices(element, choices) {
  element.hidden = choices.length === 0;
  if (element.childElementCount !== choices.length) {
    element.replaceChildren(...choices.map(() => h("li", { dir: "auto" })));
  }
  choices.forEach((choice, at) => setText(element.children[at], choice));
}

/**
 * Appends what is new, so that the browser need not lay out again what stands.
 * @param {Text} node
 * @param {string} text
 */
function grow(node, text) {
  const { data } = node;
  if (text === data) {
    return;
  }
  if (text.startsWith(data)) {
    node.appendData(text.slice(data.length));
  } else {
    node.data = text;
  }
}

/**
 * @param {Row} row
 * @param {number} width
 */
function estimate({ block, text }, width) {
  const head = text === "" || block.rows.length === 1 ? 40 : 16;
  const perLine = Math.max(20, (width - 120) / 7.5);
  return head + Math.ceil(text.length / perLine) * 24;
}
