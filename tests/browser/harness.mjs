// What the browser's tests stand on: a server of their own, tokens, emitted events, Chromium, and pages.

import { spawn } from "node:child_process";
import { createHmac, randomBytes, randomInt, randomUUID } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { chromium } from "playwright-core";

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

/** How long anything may take that ought to be soon. */
export const PATIENCE_MS = 60_000;
const STOP_MS = 35_000;

const ANY_PORTS = { grpc: "127.0.0.1:0", http: "127.0.0.1:0", admin: "127.0.0.1:0" };

/** `emitter dev` on ports that it chose, with a secret and a session file of its own. */
export class Server {
  #directory = fs.mkdtempSync(path.join(os.tmpdir(), "emitter-"));
  #secret = randomBytes(32).toString("hex");
  #settings;
  #process;
  #log = "";
  #emitter;

  /**
   * Starts one; `settings` are configuration variables, such as `EMITTER_LIMITS__HEARTBEAT`. One that is to restart
   * needs `lastingPorts`.
   */
  static async start(settings = {}, listen = ANY_PORTS) {
    const server = new Server();
    server.#settings = settings;
    await server.#spawn(listen);
    return server;
  }

  /** Where browsers connect, as an origin. */
  get url() {
    return `http://${this.http}`;
  }

  /** What it logged last. */
  get log() {
    return this.#log.split("\n").slice(-60).join("\n");
  }

  /** A token of `sub` as a host application would make it; `ttl` in seconds may be negative. */
  token(sub, { scope = "subscribe", ttl = 3600, ...claims } = {}) {
    const now = Math.floor(Date.now() / 1000);
    const base = { sub, scope, aud: "emitter", iss: "emitter-dev", iat: now, jti: randomUUID() };
    const parts = [{ alg: "HS256", typ: "JWT" }, { ...base, exp: now + ttl, ...claims }];
    const signed = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    return `${signed}.${createHmac("sha256", this.#secret).update(signed).digest("base64url")}`;
  }

