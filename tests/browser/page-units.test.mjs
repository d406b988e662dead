// What the page's modules do that need no browser.

import assert from "node:assert/strict";
import { test } from "node:test";

import { takeToken } from "../../src/page/web/address.js";
import { Announcer } from "../../src/page/web/announcer.js";
import * as format from "../../src/page/web/format.js";
import { Budget, Frames } from "../../src/page/web/frames.js";
import { pretty } from "../../src/page/web/json.js";
import { EventLog } from "../../src/page/web/log.js";
import { HARD, append } from "../../src/page/web/pieces.js";
import { formatRoute, parseRoute } from "../../src/page/web/route.js";
import { Rows } from "../../src/page/web/rows.js";
import { ServerClock } from "../../src/page/web/server-clock.js";
import { inWords } from "../../src/page/web/status-view.js";
import { describe as told } from "../../src/page/web/steps.js";
import { apply, seed } from "../../src/page/web/timeline.js";
import { tokenIn } from "../../src/page/web/token-form.js";
import { TokenKeeper, TokenRefused, expiry } from "../../src/page/web/token.js";
import { flatten } from "../../src/page/web/tree.js";
import { axisOf, descendants, lanesOf, placeOf, together } from "../../src/page/web/waterfall.js";

test("the token leaves the address, and what else is in it stays", () => {
  const cases = [
    ["#token=a.b.c", "a.b.c", "/"],
    ["#run=r1&token=a.b.c", "a.b.c", "/#run=r1"],
    ["#token=", null, "/"],
    ["#run=r1", null, undefined],
    ["", null, undefined],
  ];
  for (const [hash, token, left] of cases) {
    let replaced;
    const history = { replaceState: (_state, _title, url) => (replaced = url) };
    assert.equal(takeToken({ hash, pathname: "/", search: "" }, history), token, hash);
    assert.equal(replaced, left, hash);
  }
});

const jwt = (claims) => `h.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.s`;

/** A keeper at the time 1,000 s, whose service answers as told. */
function keeper(answers = []) {
  const stored = new Map();
  const asked = [];
  const storage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => stored.set(key, value),
    removeItem: (key) => stored.delete(key),
  };
  const fetch = async (url, { method, headers }) => {
    asked.push([method, url, headers.authorization]);
    const [status, body] = answers.shift();
    return { status, ok: status < 300, json: async () => body };
  };
  return { keeper: new TokenKeeper({ storage, fetch, now: () => 1_000_000 }), stored, asked, storage };
}

test("a token is kept for a reload, and renewed when it is about to end", async () => {
  const fresh = jwt({ exp: 2_000 });
  const { keeper: kept, stored, asked, storage } = keeper([[200, { token: "new" }], [200, { token: "newer" }], [200, { token: "newest" }]]);
  kept.keep(fresh);
  assert.equal(await kept.current({ reason: "connect" }), fresh);
  assert.deepEqual(asked, []);
  assert.equal(new TokenKeeper({ storage, fetch: null }).present, true);
  assert.equal(await kept.current({ reason: "expiring" }), "new");
  assert.deepEqual(asked, [["POST", "/dev/token", `Bearer ${fresh}`]]);
  assert.deepEqual([...stored.values()], ["new"]);
  const ending = jwt({ exp: 1_004 });
  kept.keep(ending);
  assert.equal(await kept.current(), "newer");
  assert.equal(await kept.current({ reason: "expired" }), "newest");
});

test("another user's token is asked for with the one that is kept", async () => {
  const { keeper: kept, stored, asked } = keeper([[200, { token: "theirs" }], [400, { message: "`user`: no" }]]);
  const fresh = jwt({ exp: 2_000 });
  kept.keep(fresh);
  await kept.switchTo("a b/c");
  assert.deepEqual(asked, [["POST", "/dev/token?user=a+b%2Fc", `Bearer ${fresh}`]]);
  assert.deepEqual([...stored.values()], ["theirs"]);
  kept.keep(fresh);
  await assert.rejects(kept.switchTo("x"), /^Error: `user`: no$/);
  assert.deepEqual([...stored.values()], [fresh]);
});

