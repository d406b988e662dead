import assert from "node:assert/strict";
import test from "node:test";

import { established, event, heartbeat, settled, start } from "./kit.mjs";

const state = ({ client }) => client.connection.state;

test("an expiring token is renewed on the same connection", async () => {
  const kit = start();
  await kit.open();
  kit.socket.say({ type: "connection_token_expiring", expires_at: "2026-11-21T10:00:00Z", expires_in_ms: 60_000 });
  await settled();
  assert.deepEqual(kit.asked, ["connect", "expiring"]);
  assert.deepEqual(kit.socket.sent, [{ type: "authenticate", token: "token-2" }]);
  assert.equal(kit.sockets.length, 1);
});

test("an expired token is replaced before the next attempt, and until one works", async () => {
  const asked = [];
  const kit = start({
    token: ({ reason }) => {
      asked.push(reason);
      if (asked.length === 2) {
        throw new Error("the identity service is away");
      }
      return "t";
    },
  });
  await kit.open();
  kit.socket.end(4003, "CREDENTIAL_EXPIRED");
  await kit.clock.pass(100);
  await kit.clock.pass(200);
  kit.socket.say(established());
  kit.socket.end();
  await kit.clock.pass(1000);
  assert.deepEqual(asked, ["connect", "expired", "expired", "connect"]);
});

test("a token that fails is a failed attempt", async () => {
  const failures = [
    () => {
      throw new Error("thrown");
    },
    () => Promise.reject(new Error("rejected")),
    () => Promise.reject(undefined),
    () => "",
    () => undefined,
    () => 7,
  ];
  for (const failure of failures) {
    let calls = 0;
    const kit = start({ transport: "auto", token: () => (++calls <= 2 ? failure() : "t") });
    kit.client.connect();
    await settled();
    assert.equal(state(kit), "waiting");
    assert.match(kit.client.connection.reason, /^no token: /);
    await kit.clock.pass(100 + 200);
    assert.deepEqual([calls, kit.sockets.length], [3, 1], "WebSocket is not to blame");
  }
});

test("a token that hangs is given up after 30 s, and told so", async () => {
  const signals = [];
  const hang = ({ signal }) => {
    signals.push(signal);
    return new Promise(() => {});
  };
  const kit = start({ token: hang });
  kit.client.connect();
  await kit.clock.pass(29_999);
  assert.deepEqual([state(kit), signals[0].aborted], ["connecting", false]);
  await kit.clock.pass(1);
  assert.deepEqual([state(kit), signals[0].aborted], ["waiting", true]);
  await kit.clock.pass(100);
  assert.equal(signals.length, 2);
});

test("a renewal that hangs or fails does not disturb the stream", async () => {
  const signals = [];
  let calls = 0;
  const kit = start({
    token: ({ reason, signal }) => {
      signals.push(signal);
      calls += 1;
      if (reason === "connect") {
        return "t";
      }
      return calls === 2 ? new Promise(() => {}) : Promise.reject(new Error("no"));
    },
  });
  await kit.open();
  kit.socket.say({ type: "connection_token_expiring" });
  for (let n = 0; n < 4; n += 1) {
    await kit.clock.pass(10_000);
    kit.socket.say(heartbeat(0));
  }
  assert.equal(signals[1].aborted, true);
  kit.socket.say({ type: "connection_token_expiring" }, event(1));
  await settled();
  assert.deepEqual([state(kit), kit.ids, kit.socket.sent], ["open", ["e1"], []]);
});

test("a token that comes too late is not used", async () => {
  let give;
  const kit = start({ token: () => new Promise((resolve) => (give = resolve)) });
  kit.client.connect();
  await settled();
  const late = give;
  await kit.clock.pass(30_000);
  late("late");
  await settled();
  assert.deepEqual([state(kit), kit.sockets.length], ["waiting", 0]);
});

test("tokens that are good for less than the notice are used for half of it, not asked for all the time", async () => {
  const kit = start();
  await kit.open();
  // As the server does: at its next look, a second later, after each token that ends within a minute.
  let shown = 0;
  for (let second = 0; second < 60; second += 1) {
    if (second === 0 || kit.socket.sent.length > shown) {
      shown = kit.socket.sent.length;
      kit.socket.say({ type: "connection_token_expiring", expires_in_ms: 40_000 });
    }
    kit.socket.say(heartbeat(0));
    await kit.clock.pass(1_000);
  }
  assert.deepEqual(kit.asked, ["connect", "expiring", "expiring", "expiring"]);
  kit.socket.say({ type: "connection_token_expiring", expires_in_ms: 40_000 });
  kit.socket.end();
  await kit.clock.pass(100);
  kit.socket.say(established());
  await kit.clock.pass(40_000);
  assert.deepEqual(kit.asked.slice(4), ["connect"], "what was planned for a connection goes with it");
});
