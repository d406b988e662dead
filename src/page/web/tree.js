// The order of the list of runs: newest first, sub-agents below their parent, gaps where they happened.

import { parse } from "./format.js";

/** @typedef {import("/emitter.js").RunState} RunState */
/** @typedef {import("./log.js").Entry} Entry */

/**
 * A line of the list. `all` stands for the whole stream.
 * @typedef {object} Item
 * @property {"all" | "run" | "gap"} kind
 * @property {string} key
 * @property {RunState | null} run
 * @property {Entry | null} gap
 * @property {number} level from 1
 * @property {number} position among its siblings, from 1
 * @property {number} siblings how many there are
 * @property {boolean | null} unfolded null where there is nothing below it
 */

/**
 * @param {ReadonlyMap<string, RunState>} runs in the order of their starts
 * @param {Entry[]} gaps
 * @param {ReadonlySet<string>} folded runs whose sub-agents are not shown
 * @returns {Item[]}
 */
export function flatten(runs, gaps, folded) {
  const [roots, children] = families(runs);
  const tops = newestFirst(roots, gaps);
  const siblings = tops.length + 1;
  /** @type {Item[]} */
  const items = [
    { kind: "all", key: ALL, run: null, gap: null, level: 1, position: 1, siblings, unfolded: null },
  ];
  tops.forEach(({ run, gap }, at) => {
    const position = at + 2;
    if (run) {
      addRun(items, run, { level: 1, position, siblings }, children, folded);
    } else if (gap) {
      items.push({ kind: "gap", key: gapKey(gap), run, gap, level: 1, position, siblings, unfolded: null });
    }
  });
  return items;
}

/**
 * @param {RunState[]} runs
 * @param {Entry[]} gaps
 * @returns {{run: RunState | null, gap: Entry | null}[]}
 */
function newestFirst(runs, gaps) {
  let last = -Infinity;
  const timed = runs.map((run) => {
    // A run whose start is not known stands where the client lists it.
    last = parse(run.startedAt) ?? last;
    return { run: /** @type {RunState | null} */ (run), gap: /** @type {Entry | null} */ (null), at: last };
  });
  timed.push(...gaps.map((gap) => ({ run: null, gap, at: gap.at ?? -Infinity })));
  // What is of the same time stays in its order, which is the other way around here.
  return timed.reverse().sort((a, b) => (a.at === b.at ? 0 : b.at - a.at));
}

/** The key of the whole stream. */
export const ALL = "all";

/** @param {string} runId */
export function runKey(runId) {
  return `run ${runId}`;
}

/** @param {Entry} gap */
export function gapKey({ ordinal }) {
  return `gap ${ordinal}`;
}

/**
 * The runs whose parent is not known, and the others by their parent.
 * @param {ReadonlyMap<string, RunState>} runs
 * @returns {[RunState[], Map<string, RunState[]>]}
 */
function families(runs) {
  const roots = [];
  const children = new Map();
  for (const run of runs.values()) {
    const parent = run.parentRunId;
    if (!parent || !runs.has(parent) || parent === run.runId) {
      roots.push(run);
    } else if (children.has(parent)) {
      children.get(parent).push(run);
    } else {
      children.set(parent, [run]);
    }
  }
  return [roots, children];
}

/**
 * @param {Item[]} items
 * @param {RunState} run
 * @param {{level: number, position: number, siblings: number}} place
 * @param {Map<string, RunState[]>} children
 * @param {ReadonlySet<string>} folded
 */
function addRun(items, run, place, children, folded) {
  const below = children.get(run.runId);
  const unfolded = below ? !folded.has(run.runId) : null;
  items.push({ kind: "run", key: runKey(run.runId), run, gap: null, ...place, unfolded });
  if (below && unfolded) {
    below.forEach((child, at) => {
      const next = { level: place.level + 1, position: at + 1, siblings: below.length };
      addRun(items, child, next, children, folded);
    });
  }
}
