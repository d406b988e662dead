// The page of `emitter dev` in a browser, as tests look at it.

import fs from "node:fs";
import path from "node:path";

import { ROOT, until } from "./harness.mjs";

const WEB = path.join(ROOT, "src/page/web");
const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript" };

/** Where screenshots go. */
export const OUTPUT = path.join(ROOT, "test-output");

/**
 * Opens the page. What it complains about is collected in `complaints`: errors, and what its policy forbade.
 * @param {import("playwright-core").Browser} browser
 * @param {string} line the line that `emitter dev` printed
 */
export async function openPage(browser, line, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  if (process.env.EMITTER_PAGE_FILES) {
    await useFiles(context);
  }
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error.stack ?? error)));
  page.on("console", (message) => {
    // A connection that was cut is what tests do; the browser tells it all the same.
    if (message.type() === "error" && !/net::ERR_|WebSocket connection to/.test(message.text())) {
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
  await context.route(/^http:\/\/127\.0\.0\.1:\d+(\/|\/page\/[^/]+|\/emitter\.js)$/, async (route) => {
    const { pathname, origin } = new URL(route.request().url());
    const file =
      pathname === "/emitter.js"
        ? path.join(ROOT, "clients/browser/emitter.js")
        : path.join(WEB, pathname === "/" ? "index.html" : path.basename(pathname));
    const index = await route.fetch({ url: `${origin}/` });
    const headers = { ...index.headers(), "content-type": TYPES[path.extname(file)] };
    delete headers["content-length"];
    await route.fulfill({ status: 200, headers, body: fs.readFileSync(file) });
  });
}

/** Waits until something in the page is as asked: `check` runs there, and gives what is not yet as it should be. */
export async function inPage(page, what, check, argument, { ms = 20_000 } = {}) {
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
  await scroller.evaluate((element) => element.scrollTo(0, 0));
  const ids = [];
  for (let at = 0; ; ) {
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    const rows = await scroller.evaluate((element) =>
      [...element.querySelectorAll("[aria-posinset]")].map((row) => [
        Number(row.getAttribute("aria-posinset")),
        row.querySelector(".head").dataset.eventId ?? "gap",
      ]),
    );
    for (const [position, id] of rows) {
      ids[position - 1] = id;
    }
    const [top, most] = await scroller.evaluate((element) => {
      element.scrollTop += element.clientHeight;
      return [element.scrollTop, element.scrollHeight - element.clientHeight];
    });
    if (at === top && top >= most - 1) {
      return ids;
    }
    at = top;
  }
}
