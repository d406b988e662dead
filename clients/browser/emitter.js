// Reads one user's stream of the emitter in a browser, over WebSocket or SSE, and resumes by itself.

/**
 * One frame of the stream as the server sent it: an event, or a word on the connection (`connection_…`).
 * @typedef {{type: string, [field: string]: any}} Frame
 * @typedef {{epoch: string, offset: number}} Position
 * @typedef {"idle" | "connecting" | "open" | "waiting" | "closed" | "stopped"} ConnectionState
 * @typedef {"websocket" | "sse"} TransportName
 *
 * How the client stands. `retryAt` is in milliseconds since 1970, on a client that waits for its next attempt.
 * @typedef {object} Connection
 * @property {ConnectionState} state `closed`: by us. `stopped`: the server says not to come back.
 * @property {TransportName | null} transport
 * @property {string | null} reason Why it waits or stopped: the server's reason where it told one.
 * @property {number | null} retryAt
 * @property {string | null} connectionId
 * @property {string | null} userId
 *
 * What a client tells, in this order of the stream.
 * @typedef {{kind: "event", frame: Frame, run: RunState | null}
 *   | {kind: "gap", frame: Frame}
 *   | {kind: "reset"}
 *   | {kind: "caughtup", position: string}
 *   | {kind: "connection", connection: Connection}} Item
 *
 * Asked for a token. `expired`: the last one was; a cached one does not help.
 * @typedef {{reason: "connect" | "expiring" | "expired", signal: AbortSignal}} TokenRequest
 *
 * @typedef {object} ClientOptions
 * @property {string | URL} [url] The bridge's origin. Default: where this module came from.
 * @property {(request: TokenRequest) => string | Promise<string>} token
 * @property {string} [start] `head` (default), `oldest`, `open`, `acked`, or a position.
 * @property {string} [clientId] Names the client, one per tab. With it, the client acknowledges what it delivered.
 * @property {string} [threadId]
 * @property {string} [runId]
 * @property {string[]} [types]
 * @property {boolean} [join] Whether deltas may come joined when the client lags.
 * @property {"auto" | TransportName} [transport]
 *
 * What the client stands on; tests replace it.
 * @typedef {object} Environment
 * @property {typeof WebSocket} WebSocket
 * @property {(url: string, init: RequestInit) => Promise<Response>} fetch
 * @property {(callback: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @property {() => number} now Milliseconds that never go back, but may not count while the machine sleeps.
 * @property {() => number} wall Milliseconds since 1970, which may jump.
 * @property {() => number} random From 0 to 1.
 * @property {(text: string) => void} warn
 * @property {EventTarget | undefined} window
 * @property {(EventTarget & {visibilityState?: string}) | undefined} document
 */

/** What a connection, or the attempt at one, may take until its first frame. */
const HANDSHAKE_MS = 15_000;
/** The same where WebSocket is only tried again while SSE does. */
const TRIAL_MS = 5_000;
/** What a token may take. */
const TOKEN_MS = 30_000;
/** A token that is about to expire as soon after another one is a short one. */
const SHORT_MS = 60_000;
/** The waits between attempts. */
const WAIT_LEAST_MS = 100;
const WAIT_MOST_MS = 30_000;
/** A connection that lives as long was a success: the next failure is the first again. */
const SUCCESS_MS = 10_000;
/** The least time between two acknowledgements, two warnings, and two attempts that a wake-up starts. */
const ACK_EVERY_MS = 1_000;
const WARN_EVERY_MS = 60_000;
const WAKE_EVERY_MS = 1_000;
/** After how many WebSocket handshakes in a row without a frame SSE is tried, and when WebSocket is again. */
const SOCKET_FAILURES = 2;
const SOCKET_AGAIN_MS = 60_000;
const SOCKET_AGAIN_MOST_MS = 3_600_000;
/** How many event ids are remembered for the day when the epoch changes. */
const RECENT_IDS = 10_000;
/** What waits for a slow iterator at most. */
const BUFFER_ITEMS = 10_000;
const BUFFER_TEXT = 16 * 1024 * 1024;
/** The longest event of an SSE stream, and the longest answer that refuses one. */
const SSE_EVENT_TEXT = 16 * 1024 * 1024;
const REFUSAL_TEXT = 64 * 1024;

/** What the server, or the caller's own mistake, does not let the client do. */
export class EmitterError extends Error {
  /**
   * @param {string} message
   * @param {number | null} code The WebSocket close code or HTTP status, where there was one.
   */
  constructor(message, code = null) {
    super(message);
    this.name = "EmitterError";
    this.code = code;
  }
}

/**
 * Reads `<epoch>-<offset>`; `null` where it is no position.
 * @param {unknown} text
 * @returns {Position | null}
 */
export function parsePosition(text) {
  const parts = typeof text === "string" ? /^([0-9a-f]{16})-(\d{1,16})$/.exec(text) : null;
  const offset = Number(parts?.[2]);
  return parts && Number.isSafeInteger(offset) ? { epoch: parts[1], offset } : null;
}

/** @param {Position | null} position */
const written = (position) => position && `${position.epoch}-${position.offset}`;

/** @param {unknown} value */
const text = (value) => (typeof value === "string" ? value : "");

/** @param {unknown} value */
const textOrNull = (value) => (typeof value === "string" ? value : null);

/** @param {unknown} value */
const numberOrNull = (value) => (typeof value === "number" ? value : null);

/** @param {unknown} value @returns {Record<string, any>} */
const object = (value) => (typeof value === "object" && value !== null ? value : {});

/** @param {unknown} value @returns {any[]} */
const array = (value) => (Array.isArray(value) ? value : []);

// ---------------------------------------------------------------------------------------------------------------------
// What was seen, and when to come back.

/** The cursor and the ids behind it, so that each event is told once. */
export class Seen {
  /** Recent ids with the epoch that each was seen in, oldest first. @type {Map<string, string>} */
  #ids = new Map();

  /** @param {Position | null} cursor Nothing is seen yet after it. */
  constructor(cursor = null) {
    this.cursor = cursor;
  }

  /** The stream begins at `position`, unless it was begun before. @param {Position} position */
  begin(position) {
    this.cursor ??= position;
  }

  /** Everything up to `position` is dealt with; never backwards within an epoch. @param {Position} position */
  advance(position) {
    if (this.#isAhead(position)) {
      this.cursor = position;
    }
  }

  /** Events may be missing: the cursor is `next` from here on, also where that is lower. @param {Position} next */
  jump(next) {
    this.cursor = next;
  }

  /**
   * Takes an event in. `behind`: it came before. `again`: it came before in another epoch, at another place. Within an
   * epoch its place tells, across epochs its id.
   * @param {Position} position
   * @param {string} id
   * @returns {"new" | "again" | "behind"}
   */
  admit(position, id) {
    if (!this.#isAhead(position)) {
      return "behind";
    }
    this.cursor = position;
    const epoch = id && this.#ids.get(id);
    if (epoch) {
      return epoch === position.epoch ? "new" : "again";
    }
    if (id) {
      this.#remember(id, position.epoch);
    }
    return "new";
  }

  /** @param {Position} position */
  #isAhead({ epoch, offset }) {
    return this.cursor === null || this.cursor.epoch !== epoch || this.cursor.offset < offset;
  }

  /** @param {string} id @param {string} epoch */
  #remember(id, epoch) {
    if (this.#ids.size >= RECENT_IDS) {
      for (const oldest of this.#ids.keys()) {
        this.#ids.delete(oldest);
        break;
      }
    }
    this.#ids.set(id, epoch);
  }
}

/** Waits that double up to a bound, each cut short at random so that clients that failed together come back apart. */
export class Backoff {
  #failures = 0;
  #random;

  /** @param {() => number} random */
  constructor(random) {
    this.#random = random;
  }

  reset() {
    this.#failures = 0;
  }

