// A list of which only the rows in sight are in the document, however many there are and however high each is.

/**
 * @typedef {object} Drawn a row in the document
 * @property {HTMLElement} element
 * @property {HTMLElement} focus what takes the keyboard's focus for it
 */

/**
 * @template T
 * @typedef {object} Options
 * @property {HTMLElement} scroller scrolls
 * @property {HTMLElement} canvas the list itself, in the scroller
 * @property {(item: T) => string} key
 * @property {(item: T, width: number) => number} estimate a row's height before it was measured
 * @property {(item: T) => Drawn} create
 * @property {(drawn: any, item: T, index: number) => void} update
 * @property {"start" | "end"} stick which end stays in sight when rows are added there
 * @property {() => void} request asks for a call of `render`
 * @property {(event: KeyboardEvent, item: T) => void} [onKey]
 */

/**
 * @template T
 * @typedef {Drawn & {key: string, item: T, index: number, top: number, stale: boolean}} Placed
 */

/** Rows beyond each edge. */
const SPARE = 6;
/** What is free above the first row, and below the last, where a button may stand. */
const PAD = 8;
const FOOT = 60;
/** However small rows are, there are no more. Two lists are in sight at once. */
const MOST = 140;

/** @template T */
export class VirtualList {
  /** @type {T[]} */
  items = [];
  /** Whether the end that rows are added to is kept in sight. */
  stuck = true;

  /** @type {Options<T>} */
  #options;
  /** The top of each row, and the end of the last. */
  #tops = [PAD];
  #valid = 0;
  /** @type {Map<string, number>} */
  #heights = new Map();
  /** @type {Map<string, Placed<T>>} */
  #placed = new Map();
  #width = 0;
  #height = 0;
  #scroll = 0;
  #total = -1;
  /** Which row is at the top edge, and how far it is scrolled out. */
  #anchor = { key: "", index: 0, by: 0 };
  /** The row that the Tab key leads to. */
  #active = "";
  /** @type {Set<string>} */
  #touched = new Set();

