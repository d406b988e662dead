// What the page keeps of the stream: the newest events as they came, all of them and by run.

import { parse } from "./format.js";

/** @typedef {import("/emitter.js").Frame} EventFrame */
/** @typedef {import("/emitter.js").Frame} GapFrame */

/**
 * An event or a gap, in the order in which they came.
 * @typedef {object} Entry
 * @property {number} ordinal
 * @property {EventFrame | null} event
 * @property {GapFrame | null} gap
 * @property {number | null} at when it was recorded; a gap, the event before it
 * @property {number} weight about how many characters it holds
 * @property {readonly number[]} waits the `run_sequence` of each wait of its run that is open behind it
 */

/** How many entries are kept, and how many characters. */
export const ENTRIES = 20_000;
export const CHARACTERS = 64 * 1024 * 1024;

/** @type {readonly number[]} */
const NONE = Object.freeze([]);

/** How many gaps are told in the list of runs. */
const GAPS = 100;

/** A part of the log that grows at its end and is let go at its beginning. */
export class Story {
  /** @type {Entry[]} */
  entries = [];
  /** How many entries were let go. */
  gone = 0;

  /** How many entries there were ever. */
  get end() {
    return this.gone + this.entries.length;
  }

  /**
   * The entry that came as number `index`, counted from 0 over all that there were ever.
   * @param {number} index
   * @returns {Entry | undefined}
   */
  at(index) {
    return this.entries[index - this.gone];
  }

  /** @param {number} count */
  letGo(count) {
    this.entries.splice(0, count);
    this.gone += count;
  }
}

/** The newest events. */
export class EventLog {
  /** Every entry. */
  all = new Story();
  /** The newest gaps. @type {Entry[]} */
  gaps = [];
  /** How many gaps there were ever. */
  gapCount = 0;
  /** How many events of this epoch there were ever, since the page was opened. */
  eventCount = 0;

  /** @type {Map<string, Story>} */
  #runs = new Map();
  #weight = 0;
  #ordinal = 0;
  /** @type {number | null} */
  #at = null;
  #known;
  #entries;
  #characters;

  /**
   * @param {(runId: string) => boolean} known whether a run is still listed
   * @param {{entries?: number, characters?: number}} [bounds]
   */
  constructor(known, { entries = ENTRIES, characters = CHARACTERS } = {}) {
    this.#known = known;
    this.#entries = entries;
    this.#characters = characters;
  }

  /**
   * What is kept of a run. A run that starts here gets its own.
   * @param {string} runId
   * @returns {Story}
   */
  of(runId) {
    let story = this.#runs.get(runId);
    if (!story) {
      story = new Story();
      this.#runs.set(runId, story);
    }
    return story;
  }

  /** @param {EventFrame} event @param {readonly number[]} [waits] */
  append(event, waits = NONE) {
    const entry = this.#add(event, null, waits);
    this.eventCount += 1;
    if (event.run_id) {
      this.#begin(event);
      this.of(event.run_id).entries.push(entry);
    }
    // A parent's story tells that its sub-agent began.
    if (event.type === "agent_started" && event.parent_run_id) {
      this.of(event.parent_run_id).entries.push(entry);
    }
    this.#trim();
  }

  /** A run that starts although its id is known is another one. @param {EventFrame} event */
  #begin({ type, run_id, custom, violation }) {
    const started = type === "agent_started" && !custom && !violation;
    if (started && this.of(run_id).entries.some((entry) => entry.event?.run_id === run_id)) {
      this.#runs.delete(run_id);
    }
  }

  /**
   * @param {GapFrame} gap
   * @param {Iterable<string>} runIds the runs that may miss something by it
   */
  appendGap(gap, runIds) {
    const entry = this.#add(null, gap, NONE);
    this.gapCount += 1;
    this.gaps.push(entry);
    this.gaps.splice(0, this.gaps.length - GAPS);
    for (const runId of runIds) {
      this.of(runId).entries.push(entry);
    }
    this.#trim();
  }

  /** Forgets a run that is no longer listed; its events stay in `all`. @param {string} runId */
  forget(runId) {
    this.#runs.delete(runId);
  }

  /** Forgets every event: the stream has begun anew. That it did, the gaps tell. */
  beginAnew() {
    this.all = new Story();
    this.all.entries.push(...this.gaps);
    this.#weight = this.gaps.reduce((sum, { weight }) => sum + weight, 0);
    this.#runs.clear();
    this.eventCount = 0;
  }

  /**
   * @param {EventFrame | null} event
   * @param {GapFrame | null} gap
   * @param {readonly number[]} waits
   */
  #add(event, gap, waits) {
    this.#ordinal += 1;
    this.#at = parse(event?.recorded_at) ?? this.#at;
    const entry = { ordinal: this.#ordinal, event, gap, at: this.#at, weight: weigh(event ?? gap), waits };
    this.all.entries.push(entry);
    this.#weight += entry.weight;
    return entry;
  }

  /** Lets go of a twentieth at a time, so that a full log does not move at every event. */
  #trim() {
    const { entries } = this.all;
    if (entries.length <= this.#entries && this.#weight <= this.#characters) {
      return;
    }
    const most = entries.length > this.#entries ? Math.floor(this.#entries * 0.95) : this.#entries;
    const heaviest = this.#weight > this.#characters ? this.#characters * 0.95 : this.#characters;
    let count = 0;
    while (count < entries.length - 1 && (entries.length - count > most || this.#weight > heaviest)) {
      this.#weight -= entries[count].weight;
      count += 1;
    }
    const floor = entries[count].ordinal;
    const touched = new Set(entries.slice(0, count).flatMap(({ event }) => runsOf(event)));
    this.all.letGo(count);
    for (const runId of touched) {
      const story = this.#runs.get(runId);
      if (story) {
        const kept = story.entries.findIndex(({ ordinal }) => ordinal >= floor);
        story.letGo(kept < 0 ? story.entries.length : kept);
      }
      if (story?.entries.length === 0 && !this.#known(runId)) {
        this.#runs.delete(runId);
      }
    }
  }
}

/** @param {EventFrame | null} event */
function runsOf(event) {
  return [event?.run_id, event?.parent_run_id].filter((id) => id !== undefined);
}

/**
 * About how many characters a value holds.
 * @param {unknown} value
 * @returns {number}
 */
function weigh(value) {
  if (typeof value === "string") {
    return value.length;
  }
  if (typeof value !== "object" || value === null) {
    return 8;
  }
  let sum = 16;
  for (const part of Array.isArray(value) ? value : Object.values(value)) {
    sum += weigh(part);
  }
  return sum;
}