  /** The wait before the next attempt, at least what the server asks for, within the bound. @param {number} asked */
  next(asked = 0) {
    const whole = Math.min(WAIT_LEAST_MS * 2 ** Math.min(this.#failures, 20), WAIT_MOST_MS);
    this.#failures += 1;
    const jittered = whole * (0.5 + this.#random() / 2);
    const bounded = asked > 0 ? Math.min(asked, WAIT_MOST_MS) : 0;
    return Math.max(jittered, bounded * (1 + this.#random() / 4));
  }
}

/** Which transport the next attempt takes. */
export class Fallback {
  #asked;
  #now;
  #failures = 0;
  /** How often in a row SSE may fail before it is not the answer. */
  #patience = 0;
  #again = SOCKET_AGAIN_MS;
  #againAt = 0;
  /** Whether WebSocket is only tried again, after SSE did. */
  trial = false;

  /** @param {"auto" | TransportName} asked @param {() => number} now */
  constructor(asked, now) {
    this.#asked = asked;
    this.#now = now;
  }

  /** How long until WebSocket is worth another try. */
  get againIn() {
    return this.#asked === "auto" ? this.#againAt - this.#now() : Infinity;
  }

  /** @returns {TransportName} */
  choose() {
    if (this.#asked !== "auto") {
      return this.#asked;
    }
    this.trial = this.#failures >= SOCKET_FAILURES && this.againIn <= 0;
    if (this.trial) {
      this.#postpone(Math.min(2 * this.#again, SOCKET_AGAIN_MOST_MS));
      return "websocket";
    }
    return this.#failures >= SOCKET_FAILURES ? "sse" : "websocket";
  }

  /** A frame came. @param {TransportName} transport */
  worked(transport) {
    this.#patience = transport === "sse" ? SOCKET_FAILURES : 0;
    if (transport === "websocket") {
      this.#failures = 0;
    }
  }

  /**
   * No frame came. Where SSE does not bring one either, WebSocket is not to blame; where it just did, the server may be
   * away.
   * @param {TransportName} transport
   */
  failed(transport) {
    if (transport === "sse" && this.#patience > 0) {
      this.#patience -= 1;
      return;
    }
    this.#failures = transport === "websocket" ? this.#failures + 1 : 0;
    if (this.#failures === SOCKET_FAILURES) {
      this.#postpone(SOCKET_AGAIN_MS);
    }
  }

  /** @param {number} again */
  #postpone(again) {
    this.#again = again;
    this.#againAt = this.#now() + again;
  }
}

/** Time since a moment, also where one of the two clocks stood still or jumped back. */
class Stopwatch {
  #env;
  #now = -Infinity;
  #wall = -Infinity;

  /** @param {Environment} env */
  constructor(env) {
    this.#env = env;
  }

  start() {
    this.#now = this.#env.now();
    this.#wall = this.#env.wall();
  }

  get elapsed() {
    return Math.max(this.#env.now() - this.#now, this.#env.wall() - this.#wall);
  }
}

/** Says when nothing was heard for too long. */
class Watch {
  #env;
  #heard;
  #patience = 0;
  /** @type {(() => void) | null} */
  #tooLong = null;
  /** @type {any} */
  #timer = null;

  /** @param {Environment} env */
  constructor(env) {
    this.#env = env;
    this.#heard = new Stopwatch(env);
  }

  /** @param {number} patience @param {() => void} tooLong */
  start(patience, tooLong) {
    this.#patience = patience;
    this.#tooLong = tooLong;
    this.#heard.start();
    this.check();
  }

  hear() {
    this.#heard.start();
  }

  /** Looks now, as the timer may be late or frozen. */
  check() {
    this.#env.clearTimeout(this.#timer);
    const tooLong = this.#tooLong;
    const left = this.#patience - this.#heard.elapsed;
    if (tooLong && left > 0) {
      this.#timer = this.#env.setTimeout(() => this.check(), Math.ceil(left));
    } else if (tooLong) {
      this.stop();
      tooLong();
    }
  }

  stop() {
    this.#env.clearTimeout(this.#timer);
    this.#tooLong = null;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Transports. A link tells each frame's text and then, unless we close it first, its end, once.

/**
 * How a connection, or the attempt at one, ended.
 * @typedef {object} End
 * @property {string} reason
 * @property {number} [code] A close code or an HTTP status.
 * @property {boolean} [answered] The server itself ended it.
 * @property {boolean} [local] It did not get as far as the network.
 * @property {boolean} [expired] The credential did.
 * @property {boolean} [final] The server says not to come back.
 * @property {number} [askedMs] The least wait that it asks for.
 *
 * @typedef {object} Link
 * @property {(text: string) => void} send
 * @property {() => void} close
 *
 * @typedef {{hear: (text: string) => void, end: (end: End) => void}} Ear
 */

const EXPIRED = "CREDENTIAL_EXPIRED";

/** @param {string} token */
function subprotocols(token) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(token));
  const encoded = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return ["emitter.v1.json", `base64url.bearer.authorization.emitter.${encoded}`];
}

/** @implements {Link} */
class WebSocketLink {
  #socket;

  /** @param {Environment} env @param {URL} url @param {string} token @param {Ear} ear */
  constructor(env, url, token, ear) {
    const address = new URL(url);
    address.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new env.WebSocket(address.href, subprotocols(token));
    socket.onmessage = ({ data }) => ear.hear(text(data));
    socket.onclose = ({ code, reason }) =>
      ear.end({
        code,
        reason: reason || `closed with ${code}`,
        answered: code >= 4000 && code < 5000,
        expired: code === 4003,
        final: code >= 4500 && code < 5000,
      });
    this.#socket = socket;
  }

  /** @param {string} text */
  send(text) {
    if (this.#socket.readyState === 1) {
      this.#socket.send(text);
    }
  }

  close() {
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    this.#socket.close();
  }
}

/** Reads an SSE stream as the HTML standard has it, in pieces that break anywhere. */
export class SseParser {
  /** How long the server asks to wait before coming back. @type {number | undefined} */
  retry = undefined;
  #line = "";
  #data = "";
  #id = "";
  #afterCr = false;

  /**
   * Takes the next piece of text, and gives the events that end in it.
   * @param {string} piece
   * @returns {{id: string, data: string}[]}
   */
  push(piece) {
    /** @type {{id: string, data: string}[]} */
    const events = [];
    // The LF of a CRLF may begin the next piece.
    const skip = this.#afterCr && piece.startsWith("\n") ? 1 : 0;
    if (piece !== "") {
      this.#afterCr = piece.endsWith("\r");
    }
    const lines = piece.slice(skip).split(/\r\n|\r|\n/);
    const rest = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      this.#take(this.#line + line, events);
      this.#line = "";
    }
    this.#line += rest;
    if (this.#line.length + this.#data.length > SSE_EVENT_TEXT) {
      throw new EmitterError("an event of the stream is too long");
    }
    return events;
  }

  /** @param {string} line @param {{id: string, data: string}[]} events */
  #take(line, events) {
    if (line === "") {
      if (this.#data !== "") {
        events.push({ id: this.#id, data: this.#data.slice(0, -1) });
      }
      this.#data = "";
      return;
    }
    const [, name, value] = /** @type {RegExpExecArray} */ (/^([^:]*)(?:: ?([^]*))?$/.exec(line));
    if (name === "data") {
      this.#data += `${value ?? ""}\n`;
    } else if (name === "id" && !value?.includes("\0")) {
      this.#id = value ?? "";
    } else if (name === "retry" && /^\d+$/.test(value ?? "")) {
      this.retry = Number(value);
    }
  }
}

/** @implements {Link} */
class SseLink {
  #aborter = new AbortController();
  #env;
  #ear;

  /** @param {Environment} env @param {URL} url @param {string} token @param {Ear} ear */
  constructor(env, url, token, ear) {
    this.#env = env;
    this.#ear = ear;
    this.#read(url, token)
      .catch((error) => ({ reason: text(error?.message) || "the stream broke" }))
      .then((end) => this.#aborter.signal.aborted || ear.end(end));
  }

  send() {}

  close() {
    this.#aborter.abort();
  }

  /** @param {URL} url @param {string} token @returns {Promise<End>} */
  async #read(url, token) {
    const { signal } = this.#aborter;
    const headers = { accept: "text/event-stream", authorization: `Bearer ${token}` };
    const response = await this.#env.fetch(url.href, { headers, signal, cache: "no-store", credentials: "omit" });
    if (!response.ok) {
      return this.#refused(response);
    }
    if (!/^text\/event-stream\b/i.test(response.headers.get("content-type") ?? "")) {
      return { reason: "the answer is no event stream" };
    }
    const parser = new SseParser();
    for await (const piece of decoded(response)) {
      for (const { data } of parser.push(piece)) {
        if (signal.aborted) {
          break;
        }
        this.#ear.hear(data);
      }
    }
    return { reason: "the stream ended", askedMs: parser.retry };
  }

  /** @param {Response} response @returns {Promise<End>} */
  async #refused(response) {
    const { status } = response;
    let body = "";
    for await (const piece of decoded(response)) {
      body += piece;
      if (body.length > REFUSAL_TEXT) {
        break;
      }
    }
    const told = text(object(parsed(body)).reason);
    // 408 and 429 are the client errors that pass; one without a reason is of something on the way, such as a proxy.
    const final = told !== "" && status >= 400 && status < 500 && status !== 408 && status !== 429;
    const expired = status === 401 && told === EXPIRED;
    const reason = told || `answered with HTTP status ${status}`;
    const askedMs = retryAfterMs(response.headers.get("retry-after"), this.#env.wall());
    return { code: status, reason, answered: told !== "", expired, final, askedMs };
  }
}

/** The text of a body as it comes. @param {Response} response @returns {AsyncGenerator<string, void>} */
async function* decoded(response) {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  try {
    for (;;) {
      const read = await reader?.read();
      if (!read || read.done) {
        return;
      }
      yield decoder.decode(read.value, { stream: true });
    }
  } finally {
    reader?.cancel().catch(() => {});
  }
}

/** @param {string | null} header Seconds, or a date. @param {number} wall */
function retryAfterMs(header, wall) {
  const ms = /^\d+$/.test(header ?? "") ? Number(header) * 1000 : Date.parse(header ?? "") - wall;
  return Number.isFinite(ms) ? ms : undefined;
}

/** The JSON value, or `undefined` where it is none. @param {string} json @returns {unknown} */
function parsed(json) {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Runs, as a page draws them.

/**
 * @typedef {"open" | "succeeded" | "failed" | "cancelled" | "denied" | "unfinished"} ToolCallState `unfinished`: open
 *   when its run ended.
 *
 * @typedef {object} ToolCall
 * @property {string} toolCallId Several calls of a run may have the same.
 * @property {number | null} callSequence Identifies the call within its run. `null` with servers that do not send it.
 * @property {string} toolName
 * @property {string | null} description
 * @property {any} parameters
 * @property {ToolCallState} state
 * @property {string | null} startedAt
 * @property {string | null} endedAt
 * @property {number | null} executionTimeMs
 * @property {number | null} fraction
 * @property {string | null} progress
 * @property {any} result
 * @property {string | null} error
 *
 * @typedef {{messageId: string, role: string, text: string, final: boolean}} Message
 *
 * A question to a person that is open. Of a wait that began before the stream did, its texts are unknown.
 * @typedef {object} Wait
 * @property {string} waitId Empty where its producer did not name it.
 * @property {string} toolCallId The call that waits for the answer, or empty.
 * @property {string} kind
 * @property {string} reason
 * @property {string} prompt
 * @property {string[]} choices
 * @property {number} sequence The `run_sequence` of its `agent_waiting`.
 * @property {string | null} startedAt
 * @property {string | null} expiresAt
 *
 * The agent's present thought; `text` is what of it streamed so far.
 * @typedef {object} Thinking
 * @property {string | null} reasoning
 * @property {number | null} stepNumber
 * @property {number | null} totalSteps
 * @property {number | null} progressPercentage
 * @property {string} messageId
 * @property {string} text
 *
 * What a run consumed, without its sub-agents. Cached and cache-write tokens are parts of the input tokens, reasoning
 * tokens of the output tokens.
 * @typedef {object} Usage
 * @property {number} inputTokens
 * @property {number} outputTokens
 * @property {number} cachedInputTokens
 * @property {number} cacheWriteInputTokens
 * @property {number} cacheWrite1hInputTokens
 * @property {number} reasoningTokens
 * @property {number} costNanoUsd In billionths of a US dollar.
 * @property {number} unpricedEvents How many events are of a model without a price: their cost is unknown.
 *
 * One run, changed in place. Times are ISO texts by the server's clock.
 * @typedef {object} RunState
 * @property {string} runId
 * @property {string} agentName
 * @property {string | null} threadId
 * @property {string | null} parentRunId
 * @property {"running" | "waiting" | "completed" | "failed" | "cancelled"} state
 * @property {boolean} partial Its beginning was not seen.
 * @property {boolean} truncated Its oldest texts or tool calls went because there were too many.
 * @property {string | null} startedAt
 * @property {string | null} endedAt
 * @property {string | null} lastEventAt
 * @property {string | null} message
 * @property {Wait | null} waiting The last of `waits`.
 * @property {Wait[]} waits The open waits, oldest first.
 * @property {{code: string, message: string, retryable: boolean | null} | null} error
 * @property {any} result
 * @property {Thinking | null} thinking
 * @property {string} text What the assistant said so far, with an empty line between messages.
 * @property {Message[]} messages
 * @property {ToolCall[]} toolCalls
 * @property {number} openToolCalls
 * @property {Usage} usage
 * @property {string[]} childRunIds
 * @property {number} events
 * @property {number} lastSequence
 *
 * What the store keeps of a run beside its state. Sizes are in characters.
 * @typedef {object} Account
 * @property {Set<ToolCall>} open The open calls, oldest first.
 * @property {number} said The size of all messages.
 * @property {Map<string, string | null>} thoughts The streamed thoughts by message id. `null`: an `agent_thinking`
 *   replaced it.
 * @property {Map<ToolCall, number>} payloads The size of each call's parameters and result.
 * @property {number} payload The sum of `payloads`.
 * @property {WeakMap<Wait, ToolCall>} asking The open call that a wait is of.
 * @property {boolean} judged The server says how the run stands, so the client does not derive it.
 */

/** How many runs are kept: ended ones, those that ended first go first; and all, those that started first. */
const ENDED_RUNS = 500;
const RUNS = 2_000;
/** What is kept of one run: 1 Mi characters of messages and thoughts, and as much of what tools were given and gave. */
const MESSAGES = 256;
const MESSAGE_TEXT = 768 * 1024;
const THINKING_TEXT = 256 * 1024;
const THOUGHTS = 64;
/** The server admits as many open waits per run. */
const WAITS = 16;
const TOOL_CALLS = 1_000;
const TOOL_TEXT = 1024 * 1024;

/**
 * By type. A map, as an object would know names such as `constructor`, which a custom event may have.
 * @type {Map<string, RunState["state"]>}
 */
const ENDS = new Map([
  ["agent_completed", "completed"],
  ["agent_failed", "failed"],
  ["agent_cancelled", "cancelled"],
]);

/** By a call's `status`. @type {Map<unknown, ToolCallState>} */
const CALL_ENDS = new Map([
  ["succeeded", "succeeded"],
  ["failed", "failed"],
  ["cancelled", "cancelled"],
  ["denied", "denied"],
]);

/** The events that end a wait without an id. `tool_completed` does if it leaves no call open. */
const GOES_ON = new Set(["agent_thinking", "thinking_delta", "text_delta", "message", "tool_executing"]);

/** @param {RunState} run */
const ended = (run) => run.endedAt !== null;

/** The last `most` characters, without half of one at their begin. @param {string} whole @param {number} most */
const tail = (whole, most) => whole.slice(-most).replace(/^[\uDC00-\uDFFF]/, "");

/** @param {number} sum @param {unknown} added */
const plus = (sum, added) => Math.min(sum + (numberOrNull(added) ?? 0), Number.MAX_SAFE_INTEGER);

/** @returns {Usage} */
const noUsage = () => ({
  inputTokens: 0,
  outputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteInputTokens: 0,
  cacheWrite1hInputTokens: 0,
  reasoningTokens: 0,
  costNanoUsd: 0,
  unpricedEvents: 0,
});

/** @param {string} runId @param {boolean} partial @param {string[]} childRunIds @returns {RunState} */
const newRun = (runId, partial, childRunIds) => ({
  runId,
  agentName: "",
  threadId: null,
  parentRunId: null,
  state: "running",
  partial,
  truncated: false,
  startedAt: null,
  endedAt: null,
  lastEventAt: null,
  message: null,
  waiting: null,
  waits: [],
  error: null,
  result: null,
  thinking: null,
  text: "",
  messages: [],
  toolCalls: [],
  openToolCalls: 0,
  usage: noUsage(),
  childRunIds,
  events: 0,
  lastSequence: 0,
});

/** @param {Record<string, any>} from @param {string | null} startedAt @returns {ToolCall} */
const newToolCall = (from, startedAt) => ({
  toolCallId: text(from.tool_call_id),
  callSequence: numberOrNull(from.call_sequence),
  toolName: text(from.tool_name),
  description: textOrNull(from.description),
  parameters: from.parameters ?? null,
  state: "open",
  startedAt,
  endedAt: null,
  executionTimeMs: null,
  fraction: null,
  progress: null,
  result: null,
  error: null,
});

/** @param {Record<string, any>} from @param {number | null} sequence @param {string | null} at @returns {Wait} */
const newWait = (from, sequence, at) => ({
  waitId: text(from.wait_id),
  toolCallId: text(from.tool_call_id),
  kind: text(from.kind),
  reason: text(from.reason),
  prompt: text(from.prompt),
  choices: array(from.choices).filter((choice) => typeof choice === "string"),
  sequence: sequence ?? 0,
  startedAt: at,
  expiresAt: textOrNull(from.expires_at),
});

/**
 * When a wait expires that began at `at` and may last `ms`.
 * @param {string | null} at
 * @param {unknown} ms
 */
function expiry(at, ms) {
  const time = typeof ms === "number" ? Date.parse(at ?? "") + ms : NaN;
  return Math.abs(time) <= 8.64e15 ? new Date(time).toISOString() : null;
}

/**
 * The open call that a payload is about: by `call_sequence`, else the oldest of its id and, if stated, its tool.
 * @param {Account} account
 * @param {Record<string, any>} payload
 */
function openCallOf({ open }, { call_sequence: sequence, tool_call_id: id, tool_name: tool }) {
  const calls = [...open];
  const numbered = typeof sequence === "number";
  const exact = numbered ? calls.find((call) => call.callSequence === sequence) : undefined;
  // A server may number calls in events and not in its open runs: only such a call is one without a number.
  const possible = numbered ? calls.filter((call) => call.callSequence === null) : calls;
  const isNamed = (/** @type {ToolCall} */ call) => !tool || !call.toolName || call.toolName === tool;
  return exact ?? possible.find((call) => call.toolCallId === text(id) && isNamed(call));
}

/**
 * Whether an event ends a wait, as far as the client can tell. It is applied to the run's calls already.
 * @param {Wait} wait
 * @param {Frame} frame
 * @param {string | null} at
 * @param {Account} account
 */
function ends(wait, { type, payload, run_sequence: sequence, custom }, at, { open, asking }) {
  const { wait_id: waitId, tool_call_id: callId, call_sequence: callSequence } = object(payload);
  if (wait.expiresAt !== null && Date.parse(wait.expiresAt) <= Date.parse(at ?? "")) {
    return true;
  }
  if (custom) {
    return false;
  }
  if (type === "agent_resumed") {
    return text(waitId) === "" || waitId === wait.waitId;
  }
  if (type === "tool_completed" && wait.toolCallId !== "") {
    const call = asking.get(wait);
    if (call ? call.state !== "open" : wait.toolCallId === callId) {
      return true;
    }
  }
  // A begin that repeats an open call is no new one.
  const repeats = type === "tool_executing" && typeof callSequence === "number" && callSequence !== sequence;
  return wait.waitId === "" && ((GOES_ON.has(type) && !repeats) || (type === "tool_completed" && open.size === 0));
}

/** What the stream's events make of its runs. */
export class RunStore {
  /** In the order of their start. @type {Map<string, RunState>} */
  runs = new Map();
  /** @type {Map<string, Account>} */
  #accounts = new Map();
  /** The ended ones, in the order of their ends. @type {Set<string>} */
  #ends = new Set();
  #removed;

  /** @param {(run: RunState) => void} removed Told of runs that go because there are too many. */
  constructor(removed = () => {}) {
    this.#removed = removed;
  }

  get someOpen() {
    return [...this.runs.values()].some((run) => !ended(run));
  }

  clear() {
    this.runs.clear();
    this.#accounts.clear();
    this.#ends.clear();
  }

  /**
   * Takes in what the server says is open, of runs that are not known.
   * @param {unknown} openRuns
   * @returns {RunState[]}
   */
  seed(openRuns) {
    const unknown = array(openRuns).filter((open) => text(object(open).run_id) && !this.runs.has(open.run_id));
    return unknown.map((open) => {
      const [run, account] = this.#begin(open.run_id, true);
      this.#identify(run, open);
      run.state = open.state === "waiting" ? "waiting" : "running";
      run.startedAt = textOrNull(open.started_at);
      account.judged = Array.isArray(open.open_waits);
      for (const wait of array(open.open_waits).map(object)) {
        this.#openWait(run, newWait(wait, numberOrNull(wait.run_sequence), textOrNull(wait.started_at)));
      }
      if (run.state === "waiting" && run.waits.length === 0) {
        this.#openWait(run, newWait({}, null, null));
      }
      for (const call of array(open.open_tool_calls).map(object)) {
        this.#openCall(run, account, newToolCall(call, textOrNull(call.started_at)));
      }
      return run;
    });
  }

  /**
   * Takes in an event; `size` is its length. `null`: it is of no run.
   * @param {Frame} frame
   * @param {number} size
   * @returns {RunState | null}
   */
  apply(frame, size = 0) {
    const runId = text(frame.run_id);
    if (!runId) {
      return null;
    }
    const known = this.runs.get(runId);
    const starts = frame.type === "agent_started" && !frame.violation;
    const account = this.#accounts.get(runId);
    const [run, inner] = known && account && !starts ? [known, account] : this.#begin(runId, !starts);
    this.#identify(run, frame);
    run.lastEventAt = textOrNull(frame.recorded_at) ?? textOrNull(frame.timestamp);
    run.events += numberOrNull(frame.joined) ?? 1;
    run.lastSequence = Math.max(run.lastSequence, numberOrNull(frame.run_sequence) ?? 0);
    this.#use(run, frame.usage, frame.cost);
    if (!ended(run)) {
      this.#change(run, inner, frame, size);
      this.#bound(run, inner);
    }
    run.openToolCalls = inner.open.size;
    this.#evict(run);
    return run;
  }

  /**
   * A new run, in place of one of the same id.
   * @param {string} runId
   * @param {boolean} partial
   * @returns {[RunState, Account]}
   */
  #begin(runId, partial) {
    const children = [...this.runs.values()].filter((run) => run.parentRunId === runId).map((run) => run.runId);
    const run = Object.assign(this.runs.get(runId) ?? {}, newRun(runId, partial, children));
    /** @type {Account} */
    const account = {
      ...{ open: new Set(), said: 0, thoughts: new Map(), payloads: new Map(), payload: 0 },
      ...{ asking: new WeakMap(), judged: false },
    };
    this.runs.delete(runId);
    this.runs.set(runId, run);
    this.#ends.delete(runId);
    this.#accounts.set(runId, account);
    return [run, account];
  }

  /** @param {RunState} run @param {Record<string, any>} named */
  #identify(run, named) {
    run.agentName ||= text(named.agent_name);
    run.threadId ??= textOrNull(named.thread_id);
    if (run.parentRunId === null && text(named.parent_run_id)) {
      run.parentRunId = named.parent_run_id;
      const siblings = this.runs.get(named.parent_run_id)?.childRunIds;
      if (siblings && !siblings.includes(run.runId)) {
        siblings.push(run.runId);
      }
    }
  }

  /**
   * Adds what an event consumed. Its cost stands beside its usage, or within it with servers that do not price events.
   * @param {RunState} run
   * @param {any} usage
   * @param {any} cost
   */
  #use({ usage: sums }, usage, cost) {
    if (typeof usage !== "object" || usage === null) {
      return;
    }
    sums.inputTokens = plus(sums.inputTokens, usage.input_tokens);
    sums.outputTokens = plus(sums.outputTokens, usage.output_tokens);
    sums.cachedInputTokens = plus(sums.cachedInputTokens, usage.cached_input_tokens);
    sums.cacheWriteInputTokens = plus(sums.cacheWriteInputTokens, usage.cache_write_input_tokens);
    sums.cacheWrite1hInputTokens = plus(sums.cacheWrite1hInputTokens, usage.cache_write_1h_input_tokens);
    sums.reasoningTokens = plus(sums.reasoningTokens, usage.reasoning_tokens);
    sums.costNanoUsd = plus(sums.costNanoUsd, object(cost).nano_usd ?? usage.cost_nano_usd);
    const tokens = plus(plus(0, usage.input_tokens), usage.output_tokens);
    const unpriced = cost ? cost.basis === "unpriced" : usage.cost_nano_usd === undefined && tokens > 0;
    sums.unpricedEvents = plus(sums.unpricedEvents, usage.unpriced_events ?? Number(unpriced));
  }

  /** @param {RunState} run @param {Account} account @param {Frame} frame @param {number} size */
  #change(run, account, frame, size) {
    const payload = object(frame.payload);
    const at = run.lastEventAt;
    switch (frame.custom ? "" : frame.type) {
      case "agent_started":
        run.startedAt = at;
        run.message = textOrNull(payload.message);
        break;
      case "agent_thinking":
      case "thinking_delta":
        this.#think(run, account, frame.type === "thinking_delta", payload);
        break;
      case "text_delta":
      case "message":
        this.#say(run, account, frame.type === "message", payload);
        break;
      case "tool_executing":
        this.#beginCall(run, account, payload, frame, size);
        break;
      case "tool_progress":
        this.#progress(run, account, payload);
        break;
      case "tool_completed":
        this.#endCall(run, account, payload, at, size);
        break;
    }
    this.#wait(run, account, frame, payload);
    if (ENDS.has(frame.type) && !frame.custom) {
      this.#end(run, account, frame, payload);
    }
  }

  // ----- Waits.

  /**
   * The server's `state` decides how the run stands. Servers without it end a wait by the run's next event.
   * @param {RunState} run
   * @param {Account} account
   * @param {Frame} frame
   * @param {Record<string, any>} payload
   */
  #wait(run, account, frame, payload) {
    const state = frame.state === "waiting" || frame.state === "running" ? frame.state : null;
    account.judged ||= state !== null;
    const waits = frame.type === "agent_waiting" && !frame.custom;
    if (state === "running" || (!account.judged && (run.waits.length > 0 || waits))) {
      run.waits = [];
    } else if (run.waits.length > 0) {
      run.waits = run.waits.filter((wait) => !ends(wait, frame, run.lastEventAt, account));
    }
    if (waits && state !== "running") {
      const wait = newWait(payload, numberOrNull(frame.run_sequence), run.lastEventAt);
      wait.expiresAt ??= expiry(run.lastEventAt, payload.max_wait_ms);
      const call = wait.toolCallId ? openCallOf(account, { tool_call_id: wait.toolCallId }) : undefined;
      if (call) {
        account.asking.set(wait, call);
      }
      this.#openWait(run, wait);
    }
    run.waiting = run.waits.at(-1) ?? null;
    run.state = state ?? (waits ? "waiting" : account.judged ? run.state : "running");
  }

  /** A wait that is known, by its begin or its id, is the same one. @param {RunState} run @param {Wait} wait */
  #openWait(run, wait) {
    const others = run.waits.filter(({ sequence, waitId }) =>
      (sequence !== wait.sequence || sequence === 0) && (waitId !== wait.waitId || waitId === ""));
    run.waits = [...others, wait].slice(-WAITS);
    run.waiting = wait;
  }

