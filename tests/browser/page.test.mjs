// The page of `emitter dev` in Chromium, against the real server: what it shows, and that it loses and doubles nothing.

import assert from "node:assert/strict";
import fs from "node:fs";
import { after, before, describe, test } from "node:test";

import { Server, lastingPorts, launchChromium, until } from "./harness.mjs";
import {
  OUTPUT,
  address,
  allEvents,
  emits,
  hears,
  inPage,
  inSight,
  live,
  open,
  openPage,
  overhear,
  printedLine,
  scene,
  scrolled,
  text,
  timeline,
} from "./page.mjs";

let chromium;

before(async () => {
  fs.mkdirSync(OUTPUT, { recursive: true });
  chromium = await launchChromium();
});

after(() => chromium?.close());

test("the line that dev prints opens a page, and its button plays a run that shows whole", async (t) => {
  const line = await printedLine(t);
  const page = await open(t, chromium, line, { colorScheme: "light", viewport: { width: 1280, height: 1100 } });
  await live(page);
  await page.screenshot({ path: `${OUTPUT}/page-empty-light.png` });

  await page.evaluate(rememberRunning);
  await page.getByRole("button", { name: "Play a sample run" }).click();
  await inPage(page, "a tool call that runs in a run that does", () => seenRunning);
  await page.screenshot({ path: `${OUTPUT}/page-running-light.png` });
  await text(page, "#run-state-word", "Completed");

  const run = await page.evaluate(() => [...emitterPage.client.runs.values()].find(({ parentRunId }) => !parentRunId));
  assert.ok(run.text.length > 100 && run.toolCalls.length >= 2 && run.usage.outputTokens > 0, JSON.stringify(run));
  await scrolled(page, "#timeline-scroll", 0, ".step-start");
  const rows = await timeline(page);
  const shown = rows.join("\n");
  assert.match(rows[0], /\+0\.00 s Started/);
  assert.match(shown, /Step 1 .+/);
  for (const { toolName, executionTimeMs } of run.toolCalls) {
    assert.ok(rows.some((row) => row.includes(` ${toolName} `) && row.endsWith(`${executionTimeMs} ms`)), `${toolName} in ${shown}`);
  }
  assert.match(shown, /reader sub-agent/);
  assert.ok(shown.includes(run.text.replace(/\s+/g, " ")), shown);
  assert.match(rows.at(-1), /Completed/);
  const total = (id) => page.locator(`#total-${id}`).innerText();
  assert.equal(await total("in"), run.usage.inputTokens.toLocaleString("en"));
  assert.equal(await total("out"), run.usage.outputTokens.toLocaleString("en"));
  assert.equal(await total("cost"), `$${(run.usage.costNanoUsd / 1e9).toFixed(6)}`);
  await page.screenshot({ path: `${OUTPUT}/page-light.png` });

  await page.emulateMedia({ colorScheme: "dark" });
  await page.screenshot({ path: `${OUTPUT}/page-dark.png` });
  await page.getByRole("tab", { name: /Events/ }).click();
  await page.locator("#events-list .head").first().click();
  await page.screenshot({ path: `${OUTPUT}/page-events-dark.png` });
});

/** Runs in the page: remembers that a tool call was seen running, in a run that did. Neither lasts. */
function rememberRunning() {
  window.seenRunning = false;
  const look = () => {
    const word = document.querySelector("#run-state-word").textContent;
    window.seenRunning ||= word === "Running" && document.querySelector(".step-tool[data-tone=running]") !== null;
  };
  new MutationObserver(look).observe(document.body, { attributes: true, childList: true, characterData: true, subtree: true });
}

