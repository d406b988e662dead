// How numbers, times and names are written.

const WHOLE = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** @param {number} value */
export function count(value) {
  return WHOLE.format(value);
}

/**
 * `1 event`, `2 events`.
 * @param {number} value
 * @param {string} one
 */
export function counted(value, one) {
  return `${count(value)} ${one}${value === 1 ? "" : "s"}`;
}

/**
 * A number in at most five characters.
 * @param {number} value
 */
export function brief(value) {
  for (const [size, unit] of /** @type {[number, string][]} */ ([[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])) {
    if (value >= size * 10) {
      return `${Math.floor(value / (size / 10)) / 10}${unit}`;
    }
  }
  return count(value);
}

/**
 * @param {number} ms
 * @returns {string}
 */
export function duration(ms) {
  if (ms < 1_000) {
    return `${Math.max(0, Math.floor(ms))} ms`;
  }
  if (ms < 60_000) {
    return ms < 10_000 ? `${(Math.floor(ms / 100) / 10).toFixed(1)} s` : `${Math.floor(ms / 1_000)} s`;
  }
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 3_600) {
    return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  }
  const minutes = Math.floor(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

/**
 * How long after a run's start something happened.
 * @param {number} ms
 */
export function offset(ms) {
  const sign = ms < 0 ? "−" : "+";
  const whole = Math.abs(ms);
  if (whole < 60_000) {
    return `${sign}${(whole / 1_000).toFixed(2)} s`;
  }
  const seconds = Math.floor(whole / 1_000);
  if (seconds < 3_600) {
    return `${sign}${Math.floor(seconds / 60)}:${two(seconds % 60)}`;
  }
  return `${sign}${Math.floor(seconds / 3_600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

/** @param {number} value */
function two(value) {
  return String(value).padStart(2, "0");
}

/**
 * The time of day of an RFC 3339 time.
 * @param {string | null | undefined} time
 */
export function clock(time) {
  const at = parse(time);
  return at === null ? "" : CLOCK.format(at);
}

/**
 * An RFC 3339 time in milliseconds since 1970; null where there is none.
 * @param {string | null | undefined} time
 */
export function parse(time) {
  const at = time ? Date.parse(time) : NaN;
  return Number.isNaN(at) ? null : at;
}

/**
 * Billionths of a US dollar.
 * @param {number} nano
 */
export function cost(nano) {
  if (nano === 0) {
    return "$0";
  }
  const dollars = nano / 1e9;
  if (dollars < 0.000001) {
    return "<$0.000001";
  }
  return `$${dollars.toFixed(dollars < 0.01 ? 6 : dollars < 100 ? 4 : 2)}`;
}

/** What is not known. */
export const UNKNOWN = "–";

/** @typedef {import("/emitter.js").RunState["usage"]} Usage */

/** Whether any usage was told. @param {Usage} usage */
export function hasUsage(usage) {
  return Object.values(usage).some((value) => value > 0);
}

/**
 * What a run cost, as far as that is known: a model without a price is not free.
 * @param {Usage} usage
 * @returns {{text: string, note: string}}
 */
export function price(usage) {
  const { costNanoUsd, unpricedEvents } = usage;
  if (!hasUsage(usage)) {
    return { text: UNKNOWN, note: "" };
  }
  if (unpricedEvents === 0) {
    return { text: cost(costNanoUsd), note: "" };
  }
  return costNanoUsd > 0
    ? { text: `${cost(costNanoUsd)} +?`, note: "some without a price" }
    : { text: UNKNOWN, note: "without a price" };
}

/**
 * A text on one line, with an end.
 * @param {string} text
 * @param {number} most
 */
export function line(text, most) {
  const flat = text.slice(0, most * 2).replace(/\s+/g, " ").trim();
  if (flat.length <= most) {
    return flat;
  }
  const cut = flat.slice(0, most - 1);
  // Half a surrogate pair is no character.
  return `${/[\ud800-\udbff]$/.test(cut) ? cut.slice(0, -1) : cut}…`;
}

/** @type {Record<string, string>} */
const STATES = {
  running: "Running",
  waiting: "Waiting",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** @param {string} state */
export function stateName(state) {
  return STATES[state] ?? state;
}

/** @type {Record<string, string>} */
const GAPS = {
  trimmed: "They are no longer kept.",
  epoch_changed: "The service began anew.",
  position_ahead: "The service does not know this position.",
};

/** @param {string} reason */
export function gapReason(reason) {
  return GAPS[reason] ?? reason;
}
