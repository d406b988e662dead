// The page of `emitter dev` in everybody's hands: by keyboard, read aloud, in both themes, and with 10,000 events.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Server, launchChromium, until } from "./harness.mjs";
import { OUTPUT, allEvents, emits, hears, inPage, inSight, live, open, overhear, scene, scrolled, text } from "./page.mjs";

/** How long 10,000 events and more may take. */
const MANY = { ms: 180_000 };

let chromium;

before(async () => {
  chromium = await launchChromium();
});

after(() => chromium?.close());

/** A run with something of everything, a sub-agent that failed, and one run that waits. */
async function variety(server) {
  await server.emitBatch([
    emits.started("r1", "Looking into it"),
    emits.thinking("r1", "The documents should tell"),
    emits.calls("r1", "c1"),
    { user_id: "u1", run_id: "r2", agent_name: "reader", parent_run_id: "r1", agent_started: { message: "Reads" } },
    { user_id: "u1", run_id: "r2", agent_failed: { code: "NO_SOURCE", message: "Nothing there", retryable: true } },
    { user_id: "u1", run_id: "r1", tool_completed: { tool_call_id: "c1", status: "TOOL_STATUS_FAILED", error: "404" } },
    emits.says("r1", "Three documents say so."),
    { user_id: "u1", run_id: "r1", thinking_delta: { message_id: "t1", text: "Is that all?" } },
    { user_id: "u1", custom: { name: "note", data: { fields: { seen: { boolValue: true } } } } },
    emits.completed("r1", "Done", { usage: { input_tokens: 10, output_tokens: 5, cost_nano_usd: 1_000_000 } }),
    { ...emits.started("r3", "Books a room"), agent_name: "booker" },
    { user_id: "u1", run_id: "r3", agent_waiting: { reason: "approval", prompt: "Book it?" } },
  ]);
}

/** What has the keyboard's focus, in short. */
const focused = (page) =>
  page.evaluate(() => {
    const { activeElement: element } = document;
    return element.id || `${element.getAttribute("role") ?? element.tagName.toLowerCase()} ${element.innerText.split("\n")[0].trim()}`;
  });

async function press(page, keys, expected) {
  for (const key of keys.split(" ")) {
    await page.keyboard.press(key);
  }
  await until(async () => (await focused(page)).startsWith(expected), `the focus on ${expected} after ${keys}`, { seen: () => focused(page) });
}

test("everything is reached by keyboard", async (t) => {
  const { server, page } = await scene(t, chromium);
  await variety(server);
  await text(page, "#status-events", "12 events");

  await press(page, "Tab", "switch");
  await press(page, "Tab", "sample");
  await press(page, "Tab", "treeitem All events");
  await press(page, "ArrowDown", "treeitem booker");
  await press(page, "ArrowDown", "treeitem researcher");
  await press(page, "ArrowRight", "treeitem reader");
  await press(page, "ArrowLeft", "treeitem researcher");
  await press(page, "ArrowLeft", "treeitem researcher");
  await inPage(page, "the sub-agent folded away", () => document.querySelectorAll("[role=treeitem]").length === 3);
  await press(page, "End ArrowRight End", "treeitem reader");
  await press(page, "Home", "treeitem All events");
  await press(page, "ArrowDown ArrowDown Enter", "run-title");
  await text(page, "#run-title", "researcher");

  await press(page, "Tab Tab", "timeline-tab");
  await press(page, "Tab", "listitem");
  await press(page, "ArrowDown ArrowDown", "button search");
  await page.keyboard.press("Enter");
  await inPage(page, "the call's parameters", () => document.querySelector(".step-tool .json")?.textContent.includes('"page": 3'));
  await press(page, "End", "button Completed");
  await press(page, "Shift+Tab Shift+Tab Shift+Tab", "timeline-tab");
  await press(page, "ArrowRight", "waterfall-tab");
  await inPage(page, "the bars", () => document.querySelectorAll("#waterfall-list .lane").length === 3);
  await press(page, "Tab ArrowDown ArrowDown", "button reader");
  await press(page, "Shift+Tab", "waterfall-tab");
  await press(page, "ArrowRight", "events-tab");
  await inPage(page, "the events", () => document.querySelector("#events-list .head") !== null);
  await press(page, "Tab End", "button 10");
  await press(page, "Home ArrowDown", "button 2");
  await press(page, "ArrowUp", "button 1");
  await page.keyboard.press("Enter");
  await inPage(page, "the event's JSON", () => document.querySelector("#events-list .json")?.textContent.includes('"agent_started"'));
  await press(page, "Tab", "button Copy");
  await press(page, "Escape", "treeitem researcher");
});

