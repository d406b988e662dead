// What the page of `emitter dev` draws of runs: calls, sub-agents and questions at once, by one clock, of any user.

import assert from "node:assert/strict";
import fs from "node:fs";
import { after, before, test } from "node:test";

import { launchChromium, until } from "./harness.mjs";
import { OUTPUT, emits, inPage, inSight, scene, scrolled, text } from "./page.mjs";

let chromium;

before(async () => {
  fs.mkdirSync(OUTPUT, { recursive: true });
  chromium = await launchChromium();
});

after(() => chromium?.close());

test("another user's stream is shown by the switch", async (t) => {
  const { server, page } = await scene(t, chromium);
  await server.emitBatch([emits.started("r1"), { ...emits.started("r2"), user_id: "alice", agent_name: "booker" }]);
  await text(page, "#run-title", "researcher");
  await page.getByRole("button", { name: "Switch user" }).click();
  const field = page.getByLabel("User to show");
  await field.press("Enter");
  await text(page, "#switch-problem", "Enter a user's id, such as demo.");
  await page.screenshot({ path: `${OUTPUT}/page-switch.png` });
  await field.fill("alice");
  await Promise.all([page.waitForEvent("load"), page.getByRole("button", { name: "Show", exact: true }).click()]);
  await text(page, "#user", "alice");
  await text(page, "#run-title", "booker");
  await page.reload();
  await text(page, "#user", "alice");
});

test("rows are timed by the service, whatever clock the producer has", async (t) => {
  const { server, page } = await scene(t, chromium);
  const wrong = (seconds) => ({ occurred_at: { seconds: Math.floor(Date.now() / 1000) + seconds, nanos: 0 } });
  await server.emitBatch([
    { ...emits.started("r1"), ...wrong(0) },
    { ...emits.thinking("r1", "Hm"), ...wrong(-40) },
    { ...emits.calls("r1", "c1"), ...wrong(-30) },
    { ...emits.called("r1", "c1"), ...wrong(50) },
    { ...emits.completed("r1"), ...wrong(-90) },
  ]);
  await text(page, "#run-state-word", "Completed");
  await scrolled(page, "#timeline-scroll", 0, ".step-start");
  const times = () => page.locator("#timeline-list .when").allInnerTexts();
  const right = (shown) => shown.length === 4 && shown.every((time) => /^\+[0-4]\.\d\d s$/.test(time));
  await until(async () => right(await times()), "times from the start on", { seen: times });
});

test("a waterfall shows parallel calls and sub-agents side by side, with their sums", async (t) => {
  const { server, page } = await scene(t, chromium, { colorScheme: "light" });
  const used = (input_tokens, output_tokens, cost_nano_usd) => ({ usage: { provider: "a", model: "m", input_tokens, output_tokens, cost_nano_usd } });
  await server.emitBatch([emits.started("r1", "On it", used(1000, 100, 2_000_000)), emits.calls("r1", "c1"), emits.calls("r1", "c2", "fetch")]);
  const helper = { user_id: "u1", run_id: "r2", agent_name: "reader", parent_run_id: "r1" };
  await server.emitBatch([
    { ...helper, agent_started: { message: "Reads" }, ...used(500, 50, 1_000_000) },
    { ...helper, tool_executing: { tool_call_id: "c3", tool_name: "read" } },
  ]);
  await page.locator("[role=treeitem]", { hasText: "researcher" }).click();
  await page.getByRole("tab", { name: "Waterfall" }).click();
  const bars = () =>
    page.locator("#waterfall-list .lane").evaluateAll((lanes) =>
      lanes.map((lane) => {
        const [bar, track] = [".extent", ".track"].map((part) => lane.querySelector(part).getBoundingClientRect());
        return { name: lane.querySelector(".name").innerText, tone: lane.dataset.tone, from: bar.left - track.left, to: bar.right - track.left, of: track.width };
      }),
    );
  const names = async () => (await bars()).map(({ name, tone }) => `${name} ${tone}`).join();
  const shows = (expected) => until(async () => (await names()) === expected, expected, { seen: names });
  await shows("researcher running,search running,fetch running,reader running,read running");
  await inPage(page, "bars that reach to now", () => [...document.querySelectorAll(".lane")].every((lane) => {
    const [bar, track] = [".extent", ".track"].map((part) => lane.querySelector(part).getBoundingClientRect());
    return Math.abs(bar.right - track.right) < 2 && bar.width > track.width / 3;
  }));
  await server.emitBatch([
    emits.called("r1", "c2"),
    { ...helper, tool_completed: { tool_call_id: "c3", status: "TOOL_STATUS_FAILED", error: "404" } },
    { ...helper, agent_completed: { message: "Read" } },
    emits.called("r1", "c1"),
    emits.completed("r1"),
  ]);
  await shows("researcher completed,search tool,fetch tool,reader completed,read failed");
  const [lead, search, fetch, reader, read] = await bars();
  assert.ok(search.from < fetch.to && fetch.from < search.to && reader.from < search.to && read.from >= reader.from - 1, JSON.stringify([lead, search, fetch, reader, read]));
  assert.deepEqual(await page.locator("#waterfall-totals > *").allInnerTexts(), [
    "This run 1,100 tokens · $0.002000",
    "Sub-agents (1) 550 tokens · $0.001000",
    "Together 1,650 tokens · $0.003000",
  ]);
  assert.equal(await page.locator("#total-in-note").innerText(), "1,500 with sub-agents");
  assert.equal(await page.locator("#total-cost-note").innerText(), "$0.003000 with sub-agents");
  await page.screenshot({ path: `${OUTPUT}/page-waterfall-light.png` });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.screenshot({ path: `${OUTPUT}/page-waterfall-dark.png` });
  await page.locator(".lane-run", { hasText: "reader" }).locator(".head").click();
  await text(page, "#run-title", "reader");
});

