import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));

test("the package has what is needed and no more", () => {
  const cwd = PACKAGE;
  const [{ files }] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd, encoding: "utf8" }));
  assert.deepEqual(files.map(({ path }) => path).sort(), ["README.md", "emitter.d.ts", "emitter.js", "package.json"]);
});

test("what the package exports is the module, which needs no other", async () => {
  const { exports, dependencies } = JSON.parse(fs.readFileSync(`${PACKAGE}/package.json`, "utf8"));
  assert.equal(dependencies, undefined);
  const module = path.join(PACKAGE, exports["."].default);
  const source = fs.readFileSync(module, "utf8");
  assert.doesNotMatch(source, /^\s*import\b(?!\.meta)/m);
  const { EmitterClient, EmitterError, parsePosition } = await import(module);
  assert.ok(EmitterClient && EmitterError && parsePosition);
});

/** A scratch project that has the package installed from its tarball, without a network. */
function project(t) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "emitter-package-"));
  t.after(() => fs.rmSync(directory, { recursive: true }));
  const npm = (...args) => execFileSync("npm", [...args, "--offline", "--no-audit", "--no-fund", "--ignore-scripts"], { cwd: directory, encoding: "utf8" });
  fs.writeFileSync(`${directory}/package.json`, '{"private": true, "type": "module"}');
  const [{ filename }] = JSON.parse(npm("pack", PACKAGE, "--json"));
  npm("install", `./${filename}`);
  return directory;
}

/** Compiles files of a project in strict mode; gives what the compiler says. */
function compile(directory, files, ...options) {
  const args = ["--strict", "--noEmit", "--target", "ES2023", "--lib", "ES2023,DOM,DOM.Iterable", ...options, ...files];
  const { stdout, status, error } = spawnSync("tsc", args, { cwd: directory, encoding: "utf8" });
  assert.equal(error, undefined, "tsc is on the PATH: tests/tools/install.sh installs it");
  return { status, said: stdout.trim() };
}

test("TypeScript takes the installed package in strict mode", (t) => {
  const directory = project(t);
  fs.writeFileSync(`${directory}/app.ts`, APP);
  fs.writeFileSync(`${directory}/wrong.ts`, WRONG);
  for (const [module, resolution] of [["ESNext", "bundler"], ["NodeNext", "nodenext"]]) {
    const options = ["--module", module, "--moduleResolution", resolution];
    assert.deepEqual(compile(directory, ["app.ts"], ...options), { status: 0, said: "" }, resolution);
    // Types that are not found would be `any`, with which anything compiles.
    const { said } = compile(directory, ["wrong.ts"], ...options);
    assert.deepEqual(said.split("\n").filter((line) => line.startsWith("wrong.ts")).map((line) => /TS\d+/.exec(line)[0]), ["TS2741", "TS2322", "TS2551"], said);
  }
});

const APP = `import { EmitterClient, EmitterError, parsePosition, type RunState, type Wait } from "@emitter/browser";

const client = new EmitterClient({ url: "https://events.example", token: async ({ signal }) => (await fetch("/token", { signal })).text(), start: "open" });
client.addEventListener("run", ({ detail }) => draw(detail.run, detail.removed));
client.addEventListener("connection", ({ detail: { connection } }) => console.log(connection.state, connection.retryAt ?? 0));
function draw(run: RunState, removed: boolean): string[] {
  const question: Wait | null = run.waiting;
  return removed ? [] : [run.agentName, run.text, question?.prompt ?? "", ...run.toolCalls.map((call) => call.toolName + (call.callSequence ?? 0))];
}
try {
  for await (const item of client) {
    if (item.kind === "event") {
      console.log(item.frame.type, item.run?.usage.costNanoUsd, parsePosition(client.position)?.offset);
    }
  }
} catch (error) {
  console.log(error instanceof EmitterError ? error.code : error);
}
`;

const WRONG = `import { EmitterClient } from "@emitter/browser";
const client = new EmitterClient({ url: "https://events.example" });
const position: number = client.position;
client.conect();
`;

test("the types that the package ships are those of the module", (t) => {
  const directory = project(t);
  // Without the file of types beside it, the compiler takes the module's own.
  fs.copyFileSync(`${PACKAGE}/emitter.js`, `${directory}/emitter.js`);
  const types = ["Frame", "Position", "Connection", "Item", "TokenRequest", "ClientOptions", "ToolCall", "Message", "Wait", "Thinking", "Usage", "RunState", "EmitterError"];
  const same = types.map((name) => `export const ${name}: Same<shipped.${name}, own.${name}> = true;`);
  const source = `import type * as shipped from "@emitter/browser";
import type * as own from "./emitter.js";
type Keys<T> = T extends unknown ? keyof T : never;
type Same<A, B> = [A, B, Keys<A>, Keys<B>] extends [B, A, Keys<B>, Keys<A>] ? true : never;
type Shipped = shipped.EmitterClient;
export const members: Same<keyof Shipped, keyof own.EmitterClient> = true;
export const client: (own: own.EmitterClient) => Omit<Shipped, "addEventListener" | "removeEventListener"> = (own) => own;
${same.join("\n")}
`;
  fs.writeFileSync(`${directory}/same.ts`, source);
  const options = ["--module", "ESNext", "--moduleResolution", "bundler", "--allowJs"];
  assert.deepEqual(compile(directory, ["same.ts"], ...options), { status: 0, said: "" });
});

test("the first use is short", () => {
  const [, example] = fs.readFileSync(`${PACKAGE}/README.md`, "utf8").split("```");
  assert.ok(example.trim().split("\n").length - 1 < 15, example);
});