test("it tells its parts, states and numbers to whoever does not see them", async (t) => {
  const { server, page } = await scene(t, chromium);
  await variety(server);
  await text(page, "#status-events", "12 events");
  await page.locator("[role=treeitem]", { hasText: "researcher" }).click();
  const expected = [
    'heading "emitter" [level=1]',
    'heading "Runs" [level=2]',
    'tree "Runs"',
    'treeitem "All events, 12 events"',
    /treeitem "researcher, Completed, [\d.]+ m?s, 15 tokens, \$0\.001000, \d\d:\d\d:\d\d" \[expanded\] \[level=1\] \[selected\]/,
    /treeitem "reader, Failed, .*" \[level=2\]/,
    /treeitem "booker, Waiting, /,
    'region "researcher"',
    'heading "researcher" [level=2]',
    'tablist "How to show the run"',
    'tab "Timeline" [selected]',
    'tab "Waterfall"',
    'tab "Events 7"',
    'tabpanel "Timeline"',
    'list "Timeline"',
    /button "search Looks it up failed [\d.]+ m?s"/,
    "Failed: 404",
    'button "Open its run"',
    'contentinfo "Connection"',
  ];
  const tree = () => page.locator("body").ariaSnapshot();
  const told = (tree) => expected.every((part) => (typeof part === "string" ? tree.includes(part) : part.test(tree)));
  await until(async () => told(await tree()), `each of ${expected.join("\n")}`, { seen: tree });
  const rows = await page.locator("[role=treeitem]").evaluateAll((items) =>
    items.map((item) => ["level", "posinset", "setsize"].map((name) => item.getAttribute(`aria-${name}`)).join(" ")),
  );
  assert.deepEqual(rows, ["1 1 3", "1 2 3", "1 3 3", "2 1 1"]);
});

test("it says aloud what happens, but not every word", async (t) => {
  const { server, proxy, page } = await scene(t, chromium);
  const said = await overhear(page, "#announcer");
  await server.emit(emits.started("r1"));
  for (let word = 0; word < 40; word += 1) {
    await server.emit(emits.says("r1", `word${word} `));
  }
  await server.emit(emits.completed("r1"));
  await hears(said, "completed");
  proxy.cut();
  await hears(said, "The connection is back");
  const words = await said();
  assert.ok(words.length <= 5, JSON.stringify(words));
  assert.match(words.join(" "), /researcher started\..*researcher completed\./);
  assert.ok(!words.join(" ").includes("word"), JSON.stringify(words));
});

test("texts stand out from what is behind them, in both themes", async (t) => {
  const server = await Server.start();
  t.after(() => server.stop());
  await variety(server);
  for (const colorScheme of ["light", "dark"]) {
    const page = await open(t, chromium, `${server.url}/#token=${server.token("u1")}`, { colorScheme });
    await live(page);
    const names = () => page.locator("[role=treeitem] .name").allInnerTexts();
    await until(async () => (await names()).join() === "All events,booker,researcher,reader", "every run", { seen: names });
    for (const name of ["booker", "reader", "researcher"]) {
      await page.locator("[role=treeitem]", { hasText: name }).click();
      await text(page, "#run-title", name);
      assert.deepEqual(await page.evaluate(tooFaint), [], `${name}, ${colorScheme}`);
    }
    await page.screenshot({ path: `${OUTPUT}/page-variety-${colorScheme}.png` });
    await page.getByRole("tab", { name: /Events/ }).click();
    await page.locator("#events-list .head").first().click();
    await inPage(page, "the event's JSON", () => Boolean(document.querySelector("#events-list .json")?.textContent));
    assert.deepEqual(await page.evaluate(tooFaint), [], `events, ${colorScheme}`);
  }
});