  /** @param {Options<T>} options */
  constructor(options) {
    this.#options = options;
    const { scroller, canvas } = options;
    scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
    canvas.addEventListener("focusin", (event) => this.#onFocus(event));
    new ResizeObserver(([{ contentRect }]) => this.#onResize(contentRect)).observe(scroller);
  }

  /** How many rows are in the document. */
  get drawn() {
    return this.#placed.size;
  }

  /**
   * Shows other items, from the end that sticks.
   * @param {T[]} items
   */
  show(items) {
    this.items = items;
    this.#heights.clear();
    // Other items may have the same keys, and look different.
    this.#clear();
    this.#touched.clear();
    this.#active = "";
    this.#anchor = { key: "", index: 0, by: 0 };
    this.#scroll = 0;
    this.#options.scroller.scrollTop = 0;
    this.stuck = true;
    this.moved(0);
  }

  /**
   * From `index` on, other items stand than before.
   * @param {number} index
   */
  moved(index) {
    this.#valid = Math.min(this.#valid, index);
  }

  /**
   * An item looks different.
   * @param {string} key
   */
  touch(key) {
    if (this.#placed.has(key)) {
      this.#touched.add(key);
    }
  }

  touchAll() {
    for (const key of this.#placed.keys()) {
      this.#touched.add(key);
    }
  }

  /** The rows in the document. */
  rows() {
    return this.#placed.values();
  }

  /** Whether the last row is in sight, or some of it. */
  get endInSight() {
    const { length } = this.items;
    return this.stuck || length === 0 || (this.#tops[length - 1] ?? Infinity) < this.#scroll + this.#height;
  }

  toEnd() {
    this.stuck = true;
    this.#options.request();
  }

  /**
   * @param {number} index
   */
  focus(index) {
    const item = this.items[Math.max(0, Math.min(index, this.items.length - 1))];
    if (item === undefined) {
      return;
    }
    this.#active = this.#options.key(item);
    this.#reveal(this.items.indexOf(item));
    this.render();
    this.#placed.get(this.#active)?.focus.focus({ preventScroll: true });
  }

  /** Where the keyboard's focus would be. */
  get activeIndex() {
    return this.items.findIndex((item) => this.#options.key(item) === this.#active);
  }

  render() {
    if (this.#height === 0) {
      return;
    }
    this.#layout();
    this.#settle();
    const drawn = this.#draw();
    if (this.#measure(drawn)) {
      this.#layout();
      this.#settle();
      this.#place();
      // Rows that came out lower than thought leave room for others.
      this.#options.request();
    }
    this.#remember();
  }

  #layout() {
    const { key, estimate } = this.#options;
    const tops = this.#tops;
    const { items } = this;
    tops.length = Math.min(tops.length, this.#valid + 1);
    for (let index = tops.length - 1; index < items.length; index += 1) {
      const height = this.#heights.get(key(items[index])) ?? estimate(items[index], this.#width);
      tops.push(tops[index] + height);
    }
    tops.length = items.length + 1;
    this.#valid = items.length;
    if (this.#heights.size > 2 * items.length + 1_000) {
      this.#heights.clear();
    }
    const total = tops[items.length] + (this.#options.stick === "end" ? FOOT : PAD);
    if (total !== this.#total) {
      this.#total = total;
      this.#options.canvas.style.height = `${total}px`;
    }
  }

  /** Keeps what a person looks at where it is, or the end in sight that they follow. */
  #settle() {
    let wanted = this.#scroll;
    if (this.stuck) {
      wanted = this.#options.stick === "end" ? this.#total - this.#height : 0;
    } else if (this.#anchor.key) {
      const index = this.#find(this.#anchor.key, this.#anchor.index);
      wanted = index < 0 ? wanted : this.#tops[index] + this.#anchor.by;
    }
    wanted = Math.round(Math.max(0, Math.min(wanted, this.#total - this.#height)));
    if (wanted !== this.#scroll) {
      this.#scroll = wanted;
      this.#options.scroller.scrollTop = wanted;
    }
  }

  #draw() {
    const [first, last] = this.#window();
    const keep = new Set();
    const drawn = [];
    for (let index = first; index < last; index += 1) {
      const row = this.#row(index);
      keep.add(row.key);
      if (row.stale) {
        this.#options.update(row, row.item, index);
        row.stale = false;
        drawn.push(row);
      }
    }
    for (const row of this.#placed.values()) {
      if (!keep.has(row.key) && !this.#keepsFocus(row)) {
        row.element.remove();
        this.#placed.delete(row.key);
      }
    }
    this.#touched.clear();
    const inOrder = [...this.#placed.values()].sort((a, b) => a.index - b.index);
    this.#order(inOrder);
    this.#place();
    this.#rove(inOrder);
    return drawn;
  }

  /**
   * The document has the rows in their order, for whoever does not look at it. A row that stays is not moved: it
   * would lose the focus.
   * @param {Placed<T>[]} inOrder
   */
  #order(inOrder) {
    const { canvas } = this.#options;
    let next = canvas.firstElementChild;
    for (const { element } of inOrder) {
      if (element === next) {
        next = next.nextElementSibling;
      } else {
        canvas.insertBefore(element, next);
      }
    }
  }

  /** @param {number} index */
  #row(index) {
    const item = this.items[index];
    const key = this.#options.key(item);
    let row = this.#placed.get(key);
    if (!row) {
      row = { ...this.#options.create(item), key, item, index, top: -1, stale: true };
      row.element.dataset.row = key;
      this.#placed.set(key, row);
    }
    if (this.#touched.has(key) || row.index !== index || row.item !== item) {
      row.stale = true;
    }
    row.item = item;
    row.index = index;
    return row;
  }

  /** A row that has the focus stays, out of sight, until its item is gone. @param {Placed<T>} row */
  #keepsFocus(row) {
    if (!row.element.contains(document.activeElement)) {
      return false;
    }
    row.index = this.#find(row.key, row.index);
    return row.index >= 0;
  }

  #place() {
    for (const row of this.#placed.values()) {
      const top = this.#tops[row.index];
      if (top !== row.top) {
        row.top = top;
        row.element.style.transform = `translateY(${top}px)`;
      }
    }
  }

  /**
   * @param {Placed<T>[]} rows
   * @returns {boolean} whether a row is not as high as was thought
   */
  #measure(rows) {
    let different = false;
    const heights = rows.map((row) => row.element.offsetHeight);
    rows.forEach((row, at) => {
      const thought = this.#tops[row.index + 1] - this.#tops[row.index];
      if (heights[at] !== thought) {
        this.#heights.set(row.key, heights[at]);
        this.moved(row.index);
        different = true;
      }
    });
    return different;
  }

  #window() {
    const first = Math.max(0, this.#at(this.#scroll) - SPARE);
    const last = Math.min(this.items.length, this.#at(this.#scroll + this.#height) + 1 + SPARE);
    return [first, Math.min(last, first + MOST)];
  }

  /**
   * The row at a height.
   * @param {number} height
   */
  #at(height) {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#tops[middle + 1] <= height) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  /**
   * The index of an item that stood at `guess`.
   * @param {string} key
   * @param {number} guess
   */
  #find(key, guess) {
    const item = this.items[guess];
    if (item !== undefined && this.#options.key(item) === key) {
      return guess;
    }
    return this.items.findIndex((other) => this.#options.key(other) === key);
  }

  #remember() {
    const index = this.#at(this.#scroll);
    const item = this.items[index];
    this.#anchor = item === undefined
      ? { key: "", index: 0, by: 0 }
      : { key: this.#options.key(item), index, by: this.#scroll - this.#tops[index] };
  }

  #onScroll() {
    const scroll = this.#options.scroller.scrollTop;
    if (Math.abs(scroll - this.#scroll) < 1) {
      return;
    }
    this.#scroll = scroll;
    this.stuck = this.#options.stick === "end" ? scroll + this.#height >= this.#total - 8 : scroll <= 2;
    this.#remember();
    this.#options.request();
  }

  /** @param {DOMRectReadOnly} size */
  #onResize({ width, height }) {
    if (width !== this.#width && width > 0) {
      this.#heights.clear();
      this.touchAll();
      this.moved(0);
      this.#width = width;
    }
    this.#height = height;
    if (height === 0) {
      this.#clear();
    }
    this.#options.request();
  }

  /** What is not shown has no rows. */
  #clear() {
    this.#options.canvas.replaceChildren();
    this.#placed.clear();
  }

  /**
   * One row of the list is on the Tab key's way; the arrows lead to the others.
   * @param {Iterable<Placed<T>>} rows
   */
  #rove(rows) {
    let active = this.#placed.get(this.#active);
    for (const row of rows) {
      active ??= row;
      row.focus.tabIndex = row === active ? 0 : -1;
    }
  }

  /** @param {FocusEvent} event */
  #onFocus(event) {
    const element = /** @type {HTMLElement} */ (event.target).closest("[data-row]");
    const key = element instanceof HTMLElement ? element.dataset.row : undefined;
    if (key !== undefined && key !== this.#active) {
      this.#active = key;
      this.#rove(this.#placed.values());
    }
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const row = this.#placed.get(this.#active);
    if (!row || event.target !== row.focus || event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const page = Math.max(1, this.#at(this.#scroll + this.#height) - this.#at(this.#scroll) - 1);
    /** @type {Record<string, number>} */
    const targets = {
      ArrowDown: row.index + 1,
      ArrowUp: row.index - 1,
      PageDown: row.index + page,
      PageUp: row.index - page,
      Home: 0,
      End: this.items.length - 1,
    };
    if (event.key in targets) {
      event.preventDefault();
      this.focus(targets[event.key]);
    } else {
      this.#options.onKey?.(event, row.item);
    }
  }

  /**
   * Brings a row into sight.
   * @param {number} index
   */
  #reveal(index) {
    this.#layout();
    const top = this.#tops[index];
    const end = this.#tops[index + 1];
    let wanted = this.#scroll;
    if (top < wanted || end - top > this.#height) {
      wanted = top;
    } else if (end > wanted + this.#height) {
      wanted = end - this.#height;
    }
    if (wanted !== this.#scroll) {
      this.stuck = this.#options.stick === "end" ? index === this.items.length - 1 : wanted <= 2;
      this.#scroll = wanted;
      this.#options.scroller.scrollTop = wanted;
      this.#remember();
    }
  }
}