test("on a phone the list and the run take turns", async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  await server.emitBatch([
    emits.started("r1", "Looking into it"),
    emits.thinking("r1", "The documents should tell"),
    emits.calls("r1", "c1"),
    emits.called("r1", "c1"),
    emits.says("r1", "Three documents say so."),
    emits.completed("r1"),
  ]);
  const line = `${server.url}/#token=${server.token("u1")}`;
  const page = await open(t, chromium, line, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true });
  await live(page);
  await inSight(page, "#run", false);
  await page.screenshot({ path: `${OUTPUT}/page-phone-list.png` });
  await page.locator("[role=treeitem]", { hasText: "researcher" }).tap();
  await inSight(page, "#runs", false);
  await inPage(page, "its timeline", () => document.querySelector(".step-end") !== null);
  await page.screenshot({ path: `${OUTPUT}/page-phone-run.png` });
  const [wide, most] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= most, `${wide} of ${most} pixels`);

  await page.getByRole("button", { name: "Back to the runs" }).tap();
  await inSight(page, "#runs");
  await page.goBack();
  await inSight(page, "#run");
});

test("the token leaves the address bar and the history at once, and is good for a reload", async (t) => {
  const { page, proxy } = await scene(t, chromium);
  await address(page, `${proxy.url}/`);
  await page.reload();
  await live(page);
  const token = await page.evaluate(() => sessionStorage.getItem("emitter.token"));
  assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/);
  assert.ok(!(await page.content()).includes(token));
  await page.goBack();
  assert.ok(!page.url().includes("token"), page.url());
});

test("the token leaves the address bar also where the page's scripts fail", async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  const line = `${server.url}/#token=${server.token("u1")}`;
  const prepare = (context) => context.route("**/emitter.js", (route) => route.abort());
  const { page, context } = await openPage(chromium, line, { prepare });
  t.after(() => context.close());
  await until(() => page.url() === `${server.url}/`, "an address without the token", { seen: () => page.url() });
});

test("without a token the page says where there is one, and takes it", async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  const page = await open(t, chromium, server.url);
  assert.equal(await page.locator("#token-line").innerText(), `${server.url}/#token=eyJ…`);
  assert.equal(await page.locator("#token-command").innerText(), `echo "${server.url}/#token=$(emitter token --sub demo --scope subscribe)"`);
  await page.screenshot({ path: `${OUTPUT}/page-token.png` });
  const field = page.getByLabel("Or paste the token, or the whole line");
  await field.fill("no token");
  await field.press("Enter");
  await text(page, "#token-problem", "That is no token: it has three parts with dots between, and begins with eyJ.");
  await field.fill(`  ${server.url}/#token=${server.token("u1")}\n`);
  await page.getByRole("button", { name: "Use it" }).click();
  await live(page);
});

test("a token that the service does not take is asked for anew", async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  const { page } = await openPage(chromium, `${server.url}/#token=${server.token("u1", { iss: "somebody-else" })}`);
  t.after(() => page.context().close());
  await inPage(page, "the form", () => !document.querySelector("#token").hidden);
  assert.match(await page.locator("#token-problem").innerText(), /no longer good/);
  assert.equal(await page.evaluate(() => sessionStorage.getItem("emitter.token")), null);
});

test("a reload in the middle of a run shows the whole run", async (t) => {
  const { server, page } = await scene(t, chromium);
  const receipts = await server.emitBatch([
    emits.started("r1", "Looking into it"),
    emits.thinking("r1", "The documents should tell"),
    emits.calls("r1", "c1"),
    emits.says("r1", "Three documents "),
  ]);
  await text(page, ".step-text .words", "Three documents ");
  await page.reload();
  await text(page, ".step-text .words", "Three documents ");
  await text(page, ".step-tool .label", "search");
  receipts.push(
    ...(await server.emitBatch([
      emits.says("r1", "say so."),
      emits.called("r1", "c1", 250),
      emits.completed("r1", "Three of them", { usage: { provider: "a", model: "m", input_tokens: 1200, output_tokens: 34, cost_nano_usd: 1_450_000 } }),
    ])),
  );
  await text(page, "#run-state-word", "Completed");
  const rows = await timeline(page);
  assert.equal(rows.length, 5, rows.join("\n"));
  assert.match(rows[0], /Started Looking into it$/);
  assert.match(rows[1], /Step 1 The documents should tell$/);
  assert.match(rows[2], /search Looks it up succeeded 250 ms$/);
  assert.match(rows[3], /Answer Three documents say so\.$/);
  assert.match(rows[4], /Completed Three of them$/);
  assert.equal(await page.locator("#total-in").innerText(), "1,200");
  assert.equal(await page.locator("#total-out").innerText(), "34");
  assert.equal(await page.locator("#total-cost").innerText(), "$0.001450");
  assert.deepEqual(await allEvents(page, 7), receipts.map(({ event_id }) => event_id));
});