  // ----- Thoughts and messages.

  /**
   * Thoughts stream by message id. An `agent_thinking` replaces the one that it names, and late pieces of that.
   * @param {RunState} run
   * @param {Account} account
   * @param {boolean} delta
   * @param {Record<string, any>} payload
   */
  #think(run, account, delta, payload) {
    const { thoughts } = account;
    const messageId = text(payload.message_id);
    const before = thoughts.get(messageId);
    if (delta && before === null) {
      return;
    }
    if (!delta || !run.thinking) {
      run.thinking = {
        reasoning: textOrNull(payload.reasoning),
        stepNumber: numberOrNull(payload.step_number),
        totalSteps: numberOrNull(payload.total_steps),
        progressPercentage: numberOrNull(payload.progress_percentage),
        messageId,
        text: "",
      };
    }
    if (delta) {
      run.thinking.messageId = messageId;
      run.thinking.text = (before ?? "") + text(payload.text);
      thoughts.set(messageId, run.thinking.text);
    } else if (messageId) {
      thoughts.set(messageId, null);
    } else {
      thoughts.delete("");
    }
  }

  /**
   * The id and the role name a message. A piece without a role continues the message of its id, whoever speaks; one
   * without an id continues the last message without one. A late piece of a message that is whole changes nothing.
   * @param {RunState} run
   * @param {Account} account
   * @param {boolean} whole
   * @param {Record<string, any>} payload
   */
  #say(run, account, whole, payload) {
    const messageId = text(payload.message_id);
    const role = text(payload.role);
    const piece = text(payload.text);
    const sameId = run.messages.filter((message) => message.messageId === messageId);
    const isSame = (/** @type {Message} */ message) => role === "" || message.role === role;
    let message = messageId ? sameId.findLast(isSame) : sameId.slice(-1).find((last) => isSame(last) && !last.final);
    if (message?.final && !whole) {
      return;
    }
    if (!message) {
      message = { messageId, role: role || "assistant", text: "", final: false };
      run.messages.push(message);
    }
    const before = message.text;
    message.text = whole ? piece : before + piece;
    message.final = whole;
    account.said += message.text.length - before.length;
    if (!whole && message === run.messages.at(-1) && message.role === "assistant") {
      // The usual case: no need to put a long answer together again for each of its pieces.
      run.text += (before === "" && run.text !== "" && piece !== "" ? "\n\n" : "") + piece;
    } else {
      this.#joinText(run);
    }
  }

  /** @param {RunState} run */
  #joinText(run) {
    const spoken = run.messages.filter(({ role, text }) => role === "assistant" && text !== "");
    run.text = spoken.map(({ text }) => text).join("\n\n");
  }

  // ----- Tool calls.

  /** @param {RunState} run @param {Account} account @param {ToolCall} call */
  #openCall(run, account, call) {
    account.open.add(call);
    run.toolCalls.push(call);
    run.openToolCalls = account.open.size;
  }

  /**
   * The begin of a call that is open repeats it: a framework executes its step again. Servers that do not number calls
   * have one open call per id.
   * @param {RunState} run
   * @param {Account} account
   * @param {Record<string, any>} payload
   * @param {Frame} frame
   * @param {number} size
   */
  #beginCall(run, account, payload, frame, size) {
    const sequence = numberOrNull(payload.call_sequence);
    const repeats = sequence !== null && sequence !== frame.run_sequence;
    const call = newToolCall(payload, repeats ? null : run.lastEventAt);
    const known = openCallOf(account, sequence === null ? { tool_call_id: payload.tool_call_id } : payload);
    if (!known) {
      this.#openCall(run, account, call);
    } else if (!repeats) {
      Object.assign(known, call);
    }
    this.#weigh(account, known ?? call, size);
  }

  /**
   * Of a run whose beginning was not seen, a call may be open that is not known.
   * @param {RunState} run
   * @param {Account} account
   * @param {Record<string, any>} payload
   */
  #progress(run, account, payload) {
    const { call_sequence: sequence, tool_call_id: id } = payload;
    const over = run.toolCalls.some((call) =>
      typeof sequence === "number" ? call.callSequence === sequence : call.toolCallId === text(id));
    let call = openCallOf(account, payload);
    if (!call && run.partial && !over) {
      call = newToolCall({ tool_call_id: id, call_sequence: sequence }, null);
      this.#openCall(run, account, call);
    }
    if (call) {
      call.fraction = numberOrNull(payload.fraction) ?? call.fraction;
      call.progress = textOrNull(payload.message) ?? call.progress;
    }
  }

  /**
   * @param {RunState} run
   * @param {Account} account
   * @param {Record<string, any>} payload
   * @param {string | null} at
   * @param {number} size
   */
  #endCall(run, account, payload, at, size) {
    let call = openCallOf(account, payload);
    if (!call) {
      call = newToolCall(payload, null);
      this.#openCall(run, account, call);
    }
    call.toolName ||= text(payload.tool_name);
    call.state = CALL_ENDS.get(payload.status) ?? "succeeded";
    call.endedAt = at;
    call.executionTimeMs = numberOrNull(payload.execution_time_ms);
    call.result = payload.result ?? null;
    call.error = textOrNull(payload.error);
    this.#weigh(account, call, size);
    account.open.delete(call);
  }

  /** @param {RunState} run @param {Account} account @param {Frame} frame @param {Record<string, any>} payload */
  #end(run, account, frame, payload) {
    run.state = ENDS.get(frame.type) ?? "completed";
    run.waits = [];
    run.waiting = null;
    run.endedAt = run.lastEventAt ?? "";
    this.#ends.add(run.runId);
    run.message = textOrNull(payload.message) ?? textOrNull(payload.reason) ?? run.message;
    run.result = payload.result ?? null;
    if (run.state === "failed") {
      const retryable = typeof payload.retryable === "boolean" ? payload.retryable : null;
      run.error = { code: text(payload.code), message: text(payload.message), retryable };
    }
    const summary = object(frame.summary);
    for (const call of array(summary.open_tool_calls).map(object)) {
      if (!openCallOf(account, call)) {
        this.#openCall(run, account, newToolCall(call, textOrNull(call.started_at)));
      }
    }
    account.open.forEach((call) => (call.state = "unfinished"));
    account.open.clear();
    if (summary.usage) {
      Object.assign(run.usage, noUsage());
      this.#use(run, summary.usage, null);
    }
  }

  /**
   * A call's parameters and result are about as long as the events that brought them.
   * @param {Account} account
   * @param {ToolCall} call
   * @param {number} size
   */
  #weigh(account, call, size) {
    account.payloads.set(call, (account.payloads.get(call) ?? 0) + size);
    account.payload += size;
  }

  /** @param {RunState} run @param {Account} account */
  #bound(run, account) {
    this.#boundThoughts(run, account);
    while (run.messages.length > MESSAGES || (account.said > MESSAGE_TEXT && run.messages.length > 1)) {
      account.said -= run.messages.shift()?.text.length ?? 0;
      run.truncated = true;
      this.#joinText(run);
    }
    if (account.said > MESSAGE_TEXT) {
      // Half at once: cutting at each piece would copy all of it each time.
      run.messages[0].text = tail(run.messages[0].text, MESSAGE_TEXT / 2);
      account.said = run.messages[0].text.length;
      run.truncated = true;
      this.#joinText(run);
    }
    this.#boundCalls(run, account);
  }

  /** The present thought is cut where it alone is too long. @param {RunState} run @param {Account} account */
  #boundThoughts(run, { thoughts }) {
    const { thinking } = run;
    if (thinking && thinking.text.length > THINKING_TEXT) {
      thinking.text = tail(thinking.text, THINKING_TEXT / 2);
      thoughts.set(thinking.messageId, thinking.text);
      run.truncated = true;
    }
    let size = 0;
    thoughts.forEach((thought) => (size += thought?.length ?? 0));
    for (const [messageId, thought] of thoughts) {
      if (thoughts.size <= THOUGHTS && size <= THINKING_TEXT) {
        break;
      }
      if (messageId !== thinking?.messageId) {
        thoughts.delete(messageId);
        size -= thought?.length ?? 0;
        run.truncated ||= thought !== null;
      }
    }
  }

  /** @param {RunState} run @param {Account} account */
  #boundCalls(run, account) {
    while (run.toolCalls.length > TOOL_CALLS) {
      const oldest = Math.max(run.toolCalls.findIndex(({ state }) => state !== "open"), 0);
      const [call] = run.toolCalls.splice(oldest, 1);
      account.open.delete(call);
      account.payload -= account.payloads.get(call) ?? 0;
      account.payloads.delete(call);
      run.truncated = true;
    }
    for (const [call, size] of account.payload > TOOL_TEXT ? account.payloads : []) {
      if (call.state !== "open") {
        call.parameters = null;
        call.result = null;
        account.payloads.delete(call);
        account.payload -= size;
        run.truncated = true;
      }
      if (account.payload <= TOOL_TEXT) {
        break;
      }
    }
  }

  /** @param {RunState} changed It stays. */
  #evict(changed) {
    for (const runId of this.#ends) {
      if (this.#ends.size <= ENDED_RUNS) {
        break;
      }
      this.#remove(runId);
    }
    for (const runId of this.runs.keys()) {
      if (this.runs.size <= RUNS) {
        break;
      }
      if (runId !== changed.runId) {
        this.#remove(runId);
      }
    }
  }

  /** @param {string} runId */
  #remove(runId) {
    const run = /** @type {RunState} */ (this.runs.get(runId));
    this.runs.delete(runId);
    this.#accounts.delete(runId);
    this.#ends.delete(runId);
    const siblings = this.runs.get(run.parentRunId ?? "")?.childRunIds ?? [];
    siblings.splice(siblings.indexOf(runId), siblings.includes(runId) ? 1 : 0);
    this.#removed(run);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// The client.

