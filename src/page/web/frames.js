// Does work once for each frame that the browser draws, and bounds how much.

/** What a frame needs of its surroundings. */
const browser = {
  /** @param {() => void} run */
  draw: (run) => void requestAnimationFrame(run),
  /** Not by a timer: a page in the background gets one a minute. @param {() => void} run */
  later: (run) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = run;
    port2.postMessage(null);
  },
  hidden: () => document.hidden,
  /** @param {() => void} run */
  onVisibility: (run) => document.addEventListener("visibilitychange", run),
};

/** The frames of this page. */
export class Frames {
  #render;
  #host;
  #asked = false;
  /** @type {(() => void)[]} */
  #waiting = [];

  /**
   * @param {() => void} render draws what changed
   * @param {typeof browser} [host]
   */
  constructor(render, host = browser) {
    this.#render = render;
    this.#host = host;
    // What waits for a frame that is not drawn would wait until somebody looks.
    host.onVisibility(() => this.#wake());
  }

  /** Asks for one drawing; asked again before that, it stays one. */
  request() {
    if (!this.#asked) {
      this.#asked = true;
      this.#host.draw(() => {
        this.#asked = false;
        this.#render();
      });
    }
  }

  /**
   * The next frame. A page in the background has none, and goes on without.
   * @returns {Promise<void>}
   */
  next() {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (this.#waiting.length === 1) {
        const wake = () => this.#wake();
        this.#host.hidden() ? this.#host.later(wake) : this.#host.draw(wake);
      }
    });
  }

  #wake() {
    const waiting = this.#waiting;
    this.#waiting = [];
    waiting.forEach((resolve) => resolve());
  }
}

/** How many items may be applied in one frame. */
export class Budget {
  #limit;
  #next;
  #spent = 0;
  /** @type {Promise<void> | null} */
  #frame = null;

  /** The most that were applied in one frame. */
  most = 0;

  /**
   * @param {number} limit
   * @param {() => Promise<void>} next the next frame
   */
  constructor(limit, next) {
    this.#limit = limit;
    this.#next = next;
  }

  /**
   * Counts one item. Where the frame has had its share, gives the frame to wait for.
   * @returns {Promise<void> | null}
   */
  spend() {
    if (this.#spent === 0) {
      this.#frame = this.#next().then(() => {
        this.#spent = 0;
      });
    }
    this.#spent += 1;
    this.most = Math.max(this.most, this.#spent);
    return this.#spent < this.#limit ? null : this.#frame;
  }
}
