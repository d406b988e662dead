// What a block of a timeline says, in words.

import { count, duration, gapReason, line, stateName } from "./format.js";

/** @typedef {import("./rows.js").Block} Block */

/**
 * @typedef {object} Step
 * @property {string} icon
 * @property {string} tone colours it: a run's or a call's state, or empty
 * @property {string} label
 * @property {string} note beside the label
 * @property {string} state of a tool call, for whoever does not see its drawing
 * @property {string} took
 * @property {string} status below the label
 * @property {number | null} progress 0 to 1
 * @property {string[]} choices the answers that a wait asks to choose from
 * @property {[string, unknown][]} details what can be unfolded, with its name
 */

/** @type {Step} */
const PLAIN = { icon: "dot", tone: "", label: "", note: "", state: "", took: "", status: "", progress: null, choices: [], details: [] };

/**
 * @param {Block} block
 * @param {number} now in milliseconds since 1970, by the service's clock
 * @returns {Step}
 */
export function describe(block, now) {
  return { ...PLAIN, ...STEPS[block.kind](block.facts, block, now) };
}

/** @type {Record<Block["kind"], (facts: Record<string, any>, block: Block, now: number) => Partial<Step>>} */
const STEPS = {
  start: ({ agentType }) => ({ icon: "start", label: "Started", note: line(agentType ?? "", 60) }),
  thinking: ({ step, total, progress }) => ({
    icon: "think",
    label: stepName(step, total),
    note: typeof progress === "number" ? `${Math.round(progress)} %` : "",
    progress: typeof progress === "number" ? progress / 100 : null,
  }),
  thought: () => ({ icon: "think", label: "Thoughts" }),
  text: ({ role }) => ({ icon: "text", label: !role || role === "assistant" ? "Answer" : line(role, 60) }),
  tool: describeTool,
  waiting: ({ reason, choices, ended }, { at }, now) => ({
    icon: "waiting",
    tone: ended === undefined ? "waiting" : "",
    label: ended === undefined ? "Waits for a person" : "Waited for a person",
    note: reason,
    took: at === null ? "" : duration((ended ?? now) - at),
    choices: choices.map((/** @type {unknown} */ choice) => line(String(choice), 256)),
  }),
  end: ({ state, code, retryable, result }) => ({
    icon: state,
    tone: state,
    label: stateName(state),
    note: [line(code ?? "", 128), retryable === true ? "worth another try" : ""].filter(Boolean).join(" · "),
    details: details({ Result: result }),
  }),
  child: ({ agentName }) => ({ icon: "child", label: line(agentName ?? "", 128) || "Sub-agent", note: "sub-agent" }),
  other: ({ type, times, payload }) => ({
    label: line(type, 64),
    note: times > 1 ? `${count(times)} times, the last` : "",
    details: details({ Payload: payload }),
  }),
  gap: ({ reason }) => ({ icon: "gap", tone: "gap", label: "Gap", note: `Events may be missing here. ${gapReason(reason)}` }),
};

/**
 * @param {Record<string, any>} facts
 * @param {Block} _block
 * @param {number} now
 * @returns {Partial<Step>}
 */
function describeTool(facts, _block, now) {
  const { state, tool, description, fraction, progress, error, parameters, result } = facts;
  const running = state === "open";
  return {
    icon: running ? "running" : state === "succeeded" ? "completed" : state === "failed" ? "failed" : "cancelled",
    tone: running ? "running" : state === "failed" ? "failed" : "",
    label: line(tool ?? "", 128),
    note: description ?? "",
    state: running ? "running" : state,
    took: toolTook(facts, now),
    status: toolStatus(state, { error, progress, fraction }),
    progress: running && typeof fraction === "number" ? fraction : null,
    details: details({ Parameters: parameters, Result: result }),
  };
}

/**
 * @param {string} state
 * @param {{error?: string, progress?: string, fraction?: number}} facts
 */
function toolStatus(state, { error, progress, fraction }) {
  switch (state) {
    case "open": {
      const part = typeof fraction === "number" ? `${Math.round(fraction * 100)} %` : "";
      return [part, progress].filter(Boolean).join(" · ");
    }
    case "failed":
      return error ? `Failed: ${error}` : "Failed";
    case "cancelled":
      return error ? `Cancelled: ${error}` : "Cancelled before it finished";
    case "denied":
      return error ? `Denied: ${error}` : "Denied";
    case "unfinished":
      return "Not finished when the run ended";
    default:
      return "";
  }
}

/**
 * @param {Record<string, any>} facts
 * @param {number} now
 */
function toolTook({ took, start, end, state }, now) {
  if (typeof took === "number") {
    return duration(took);
  }
  const until = state === "open" ? now : end;
  return typeof start === "number" && typeof until === "number" ? duration(until - start) : "";
}

/**
 * @param {number | undefined} step
 * @param {number | undefined} total
 */
function stepName(step, total) {
  if (step === undefined) {
    return "Thinking";
  }
  return total === undefined ? `Step ${count(step)}` : `Step ${count(step)} of ${count(total)}`;
}

/**
 * @param {Record<string, unknown>} values
 * @returns {[string, unknown][]}
 */
function details(values) {
  return Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
}