/**
 * What waits to be delivered: an item, and what goes with it.
 * @typedef {object} Entry
 * @property {Item} item
 * @property {number} size
 * @property {Position | null} [position] The client's position from there on.
 * @property {unknown} [openRuns]
 * @property {boolean} [again] The event was told before, in another epoch: it only rebuilds its run.
 * @property {boolean} [ifOpen] The item matters only where a run is open.
 *
 * @typedef {(result: IteratorResult<Item, undefined>) => void} Answer
 * @typedef {{ask: {answer: Answer, fail: (error: Error) => void} | null}} Reader
 *
 * What the server said before it closed.
 * @typedef {{reason: string, expired: boolean, final: boolean, askedMs: number | undefined}} Farewell
 */

/** @returns {Environment} */
const browser = () => ({
  WebSocket: globalThis.WebSocket,
  fetch: (url, init) => globalThis.fetch(url, init),
  setTimeout: (callback, ms) => globalThis.setTimeout(callback, ms),
  clearTimeout: (timer) => globalThis.clearTimeout(timer),
  now: () => performance.now(),
  wall: () => Date.now(),
  random: () => Math.random(),
  warn: (text) => console.warn(text),
  window: "addEventListener" in globalThis ? globalThis : undefined,
  document: globalThis.document,
});

