import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import test from "node:test";

import { EmitterClient, SseParser } from "../emitter.js";
import { EPOCH, closing, established, event, start } from "./kit.mjs";

const all = (parser, pieces) => pieces.flatMap((piece) => parser.push(piece));

test("an event stream is read as the HTML standard has it", () => {
  const cases = [
    ["data: a\n\n", [{ id: "", data: "a" }]],
    ["data:a\r\n\r\n", [{ id: "", data: "a" }]],
    ["data: a\r\r", [{ id: "", data: "a" }]],
    ["data: a\ndata: b\ndata\n\n", [{ id: "", data: "a\nb\n" }]],
    [": a comment\n\ndata: a\n:\n\n", [{ id: "", data: "a" }]],
    ["id: 7\ndata: a\n\ndata: b\n\n", [{ id: "7", data: "a" }, { id: "7", data: "b" }]],
    ["id: 7\n\nid\ndata: a\n\n", [{ id: "", data: "a" }]],
    ["id: a\0b\ndata: a\n\n", [{ id: "", data: "a" }]],
    ["event: x\nunknown: y\ndata: a\n\n", [{ id: "", data: "a" }]],
    ["data:  two spaces\n\n", [{ id: "", data: " two spaces" }]],
    ["data: a:b\n\n", [{ id: "", data: "a:b" }]],
    ["data: unfinished\n", []],
    ["\n\n\r\n", []],
  ];
  for (const [stream, want] of cases) {
    assert.deepEqual(new SseParser().push(stream), want, JSON.stringify(stream));
    assert.deepEqual(all(new SseParser(), [...stream]), want, `${JSON.stringify(stream)}, in single characters`);
  }
});

test("every place may be the end of a piece", () => {
  const stream = "id: 1\r\ndata: a\r\ndata: b\r\n\r\n: x\rdata: c\n\r\nretry: 250\r\n\r\n";
  const want = [{ id: "1", data: "a\nb" }, { id: "1", data: "c" }];
  for (let one = 0; one <= stream.length; one += 1) {
    for (let two = one; two <= stream.length; two += 1) {
      const parser = new SseParser();
      const pieces = [stream.slice(0, one), stream.slice(one, two), stream.slice(two)];
      assert.deepEqual(all(parser, pieces), want, JSON.stringify(pieces));
      assert.equal(parser.retry, 250);
    }
  }
});

test("retry is a whole number or nothing", () => {
  for (const [line, want] of [["retry: 12", 12], ["retry:0", 0], ["retry: 1.5", undefined], ["retry: -1", undefined], ["retry", undefined]]) {
    const parser = new SseParser();
    parser.push(`${line}\n`);
    assert.equal(parser.retry, want, line);
  }
});

test("an event without an end is given up", () => {
  const parser = new SseParser();
  assert.throws(() => {
    for (let n = 0; n < 20; n += 1) {
      parser.push("x".repeat(1024 * 1024));
    }
  }, /too long/);
});