test("a token that the service refuses is no reason to try again, an answer that fails is", async () => {
  for (const [status, refused] of [[401, true], [403, true], [503, false]]) {
    const { keeper: kept } = keeper([[status, {}]]);
    kept.keep(jwt({ exp: 1 }));
    await assert.rejects(kept.current(), (error) => error instanceof TokenRefused === refused, String(status));
  }
  await assert.rejects(keeper().keeper.current(), TokenRefused);
});

test("a token says when it ends, anything else does not", () => {
  assert.equal(expiry(jwt({ exp: 12 })), 12_000);
  for (const other of ["", "a.b.c", "a.e30.c", jwt({ exp: "12" })]) {
    assert.equal(expiry(other), null, other);
  }
});

test("a pasted line has its token in it", () => {
  const cases = [
    ["eyJh.eyJi.c-_", "eyJh.eyJi.c-_"],
    ["  http://127.0.0.1:8080/#token=eyJh.eyJi.c\n", "eyJh.eyJi.c"],
    ["See it in a browser:\n\nhttp://127.0.0.1:8080/#token=eyJh.eyJi.c", "eyJh.eyJi.c"],
    ["http://127.0.0.1:8080/", null],
    ["", null],
  ];
  for (const [pasted, token] of cases) {
    assert.equal(tokenIn(pasted), token, pasted);
  }
});

test("a frame applies no more than its share", async () => {
  let frame;
  const budget = new Budget(3, () => new Promise((resolve) => (frame = resolve)));
  assert.equal(budget.spend(), null);
  assert.equal(budget.spend(), null);
  const wait = budget.spend();
  assert.ok(wait instanceof Promise);
  frame();
  await wait;
  assert.equal(budget.spend(), null);
  assert.equal(budget.most, 3);
});

test("a page in the background goes on without frames", async () => {
  let hidden = false;
  let listener;
  const drawn = [];
  const host = {
    draw: (run) => drawn.push(run),
    later: (run) => setImmediate(run),
    hidden: () => hidden,
    onVisibility: (run) => (listener = run),
  };
  const frames = new Frames(() => {}, host);
  const waiting = frames.next();
  hidden = true;
  listener();
  await waiting;
  await frames.next();
  assert.equal(drawn.length, 1);
  host.later = () => {};
  const throttled = frames.next();
  hidden = false;
  listener();
  await throttled;
});

const event = (type, run_id, payload = {}, more = {}) => ({
  type,
  run_id,
  payload,
  agent_name: "a",
  timestamp: "2026-11-21T10:00:00.500Z",
  recorded_at: "2026-11-21T10:00:00.500Z",
  ...more,
});

test("the log is bounded by events and by characters, and tells what it let go", () => {
  const log = new EventLog(() => true, { entries: 100, characters: 1e9 });
  for (let at = 0; at < 1_000; at += 1) {
    log.append(event("note", `r${at % 2}`, { at }));
    assert.ok(log.all.entries.length <= 100);
  }
  assert.equal(log.eventCount, 1_000);
  assert.equal(log.all.end, 1_000);
  assert.equal(log.all.at(999).event.payload.at, 999);
  assert.equal(log.all.at(0), undefined);
  const [even, odd] = [log.of("r0"), log.of("r1")];
  assert.equal(even.entries.length + odd.entries.length, log.all.entries.length);
  assert.equal(even.end, 500);
  const narrow = new EventLog(() => true, { entries: 100, characters: 10_000 });
  for (let at = 0; at < 50; at += 1) {
    narrow.append(event("note", "r", { text: "x".repeat(1_000) }));
  }
  assert.ok(narrow.all.entries.length < 10 && narrow.all.entries.length > 7, String(narrow.all.entries.length));
});

