//! What travels: a validated event on its way in, and the record that it becomes once it has a place in its
//! user's stream.

mod adjustment;
mod ids;
mod kind;
mod position;
mod run_state;
mod step;
mod usage;
mod wait;

pub use adjustment::{Action, Adjustment, Adjustments};
pub use ids::{
    AgentName, BUCKETS, ClientId, EventId, IdError, IdMap, OWN_IDS, ProducerId, RunId, StreamKey,
    Tenant, ThreadId, ToolCallId, ToolName, UserId, WaitId,
};
pub use kind::{Kind, custom_name_problem};
pub use position::{Epoch, MAX_OFFSET, Offset, Position, PositionError, RunSequence};
pub use run_state::RunState;
pub use step::{OpenToolCall, Source, Step, Summary};
pub use usage::{Cost, CostBasis, Tokens, Usage, UsageTotals};
pub use wait::{OpenWait, Wait};

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{clock::Timestamp, proto::v1, reason::Reason};

/// A hash of the canonical event as its producer sent it, by which a retry is told from a reused id.
///
/// Canonical: maps sorted, JSON texts as values, without event id, tenant, source, `occurred_at` and trace context;
/// before fill-ins and redaction. What is stored is keyed: without the store's secret, a guess at a redacted value
/// cannot be tried against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(pub [u8; 16]);

impl ContentHash {
    /// The hash of `canonical` bytes: the first 128 bits of BLAKE3.
    pub fn of(canonical: &[u8]) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::hash(canonical).as_bytes()[..16]);
        Self(short)
    }

    /// The hash as the store of `key` keeps it.
    #[must_use]
    pub fn keyed(self, key: &ContentKey) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::keyed_hash(&key.0, &self.0).as_bytes()[..16]);
        Self(short)
    }
}

/// The key of a store's content hashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// The key that follows from the `secret` of a store.
    pub fn of(secret: &[u8]) -> Self {
        Self(blake3::derive_key("emitter content hash", secret))
    }
}

impl std::fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentKey(..)")
    }
}

/// An event that passed validation: complete, bounded, redacted.
#[derive(Clone, Debug)]
pub struct Event {
    /// The idempotency key within the stream.
    pub event_id: EventId,
    /// Whose stream it goes to.
    pub stream: StreamKey,
    /// The run. A `custom` event may have none, nor need a `message` or `state_*` of a thread.
    pub run_id: Option<RunId>,
    /// The thread, where the producer stated it.
    pub thread_id: Option<ThreadId>,
    /// The parent's run, where the producer stated it.
    pub parent_run_id: Option<RunId>,
    /// The agent, where the producer stated it.
    pub agent_name: Option<AgentName>,
    /// Which arm the payload is.
    pub kind: Kind,
    /// What it means for its run, as stated.
    pub step: Step,
    /// Who emits it.
    pub source: Source,
    /// What it adds to its run's consumption; it stands in `body` too.
    pub usage: Option<Box<Usage>>,
    /// What a retry is compared by.
    pub content: ContentHash,
    /// Its adjustments.
    pub adjustments: Adjustments,
    /// A delta without usage, labels or adjustments: one that a lagging reader may get joined with its neighbours.
    pub joinable: bool,
    /// Everything that is not above, as the wire bytes of an `emitter.v1.Event` that lacks the fields above.
    /// It holds no source and no tenant.
    pub body: Bytes,
}

impl Event {
    /// An event of `kind` by `source` that states nothing beside its payload, of which `body` are the wire bytes.
    pub fn new(
        event_id: EventId,
        stream: StreamKey,
        run_id: Option<RunId>,
        kind: Kind,
        source: Source,
        body: Bytes,
    ) -> Self {
        Self {
            event_id,
            stream,
            run_id,
            thread_id: None,
            parent_run_id: None,
            agent_name: None,
            step: Step::of(&kind),
            kind,
            source,
            usage: None,
            content: ContentHash::of(&body),
            adjustments: Adjustments::default(),
            joinable: false,
            body,
        }
    }
}

/// An event with its place in its user's stream: what an engine stores and readers see.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// The offset of the record before it in the stream, 0 for the first that the engine knows. A reader whose
    /// cursor is at or after `prev` misses nothing before this record.
    pub prev: Offset,
    /// What is stored.
    pub draft: Draft,
}