test("another run's timeline has rows of its own, and begins at its beginning", async (t) => {
  const { server, page } = await scene(t, chromium, { viewport: { width: 1280, height: 600 } });
  await server.emitBatch([
    emits.started("r1"),
    ...Array.from({ length: 40 }, (_, call) => [emits.calls("r1", `c${call}`), emits.called("r1", `c${call}`)]).flat(),
    emits.completed("r1"),
    { ...emits.started("r2"), agent_name: "writer" },
    ...Array.from({ length: 40 }, (_, step) => emits.thinking("r2", "Once more", step + 1)),
    emits.completed("r2"),
  ]);
  await text(page, "#status-events", "124 events");
  const choose = async (name) => {
    await page.locator("[role=treeitem]", { hasText: name }).click();
    await text(page, "#run-title", name);
    await inPage(page, "its first row", () => document.querySelector("#timeline-list > .step-start") !== null);
    return page.locator("#timeline-list > *").evaluateAll((rows) =>
      rows.slice(0, 4).map((row) => `${row.className} ${row.querySelector(".head").tagName} ${row.querySelector(".label").textContent}`),
    );
  };
  const calls = ["step step-start DIV Started", ...Array(3).fill("step step-tool BUTTON search")];
  const steps = ["step step-start DIV Started", ...[1, 2, 3].map((step) => `step step-thinking DIV Step ${step}`)];
  assert.deepEqual(await choose("researcher"), calls);
  await scrolled(page, "#timeline-scroll", 1e9, ".step-end");
  assert.deepEqual(await choose("writer"), steps);
  assert.deepEqual(await choose("researcher"), calls);
  await page.locator(".step-tool button.head").first().click();
  await inPage(page, "the call's parameters", () => document.querySelector(".step-tool .json")?.textContent.includes('"page": 3'));
});

test("a gap stands where it happened", async (t) => {
  const { server, page } = await scene(t, chromium, { listen: await lastingPorts() });
  const said = await overhear(page, "#announcer");
  await server.emitBatch([emits.started("r1"), emits.completed("r1"), emits.started("r0")]);
  await text(page, "#status-events", "3 events");
  await server.restart();
  const behind = await server.emitBatch([emits.started("r2"), emits.completed("r2")]);
  await text(page, "#status-gaps", "1 gap");
  assert.deepEqual(await allEvents(page, 2), ["gap", ...behind.map(({ event_id }) => event_id)], "what the service has no longer is gone");
  const lines = await page.locator("[role=treeitem] .name").allInnerTexts();
  assert.deepEqual(lines, ["All events", "researcher", "Gap: events may be missing"]);
  await hears(said, "1 gap: events may be missing");
});