/** What tells that the machine, the page or the network is back. */
const WINDOW_WAKES = ["online", "pageshow"];
const DOCUMENT_WAKES = ["visibilitychange", "resume"];

/**
 * Reads one user's stream, and comes back to it however often it goes away. It dispatches its items as `CustomEvent`s
 * named by their kind, and `run` with `{run, removed}`; it is also an async iterable of its items.
 */
export class EmitterClient extends EventTarget {
  #options;
  #env;
  #url;
  #seen;
  #backoff;
  #fallback;
  #watch;
  #attempted;
  #store = new RunStore((run) => this.#tell("run", { run, removed: true }));

  /** @type {Connection} */
  #connection = { state: "idle", transport: null, reason: null, retryAt: null, connectionId: null, userId: null };
  /** Why it stopped. @type {EmitterError | null} */
  #stopped = null;
  /** @type {Link | null} */
  #link = null;
  /** A frame came over the link. */
  #heard = false;
  /** @type {Stopwatch | null} */
  #opened = null;
  /** @type {Farewell | null} */
  #farewell = null;
  /** Ends the calls of `token` that are under way. */
  #asking = new AbortController();
  /** @type {TokenRequest["reason"]} */
  #tokenReason = "connect";
  /** The timer of the next attempt, and when the server lets it come. @type {any} */
  #retry = null;
  #notBefore = 0;
  /** The timer of the next renewal of the token, and when the last one began. @type {any} */
  #renewal = null;
  #renewedAt;
  /** Leaves SSE for another try at WebSocket. @type {any} */
  #leave = null;

