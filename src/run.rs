//! What the service knows of a run. Pure: events and times come in, states go out.
//!
//! Today a run has a number for its next event, what its events inherit, and a time at which it is forgotten. The
//! life cycle, its one source and its usage are to be decided here too.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    event::{AgentName, Draft, Event, RunId, RunSequence, ThreadId},
};

/// How long a run is remembered after its last event.
pub const RUN_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a claim on a run's id lives unless it is renewed: twice `RUN_MEMORY`.
pub const CLAIM_TTL: Duration = Duration::from_secs(48 * 60 * 60);

/// A run as its last event left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunState {
    /// The number of its last event.
    pub last_sequence: RunSequence,
    /// When its last event was recorded.
    pub last_event_at: Timestamp,
    /// The thread that its events inherit.
    pub thread_id: Option<ThreadId>,
    /// The agent that its events inherit.
    pub agent_name: Option<AgentName>,
    /// The parent's run that its events inherit.
    pub parent_run_id: Option<RunId>,
    /// It has had a terminal event.
    pub ended: bool,
}

/// Why an event does not fit its run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunRefusal {
    /// It states another thread than its run's.
    #[error("the run belongs to thread {0:?}")]
    OtherThread(ThreadId),
}

impl RunState {
    /// The run after `event`, recorded `now`, where `before` is the run before it, if it is known.
    ///
    /// # Errors
    /// When the event does not fit the run.
    pub fn after(
        before: Option<&RunState>,
        event: &Event,
        now: Timestamp,
    ) -> Result<RunState, RunRefusal> {
        let known_thread = before.and_then(|run| run.thread_id.clone());
        if let (Some(known), Some(stated)) = (&known_thread, &event.thread_id)
            && known != stated
        {
            return Err(RunRefusal::OtherThread(known.clone()));
        }
        Ok(RunState {
            last_sequence: RunSequence(before.map_or(0, |run| run.last_sequence.0) + 1),
            last_event_at: now,
            thread_id: known_thread.or_else(|| event.thread_id.clone()),
            agent_name: before
                .and_then(|run| run.agent_name.clone())
                .or_else(|| event.agent_name.clone()),
            parent_run_id: before
                .and_then(|run| run.parent_run_id.clone())
                .or_else(|| event.parent_run_id.clone()),
            ended: before.is_some_and(|run| run.ended) || event.kind.is_terminal(),
        })
    }

    /// The run after `draft` was recorded, as an earlier decision made it.
    pub fn recorded(before: Option<&RunState>, draft: &Draft) -> RunState {
        RunState {
            last_sequence: draft.run_sequence,
            last_event_at: draft.recorded_at,
            thread_id: draft.thread_id.clone(),
            agent_name: before
                .and_then(|run| run.agent_name.clone())
                .or_else(|| draft.agent_name.clone()),
            parent_run_id: before
                .and_then(|run| run.parent_run_id.clone())
                .or_else(|| draft.parent_run_id.clone()),
            ended: before.is_some_and(|run| run.ended) || draft.event.kind.is_terminal(),
        }
    }

    /// Whether the claim on the run's id is to be put or renewed for an event recorded `now`, where `before` is the
    /// run before it. Renewing once in each half of `RUN_MEMORY`, for `CLAIM_TTL`, keeps the claim for longer than
    /// the run is remembered.
    pub fn claim_is_due(before: Option<&RunState>, now: Timestamp) -> bool {
        let slot = |at: Timestamp| at.as_millis() / (RUN_MEMORY.as_millis() as u64 / 2);
        before.is_none_or(|run| slot(run.last_event_at) != slot(now))
    }

    /// When the run is forgotten, unless another event comes.
    pub fn forgotten_at(&self) -> Timestamp {
        self.last_event_at + RUN_MEMORY
    }
}