/** A bridge that only speaks SSE: `answer` gets each request and its response. */
async function bridge(t, answer) {
  const requests = [];
  const server = http.createServer((request, response) => {
    requests.push({ url: new URL(request.url, "http://bridge"), headers: request.headers });
    answer(response, requests.length);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, requests };
}

const sse = (response, ...frames) => {
  if (!response.headersSent) {
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
  }
  for (const frame of frames) {
    response.write(`data: ${JSON.stringify(frame)}\n\n`);
  }
};

/** Resolves with the connection once `state` is told. */
const reaches = (client, state) =>
  new Promise((resolve) =>
    client.addEventListener("connection", ({ detail }) => detail.connection.state === state && resolve(detail.connection)),
  );

test("frames come over SSE, cut inside characters, and the stream is resumed by position", async (t) => {
  const { url, requests } = await bridge(t, async (response, count) => {
    if (count === 1) {
      sse(response, established());
      const bytes = Buffer.from(`data: ${JSON.stringify(event(1, "message", { text: "héllo 😀" }))}\n\n`);
      for (const byte of bytes) {
        response.write(Buffer.from([byte]));
        await new Promise((resolve) => setImmediate(resolve));
      }
      sse(response, event(2));
      response.end();
    } else {
      sse(response, established(), event(2), event(3));
    }
  });
  const client = new EmitterClient({ url, token: () => "t1", transport: "sse", start: "oldest", types: ["a", "b"] });
  t.after(() => client.close());
  const seen = [];
  for await (const item of client) {
    if (item.kind === "event") {
      seen.push(item.frame.event_id);
    }
    if (seen.length === 3) {
      break;
    }
  }
  assert.deepEqual(seen, ["e1", "e2", "e3"]);
  assert.equal(client.runs.get("r1").text, "héllo 😀");
  assert.equal(client.connection.transport, "sse");
  assert.deepEqual(requests.map(({ url }) => url.pathname + url.search), [
    "/v1/events?from=oldest&types=a%2Cb",
    `/v1/events?after=${EPOCH}-2&types=a%2Cb`,
  ]);
  assert.equal(requests[0].headers.authorization, "Bearer t1");
});

test("an HTTP status stops the client or lets it come back", async (t) => {
  const json = (reason) => JSON.stringify({ reason, message: "no" });
  const cases = [
    [400, json("INVALID_REQUEST"), "stopped", "INVALID_REQUEST"],
    [401, json("UNAUTHENTICATED"), "stopped", "UNAUTHENTICATED"],
    [403, json("ORIGIN_REFUSED"), "stopped", "ORIGIN_REFUSED"],
    [404, "<h1>no</h1>", "waiting", "answered with HTTP status 404"],
    [409, json("REPLACED"), "stopped", "REPLACED"],
    [401, json("CREDENTIAL_EXPIRED"), "waiting", "CREDENTIAL_EXPIRED"],
    [408, "", "waiting", "answered with HTTP status 408"],
    [429, json("CONNECTION_LIMIT"), "waiting", "CONNECTION_LIMIT"],
    [500, "x".repeat(1_000_000), "waiting", "answered with HTTP status 500"],
    [503, json("DRAINING"), "waiting", "DRAINING"],
    [200, "<h1>a portal</h1>", "waiting", "the answer is no event stream"],
  ];
  for (const [status, body, state, reason] of cases) {
    const { url } = await bridge(t, (response) => response.writeHead(status, { "content-type": "text/html" }).end(body));
    const client = new EmitterClient({ url, token: () => "t1", transport: "sse" });
    const reached = Promise.race([reaches(client, "waiting"), reaches(client, "stopped")]);
    client.connect();
    const got = await reached;
    assert.deepEqual([got.state, got.reason], [state, reason], `${status} ${body.slice(0, 50)}`);
    client.close();
  }
});

test("Retry-After is honoured, in seconds and as a date", async () => {
  const answer = (headers) => async () => new Response("", { status: 503, headers });
  for (const header of ["7", new Date(1_700_000_000_000 + 7000).toUTCString()]) {
    const kit = start({ transport: "sse" }, { fetch: answer({ "retry-after": header }), random: () => 0 });
    await kit.open();
    await new Promise((resolve) => setImmediate(resolve));
    const { state, retryAt } = kit.client.connection;
    assert.deepEqual([state, retryAt - kit.clock.wall()], ["waiting", 7000], header);
    kit.client.close();
  }
});

test("a closing frame over SSE says whether to come back, and when", async (t) => {
  const cases = [
    [closing("REPLACED"), "stopped", ["connect"]],
    [closing("DRAINING", 1), "waiting", ["connect", "connect"]],
    [closing("CREDENTIAL_EXPIRED", 1), "waiting", ["connect", "expired"]],
  ];
  for (const [frame, state, wanted] of cases) {
    const { url } = await bridge(t, (response, count) => {
      sse(response, established(), ...(count === 1 ? [frame] : []));
      if (count === 1) {
        response.end();
      }
    });
    const asked = [];
    const token = ({ reason }) => `t${asked.push(reason)}`;
    const client = new EmitterClient({ url, token, transport: "sse" });
    const reached = reaches(client, state);
    client.connect();
    assert.equal((await reached).reason, frame.reason);
    if (state === "waiting") {
      await reaches(client, "open");
    }
    assert.deepEqual(asked, wanted, frame.reason);
    client.close();
  }
});

test("an expired token at the door is replaced", async (t) => {
  const { url, requests } = await bridge(t, (response, count) =>
    count === 1
      ? response.writeHead(401).end('{"reason":"CREDENTIAL_EXPIRED","message":"expired"}')
      : sse(response, established()),
  );
  const token = ({ reason }) => `token-${reason}`;
  const client = new EmitterClient({ url, token, transport: "sse" });
  t.after(() => client.close());
  const open = reaches(client, "open");
  client.connect();
  await open;
  assert.deepEqual(requests.map(({ headers }) => headers.authorization), ["Bearer token-connect", "Bearer token-expired"]);
});
