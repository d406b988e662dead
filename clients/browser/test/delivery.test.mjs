import assert from "node:assert/strict";
import test from "node:test";

import { EmitterError } from "../emitter.js";
import { EPOCH, established, event, gap, heartbeat, settled, start } from "./kit.mjs";

/** Reads items until `done` says so, and gives those of `kind`. */
async function read(iterator, done) {
  const items = [];
  for (;;) {
    const { value } = await iterator.next();
    items.push(value);
    if (done(value)) {
      return items;
    }
  }
}

const isEvent = (id) => (item) => item.kind === "event" && item.frame.event_id === id;
const events = (items) => items.filter(({ kind }) => kind === "event").map(({ frame }) => frame.event_id);

test("events are dispatched as they come, each after its run", async () => {
  const kit = start();
  await kit.open();
  kit.socket.say(event(1, "agent_started"), event(2, "app.note", {}, { custom: true, run_id: undefined }));
  assert.deepEqual(kit.told.map(({ name }) => name), ["connection", "connection", "run", "event", "event"]);
  const [, , run, first, second] = kit.told;
  assert.deepEqual([run.removed, run.run.runId, run.run.events], [false, "r1", 1]);
  assert.deepEqual([first.kind, first.run.runId, second.run], ["event", "r1", null]);
});

test("an iterator gets every item in order, when it asks", async () => {
  const kit = start();
  const iterator = kit.client[Symbol.asyncIterator]();
  await settled();
  kit.socket.say(established(), event(1), event(2), { type: "connection_caught_up", position: `${EPOCH}-2` });
  assert.deepEqual([kit.told, kit.client.runs.size, kit.client.position], [[], 0, null], "nothing is delivered unasked");
  const items = await read(iterator, ({ kind }) => kind === "caughtup");
  assert.deepEqual(items.map(({ kind }) => kind), ["connection", "event", "event", "caughtup"]);
  assert.equal(items[0].connection.state, "open", "of words on the connection the last one counts");
  assert.deepEqual(kit.kinds, ["event", "event", "caughtup"], "the same is dispatched");
});

test("the position is that of what was delivered", async () => {
  const kit = start();
  const iterator = kit.client[Symbol.asyncIterator]();
  await settled();
  kit.socket.say(established(), event(1), event(2), event(3));
  await read(iterator, isEvent("e2"));
  assert.equal(kit.client.position, `${EPOCH}-2`);
  kit.socket.end();
  await kit.clock.pass(100);
  assert.equal(kit.socket.url.searchParams.get("after"), `${EPOCH}-3`, "what waits is not asked for again");
});

test("one iterator at a time", async () => {
  const kit = start();
  const first = kit.client[Symbol.asyncIterator]();
  assert.throws(() => kit.client[Symbol.asyncIterator](), EmitterError);
  await settled();
  kit.socket.say(established(), event(1));
  await first.return();
  assert.deepEqual(kit.ids, ["e1"], "what waited is delivered");
  assert.deepEqual(await first.next(), { value: undefined, done: true });
  kit.socket.say(event(2));
  assert.deepEqual(kit.ids, ["e1", "e2"]);
  const second = kit.client[Symbol.asyncIterator]();
  kit.socket.say(event(3));
  assert.deepEqual(events([(await second.next()).value]), ["e3"]);
  const asked = second.next();
  await assert.rejects(second.next(), EmitterError);
  assert.deepEqual(await second.return(), { value: undefined, done: true });
  assert.deepEqual(await asked, { value: undefined, done: true });
});

test("an iterator ends with the client", async () => {
  const kit = start();
  const seen = [];
  const reading = (async () => {
    for await (const item of kit.client) {
      seen.push(item.kind === "connection" ? item.connection.state : item.kind);
    }
  })();
  await settled();
  kit.socket.say(established(), event(1));
  await settled();
  kit.client.close();
  await reading;
  assert.deepEqual(seen, ["connecting", "open", "event", "closed"]);
});

test("an iterator throws when the server does not want the client back, after what came before", async () => {
  const kit = start();
  const iterator = kit.client[Symbol.asyncIterator]();
  await settled();
  kit.socket.say(established(), event(1));
  kit.socket.end(4508, "REPLACED");
  const items = await read(iterator, ({ kind, connection }) => kind === "connection" && connection.state === "stopped");
  assert.deepEqual(events(items), ["e1"]);
  await assert.rejects(iterator.next(), (error) => error instanceof EmitterError && error.code === 4508 && /REPLACED/.test(error.message));
});

