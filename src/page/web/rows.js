// The rows of a timeline: blocks that later events change, and whose texts grow.

import { append } from "./pieces.js";

/**
 * Something that happened; a long text takes several rows.
 * @typedef {object} Block
 * @property {"start" | "thinking" | "thought" | "tool" | "text" | "waiting" | "end" | "child" | "other" | "gap"} kind
 * @property {number | null} at when, in milliseconds since 1970
 * @property {string} name by which later events find it; empty where none does
 * @property {string} alias another name, which the newest block with it has
 * @property {Row[]} rows at least one
 * @property {Record<string, any>} facts what is told of it beside its text
 */

/**
 * @typedef {object} Row
 * @property {Block} block
 * @property {string} text this row's piece of the block's text
 * @property {string} key
 */

/** The most rows of a timeline, and the most characters of its texts. */
export const ROWS = 5_000;
export const CHARACTERS = 2 * 1024 * 1024;

export class Rows {
  /** @type {Row[]} */
  list = [];
  /** Whether the oldest rows had to go. */
  shortened = false;
  /** The waits that are not closed. @type {Set<Block>} */
  waits = new Set();

  /** @type {Set<Row>} */
  #changed = new Set();
  #moved = 0;
  /** @type {Map<string, Block>} */
  #named = new Map();
  #keys = 0;
  #characters = 0;
  #mostRows;
  #mostCharacters;

  /** @param {{rows?: number, characters?: number}} [bounds] */
  constructor({ rows = ROWS, characters = CHARACTERS } = {}) {
    this.#mostRows = rows;
    this.#mostCharacters = characters;
  }

  /** What changed since it was asked last: rows to draw again, and from which row on others stand than before. */
  takeChanges() {
    const changes = { rows: this.#changed, from: this.#moved };
    this.#changed = new Set();
    this.#moved = this.list.length;
    return changes;
  }

  /** @param {string} name */
  find(name) {
    return this.#named.get(name);
  }

  /** The block that stands last. */
  get last() {
    return this.list[this.list.length - 1]?.block;
  }

  /**
   * @param {Block["kind"]} kind
   * @param {number | null} at
   * @param {{facts?: Record<string, any>, text?: string, name?: string, alias?: string}} [more]
   * @returns {Block}
   */
  add(kind, at, { facts = {}, text = "", name = "", alias = "" } = {}) {
    /** @type {Block} */
    const block = { kind, at, name, alias, facts, rows: [] };
    const row = this.#row(block, "");
    block.rows.push(row);
    this.list.push(row);
    for (const each of [name, alias].filter(Boolean)) {
      this.#named.set(each, block);
    }
    if (kind === "waiting") {
      this.waits.add(block);
    }
    this.grow(block, text);
    return block;
  }

  /**
   * Says more of a block.
   * @param {Block} block
   * @param {Record<string, any>} facts
   */
  change(block, facts) {
    Object.assign(block.facts, facts);
    this.#changed.add(block.rows[0]);
  }

  /**
   * Appends to the text of a block: only its last row changes, and others follow.
   * @param {Block} block
   * @param {string | undefined} text
   */
  grow(block, text) {
    if (!text) {
      return;
    }
    const last = block.rows[block.rows.length - 1];
    const pieces = [last.text];
    append(pieces, text);
    this.#characters += text.length;
    last.text = pieces[0];
    this.#changed.add(last);
    if (pieces.length > 1) {
      const added = pieces.slice(1).map((piece) => this.#row(block, piece));
      const after = this.list.lastIndexOf(last) + 1;
      this.list.splice(after, 0, ...added);
      block.rows.push(...added);
      this.#moved = Math.min(this.#moved, after);
    }
  }

  /**
   * Puts another text in place of a block's.
   * @param {Block} block
   * @param {string} text
   */
  rewrite(block, text) {
    const old = block.rows.map((row) => row.text).join("");
    if (old === text) {
      return;
    }
    const [first, ...rest] = block.rows;
    const after = this.list.lastIndexOf(first) + 1;
    this.list.splice(after, rest.length);
    this.#moved = Math.min(this.#moved, after);
    this.#characters -= old.length;
    block.rows = [first];
    first.text = "";
    this.#changed.add(first);
    this.grow(block, text);
  }

  /**
   * Takes a block out again.
   * @param {Block} block
   */
  remove(block) {
    const at = this.list.indexOf(block.rows[0]);
    this.#characters -= block.rows.reduce((sum, row) => sum + row.text.length, 0);
    this.list.splice(at, block.rows.length);
    this.#moved = Math.min(this.#moved, at);
    this.close(block);
  }

  /**
   * Ends the search for a block.
   * @param {Block} block
   */
  close(block) {
    for (const each of [block.name, block.alias]) {
      if (this.#named.get(each) === block) {
        this.#named.delete(each);
      }
    }
    this.waits.delete(block);
  }

  /** The blocks that later events find. */
  named() {
    return [...this.#named.values()];
  }

  /** Lets the oldest rows go where there are too many. */
  trim() {
    if (this.list.length <= this.#mostRows && this.#characters <= this.#mostCharacters) {
      return;
    }
    const { length } = this.list;
    const most = length > this.#mostRows ? Math.floor(this.#mostRows * 0.95) : this.#mostRows;
    const longest = this.#characters > this.#mostCharacters ? this.#mostCharacters * 0.95 : this.#mostCharacters;
    let count = 0;
    while (count < length - 1 && (length - count > most || this.#characters > longest)) {
      const { block, text } = this.list[count];
      this.#characters -= text.length;
      block.rows.shift();
      if (block.rows.length === 0) {
        this.close(block);
      }
      count += 1;
    }
    this.list.splice(0, count);
    this.shortened = true;
    this.#moved = 0;
  }

  /**
   * @param {Block} block
   * @param {string} text
   * @returns {Row}
   */
  #row(block, text) {
    this.#keys += 1;
    return { block, text, key: String(this.#keys) };
  }
}