/** Runs in the page: texts in sight with less contrast than WCAG 2 asks for at level AA. */
function tooFaint() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) {
        return color;
      }
    }
    return [255, 255, 255, 255];
  };
  const faint = [];
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { textContent, parentElement } = walker.currentNode;
    if (!textContent.trim() || !parentElement.checkVisibility({ visibilityProperty: true }) || parentElement.closest(".unseen")) {
      continue;
    }
    looked += 1;
    const style = getComputedStyle(parentElement);
    const [light, dark] = [luminance(rgba(style.color)), luminance(behind(parentElement))].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (large ? 3 : 4.5)) {
      faint.push(`${textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
    }
  }
  return looked > 20 ? faint : [`only ${looked} texts`];
}

test("with 10,000 events few rows are in the document, and few events are applied in a frame", async (t) => {
  const prepare = (context) => context.addInitScript(countRows);
  const { server, page } = await scene(t, chromium, { prepare, viewport: { width: 1280, height: 3_000 } });
  const ids = [];
  for (let run = 0; run < 40; run += 1) {
    const [id, parts] = [`r${run}`, []];
    for (let call = 0; call < 124; call += 1) {
      parts.push(emits.calls(id, `c${call}`), emits.called(id, `c${call}`));
    }
    const receipts = await server.emitBatch([emits.started(id), ...parts, emits.completed(id)]);
    ids.push(...receipts.map(({ event_id }) => event_id));
  }
  assert.equal(ids.length, 10_000);
  assert.deepEqual(await allEvents(page, ids.length, MANY), ids);
  assertFew(await seen(page));
  await scrolled(page, "#events-scroll", 1e9, "[aria-posinset='10000']");
  await inPage(page, "rows further up", () => {
    document.querySelector("#events-scroll").scrollBy(0, -500);
    const positions = [...document.querySelectorAll("#events-list > *")].map((row) => Number(row.getAttribute("aria-posinset")));
    return positions.at(-1) < 10_000 || positions;
  });
  const positions = await page.locator("#events-list > *").evaluateAll((rows) => rows.map((row) => Number(row.getAttribute("aria-posinset"))));
  assert.deepEqual(positions, positions.toSorted((a, b) => a - b), "the document has the rows in their order");
  await page.reload();
  await text(page, "#status-events", "10,000 events", MANY);
  await page.locator("[role=treeitem]", { hasText: "researcher" }).nth(3).click();
  await inPage(page, "the run's rows", () => document.querySelectorAll(".step-tool").length > 5);
  assertFew(await seen(page));
});

/** Few rows, and few events in a frame. */
function assertFew({ rows, mostRows, mostPerFrame, events }) {
  assert.equal(events, 10_000);
  assert.ok(rows > 20 && Math.max(rows, mostRows) <= 300, `${rows} rows, at most ${mostRows}`);
  assert.ok(mostPerFrame > 20 && mostPerFrame <= 200, `${mostPerFrame} events in a frame`);
}

test("the page holds 20,000 events, and says what it let go", async (t) => {
  const { server, page } = await scene(t, chromium, { settings: { EMITTER_RETENTION__EVENTS: "40000" } });
  const note = { user_id: "u1", custom: { name: "note", data: { fields: {} } } };
  await page.locator("[role=treeitem]", { hasText: "All events" }).click();
  assert.equal(await page.locator("#events-note").isVisible(), false);
  let last;
  for (let batch = 0; batch < 21; batch += 1) {
    const receipts = await server.emitBatch(Array(1_000).fill(note));
    last = receipts.at(-1).event_id;
  }
  await text(page, "#status-events", "21,000 events", MANY);
  await text(page, "#events-note", "Earlier events are no longer kept in this page: it holds at most the newest 20,000.");
  await inSight(page, "#events-note");
  await inPage(page, "the newest event", (id) => document.querySelector("#events-list > :last-child .head")?.dataset.eventId === id, last);
  const kept = Number(await page.locator("#events-list > *").last().getAttribute("aria-setsize"));
  assert.ok(kept > 18_000 && kept <= 20_000, `${kept} events`);
});

/** Runs in the page: the most rows that were ever in the document when a frame was drawn. */
function countRows() {
  window.mostRows = 0;
  const count = () => {
    window.mostRows = Math.max(window.mostRows, document.querySelectorAll("[data-row]").length);
    requestAnimationFrame(count);
  };
  requestAnimationFrame(count);
}

const seen = (page) => page.evaluate(() => ({ ...emitterPage.stats, mostRows }));