test("parallel calls with one id are told apart", async (t) => {
  const { server, page } = await scene(t, chromium);
  const call = (n) => ({ user_id: "u1", run_id: "r1", tool_executing: { tool_call_id: "create", tool_name: "create", description: `document ${n}`, parameters_json: JSON.stringify({ n }) } });
  const receipts = await server.emitBatch([emits.started("r1"), call(1), call(2), call(3), call(4)]);
  const ends = [4, 1, 3].map((n) => ({
    user_id: "u1",
    run_id: "r1",
    tool_completed: { tool_call_id: "create", call_sequence: receipts[n].run_sequence, status: "TOOL_STATUS_SUCCEEDED", result_json: JSON.stringify({ made: n }) },
  }));
  await server.emitBatch(ends);
  const rows = () => page.locator(".step-tool").evaluateAll((rows) => rows.map((row) => `${row.querySelector(".note").textContent} ${row.dataset.tone}`));
  const expected = "document 1 ,document 2 running,document 3 ,document 4 ";
  await until(async () => (await rows()).join() === expected, expected, { seen: rows });
  assert.equal(await page.locator("#total-tools-note").innerText(), "1 running");
  await page.locator(".step-tool .head").nth(2).click();
  await inPage(page, "its own result", () => document.querySelectorAll(".step-tool")[2].querySelector(".panel").textContent.includes('"made": 3'));
  await server.emit(emits.completed("r1"));
  await until(async () => (await rows())[1] === "document 2 ", "the end of the run", { seen: rows });
});

test("a question stands above the run until it is answered", async (t) => {
  const { server, page } = await scene(t, chromium, { colorScheme: "light" });
  await server.emitBatch([emits.started("r1"), { user_id: "u1", run_id: "r1", agent_waiting: { reason: "approval", prompt: "Book the room?" } }]);
  await text(page, "#run-waits strong", "Book the room?");
  await inSight(page, "#run-waits");
  await page.screenshot({ path: `${OUTPUT}/page-waiting.png` });
  await server.emit(emits.thinking("r1", "Yes"));
  await inSight(page, "#run-waits", false);
  await text(page, ".step-waiting .label", "Waited for a person");
});

test("two questions stand with their choices until each is answered", async (t) => {
  const { server, page } = await scene(t, chromium, { colorScheme: "light" });
  const asks = (wait_id, prompt, choices, more = {}) => ({ user_id: "u1", run_id: "r1", agent_waiting: { wait_id, kind: "approval", prompt, choices, ...more } });
  const resumed = (wait_id) => ({ user_id: "u1", run_id: "r1", agent_resumed: { wait_id } });
  await server.emitBatch([
    emits.started("r1"),
    emits.calls("r1", "c1"),
    asks("w1", "Book the room?", ["yes", "no"]),
    asks("w2", "Which date?", ["Monday", "Tuesday"], { tool_call_id: "c1" }),
    { user_id: "u1", run_id: "r1", tool_progress: { tool_call_id: "c1", fraction: 0.5 } },
    emits.thinking("r1", "Meanwhile"),
  ]);
  const questions = () => page.locator("#run-waits > li").evaluateAll((items) =>
    items.map((item) => [item.querySelector("strong").textContent, ...[...item.querySelectorAll(".choices li")].map(({ textContent }) => textContent)].join(" | ")),
  );
  const shows = (...expected) => until(async () => (await questions()).join() === expected.join(), expected.join(), { seen: questions });
  await text(page, "#status-events", "6 events");
  await shows("Book the room? | yes | no", "Which date? | Monday | Tuesday");
  await text(page, "#run-state-word", "Waiting");
  await page.screenshot({ path: `${OUTPUT}/page-questions.png` });
  await server.emit(resumed("w1"));
  await shows("Which date? | Monday | Tuesday");
  await server.emit(emits.called("r1", "c1"));
  await shows();
  await text(page, "#run-state-word", "Running");
  const labels = () => page.locator(".step-waiting .label").allInnerTexts();
  await until(async () => (await labels()).join() === "Waited for a person,Waited for a person", "both waits over", { seen: labels });
});
