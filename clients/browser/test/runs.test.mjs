import assert from "node:assert/strict";
import test from "node:test";

import { RunStore } from "../emitter.js";
import { at, event } from "./kit.mjs";

/** The run r1 after these events: `[type, payload, fields]`, in order. */
function after(...events) {
  const store = new RunStore();
  events.forEach(([type, payload = {}, fields = {}], n) => store.apply(event(n + 1, type, payload, fields), 100));
  return store.runs.get("r1");
}

const STARTED = ["agent_started", { message: "On it" }];

const NO_USAGE = {
  inputTokens: 0,
  outputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteInputTokens: 0,
  cacheWrite1hInputTokens: 0,
  reasoningTokens: 0,
  costNanoUsd: 0,
  unpricedEvents: 0,
};

test("a whole run", () => {
  const run = after(
    STARTED,
    ["agent_thinking", { reasoning: "Where?", step_number: 1, total_steps: 3, progress_percentage: 0 }],
    ["tool_executing", { tool_call_id: "c1", tool_name: "search", description: "Looks", parameters: { page: 3 } }],
    ["tool_progress", { tool_call_id: "c1", fraction: 0.5, message: "half" }],
    ["tool_completed", { tool_call_id: "c1", tool_name: "search", status: "succeeded", result: [1], execution_time_ms: 1.5 }],
    ["message", { message_id: "m1", role: "assistant", text: "Found" }, { thread_id: "t1" }],
    ["agent_completed", { message: "Done", result: { hits: 1 } }],
  );
  assert.deepEqual(run, {
    runId: "r1",
    agentName: "researcher",
    threadId: "t1",
    parentRunId: null,
    state: "completed",
    partial: false,
    truncated: false,
    startedAt: at(1),
    endedAt: at(7),
    lastEventAt: at(7),
    message: "Done",
    waiting: null,
    waits: [],
    error: null,
    result: { hits: 1 },
    thinking: { reasoning: "Where?", stepNumber: 1, totalSteps: 3, progressPercentage: 0, messageId: "", text: "" },
    text: "Found",
    messages: [{ messageId: "m1", role: "assistant", text: "Found", final: true }],
    toolCalls: [
      {
        toolCallId: "c1",
        callSequence: null,
        toolName: "search",
        description: "Looks",
        parameters: { page: 3 },
        state: "succeeded",
        startedAt: at(3),
        endedAt: at(5),
        executionTimeMs: 1.5,
        fraction: 0.5,
        progress: "half",
        result: [1],
        error: null,
      },
    ],
    openToolCalls: 0,
    usage: NO_USAGE,
    childRunIds: [],
    events: 7,
    lastSequence: 7,
  });
});

test("deltas make a text, and the whole message replaces them", () => {
  const delta = (message_id, text, fields) => ["text_delta", { message_id, text }, fields];
  const texts = (...events) => {
    const { text, messages } = after(STARTED, ...events);
    return [text, ...messages.map((message) => `${message.messageId}:${message.text}${message.final ? "." : ""}`)];
  };
  assert.deepEqual(texts(delta("m1", "Hel"), delta("m1", "lo")), ["Hello", "m1:Hello"]);
  assert.deepEqual(
    texts(delta("m1", "Helo"), delta("m2", "B"), ["message", { message_id: "m1", text: "Hello" }], delta("m2", "ye")),
    ["Hello\n\nBye", "m1:Hello.", "m2:Bye"],
  );
  assert.deepEqual(texts(delta("", "a"), ["message", { text: "A" }], delta("", "b")), ["A\n\nb", ":A.", ":b"]);
  assert.deepEqual(
    texts(["message", { message_id: "m1", text: "old" }], ["message", { message_id: "m1", text: "new" }]),
    ["new", "m1:new."],
  );
  assert.deepEqual(
    texts(["message", { message_id: "m1", role: "user", text: "Hi" }], ["message", { message_id: "m2", text: "Yes" }]),
    ["Yes", "m1:Hi.", "m2:Yes."],
  );
  assert.deepEqual(texts(delta("m1", "a"), delta("m2", ""), delta("m2", "b")), ["a\n\nb", "m1:a", "m2:b"]);
});

