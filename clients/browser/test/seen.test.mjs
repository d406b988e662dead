import assert from "node:assert/strict";
import test from "node:test";

import { Backoff, Fallback, Seen, parsePosition } from "../emitter.js";

const at = (epoch, offset) => ({ epoch: `e${epoch}`, offset });

test("positions are read strictly", () => {
  assert.deepEqual(parsePosition("00000000000000ab-42"), { epoch: "00000000000000ab", offset: 42 });
  assert.deepEqual(parsePosition("00000000000000ab-9007199254740991")?.offset, Number.MAX_SAFE_INTEGER);
  const wrong = ["", "head", "00000000000000ab", "00000000000000AB-1", "ab-1", "00000000000000ab--1", null, undefined, 7];
  for (const text of [...wrong, "00000000000000ab-9007199254740992", "00000000000000ab-1.5", "00000000000000ab-1 "]) {
    assert.equal(parsePosition(text), null, String(text));
  }
});

test("within an epoch the place tells", () => {
  const seen = new Seen();
  seen.begin(at(1, 5));
  seen.begin(at(1, 9));
  assert.deepEqual(seen.cursor, at(1, 5));
  assert.equal(seen.admit(at(1, 5), "a"), "behind");
  assert.equal(seen.admit(at(1, 6), "b"), "new");
  assert.equal(seen.admit(at(1, 6), "b"), "behind");
  // The dedupe window is over, and the id was used again: another event.
  assert.equal(seen.admit(at(1, 8), "b"), "new");
  seen.advance(at(1, 12));
  seen.advance(at(1, 3));
  assert.deepEqual(seen.cursor, at(1, 12));
  seen.jump(at(1, 2));
  assert.equal(seen.admit(at(1, 3), ""), "new");
});

test("across epochs the id tells", () => {
  const seen = new Seen();
  assert.equal(seen.admit(at(1, 1), "a"), "new");
  assert.equal(seen.admit(at(1, 2), "b"), "new");
  seen.jump(at(2, 0));
  assert.equal(seen.admit(at(2, 1), "a"), "again");
  assert.equal(seen.admit(at(2, 2), "b"), "again");
  assert.equal(seen.admit(at(2, 3), "c"), "new");
  assert.deepEqual(seen.cursor, at(2, 3));
});

test("10,000 ids are remembered, and the oldest go first", () => {
  const seen = new Seen();
  for (let n = 1; n <= 10_001; n += 1) {
    seen.admit(at(1, n), `e${n}`);
  }
  assert.equal(seen.admit(at(2, 1), "e1"), "new", "the first is forgotten");
  assert.equal(seen.admit(at(2, 2), "e3"), "again", "the third is not");
});

test("waits grow to a bound, and start over", () => {
  const backoff = new Backoff(() => 1);
  const waits = Array.from({ length: 12 }, () => backoff.next());
  assert.deepEqual(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
  backoff.reset();
  assert.equal(backoff.next(), 100);
  for (let n = 0; n < 2000; n += 1) {
    assert.ok(backoff.next() <= 30_000, `attempt ${n}`);
  }
});

test("a wait is at least half of what it could be", () => {
  const backoff = new Backoff(() => 0);
  assert.deepEqual([backoff.next(), backoff.next(), backoff.next()], [50, 100, 200]);
});

test("what the server asks for is honoured but cannot wedge", () => {
  assert.equal(new Backoff(() => 0).next(2000), 2000);
  assert.equal(new Backoff(() => 1).next(2000), 2500);
  for (const asked of [1e12, Infinity]) {
    assert.equal(new Backoff(() => 1).next(asked), 37_500);
  }
  for (const asked of [-5, NaN, undefined]) {
    assert.equal(new Backoff(() => 1).next(asked), 100);
  }
});

test("two WebSocket failures in a row lead to SSE, and WebSocket is tried again ever more rarely", () => {
  let now = 0;
  const fallback = new Fallback("auto", () => now);
  const fail = () => fallback.failed(fallback.choose());
  assert.equal(fallback.choose(), "websocket");
  fail();
  fallback.worked("websocket");
  fail();
  assert.equal(fallback.choose(), "websocket", "the two were not in a row");
  fail();
  for (const wait of [60_000, 120_000, 240_000]) {
    assert.equal(fallback.choose(), "sse");
    fallback.worked("sse");
    assert.equal(fallback.againIn, wait);
    now += wait;
    assert.equal(fallback.choose(), "websocket");
    assert.equal(fallback.trial, true);
    fallback.failed("websocket");
  }
  for (let n = 0; n < 20; n += 1) {
    now += fallback.againIn;
    fail();
  }
  assert.equal(fallback.againIn, 3_600_000);
});

test("where SSE fails too, WebSocket is not to blame", () => {
  const fallback = new Fallback("auto", () => 0);
  const attempts = Array.from({ length: 6 }, () => {
    const transport = fallback.choose();
    fallback.failed(transport);
    return transport;
  });
  assert.deepEqual(attempts, ["websocket", "websocket", "sse", "websocket", "websocket", "sse"]);
});

test("where SSE worked, it is not given up at once when the server is away", () => {
  const fallback = new Fallback("auto", () => 0);
  fallback.failed("websocket");
  fallback.failed("websocket");
  fallback.worked(fallback.choose());
  const attempts = Array.from({ length: 5 }, () => {
    const transport = fallback.choose();
    fallback.failed(transport);
    return transport;
  });
  assert.deepEqual(attempts, ["sse", "sse", "sse", "websocket", "websocket"]);
});

test("an asked transport is kept", () => {
  for (const asked of ["websocket", "sse"]) {
    const fallback = new Fallback(asked, () => 0);
    for (let n = 0; n < 5; n += 1) {
      assert.equal(fallback.choose(), asked);
      fallback.failed(asked);
    }
    assert.equal(fallback.againIn, Infinity);
  }
});