test("a run that starts anew under its id has a story of its own", () => {
  const log = new EventLog(() => true);
  log.append(event("agent_started", "r"));
  log.append(event("agent_completed", "r"));
  log.appendGap({ reason: "epoch_changed" }, ["r"]);
  log.append(event("agent_started", "r"));
  assert.equal(log.of("r").entries.length, 1);
  assert.equal(log.all.entries.length, 4);
});

test("pieces are the text, short, and cut between characters", () => {
  const family = "👨‍👩‍👧‍👦";
  for (const unit of ["word ", "a line\n", "x", "é", "e\u0301", family, "\n"]) {
    const text = unit.repeat(Math.ceil(9_000 / unit.length));
    const pieces = [""];
    for (let at = 0; at < text.length; at += 37) {
      append(pieces, text.slice(at, at + 37));
    }
    assert.equal(pieces.join(""), text);
    assert.ok(pieces.length > 3 && pieces.every((piece) => piece.length > 0 && piece.length <= HARD + 37), JSON.stringify(unit));
    for (const piece of pieces.slice(0, -1)) {
      assert.equal(piece.length % unit.length, 0, `${JSON.stringify(unit)} is whole in ${JSON.stringify(piece.slice(-12))}`);
    }
  }
});

/** The rows of a run `r` of these events, each as its kind, words and text. */
function rowsOf(events, rows = new Rows()) {
  for (const each of events) {
    apply(rows, each.gap ? { gap: each.gap } : { event: each, waits: each.waits }, "r");
  }
  return rows;
}

const words = (rows) => rows.list.map(({ block, text }) => {
  const { label, note, status, took } = told(block, Date.parse("2026-11-21T10:00:02Z"));
  return [label, note, status, took, text].filter(Boolean).join(" | ");
});

test("events become the rows of a timeline", () => {
  const rows = rowsOf([
    event("agent_started", "r", { message: "On it", agent_type: "research" }),
    event("thinking_delta", "r", { message_id: "t", text: "Hm, " }),
    event("thinking_delta", "r", { message_id: "t", text: "well." }),
    event("agent_thinking", "r", { reasoning: "So.", step_number: 2, total_steps: 3, progress_percentage: 45 }),
    event("tool_executing", "r", { tool_call_id: "c1", tool_name: "search", description: "Looks" }),
    event("tool_executing", "r", { tool_call_id: "c2", tool_name: "fetch" }),
    event("tool_progress", "r", { tool_call_id: "c2", fraction: 0.5, message: "halfway" }),
    event("tool_completed", "r", { tool_call_id: "c1", status: "failed", error: "404", execution_time_ms: 118 }),
    event("agent_started", "s", { message: "Helps" }, { parent_run_id: "r", agent_name: "helper" }),
    event("text_delta", "r", { message_id: "m", role: "assistant", text: "Three " }),
    { gap: { reason: "trimmed" } },
    event("text_delta", "r", { message_id: "m", role: "assistant", text: "say" }),
    event("message", "r", { message_id: "m", role: "assistant", text: "Three say so." }),
    event("note", "r", { a: 1 }, { custom: true }),
    event("note", "r", { a: 2 }, { custom: true }),
    event("agent_waiting", "r", { reason: "approval", prompt: "May I?" }),
  ]);
  assert.deepEqual(words(rows), [
    "Started | research | On it",
    "Thoughts | Hm, well.",
    "Step 2 of 3 | 45 % | So.",
    "search | Looks | Failed: 404 | 118 ms",
    "fetch | 50 % · halfway | 1.5 s",
    "helper | sub-agent | Helps",
    "Answer | Three say so.",
    "Gap | Events may be missing here. They are no longer kept.",
    "note | 2 times, the last",
    "Waits for a person | approval | 1.5 s | May I?",
  ]);
  rowsOf([event("agent_failed", "r", { code: "E", message: "No", retryable: true }, { recorded_at: "2026-11-21T10:00:01.000Z" })], rows);
  assert.deepEqual(words(rows).slice(-2), ["Waited for a person | approval | 500 ms | May I?", "Failed | E · worth another try | No"]);
  assert.equal(words(rows)[4], "fetch | Not finished when the run ended | 500 ms");
});

