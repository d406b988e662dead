// proto/asyncapi.json under AsyncAPI's own parser.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Parser } from "@asyncapi/parser";

const source = JSON.parse(readFileSync(new URL("../../proto/asyncapi.json", import.meta.url), "utf8"));

// The document keeps to 3.0, which more tools read than 3.1.
const ACCEPTED = ["asyncapi-latest-version"];

// What the parser says of `document`, and finds in it.
async function parsed(document) {
  const { document: found, diagnostics } = await new Parser().parse(JSON.stringify(document));
  const objections = diagnostics.filter(({ code }) => !ACCEPTED.includes(code));
  return { found, objections: objections.map(({ code, message, path }) => `${code} at ${path.join(".")}: ${message}`) };
}

test("the parser has no objection, and finds every channel, operation and message", async () => {
  const { found, objections } = await parsed(source);
  assert.deepEqual(objections, []);
  assert.equal(found.version(), "3.0.0");
  const channels = found.channels().all().map((channel) => channel.address());
  assert.deepEqual(channels, ["/v1/stream", "/v1/events"]);
  const actions = found.operations().all().map((operation) => [operation.id(), operation.action()]);
  assert.deepEqual(actions, [
    ["receiveFrames", "receive"],
    ["sendMessages", "send"],
    ["receiveServerSentEvents", "receive"],
  ]);
  const messages = found.components().messages().all().map((message) => message.id());
  assert.deepEqual(messages, Object.keys(source.components.messages));
});

test("the parser objects to what is wrong", async () => {
  const mistakes = {
    "a reference to nothing": (wrong) => (wrong.channels.stream.messages.ack.$ref = "#/components/messages/nack"),
    "a message that is not of its channel": (wrong) => delete wrong.channels.stream.messages.ack,
    "a schema that is none": (wrong) => (wrong.components.schemas.Epoch.type = "text"),
    "an unknown key": (wrong) => (wrong.channels.stream.adress = "/v1/stream"),
  };
  for (const [mistake, make] of Object.entries(mistakes)) {
    const wrong = structuredClone(source);
    make(wrong);
    const { objections } = await parsed(wrong);
    assert.notDeepEqual(objections, [], mistake);
  }
});
