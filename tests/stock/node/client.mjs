// A program with Node's stock packages: emits runs in every way, reads them back over gRPC and over a WebSocket, and
// prints a JSON line for each step. It has no generated code: proto-loader reads the protos.

import { once } from "node:events";
import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import WebSocket from "ws";

const { GRPC, HTTP, USER_ID, EMIT_TOKEN, READ_TOKEN, PROTO, GOOGLE } = process.env;
const PATIENCE_MS = 60_000;

function load(...files) {
  const options = { includeDirs: [PROTO, GOOGLE], keepCase: true, longs: String, enums: String, oneofs: true };
  return protoLoader.loadSync(files, options);
}

const { EventEmitter, EventSubscriber } = grpc.loadPackageDefinition(
  load("emitter/v1/event_emitter.proto", "emitter/v1/event_subscriber.proto"),
).emitter.v1;
const details = load("google/rpc/status.proto", "google/rpc/error_details.proto");
const emitter = new EventEmitter(GRPC, grpc.credentials.createInsecure());
const subscriber = new EventSubscriber(GRPC, grpc.credentials.createInsecure());

const bearer = (token) => {
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  return metadata;
};
const within = (milliseconds) => ({ deadline: Date.now() + milliseconds });
const call = (method) => {
  const answer = promisify(emitter[method]).bind(emitter);
  return (request) => answer(request, bearer(EMIT_TOKEN), within(PATIENCE_MS));
};
const emit = call("Emit");
const emitBatch = call("EmitBatch");

/** A whole run of five events. */
function newRun(name) {
  const run_id = `${USER_ID}-${name}`;
  return [
    { agent_name: "writer", agent_started: { message: "On it" } },
    { agent_thinking: { reasoning: "Größe ✓", step_number: 1 } },
    { tool_executing: { tool_call_id: "c1", tool_name: "search", parameters_json: '{"id":9007199254740993}' } },
    { tool_completed: { tool_call_id: "c1", status: "TOOL_STATUS_SUCCEEDED", result_json: '["a","b"]' } },
    { agent_completed: { message: "Done" } },
  ].map((event, index) => ({
    event_id: `${run_id}-${index + 1}`,
    user_id: USER_ID,
    run_id,
    source: { producer_id: "client", term: 1 },
    ...event,
  }));
}

async function emitEach(events) {
  const receipts = [];
  for (const event of events) receipts.push((await emit({ event })).receipt);
  return receipts;
}

const emitAll = async (events) => (await emitBatch({ events })).results.map(({ receipt }) => receipt);

/** What the details say of an emit that must fail. */
async function refusal(event) {
  const error = await emit({ event }).then(
    () => Promise.reject(new Error("it was stored")),
    (error) => error,
  );
  const [status] = error.metadata.get("grpc-status-details-bin");
  const told = {};
  for (const { type_url, value } of details["google.rpc.Status"].deserialize(status).details) {
    const type = type_url.split("/").at(-1);
    told[type] = details[type].deserialize(value);
  }
  const { domain, reason, metadata } = told["google.rpc.ErrorInfo"];
  const fields = (told["google.rpc.BadRequest"]?.field_violations ?? []).map(({ field }) => field);
  return { code: error.code, domain, reason, metadata, fields };
}

/** Reads as many events; no gap may come between. */
async function read(request, count) {
  const events = [];
  const stream = subscriber.Subscribe(request, bearer(READ_TOKEN), within(PATIENCE_MS));
  for await (const { item, event } of stream) {
    if (item === "event") events.push(event);
    else if (item !== "established" && item !== "caught_up") throw new Error(`not awaited: ${item}`);
    if (events.length === count) break;
  }
  stream.cancel();
  if (events.length === count) return events;
  throw new Error(`the stream ended after ${events.length} events`);
}

/** Reads where nothing comes, until the deadline ends it. */
async function deadline() {
  const stream = subscriber.Subscribe({}, bearer(READ_TOKEN), within(500)).resume();
  const [error] = await once(stream, "error").catch((error) => [error]);
  return { code: error.code };
}

/** Reads as many frames that are events from a WebSocket, within the same time. */
async function readSocket(query, count) {
  const headers = { authorization: `Bearer ${READ_TOKEN}` };
  const socket = new WebSocket(`ws://${HTTP}/v1/stream?${query}`, "emitter.v1.json", { headers });
  const frames = [];
  const signal = AbortSignal.timeout(PATIENCE_MS);
  // Texts: JavaScript's numbers are not as exact as those in them.
  socket.on("message", (data) => frames.push(String(data)));
  const events = () => frames.filter((text) => !JSON.parse(text).type.startsWith("connection_"));
  while (events().length < count) await once(socket, "message", { signal });
  socket.close(1000);
  const [code] = await once(socket, "close", { signal });
  return { protocol: socket.protocol, frames, code };
}

const say = (step, told) => console.log(JSON.stringify({ step, told }));

const one = newRun("one");
const two = newRun("two");
const receipts = await emitEach(one);
say("emitted", receipts);
say("batched", await emitAll(two));
say("retried", [...(await emitEach(one)), ...(await emitAll(two))]);

const { user_id, ...nobodys } = one[1];
say("invalid", await refusal(nobodys));
await emitEach(newRun("three").slice(0, 1));
say("competing", await refusal({ ...newRun("three")[1], source: { producer_id: "rival", term: 1 } }));

say("read", await read({ from: "START_FROM_OLDEST" }, 11));
say("resumed", await read({ after: receipts[3].position }, 7));
say("deadline", await deadline());

const { epoch, offset } = receipts[3].position;
say("read_socket", await readSocket("from=oldest", 11));
say("resumed_socket", await readSocket(`after=${epoch}-${offset}`, 7));
emitter.close();
subscriber.close();
