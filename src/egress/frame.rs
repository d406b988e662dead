//! An event as readers get it: a JSON text frame, or a `SubscribeResponse` on the wire.

use bytes::{BufMut, Bytes, BytesMut};
use metrics::Counter;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::{
    json::{self, Object},
    payload, runs, sse,
};
use crate::{
    event::{Adjustment, Kind, Offset, Record, Step},
    fanout::Encode,
    proto::v1::{self, event::Payload},
    reason::Reason,
};

/// How a reader gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON objects, for browsers over WebSocket.
    Json,
    /// The same in `text/event-stream`, for browsers over HTTP.
    Sse,
    /// `emitter.v1.SubscribeResponse`, for gRPC.
    Proto,
}

/// What a frame says that stands for several events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// The offset of the first of them.
    pub(super) first_offset: Offset,
    /// How many they are, at least 2.
    pub(super) count: u32,
}

/// Makes frames in one encoding, and counts them.
pub struct Encoder {
    encoding: Encoding,
    encoded: Counter,
}

impl Encoder {
    /// An encoder into `encoding` that counts what it makes in `encoded`.
    pub fn new(encoding: Encoding, encoded: Counter) -> Self {
        Self { encoding, encoded }
    }

    /// One frame for several events: `record` is the last of them, `event` its body with the text of all.
    pub(super) fn joined(&self, record: &Record, event: &v1::Event, joined: Joined) -> Bytes {
        self.encoded.increment(1);
        match self.encoding {
            Encoding::Json => json_frame(record, event, Some(joined)),
            Encoding::Sse => sse_frame(record, event, Some(joined)),
            Encoding::Proto => proto_frame(record, &event.encode_to_vec(), Some(joined)),
        }
    }
}

impl Encode for Encoder {
    fn slot(&self) -> usize {
        match self.encoding {
            Encoding::Json => 0,
            Encoding::Proto => 1,
            Encoding::Sse => 2,
        }
    }

    fn encode(&self, record: &Record) -> Bytes {
        self.encoded.increment(1);
        match self.encoding {
            Encoding::Json => json_frame(record, &body(record), None),
            Encoding::Sse => sse_frame(record, &body(record), None),
            // What was settled of a tool call is not in the body as it was stored.
            Encoding::Proto => match record.draft.event.kind {
                Kind::ToolExecuting | Kind::ToolCompleted | Kind::ToolProgress => {
                    proto_frame(record, &body(record).encode_to_vec(), None)
                }
                _ => proto_frame(record, &record.draft.event.body, None),
            },
        }
    }
}

/// The body of a record's event, with the tool call that it was settled to be about.
pub(super) fn body(record: &Record) -> v1::Event {
    let body = record.draft.event.body.clone();
    let mut body = v1::Event::decode(body).unwrap_or_else(|error| {
        // What is stored was encoded by this service; a reader gets the rest of the event all the same.
        tracing::error!(position = %record.position, ?error, "a stored event cannot be decoded");
        v1::Event::default()
    });
    let step = &record.draft.step;
    let call = step.call().map(|call| call.0);
    match &mut body.payload {
        Some(Payload::ToolExecuting(tool)) => tool.call_sequence = call,
        Some(Payload::ToolCompleted(tool)) => {
            tool.call_sequence = call;
            if let Step::ToolEnds { id: Some(id), .. } = step {
                tool.tool_call_id = id.as_str().to_owned();
            }
        }
        Some(Payload::ToolProgress(tool)) => {
            tool.call_sequence = call;
            if let Step::ToolAdvances { id: Some(id), .. } = step {
                tool.tool_call_id = id.as_str().to_owned();
            }
        }
        _ => {}
    }
    body
}

/// About what the fields of a frame take beside the body's.
const FRAME_OVERHEAD: usize = 384;

