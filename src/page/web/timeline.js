// What happened in one run: what each of its events does to the rows of its timeline.

import { line, parse } from "./format.js";
import { Rows } from "./rows.js";

/** @typedef {import("./log.js").Entry} Entry */
/** @typedef {import("/emitter.js").Frame} EventFrame */

/** How much of a text is told on a line beside others; the whole stands in the event. */
const LINE = 300;

/**
 * @param {Rows} rows
 * @param {Entry} entry an event of the run, the start of a sub-agent, or a gap
 * @param {string} runId
 */
export function apply(rows, { event, gap }, runId) {
  if (gap) {
    rows.add("gap", null, { facts: { reason: gap.reason } });
  } else if (event && event.run_id !== runId) {
    const facts = { runId: event.run_id, agentName: event.agent_name };
    rows.add("child", parse(event.timestamp), { facts, text: text(event.payload, "message") });
  } else if (event) {
    applyOwn(rows, event);
  }
  rows.trim();
}

/**
 * Tool calls that began before the first event that is known.
 * @param {Rows} rows
 * @param {import("/emitter.js").RunState["toolCalls"]} calls
 */
export function seed(rows, calls) {
  for (const { state, toolCallId, toolName, startedAt } of calls) {
    if (state === "open" && !rows.find(toolKey(toolCallId))) {
      addTool(rows, toolCallId, parse(startedAt), { tool: toolName, seeded: true });
    }
  }
}

/**
 * @param {Rows} rows
 * @param {EventFrame} event
 */
function applyOwn(rows, event) {
  const at = parse(event.timestamp);
  const waiting = rows.find("waiting");
  if (waiting) {
    rows.close(waiting);
    rows.change(waiting, { ended: at });
  }
  const known = event.custom ? undefined : APPLY[event.type];
  if (known) {
    known(rows, event.payload ?? {}, at);
  } else {
    other(rows, event, at);
  }
}

/** @typedef {Record<string, any>} Payload */

/** @type {Record<string, (rows: Rows, payload: Payload, at: number | null) => void>} */
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
    rows.add("thinking", at, { facts, text: text(payload, "reasoning") });
  },
  thinking_delta(rows, payload, at) {
    rows.grow(streamed(rows, "thought", payload, at), text(payload, "text"));
  },
  text_delta(rows, payload, at) {
    rows.grow(streamed(rows, "text", payload, at), text(payload, "text"));
  },
  message(rows, payload, at) {
    const block = streamed(rows, "text", payload, at);
    rows.rewrite(block, text(payload, "text"));
    rows.change(block, { final: true });
  },
  tool_executing(rows, payload, at) {
    const facts = {
      tool: text(payload, "tool_name"),
      description: line(text(payload, "description"), LINE),
      parameters: payload.parameters,
    };
    // Where its beginning comes after all, it stands there.
    const before = rows.find(toolKey(payload.tool_call_id));
    if (before?.facts.seeded) {
      rows.remove(before);
    }
    addTool(rows, payload.tool_call_id, at, facts);
  },
  tool_progress(rows, payload) {
    const block = rows.find(toolKey(payload.tool_call_id));
    if (block) {
      const { fraction = block.facts.fraction } = payload;
      rows.change(block, { fraction, progress: line(text(payload, "message"), LINE) });
    }
  },
  tool_completed(rows, payload, at) {
    const { tool_call_id: id, execution_time_ms: took, result } = payload;
    const start = at !== null && took !== undefined ? at - took : at;
    const block = rows.find(toolKey(id)) ?? addTool(rows, id, start, { tool: text(payload, "tool_name") });
    const error = line(text(payload, "error"), LINE);
    const failed = payload.status === "failed" || (payload.status !== "succeeded" && error !== "");
    rows.change(block, { state: failed ? "failed" : "succeeded", end: at, took, error, result });
  },
  agent_waiting(rows, payload, at) {
    const facts = { reason: line(text(payload, "reason"), LINE) };
    rows.add("waiting", at, { facts, text: text(payload, "prompt"), name: "waiting" });
  },
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

/** @param {unknown} id */
function toolKey(id) {
  return `tool ${id}`;
}

/**
 * @param {Rows} rows
 * @param {string} id
 * @param {number | null} at
 * @param {Record<string, any>} facts
 */
function addTool(rows, id, at, facts) {
  return rows.add("tool", at, { facts: { state: "open", start: at, ...facts }, name: toolKey(id) });
}

/**
 * The block that the pieces of one message make up. Pieces without an id belong to the block before them.
 * @param {Rows} rows
 * @param {"text" | "thought"} kind
 * @param {Payload} payload
 * @param {number | null} at
 */
function streamed(rows, kind, { message_id: id, role }, at) {
  const name = id ? `${kind} ${id}` : "";
  const before = name ? rows.find(name) : rows.last;
  if (before?.kind === kind && before.name === name && !(name === "" && before.facts.final)) {
    return before;
  }
  return rows.add(kind, at, { facts: { role }, name });
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
