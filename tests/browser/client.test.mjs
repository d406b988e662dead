// The browser client in Chromium, against the real server behind a proxy with faults.

import assert from "node:assert/strict";
import fs from "node:fs";
import { after, before, test } from "node:test";

import { watch } from "./contract.mjs";
import { PATIENCE_MS, ROOT, Server, lastingPorts, launchChromium, serve, until } from "./harness.mjs";
import { Proxy } from "./proxy.mjs";

const PAGE = "<!doctype html><title>Client</title>";
const MODULE = new URL(`file://${ROOT}/clients/browser/emitter.js`);

let chromium;
let pages;

before(async () => {
  chromium = await launchChromium();
  pages = await serve({ "/": PAGE, "/emitter.js": MODULE });
});

after(async () => {
  await chromium?.close();
  await pages?.stop();
});

/** A server, a proxy in front of it, and a page whose client connects through that. */
async function scene(t, { settings, listen, options = {}, ttl = 3600, cutsUpgrades = false } = {}) {
  const server = await Server.start(settings, listen);
  t.after(() => server.stop());
  const proxy = await Proxy.start(server.http);
  t.after(() => proxy.stop());
  proxy.cutsUpgrades = cutsUpgrades;
  const context = await chromium.newContext();
  t.after(() => context.close());
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const asked = [];
  const errors = [];
  const wrong = [];
  watch(page, wrong);
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.exposeFunction("freshToken", (reason) => {
    asked.push(reason);
    return server.token("u1", { ttl });
  });
  await page.goto(pages.url);
  await page.evaluate(connect, { url: proxy.url, start: "oldest", ...options });
  t.after(() => assert.deepEqual({ errors, wrong }, { errors: [], wrong: [] }));
  const look = () => page.evaluate(() => ({ ...told, connection: client.connection, runs: [...client.runs.values()] }));
  const reach = (what, condition, options) =>
    until(async () => condition(await look()), what, { ...options, seen: async () => brief(await look()) });
  await reach("an open connection", ({ connection }) => connection.state === "open");
  return { server, proxy, page, asked, look, reach };
}

/** What was seen, without the middle of what is long. */
const brief = ({ ids, kinds, states, connection }) => ({
  seen: [ids.length, ...ids.slice(-5)],
  kinds: kinds.filter((kind) => kind !== "event").slice(-20),
  states: states.slice(-20),
  connection,
});

/** Runs in the page: connects, and notes what is told. */
async function connect(options) {
  const { EmitterClient } = await import("/emitter.js");
  globalThis.told = { ids: [], kinds: [], states: [], reasons: [] };
  globalThis.client = new EmitterClient({ ...options, token: ({ reason }) => globalThis.freshToken(reason) });
  for (const kind of ["event", "gap", "reset", "caughtup"]) {
    client.addEventListener(kind, () => told.kinds.push(kind));
  }
  client.addEventListener("event", ({ detail }) => told.ids.push(detail.frame.event_id));
  client.addEventListener("connection", ({ detail }) => {
    told.states.push(detail.connection.state);
    told.reasons.push(detail.connection.reason);
  });
  client.connect();
}

/** Emits one event of the run `run_id` under an id that the test knows. */
const emit = async (server, event_id, payload, run_id = "r1") => {
  await server.emit({ event_id, user_id: "u1", run_id, agent_name: "researcher", ...payload });
  return event_id;
};

