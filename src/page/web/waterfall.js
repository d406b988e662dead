// A run and its sub-agents as lanes over one time axis, and what they consumed together.

import { parse } from "./format.js";

/** @typedef {import("/emitter.js").RunState} RunState */
/** @typedef {import("/emitter.js").ToolCall} ToolCall */
/** @typedef {import("/emitter.js").Wait} Wait */
/** @typedef {import("/emitter.js").Usage} Usage */

/**
 * A bar on the time axis. Times are milliseconds since 1970.
 * @typedef {object} Lane
 * @property {"run" | "tool" | "wait"} kind
 * @property {string} key
 * @property {number} level from 0
 * @property {RunState} run whose lane it is
 * @property {ToolCall | null} call
 * @property {Wait | null} wait
 * @property {number} start
 * @property {number | null} end null while it lasts
 */

/** The most lanes that are drawn. */
export const LANES = 2_000;

/**
 * The lanes of a run: its own, then its tool calls, waits and sub-agents in the order of their begin.
 * @param {ReadonlyMap<string, RunState>} runs
 * @param {RunState} root
 * @returns {{lanes: Lane[], more: boolean}} `more`: there were too many
 */
export function lanesOf(runs, root) {
  /** @type {Lane[]} */
  const lanes = [];
  addRun(lanes, runs, root, 0, new Set());
  return { lanes: lanes.slice(0, LANES), more: lanes.length > LANES };
}

/**
 * @param {Lane[]} lanes
 * @param {ReadonlyMap<string, RunState>} runs
 * @param {RunState} run
 * @param {number} level
 * @param {Set<RunState>} seen what ends a cycle of parents
 */
function addRun(lanes, runs, run, level, seen) {
  if (seen.has(run) || lanes.length > LANES) {
    return;
  }
  seen.add(run);
  const own = laneOfRun(run, level);
  lanes.push(own);
  const calls = run.toolCalls.map((call, at) => laneOfCall(run, call, at, level + 1, own));
  const waits = run.waits.map((wait) => laneOfWait(run, wait, level + 1, own));
  const children = run.childRunIds.flatMap((id) => runs.get(id) ?? []).map((child) => laneOfRun(child, level + 1));
  for (const lane of [...calls, ...waits, ...children].sort((a, b) => a.start - b.start)) {
    lane.kind === "run" ? addRun(lanes, runs, lane.run, level + 1, seen) : lanes.push(lane);
  }
}

/** @param {RunState} run @param {number} level @returns {Lane} */
function laneOfRun(run, level) {
  const last = parse(run.lastEventAt);
  const start = parse(run.startedAt) ?? last ?? 0;
  const end = run.endedAt === null ? null : Math.max(parse(run.endedAt) ?? last ?? start, start);
  return { kind: "run", key: `run ${run.runId}`, level, run, call: null, wait: null, start, end };
}

/**
 * A call whose begin was not seen begins as long before its end as it says that it took.
 * @param {RunState} run
 * @param {ToolCall} call
 * @param {number} at its index
 * @param {number} level
 * @param {Lane} own the run's lane
 * @returns {Lane}
 */
function laneOfCall(run, call, at, level, own) {
  const ended = parse(call.endedAt);
  const guessed = ended === null ? null : ended - (call.executionTimeMs ?? 0);
  const start = Math.max(parse(call.startedAt) ?? guessed ?? own.start, own.start);
  const end = call.state === "open" ? null : Math.max(ended ?? own.end ?? start, start);
  const key = `tool ${run.runId} ${call.callSequence ?? `at ${at}`}`;
  return { kind: "tool", key, level, run, call, wait: null, start, end };
}

/** @param {RunState} run @param {Wait} wait @param {number} level @param {Lane} own @returns {Lane} */
function laneOfWait(run, wait, level, own) {
  const start = Math.max(parse(wait.startedAt) ?? own.start, own.start);
  return { kind: "wait", key: `wait ${run.runId} ${wait.sequence}`, level, run, call: null, wait, start, end: null };
}

/**
 * The axis of lanes: from the first begin to the last end, or to now.
 * @param {Lane[]} lanes
 * @param {number} now
 * @returns {{from: number, to: number}}
 */
export function axisOf(lanes, now) {
  let [from, to] = [Infinity, -Infinity];
  for (const { start, end } of lanes) {
    from = Math.min(from, start);
    to = Math.max(to, end ?? Math.max(now, start));
  }
  return { from, to: Math.max(to, from + 1) };
}

/**
 * Where a lane's bar is, as parts of the axis between 0 and 1.
 * @param {Lane} lane
 * @param {{from: number, to: number}} axis
 * @param {number} now
 */
export function placeOf({ start, end }, { from, to }, now) {
  const left = (start - from) / (to - from);
  const right = (Math.min(end ?? Math.max(now, start), to) - from) / (to - from);
  return { left, width: Math.max(0, right - left) };
}

/**
 * The runs below a run, at all depths.
 * @param {ReadonlyMap<string, RunState>} runs
 * @param {RunState} root
 * @returns {RunState[]}
 */
export function descendants(runs, root) {
  const found = new Set([root]);
  for (const run of found) {
    run.childRunIds.forEach((id) => {
      const child = runs.get(id);
      if (child) {
        found.add(child);
      }
    });
  }
  found.delete(root);
  return [...found];
}

/**
 * What runs consumed together.
 * @param {RunState[]} runs at least one
 * @returns {Usage}
 */
export function together(runs) {
  const sums = { ...runs[0].usage };
  const names = /** @type {(keyof Usage)[]} */ (Object.keys(sums));
  for (const { usage } of runs.slice(1)) {
    names.forEach((name) => (sums[name] += usage[name]));
  }
  return sums;
}