test("where the service began anew, what was chosen goes with its run", async (t) => {
  const { server, proxy, page } = await scene(t, chromium, { listen: await lastingPorts() });
  const choose = (name) => page.locator("[role=treeitem]", { hasText: name }).click();
  const begunAnew = "The service began anew. What was here before is gone.";
  await server.emitBatch([emits.started("r1"), emits.completed("r1")]);
  await choose("researcher");
  await address(page, `${proxy.url}/#run=r1`);

  await server.restart();
  await text(page, "#status-gaps", "1 gap");
  await live(page);
  await inPage(page, "the first screen", () => document.querySelector("#welcome").checkVisibility());
  await address(page, `${proxy.url}/`);
  assert.equal(await page.locator("#welcome-anew").innerText(), begunAnew);
  assert.equal(await page.locator("#welcome-sample").isVisible(), true);
  assert.deepEqual(await page.locator("[role=treeitem]").evaluateAll((items) => items.map((item) => item.getAttribute("aria-label"))), [
    "All events, 0 events",
    "Gap: events may be missing, The service began anew.",
  ]);

  // A sample that was played is waited for only until it is there.
  await page.locator("#welcome-sample").click();
  await inPage(page, "the sample's run", () => emitterPage.client.runs.size > 0);
  const noticed = await overhear(page, "#notice");
  // It is back once the service has a run: there would be nothing to say of one that has none.
  proxy.refuse();
  await server.restart();
  await server.emit({ ...emits.started("r2"), agent_name: "writer" });
  proxy.refuse(false);
  await text(page, "#status-gaps", "2 gaps");
  await text(page, "#run-title", "writer");
  await hears(noticed, begunAnew);
  await address(page, `${proxy.url}/`);
});

test("that the service cannot be reached is said only while it is so", async (t) => {
  const prepare = (context) => context.addInitScript(keepTrouble);
  const { server, page } = await scene(t, chromium, { listen: await lastingPorts(), prepare });
  const keptWords = () => page.evaluate(() => keptWords);
  await page.route("**/dev/sample", (route) => route.abort());
  await page.locator("#welcome-sample").click();
  await text(page, "#notice", "The service cannot be reached.");
  assert.equal(await keptWords(), 1);
  await page.unroute("**/dev/sample");
  await page.locator("#welcome-sample").click();
  await inPage(page, "the sample's run", () => emitterPage.client.runs.size > 0);
  await text(page, "#notice", "");

  await page.route("**/dev/sample", (route) => route.abort());
  await page.locator("#sample").click();
  await text(page, "#notice", "The service cannot be reached.");
  assert.equal(await keptWords(), 2);
  await server.restart();
  await text(page, "#status-gaps", "1 gap");
  await text(page, "#notice", "");
});

/** Runs in the page: what it says of trouble would go by itself after 10 s, and no longer does. */
function keepTrouble() {
  window.keptWords = 0;
  const { setTimeout } = window;
  window.setTimeout = (run, ms, ...rest) => {
    if (ms === 10_000) {
      window.keptWords += 1;
      return 0;
    }
    return setTimeout(run, ms, ...rest);
  };
}

test("what is not known of a run's usage is not told as nothing", async (t) => {
  const { server, page } = await scene(t, chromium);
  const shown = () =>
    page.evaluate(() => [...["#total-in", "#total-out", "#total-cost", "#total-cost-note"], ...["tokens", "cost"].map((part) => `.run-run .${part}`)]
      .map((selector) => document.querySelector(selector)?.textContent)
      .join("|"));
  const shows = (expected) => until(async () => (await shown()) === expected, expected, { seen: shown });
  const uses = (usage) => server.emit({ ...emits.thinking("r1", "Hm"), usage: { provider: "a", model: "m", input_tokens: 10, output_tokens: 5, ...usage } });
  await server.emit(emits.started("r1"));
  await shows("–|–|–||– tokens|–");
  await uses({});
  await shows("10|5|–|without a price|15 tokens|–");
  await uses({ cost_nano_usd: 1_200_000 });
  await shows("20|10|$0.001200 +?|some without a price|30 tokens|$0.001200 +?");
  assert.equal(await page.locator(".run-run .cost").getAttribute("title"), "some without a price");
});