test("role and id separate messages", () => {
  const delta = (role, text, message_id) => ["text_delta", { role, text, message_id }];
  const message = (role, text, message_id) => ["message", { role, text, message_id }];
  const texts = (...events) => after(STARTED, ...events).messages.map(({ role, text, final }) => `${role}:${text}${final ? "." : ""}`);
  assert.deepEqual(texts(delta("assistant", "Hel"), message("user", "Stop")), ["assistant:Hel", "user:Stop."]);
  assert.deepEqual(texts(delta("user", "a", "m1"), delta("assistant", "b", "m1"), message("assistant", "B", "m1")), ["user:a", "assistant:B."]);
  assert.deepEqual(texts(delta("user", "a"), delta("", "b"), delta("assistant", "c"), delta("", "d")), ["user:ab", "assistant:cd"]);
  assert.deepEqual(texts(delta("assistant", "a"), message("user", "b"), delta("assistant", "c")), ["assistant:a", "user:b.", "assistant:c"]);
});

test("late pieces of a whole message are ignored", () => {
  const delta = (text, message_id, role) => ["text_delta", { message_id, text, role }];
  const whole = ["message", { message_id: "m1", text: "Hello" }];
  const { text, messages } = after(STARTED, delta("Hel", "m1"), whole, delta("lo", "m1"), delta("lo", "m1", "assistant"));
  assert.deepEqual([text, messages.length], ["Hello", 1]);
});

test("joined deltas count as what they stand for", () => {
  const run = after(STARTED, ["text_delta", { message_id: "m", text: "abc" }, { joined: 3, offset: 4, run_sequence: 4 }]);
  assert.deepEqual([run.events, run.lastSequence, run.text], [4, 4, "abc"]);
});

test("thoughts stream beside what is thought", () => {
  const delta = (message_id, text) => ["thinking_delta", { message_id, text }];
  const thinking = (...events) => after(STARTED, ...events).thinking;
  assert.equal(thinking(), null);
  assert.equal(thinking(delta("a", "x"), delta("a", "y")).text, "xy");
  const both = thinking(["agent_thinking", { reasoning: "R", step_number: 2 }], delta("a", "x"), delta("b", "z"));
  assert.deepEqual([both.reasoning, both.stepNumber, both.text], ["R", 2, "z"]);
  assert.equal(thinking(delta("a", "x"), ["agent_thinking", { reasoning: "R" }]).text, "");
  const turns = [delta("a", "1"), delta("b", "x"), delta("a", "2"), delta("b", "y"), delta("a", "3")];
  assert.deepEqual([thinking(...turns).messageId, thinking(...turns).text], ["a", "123"]);
  const replaces = ["agent_thinking", { reasoning: "R", message_id: "a" }];
  assert.equal(thinking(...turns, replaces, delta("b", "z")).text, "xyz", "it replaces only its own");
  const late = thinking(...turns, replaces, delta("a", "4"));
  assert.deepEqual([late.reasoning, late.messageId, late.text], ["R", "a", ""]);
});

test("tool calls that were not seen to begin", () => {
  const completed = ["tool_completed", { tool_call_id: "c9", tool_name: "fetch", status: "failed", error: "404" }];
  const [call] = after(completed).toolCalls;
  assert.deepEqual(
    [call.toolCallId, call.toolName, call.state, call.error, call.startedAt, call.endedAt],
    ["c9", "fetch", "failed", "404", null, at(1)],
  );
  const progress = ["tool_progress", { tool_call_id: "c9", fraction: 0.25 }];
  const partial = after(progress);
  assert.deepEqual([partial.partial, partial.openToolCalls, partial.toolCalls[0].fraction], [true, 1, 0.25]);
  assert.equal(after(STARTED, progress).toolCalls.length, 0, "a whole run has no call that it did not begin");
  assert.equal(after(completed, progress).openToolCalls, 0, "a late word opens nothing");
});

