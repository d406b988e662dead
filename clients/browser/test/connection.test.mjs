import assert from "node:assert/strict";
import test from "node:test";

import { EmitterClient } from "../emitter.js";
import { EPOCH, NEXT_EPOCH, closing, established, event, gap, heartbeat, settled, start } from "./kit.mjs";

const state = ({ client }) => client.connection.state;

test("what cannot work is refused at once", () => {
  const token = () => "t";
  const url = "http://bridge.example";
  for (const options of [
    { url },
    { url, token: "t" },
    { url, token, start: "tail" },
    { url, token, start: "acked" },
    { url, token, transport: "polling" },
    { url: "no url", token },
  ]) {
    assert.throws(() => new EmitterClient(options), TypeError, JSON.stringify(options));
  }
});

test("the handshake says who reads, from where, and what", async () => {
  const options = { start: "open", clientId: "tab 1", threadId: "t&1", runId: "r", types: ["a", "b"], join: false };
  const kit = start({ url: "https://bridge.example/under/", ...options });
  assert.deepEqual(kit.client.connection, {
    state: "idle",
    transport: null,
    reason: null,
    retryAt: null,
    connectionId: null,
    userId: null,
  });
  kit.client.connect();
  kit.client.connect();
  await settled();
  assert.equal(kit.sockets.length, 1);
  const { url, protocols, token } = kit.socket;
  assert.equal(`${url.origin}${url.pathname}`, "wss://bridge.example/under/v1/stream");
  assert.deepEqual(Object.fromEntries(url.searchParams), {
    from: "open",
    client_id: "tab 1",
    thread_id: "t&1",
    run_id: "r",
    types: "a,b",
    join: "false",
  });
  assert.equal(protocols[0], "emitter.v1.json");
  assert.match(protocols[1], /^base64url\.bearer\.authorization\.emitter\.[\w-]+$/);
  assert.equal(token, "token-1");
  assert.equal(state(kit), "connecting");
  kit.socket.say(established());
  assert.deepEqual({ ...kit.client.connection }, {
    state: "open",
    transport: "websocket",
    reason: null,
    retryAt: null,
    connectionId: "c1",
    userId: "u1",
  });
});

test("it resumes after the last event, and tells none twice", async () => {
  const kit = start();
  await kit.open();
  assert.equal(kit.socket.url.searchParams.get("from"), "head");
  kit.socket.say(event(3), event(4), event(4), event(3));
  assert.equal(kit.client.position, `${EPOCH}-4`);
  kit.socket.end();
  await kit.clock.pass(100);
  assert.deepEqual(kit.socket.url.search, `?after=${EPOCH}-4`);
  kit.socket.say(established({ position: `${EPOCH}-4` }), event(4), event(5));
  assert.deepEqual(kit.ids, ["e3", "e4", "e5"]);
});

test("before the first event it resumes where the stream began", async () => {
  const kit = start();
  await kit.open({ position: `${EPOCH}-7` });
  kit.socket.end();
  await kit.clock.pass(100);
  assert.equal(kit.socket.url.searchParams.get("after"), `${EPOCH}-7`);
});

test("a position that is given is resumed from", async () => {
  const kit = start({ start: `${EPOCH}-9` });
  assert.equal(kit.client.position, `${EPOCH}-9`);
  await kit.open({ position: `${EPOCH}-9` });
  assert.equal(kit.socket.url.searchParams.get("after"), `${EPOCH}-9`);
  kit.socket.say(event(9), event(10));
  assert.deepEqual(kit.ids, ["e10"]);
});

test("what the filter left out moves the position", async () => {
  const kit = start({ types: ["custom"] });
  await kit.open();
  kit.socket.say({ type: "connection_caught_up", position: `${EPOCH}-50` });
  assert.equal(kit.client.position, `${EPOCH}-50`);
  assert.deepEqual(kit.kinds, ["caughtup"]);
  kit.socket.end();
  await kit.clock.pass(100);
  assert.equal(kit.socket.url.searchParams.get("after"), `${EPOCH}-50`);
});