  /** @type {Entry[]} */
  #queue = [];
  #queueSize = 0;
  /** The iterator lags so much that the connection was given up until it has caught up. */
  #full = false;
  /** @type {Reader | null} */
  #reader = null;
  /** What was delivered, what of that is dealt with, and what of that was acknowledged. @type {Position | null} */
  #position = null;
  /** @type {Position | null} */
  #dealt = null;
  /** There was an iterator. A loop that ends may have ended by a throw: nothing is dealt with until the next one asks. */
  #iterated = false;
  /** @type {Position | null} */
  #acked = null;
  /** An acknowledgement was sent on this connection. */
  #ackUnsure = false;
  /** The stream has begun: the runs that were open there are known, and what comes is this client's to acknowledge. */
  #begun = false;
  /** @type {any} */
  #ackTimer = null;
  #ackedAt;
  #warnedAt;

  /**
   * @param {ClientOptions} options
   * @param {Partial<Environment>} environment For tests.
   */
  constructor(options, environment = {}) {
    super();
    const env = { ...browser(), ...environment };
    checkOptions(options);
    this.#options = { ...options };
    this.#env = env;
    this.#url = new URL(options.url ?? new URL("/", import.meta.url));
    this.#url.protocol = this.#url.protocol.replace(/^ws/, "http");
    const start = parsePosition(options.start);
    this.#seen = new Seen(start);
    this.#position = start;
    this.#backoff = new Backoff(env.random);
    this.#fallback = new Fallback(options.transport ?? "auto", env.now);
    this.#watch = new Watch(env);
    this.#attempted = new Stopwatch(env);
    this.#renewedAt = new Stopwatch(env);
    this.#ackedAt = new Stopwatch(env);
    this.#warnedAt = new Stopwatch(env);
  }

  /** How the client stands now. */
  get connection() {
    return this.#connection;
  }