test("the same id may name another call once the first is over", () => {
  const executing = ["tool_executing", { tool_call_id: "c1", tool_name: "search" }];
  const run = after(STARTED, executing, ["tool_completed", { tool_call_id: "c1" }], executing);
  assert.deepEqual(run.toolCalls.map(({ state }) => state), ["succeeded", "open"]);
  assert.equal(run.openToolCalls, 1);
});

/** The waits of a run, in short. */
const waitsOf = ({ state, waits }) => [state, ...waits.map(({ waitId, prompt }) => `${waitId}:${prompt}`)];

test("with a server that does not judge waits, a run waits until its next event", () => {
  const waiting = ["agent_waiting", { reason: "approval", prompt: "Go on?" }];
  const waits = after(STARTED, waiting);
  assert.deepEqual([waits.state, waits.waiting.reason, waits.waiting.prompt], ["waiting", "approval", "Go on?"]);
  const goesOn = after(STARTED, waiting, ["tool_progress"]);
  assert.deepEqual([goesOn.state, goesOn.waiting, goesOn.waits], ["running", null, []]);
  assert.deepEqual(waitsOf(after(STARTED, waiting, ["agent_waiting", { prompt: "And now?" }])), ["waiting", ":And now?"]);
});

test("an open wait shows all that its producer stated", () => {
  const payload = { wait_id: "w1", tool_call_id: "c1", kind: "approval", reason: "cost", prompt: "Buy?", choices: ["yes", 1, "no"], max_wait_ms: 1500 };
  const { waiting } = after(STARTED, ["agent_waiting", payload, { state: "waiting" }]);
  assert.deepEqual(waiting, {
    waitId: "w1",
    toolCallId: "c1",
    kind: "approval",
    reason: "cost",
    prompt: "Buy?",
    choices: ["yes", "no"],
    sequence: 2,
    startedAt: at(2),
    expiresAt: at(3.5),
  });
});

test("two waits with ids are open at once, and the server says when the run goes on", () => {
  const wait = (wait_id, more = {}) => ["agent_waiting", { wait_id, prompt: `${wait_id}?`, ...more }, { state: "waiting" }];
  const both = [STARTED, ["tool_executing", { tool_call_id: "c1", tool_name: "search" }], wait("w1"), wait("w2", { tool_call_id: "c1" })];
  assert.deepEqual(waitsOf(after(...both)), ["waiting", "w1:w1?", "w2:w2?"]);
  const beside = [["tool_progress", { tool_call_id: "c1", fraction: 0.5 }], ["agent_thinking"], ["text_delta", { text: "x" }]];
  assert.deepEqual(waitsOf(after(...both, ...beside)), ["waiting", "w1:w1?", "w2:w2?"], "nothing else ends them");
  const resumed = ["agent_resumed", { wait_id: "w1" }];
  assert.deepEqual(waitsOf(after(...both, resumed)), ["waiting", "w2:w2?"]);
  const completed = ["tool_completed", { tool_call_id: "c1" }];
  assert.deepEqual(waitsOf(after(...both, completed)), ["waiting", "w1:w1?"], "the end of its call");
  assert.deepEqual(waitsOf(after(...both, resumed, [...completed, { state: "running" }])), ["running"]);
  assert.deepEqual(waitsOf(after(...both, ["agent_resumed", {}, { state: "running" }])), ["running"]);
  assert.deepEqual(waitsOf(after(...both, ["agent_resumed", { wait_id: "other" }])), ["waiting", "w1:w1?", "w2:w2?"]);
  assert.deepEqual(waitsOf(after(...both, wait("w1", { prompt: "Sure?" }))), ["waiting", "w2:w2?", "w1:Sure?"], "asked again");
  assert.deepEqual(waitsOf(after(...both, ["agent_completed"])), ["completed"]);
  const many = after(STARTED, ...Array.from({ length: 20 }, (_, n) => wait(`w${n}`)));
  assert.deepEqual([many.waits.length, many.waits[0].waitId], [16, "w4"]);
});