/** Emits events while `trouble` goes on, and gives their ids. */
async function emitDuring(server, trouble) {
  const ids = [await emit(server, "start", { agent_started: { message: "On it" } })];
  let over = false;
  const troubled = trouble().finally(() => (over = true));
  // It is told below; until then it has nobody who listens.
  troubled.catch(() => {});
  while (!over) {
    const n = ids.length;
    ids.push(await emit(server, `e${n}`, { text_delta: { message_id: "m1", text: `${n} ` } }));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await troubled;
  ids.push(await emit(server, "end", { agent_completed: { message: "Done" } }));
  return ids;
}

const count = (states, wanted) => states.filter((state) => state === wanted).length;

const SILENT = "the server has fallen silent";

const saw = (ids) => (seen) => seen.ids.length >= ids.length && seen.ids.at(-1) === ids.at(-1);

/** Waits until a token of a life that short is over: nothing else tells. */
const passed = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Every id once, in order, and the text that they make. */
async function assertExact({ look, reach }, ids) {
  await reach("the last event", saw(ids));
  const seen = await look();
  assert.deepEqual(seen.ids, ids);
  const wanted = ids.slice(1, -1).map((_, n) => `${n + 1} `);
  assert.equal(seen.runs[0].text, wanted.join(""));
  assert.ok(!seen.kinds.includes("gap"), "nothing was lost");
  return seen;
}

test("a whole run, as a page draws it", async (t) => {
  const { server, look, reach } = await scene(t);
  const call = { tool_call_id: "c1", tool_name: "search" };
  await emit(server, "1", { agent_started: { message: "On it" } });
  await emit(server, "2", { agent_thinking: { reasoning: "Where?", step_number: 1, total_steps: 2, progress_percentage: 0 } });
  await emit(server, "3", { tool_executing: { ...call, description: "Looks", parameters_json: '{"page":3}' } });
  await emit(server, "4", { tool_progress: { tool_call_id: "c1", fraction: 0.5, message: "half" } });
  await emit(server, "5", { tool_completed: { ...call, result_json: '{"hits":3}', execution_time: { nanos: 118_000_000 } } });
  await emit(server, "6", { agent_waiting: { reason: "approval", prompt: "Go on?" } });
  await reach("the wait", ({ runs }) => runs[0]?.state === "waiting");
  await emit(server, "7", { text_delta: { message_id: "m1", role: "assistant", text: "Thre" } });
  await emit(server, "8", { message: { message_id: "m1", role: "assistant", text: "Three documents" } });
  await emit(server, "9", { agent_started: { message: "Help" }, parent_run_id: "r1" }, "r2");
  await emit(server, "10", { custom: { name: "app.note", data: { fields: { x: { numberValue: 1 } } } } }, "");
  await emit(server, "11", {
    agent_completed: { message: "Done" },
    usage: { provider: "acme", model: "m1", input_tokens: 10, output_tokens: 5, cost_nano_usd: 7 },
  });
  await reach("the end", ({ runs }) => runs[0]?.state === "completed");
  const seen = await look();
  const parentEnded = seen.ids.find((id) => id.startsWith("emitter:"));
  assert.deepEqual(seen.ids, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", parentEnded, "11"]);
  const [run, child] = seen.runs;
  const { startedAt, endedAt, lastEventAt, toolCalls, ...rest } = run;
  assert.deepEqual(rest, {
    runId: "r1",
    agentName: "researcher",
    threadId: null,
    parentRunId: null,
    state: "completed",
    partial: false,
    truncated: false,
    message: "Done",
    waiting: null,
    waits: [],
    error: null,
    result: null,
    thinking: { reasoning: "Where?", stepNumber: 1, totalSteps: 2, progressPercentage: 0, messageId: "", text: "" },
    text: "Three documents",
    messages: [{ messageId: "m1", role: "assistant", text: "Three documents", final: true }],
    openToolCalls: 0,
    usage: {
      inputTokens: 10,
      outputTokens: 5,
      cachedInputTokens: 0,
      cacheWriteInputTokens: 0,
      cacheWrite1hInputTokens: 0,
      reasoningTokens: 0,
      costNanoUsd: 7,
      unpricedEvents: 0,
    },
    childRunIds: ["r2"],
    events: 9,
    lastSequence: 9,
  });
  assert.ok(startedAt < endedAt && endedAt === lastEventAt, JSON.stringify(run));
  const [{ startedAt: begun, endedAt: done, ...search }] = toolCalls;
  assert.ok(begun <= done);
  assert.deepEqual(search, {
    toolCallId: "c1",
    callSequence: 3,
    toolName: "search",
    description: "Looks",
    parameters: { page: 3 },
    state: "succeeded",
    executionTimeMs: 118,
    fraction: 0.5,
    progress: "half",
    result: { hits: 3 },
    error: null,
  });
  assert.deepEqual([child.state, child.parentRunId, child.message], ["cancelled", "r1", "parent_ended"]);
});

for (const transport of ["websocket", "sse"]) {
  test(`ten cuts in a row and a stall, over ${transport}, lose and double nothing`, async (t) => {
    const settings = { EMITTER_LIMITS__HEARTBEAT: "400ms" };
    const there = await scene(t, { settings, options: { transport, join: false } });
    const { proxy, page, look, reach } = there;
    // Its waits grow with each failure; word of the network ends them.
    const hurried = (what, condition) =>
      reach(what, async (seen) => {
        await page.evaluate(() => window.dispatchEvent(new Event("online")));
        return condition(seen);
      });
    // It may also be lost by itself: only what is told of connections after a fault counts.
    const alive = async () => {
      const { ids } = await look();
      return hurried("an event", (seen) => seen.connection.state === "open" && seen.ids.length > ids.length && seen.states.length);
    };
    const back = (before) => hurried("another connection", ({ states }) => states.slice(before).includes("open"));
    const ids = await emitDuring(there.server, async () => {
      for (let cut = 1; cut <= 10; cut += 1) {
        const before = await alive();
        proxy.cut();
        await back(before);
      }
      const before = await alive();
      proxy.stall();
      const stalled = await hurried("the stall", ({ states, reasons }) => reasons.slice(before).includes(SILENT) && states.length);
      proxy.resume();
      await back(stalled);
    });
    const { connection, states } = await assertExact(there, ids);
    assert.equal(connection.transport, transport);
    assert.ok(count(states, "open") >= 12, states.join());
  });
}

test("a stall of 30 s loses and doubles nothing", async (t) => {
  const there = await scene(t, { settings: { EMITTER_LIMITS__HEARTBEAT: "5s" }, options: { join: false } });
  const ids = await emitDuring(there.server, async () => {
    await there.reach("the run under way", ({ ids }) => ids.length > 3);
    const stalled = there.proxy.stallFor();
    await there.reach("the stall", ({ reasons }) => reasons.includes(SILENT));
    await stalled;
  });
  await assertExact(there, ids);
});

test("a tab that sleeps past its token's expiry comes back with a fresh one by itself", async (t) => {
  const settings = { EMITTER_LIMITS__EXPIRING_NOTICE: "1s", EMITTER_AUTH__LEEWAY: "0s" };
  const { server, page, asked, look, reach } = await scene(t, { settings, ttl: 12 });
  await emit(server, "1", { agent_started: {} });
  await reach("the first event", saw(["1"]));
  // No script of the page runs and no timer fires, as in a tab that is frozen.
  const devtools = await page.context().newCDPSession(page);
  const paused = new Promise((resolve) => devtools.once("Debugger.paused", resolve));
  await devtools.send("Debugger.enable");
  await devtools.send("Debugger.pause");
  // The next statement that would run is this one; it ends when the page wakes up.
  const asleep = page.evaluate(() => {});
  await paused;
  const before = [...asked];
  await server.forsaken();
  await emit(server, "2", { agent_completed: {} });
  assert.deepEqual(asked, before, "it is asleep");
  await devtools.send("Debugger.resume");
  await devtools.send("Debugger.disable");
  await asleep;
  await reach("the second event", saw(["1", "2"]));
  const { ids, kinds } = await look();
  assert.deepEqual(ids, ["1", "2"]);
  assert.ok(!kinds.includes("gap"));
  assert.ok(asked.slice(before.length).includes("expired"), asked.join());
});

test("a token that expires behind a dead connection is replaced", async (t) => {
  const settings = { EMITTER_LIMITS__HEARTBEAT: "500ms", EMITTER_AUTH__LEEWAY: "0s" };
  const { server, proxy, asked, look, reach } = await scene(t, { settings, ttl: 3 });
  await emit(server, "1", { agent_started: {} });
  const before = asked.length;
  proxy.stall();
  await reach("the stall", ({ connection }) => connection.state !== "open");
  await passed(3_500);
  await emit(server, "2", { agent_completed: {} });
  proxy.resume();
  await reach("the second event", saw(["1", "2"]));
  assert.deepEqual((await look()).ids, ["1", "2"]);
  assert.ok(asked.slice(before).some((reason) => reason !== "expiring"), asked.join());
});

// Over WebSocket a token is renewed at half of what is left of its life, which a slow machine must not miss.
for (const [transport, ttl, notice, wanted] of [
  ["websocket", 20, "18s", "expiring"],
  ["sse", 4, "2s", "expired"],
]) {
  test(`short tokens, over ${transport}, are renewed again and again without a loss`, async (t) => {
    const settings = { EMITTER_LIMITS__EXPIRING_NOTICE: notice, EMITTER_LIMITS__RECONNECT_MOST: "100ms", EMITTER_AUTH__LEEWAY: "0s" };
    const there = await scene(t, { settings, options: { transport, join: false }, ttl });
    const renewed = () => there.asked.filter((reason) => reason === wanted).length >= 2;
    const ids = await emitDuring(there.server, () => until(renewed, `two tokens as ${wanted}`, { seen: () => there.asked }));
    const { states } = await assertExact(there, ids);
    assert.equal(states.includes("waiting"), transport === "sse", "over WebSocket the connection lives on");
  });
}

test("a server that restarts makes the client forget, and rebuild", async (t) => {
  const { server, look, reach } = await scene(t, { listen: await lastingPorts() });
  await emit(server, "1", { agent_started: { message: "before" } });
  await emit(server, "2", { agent_started: {} }, "lost");
  await reach("both runs", ({ runs }) => runs.length === 2);
  await server.restart();
  await emit(server, "3", { agent_started: { message: "after" } });
  await emit(server, "4", { text_delta: { message_id: "m", text: "Hi" } });
  await reach("the new epoch", saw(["1", "2", "3", "4"]));
  const { ids, kinds, runs } = await look();
  assert.deepEqual(ids, ["1", "2", "3", "4"]);
  assert.deepEqual(kinds.filter((kind) => kind !== "event" && kind !== "caughtup"), ["reset", "gap"]);
  assert.deepEqual(runs.map(({ runId, message, text }) => [runId, message, text]), [["r1", "after", "Hi"]]);
});

test("where WebSocket is cut, the stream comes over SSE", async (t) => {
  const { server, proxy, look, reach } = await scene(t, { cutsUpgrades: true });
  await emit(server, "1", { agent_started: {} });
  await reach("an event over SSE", ({ connection, ids }) => connection.transport === "sse" && ids.length === 1);
  proxy.cut();
  await emit(server, "2", { agent_completed: {} });
  await reach("the next event", saw(["1", "2"]));
  assert.deepEqual((await look()).ids, ["1", "2"]);
});

test("a slow iterator makes the connection pause, and loses nothing", async (t) => {
  const settings = { EMITTER_RETENTION__EVENTS: "40000", EMITTER_RETENTION__BYTES: "64MiB" };
  const { server, page, look, reach } = await scene(t, { settings, options: { join: false } });
  await page.evaluate(() => {
    globalThis.iterator = client[Symbol.asyncIterator]();
  });
  const ids = Array.from({ length: 25_000 }, (_, n) => `e${n + 1}`);
  await emit(server, "start", { agent_started: {} });
  for (let n = 0; n < ids.length; n += 1000) {
    await server.emitBatch(
      ids.slice(n, n + 1000).map((event_id) => ({ event_id, user_id: "u1", run_id: "r1", thinking_delta: { text: "." } })),
    );
  }
  await reach("the pause", ({ connection }) => connection.reason === "the iterator lags");
  const got = await page.evaluate(async (last) => {
    const got = [];
    while (got.at(-1) !== last) {
      const { value } = await iterator.next();
      if (value.kind === "event") {
        got.push(value.frame.event_id);
      }
    }
    return got;
  }, ids.at(-1));
  assert.deepEqual(got, ["start", ...ids]);
  assert.ok(!(await look()).kinds.includes("gap"));
});

test("a client with a name begins again after what it acknowledged", async (t) => {
  const options = { start: "acked", clientId: "tab", transport: "websocket" };
  const { server, proxy, page, look, reach } = await scene(t, { options });
  const acks = [];
  page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => acks.push(JSON.parse(payload))));
  await page.evaluate(() => client.close());
  await page.evaluate(connect, { url: proxy.url, ...options });
  await emit(server, "1", { agent_started: {} });
  const { position } = await server.emit({ user_id: "u1", run_id: "r1", agent_thinking: { reasoning: "x" } });
  await until(() => acks.some(({ offset }) => offset === position.offset), "an acknowledgement", { seen: () => acks });
  await page.evaluate(() => client.close());
  // What it said last is heard.
  await server.forsaken();
  await emit(server, "3", { agent_completed: {} });
  await page.evaluate(connect, { url: proxy.url, ...options });
  await reach("the last event", saw(["3"]));
  assert.deepEqual((await look()).ids, ["3"]);
});

test("the first use in the package's README works", async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  const readme = fs.readFileSync(`${ROOT}/clients/browser/README.md`, "utf8");
  const [, example] = /```html\n([^]*?)```/.exec(readme);
  // Its module comes from the bridge; here from where the page does, so the bridge must be named.
  const html = example
    .replace("http://127.0.0.1:8080/emitter.js", "/emitter.js")
    .replace("{ token,", `{ url: "${server.url}", token,`);
  const site = await serve({ "/": html, "/emitter.js": MODULE, "/token": `${server.token("u1")}\n` });
  t.after(() => site.stop());
  await server.emit({ user_id: "u1", run_id: "r1", agent_name: "researcher", agent_started: {} });
  await server.emit({ user_id: "u1", run_id: "r1", message: { text: "Hello" } });
  const page = await chromium.newPage();
  t.after(() => page.close());
  await page.goto(site.url);
  const shown = () => page.textContent("#state");
  await until(async () => (await shown()) === "researcher: running Hello", "the run", { seen: shown });
});
