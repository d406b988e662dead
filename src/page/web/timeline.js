// What happened in one run: what each of its events does to the rows of its timeline.

import { line, parse } from "./format.js";
import { Rows } from "./rows.js";

/** @typedef {import("./log.js").Entry} Entry */
/** @typedef {import("/emitter.js").Frame} EventFrame */

/** How much of a text is told on a line beside others; the whole stands in the event. */
const LINE = 300;

/**
 * @param {Rows} rows
 * @param {Pick<Entry, "event" | "gap"> & {waits?: readonly number[]}} entry an event of the run, the start of a
 *   sub-agent, or a gap
 * @param {string} runId
 */
export function apply(rows, { event, gap, waits = [] }, runId) {
  if (gap) {
    rows.add("gap", null, { facts: { reason: gap.reason } });
  } else if (event && event.run_id !== runId) {
    const facts = { runId: event.run_id, agentName: event.agent_name };
    rows.add("child", recordedAt(event), { facts, text: text(event.payload, "message") });
  } else if (event) {
    applyOwn(rows, event, waits);
  }
  rows.trim();
}

/**
 * When an event was recorded: all rows are by the service's clock. `timestamp` may be of its producer's.
 * @param {EventFrame} event
 */
function recordedAt({ recorded_at: recorded, timestamp }) {
  return parse(recorded) ?? parse(timestamp);
}

/**
 * Tool calls and waits that began before the first event that is known.
 * @param {Rows} rows
 * @param {Pick<import("/emitter.js").RunState, "toolCalls" | "waits">} run
 */
export function seed(rows, { toolCalls, waits }) {
  for (const { state, toolCallId, callSequence, toolName, startedAt } of toolCalls) {
    const key = toolKey({ tool_call_id: toolCallId, call_sequence: callSequence });
    if (state === "open" && !rows.find(key)) {
      addTool(rows, key, parse(startedAt), { tool: toolName, seeded: true });
    }
  }
  for (const { sequence, reason, kind, prompt, choices, startedAt } of waits) {
    const facts = { reason: reason || kind, choices, sequence };
    rows.add("waiting", parse(startedAt), { facts, text: prompt, name: waitKey(sequence) });
  }
}

/**
 * @param {Rows} rows
 * @param {EventFrame} event
 * @param {readonly number[]} waits those that are open behind it
 */
function applyOwn(rows, event, waits) {
  const at = recordedAt(event);
  for (const block of rows.waits) {
    if (!waits.includes(block.facts.sequence)) {
      rows.close(block);
      rows.change(block, { ended: at });
    }
  }
  const known = event.custom ? undefined : APPLY[event.type];
  if (known) {
    known(rows, event.payload ?? {}, at, event);
  } else {
    other(rows, event, at);
  }
}

/** @typedef {Record<string, any>} Payload */

/** @type {Record<string, (rows: Rows, payload: Payload, at: number | null, event: EventFrame) => void>} */
const APPLY = {
  agent_started(rows, payload, at) {
    rows.add("start", at, { facts: { agentType: payload.agent_type }, text: text(payload, "message") });
  },
  agent_thinking(rows, payload, at) {
    const facts = {
      step: payload.step_number,
      total: payload.total_steps,
      progress: payload.progress_percentage,
    };
    const name = payload.message_id ? streamKey("thought", payload.message_id) : "";
    // It replaces the pieces of its thought, and ends them: by this name late ones find it.
    const streamed = name ? rows.find(name) : undefined;
    if (streamed) {
      rows.remove(streamed);
    }
    rows.add("thinking", at, { facts, text: text(payload, "reasoning"), name });
  },
  thinking_delta(rows, payload, at) {
    const block = streamed(rows, "thought", payload, at);
    if (block.kind === "thought") {
      rows.grow(block, text(payload, "text"));
    }
  },
  text_delta(rows, payload, at) {
    const block = streamed(rows, "text", payload, at);
    // A late piece of a message that is whole says nothing new.
    if (!block.facts.final) {
      rows.grow(block, text(payload, "text"));
    }
  },
  message(rows, payload, at) {
    const block = streamed(rows, "text", payload, at);
    rows.rewrite(block, text(payload, "text"));
    rows.change(block, { final: true });
  },
  tool_executing(rows, payload, at, { run_sequence: sequence }) {
    const key = toolKey(payload);
    const before = rows.find(key) ?? rows.find(toolKey({ tool_call_id: payload.tool_call_id }));
    const repeats = typeof payload.call_sequence === "number" && payload.call_sequence !== sequence;
    if (repeats && before) {
      return;
    }
    const facts = {
      tool: text(payload, "tool_name"),
      description: line(text(payload, "description"), LINE),
      parameters: payload.parameters,
    };
    // Where its beginning comes after all, it stands there.
    if (before?.facts.seeded) {
      rows.remove(before);
    }
    addTool(rows, key, at, facts);
  },
  tool_progress(rows, payload) {
    const block = openTool(rows, payload);
    if (block) {
      const { fraction = block.facts.fraction } = payload;
      rows.change(block, { fraction, progress: line(text(payload, "message"), LINE) });
    }
  },
  tool_completed(rows, payload, at) {
    const { execution_time_ms: took, result } = payload;
    const start = at !== null && took !== undefined ? at - took : at;
    const block = openTool(rows, payload) ?? addTool(rows, toolKey(payload), start, { tool: text(payload, "tool_name") });
    const error = line(text(payload, "error"), LINE);
    const state = CALL_ENDS.has(payload.status) ? payload.status : error ? "failed" : "succeeded";
    rows.change(block, { state, end: at, took, error, result });
  },
  agent_waiting(rows, payload, at, { run_sequence: sequence }) {
    const choices = Array.isArray(payload.choices) ? payload.choices : [];
    const facts = { reason: line(text(payload, "reason") || text(payload, "kind"), LINE), choices, sequence };
    const seeded = rows.find(waitKey(sequence));
    if (seeded) {
      rows.remove(seeded);
    }
    rows.add("waiting", at, { facts, text: text(payload, "prompt"), name: waitKey(sequence) });
  },
  // The waits that it ends say so.
  agent_resumed() {},
  agent_completed(rows, payload, at) {
    end(rows, at, { state: "completed", result: payload.result }, text(payload, "message"));
  },
  agent_failed(rows, payload, at) {
    const { code, retryable } = payload;
    end(rows, at, { state: "failed", code, retryable }, text(payload, "message"));
  },
  agent_cancelled(rows, payload, at) {
    end(rows, at, { state: "cancelled" }, text(payload, "reason"));
  },
};

