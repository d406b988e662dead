// proto/asyncapi.json, by which every frame is judged that a page in a browser gets over WebSocket.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";

import { Ajv } from "ajv";
import formats from "ajv-formats";

import { ROOT } from "./harness.mjs";

const { messages, schemas } = JSON.parse(readFileSync(path.join(ROOT, "proto/asyncapi.json"), "utf8")).components;

/** The names of the schemas that this one builds on. */
const bases = ({ allOf = [] }) => allOf.flatMap(({ $ref }) => ($ref ? [$ref.split("/").at(-1)] : []));

/** What the schema and its bases list. */
const fields = (schema) => [
  ...Object.keys(schema.properties ?? {}),
  ...bases(schema).flatMap((base) => fields(schemas[base])),
];

/**
 * The schema closed, with what it nests, to fields that neither it nor a base lists. A base is left open: what builds on
 * it adds fields. As published all are open, for the sake of newer servers.
 */
function tightened(schema, isBase = false) {
  if (typeof schema !== "object") {
    return schema;
  }
  const listed = fields(schema);
  const own = Object.entries(schema.properties ?? {}).map(([name, nested]) => [name, tightened(nested)]);
  const open = { ...schema, ...(schema.items && { items: tightened(schema.items) }) };
  if (listed.length === 0) {
    return open;
  }
  const known = isBase ? {} : Object.fromEntries(listed.map((name) => [name, true]));
  const closed = isBase ? {} : { additionalProperties: false };
  return { ...open, ...closed, properties: { ...known, ...Object.fromEntries(own) } };
}

const everyBase = new Set(Object.values(schemas).flatMap(bases));
const components = {
  schemas: Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, tightened(schema, everyBase.has(name))])),
};
const ajv = formats.default(new Ajv({ strict: false, allErrors: true }));
const validators = new Map(
  Object.entries(messages).map(([name, { payload }]) => [name, ajv.compile({ components, allOf: [payload] })]),
);

/** The frame, which is valid for the message of its type and has no field that the document does not list. */
export function checked(frame) {
  const valid = validators.get("custom" in frame ? "custom" : frame.type);
  assert.ok(valid, `the document has no message for ${JSON.stringify(frame)}`);
  assert.ok(valid(frame), `not as proto/asyncapi.json says: ${ajv.errorsText(valid.errors)}: ${JSON.stringify(frame)}`);
  return frame;
}

/** Adds to `wrong` what is wrong with the frames that `page` gets from now on. */
export function watch(page, wrong) {
  page.on("websocket", (socket) =>
    socket.on("framereceived", ({ payload }) => {
      try {
        checked(JSON.parse(payload));
      } catch (error) {
        wrong.push(error.message);
      }
    }),
  );
}
