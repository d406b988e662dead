// Says what matters to whoever listens instead of looking: rarely, and several things as one.

import { counted, line } from "./format.js";

/** The least time between two announcements. */
export const EVERY_MS = 3_000;

/** The kinds of what is told of runs, with the word for several of them. */
const VERBS = { started: "started", completed: "completed", failed: "failed", cancelled: "was cancelled", waiting: "waits for a person" };
const PLURALS = { started: "started", completed: "completed", failed: "failed", cancelled: "cancelled", waiting: "waiting" };

/** @typedef {keyof typeof VERBS} RunNews */

export class Announcer {
  #say;
  #later;
  #waiting = false;
  /** @type {Map<RunNews, {name: string, times: number}>} */
  #runs = new Map();
  #gaps = 0;
  #words = "";

  /**
   * @param {(text: string) => void} say
   * @param {(run: () => void, ms: number) => void} [later]
   */
  constructor(say, later = (run, ms) => void setTimeout(run, ms)) {
    this.#say = say;
    this.#later = later;
  }

  /**
   * @param {RunNews} news
   * @param {string} name of the agent
   */
  run(news, name) {
    this.#runs.set(news, { name, times: (this.#runs.get(news)?.times ?? 0) + 1 });
    this.#soon();
  }

  gap() {
    this.#gaps += 1;
    this.#soon();
  }

  /**
   * Of the connection, and of what a person asked for; only the last word counts.
   * @param {string} words
   */
  tell(words) {
    this.#words = words;
    this.#soon();
  }

  #soon() {
    if (!this.#waiting) {
      this.#waiting = true;
      // What comes at the same moment is told together.
      this.#later(() => this.#flush(), 100);
    }
  }

  #flush() {
    const parts = [...this.#runs].map(([news, { name, times }]) =>
      times === 1 ? `${line(name, 60) || "A run"} ${VERBS[news]}.` : `${counted(times, "run")} ${PLURALS[news]}.`);
    if (this.#gaps > 0) {
      parts.push(`${counted(this.#gaps, "gap")}: events may be missing.`);
    }
    if (this.#words) {
      parts.push(this.#words);
    }
    this.#runs.clear();
    this.#gaps = 0;
    this.#words = "";
    if (parts.length === 0) {
      this.#waiting = false;
      return;
    }
    this.#say(parts.join(" "));
    this.#later(() => this.#flush(), EVERY_MS);
  }
}
