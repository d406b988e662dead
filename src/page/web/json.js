// JSON for people.

import { h } from "./dom.js";

/** Beyond this many characters colours cost more than they tell. */
const COLOURED = 16 * 1024;

/** Characters that turn the direction of what follows them, so that a text reads as another one. */
const TURNING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

const TOKENS = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|true|false|null)/g;

/**
 * A value as indented JSON.
 * @param {unknown} value
 * @returns {string}
 */
export function pretty(value) {
  const text = JSON.stringify(value, null, 2) ?? "null";
  return text.replace(TURNING, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * Shows JSON in `element`.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function showJson(element, text) {
  if (text.length > COLOURED) {
    element.textContent = text;
    return;
  }
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKENS)) {
    const [, string, colon] = match;
    const token = string ?? match[0];
    const kind = colon ? "key" : string ? "string" : "atom";
    parts.push(text.slice(end, match.index), h("span", { class: `json-${kind}` }, token));
    end = match.index + token.length;
  }
  element.replaceChildren(...parts, text.slice(end));
}