test("rows are by the time of recording, whatever clock the producer has", () => {
  const behind = { timestamp: "2026-11-21T09:59:57.310Z" };
  const [started, thought] = rowsOf([event("agent_started", "r", {}, behind), event("agent_thinking", "r", {}, behind)]).list;
  assert.deepEqual([started.block.at, thought.block.at], Array(2).fill(Date.parse("2026-11-21T10:00:00.500Z")));
});

test("the page measures by the service's clock", () => {
  let local = 1_000;
  const clock = new ServerClock(() => local);
  assert.equal(clock.now(), 1_000);
  clock.observe(400, false);
  assert.equal(clock.now(), 1_000, "a replayed event does not tell the time");
  clock.observe(5_000, false);
  assert.equal(clock.now(), 5_000, "no event is in the future");
  clock.observe(6_000, true);
  local = 1_500;
  assert.equal(clock.now(), 6_500);
  clock.observe(6_200, true);
  assert.equal(clock.now(), 6_500, "one that was late on its way does not turn it back");
  const behind = new ServerClock(() => 9_000);
  behind.observe(2_000, true);
  assert.equal(behind.now(), 2_000);
});

test("role and id separate texts, and late pieces change nothing", () => {
  const delta = (role, text, message_id) => event("text_delta", "r", { role, text, message_id });
  const message = (role, text, message_id) => event("message", "r", { role, text, message_id });
  const texts = (...events) => words(rowsOf(events));
  assert.deepEqual(texts(delta("assistant", "Hel"), message("user", "Stop")), ["Answer | Hel", "user | Stop"]);
  assert.deepEqual(texts(delta("user", "a", "m"), delta("assistant", "b", "m"), message("assistant", "B", "m")), ["user | a", "Answer | B"]);
  assert.deepEqual(texts(delta("user", "a", "m"), delta(undefined, "b", "m")), ["user | ab"]);
  assert.deepEqual(texts(message("assistant", "Hello", "m"), delta("assistant", "lo", "m"), delta("", "lo", "m")), ["Answer | Hello"]);
  const thought = (text, message_id) => event("thinking_delta", "r", { text, message_id });
  assert.deepEqual(texts(thought("1", "a"), thought("x", "b"), thought("2", "a")), ["Thoughts | 12", "Thoughts | x"]);
  const replaces = event("agent_thinking", "r", { reasoning: "So.", message_id: "a" });
  assert.deepEqual(texts(thought("1", "a"), thought("x", "b"), replaces, thought("3", "a")), ["Thoughts | x", "Thinking | So."]);
});

test("parallel calls of one id are apart", () => {
  const call = (type, run_sequence, call_sequence, payload = {}) =>
    event(type, "r", { tool_call_id: "d", tool_name: "create", call_sequence, ...payload }, { run_sequence });
  const rows = rowsOf([
    call("tool_executing", 2, 2, { description: "one" }),
    call("tool_executing", 3, 3, { description: "two" }),
    call("tool_executing", 4, 3, { description: "two" }),
    call("tool_progress", 5, 3, { fraction: 0.5 }),
    call("tool_completed", 6, 2, { status: "succeeded", execution_time_ms: 10 }),
  ]);
  assert.deepEqual(words(rows), ["create | one | 10 ms", "create | two | 50 % | 1.5 s"]);
  rowsOf([call("tool_completed", 7, 3, { status: "denied", error: "no" })], rows);
  assert.equal(words(rows)[1], "create | two | Denied: no | 0 ms");
});

