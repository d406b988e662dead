// Opens pages in Chromium, for tests in another language: reads one JSON line for each thing to do, and answers each
// with one. `open` opens an address in a tab of its own, `until` waits for an expression of that tab's page to become
// true, `tell` gives its value.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const PATIENCE_MS = 60_000;
const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
args.push("--disable-background-networking", "--disable-component-update", "--disable-sync");

const profile = await mkdtemp(join(tmpdir(), "chromium-"));
const browser = await chromium.launchPersistentContext(profile, { executablePath: "/usr/bin/chromium", args, timeout: PATIENCE_MS });
const tabs = new Map();
const complaints = [];

async function open({ tab, url }) {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", (error) => complaints.push(String(error)));
  tabs.set(tab, page);
  await page.goto(url);
}

const tasks = {
  open,
  until: ({ tab, script }) => tabs.get(tab).waitForFunction(script).then(() => true),
  tell: ({ tab, script }) => tabs.get(tab).evaluate(script),
};

try {
  for await (const line of createInterface({ input: process.stdin })) {
    const { task, ...about } = JSON.parse(line);
    const answer = await tasks[task](about).then(
      (value) => ({ value: value ?? null }),
      (error) => ({ error: String(error) }),
    );
    console.log(JSON.stringify({ ...answer, complaints }));
  }
} finally {
  await browser.close();
  await rm(profile, { recursive: true, force: true });
}
