// Takes the token out of the address bar. It imports nothing, so that it runs before anything else can fail.

/**
 * The token in the fragment of `location`, which is removed from the address and from the history.
 * @param {Pick<Location, "hash" | "pathname" | "search">} location
 * @param {Pick<History, "replaceState">} history
 * @returns {string | null}
 */
export function takeToken(location, history) {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (token === null) {
    return null;
  }
  fragment.delete("token");
  const rest = fragment.toString();
  history.replaceState(null, "", location.pathname + location.search + (rest && `#${rest}`));
  return token.trim() || null;
}

/** The token that the page was opened with. */
export const tokenOfAddress = typeof location === "undefined" ? null : takeToken(location, history);