impl Record {
    /// What its producer is told.
    pub fn receipt(&self, duplicate: bool) -> Receipt {
        Receipt {
            event_id: self.draft.event.event_id.clone(),
            position: self.position,
            run_sequence: self.draft.run_sequence,
            recorded_at: self.draft.recorded_at,
            duplicate,
            adjustments: self.draft.event.adjustments.clone(),
        }
    }
}

impl From<&Receipt> for v1::Receipt {
    fn from(receipt: &Receipt) -> Self {
        Self {
            event_id: receipt.event_id.as_str().to_owned(),
            position: Some(receipt.position.into()),
            run_sequence: receipt.run_sequence.0,
            recorded_at: Some(receipt.recorded_at.into()),
            duplicate: receipt.duplicate,
            adjustments: receipt.adjustments.to_proto(),
        }
    }
}

/// What `decide` hands to an engine: a record but for its place.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The event as validated.
    pub event: Arc<Event>,
    /// Its number in its run; 0 without a run.
    pub run_sequence: RunSequence,
    /// When it was decided.
    pub recorded_at: Timestamp,
    /// The thread, stated or inherited from the run.
    pub thread_id: Option<ThreadId>,
    /// The agent, stated or inherited from the run.
    pub agent_name: Option<AgentName>,
    /// The parent's run, stated or inherited from the run.
    pub parent_run_id: Option<RunId>,
    /// What it means for its run, as settled.
    pub step: Step,
    /// What its usage cost; `None` without usage.
    pub cost: Option<Cost>,
    /// What the run came to, where this ends it.
    pub summary: Option<Box<Summary>>,
    /// How its run stands after it, where it changes that.
    pub state: Option<RunState>,
    /// Why it would have been refused, where runs are only observed.
    pub violation: Option<Reason>,
    /// Where it is accepted though the store has lost what came before it: how long its run may be silent, if it begins
    /// with this.
    pub recovered: Option<Duration>,
    /// Only for benchmarks: its run has no rules.
    #[cfg(feature = "bench")]
    #[doc(hidden)]
    pub bare: bool,
}

impl Draft {
    /// `event`, decided at `now`, before anything is known of its run or of prices.
    pub fn new(event: Arc<Event>, now: Timestamp) -> Self {
        Self {
            run_sequence: RunSequence(0),
            recorded_at: now,
            thread_id: event.thread_id.clone(),
            agent_name: event.agent_name.clone(),
            parent_run_id: event.parent_run_id.clone(),
            step: event.step.clone(),
            cost: event.usage.as_deref().map(Cost::without_price),
            summary: None,
            state: None,
            violation: None,
            recovered: None,
            #[cfg(feature = "bench")]
            bare: false,
            event,
        }
    }

    /// What it adds to its run's consumption, and what that cost.
    pub fn consumed(&self) -> Option<(&Usage, Cost)> {
        self.event.usage.as_deref().zip(self.cost)
    }

    /// About how many bytes of memory the record takes, its event included.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 64; // two reference counts and what the allocator adds
        let event = &self.event;
        let text = |id: Option<usize>| id.unwrap_or(0);
        OVERHEAD
            + size_of::<Record>()
            + size_of::<Event>()
            + event.event_id.as_str().len()
            + text(event.run_id.as_ref().map(|id| id.as_str().len()))
            + text(event.thread_id.as_ref().map(|id| id.as_str().len()))
            + text(event.parent_run_id.as_ref().map(|id| id.as_str().len()))
            + text(event.agent_name.as_ref().map(|id| id.as_str().len()))
            + event.body.len()
            + event.source.producer_id.as_str().len()
            + event.usage.as_ref().map_or(0, |usage| {
                size_of::<Usage>() + usage.provider.len() + usage.model.len()
            })
            + event.adjustments.weight()
            + self.summary.as_ref().map_or(0, |summary| {
                size_of::<Summary>() + summary.open_tool_calls.len() * size_of::<OpenToolCall>()
            })
    }
}

/// What was stored, as its producer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The event's id.
    pub event_id: EventId,
    /// Where it stands.
    pub position: Position,
    /// Its number in its run; 0 without a run.
    pub run_sequence: RunSequence,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// It was stored by an earlier call.
    pub duplicate: bool,
    /// Its adjustments.
    pub adjustments: Adjustments,
}