test("a wait without an id goes with the agent's next step, beside one with an id", () => {
  const waits = [STARTED, ["agent_waiting", { wait_id: "w1", prompt: "A" }, { state: "waiting" }], ["agent_waiting", { prompt: "B" }]];
  assert.deepEqual(waitsOf(after(...waits)), ["waiting", "w1:A", ":B"]);
  assert.deepEqual(waitsOf(after(...waits, ["tool_progress", { tool_call_id: "c" }])), ["waiting", "w1:A", ":B"]);
  assert.deepEqual(waitsOf(after(...waits, ["agent_thinking"])), ["waiting", "w1:A"]);
  assert.deepEqual(waitsOf(after(...waits, ["tool_completed", { tool_call_id: "c" }])), ["waiting", "w1:A"]);
});

test("the end of its own call ends a wait, and so does its expiry", () => {
  const begin = (n) => ["tool_executing", { tool_call_id: "d", tool_name: "create", call_sequence: n }];
  const end = (n) => ["tool_completed", { tool_call_id: "d", call_sequence: n }];
  const wait = ["agent_waiting", { wait_id: "w1", tool_call_id: "d", prompt: "A" }, { state: "waiting" }];
  assert.deepEqual(waitsOf(after(STARTED, begin(2), begin(3), wait, end(3))), ["waiting", "w1:A"], "another call of the id");
  assert.deepEqual(waitsOf(after(STARTED, begin(2), begin(3), wait, end(2))), ["waiting"]);
  const short = ["agent_waiting", { wait_id: "w1", prompt: "A", max_wait_ms: 2000 }, { state: "waiting" }];
  const long = ["agent_waiting", { wait_id: "w2", prompt: "B" }];
  const progress = ["tool_progress", { tool_call_id: "c" }];
  assert.deepEqual(waitsOf(after(STARTED, short, long)), ["waiting", "w1:A", "w2:B"]);
  assert.deepEqual(waitsOf(after(STARTED, short, long, progress)), ["waiting", "w2:B"]);
  const unnamed = ["agent_waiting", { prompt: "C" }, { state: "waiting" }];
  assert.deepEqual(waitsOf(after(STARTED, begin(2), unnamed, begin(2))), ["waiting", ":C"], "a repeated begin is no new call");
  assert.deepEqual(waitsOf(after(STARTED, begin(2), unnamed, begin(4))), ["waiting"]);
});

test("open waits are drawn from what the server says, until their events come", () => {
  const store = new RunStore();
  const open_waits = [
    { wait_id: "w1", kind: "approval", run_sequence: 4, started_at: at(4), expires_at: at(9) },
    { run_sequence: 5, started_at: at(5), expires_at: at(9) },
  ];
  store.seed([{ run_id: "r1", state: "waiting", open_waits }]);
  const run = store.runs.get("r1");
  assert.deepEqual(run.waits.map(({ waitId, kind, expiresAt }) => [waitId, kind, expiresAt]), [["w1", "approval", at(9)], ["", "", at(9)]]);
  store.apply(event(6, "tool_progress", { tool_call_id: "c1" }));
  assert.deepEqual(waitsOf(run), ["waiting", "w1:", ":"]);
  store.apply(event(7, "agent_resumed", {}, { state: "running" }));
  assert.deepEqual(waitsOf(run), ["running"]);
});