  /** Everything up to here was delivered, left out by the filter, or told as a gap. */
  get position() {
    return written(this.#position);
  }

  /** The runs, in the order of their start. @returns {ReadonlyMap<string, RunState>} */
  get runs() {
    return this.#store.runs;
  }

  /** Connects, also after the server had stopped it; otherwise does nothing. */
  connect() {
    const { state } = this.#connection;
    if (state === "idle" || state === "stopped") {
      this.#stopped = null;
      WINDOW_WAKES.forEach((name) => this.#env.window?.addEventListener(name, this.#wake));
      DOCUMENT_WAKES.forEach((name) => this.#env.document?.addEventListener(name, this.#wake));
      this.#attempt();
    }
  }

  /** Ends it for good. What waits for an iterator is dropped. */
  close() {
    if (this.#connection.state !== "closed") {
      this.#rest();
      this.#queue = [];
      this.#queueSize = 0;
      this.#show({ state: "closed", reason: null, retryAt: null });
    }
  }

  // ----- Attempts and connections.

  #attempt() {
    this.#env.clearTimeout(this.#retry);
    const transport = this.#fallback.choose();
    const asking = new AbortController();
    this.#asking = asking;
    this.#attempted.start();
    this.#heard = false;
    this.#opened = null;
    this.#farewell = null;
    this.#watch.start(TOKEN_MS, () => this.#ended({ reason: "the token took too long", local: true }));
    this.#show({ state: "connecting", transport, reason: null, retryAt: null });
    this.#token(this.#tokenReason, asking).then(
      (token) => asking.signal.aborted || this.#open(transport, token),
      (error) => asking.signal.aborted || this.#ended({ reason: `no token: ${error?.message ?? error}`, local: true }),
    );
  }

  /** @param {TokenRequest["reason"]} reason @param {AbortController} asking @returns {Promise<string>} */
  async #token(reason, { signal }) {
    signal.throwIfAborted();
    const given = await this.#options.token({ reason, signal });
    // What a file or a command gave ends with a line's end.
    const token = text(given).trim();
    if (token === "") {
      throw new EmitterError("what it gave is no text");
    }
    return token;
  }