const CALL_ENDS = new Set(["succeeded", "failed", "cancelled", "denied"]);

/**
 * A call's number tells it from others of its id. Servers that do not number calls have one open call per id.
 * @param {Payload} payload
 */
function toolKey({ call_sequence: sequence, tool_call_id: id }) {
  return typeof sequence === "number" ? `tool #${sequence}` : `tool ${id}`;
}

/** @param {Rows} rows @param {Payload} payload */
function openTool(rows, payload) {
  return rows.find(toolKey(payload)) ?? rows.find(toolKey({ tool_call_id: payload.tool_call_id }));
}

/** @param {unknown} sequence the `run_sequence` of its `agent_waiting` */
function waitKey(sequence) {
  return `wait ${sequence}`;
}

/**
 * @param {Rows} rows
 * @param {string} name
 * @param {number | null} at
 * @param {Record<string, any>} facts
 */
function addTool(rows, name, at, facts) {
  return rows.add("tool", at, { facts: { state: "open", start: at, ...facts }, name });
}

/** @param {"text" | "thought"} kind @param {...string} names */
function streamKey(kind, ...names) {
  return JSON.stringify([kind, ...names]);
}

/**
 * The block that the pieces of one message make up: id and role name it. A piece without a role continues the message
 * of its id, whoever speaks; one without an id continues the block before it.
 * @param {Rows} rows
 * @param {"text" | "thought"} kind
 * @param {Payload} payload
 * @param {number | null} at
 */
function streamed(rows, kind, payload, at) {
  const [id, role] = [text(payload, "message_id"), kind === "text" ? text(payload, "role") : ""];
  const speaker = kind === "text" ? role || "assistant" : "";
  if (id) {
    const name = kind === "text" ? streamKey(kind, id, speaker) : streamKey(kind, id);
    // The newest of its id, whoever speaks.
    const alias = kind === "text" ? streamKey(kind, id) : "";
    return rows.find(role ? name : alias || name) ?? rows.add(kind, at, { facts: { role: speaker }, name, alias });
  }
  const before = rows.last;
  const continues = before?.kind === kind && !before.name && !before.facts.final && (!role || before.facts.role === role);
  return continues ? before : rows.add(kind, at, { facts: { role: speaker } });
}

/**
 * @param {Rows} rows
 * @param {number | null} at
 * @param {Record<string, any>} facts
 * @param {string} words
 */
function end(rows, at, facts, words) {
  for (const block of rows.named()) {
    if (block.kind === "tool" && block.facts.state === "open") {
      rows.change(block, { state: "unfinished", end: at });
    }
  }
  rows.add("end", at, { facts, text: words });
}

/**
 * What has no row of its own kind; one of a type after another is told as one.
 * @param {Rows} rows
 * @param {EventFrame} event
 * @param {number | null} at
 */
function other(rows, { type, payload }, at) {
  const last = rows.last;
  if (last?.kind === "other" && last.facts.type === type) {
    rows.change(last, { times: last.facts.times + 1, payload });
  } else {
    rows.add("other", at, { facts: { type, payload, times: 1 } });
  }
}

/**
 * @param {Payload | undefined} payload
 * @param {string} field
 * @returns {string}
 */
function text(payload, field) {
  const value = payload?.[field];
  return typeof value === "string" ? value : "";
}
