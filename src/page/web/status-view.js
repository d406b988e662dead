// Says how the connection stands.

import { byId, setText } from "./dom.js";
import { counted } from "./format.js";

/** @typedef {import("/emitter.js").Connection} Connection */

/**
 * The connection in words.
 * @param {Connection} connection
 * @param {boolean} caughtUp
 * @param {number} now
 * @returns {{word: string, detail: string, tone: "good" | "busy" | "bad"}}
 */
export function inWords({ state, reason, retryAt }, caughtUp, now) {
  switch (state) {
    case "open":
      return caughtUp ? { word: "Live", detail: "", tone: "good" } : { word: "Catching up", detail: "", tone: "busy" };
    case "connecting":
    case "idle":
      return { word: "Connecting", detail: reason ?? "", tone: "busy" };
    case "waiting": {
      if (retryAt === null) {
        // The page itself lags, and goes on once it has caught up.
        return { word: "Catching up", detail: "", tone: "busy" };
      }
      const seconds = Math.max(0, Math.ceil((retryAt - now) / 1000));
      const next = seconds > 0 ? `next try in ${seconds} s` : "trying again";
      return { word: "Connection lost", detail: [next, reason].filter(Boolean).join(" · "), tone: "bad" };
    }
    default:
      return { word: "Stopped", detail: reason ?? "", tone: "bad" };
  }
}

/** @type {Record<string, string>} */
const TRANSPORTS = { websocket: "WebSocket", sse: "SSE" };

/**
 * @param {{connection: Connection, position: string | null}} client
 * @param {{caughtUp: boolean, gaps: number, events: number}} facts
 */
export function drawStatus({ connection, position }, { caughtUp, gaps, events }) {
  const { word, detail, tone } = inWords(connection, caughtUp, Date.now());
  byId("status").dataset.tone = tone;
  setText(byId("status-word"), word);
  setText(byId("status-detail"), detail);
  setText(byId("status-transport"), (connection.transport && TRANSPORTS[connection.transport]) ?? "–");
  const [epoch, offset] = (position ?? "").split("-");
  setText(byId("status-epoch"), offset === undefined ? "" : `${epoch}-`);
  setText(byId("status-offset"), offset ?? "–");
  setText(byId("status-gaps"), counted(gaps, "gap"));
  byId("status-gaps").dataset.some = String(gaps > 0);
  setText(byId("status-events"), counted(events, "event"));
  setText(byId("user"), connection.userId ?? "");
  byId("switch").hidden = connection.userId === null;
}
