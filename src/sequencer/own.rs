//! The events that the service emits itself: they end runs that nobody else ends.

use prost::Message;

use crate::{
    event::{
        ContentHash, Event, EventId, Kind, OWN_IDS, ProducerId, RunId, Source, StreamKey, UserId,
    },
    proto::v1::{self, AgentCancelled, AgentFailed, event::Payload},
    run::{Run, RunState},
};

/// The `code` of a run that was silent for too long.
pub const STALLED: &str = "STALLED";

/// The label that names the operator who ended a run.
const CANCELLED_BY: &str = "cancelled_by";

/// The `reason` of a run that ends with the one that started it.
pub const PARENT_ENDED: &str = "parent_ended";

/// `agent_failed` for a run that was silent for too long.
pub(super) fn stalled(stream: &StreamKey, run_id: &RunId, run: &Run) -> Event {
    let span = humantime::format_duration;
    let message = match run.state {
        RunState::Waiting => {
            let wait = run.last_wait();
            let wait = wait.map_or(run.silence_timeout, |open| {
                open.expires_at.since(open.started_at)
            });
            format!("nobody answered within {}", span(wait))
        }
        _ => {
            let silence = span(run.silence_timeout);
            format!("the run gave no sign of life; it may be silent for {silence}")
        }
    };
    let payload = Payload::AgentFailed(AgentFailed {
        code: STALLED.into(),
        message,
        retryable: Some(true),
    });
    event(stream, run_id, run, (Kind::AgentFailed, "stalled"), payload)
}

/// `agent_cancelled` for a run that `operator` ends for `reason`.
pub fn cancelled_by_operator(
    stream: &StreamKey,
    run_id: &RunId,
    run: &Run,
    operator: &UserId,
    reason: &str,
) -> Event {
    let body = v1::Event {
        labels: [(CANCELLED_BY.to_owned(), operator.as_str().to_owned())].into(),
        payload: Some(Payload::AgentCancelled(AgentCancelled {
            reason: reason.to_owned(),
        })),
        ..Default::default()
    };
    event_of(
        stream,
        run_id,
        run,
        (Kind::AgentCancelled, "operator"),
        &body,
    )
}

/// `agent_cancelled` for a run whose parent ends.
pub(super) fn parent_ended(stream: &StreamKey, run_id: &RunId, run: &Run) -> Event {
    let payload = Payload::AgentCancelled(AgentCancelled {
        reason: PARENT_ENDED.into(),
    });
    event(
        stream,
        run_id,
        run,
        (Kind::AgentCancelled, PARENT_ENDED),
        payload,
    )
}

fn event(
    stream: &StreamKey,
    run_id: &RunId,
    run: &Run,
    (kind, word): (Kind, &str),
    payload: Payload,
) -> Event {
    let body = v1::Event {
        payload: Some(payload),
        ..Default::default()
    };
    event_of(stream, run_id, run, (kind, word), &body)
}

fn event_of(
    stream: &StreamKey,
    run_id: &RunId,
    run: &Run,
    (kind, word): (Kind, &str),
    body: &v1::Event,
) -> Event {
    Event::new(
        event_id(run_id, run, word),
        stream.clone(),
        Some(run_id.clone()),
        kind,
        Source::new(own_name()),
        body.encode_to_vec().into(),
    )
}

/// Derived from the run, and from when it began, since its id may come again: whoever ends it twice, by whatever race,
/// does so under one id.
fn event_id(run_id: &RunId, run: &Run, word: &str) -> EventId {
    let began = format!("{}\n{}", run.started_at.as_millis(), run_id.as_str());
    let ContentHash(hash) = ContentHash::of(began.as_bytes());
    let hash = u128::from_be_bytes(hash);
    id(EventId::new(&format!("{OWN_IDS}{word}:{hash:032x}")))
}

fn own_name() -> ProducerId {
    id(ProducerId::new("emitter"))
}

#[expect(clippy::panic, reason = "texts of this file, all of them valid ids")]
fn id<T, E: std::fmt::Debug>(valid: Result<T, E>) -> T {
    valid.unwrap_or_else(|error| panic!("{error:?}"))
}
