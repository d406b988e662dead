// The page of `emitter dev` in a browser, as tests look at it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

import { watch } from "./contract.mjs";
import { PATIENCE_MS, ROOT, Server, until } from "./harness.mjs";
import { Proxy } from "./proxy.mjs";

const WEB = path.join(ROOT, "src/page/web");
const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript" };

/** Where screenshots go. */
export const OUTPUT = path.join(ROOT, "test-output");

/**
 * Opens the page. What it complains about is collected in `complaints`: errors, and what its policy forbade.
 * @param {import("playwright-core").Browser} browser
 * @param {string} line the line that `emitter dev` printed
 * @param {object} options a context's, and `prepare`, which is given the context first
 */
export async function openPage(browser, line, { prepare = async () => {}, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  if (process.env.EMITTER_PAGE_FILES) {
    await useFiles(context);
  }
  context.setDefaultTimeout(PATIENCE_MS);
  await prepare(context);
  const page = await context.newPage();
  const complaints = [];
  watch(page, complaints);
  page.on("pageerror", (error) => complaints.push(String(error.stack ?? error)));
  page.on("console", (message) => {
    // A connection that was cut, or a service that ends, is what tests do; the browser tells it all the same.
    if (message.type() === "error" && !/net::ERR_|WebSocket connection to|status of 503/.test(message.text())) {
      complaints.push(message.text());
    }
  });
  await page.goto(line);
  return { page, context, complaints };
}

/** The page's files as they are in the checkout, for who works on them and does not want to build for each change. */
async function useFiles(context) {
  // A page that was put together here is not on the loopback network in Chromium's eyes.
  await context.grantPermissions(["local-network-access"]);
  await context.route(/^http:\/\/127\.0\.0\.1:\d+(\/|\/page\/[^/]+|\/emitter\.js)$/, (route) =>
    // A test that is over takes its server away.
    fulfill(route).catch(() => route.abort().catch(() => {})),
  );
}

async function fulfill(route) {
  const { pathname, origin } = new URL(route.request().url());
  const file =
    pathname === "/emitter.js"
      ? path.join(ROOT, "clients/browser/emitter.js")
      : path.join(WEB, pathname === "/" ? "index.html" : path.basename(pathname));
  const index = await route.fetch({ url: `${origin}/` });
  const headers = { ...index.headers(), "content-type": TYPES[path.extname(file)] };
  delete headers["content-length"];
  await route.fulfill({ status: 200, headers, body: fs.readFileSync(file) });
}

/** Waits until something in the page is as asked: `check` runs there, and gives what is not yet as it should be. */
export async function inPage(page, what, check, argument, { ms = PATIENCE_MS } = {}) {
  let seen;
  await until(
    async () => {
      seen = await page.evaluate(check, argument);
      return seen === true;
    },
    what,
    { ms, seen: () => seen },
  );
}

/** Every event that a list shows, from its first row to its last, by the ids in the order of the list. */
export async function listedEvents(page) {
  const scroller = page.locator("#events-scroll");
  const rows = () =>
    scroller.locator("[aria-posinset]").evaluateAll((rows) =>
      rows.map((row) => [
        Number(row.getAttribute("aria-posinset")),
        Number(row.getAttribute("aria-setsize")),
        row.querySelector(".head").dataset.eventId ?? "gap",
      ]),
    );
  const ids = new Map();
  let size = Infinity;
  await until(
    async () => {
      await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
      for (const [position, of, id] of await rows()) {
        ids.set(position, id);
        size = of;
      }
      // Round and round: the list goes to its end by itself when it is drawn first, which may be after this looked.
      await scroller.evaluate((element) => {
        const before = element.scrollTop;
        element.scrollTop += element.clientHeight;
        if (element.scrollTop === before) {
          element.scrollTop = 0;
        }
      });
      return ids.size >= size;
    },
    "every row of the list",
    { seen: () => `${ids.size} of ${size}`, progress: () => ids.size },
  );
  return [...ids].sort(([a], [b]) => a - b).map(([, id]) => id);
}

/** Runs `emitter dev` as a person does, and gives the line to open that it prints. */
export async function printedLine(t) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "emitter-"));
  const binary = path.resolve(ROOT, process.env.EMITTER_BIN || "target/debug/emitter");
  const listen = ["grpc", "http", "admin"].flatMap((name) => [`--${name}-listen`, "127.0.0.1:0"]);
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("EMITTER_"));
  const dev = spawn(binary, ["dev", ...listen, "--session-file", path.join(directory, "session")], {
    env: Object.fromEntries(inherited),
    stdio: ["ignore", "pipe", "ignore"],
  });
  t.after(async () => {
    dev.kill("SIGTERM");
    if (dev.exitCode === null) {
      await once(dev, "exit");
    }
    fs.rmSync(directory, { recursive: true });
  });
  let printed = "";
  dev.stdout.setEncoding("utf8").on("data", (text) => (printed += text));
  return until(() => /^http:\S+#token=\S+$/m.exec(printed)?.[0], "the line to open", { seen: () => printed });
}

