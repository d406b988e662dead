// A TCP proxy between a client and the server, with faults on demand.

import net from "node:net";

export class Proxy {
  /** Everything that is open through it. */
  #pairs = new Set();
  #stalled = false;
  #refusing = false;
  #server;
  #target;

  /** How many connections it has taken in. */
  accepted = 0;
  /** Whether it cuts what asks to become a WebSocket. */
  cutsUpgrades = false;

  /** A proxy in front of `target`, a `host:port`. */
  static async start(target) {
    const proxy = new Proxy();
    proxy.#aim(target);
    proxy.#server = net.createServer({ pauseOnConnect: true }, (near) => proxy.#accept(near));
    await new Promise((resolve, reject) => {
      proxy.#server.once("error", reject);
      proxy.#server.listen(0, "127.0.0.1", resolve);
    });
    return proxy;
  }

  get address() {
    return `127.0.0.1:${this.#server.address().port}`;
  }

  get url() {
    return `http://${this.address}`;
  }

  /** How many connections are open now. */
  get open() {
    return this.#pairs.size;
  }

  /** Cuts every connection that is open, in the middle of whatever it says. */
  cut() {
    for (const pair of this.#pairs) {
      pair.end();
    }
  }

  /** Forwards nothing any more, in either direction, and closes nothing. */
  stall() {
    this.#stalled = true;
    for (const pair of this.#pairs) {
      pair.pause();
    }
  }

  /** Stalls for `ms`, then goes on. */
  async stallFor(ms = 30_000) {
    this.stall();
    await new Promise((resolve) => setTimeout(resolve, ms));
    this.resume();
  }

  /** Goes on after a stall. */
  resume() {
    this.#stalled = false;
    for (const pair of this.#pairs) {
      pair.resume();
    }
  }

  /** Whether new connections are cut at once. */
  refuse(refusing = true) {
    this.#refusing = refusing;
  }

  async stop() {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #aim(target) {
    const [host, port] = target.split(":");
    this.#target = { host, port: Number(port) };
  }

  #accept(near) {
    this.accepted += 1;
    if (this.#refusing) {
      near.destroy();
      return;
    }
    const pair = new Pair(near, net.connect(this.#target), this.cutsUpgrades);
    this.#pairs.add(pair);
    near.once("close", () => this.#pairs.delete(pair));
    if (!this.#stalled) {
      pair.resume();
    }
  }
}

/** One connection on both sides. */
class Pair {
  #sides;

  constructor(near, far, cutsUpgrades) {
    this.#sides = [near, far];
    far.pause();
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      from.setNoDelay(true);
      from.on("error", () => this.end());
      from.on("close", () => this.end());
      from.on("end", () => to.end());
      from.on("data", (bytes) => {
        if (cutsUpgrades && from === near && /^upgrade: *websocket/im.test(bytes.toString("latin1"))) {
          this.end();
        } else {
          to.write(bytes);
        }
      });
    }
  }

  pause() {
    this.#sides.forEach((side) => side.pause());
  }

  resume() {
    this.#sides.forEach((side) => side.resume());
  }

  end() {
    this.#sides.forEach((side) => side.destroy());
  }
}