fn json_frame(record: &Record, event: &v1::Event, joined: Option<Joined>) -> Bytes {
    let mut out = Vec::with_capacity(FRAME_OVERHEAD + record.draft.event.body.len());
    let mut frame = Object::begin(&mut out);
    place(&mut frame, record, event, joined);
    names(&mut frame, record);
    frame.text("traceparent", &event.traceparent);
    if !event.labels.is_empty() {
        let mut labels = Object::begin(frame.field("labels"));
        for (name, label) in &event.labels {
            json::text(labels.entry(name), label);
        }
        labels.end();
    }
    if let Some(consumed) = &event.usage {
        usage(frame.field("usage"), consumed);
    }
    if let Some(cost) = record.draft.cost {
        let mut object = Object::begin(frame.field("cost"));
        object.integer("nano_usd", cost.nano_usd);
        object.plain("basis", cost.basis.name());
        object.end();
    }
    if let Some(state) = record.draft.state {
        frame.plain("state", state.name());
    }
    if let Some(summary) = &record.draft.summary {
        runs::summary_json(frame.field("summary"), summary);
    }
    if let Some(violation) = record.draft.violation {
        frame.plain("violation", violation.name());
    }
    if !record.draft.event.adjustments.is_empty() {
        let list = frame.field("adjustments");
        json::array(list, &record.draft.event.adjustments, adjustment);
    }
    if matches!(record.draft.event.kind, Kind::Custom(_)) {
        frame.boolean("custom", true);
    }
    match &event.payload {
        Some(arm) => payload::write(frame.field("payload"), arm),
        None => frame.field("payload").extend_from_slice(b"{}"),
    }
    frame.end();
    // It may be kept for a while.
    out.shrink_to_fit();
    Bytes::from(out)
}

/// The JSON frame as an event that a reader resumes after.
fn sse_frame(record: &Record, event: &v1::Event, joined: Option<Joined>) -> Bytes {
    sse::event(
        Some(record.position),
        None,
        &json_frame(record, event, joined),
    )
}

/// What the event is, and where and when.
fn place(frame: &mut Object<'_>, record: &Record, event: &v1::Event, joined: Option<Joined>) {
    let draft = &record.draft;
    frame.plain("type", draft.event.kind.wire_type());
    frame.text("event_id", draft.event.event_id.as_str());
    frame.plain("epoch", record.position.epoch);
    frame.integer("offset", record.position.offset.0);
    if let Some(joined) = joined {
        frame.integer("first_offset", joined.first_offset.0);
        frame.integer("joined", joined.count.into());
    }
    frame.count("run_sequence", draft.run_sequence.0);
    let recorded_at = draft.recorded_at.to_string();
    match &event.occurred_at {
        Some(at) => frame.plain("timestamp", at),
        None => frame.plain("timestamp", &recorded_at),
    }
    frame.plain("recorded_at", &recorded_at);
}

/// Whose the event is.
fn names(frame: &mut Object<'_>, record: &Record) {
    let draft = &record.draft;
    frame.text("user_id", draft.event.stream.user().as_str());
    if let Some(thread_id) = &draft.thread_id {
        frame.text("thread_id", thread_id.as_str());
    }
    if let Some(run_id) = &draft.event.run_id {
        frame.text("run_id", run_id.as_str());
    }
    if let Some(parent_run_id) = &draft.parent_run_id {
        frame.text("parent_run_id", parent_run_id.as_str());
    }
    if let Some(agent_name) = &draft.agent_name {
        frame.text("agent_name", agent_name.as_str());
    }
}

fn usage(out: &mut Vec<u8>, usage: &v1::Usage) {
    let mut object = Object::begin(out);
    object.text("provider", &usage.provider);
    object.text("model", &usage.model);
    object.count("input_tokens", usage.input_tokens);
    object.count("output_tokens", usage.output_tokens);
    object.count("cached_input_tokens", usage.cached_input_tokens);
    object.count("cache_write_input_tokens", usage.cache_write_input_tokens);
    object.count(
        "cache_write_1h_input_tokens",
        usage.cache_write_1h_input_tokens,
    );
    object.count("reasoning_tokens", usage.reasoning_tokens);
    if let Some(cost) = usage.cost_nano_usd {
        object.integer("cost_nano_usd", cost);
    }
    object.end();
}