test("a tool call that runs has a bar of what is done, and one with details is opened", async (t) => {
  const { server, page } = await scene(t, chromium);
  await server.emitBatch([
    emits.started("r1"),
    emits.calls("r1", "c1"),
    { user_id: "u1", run_id: "r1", tool_progress: { tool_call_id: "c1", fraction: 0.25 } },
    { user_id: "u1", run_id: "r1", tool_executing: { tool_call_id: "c2", tool_name: "plain" } },
  ]);
  const tools = () =>
    page.locator(".step-tool").evaluateAll((rows) =>
      rows.map((row) => {
        const [bar, head, fold] = [".bar", ".head", ".head > .icon"].map((part) => row.querySelector(part));
        const part = Math.round((100 * parseFloat(getComputedStyle(bar, "::before").width)) / bar.offsetWidth) || 0;
        return [bar.checkVisibility() && part, fold.checkVisibility(), head.getAttribute("aria-expanded")].join(" ");
      }),
    );
  const shows = (...expected) => until(async () => (await tools()).join() === expected.join(), expected.join(), { seen: tools });
  await shows("25 true false", "false false ");
  await page.locator(".step-tool .head").first().click();
  await shows("25 true true", "false false ");
  await server.emit(emits.called("r1", "c1"));
  await shows("false true true", "false false ");
});

test("the way to the latest event is shown only where that is out of sight, and covers no row's end", async (t) => {
  const { server, page } = await scene(t, chromium, { viewport: { width: 1280, height: 600 } });
  await server.emitBatch([emits.started("r1"), ...Array.from({ length: 60 }, (_, step) => emits.thinking("r1", "Hm", step + 1))]);
  await text(page, "#status-events", "61 events");
  await page.getByRole("tab", { name: /Events/ }).click();
  const last = page.locator("#events-list > [aria-posinset='61'] .head");
  await last.click();
  await inPage(page, "the event's JSON", () => document.querySelector("#events-list .head[aria-expanded=true] + .panel .json")?.textContent.includes("agent_thinking") ?? false);
  assert.equal(await page.locator("#events-latest").isVisible(), false);
  await inPage(page, "a button", () => {
    document.querySelector("#events-scroll").scrollTo(0, 300);
    return !document.querySelector("#events-latest").hidden;
  });
  await page.locator("#events-latest").click();
  await inPage(page, "no button", () => document.querySelector("#events-latest").hidden);
  const free = await page.evaluate(() => {
    const [panel, row] = ["#events-panel", "#events-list > :last-child"].map((part) => document.querySelector(part).getBoundingClientRect());
    return panel.bottom - row.bottom;
  });
  assert.ok(free >= 50, `${free} pixels below the last row`);
});

test("hostile strings are shown as the text that they are", async (t) => {
  const { server, page } = await scene(t, chromium);
  const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
  const turned = "\u202egnp.exe\u202c \u05e9\u05dc\u05d5\u05dd";
  const long = "x".repeat(60 * 1024);
  const family = "👨‍👩‍👧‍👦";
  await server.emitBatch([
    { ...emits.started("r1", markup), agent_name: markup },
    emits.thinking("r1", turned),
    { user_id: "u1", run_id: "r1", tool_executing: { tool_call_id: "c1", tool_name: markup, description: turned } },
    { user_id: "u1", run_id: "r1", tool_completed: { tool_call_id: "c1", status: "TOOL_STATUS_FAILED", error: markup, result_json: JSON.stringify({ [markup]: markup }) } },
    emits.says("r1", long, "long"),
    emits.says("r1", family.repeat(500), "family"),
    { user_id: "u1", custom: { name: "note", data: { fields: { html: { stringValue: markup } } } } },
    emits.completed("r1", markup),
  ]);
  await text(page, "#run-title", markup.slice(0, 127) + (markup.length > 128 ? "…" : ""));
  await text(page, "#status-events", "8 events");
  await scrolled(page, "#timeline-scroll", 0, ".step-start");
  await text(page, ".step-thinking .words", turned);
  await text(page, ".step-tool .status-line", `Failed: ${markup}`);
  await page.locator(".step-tool button.head").click();
  await inPage(page, "the call's result", (markup) => document.querySelector(".step-tool .json")?.textContent.includes(JSON.stringify(markup)), markup);
  await scrolled(page, "#timeline-scroll", 1e9, ".step-end");
  await text(page, ".step-end .words", markup);
  for (const piece of await page.locator(".step-text .words").allTextContents()) {
    assert.match(piece, /^(x+|(👨‍👩‍👧‍👦)+)$/u, "no character is cut in two");
  }
  await page.getByRole("tab", { name: /Events/ }).click();
  await page.locator("#events-list .head").first().waitFor();
  await scrolled(page, "#events-scroll", 0, "[aria-posinset='1']");
  await page.locator("#events-list .head").first().click();
  await inPage(page, "its JSON", (markup) => document.querySelector("#events-list .json")?.textContent.includes(JSON.stringify(markup)), markup);
  assert.deepEqual(
    await page.evaluate(() => [document.title, document.querySelectorAll("img, script:not([src])").length]),
    ["emitter", 0],
  );
  const [wide, most] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= most, `${wide} of ${most} pixels`);
  await page.screenshot({ path: `${OUTPUT}/page-hostile.png` });
});