test("two waits are open at once, each until it is over", () => {
  const wait = (run_sequence, prompt, waits) => ({ ...event("agent_waiting", "r", { prompt, choices: ["yes", "no"] }, { run_sequence }), waits });
  const rows = rowsOf([wait(2, "A?", [2]), wait(3, "B?", [2, 3]), { ...event("tool_progress", "r", {}), waits: [2, 3] }]);
  const labels = () => rows.list.map(({ block, text }) => `${told(block, 0).label} ${text} ${told(block, 0).choices}`);
  assert.deepEqual(labels(), ["Waits for a person A? yes,no", "Waits for a person B? yes,no"]);
  rowsOf([{ ...event("agent_resumed", "r", {}), waits: [3] }], rows);
  assert.deepEqual(labels(), ["Waited for a person A? yes,no", "Waits for a person B? yes,no"]);
});

const second = (n) => new Date(Date.UTC(2026, 10, 21, 10, 0, n)).toISOString();
const usage = (inputTokens, outputTokens, costNanoUsd) => ({ inputTokens, outputTokens, costNanoUsd, unpricedEvents: 0 });
const runState = (runId, more) => [
  runId,
  { runId, agentName: runId, startedAt: second(0), endedAt: null, lastEventAt: second(0), toolCalls: [], waits: [], childRunIds: [], usage: usage(0, 0, 0), ...more },
];
const toolCall = (toolName, from, to) => ({ toolName, toolCallId: "c", callSequence: null, state: to === null ? "open" : "succeeded", startedAt: second(from), endedAt: to === null ? null : second(to) });

test("a waterfall has parallel calls and sub-agents beside each other in time", () => {
  const runs = new Map([
    runState("lead", {
      endedAt: second(10),
      toolCalls: [toolCall("search", 1, 4), toolCall("fetch", 2, 3), { ...toolCall("early", 0, 1), startedAt: null, executionTimeMs: 60_000 }],
      childRunIds: ["helper", "gone"],
    }),
    runState("helper", { startedAt: second(2), toolCalls: [toolCall("read", 3, null)], waits: [{ sequence: 7, prompt: "?", startedAt: second(4) }], childRunIds: ["lead"] }),
  ]);
  const now = Date.parse(second(10));
  const { lanes, more } = lanesOf(runs, runs.get("lead"));
  const axis = axisOf(lanes, now);
  const drawn = lanes.map((lane) => {
    const { left, width } = placeOf(lane, axis, now);
    return `${lane.level} ${lane.kind} ${lane.call?.toolName ?? lane.run.runId} ${left.toFixed(1)}+${width.toFixed(1)}`;
  });
  assert.deepEqual(drawn, [
    "0 run lead 0.0+1.0",
    "1 tool early 0.0+0.1",
    "1 tool search 0.1+0.3",
    "1 tool fetch 0.2+0.1",
    "1 run helper 0.2+0.8",
    "2 tool read 0.3+0.7",
    "2 wait helper 0.4+0.6",
  ]);
  assert.equal(more, false);
  assert.equal(new Set(lanes.map(({ key }) => key)).size, lanes.length);
  // A clock that is behind draws nothing backwards.
  const early = Date.parse(second(0)) - 5_000;
  lanes.forEach((lane) => assert.ok(placeOf(lane, axisOf(lanes, early), early).width >= 0, lane.key));
});

test("a waterfall is bounded", () => {
  const toolCalls = Array.from({ length: 1_000 }, (_, n) => ({ ...toolCall("t", n % 60, n % 60), callSequence: n }));
  const runs = new Map(["a", "b", "c"].map((id, at, ids) => runState(id, { toolCalls, childRunIds: ids.slice(at + 1, at + 2) })));
  const { lanes, more } = lanesOf(runs, runs.get("a"));
  assert.deepEqual([lanes.length, more], [2_000, true]);
});

