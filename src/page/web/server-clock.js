// The service's clock, by which the page measures: the times of events are the service's, and this machine's clock may
// differ from that.

export class ServerClock {
  #local;
  /** What the service's clock is ahead; null until a live event came. @type {number | null} */
  #ahead = null;
  /** The newest time that an event was recorded at. */
  #newest = -Infinity;

  /** @param {() => number} local this machine's clock, in milliseconds since 1970 */
  constructor(local = Date.now) {
    this.#local = local;
  }

  /**
   * @param {number | null} recordedAt
   * @param {boolean} live whether the event was recorded just now; a replayed one says nothing about the present
   */
  observe(recordedAt, live) {
    if (recordedAt === null) {
      return;
    }
    this.#newest = Math.max(this.#newest, recordedAt);
    if (live) {
      // The event that took least time on its way shows the difference best.
      this.#ahead = Math.max(this.#ahead ?? -Infinity, recordedAt - this.#local());
    }
  }

  /** The service's time, never before an event that was seen. */
  now() {
    return Math.max(this.#local() + (this.#ahead ?? 0), this.#newest);
  }
}
