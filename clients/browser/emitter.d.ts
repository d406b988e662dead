// The types of the client's public interface. A test compares them with the JSDoc types in emitter.js.

/** One frame of the stream as the server sent it: an event, or a control frame (`connection_…`). */
export interface Frame {
  type: string;
  [field: string]: any;
}

export interface Position {
  epoch: string;
  offset: number;
}

/** `waiting`: for the next attempt. `closed`: by `close()`. `stopped`: the server says not to come back. */
export type ConnectionState = "idle" | "connecting" | "open" | "waiting" | "closed" | "stopped";

export type TransportName = "websocket" | "sse";

/** The state of the connection. */
export interface Connection {
  state: ConnectionState;
  transport: TransportName | null;
  /** Why the client waits or stopped: the server's reason, if it sent one. */
  reason: string | null;
  /** When a client that waits tries again, in milliseconds since 1970. */
  retryAt: number | null;
  connectionId: string | null;
  userId: string | null;
}

/** What a client delivers, in the order of the stream. */
export type Item =
  | { kind: "event"; frame: Frame; run: RunState | null }
  | { kind: "gap"; frame: Frame }
  | { kind: "reset" }
  | { kind: "caughtup"; position: string }
  | { kind: "connection"; connection: Connection };

/** The `detail` of each event that a client dispatches. */
export type EventDetails = { [K in Item["kind"]]: Extract<Item, { kind: K }> } & {
  run: { run: RunState; removed: boolean };
};

/** A request for a token. `expired`: the last token has expired, so a cached one does not help. */
export interface TokenRequest {
  reason: "connect" | "expiring" | "expired";
  signal: AbortSignal;
}

export interface ClientOptions {
  /** The service's origin. Default: where the module came from, so a bundled module needs it. */
  url?: string | URL;
  token: (request: TokenRequest) => string | Promise<string>;
  /** `head` (default), `oldest`, `open`, `acked`, or a position. */
  start?: string;
  /** Names the client, one per tab. With it, the client acknowledges what it delivered. */
  clientId?: string;
  threadId?: string;
  runId?: string;
  types?: string[];
  /** Whether the server may join deltas when the client lags. Default: true. */
  join?: boolean;
  /** Default: `auto`. */
  transport?: "auto" | TransportName;
}

/** `unfinished`: open when its run ended. */
export type ToolCallState = "open" | "succeeded" | "failed" | "cancelled" | "denied" | "unfinished";

export interface ToolCall {
  /** Several calls of a run may have the same id. */
  toolCallId: string;
  /** Identifies the call within its run. `null` with servers that do not send it. */
  callSequence: number | null;
  toolName: string;
  description: string | null;
  parameters: any;
  state: ToolCallState;
  startedAt: string | null;
  endedAt: string | null;
  executionTimeMs: number | null;
  /** 0 to 1. */
  fraction: number | null;
  progress: string | null;
  result: any;
  error: string | null;
}

export interface Message {
  messageId: string;
  role: string;
  text: string;
  final: boolean;
}

/** A question to a person that is open. Of a wait that began before the stream did, the texts are empty. */
export interface Wait {
  /** Empty if its producer did not name it. */
  waitId: string;
  /** The call that waits for the answer, or empty. */
  toolCallId: string;
  kind: string;
  reason: string;
  prompt: string;
  choices: string[];
  /** The `run_sequence` of its `agent_waiting`. */
  sequence: number;
  startedAt: string | null;
  expiresAt: string | null;
}

/** The agent's present thought. */
export interface Thinking {
  reasoning: string | null;
  stepNumber: number | null;
  totalSteps: number | null;
  progressPercentage: number | null;
  messageId: string;
  /** What of it streamed so far. */
  text: string;
}

/**
 * What a run consumed, without its sub-agents. Cached and cache-write tokens are parts of the input tokens, reasoning
 * tokens of the output tokens.
 */
export interface Usage {
  inputTokens: number;
  outputTokens: number;
  cachedInputTokens: number;
  cacheWriteInputTokens: number;
  cacheWrite1hInputTokens: number;
  reasoningTokens: number;
  /** In billionths of a US dollar. */
  costNanoUsd: number;
  /** How many events are of a model without a price: their cost is unknown. */
  unpricedEvents: number;
}

/** One run, changed in place. Times are ISO texts by the server's clock. */
export interface RunState {
  runId: string;
  agentName: string;
  threadId: string | null;
  parentRunId: string | null;
  state: "running" | "waiting" | "completed" | "failed" | "cancelled";
  /** Its beginning was not seen. */
  partial: boolean;
  /** Its oldest texts or tool calls were dropped because there were too many. */
  truncated: boolean;
  startedAt: string | null;
  endedAt: string | null;
  lastEventAt: string | null;
  message: string | null;
  /** The last of `waits`. */
  waiting: Wait | null;
  /** The open waits, oldest first. */
  waits: Wait[];
  error: { code: string; message: string; retryable: boolean | null } | null;
  result: any;
  thinking: Thinking | null;
  /** What the assistant said so far, with an empty line between messages. */
  text: string;
  messages: Message[];
  toolCalls: ToolCall[];
  openToolCalls: number;
  usage: Usage;
  childRunIds: string[];
  events: number;
  lastSequence: number;
}

/** A refusal of the server, or wrong use of the client. */
export class EmitterError extends Error {
  constructor(message: string, code?: number | null);
  /** The WebSocket close code or HTTP status, if there was one. */
  code: number | null;
}

/** Parses `<epoch>-<offset>`. `null`: it is not a position. */
export function parsePosition(text: unknown): Position | null;

/**
 * Reads one user's stream and reconnects by itself. Dispatches its items as `CustomEvent`s named by their kind, and
 * `run`; it is also an async iterable of its items.
 */
export class EmitterClient extends EventTarget implements AsyncIterable<Item> {
  /** Throws a `TypeError` on wrong options. */
  constructor(options: ClientOptions);
  readonly connection: Connection;
  /** Everything up to here was delivered, filtered out, or announced as a gap. */
  readonly position: string | null;
  /** The runs by id, in the order of their start. */
  readonly runs: ReadonlyMap<string, RunState>;
  /** Connects, also after the server stopped the client. Otherwise it does nothing. */
  connect(): void;
  /** Closes the client for good. */
  close(): void;
  /** One iterator at a time. It ends with `close()`, and throws an `EmitterError` when the client stops. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Item>;
  addEventListener<K extends keyof EventDetails>(
    kind: K,
    listener: (event: CustomEvent<EventDetails[K]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    kind: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof EventDetails>(
    kind: K,
    listener: (event: CustomEvent<EventDetails[K]>) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    kind: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void;
}