test("calls of one id are apart where the server numbers them", () => {
  const begin = (call_sequence, n, more) => ["tool_executing", { tool_call_id: "d", tool_name: "create", parameters: { n }, call_sequence, ...more }];
  const end = (call_sequence, result, more) => ["tool_completed", { tool_call_id: "d", result, call_sequence, ...more }];
  const shown = (...events) => after(STARTED, ...events).toolCalls.map((call) => [call.callSequence, call.parameters?.n, call.state, call.result]);
  const four = [begin(2, 1), begin(3, 2), begin(4, 3), begin(5, 4)];
  assert.deepEqual(shown(...four, end(4, "c"), end(2, "a"), end(5, "d"), end(3, "b")), [
    [2, 1, "succeeded", "a"],
    [3, 2, "succeeded", "b"],
    [4, 3, "succeeded", "c"],
    [5, 4, "succeeded", "d"],
  ]);
  assert.deepEqual(after(STARTED, ...four, ["tool_progress", { tool_call_id: "d", fraction: 0.5, call_sequence: 3 }]).toolCalls.map(({ fraction }) => fraction), [null, 0.5, null, null]);
  assert.deepEqual(shown(begin(2, 1), begin(2, 1)), [[2, 1, "open", null]], "a repeat opens nothing");
  assert.deepEqual(shown(begin(2, 1), begin(3, 2), end(undefined, "a")), [[2, 1, "succeeded", "a"], [3, 2, "open", null]], "the oldest of the id");
  const tools = [begin(2, 1, { tool_name: "read" }), begin(3, 2)];
  assert.deepEqual(shown(...tools, end(undefined, "b", { tool_name: "create" })), [[2, 1, "open", null], [3, 2, "succeeded", "b"]]);
  assert.deepEqual(shown(begin(2, 1), end(2, null, { status: "cancelled" }), begin(4, 2), end(4, null, { status: "denied" })).map(([, , state]) => state), ["cancelled", "denied"]);
  const summary = { open_tool_calls: [2, 3, 7].map((call_sequence) => ({ tool_call_id: "d", tool_name: "create", started_at: at(2), call_sequence })) };
  const ended = after(STARTED, begin(2, 1), begin(3, 2), ["agent_completed", {}, { summary }]);
  assert.deepEqual(ended.toolCalls.map(({ callSequence, state }) => [callSequence, state]), [[2, "unfinished"], [3, "unfinished"], [7, "unfinished"]]);
});

test("numbered events find calls that a server did not number in its open runs", () => {
  const store = new RunStore();
  store.seed([{ run_id: "r1", state: "running", open_tool_calls: [{ tool_call_id: "d", tool_name: "create", started_at: at(0) }] }]);
  const { toolCalls } = store.apply(event(9, "tool_completed", { tool_call_id: "d", call_sequence: 4 }));
  assert.deepEqual(toolCalls.map(({ toolName, state }) => [toolName, state]), [["create", "succeeded"]]);
  store.seed([{ run_id: "r2", state: "running", open_tool_calls: [{ tool_call_id: "d", call_sequence: 5 }, { tool_call_id: "d", call_sequence: 6 }] }]);
  assert.deepEqual(store.runs.get("r2").toolCalls.map(({ callSequence }) => callSequence), [5, 6]);
});

test("costs are those that the server recorded, where it did", () => {
  const usage = { input_tokens: 1000, output_tokens: 500, cache_write_input_tokens: 30, cache_write_1h_input_tokens: 20 };
  const sums = (...fields) => {
    const { costNanoUsd, unpricedEvents } = after([...STARTED, fields[0]], ...fields.slice(1).map((more) => ["agent_thinking", {}, more])).usage;
    return [costNanoUsd, unpricedEvents];
  };
  assert.deepEqual(sums({ usage, cost: { nano_usd: 2000, basis: "priced" } }), [2000, 0]);
  assert.deepEqual(sums({ usage: { ...usage, cost_nano_usd: 7 }, cost: { nano_usd: 7, basis: "stated" } }, { usage, cost: { nano_usd: 0, basis: "unpriced" } }), [7, 1]);
  assert.deepEqual(sums({ usage }, { usage: { ...usage, cost_nano_usd: 5 } }), [5, 1], "a server that does not price events");
  assert.deepEqual(sums({ usage: { input_tokens: 0 } }, { usage: {} }), [0, 0], "nothing used has no price");
  const { cacheWriteInputTokens, cacheWrite1hInputTokens } = after([...STARTED, { usage }]).usage;
  assert.deepEqual([cacheWriteInputTokens, cacheWrite1hInputTokens], [30, 20]);
});