test("close codes say whether to come back", async () => {
  const back = [1000, 1001, 1006, 1009, 1011, 3000, 4000, 4001, 4002, 4003, 4004, 4006, 4008, 4499, 5000];
  const stop = [4500, 4501, 4505, 4506, 4508, 4999];
  for (const code of [...back, ...stop]) {
    const kit = start();
    await kit.open();
    kit.socket.end(code, "BECAUSE");
    const { state, reason, retryAt } = kit.client.connection;
    assert.deepEqual([state, reason], [stop.includes(code) ? "stopped" : "waiting", "BECAUSE"], `${code}`);
    assert.equal(retryAt === null, stop.includes(code));
    await kit.clock.pass(3_600_000);
    assert.equal(kit.sockets.length > 1, back.includes(code), `${code}`);
  }
});

test("a closing frame without a time to come back stops it, also when the close is lost", async () => {
  const kit = start();
  await kit.open();
  kit.socket.say(closing("REPLACED"));
  kit.socket.end(1006);
  assert.deepEqual([state(kit), kit.client.connection.reason], ["stopped", "REPLACED"]);
});

test("a stopped client can be connected again", async () => {
  const kit = start();
  await kit.open();
  kit.socket.say(event(1));
  kit.socket.end(4508, "REPLACED");
  await kit.open();
  assert.equal(state(kit), "open");
  assert.equal(kit.socket.url.searchParams.get("after"), `${EPOCH}-1`);
});

test("it comes back when the server asks it to", async () => {
  const kit = start({}, { random: () => 0 });
  await kit.open();
  kit.socket.say(closing("DRAINING", 3000));
  kit.socket.end(4001, "DRAINING");
  assert.equal(kit.client.connection.retryAt - kit.clock.wall(), 3000);
  await kit.clock.pass(2000);
  kit.window.dispatchEvent(new Event("online"));
  await kit.clock.pass(999);
  assert.equal(kit.sockets.length, 1, "not earlier, whatever wakes it");
  await kit.clock.pass(1);
  assert.equal(kit.sockets.length, 2);
});

test("its waits double up to 30 s, and a connection that lived starts them over", async () => {
  const kit = start();
  kit.client.connect();
  const waits = [];
  for (let n = 0; n < 12; n += 1) {
    await settled();
    kit.socket.end();
    waits.push(kit.client.connection.retryAt - kit.clock.wall());
    await kit.clock.pass(waits.at(-1));
  }
  assert.deepEqual(waits.slice(0, 3), [100, 200, 400]);
  assert.deepEqual(waits.slice(-2), [30_000, 30_000]);
  for (const [lived, wait] of [[9_000, 30_000], [10_000, 100]]) {
    kit.socket.say(established());
    await kit.clock.pass(lived);
    kit.socket.end();
    assert.equal(kit.client.connection.retryAt - kit.clock.wall(), wait, `after ${lived} ms`);
    await kit.clock.pass(wait);
  }
});

test("a socket that is silent for more than two and a half intervals is dead", async () => {
  const kit = start();
  await kit.open({ heartbeat_interval_ms: 1000 });
  await kit.clock.pass(2400);
  kit.socket.say(heartbeat(0));
  await kit.clock.pass(2499);
  assert.equal(state(kit), "open");
  await kit.clock.pass(1);
  assert.deepEqual([state(kit), kit.client.connection.reason], ["waiting", "the server has fallen silent"]);
  assert.equal(kit.sockets[0].closed, true);
  kit.sockets[0].say(event(1));
  kit.sockets[0].end(4500);
  assert.deepEqual([state(kit), kit.ids], ["waiting", []], "a dead socket is not heard");
  await kit.clock.pass(100);
  assert.equal(kit.sockets.length, 2);
});

