//! What becomes of an event. Pure: a stream's state, a time and events come in, drafts and refusals go out.
//!
//! In this order, so that a lost answer finds its own event whatever has happened to its run since: dedupe, then the
//! run's owner, its source, and its life.

#[cfg(feature = "bench")]
mod bare;
mod overlay;
mod recovery;
mod refusals;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use self::{
    overlay::Overlay,
    refusals::{check_owner, violated},
};
use super::own;
use crate::{
    clock::{Spans, Timestamp},
    engine::StreamState,
    event::{ContentHash, Draft, Event, EventId, IdMap, Offset, Receipt, RunId, Step, StreamKey},
    reason::{Reason, Refusal},
    run::{self, Book, Defaults, Effect, Run, Violation},
    usage::PriceTable,
};

/// The bounds that decisions keep, and what they go by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long an event id is remembered.
    pub dedupe_window: Duration,
    /// The most open runs of one user.
    pub open_runs: usize,
    /// The most open tool calls of one run.
    pub open_tool_calls: usize,
    /// The most open runs below one run, at all depths.
    pub descendants: usize,
    /// How many runs may stand above one run.
    pub depth: usize,
    /// How long a run is remembered after its end.
    pub run_memory: Duration,
    /// How long after a store has lost events those of runs and tool calls are accepted that it does not know.
    pub recovery_grace: Duration,
    /// What holds where an event leaves it out.
    pub defaults: Defaults,
    /// What becomes of an event that breaks a rule of its run's life.
    pub mode: Mode,
    /// What models cost. An event's cost is fixed by them when it is decided on.
    pub prices: Arc<PriceTable>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            dedupe_window: Duration::from_secs(600),
            open_runs: 1_000,
            open_tool_calls: 256,
            descendants: 64,
            depth: 8,
            run_memory: run::RUN_MEMORY,
            recovery_grace: Duration::from_secs(60 * 60),
            defaults: Defaults::default(),
            mode: Mode::default(),
            prices: Arc::default(),
        }
    }
}

/// What becomes of an event that breaks a rule of its run's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It is stored, marked and counted, and changes nothing of its run.
    Observe,
    /// Only for benchmarks: there are no such rules, so that their cost can be measured.
    #[cfg(feature = "bench")]
    #[doc(hidden)]
    Bare,
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

/// What the watchdog finds of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has ended already.
    Over,
    /// It may be silent until then.
    Alive(Timestamp),
    /// It was silent for too long, and is ended by drafts of the group.
    Stalled,
}

/// A run's id that is to be put or kept out of other users' reach before the drafts are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The run.
    pub run_id: RunId,
    /// For how long.
    pub ttl: Duration,
}

/// Decisions on events that are to be stored together, on top of a stream's state.
pub struct Group<'a> {
    stream: &'a StreamKey,
    state: &'a StreamState,
    rules: &'a Rules,
    now: Timestamp,
    /// By which ids grow old.
    age_now: Timestamp,
    /// Runs that other users of the tenant own.
    foreign: &'a HashSet<RunId>,
    drafts: Vec<Draft>,
    ids: IdMap<EventId, (usize, ContentHash)>,
    runs: Overlay<'a>,
    open_runs: usize,
    claims: Vec<Claim>,
    unknown: BTreeSet<RunId>,
    /// Those of them whose `agent_started` was refused.
    refused_starts: BTreeSet<RunId>,
}

impl<'a> Group<'a> {
    /// An empty group on top of `state` of `stream`, decided `now`.
    pub fn new(
        stream: &'a StreamKey,
        state: &'a StreamState,
        rules: &'a Rules,
        now: Timestamp,
        foreign: &'a HashSet<RunId>,
    ) -> Self {
        Self {
            stream,
            state,
            rules,
            now,
            age_now: now,
            foreign,
            drafts: Vec::new(),
            ids: IdMap::default(),
            runs: Overlay::new(state, rules.run_memory, now),
            open_runs: state.open_runs(),
            claims: Vec::new(),
            unknown: BTreeSet::new(),
            refused_starts: BTreeSet::new(),
        }
    }