test("runs end, with what was open and what they consumed", () => {
  const usage = { input_tokens: 10, output_tokens: 5, cost_nano_usd: 7 };
  const executing = ["tool_executing", { tool_call_id: "c1", tool_name: "search" }];
  const failed = after(
    [...STARTED, { usage }],
    [...executing, { usage: { input_tokens: 1 } }],
    ["agent_failed", { code: "STALLED", message: "silent", retryable: true }],
  );
  assert.deepEqual([failed.state, failed.error], ["failed", { code: "STALLED", message: "silent", retryable: true }]);
  assert.deepEqual(failed.toolCalls.map(({ state }) => state), ["unfinished"]);
  assert.equal(failed.openToolCalls, 0);
  assert.deepEqual(failed.usage, { ...NO_USAGE, inputTokens: 11, outputTokens: 5, costNanoUsd: 7, unpricedEvents: 1 });
  const summary = {
    open_tool_calls: [{ tool_call_id: "c8", tool_name: "fetch", started_at: at(0) }],
    usage: { events: 2, input_tokens: 20, output_tokens: 6, cost_nano_usd: 9, unpriced_events: 0 },
  };
  const cancelled = after([...STARTED, { usage }], ["agent_cancelled", { reason: "parent_ended" }, { summary }]);
  assert.deepEqual([cancelled.state, cancelled.message, cancelled.error], ["cancelled", "parent_ended", null]);
  assert.deepEqual(cancelled.toolCalls.map((call) => [call.toolCallId, call.state]), [["c8", "unfinished"]]);
  assert.deepEqual(cancelled.usage.inputTokens, 20);
  assert.equal(cancelled.usage.unpricedEvents, 0);
});

test("after its end nothing changes a run but a new start", () => {
  const end = ["agent_completed", { message: "Done" }];
  const late = after(STARTED, end, ["text_delta", { text: "late" }, { violation: "RUN_ENDED" }]);
  assert.deepEqual([late.state, late.text, late.events], ["completed", "", 3]);
  const refused = after(STARTED, end, ["agent_started", { message: "Again" }, { violation: "RUN_ALREADY_STARTED" }]);
  assert.deepEqual([refused.state, refused.message], ["completed", "Done"]);
  const anew = after(STARTED, end, ["agent_started", { message: "Again" }]);
  assert.deepEqual([anew.state, anew.message, anew.events, anew.endedAt], ["running", "Again", 1, null]);
});

test("sub-agents stand with their parents, whoever is seen first", () => {
  const store = new RunStore();
  const child = (run_id, parent_run_id) => event(1, "agent_started", {}, { run_id, parent_run_id });
  store.apply(child("c1", "p"));
  store.apply(event(2, "agent_thinking", {}, { run_id: "p" }));
  store.apply(child("c2", "p"));
  store.apply(event(4, "agent_thinking", {}, { run_id: "c2", parent_run_id: "p" }));
  assert.deepEqual(store.runs.get("p").childRunIds, ["c1", "c2"]);
  assert.equal(store.runs.get("c1").parentRunId, "p");
});