test("a handshake without a first frame is dead after 15 s", async () => {
  const kit = start();
  kit.client.connect();
  await kit.clock.pass(14_999);
  assert.equal(state(kit), "connecting");
  await kit.clock.pass(1);
  assert.deepEqual([state(kit), kit.client.connection.reason], ["waiting", "no answer"]);
});

test("a heartbeat interval without sense is bounded", async () => {
  for (const [interval, patience] of [[0, 250], [-1, 250], [1e12, 1_500_000], ["x", 50_000], [null, 50_000]]) {
    const kit = start();
    await kit.open({ heartbeat_interval_ms: interval });
    await kit.clock.pass(patience - 1);
    assert.equal(state(kit), "open", `${interval}`);
    await kit.clock.pass(1);
    assert.equal(state(kit), "waiting", `${interval}`);
  }
});

test("a machine that slept finds its connection dead at once", async () => {
  for (const [target, name] of [["window", "online"], ["window", "pageshow"], ["document", "visibilitychange"], ["document", "resume"]]) {
    const kit = start();
    await kit.open();
    await kit.clock.pass(15_000);
    kit.clock.sleep(8 * 3_600_000);
    assert.equal(state(kit), "open");
    kit[target].dispatchEvent(new Event(name));
    await settled();
    assert.deepEqual([state(kit), kit.sockets.length], ["connecting", 2], name);
  }
});

test("a machine that slept does not wait for its turn", async () => {
  const kit = start();
  kit.client.connect();
  for (let n = 0; n < 12; n += 1) {
    await settled();
    kit.socket.end();
    if (n < 11) {
      await kit.clock.pass(kit.client.connection.retryAt - kit.clock.wall());
    }
  }
  kit.clock.sleep(3_600_000);
  const attempts = kit.sockets.length;
  kit.document.visibilityState = "hidden";
  kit.document.dispatchEvent(new Event("visibilitychange"));
  await settled();
  assert.equal(kit.sockets.length, attempts, "a hidden page can wait");
  kit.document.visibilityState = "visible";
  kit.document.dispatchEvent(new Event("visibilitychange"));
  await settled();
  assert.equal(kit.sockets.length, attempts + 1);
});

test("waking up often does not make it hammer the server", async () => {
  const kit = start();
  kit.client.connect();
  for (let n = 0; n < 50; n += 1) {
    await settled();
    kit.socket.end();
    kit.window.dispatchEvent(new Event("online"));
    await settled();
  }
  assert.equal(kit.sockets.length, 1);
});

test("waking up leaves a live connection alone", async () => {
  const kit = start();
  await kit.open();
  await kit.clock.pass(15_000);
  kit.window.dispatchEvent(new Event("online"));
  await settled();
  assert.deepEqual([state(kit), kit.sockets.length], ["open", 1]);
});

test("no jump of the clock wedges it", async () => {
  const kit = start();
  await kit.open({ heartbeat_interval_ms: 1000 });
  kit.clock.sleep(-24 * 3_600_000);
  await kit.clock.pass(2500);
  assert.equal(state(kit), "waiting", "silence is noticed though the clock went back");
  kit.clock.sleep(-24 * 3_600_000);
  await kit.clock.pass(100);
  assert.equal(kit.sockets.length, 2);
  kit.socket.say(established(), closing("DRAINING", 5000));
  kit.socket.end(4001);
  kit.clock.sleep(-24 * 3_600_000);
  await kit.clock.pass(1000);
  kit.window.dispatchEvent(new Event("online"));
  await settled();
  assert.equal(kit.sockets.length, 3, "a time that makes no sense forbids nothing");
});