test("sums are those of a run and all that are below it", () => {
  const runs = new Map([
    runState("a", { childRunIds: ["b", "c"], usage: usage(1, 10, 100) }),
    runState("b", { childRunIds: ["d"], usage: usage(2, 20, 200) }),
    runState("c", { usage: usage(4, 40, 400) }),
    runState("d", { childRunIds: ["a"], usage: usage(8, 80, 800) }),
  ]);
  const below = descendants(runs, runs.get("a"));
  assert.deepEqual(below.map(({ runId }) => runId), ["b", "c", "d"]);
  assert.deepEqual(together([runs.get("a"), ...below]), usage(15, 150, 1500));
});

test("a tool call that began before what is known is told all the same", () => {
  const rows = new Rows();
  seed(rows, { toolCalls: [{ toolCallId: "c1", callSequence: null, toolName: "search", state: "open", startedAt: "2026-11-21T10:00:00Z" }], waits: [] });
  rowsOf([
    event("tool_completed", "r", { tool_call_id: "c1", tool_name: "search", status: "succeeded" }),
    event("tool_completed", "r", { tool_call_id: "c0", tool_name: "fetch", status: "succeeded", execution_time_ms: 20 }),
  ], rows);
  assert.deepEqual(words(rows), ["search | 500 ms", "fetch | 20 ms"]);
});

test("a tool call whose beginning comes after all is told once, where it began", () => {
  const rows = new Rows();
  seed(rows, { toolCalls: [{ toolCallId: "c1", callSequence: null, toolName: "search", state: "open", startedAt: "2026-11-21T10:00:00Z" }], waits: [] });
  rowsOf([
    event("agent_started", "r", { message: "On it" }),
    event("tool_executing", "r", { tool_call_id: "c1", tool_name: "search" }),
    event("tool_completed", "r", { tool_call_id: "c1", tool_name: "search", status: "succeeded", execution_time_ms: 20 }),
  ], rows);
  assert.deepEqual(words(rows), ["Started | On it", "search | 20 ms"]);
});

test("a timeline is bounded, and its streams go on behind what was let go", () => {
  const rows = new Rows({ rows: 100, characters: 1e9 });
  rowsOf([event("text_delta", "r", { message_id: "m", text: "early " })], rows);
  for (let at = 0; at < 1_000; at += 1) {
    rowsOf([event("agent_thinking", "r", { reasoning: `thought ${at}` })], rows);
    assert.ok(rows.list.length <= 100);
  }
  rowsOf([event("message", "r", { message_id: "m", text: "whole" })], rows);
  assert.equal(rows.shortened, true);
  assert.deepEqual(words(rows).slice(-2), ["Thinking | thought 999", "Answer | whole"]);
  const long = new Rows({ rows: 1e9, characters: 10_000 });
  for (let at = 0; at < 100; at += 1) {
    rowsOf([event("text_delta", "r", { message_id: "m", text: "x".repeat(1_000) })], long);
  }
  const kept = long.list.reduce((sum, { text }) => sum + text.length, 0);
  assert.ok(kept <= 10_000 && kept > 5_000, String(kept));
});

test("only rows that changed are drawn again", () => {
  const rows = rowsOf([event("agent_started", "r"), event("text_delta", "r", { message_id: "m", text: "a" })]);
  rows.takeChanges();
  rowsOf([event("text_delta", "r", { message_id: "m", text: "b" })], rows);
  const { rows: changed, from } = rows.takeChanges();
  assert.deepEqual([...changed], [rows.list[1]]);
  assert.equal(from, 2);
});

test("runs are listed newest first, sub-agents below their parent, gaps where they happened", () => {
  const at = (second) => `2026-11-21T10:00:0${second}.000Z`;
  const run = (runId, second, parentRunId = null) => [runId, { runId, startedAt: second === null ? null : at(second), parentRunId }];
  const runs = new Map([run("old", 1), run("known", null), run("child", 3, "old"), run("orphan", 4, "gone"), run("new", 6)]);
  const gaps = [{ ordinal: 7, at: Date.parse(at(5)), gap: { reason: "trimmed" } }];
  const list = (folded) => flatten(runs, gaps, new Set(folded)).map((item) => `${item.key} ${item.level}:${item.position}/${item.siblings}`);
  assert.deepEqual(list([]), ["all 1:1/6", "run new 1:2/6", "gap 7 1:3/6", "run orphan 1:4/6", "run known 1:5/6", "run old 1:6/6", "run child 2:1/1"]);
  assert.deepEqual(list(["old"]).slice(-1), ["run old 1:6/6"]);
});

