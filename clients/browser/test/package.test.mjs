import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import test from "node:test";
import { fileURLToPath } from "node:url";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));

test("the package has what is needed and no more", () => {
  const cwd = PACKAGE;
  const [{ files }] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd, encoding: "utf8" }));
  assert.deepEqual(files.map(({ path }) => path).sort(), ["README.md", "emitter.js", "package.json"]);
});

test("what the package exports is the module, which needs no other", async () => {
  const { exports, dependencies } = JSON.parse(fs.readFileSync(`${PACKAGE}/package.json`, "utf8"));
  assert.equal(dependencies, undefined);
  const source = fs.readFileSync(`${PACKAGE}/${exports}`, "utf8");
  assert.doesNotMatch(source, /^\s*import\b(?!\.meta)/m);
  const { EmitterClient, EmitterError, parsePosition } = await import(`${PACKAGE}/${exports}`);
  assert.ok(EmitterClient && EmitterError && parsePosition);
});

test("the first use is short", () => {
  const [, example] = fs.readFileSync(`${PACKAGE}/README.md`, "utf8").split("```");
  assert.ok(example.trim().split("\n").length - 1 < 15, example);
});