    /// The same, where ids and ended runs are forgotten by another clock, which does not count jumps of the first.
    #[must_use]
    pub fn with_age(self, age_now: Timestamp) -> Self {
        Self {
            age_now,
            runs: Overlay::new(self.state, self.rules.run_memory, age_now),
            ..self
        }
    }

    /// Decides on the next event.
    ///
    /// # Errors
    /// `EVENT_ID_REUSED`, `RUN_OWNED_BY_OTHER_USER`, `COMPETING_SOURCE`, `SOURCE_FENCED`, `INVALID_EVENT` (another
    /// thread or parent than the run's), the violations of its run's life, `LIMIT_EXCEEDED` (too many open runs, open
    /// tool calls, open waits or sub-agents).
    pub fn decide(&mut self, event: &Arc<Event>) -> Result<Decision, Refusal> {
        if let Some(decision) = self.known(event)? {
            return Ok(decision);
        }
        // Producers may not use ids of the service.
        if let Some(run_id) = event.run_id.as_ref().filter(|_| event.event_id.is_own()) {
            return self.decide_end_by_service(run_id, event);
        }
        let usage = event.usage.as_deref();
        let draft = Draft {
            cost: usage.map(|usage| self.rules.prices.cost(usage)),
            ..Draft::new(event.clone(), self.now)
        };
        let index = match event.run_id.clone() {
            Some(run_id) => self.run_event(&run_id, draft)?,
            None => self.push(draft),
        };
        Ok(Decision::Store(index))
    }

    /// Looks whether a run has been silent for too long, not counting what is in `uncounted`, and ends it if so.
    pub fn judge(&mut self, run_id: &RunId, uncounted: &[Spans]) -> Verdict {
        let Some(run) = self.runs.run(run_id).filter(|run| run.state.is_open()) else {
            return Verdict::Over;
        };
        let excused = Spans::of_all_between(uncounted, run.last_sign_at, self.now);
        let deadline = run::deadline(&self.runs, run) + excused;
        if deadline > self.now {
            return Verdict::Alive(deadline);
        }
        let event = own::stalled(self.stream, run_id, run);
        self.end_by_service(run_id, Arc::new(event));
        Verdict::Stalled
    }