test("closing ends everything, for good", async () => {
  for (const when of ["token", "connecting", "open", "waiting"]) {
    const kit = start(when === "token" ? { token: () => new Promise(() => {}) } : {});
    kit.client.connect();
    await settled();
    if (when === "open") {
      kit.socket.say(established());
    } else if (when === "waiting") {
      kit.socket.end();
    }
    kit.client.close();
    assert.deepEqual([state(kit), kit.clock.pending], ["closed", 0], when);
    const attempts = kit.sockets.length;
    assert.ok(kit.sockets.every(({ closed, readyState }) => closed || readyState === 3));
    kit.client.close();
    kit.client.connect();
    kit.window.dispatchEvent(new Event("online"));
    await kit.clock.pass(3_600_000);
    assert.deepEqual([state(kit), kit.sockets.length], ["closed", attempts], when);
  }
});

test("a listener may close the client at any word on the connection", async () => {
  for (const wanted of ["connecting", "open", "waiting", "stopped"]) {
    const kit = start();
    kit.client.addEventListener("connection", ({ detail }) => detail.connection.state === wanted && kit.client.close());
    await kit.open();
    kit.socket?.end(wanted === "stopped" ? 4500 : 1006);
    await kit.clock.pass(3_600_000);
    assert.deepEqual([state(kit), kit.clock.pending, kit.sockets.length <= 1], ["closed", 0, true], wanted);
  }
});

test("what it does not know does not break it", async () => {
  const kit = start();
  await kit.open({ surprise: { nested: [1] } });
  kit.socket.say(
    { type: "connection_moon_phase", phase: "full" },
    { type: "agent_dreaming", run_id: "r1", payload: { of: "sheep" } },
    event(1, "agent_dreaming", { of: "sheep" }),
    event(2, "agent_thinking", {}, { surprise: 1 }),
    { type: "connection_gap" },
    { type: "connection_caught_up" },
    { type: "connection_closing", reason: 7, reconnect_after_ms: 100 },
  );
  assert.deepEqual([state(kit), kit.ids], ["open", [undefined, "e1", "e2"]]);
});

test("malformed frames are ignored, with a warning once a minute", async () => {
  const kit = start();
  await kit.open();
  for (let n = 0; n < 10; n += 1) {
    kit.socket.say("", "{", "null", "[]", "7", '"x"', "{}", '{"type":7}', event(n + 1));
    kit.socket.onmessage({ data: new ArrayBuffer(8) });
    await kit.clock.pass(10_000);
  }
  assert.equal(kit.ids.length, 10);
  assert.equal(kit.warnings.length, 2, kit.warnings.join());
});