test("open runs are drawn from what the server says, until their events come", () => {
  const store = new RunStore();
  const open = {
    run_id: "r1",
    agent_name: "researcher",
    state: "waiting",
    started_at: at(0),
    thread_id: "t1",
    open_tool_calls: [{ tool_call_id: "c1", tool_name: "search", started_at: at(1) }],
  };
  store.seed([open, { ...open, run_id: "r2", state: "running", open_tool_calls: [] }, null, {}, "r3"]);
  const run = store.runs.get("r1");
  assert.deepEqual([...store.runs.keys()], ["r1", "r2"]);
  assert.deepEqual([run.partial, run.state, run.startedAt, run.threadId, run.openToolCalls], [true, "waiting", at(0), "t1", 1]);
  store.apply(event(5, "tool_completed", { tool_call_id: "c1", status: "succeeded" }));
  assert.deepEqual([run.state, run.openToolCalls, run.toolCalls[0].toolName], ["running", 0, "search"]);
  store.seed([open]);
  assert.equal(run.openToolCalls, 0, "what is known is not overwritten");
  store.apply(event(6, "agent_started", { message: "from its begin" }));
  assert.equal(store.runs.get("r1"), run, "it is changed in place");
  assert.deepEqual([run.partial, run.events, run.toolCalls], [false, 1, []]);
  assert.deepEqual([...store.runs.keys()], ["r2", "r1"], "in the order of the starts");
  store.seed(undefined);
});

test("events of no run, and of unknown types", () => {
  const store = new RunStore();
  assert.equal(store.apply(event(1, "app.note", { x: 1 }, { custom: true, run_id: undefined })), null);
  assert.equal(store.apply(event(2, "app.note", { x: 1 }, { custom: true })).events, 1);
  assert.equal(store.apply(event(3, "agent_dreaming", { text: "?" })).state, "running");
  assert.equal(store.apply(event(4, "state_delta", { operations: [] })).events, 3);
});

test("nothing malformed breaks it", () => {
  const junk = [null, 0, "x", [], [null], { a: 1 }, true, { text: 5, tool_call_id: {}, status: [] }];
  const types = ["agent_started", "agent_thinking", "thinking_delta", "tool_executing", "tool_progress", "tool_completed"];
  const more = ["agent_waiting", "text_delta", "message", "agent_failed", "agent_cancelled", "agent_completed", "toString"];
  for (const type of [...types, ...more]) {
    for (const payload of junk) {
      const store = new RunStore();
      for (const usage of junk) {
        const fields = { usage, summary: payload, agent_name: payload, parent_run_id: payload, recorded_at: payload };
        const run = store.apply(event(1, type, payload, { ...fields, joined: payload, run_sequence: payload }));
        assert.equal(typeof run.text, "string");
        assert.ok(Number.isSafeInteger(run.usage.inputTokens) && Number.isSafeInteger(run.events), type);
      }
      store.seed([{ run_id: "r2", open_tool_calls: payload, state: payload, started_at: payload }]);
    }
  }
});

test("what is kept of one run is bounded", () => {
  const long = "x".repeat(64 * 1024);
  const run = after(STARTED, ...Array.from({ length: 40 }, () => ["text_delta", { message_id: "m", text: long }]));
  assert.ok(run.text.length <= 768 * 1024 && run.text.length >= 256 * 1024, `${run.text.length}`);
  assert.equal(run.truncated, true);
  const many = after(STARTED, ...Array.from({ length: 300 }, (_, n) => ["message", { message_id: `m${n}`, text: `${n}` }]));
  assert.deepEqual([many.messages.length, many.messages[0].text, many.truncated], [256, "44", true]);
  assert.ok(many.text.startsWith("44\n\n45"), many.text.slice(0, 20));
  const thought = after(STARTED, ...Array.from({ length: 40 }, () => ["thinking_delta", { text: long }]));
  assert.ok(thought.thinking.text.length <= 256 * 1024, `${thought.thinking.text.length}`);
  assert.equal(after(STARTED, ["message", { text: long }]).truncated, false);
  const turns = Array.from({ length: 40 }, (_, n) => ["thinking_delta", { message_id: `t${n % 2}`, text: long }]);
  assert.ok(after(STARTED, ...turns).thinking.text.length <= 256 * 1024);
});