fn adjustment(out: &mut Vec<u8>, adjustment: &Adjustment) {
    let mut object = Object::begin(out);
    object.text("field", &adjustment.field);
    object.plain("action", adjustment.action.name());
    object.text("reason", &adjustment.reason);
    object.end();
}

/// Field numbers of `emitter.v1`.
mod tag {
    pub(super) const RESPONSE_EVENT: u32 = 2;
    pub(super) const RECORDED_EVENT: u32 = 1;
    pub(super) const EVENT_ID: u32 = 1;
    pub(super) const USER_ID: u32 = 3;
    pub(super) const THREAD_ID: u32 = 4;
    pub(super) const RUN_ID: u32 = 5;
    pub(super) const PARENT_RUN_ID: u32 = 6;
    pub(super) const AGENT_NAME: u32 = 7;
}

/// A `SubscribeResponse` around `body`, the wire bytes of an event without its header: fields of one message may stand
/// in any order, so header and body are simply put one after the other.
fn proto_frame(record: &Record, body: &[u8], joined: Option<Joined>) -> Bytes {
    let draft = &record.draft;
    let header = [
        (tag::EVENT_ID, draft.event.event_id.as_str()),
        (tag::USER_ID, draft.event.stream.user().as_str()),
        (
            tag::THREAD_ID,
            draft.thread_id.as_ref().map_or("", |id| id.as_str()),
        ),
        (
            tag::RUN_ID,
            draft.event.run_id.as_ref().map_or("", |id| id.as_str()),
        ),
        (
            tag::PARENT_RUN_ID,
            draft.parent_run_id.as_ref().map_or("", |id| id.as_str()),
        ),
        (
            tag::AGENT_NAME,
            draft.agent_name.as_ref().map_or("", |id| id.as_str()),
        ),
    ];
    let header = || header.iter().filter(|(_, text)| !text.is_empty());
    let rest = v1::RecordedEvent {
        event: None,
        position: Some(position(record.position)),
        run_sequence: draft.run_sequence.0,
        recorded_at: Some(draft.recorded_at.into()),
        first_offset: joined.map(|joined| joined.first_offset.0),
        joined: joined.map(|joined| joined.count),
        summary: draft.summary.as_deref().map(runs::summary),
        violation: draft.violation.map_or("", Reason::name).to_owned(),
        state: draft
            .state
            .map_or_else(Default::default, v1::RunState::from)
            .into(),
        adjustments: draft.event.adjustments.to_proto(),
        cost: draft.cost.map(Into::into),
        r#type: draft.event.kind.wire_type().to_owned(),
    };
    let event_len: usize = header()
        .map(|(tag, text)| delimited_len(*tag, text.len()))
        .sum::<usize>()
        + body.len();
    let recorded_len = delimited_len(tag::RECORDED_EVENT, event_len) + rest.encoded_len();
    let mut out = BytesMut::with_capacity(delimited_len(tag::RESPONSE_EVENT, recorded_len));
    delimit(&mut out, tag::RESPONSE_EVENT, recorded_len);
    delimit(&mut out, tag::RECORDED_EVENT, event_len);
    for (tag, text) in header() {
        delimit(&mut out, *tag, text.len());
        out.put_slice(text.as_bytes());
    }
    out.put_slice(body);
    rest.encode_raw(&mut out);
    out.freeze()
}

/// A position as the protocol has it.
pub(super) fn position(position: crate::event::Position) -> v1::Position {
    v1::Position {
        epoch: position.epoch.to_string(),
        offset: position.offset.0,
    }
}

/// How many bytes a length-delimited field of `len` bytes takes.
fn delimited_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

/// Opens a length-delimited field.
fn delimit(out: &mut BytesMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

#[cfg(test)]
mod tests;