  /** Emits one event, with the field names of the contract, and gives its receipt. */
  async emit(event) {
    return (await this.#call("Emit", { event })).receipt;
  }

  /** Emits events in one call, and gives their receipts. Throws when one is refused. */
  async emitBatch(events) {
    const { results } = await this.#call("EmitBatch", { events });
    return results.map(({ receipt, refusal }) => {
      if (refusal) {
        throw new Error(`refused: ${JSON.stringify(refusal)}`);
      }
      return receipt;
    });
  }

  /** Ends it and starts it anew on the same ports: a new epoch, everything forgotten. */
  async restart() {
    await this.#end();
    await this.#spawn({ grpc: this.grpc, http: this.http, admin: this.admin });
  }

  /** How many WebSockets it has open. */
  async readers() {
    const metrics = await (await fetch(`http://${this.admin}/metrics`)).text();
    return Number(/^emitter_websocket_connections (\d+)$/m.exec(metrics)?.[1] ?? NaN);
  }

  /** Waits until no WebSocket is open any more. */
  async forsaken({ ms = PATIENCE_MS } = {}) {
    await until(async () => (await this.readers()) === 0, "the end of every WebSocket", { ms, seen: () => this.readers() });
  }

  async stop() {
    await this.#end();
    fs.rmSync(this.#directory, { recursive: true });
  }

  async #spawn(listen) {
    const binary = path.resolve(ROOT, process.env.EMITTER_BIN || "target/debug/emitter");
    // Settings of the shell that runs the tests are not for this server.
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("EMITTER_"));
    const env = { ...Object.fromEntries(inherited), EMITTER_DEV_SECRET: this.#secret, ...this.#settings };
    const flags = ["--session-file", path.join(this.#directory, "session")];
    for (const [name, address] of Object.entries(listen)) {
      flags.push(`--${name}-listen`, address);
    }
    const child = spawn(binary, ["dev", "--json", ...flags], { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    child.stderr.setEncoding("utf8").on("data", (text) => {
      this.#log = (this.#log + text).slice(-64 * 1024);
    });
    const line = await this.#firstLine(child);
    const { grpc: grpcAddress, http: httpAddress, admin } = JSON.parse(line);
    Object.assign(this, { grpc: grpcAddress, http: httpAddress, admin });
    this.#emitter = new (contract().EventEmitter)(this.grpc, grpc.credentials.createInsecure());
  }

  #firstLine(child) {
    return new Promise((resolve, reject) => {
      const fail = (why) => {
        clearTimeout(timer);
        reject(new Error(`the server did not say where it listens: ${why}\n${this.log}`));
      };
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        fail("it took too long");
      }, PATIENCE_MS);
      child.once("error", fail);
      child.once("exit", (code) => fail(`it ended with ${code}`));
      readline.createInterface({ input: child.stdout }).once("line", (line) => {
        clearTimeout(timer);
        resolve(line);
      });
    });
  }

  async #end() {
    this.#emitter?.close();
    const child = this.#process;
    if (child.exitCode !== null || child.signalCode !== null) {
      return;
    }
    const ended = once(child, "exit");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    child.kill("SIGTERM");
    await ended;
    clearTimeout(timer);
  }

  #call(method, request) {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${this.token("tests", { scope: "emit" })}`);
    const options = { deadline: Date.now() + PATIENCE_MS };
    return new Promise((resolve, reject) => {
      this.#emitter[method](request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }
}

/** Addresses for a server that restarts: no outgoing connection gets one of these ports while it is away. */
export async function lastingPorts() {
  const free = new Set();
  while (free.size < 3) {
    const port = randomInt(30_240, 32_768);
    if (await isFree(port)) {
      free.add(port);
    }
  }
  const [grpc, http, admin] = [...free].map((port) => `127.0.0.1:${port}`);
  return { grpc, http, admin };
}

async function isFree(port) {
  const probe = net.createServer();
  try {
    probe.listen(port, "127.0.0.1");
    await once(probe, "listening");
    return true;
  } catch {
    return false;
  } finally {
    await new Promise((resolve) => probe.close(resolve));
  }
}

let loaded;

/** The package `emitter.v1`, read from its protos. */
function contract() {
  if (!loaded) {
    const options = { keepCase: true, longs: Number, enums: String, oneofs: true, includeDirs: [path.join(ROOT, "proto")] };
    const definition = protoLoader.loadSync("emitter/v1/event_emitter.proto", options);
    loaded = grpc.loadPackageDefinition(definition).emitter.v1;
  }
  return loaded;
}

/** Debian's Chromium, with a profile of its own that ends with it. */
export function launchChromium() {
  return chromium.launch({
    executablePath: "/usr/bin/chromium",
    timeout: PATIENCE_MS,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

const CONTENT_TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};

/** A small web server. `files` maps a path such as `/` to the page's text, or to the `URL` of a file. */
export async function serve(files) {
  const server = http.createServer((request, response) => {
    const asked = new URL(request.url, "http://localhost").pathname;
    const found = files[asked];
    if (found === undefined) {
      response.writeHead(404).end();
      return;
    }
    const extension = path.extname(found instanceof URL ? found.pathname : asked) || ".html";
    response.writeHead(200, { "content-type": CONTENT_TYPES[extension] ?? "application/octet-stream" });
    response.end(found instanceof URL ? fs.readFileSync(found) : found);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    stop: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

/**
 * Waits until `condition` gives something true, and gives that. `seen` says what there was instead. As long as
 * `progress` gives something else each time there is no hurry.
 */
export async function until(condition, what, { ms = PATIENCE_MS, seen = () => "", progress = () => 0 } = {}) {
  let [since, got] = [performance.now(), progress()];
  for (;;) {
    const found = await condition();
    if (found) {
      return found;
    }
    if (progress() !== got) {
      [since, got] = [performance.now(), progress()];
    } else if (performance.now() - since > ms) {
      throw new Error(`waited ${ms} ms for ${what}; saw: ${JSON.stringify(await seen())}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
