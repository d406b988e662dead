// A clock, sockets, pages and frames for the tests, all in memory.

import { EmitterClient } from "../emitter.js";

export const EPOCH = "00000000000000aa";
export const NEXT_EPOCH = "00000000000000bb";

/** Lets everything that is ready happen. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

/** Time that passes only when told to. */
export class Clock {
  #timers = new Map();
  #ids = 0;
  #now = 0;
  #wall = 1_700_000_000_000;

  now = () => this.#now;
  wall = () => this.#wall;

  setTimeout = (callback, ms) => {
    this.#timers.set(++this.#ids, { at: this.#now + ms, callback });
    return this.#ids;
  };

  clearTimeout = (id) => this.#timers.delete(id);

  /** How many timers are set. */
  get pending() {
    return this.#timers.size;
  }

  /** Lets `ms` pass, and each timer fire when it is due. */
  async pass(ms) {
    await settled();
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) {
        break;
      }
      const [id, { at, callback }] = due;
      this.#timers.delete(id);
      this.#wall += Math.max(at - this.#now, 0);
      this.#now = Math.max(at, this.#now);
      callback();
      await settled();
    }
    this.#wall += end - this.#now;
    this.#now = end;
  }

  /** The machine sleeps: only the wall clock goes on, and no timer fires. */
  sleep(ms) {
    this.#wall += ms;
  }
}

/** One WebSocket as a test sees it: what the client sent, and what it is told. */
class FakeSocket {
  readyState = 1;
  sent = [];
  closed = false;
  onmessage = null;
  onclose = null;

  constructor(url, protocols) {
    this.url = new URL(url);
    this.protocols = protocols;
  }

  get token() {
    return Buffer.from(this.protocols[1].split(".").at(-1), "base64url").toString();
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
    this.readyState = 3;
  }

  /** The server sends a frame. */
  say(...frames) {
    for (const frame of frames) {
      this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
    }
  }

  /** The connection ends. */
  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

/** A client on a clock and on sockets of its own. `told` is what it dispatched. */
export function start(options = {}, environment = {}) {
  const clock = new Clock();
  const sockets = [];
  const warnings = [];
  const asked = [];
  const window = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const WebSocket = function (url, protocols) {
    const socket = new FakeSocket(url, protocols);
    sockets.push(socket);
    return socket;
  };
  const token = (request) => {
    asked.push(request.reason);
    return `token-${asked.length}`;
  };
  const { now, wall, setTimeout, clearTimeout } = clock;
  const defaults = {
    ...{ WebSocket, now, wall, setTimeout, clearTimeout, window, document },
    fetch: () => Promise.reject(new TypeError("there is no SSE here")),
    random: () => 1,
    warn: (text) => warnings.push(text),
  };
  const base = { url: "http://bridge.example", token, transport: "websocket" };
  const client = new EmitterClient({ ...base, ...options }, { ...defaults, ...environment });
  const told = [];
  for (const kind of ["event", "gap", "reset", "caughtup", "connection", "run"]) {
    client.addEventListener(kind, ({ detail }) => told.push({ ...detail, run: detail.run && { ...detail.run }, name: kind }));
  }
  return {
    ...{ client, clock, sockets, warnings, asked, window, document, told },
    /** The newest socket. */
    get socket() {
      return sockets.at(-1);
    },
    /** Connects and is told that the stream begins. */
    async open(fields = {}) {
      client.connect();
      await settled();
      sockets.at(-1)?.say(established(fields));
    },
    /** The ids of the events that were told. */
    get ids() {
      return told.filter(({ name }) => name === "event").map(({ frame }) => frame.event_id);
    },
    get kinds() {
      return told.filter(({ name }) => name !== "run" && name !== "connection").map(({ name }) => name);
    },
  };
}

export const established = (fields = {}) => ({
  type: "connection_established",
  connection_id: "c1",
  user_id: "u1",
  position: `${EPOCH}-0`,
  heartbeat_interval_ms: 20_000,
  open_runs: [],
  ...fields,
});

export const heartbeat = (offset) => ({ type: "connection_heartbeat", position: `${EPOCH}-${offset}` });

export const closing = (reason, reconnect_after_ms) => ({ type: "connection_closing", reason, reconnect_after_ms });

export const gap = (reason, next, open_runs = []) => ({
  type: "connection_gap",
  reason,
  after: `${EPOCH}-0`,
  next,
  open_runs,
});

/** An event at `offset`, of the run r1 unless `fields` say otherwise. */
export const event = (offset, type = "agent_thinking", payload = {}, fields = {}) => ({
  type,
  event_id: `e${offset}`,
  epoch: EPOCH,
  offset,
  run_sequence: offset,
  timestamp: at(offset),
  recorded_at: at(offset),
  user_id: "u1",
  run_id: "r1",
  agent_name: "researcher",
  payload,
  ...fields,
});

/** The time of the event at `offset`. */
export const at = (offset) => new Date(Date.UTC(2026, 10, 21) + offset * 1000).toISOString();