test("a slow iterator makes the client pause and resume, and misses nothing", async () => {
  for (const [size, most] of [[0, 10_000], [64 * 1024, 256]]) {
    const kit = start();
    const iterator = kit.client[Symbol.asyncIterator]();
    await settled();
    kit.socket.say(established());
    const filler = "x".repeat(size);
    let sent = 0;
    const total = 3 * most;
    const serve = () => {
      while (sent < total && !kit.socket.closed) {
        sent += 1;
        kit.socket.say(event(sent, "message", { message_id: `${sent}`, text: filler }));
      }
    };
    serve();
    assert.ok(kit.socket.closed && sent <= most, `it paused after ${sent} of at most ${most}`);
    assert.equal(kit.client.connection.reason, "the iterator lags");
    await kit.clock.pass(120_000);
    kit.window.dispatchEvent(new Event("online"));
    await settled();
    assert.equal(kit.sockets.length, 1, "it does not come back while it lags");
    const ids = [];
    while (ids.length < total) {
      const { value } = await iterator.next();
      if (value.kind === "event") {
        ids.push(Number(value.frame.event_id.slice(1)));
      }
      await new Promise((resolve) => process.nextTick(resolve));
      if (!kit.socket.closed && sent < total) {
        assert.equal(kit.socket.url.searchParams.get("after"), `${EPOCH}-${sent}`);
        assert.ok(sent - ids.length <= most / 4, `it came back with ${sent - ids.length} waiting`);
        kit.socket.say(established());
        serve();
      }
    }
    assert.deepEqual(ids, Array.from({ length: total }, (_, n) => n + 1));
  }
});

test("a connection that flaps does not fill the buffer", async () => {
  const kit = start();
  const iterator = kit.client[Symbol.asyncIterator]();
  for (let n = 0; n < 100; n += 1) {
    await settled();
    kit.socket.say(established());
    kit.socket.end();
    await kit.clock.pass(60_000);
  }
  const items = [(await iterator.next()).value];
  await iterator.return();
  assert.equal(kit.told.length, 1, JSON.stringify(items));
});

test("a reset reaches an iterator in its place", async () => {
  const kit = start();
  const iterator = kit.client[Symbol.asyncIterator]();
  await settled();
  kit.socket.say(established(), event(1), gap("trimmed", `${EPOCH}-8`), event(9));
  const items = await read(iterator, isEvent("e9"));
  assert.deepEqual(items.map(({ kind }) => kind), ["connection", "event", "reset", "gap", "event"]);
});

test("a client with a name acknowledges what it delivered, at most once a second", async () => {
  const kit = start({ clientId: "tab" });
  await kit.open();
  await kit.clock.pass(5_000);
  assert.deepEqual(kit.socket.sent, [], "what came before is not its own");
  kit.socket.say(event(1), event(2));
  await kit.clock.pass(0);
  kit.socket.say(event(3), event(4));
  await kit.clock.pass(999);
  assert.deepEqual(kit.socket.sent, [{ type: "ack", epoch: EPOCH, offset: 2 }]);
  await kit.clock.pass(1);
  assert.deepEqual(kit.socket.sent.at(-1), { type: "ack", epoch: EPOCH, offset: 4 });
  await kit.clock.pass(10_000);
  assert.equal(kit.socket.sent.length, 2);
  kit.socket.end();
  await kit.clock.pass(100);
  kit.socket.say(established());
  await kit.clock.pass(1_000);
  assert.deepEqual(kit.socket.sent, [{ type: "ack", epoch: EPOCH, offset: 4 }], "the last one may have been lost");
});

test("what an iterator is still busy with is not acknowledged", async () => {
  const kit = start({ clientId: "tab" });
  const iterator = kit.client[Symbol.asyncIterator]();
  await settled();
  kit.socket.say(established({ position: `${EPOCH}-4` }), event(5), event(6), event(7));
  await read(iterator, isEvent("e6"));
  await kit.clock.pass(5_000);
  assert.deepEqual(kit.socket.sent.at(-1), { type: "ack", epoch: EPOCH, offset: 5 });
  void iterator.next();
  await kit.clock.pass(1_000);
  assert.deepEqual(kit.socket.sent.at(-1), { type: "ack", epoch: EPOCH, offset: 6 });
});

