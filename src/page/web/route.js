// What is shown, as the fragment of the address: it survives a reload, and the browser's way back leads out of it.

/** @typedef {{kind: "none"} | {kind: "all"} | {kind: "run", runId: string}} Route */

/**
 * @param {string} hash
 * @returns {Route}
 */
export function parseRoute(hash) {
  const fragment = new URLSearchParams(hash.slice(1));
  const runId = fragment.get("run");
  if (runId) {
    return { kind: "run", runId };
  }
  return fragment.has("all") ? { kind: "all" } : { kind: "none" };
}

/**
 * @param {Route} route
 * @returns {string}
 */
export function formatRoute(route) {
  switch (route.kind) {
    case "run":
      return `#${new URLSearchParams({ run: route.runId })}`;
    case "all":
      return "#all";
    default:
      return "#";
  }
}