/** What an agent may emit, each as an event of `run_id`. */
export const emits = {
  started: (run_id, message = "Looking into it", more = {}) => ({
    user_id: "u1",
    run_id,
    agent_name: "researcher",
    agent_started: { message },
    ...more,
  }),
  thinking: (run_id, reasoning, step_number = 1) => ({
    user_id: "u1",
    run_id,
    agent_thinking: { reasoning, step_number },
  }),
  calls: (run_id, tool_call_id, tool_name = "search") => ({
    user_id: "u1",
    run_id,
    tool_executing: { tool_call_id, tool_name, description: "Looks it up", parameters_json: '{"page":3}' },
  }),
  called: (run_id, tool_call_id, ms = 118) => ({
    user_id: "u1",
    run_id,
    tool_completed: {
      tool_call_id,
      status: "TOOL_STATUS_SUCCEEDED",
      execution_time: { seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1_000_000 },
      result_json: '{"hits":3}',
    },
  }),
  says: (run_id, text, message_id = "m1") => ({ user_id: "u1", run_id, text_delta: { message_id, role: "assistant", text } }),
  completed: (run_id, message = "Done", more = {}) => ({ user_id: "u1", run_id, agent_completed: { message }, ...more }),
};

/** Opens a page that must have nothing to complain about until the test is over. */
export async function open(t, browser, line, options) {
  const opened = await openPage(browser, line, options);
  t.after(async () => {
    await opened.context.close();
    assert.deepEqual(opened.complaints, []);
  });
  return opened.page;
}

/** A server, a proxy in front of it, and the page, which sees the server through that. */
export async function scene(t, browser, { settings, listen, ttl, ...options } = {}) {
  const server = await Server.start(settings, listen);
  t.after(() => server.stop());
  const proxy = await Proxy.start(server.http);
  t.after(() => proxy.stop());
  const page = await open(t, browser, `${proxy.url}/#token=${server.token("u1", { ttl })}`, options);
  await live(page);
  return { server, proxy, page };
}

export const live = (page) => text(page, "#status-word", "Live");

/** Waits until an element has a text. */
export const text = (page, selector, expected, options) =>
  inPage(
    page,
    `${selector} to say ${expected}`,
    ([selector, expected]) => {
      const found = document.querySelector(selector)?.textContent ?? "";
      return found === expected || found;
    },
    [selector, expected],
    options,
  );

/** Waits until an element is in sight, or out of it. */
export const inSight = (page, selector, expected = true) =>
  inPage(
    page,
    `${selector} ${expected ? "in" : "out of"} sight`,
    ([selector, expected]) => document.querySelector(selector).checkVisibility() === expected,
    [selector, expected],
  );

/** Waits until the page has an address. */
export const address = (page, expected) =>
  inPage(page, `the address ${expected}`, (expected) => location.href === expected || location.href, expected);

/** Scrolls until what a list has there is drawn: what is measured late may move the list once more. */
export const scrolled = (page, selector, top, wanted) =>
  inPage(
    page,
    `${wanted} at ${top}`,
    ([selector, top, wanted]) => {
      document.querySelector(selector).scrollTo(0, top);
      return document.querySelector(`${selector} ${wanted}`) !== null;
    },
    [selector, top, wanted],
  );

/** Listens from now on to what an element says, which may be short; gives a function that tells all of it. */
export async function overhear(page, selector) {
  const heard = await page.evaluateHandle((selector) => {
    const [heard, element] = [[], document.querySelector(selector)];
    new MutationObserver(() => heard.push(element.textContent)).observe(element, { childList: true, characterData: true, subtree: true });
    return heard;
  }, selector);
  return () => heard.jsonValue();
}

/** Waits until something was heard. */
export const hears = (heard, expected) =>
  until(async () => (await heard()).some((words) => words.includes(expected)), `the words ${expected}`, { seen: heard });

/** The timeline's rows in sight, as a person reads them. */
export const timeline = (page) =>
  page.locator("#timeline-list > *").evaluateAll((rows) => rows.map((row) => row.innerText.replace(/\s+/g, " ").trim()));

/** Waits until the whole stream's list has as many events, and gives their ids. */
export async function allEvents(page, count, options) {
  await text(page, "#status-events", `${count.toLocaleString("en")} events`, options);
  await page.locator("[role=treeitem]", { hasText: "All events" }).click();
  return listedEvents(page);
}