describe("what takes half a minute", { concurrency: true }, () => {
  test("a stall of 30 s and ten cuts in a row lose nothing and double nothing", async (t) => {
    const { server, proxy, page } = await scene(t, chromium, { viewport: { width: 1280, height: 1600 } });
    const receipts = await server.emitBatch([emits.started("r1"), emits.calls("r1", "c1")]);
    let said = "";
    const say = async () => {
      const word = `word${receipts.length} `;
      said += word;
      receipts.push(await server.emit(emits.says("r1", word)));
    };
    let stalled = true;
    const stall = proxy.stallFor(30_000).then(() => (stalled = false));
    while (stalled) {
      await say();
      // Events come during the stall, not all before it.
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    await stall;
    await text(page, "#status-events", `${receipts.length} events`);
    for (let cut = 0; cut < 10; cut += 1) {
      proxy.cut();
      await say();
      // Its waits grow with each cut; word of the network ends them.
      await inPage(
        page,
        "what was emitted after the cut",
        (expected) => {
          window.dispatchEvent(new Event("online"));
          const { textContent } = document.querySelector("#status-events");
          return textContent === expected || textContent;
        },
        `${receipts.length} events`,
      );
    }
    receipts.push(await server.emit(emits.completed("r1")));
    await text(page, "#run-state-word", "Completed");
    await inPage(
      page,
      "the whole answer",
      (said) => {
        const words = [...document.querySelectorAll("#timeline-list .step-text .words")].map((piece) => piece.textContent).join("");
        return words === said || words;
      },
      said,
    );
    assert.deepEqual(await allEvents(page, receipts.length), receipts.map(({ event_id }) => event_id));
    await text(page, "#status-gaps", "0 gaps");
  });

  test("a tab whose token expired while it slept comes back by itself", async (t) => {
    const settings = { EMITTER_LIMITS__EXPIRING_NOTICE: "1s", EMITTER_AUTH__LEEWAY: "0s" };
    const { server, proxy, page } = await scene(t, chromium, { ttl: 25, settings });
    const receipts = [await server.emit(emits.started("r1"))];
    await text(page, "#status-events", "1 event");
    const old = await page.evaluate(() => sessionStorage.getItem("emitter.token"));
    // What sleeps neither hears nor says anything, and its connection is dead when it wakes up.
    proxy.stall();
    await server.forsaken({ ms: 90_000 });
    receipts.push(await server.emit(emits.completed("r1")));
    proxy.cut();
    proxy.resume();
    await text(page, "#run-state-word", "Completed");
    await live(page);
    assert.notEqual(await page.evaluate(() => sessionStorage.getItem("emitter.token")), old);
    assert.deepEqual(await allEvents(page, 2), receipts.map(({ event_id }) => event_id));
  });
});

test("a page that is opened with an expired token gets a new one", async (t) => {
  const { page } = await scene(t, chromium, { ttl: -3600 });
  await text(page, "#user", "u1");
});