test("what a loop that threw did not deal with is not acknowledged", async () => {
  const kit = start({ clientId: "tab" });
  const looping = (async () => {
    for await (const item of kit.client) {
      if (isEvent("e6")(item)) {
        throw new Error("it cannot be drawn");
      }
    }
  })();
  await settled();
  kit.socket.say(established({ position: `${EPOCH}-4` }), event(5), event(6), event(7));
  await assert.rejects(looping, /it cannot be drawn/);
  kit.socket.say(event(8), heartbeat(9));
  await kit.clock.pass(5_000);
  assert.deepEqual(kit.socket.sent.at(-1), { type: "ack", epoch: EPOCH, offset: 5 });
});

test("a client without a name acknowledges nothing", async () => {
  const kit = start();
  await kit.open();
  kit.socket.say(event(1));
  await kit.clock.pass(10_000);
  kit.socket.say(heartbeat(1));
  assert.deepEqual(kit.socket.sent, []);
});

test("runs that go are told", async () => {
  const kit = start();
  await kit.open();
  let offset = 0;
  for (let n = 0; n < 501; n += 1) {
    kit.socket.say(event(++offset, "agent_started", {}, { run_id: `r${n}` }));
    kit.socket.say(event(++offset, "agent_completed", {}, { run_id: `r${n}` }));
  }
  const removed = kit.told.filter(({ removed }) => removed).map(({ run }) => run.runId);
  assert.deepEqual([removed, kit.client.runs.has("r0")], [["r0"], false]);
});

test("a loop that ended because the client stopped may be begun again", async () => {
  const kit = start();
  const ids = [];
  const read = async () => {
    for await (const item of kit.client) {
      ids.push(...events([item]));
    }
  };
  for (const offset of [1, 2]) {
    const reading = read();
    await settled();
    kit.socket.say(established(), event(offset));
    kit.socket.end(4508, "REPLACED");
    await assert.rejects(reading, (error) => error.code === 4508, `${offset}`);
  }
  assert.deepEqual(ids, ["e1", "e2"]);
});

test("a heartbeat moves the position behind what waits, also where the filter leaves everything out", async () => {
  const kit = start({ types: ["custom"], clientId: "tab" });
  await kit.open();
  kit.socket.say(heartbeat(100));
  assert.deepEqual([kit.client.position, kit.kinds], [`${EPOCH}-100`, []]);
  await kit.clock.pass(1_000);
  assert.deepEqual(kit.socket.sent, [{ type: "ack", epoch: EPOCH, offset: 100 }]);
  kit.socket.end();
  await kit.clock.pass(100);
  assert.equal(kit.socket.url.searchParams.get("after"), `${EPOCH}-100`, "it has not to be read again");

  const iterator = kit.client[Symbol.asyncIterator]();
  kit.socket.say(established({ position: `${EPOCH}-100` }), event(101), heartbeat(200));
  assert.equal(kit.client.position, `${EPOCH}-100`, "an event waits before it");
  await read(iterator, isEvent("e101"));
  kit.socket.say(heartbeat(300));
  await kit.clock.pass(5_000);
  assert.deepEqual([kit.client.position, kit.socket.sent.at(-1)?.offset], [`${EPOCH}-300`, 100], "the event is not dealt with");
  void iterator.next();
  kit.socket.say(heartbeat(400));
  await kit.clock.pass(5_000);
  assert.deepEqual([kit.client.position, kit.socket.sent.at(-1)?.offset], [`${EPOCH}-400`, 400]);
});

test("gaps wait within the same bound, with the runs that they tell", async () => {
  const kit = start();
  const iterator = kit.client[Symbol.asyncIterator]();
  await settled();
  kit.socket.say(established());
  const open = { run_id: "r1", agent_name: "x".repeat(64 * 1024), state: "running", open_tool_calls: [] };
  let sent = 0;
  while (sent < 1_000 && !kit.socket.closed) {
    kit.socket.say(gap("position_ahead", `${EPOCH}-${++sent}`, [open]));
  }
  assert.ok(kit.socket.closed && sent <= 256, `it paused after ${sent} of at most 256`);
  await iterator.return();
});
