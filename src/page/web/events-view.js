// Draws events as they came, as JSON.

import { copy, h, icon, setAttribute, setText } from "./dom.js";
import { clock, count, gapReason, line } from "./format.js";
import { pretty, showJson } from "./json.js";
import { VirtualList } from "./virtual.js";

/** @typedef {import("./log.js").Entry} Entry */
/** @typedef {import("./log.js").Story} Story */
/** @typedef {import("./virtual.js").Drawn & {parts: ReturnType<typeof parts>}} DrawnEvent */

const ROW = 36;
const COPIED_MS = 2_000;

export class EventsView {
  /** @type {Story | null} */
  #story = null;
  /** The run whose events are shown; null for all. @type {string | null} */
  #runId = null;
  /** @type {Entry[]} */
  #items = [];
  #read = 0;
  /** @type {Set<string>} */
  #unfolded = new Set();
  /** @type {VirtualList<Entry>} */
  #list;
  #elements;
  #request;

  /**
   * @param {{scroller: HTMLElement, canvas: HTMLElement, latest: HTMLElement, note: HTMLElement}} elements
   * @param {{request: () => void, tell: (words: string) => void}} page
   */
  constructor(elements, { request, tell }) {
    this.#elements = elements;
    this.#request = request;
    this.tell = tell;
    this.#list = new VirtualList({
      ...elements,
      key,
      estimate: () => ROW,
      create: (entry) => this.#create(entry),
      update: (drawn, entry, index) => this.#update(drawn, entry, index),
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
   * @param {Story} story
   * @param {string | null} runId
   */
  show(story, runId) {
    if (this.#story === story && this.#runId === runId) {
      return;
    }
    this.#story = story;
    this.#runId = runId;
    this.#read = story.gone;
    this.#items = [];
    this.#unfolded.clear();
    this.#list.show(this.#items);
  }

  render() {
    const story = this.#story;
    if (!story) {
      return;
    }
    this.#letGo(story);
    this.#read = Math.max(this.#read, story.gone);
    this.#list.moved(this.#items.length);
    for (; this.#read < story.end; this.#read += 1) {
      const entry = story.at(this.#read);
      if (entry && (this.#runId === null || entry.gap || entry.event?.run_id === this.#runId)) {
        this.#items.push(entry);
      }
    }
    this.#list.render();
    this.#elements.latest.hidden = this.#list.endInSight;
    this.#elements.note.hidden = story.gone === 0;
  }

  /** What the story let go goes from the list too. @param {Story} story */
  #letGo(story) {
    const floor = story.entries[0]?.ordinal ?? Infinity;
    const kept = this.#items.findIndex(({ ordinal }) => ordinal >= floor);
    const gone = kept < 0 ? this.#items.length : kept;
    if (gone > 0) {
      for (const entry of this.#items.splice(0, gone)) {
        this.#unfolded.delete(key(entry));
      }
      this.#list.moved(0);
    }
  }

  /** @param {Entry} entry @returns {DrawnEvent} */
  #create(entry) {
    const made = parts(entry);
    const element = h("div", { role: "listitem", class: entry.gap ? "event event-gap" : "event" }, made.head, made.panel);
    made.head.addEventListener("click", () => this.#toggle(entry));
    made.copy.addEventListener("click", () => this.#copy(made));
    return { element, focus: made.head, parts: made };
  }

  /**
   * @param {DrawnEvent} drawn
   * @param {Entry} entry
   * @param {number} index
   */
  #update({ element, parts: made }, entry, index) {
    setAttribute(element, "aria-setsize", String(this.#items.length));
    setAttribute(element, "aria-posinset", String(index + 1));
    const unfolded = this.#unfolded.has(key(entry));
    setAttribute(made.head, "aria-expanded", String(unfolded));
    made.panel.hidden = !unfolded;
    if (unfolded && !made.json.firstChild) {
      showJson(made.json, pretty(entry.event ?? entry.gap));
    }
  }

  /** @param {Entry} entry */
  #toggle(entry) {
    if (!this.#unfolded.delete(key(entry))) {
      this.#unfolded.add(key(entry));
    }
    this.#list.stuck = false;
    this.#list.touch(key(entry));
    this.#request();
  }

  /** @param {DrawnEvent["parts"]} made */
  async #copy(made) {
    const copied = await copy(made.json.textContent ?? "", made.json);
    this.tell(copied ? "Copied." : "Selected: copy it with the keyboard.");
    setText(made.copy, copied ? "Copied" : "Selected");
    setTimeout(() => setText(made.copy, "Copy"), COPIED_MS);
  }
}

/** @param {Entry} entry */
function key({ ordinal }) {
  return String(ordinal);
}

/** @param {Entry} entry */
function parts({ event, gap }) {
  const frame = event ?? gap ?? { type: "" };
  const head = h(
    "button",
    { type: "button", class: "head" },
    icon(gap ? "gap" : "fold"),
    h("span", { class: "offset" }, gap ? "gap" : count(frame.offset ?? 0)),
    h("span", { class: "clock" }, clock(frame.recorded_at ?? frame.timestamp)),
    h("span", { class: "type" }, gap ? "Events may be missing" : line(frame.type, 64)),
    h("span", { class: "summary", dir: "auto" }, gap ? gapReason(gap.reason) : summary(frame)),
  );
  const button = h("button", { type: "button", class: "quiet copy" }, "Copy");
  const json = h("pre", { class: "json", tabindex: "0", role: "group", "aria-label": `JSON of ${line(frame.type, 64)}` });
  const panel = h("div", { class: "panel" }, button, json);
  panel.hidden = true;
  if (event) {
    head.dataset.eventId = event.event_id;
  }
  return { head, panel, copy: button, json };
}

/** The fields that say most of an event, the most telling first. */
const TELLING = ["text", "reasoning", "error", "tool_name", "message", "prompt", "reason", "code"];

/** @param {import("/emitter.js").Frame} frame */
function summary({ payload }) {
  const words = TELLING.map((field) => payload?.[field]).find((value) => typeof value === "string" && value !== "");
  return line(words ?? "", 160);
}