  /** @param {TransportName} transport @param {string} token */
  #open(transport, token) {
    const patience = this.#fallback.trial ? TRIAL_MS : HANDSHAKE_MS;
    this.#watch.start(patience, () => this.#ended({ reason: "no answer" }));
    const LinkOf = transport === "websocket" ? WebSocketLink : SseLink;
    try {
      this.#link = new LinkOf(this.#env, this.#address(transport), token, {
        hear: (text) => this.#hear(text),
        end: (end) => this.#ended(end),
      });
    } catch (error) {
      this.#ended({ reason: String(/** @type {Error} */ (error)?.message ?? error) });
    }
  }

  /** @param {TransportName} transport */
  #address(transport) {
    const { start, clientId, threadId, runId, types, join } = this.#options;
    const url = new URL(this.#url);
    url.pathname = url.pathname.replace(/\/*$/, transport === "websocket" ? "/v1/stream" : "/v1/events");
    url.hash = "";
    const after = written(this.#seen.cursor);
    /** @type {[string, string | undefined][]} */
    const query = [
      after ? ["after", after] : ["from", start ?? "head"],
      ["client_id", clientId],
      ["thread_id", threadId],
      ["run_id", runId],
      ["types", types?.length ? types.join(",") : undefined],
      ["join", join?.toString()],
    ];
    url.search = new URLSearchParams(query.flatMap(([name, value]) => (value ? [[name, value]] : []))).toString();
    return url;
  }

  /** The connection, or the attempt at one, is over. @param {End} end */
  #ended(end) {
    const { transport } = this.#connection;
    if (transport && end.answered) {
      this.#fallback.worked(transport);
    } else if (transport && !end.local && !this.#heard) {
      this.#fallback.failed(transport);
    }
    if (this.#opened && this.#opened.elapsed >= SUCCESS_MS) {
      this.#backoff.reset();
    }
    const expired = end.expired || this.#farewell?.expired;
    const reason = this.#farewell?.reason ?? end.reason;
    if (expired || this.#heard) {
      this.#tokenReason = expired ? "expired" : "connect";
    }
    const final = !expired && (end.final || this.#farewell?.final);
    const askedMs = this.#farewell?.askedMs ?? end.askedMs;
    this.#disconnect();
    if (final) {
      this.#stop(reason, end.code ?? null);
    } else {
      this.#wait(reason, askedMs);
    }
  }

  /** @param {string} reason @param {number} [askedMs] */
  #wait(reason, askedMs) {
    const ms = this.#backoff.next(askedMs);
    const wall = this.#env.wall();
    this.#notBefore = askedMs ? wall + ms : 0;
    this.#retry = this.#env.setTimeout(() => this.#attempt(), Math.ceil(ms));
    this.#show({ state: "waiting", reason, retryAt: wall + ms });
  }

  /** @param {string} reason @param {number | null} code */
  #stop(reason, code) {
    this.#rest();
    this.#stopped = new EmitterError(`the server refuses this client: ${reason}`, code);
    this.#show({ state: "stopped", reason, retryAt: null });
  }

  /** Gives up the link and what belongs to it. */
  #disconnect() {
    this.#asking.abort();
    this.#watch.stop();
    this.#link?.close();
    this.#link = null;
    this.#env.clearTimeout(this.#leave);
    this.#env.clearTimeout(this.#renewal);
    this.#env.clearTimeout(this.#ackTimer);
    this.#ackTimer = null;
    if (this.#ackUnsure) {
      // Whether the last one arrived is not known: it is due again.
      this.#acked = null;
      this.#ackUnsure = false;
    }
  }

  /** Nothing happens any more by itself. */
  #rest() {
    this.#disconnect();
    this.#full = false;
    this.#env.clearTimeout(this.#retry);
    WINDOW_WAKES.forEach((name) => this.#env.window?.removeEventListener(name, this.#wake));
    DOCUMENT_WAKES.forEach((name) => this.#env.document?.removeEventListener(name, this.#wake));
  }

  /** The machine, the page or the network is back: timers may be late, and the connection dead. */
  #wake = () => {
    if (this.#env.document?.visibilityState === "hidden") {
      return;
    }
    this.#watch.check();
    const asked = this.#notBefore - this.#env.wall();
    const forbidden = asked > 0 && asked <= 2 * WAIT_MOST_MS;
    if (this.#connection.state === "waiting" && !this.#full && !forbidden && this.#attempted.elapsed >= WAKE_EVERY_MS) {
      this.#attempt();
    }
  };

  // ----- Frames.

  /** @param {string} json */
  #hear(json) {
    this.#watch.hear();
    const frame = /** @type {Frame} */ (object(parsed(json)));
    if (typeof frame.type !== "string") {
      this.#warn("a frame is no JSON object with a type");
      return;
    }
    const { transport } = this.#connection;
    if (!this.#heard && transport) {
      this.#heard = true;
      this.#fallback.worked(transport);
    }
    if (frame.type.startsWith("connection_")) {
      this.#control(frame, json.length);
    } else {
      this.#event(frame, json.length);
    }
  }

  /** @param {Frame} frame @param {number} size */
  #event(frame, size) {
    const position = parsePosition(`${frame.epoch}-${frame.offset}`);
    const admitted = position ? this.#seen.admit(position, text(frame.event_id)) : "new";
    if (admitted !== "behind") {
      this.#push({ item: { kind: "event", frame, run: null }, size, position, again: admitted === "again" });
    }
  }

  /** @param {Frame} frame @param {number} size */
  #control(frame, size) {
    const position = parsePosition(frame.position);
    switch (frame.type) {
      case "connection_established":
        this.#establish(frame, position);
        break;
      case "connection_gap":
        this.#gap(frame, parsePosition(frame.next), size);
        break;
      case "connection_caught_up":
        if (position) {
          this.#seen.advance(position);
          this.#push({ item: { kind: "caughtup", position: frame.position }, size: 0, position });
        }
        break;
      case "connection_heartbeat":
        if (position) {
          this.#seen.advance(position);
          this.#reach();
        }
        break;
      case "connection_token_expiring":
        this.#renewInTime(numberOrNull(frame.expires_in_ms) ?? 0);
        break;
      case "connection_closing": {
        const askedMs = numberOrNull(frame.reconnect_after_ms) ?? undefined;
        const expired = frame.reason === EXPIRED;
        this.#farewell = { reason: text(frame.reason), expired, final: askedMs === undefined, askedMs };
        break;
      }
      case "connection_error":
        this.#warn(`the server refused what the client sent: ${text(frame.reason)} ${text(frame.message)}`);
    }
  }

  /** @param {Frame} frame @param {Position | null} position */
  #establish(frame, position) {
    if (position) {
      this.#seen.begin(position);
    }
    const interval = Math.min(Math.max(numberOrNull(frame.heartbeat_interval_ms) ?? 20_000, 100), 600_000);
    this.#watch.start(interval * 2.5, () => this.#ended({ reason: "the server has fallen silent" }));
    this.#opened = new Stopwatch(this.#env);
    this.#opened.start();
    const first = !this.#begun;
    if (first) {
      this.#begun = true;
      this.#acked = this.#seen.cursor;
    }
    const connectionId = textOrNull(frame.connection_id);
    const userId = textOrNull(frame.user_id);
    const also = first ? { openRuns: frame.open_runs, position: this.#seen.cursor } : {};
    this.#leaveSseLater();
    this.#show({ state: "open", reason: null, retryAt: null, connectionId, userId }, also);
    this.#acknowledgeLater();
  }

  /** @param {Frame} frame @param {Position | null} next @param {number} size */
  #gap(frame, next, size) {
    if (next) {
      this.#seen.jump(next);
    }
    // What was trimmed cannot have changed runs that ended before.
    this.#push({ item: { kind: "reset" }, size: 0, ifOpen: frame.reason === "trimmed" });
    this.#push({ item: { kind: "gap", frame }, size, position: next, openRuns: frame.open_runs });
  }

  /**
   * The server gives notice of a token that is about to expire, so of a short one at once. Half of what is left of that
   * passes first: else one token after the other would be asked for.
   * @param {number} left
   */
  #renewInTime(left) {
    this.#env.clearTimeout(this.#renewal);
    if (left > 0 && this.#renewedAt.elapsed < SHORT_MS) {
      this.#renewal = this.#env.setTimeout(() => this.#renew(), Math.ceil(Math.min(left, SHORT_MS) / 2));
    } else {
      this.#renew();
    }
  }

  /** Shows a new token on the same connection. If there is none, the client comes back when the old one is over. */
  #renew() {
    const link = this.#link;
    if (!(link instanceof WebSocketLink)) {
      return;
    }
    this.#renewedAt.start();
    const asking = new AbortController();
    const abort = () => asking.abort();
    const timer = this.#env.setTimeout(abort, TOKEN_MS);
    this.#asking.signal.addEventListener("abort", abort, { once: true });
    this.#token("expiring", asking)
      .then((token) => asking.signal.aborted || link.send(JSON.stringify({ type: "authenticate", token })))
      .catch((error) => this.#warn(`no token: ${error?.message ?? error}`))
      .finally(() => this.#env.clearTimeout(timer));
  }

  #leaveSseLater() {
    const ms = this.#fallback.againIn;
    if (this.#connection.transport === "sse" && ms < Infinity) {
      this.#leave = this.#env.setTimeout(
        () => {
          this.#disconnect();
          this.#attempt();
        },
        Math.ceil(Math.max(ms, 1)),
      );
    }
  }

  // ----- Delivery.

  /** @param {Entry} entry */
  #push(entry) {
    if (this.#connection.state === "closed" && entry.item.kind !== "connection") {
      // By a listener, while a frame was told that is more than one item.
      return;
    }
    this.#queue.push(entry);
    this.#queueSize += entry.size;
    this.#deliver();
    const full = this.#queue.length >= BUFFER_ITEMS || this.#queueSize >= BUFFER_TEXT;
    if (full && this.#link) {
      this.#full = true;
      this.#disconnect();
      this.#show({ state: "waiting", reason: "the iterator lags", retryAt: null });
    }
  }

  /** @param {Partial<Connection>} change @param {Partial<Entry>} also What else goes with it. */
  #show(change, also = {}) {
    this.#connection = Object.freeze({ ...this.#connection, connectionId: null, ...change });
    /** @type {Item} */
    const item = { kind: "connection", connection: this.#connection };
    const last = this.#queue.at(-1);
    if (last?.item.kind === "connection") {
      // Only how it stands now matters to one who lags.
      Object.assign(last, { item }, also);
      this.#deliver();
    } else {
      this.#push({ item, size: 0, ...also });
    }
  }

  /** What the filter leaves out moves the position too, behind what waits. */
  #reach() {
    const last = this.#queue.at(-1);
    if (last) {
      last.position = this.#seen.cursor;
      return;
    }
    this.#position = this.#seen.cursor;
    if (this.#reader ? this.#reader.ask : !this.#iterated) {
      this.#dealt = this.#position;
      this.#acknowledgeLater();
    }
  }

  /** Delivers what waits, as far as it is asked for. */
  #deliver() {
    while (this.#queue.length > 0 && (!this.#reader || this.#reader.ask)) {
      const entry = /** @type {Entry} */ (this.#queue.shift());
      this.#queueSize -= entry.size;
      const reader = this.#reader;
      const item = this.#take(entry);
      if (!reader && !this.#iterated) {
        this.#dealt = this.#position;
      } else if (reader && item) {
        reader.ask?.answer({ value: item, done: false });
        reader.ask = null;
      }
    }
    this.#acknowledgeLater();
    this.#finish();
    if (this.#full && this.#queue.length <= BUFFER_ITEMS / 4 && this.#queueSize <= BUFFER_TEXT / 4) {
      this.#full = false;
      this.#attempt();
    }
  }

  /** Takes an entry in, and tells it. `null`: there is nothing to tell. @param {Entry} entry @returns {Item | null} */
  #take(entry) {
    const { item } = entry;
    if (entry.ifOpen && !this.#store.someOpen) {
      return null;
    }
    if (item.kind === "reset") {
      this.#store.clear();
    }
    this.#position = entry.position ?? this.#position;
    this.#store.seed(entry.openRuns).forEach((run) => this.#tell("run", { run, removed: false }));
    if (item.kind === "event") {
      item.run = this.#store.apply(item.frame, entry.size);
      if (item.run) {
        this.#tell("run", { run: item.run, removed: false });
      }
    }
    if (entry.again) {
      return null;
    }
    this.#tell(item.kind, item);
    return item;
  }

  /** @param {string} name @param {unknown} detail */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Tells the iterator that nothing comes any more. */
  #finish() {
    const ask = this.#reader?.ask;
    const closed = this.#connection.state === "closed";
    if (this.#reader && ask && this.#queue.length === 0 && (closed || this.#stopped)) {
      // A loop that ends so does not say that it is over.
      this.#reader = null;
      if (closed) {
        ask.answer({ value: undefined, done: true });
      } else {
        ask.fail(/** @type {EmitterError} */ (this.#stopped));
      }
    }
  }

  /**
   * The items from here on; one iterator at a time. It ends when the client is closed, and throws an `EmitterError`
   * when it is stopped.
   * @returns {AsyncIterableIterator<Item>}
   */
  [Symbol.asyncIterator]() {
    if (this.#reader) {
      throw new EmitterError("the client has an iterator already");
    }
    /** @type {Reader} */
    const reader = { ask: null };
    this.#reader = reader;
    this.#iterated = true;
    this.connect();
    return {
      next: () => this.#next(reader),
      return: async () => {
        this.#release(reader);
        return { value: undefined, done: true };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** @param {Reader} reader @returns {Promise<IteratorResult<Item, undefined>>} */
  #next(reader) {
    return new Promise((answer, fail) => {
      if (this.#reader !== reader) {
        answer({ value: undefined, done: true });
      } else if (reader.ask) {
        fail(new EmitterError("the iterator was asked for an item already"));
      } else {
        // Whoever asks for the next is done with those before.
        this.#dealt = this.#position;
        reader.ask = { answer, fail };
        this.#deliver();
      }
    });
  }

  /** @param {Reader} reader */
  #release(reader) {
    if (this.#reader === reader) {
      this.#reader = null;
      reader.ask?.answer({ value: undefined, done: true });
      this.#deliver();
    }
  }

  // ----- Acknowledgements.

  /** Acknowledges what was dealt with, at most once a second, if the client has a name. */
  #acknowledgeLater() {
    const due = this.#dealt !== null && this.#dealt !== this.#acked;
    if (due && this.#options.clientId && this.#opened && !this.#ackTimer && this.#link instanceof WebSocketLink) {
      const left = ACK_EVERY_MS - this.#ackedAt.elapsed;
      this.#ackTimer = this.#env.setTimeout(() => this.#acknowledge(), Math.max(left, 0));
    }
  }

  #acknowledge() {
    this.#ackTimer = null;
    this.#ackedAt.start();
    this.#acked = this.#dealt;
    this.#ackUnsure = true;
    this.#link?.send(JSON.stringify({ type: "ack", ...this.#dealt }));
  }

  /** @param {string} text */
  #warn(text) {
    if (this.#warnedAt.elapsed >= WARN_EVERY_MS) {
      this.#warnedAt.start();
      this.#env.warn(`emitter: ${text}`);
    }
  }
}

/** @param {ClientOptions} options */
function checkOptions({ token, start, clientId, transport }) {
  if (typeof token !== "function") {
    throw new TypeError("`token` must be a function");
  }
  if (start && !["head", "oldest", "open", "acked"].includes(start) && !parsePosition(start)) {
    throw new TypeError("`start` must be head, oldest, open, acked or a position");
  }
  if (start === "acked" && !clientId) {
    throw new TypeError("`start: \"acked\"` needs a `clientId`");
  }
  if (transport && !["auto", "websocket", "sse"].includes(transport)) {
    throw new TypeError("`transport` must be auto, websocket or sse");
  }
}