test("a text that is cut begins with a whole character", () => {
  const store = new RunStore();
  const odd = `${"😀".repeat(32 * 1024 - 1)}x`;
  for (let n = 1; n <= 40; n += 1) {
    const { text } = store.apply(event(n, "text_delta", { message_id: "m", text: odd }));
    assert.doesNotMatch(text[0], /[\uDC00-\uDFFF]/, `after ${n} pieces`);
  }
  assert.ok(store.runs.get("r1").truncated);
});

test("of too many tool calls ended ones go first", () => {
  const executing = (n) => ["tool_executing", { tool_call_id: `c${n}`, tool_name: "t" }];
  const events = [STARTED, executing(0)];
  for (let n = 1; n <= 1000; n += 1) {
    events.push(executing(n), ["tool_completed", { tool_call_id: `c${n}` }]);
  }
  const run = after(...events);
  assert.equal(run.toolCalls.length, 1000);
  assert.deepEqual(run.toolCalls.slice(0, 2).map(({ toolCallId }) => toolCallId), ["c0", "c2"]);
  assert.deepEqual([run.openToolCalls, run.truncated], [1, true]);
});

test("what tools were given and gave is bounded, oldest first", () => {
  const store = new RunStore();
  store.apply(event(1, "agent_started"));
  for (let n = 0; n < 20; n += 1) {
    store.apply(event(2 * n, "tool_executing", { tool_call_id: `c${n}`, parameters: { n } }), 1000);
    store.apply(event(2 * n + 1, "tool_completed", { tool_call_id: `c${n}`, result: n }), 64 * 1024);
  }
  const { toolCalls, truncated } = store.runs.get("r1");
  const results = toolCalls.map(({ result }) => result);
  assert.deepEqual(results, [null, null, null, null, null, ...Array.from({ length: 15 }, (_, n) => n + 5)]);
  assert.equal(truncated, true);
});

test("of more than 500 ended runs the oldest go, and are told", () => {
  const removed = [];
  const store = new RunStore((run) => removed.push(run.runId));
  store.apply(event(1, "agent_started", {}, { run_id: "open" }));
  for (let n = 0; n < 502; n += 1) {
    store.apply(event(1, "agent_started", {}, { run_id: `r${n}`, parent_run_id: "open" }));
    store.apply(event(2, "agent_completed", {}, { run_id: `r${n}` }));
  }
  assert.deepEqual(removed, ["r0", "r1"]);
  assert.deepEqual([store.runs.size, store.runs.has("open")], [501, true]);
  assert.deepEqual(store.runs.get("open").childRunIds.slice(0, 2), ["r2", "r3"]);
});

test("runs whose end is never seen are bounded too", () => {
  const removed = [];
  const store = new RunStore((run) => removed.push(run.runId));
  for (let n = 0; n < 2001; n += 1) {
    store.apply(event(1, "text_delta", { text: "x" }, { run_id: `r${n}` }));
  }
  assert.deepEqual([removed, store.runs.size], [["r0"], 2000]);
});

test("a custom event may be called what an object has by itself", () => {
  const store = new RunStore();
  const run = store.apply(event(1, "constructor", {}, { custom: true }));
  assert.deepEqual([run.state, run.endedAt, run.events], ["running", null, 1]);
});

test("a run that ends after 500 others is kept for its end", () => {
  const removed = [];
  const store = new RunStore((run) => removed.push(run.runId));
  store.apply(event(1, "agent_started", {}, { run_id: "long" }));
  for (let n = 0; n < 500; n += 1) {
    store.apply(event(2, "agent_completed", {}, { run_id: `r${n}` }));
  }
  store.apply(event(3, "agent_completed", {}, { run_id: "long" }));
  assert.deepEqual([removed, store.runs.has("long"), store.runs.size], [["r0"], true, 500]);
  store.apply(event(4, "agent_started", {}, { run_id: "r1" }));
  store.apply(event(5, "agent_completed", {}, { run_id: "last" }));
  assert.deepEqual([removed, store.runs.has("r1")], [["r0"], true], "one that was started anew has not ended");
});