test("announcements come rarely, and several as one", () => {
  const said = [];
  const timers = [];
  const announcer = new Announcer((words) => said.push(words), (run, ms) => timers.push([run, ms]));
  const pass = () => timers.shift()[0]();
  for (let at = 0; at < 100; at += 1) {
    announcer.run("started", "researcher");
  }
  announcer.run("failed", "booker");
  announcer.gap();
  assert.equal(timers.length, 1);
  pass();
  assert.deepEqual(said, ["100 runs started. booker failed. 1 gap: events may be missing."]);
  announcer.tell("The connection is lost.");
  announcer.tell("The connection is back.");
  assert.deepEqual(timers.map(([, ms]) => ms), [3_000]);
  pass();
  assert.deepEqual(said.slice(1), ["The connection is back."]);
  pass();
  assert.deepEqual([said.length, timers.length], [2, 0]);
});

test("the connection is told in words", () => {
  const now = 10_000;
  const word = (state, more = {}, caughtUp = true) => {
    const { word, detail } = inWords({ state, reason: null, retryAt: null, ...more }, caughtUp, now);
    return [word, detail].filter(Boolean).join(": ");
  };
  assert.equal(word("open"), "Live");
  assert.equal(word("open", {}, false), "Catching up");
  assert.equal(word("waiting", { retryAt: 12_500, reason: "TOO_SLOW" }), "Connection lost: next try in 3 s · TOO_SLOW");
  assert.equal(word("waiting", { reason: "the iterator lags" }), "Catching up");
  assert.equal(word("stopped", { reason: "REPLACED" }), "Stopped: REPLACED");
});

test("numbers, times and texts are written as people read them", () => {
  assert.deepEqual([0, 999.6, 1_000, 9_950, 59_999, 61_000, 3_723_000].map(format.duration), ["0 ms", "999 ms", "1.0 s", "9.9 s", "59 s", "1 min 01 s", "1 h 02 min"]);
  assert.deepEqual([0, 18, 61_500, 3_661_000, -500].map(format.offset), ["+0.00 s", "+0.02 s", "+1:01", "+1:01:01", "−0.50 s"]);
  assert.deepEqual([0, 1, 7_400_000, 12_300_000, 1_234_567_000_000].map(format.cost), ["$0", "<$0.000001", "$0.007400", "$0.0123", "$1234.57"]);
  assert.deepEqual([999, 9_999, 12_345, 12_345_678].map(format.brief), ["999", "9,999", "12.3k", "12.3M"]);
  assert.equal(format.line(" a\n b\tc ", 10), "a b c");
  assert.equal(format.line("abcdef", 4), "abc…");
  assert.equal(format.line("ab👩👩", 4), "ab…");
  assert.equal(format.counted(1, "gap"), "1 gap");
  assert.equal(format.counted(2, "gap"), "2 gaps");
});

test("JSON shows characters that turn the direction by their numbers, and stays the same JSON", () => {
  const value = { name: "\u202egnp.exe\u202c", text: "<b>" };
  assert.equal(pretty(value), '{\n  "name": "\\u202egnp.exe\\u202c",\n  "text": "<b>"\n}');
  assert.deepEqual(JSON.parse(pretty(value)), value);
});

test("what is shown is in the address", () => {
  for (const route of [{ kind: "none" }, { kind: "all" }, { kind: "run", runId: "a/b c&d=e#f" }]) {
    assert.deepEqual(parseRoute(formatRoute(route)), route);
  }
});