    /// Runs whose claim is to be put or renewed before the drafts are appended.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// Runs that are not known here and that an event was refused of: another user may own them.
    pub fn unknown(&self) -> &BTreeSet<RunId> {
        &self.unknown
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
                Some(entry) if entry.recorded_at + self.rules.dedupe_window > self.age_now => {
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

    /// Checks an event of a run and takes it in. Returns its draft's place.
    fn run_event(&mut self, run_id: &RunId, draft: Draft) -> Result<usize, Refusal> {
        let starts = matches!(draft.event.step, Step::Start { .. });
        let taken_in = self.check_and_take_in(run_id, draft);
        let is_unknown = self.runs.run(run_id).is_none() && !self.foreign.contains(run_id);
        if taken_in.is_err() && is_unknown {
            self.unknown.insert(run_id.clone());
            if starts {
                self.refused_starts.insert(run_id.clone());
            }
        }
        taken_in
    }

    fn check_and_take_in(&mut self, run_id: &RunId, mut draft: Draft) -> Result<usize, Refusal> {
        if self.foreign.contains(run_id) {
            return Err(Refusal::new(
                Reason::RunOwnedByOtherUser,
                "the run belongs to another user",
            )
            .with("run_id", run_id.as_str()));
        }
        #[cfg(feature = "bench")]
        if self.rules.mode == Mode::Bare {
            return self.bare(run_id, draft);
        }
        let run = self.runs.run(run_id);
        if let Some(run) = run {
            check_owner(run_id, run, &draft.event)?;
        }
        if let Err(violation) = self.settle(run, &mut draft) {
            let refusal = match &draft.event.parent_run_id {
                Some(parent) if violation == Violation::ParentNotOpen => {
                    let known = self.runs.run(parent);
                    let state = known.map_or("unknown", |run| run.state.name());
                    violated(violation, run_id, run)
                        .with("parent_run_id", parent.as_str())
                        .with("parent_state", state)
                }
                _ => violated(violation, run_id, run),
            };
            return Err(refusal);
        }
        if let Some(run) = run {
            check_fixed(run, &draft.event)?;
        }
        self.check_limits(run, &draft)?;
        let ends = draft.step == Step::End;
        if ends {
            self.end_descendants(run_id);
        }
        let index = self.take_in(run_id, draft);
        if ends {
            self.summarize(run_id, index);
        }
        Ok(index)
    }

    /// Says what the event means for its run, of which `run` is known; else which rule it breaks, where rules are
    /// enforced.
    fn settle(&self, run: Option<&Run>, draft: &mut Draft) -> Result<(), Violation> {
        let event = &draft.event;
        let defaults = &self.rules.defaults;
        let settled = run::settle(run, event, defaults).and_then(|step| {
            match run.is_none() && !self.parent_is_open(event) {
                true => Err(Violation::ParentNotOpen),
                false => Ok(step),
            }
        });
        match settled {
            Ok(step) => draft.step = step,
            Err(violation) if self.may_be_lost(event, violation) => {
                draft.step = run::recovered(run, event, defaults);
                draft.recovered = Some(defaults.silence_timeout);
            }
            Err(violation) if self.rules.mode == Mode::Enforce => return Err(violation),
            Err(violation) => {
                draft.step = run::observed(run, event, defaults);
                draft.violation = Some(violation.reason());
            }
        }
        Ok(())
    }

    /// Whether the event states no parent, or one that is an open run.
    fn parent_is_open(&self, event: &Event) -> bool {
        let is_open = |parent| self.runs.run(parent).is_some_and(|run| run.state.is_open());
        event.parent_run_id.as_ref().is_none_or(is_open)
    }

    fn check_limits(&self, run: Option<&Run>, draft: &Draft) -> Result<(), Refusal> {
        let rules = self.rules;
        match (run, &draft.step) {
            // It ends with what begins it.
            (None, Step::End) => Ok(()),
            (None, _) => {
                within("open_runs", "the user", self.open_runs, rules.open_runs)?;
                if let Some(parent) = &draft.event.parent_run_id {
                    self.check_family(parent)?;
                }
                Ok(())
            }
            (Some(run), Step::ToolBegins { call, .. })
                if *call == Some(run::next_sequence(Some(run))) =>
            {
                let open = run.open_tool_calls.len();
                within("open_tool_calls", "the run", open, rules.open_tool_calls)
            }
            (Some(run), Step::Wait(wait)) => {
                let open = run.waits_beside(wait.id.as_ref(), self.now);
                within("open_waits", "the run", open, run::OPEN_WAITS)
            }
            _ => Ok(()),
        }
    }

    /// Whether `parent` may start one more run.
    fn check_family(&self, parent: &RunId) -> Result<(), Refusal> {
        let above = run::open_ancestors(&self.runs, parent);
        within("run_depth", "the parent", above.len(), self.rules.depth)?;
        let top = above.last().unwrap_or(parent);
        let below = run::open_descendants(&self.runs, top).len();
        within(
            "descendants",
            "the topmost run",
            below,
            self.rules.descendants,
        )
    }

    /// Ends the runs below `run_id`, so that a reader never sees one outlive it.
    fn end_descendants(&mut self, run_id: &RunId) {
        for below in run::open_descendants(&self.runs, run_id) {
            if let Some(run) = self.runs.run(&below) {
                let event = own::parent_ended(self.stream, &below, run);
                self.end_alone(&below, Arc::new(event));
            }
        }
    }

    /// Decides on an event by which the service ends a run for an operator. No source owns such an event.
    fn decide_end_by_service(
        &mut self,
        run_id: &RunId,
        event: &Arc<Event>,
    ) -> Result<Decision, Refusal> {
        let run = self.runs.run(run_id);
        if !run.is_some_and(|run| run.state.is_open()) {
            return Err(violated(Violation::Ended, run_id, run));
        }
        let index = self.end_by_service(run_id, event.clone());
        Ok(Decision::Store(index))
    }

    /// Ends a run and those below it, by an event of the service. Returns the place of its draft.
    fn end_by_service(&mut self, run_id: &RunId, event: Arc<Event>) -> usize {
        self.end_descendants(run_id);
        self.end_alone(run_id, event)
    }

    fn end_alone(&mut self, run_id: &RunId, event: Arc<Event>) -> usize {
        let mut draft = Draft::new(event, self.now);
        draft.step = Step::End;
        let index = self.take_in(run_id, draft);
        self.summarize(run_id, index);
        index
    }

    /// Puts or renews the run's claim, and with it those of the runs above: what keeps it alive keeps them.
    fn claim(&mut self, run_id: &RunId) {
        let memory = self.rules.run_memory;
        // The append may fail, and the run go on to wait as it is stored.
        let runs = [self.runs.run(run_id), self.state.run(run_id)];
        let waits_until = runs.into_iter().flatten().map(Run::waits_until).max();
        let waits_until = waits_until.unwrap_or_default();
        let above = run::open_ancestors(&self.runs, run_id);
        for run_id in [run_id.clone()].into_iter().chain(above) {
            if let Some(run) = self.runs.run(&run_id) {
                let ttl = run::claim_ttl(&self.runs, run, waits_until, memory, self.now);
                self.claims.push(Claim { run_id, ttl });
            }
        }
    }

    /// Takes the draft into its run, and the run's facts into the draft.
    fn take_in(&mut self, run_id: &RunId, mut draft: Draft) -> usize {
        let before = self.runs.run(run_id);
        let (before_at, state) = (
            before.map(|run| run.last_event_at),
            before.map(|run| run.state),
        );
        draft.run_sequence = run::next_sequence(before);
        if let Some(run) = before {
            draft.thread_id = run.thread_id.clone().or(draft.thread_id);
            draft.agent_name = draft.agent_name.or_else(|| run.agent_name.clone());
            draft.parent_run_id = run.parent_run_id.clone();
        } else if draft.thread_id.is_none() {
            let parent = draft.parent_run_id.as_ref();
            let parent = parent.and_then(|parent| self.runs.run(parent));
            draft.thread_id = parent.and_then(|parent| parent.thread_id.clone());
        }
        let Effect { opened, ended, .. } = run::record(&mut self.runs, &draft, Offset(0));
        self.open_runs = (self.open_runs + usize::from(opened)).saturating_sub(usize::from(ended));
        let after = self.runs.run(run_id).map(|run| run.state);
        draft.state = after.filter(|_| after != state);
        let waits = matches!(draft.step, Step::Wait(_));
        if run::claim_is_due(before_at, waits, self.rules.run_memory, self.now) {
            self.claim(run_id);
        }
        self.push(draft)
    }

    /// Tells with the draft at `index` what its run came to.
    fn summarize(&mut self, run_id: &RunId, index: usize) {
        if let (Some(run), Some(draft)) = (self.runs.run(run_id), self.drafts.get_mut(index)) {
            draft.summary = Some(Box::new(run.summary()));
        }
    }

    fn push(&mut self, draft: Draft) -> usize {
        let index = self.drafts.len();
        let event = &draft.event;
        self.ids
            .insert(event.event_id.clone(), (index, event.content));
        self.drafts.push(draft);
        index
    }
}

/// Whether the event agrees with what is fixed for its run.
fn check_fixed(run: &Run, event: &Event) -> Result<(), Refusal> {
    let invalid = |field, rule| Err(Refusal::invalid_field(Reason::InvalidEvent, field, rule));
    if let (Some(known), Some(stated)) = (&run.thread_id, &event.thread_id)
        && known != stated
    {
        return invalid("thread_id", format!("the run belongs to thread {known:?}"));
    }
    // A second start is told as such, or only observed.
    let starts = matches!(event.step, Step::Start { .. });
    if !starts && event.parent_run_id.is_some() && run.parent_run_id != event.parent_run_id {
        let rule = "is another than the run's `agent_started` stated";
        return invalid("parent_run_id", rule.to_owned());
    }
    Ok(())
}

/// Whether one more fits.
fn within(limit: &'static str, whose: &str, count: usize, most: usize) -> Result<(), Refusal> {
    if count < most {
        return Ok(());
    }
    let what = limit.replace('_', " ");
    Err(
        Refusal::new(Reason::LimitExceeded, format!("{whose} has {count} {what}"))
            .with("limit", limit),
    )
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
