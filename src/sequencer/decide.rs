//! What becomes of an event. Pure: a stream's state, a time and events come in, drafts and refusals go out.
//!
//! In this order, so that a lost answer finds its own event whatever has happened to its run since: dedupe, then the
//! run.

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::{
    clock::Timestamp,
    engine::StreamState,
    event::{ContentHash, Draft, Event, EventId, IdMap, Receipt, RunId, RunSequence},
    reason::{Reason, Refusal},
    run::{RunRefusal, RunState},
};

/// The bounds that decisions keep.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long an event id is remembered.
    pub dedupe_window: Duration,
    /// The most open runs of one user.
    pub open_runs: usize,
}

/// What becomes of one event.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It is stored, as this draft of the group.
    Store(usize),
    /// An earlier call stored it.
    Duplicate(Receipt),
    /// It is a retry of this draft of the same group.
    SameAs(usize),
}

/// Decisions on events that are to be stored together, on top of a stream's state.
pub struct Group<'a> {
    state: &'a StreamState,
    rules: Rules,
    now: Timestamp,
    /// Runs that other users of the tenant own.
    foreign: &'a HashSet<RunId>,
    drafts: Vec<Draft>,
    ids: IdMap<EventId, (usize, ContentHash)>,
    runs: IdMap<RunId, RunState>,
    open_runs: usize,
    claims: Vec<RunId>,
}

impl<'a> Group<'a> {
    /// An empty group on top of `state`, decided `now`.
    pub fn new(
        state: &'a StreamState,
        rules: Rules,
        now: Timestamp,
        foreign: &'a HashSet<RunId>,
    ) -> Self {
        Self {
            state,
            rules,
            now,
            foreign,
            drafts: Vec::new(),
            ids: IdMap::default(),
            runs: IdMap::default(),
            open_runs: state.open_runs(),
            claims: Vec::new(),
        }
    }

    /// Decides on the next event.
    ///
    /// # Errors
    /// `EVENT_ID_REUSED`, `RUN_OWNED_BY_OTHER_USER`, `INVALID_EVENT` (another thread than the run's),
    /// `LIMIT_EXCEEDED` (too many open runs).
    pub fn decide(&mut self, event: &Arc<Event>) -> Result<Decision, Refusal> {
        if let Some(decision) = self.known(event)? {
            return Ok(decision);
        }
        let mut draft = Draft {
            event: event.clone(),
            run_sequence: RunSequence(0),
            recorded_at: self.now,
            thread_id: event.thread_id.clone(),
            agent_name: event.agent_name.clone(),
            parent_run_id: event.parent_run_id.clone(),
        };
        if let Some(run_id) = &event.run_id {
            let run = self.advance(run_id, event)?;
            draft.run_sequence = run.last_sequence;
            draft.thread_id = run.thread_id.clone();
            draft.agent_name = draft.agent_name.or_else(|| run.agent_name.clone());
            draft.parent_run_id = draft.parent_run_id.or_else(|| run.parent_run_id.clone());
            self.runs.insert(run_id.clone(), run);
        }
        let index = self.drafts.len();
        self.ids
            .insert(event.event_id.clone(), (index, event.content));
        self.drafts.push(draft);
        Ok(Decision::Store(index))
    }

    /// Runs whose claim is to be put or renewed before the drafts are appended.
    pub fn claims(&self) -> &[RunId] {
        &self.claims
    }

    /// What is to be stored, in order.
    pub fn into_drafts(self) -> Vec<Draft> {
        self.drafts
    }

    /// Whether the id was seen within the window, here or in the state.
    fn known(&self, event: &Event) -> Result<Option<Decision>, Refusal> {
        let (content, decision) = if let Some((index, content)) = self.ids.get(&event.event_id) {
            (*content, Decision::SameAs(*index))
        } else {
            match self.state.dedupe.get(&event.event_id) {
                Some(entry) if entry.recorded_at + self.rules.dedupe_window > self.now => {
                    let receipt = entry.receipt(event.event_id.clone());
                    (entry.content, Decision::Duplicate(receipt))
                }
                _ => return Ok(None),
            }
        };
        if content != event.content {
            return Err(Refusal::new(
                Reason::EventIdReused,
                "the event_id was used for another event",
            )
            .with("event_id", event.event_id.as_str()));
        }
        Ok(Some(decision))
    }

    /// The run after `event`.
    fn advance(&mut self, run_id: &RunId, event: &Event) -> Result<RunState, Refusal> {
        if self.foreign.contains(run_id) {
            return Err(Refusal::new(
                Reason::RunOwnedByOtherUser,
                "the run belongs to another user",
            )
            .with("run_id", run_id.as_str()));
        }
        let stored = self
            .state
            .run(run_id)
            .filter(|run| run.forgotten_at() > self.now);
        let before = self.runs.get(run_id).or(stored);
        let after = RunState::after(before, event, self.now).map_err(|refusal| match refusal {
            RunRefusal::OtherThread(_) => {
                Refusal::invalid_field(Reason::InvalidEvent, "thread_id", refusal.to_string())
            }
        })?;
        let claim_is_due = RunState::claim_is_due(before, self.now);
        let was_open = before.is_some_and(|run| !run.ended);
        self.count_open(was_open, !after.ended)?;
        if claim_is_due {
            self.claims.push(run_id.clone());
        }
        Ok(after)
    }

    /// Counts a run that opens or ends.
    fn count_open(&mut self, was: bool, is: bool) -> Result<(), Refusal> {
        let limit = self.rules.open_runs;
        if is && !was && self.open_runs >= limit {
            return Err(Refusal::new(
                Reason::LimitExceeded,
                format!("the user has {limit} open runs"),
            )
            .with("limit", "open_runs"));
        }
        self.open_runs = (self.open_runs + usize::from(is)).saturating_sub(usize::from(was));
        Ok(())
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