test("after two handshakes without a frame SSE is tried, and WebSocket again later", async () => {
  const asked = [];
  let stream;
  const fetch = async (url) => {
    asked.push(new URL(url).pathname);
    const body = new ReadableStream({ start: (controller) => (stream = controller) });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
  const say = (frame) => stream.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(frame)}\n\n`));
  const kit = start({ transport: "auto" }, { fetch });
  kit.client.connect();
  await settled();
  kit.socket.end();
  await kit.clock.pass(100);
  kit.socket.end();
  await kit.clock.pass(200);
  assert.deepEqual([asked, kit.sockets.length], [["/v1/events"], 2]);
  say(established({ heartbeat_interval_ms: 600_000 }));
  say(event(1));
  await settled();
  assert.deepEqual([state(kit), kit.client.connection.transport, kit.ids], ["open", "sse", ["e1"]]);
  await kit.clock.pass(60_000);
  assert.deepEqual([kit.sockets.length, kit.client.connection.transport], [3, "websocket"], "a minute later");
  kit.socket.end();
  await kit.clock.pass(400);
  assert.deepEqual([asked.length, kit.client.connection.transport], [2, "sse"], "one more failure is enough");
  say(established({ heartbeat_interval_ms: 600_000 }));
  await kit.clock.pass(119_000);
  assert.equal(kit.sockets.length, 3);
  await kit.clock.pass(1_000);
  kit.socket.say(established(), event(1), event(2));
  assert.deepEqual([kit.client.connection.transport, kit.ids], ["websocket", ["e1", "e2"]]);
  kit.socket.end();
  await kit.clock.pass(1_000);
  assert.equal(kit.client.connection.transport, "websocket", "it works again");
});

test("a refusal over WebSocket is an answer, not a reason for SSE", async () => {
  const kit = start({ transport: "auto" });
  kit.client.connect();
  for (let n = 0; n < 6; n += 1) {
    await settled();
    kit.socket.end(4006, "CONNECTION_LIMIT");
    await kit.clock.pass(kit.client.connection.retryAt - kit.clock.wall());
  }
  assert.equal(kit.sockets.length, 7);
});

test("a WebSocket that cannot even be made is a failed attempt", async () => {
  const kit = start({}, {
    WebSocket: function () {
      throw new SyntaxError("no");
    },
  });
  kit.client.connect();
  await settled();
  assert.deepEqual([state(kit), kit.client.connection.reason], ["waiting", "no"]);
});

test("a new epoch resets, and rebuilds from what is open and what follows", async () => {
  const kit = start();
  const open = (run_id) => ({ run_id, agent_name: "a", state: "running", started_at: "", open_tool_calls: [] });
  await kit.open({ open_runs: [open("r1"), open("r2")] });
  assert.deepEqual([...kit.client.runs.keys()], ["r1", "r2"]);
  kit.socket.say(event(5, "message", { text: "Hi" }));
  kit.socket.end();
  await kit.clock.pass(100);
  kit.socket.say(established({ open_runs: [open("r3")] }));
  assert.equal(kit.client.runs.has("r3"), false, "on a resume, what is open comes as events");
  const replayed = event(1, "message", { text: "Hi" }, { epoch: NEXT_EPOCH, event_id: "e5" });
  kit.socket.say(gap("epoch_changed", `${NEXT_EPOCH}-0`, [open("r4")]), replayed, event(2, "agent_thinking", {}, { epoch: NEXT_EPOCH }));
  assert.deepEqual(kit.kinds, ["event", "reset", "gap", "event"]);
  assert.deepEqual([...kit.client.runs.keys()], ["r4", "r1"]);
  assert.deepEqual(kit.ids, ["e5", "e2"], "the event of the former epoch is told once");
  assert.equal(kit.client.runs.get("r1").text, "Hi", "and rebuilds its run all the same");
  assert.equal(kit.client.position, `${NEXT_EPOCH}-2`);
  kit.socket.end();
  await kit.clock.pass(1000);
  assert.equal(kit.socket.url.searchParams.get("after"), `${NEXT_EPOCH}-2`);
});

test("a trimmed gap resets only what it makes unsure", async () => {
  for (const [last, kinds] of [["agent_completed", ["event", "gap"]], ["agent_thinking", ["event", "reset", "gap"]]]) {
    const kit = start();
    await kit.open();
    kit.socket.say(event(1, last), gap("trimmed", `${EPOCH}-90`));
    assert.deepEqual(kit.kinds, kinds);
    assert.equal(kit.client.position, `${EPOCH}-90`);
    kit.socket.end();
    await kit.clock.pass(100);
    assert.equal(kit.socket.url.searchParams.get("after"), `${EPOCH}-90`);
  }
});

test("a position ahead of the stream goes back with it", async () => {
  const kit = start({ start: `${EPOCH}-50` });
  await kit.open();
  kit.socket.say(gap("position_ahead", `${EPOCH}-3`), event(4));
  assert.deepEqual([kit.kinds, kit.ids], [["reset", "gap", "event"], ["e4"]]);
});

test("nothing is told after the word that the client is closed", async () => {
  const kit = start();
  await kit.open();
  kit.socket.say(event(1));
  kit.client.addEventListener("reset", () => kit.client.close());
  kit.socket.say(gap("epoch_changed", `${NEXT_EPOCH}-0`), event(1, "agent_started", {}, { epoch: NEXT_EPOCH }));
  assert.deepEqual(kit.kinds, ["event", "reset"]);
  assert.deepEqual([kit.told.at(-1).connection?.state, kit.client.position], ["closed", `${EPOCH}-1`]);
});
