//! Records for tests, and the document that describes what is made of them.

use std::{fs, path::Path, sync::Arc};

use prost::Message;

use crate::{
    clock::Timestamp,
    event::{
        AgentName, Draft, Epoch, Event, EventId, Kind, Offset, Position, ProducerId, Record, RunId,
        RunSequence, Source, StreamKey, Tenant, ThreadId, UserId,
    },
    fanout::Entry,
    proto::v1::{self, event::Payload},
};

/// 2026-11-21T10:00:00.123Z.
pub(super) const RECORDED_AT: Timestamp = Timestamp::from_millis(1_795_255_200_123);

/// `proto/asyncapi.json`.
pub(super) fn document() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/asyncapi.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(super) fn stream() -> StreamKey {
    StreamKey::new(Tenant::new("t").unwrap(), UserId::new("u1").unwrap())
}

/// The event `e1` of run `r1` at offset 42, with `body`.
pub(super) fn record(kind: Kind, body: &v1::Event) -> Record {
    let event = Event {
        joinable: kind.is_delta(),
        ..Event::new(
            EventId::new("e1").unwrap(),
            stream(),
            RunId::new("r1").ok(),
            kind,
            Source::new(ProducerId::new("p").unwrap()),
            body.encode_to_vec().into(),
        )
    };
    let draft = Draft {
        run_sequence: RunSequence(7),
        thread_id: ThreadId::new("t1").ok(),
        agent_name: AgentName::new("researcher").ok(),
        ..Draft::new(Arc::new(event), RECORDED_AT)
    };
    Record {
        position: Position::new(Epoch::new(0xab), Offset(42)),
        prev: Offset(41),
        draft,
    }
}

/// A body with nothing but a payload.
pub(super) fn body(payload: Payload) -> v1::Event {
    v1::Event {
        payload: Some(payload),
        ..Default::default()
    }
}

/// A piece of message `m1` at `offset`.
pub(super) fn text_delta(offset: u64, message_id: &str, role: &str, text: &str) -> Arc<Entry> {
    let delta = v1::TextDelta {
        message_id: message_id.to_owned(),
        role: role.to_owned(),
        text: text.to_owned(),
    };
    entry(
        offset,
        record(Kind::TextDelta, &body(Payload::TextDelta(delta))),
    )
}

/// `record`, moved to `offset`, as the event of that number in its run.
pub(super) fn entry(offset: u64, mut record: Record) -> Arc<Entry> {
    record.position.offset = Offset(offset);
    record.draft.run_sequence = RunSequence(offset);
    record.draft.recorded_at = Timestamp::from_millis(offset);
    Arc::new(Entry::new(Arc::new(record)))
}
