//! What a sequencer knows of a stream when it decides.

use std::time::Duration;

use super::{DedupeEntry, DedupeWindow};
use crate::{
    clock::Timestamp,
    event::{EventId, IdMap, Position, Record, RunId},
    run::{self, Book, Effect, Run},
};

/// How many ended runs of one user are remembered; more than that, and the ones that ended first are forgotten.
pub(super) const ENDED_RUNS: usize = 10_000;

/// How far `ENDED_RUNS` may be passed before it is enforced, so that enforcing it is cheap per run.
pub(super) const ENDED_RUNS_SLACK: usize = 1_000;

/// How often the runs are looked through for those whose time has come. A run that is asked for in between says itself
/// whether it is over.
const FORGET_RUNS_EVERY: Duration = Duration::from_secs(60);

/// A stream as its last record left it: everything that decides what becomes of the next event.
#[derive(Clone, Debug)]
pub struct StreamState {
    /// The position of the last record.
    pub head: Position,
    /// When the stream's epoch began, where a store that outlives its process changed it: something may have been lost.
    pub epoch_since: Option<Timestamp>,
    /// The ids that are remembered.
    pub dedupe: DedupeWindow,
    runs: Runs,
    /// When the runs are next looked through.
    forget_runs_at: Timestamp,
}

/// The runs of one stream.
#[derive(Clone, Debug, Default)]
struct Runs {
    known: IdMap<RunId, Run>,
    open: usize,
}

/// What an event changed, and what was taken and given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What it did to its run.
    pub effect: Effect,
    /// Bytes taken.
    pub taken: usize,
    /// Bytes given back.
    pub freed: usize,
    /// Ended runs forgotten before their time.
    pub runs_forgotten: usize,
}

impl StreamState {
    /// A stream without records whose head is `head`.
    pub fn empty(head: Position) -> Self {
        Self {
            head,
            epoch_since: None,
            dedupe: DedupeWindow::default(),
            runs: Runs::default(),
            forget_runs_at: Timestamp::default(),
        }
    }

    /// A stream as it was stored: its runs in any order, its ids oldest first.
    pub fn restored(
        head: Position,
        runs: impl IntoIterator<Item = (RunId, Run)>,
        ids: impl IntoIterator<Item = (EventId, DedupeEntry)>,
    ) -> Self {
        let mut state = Self::empty(head);
        for (run_id, run) in runs {
            state.runs.open += usize::from(run.state.is_open());
            state.runs.known.insert(run_id, run);
        }
        for (event_id, entry) in ids {
            state.dedupe.restore(event_id, entry);
        }
        state
    }

    /// How many runs are remembered that have not ended.
    pub fn open_runs(&self) -> usize {
        self.runs.open
    }

    /// Every run that is remembered, in no order.
    pub fn runs(&self) -> impl Iterator<Item = (&RunId, &Run)> {
        self.runs.known.iter()
    }

    /// Whether nothing is remembered but the head.
    pub fn is_empty(&self) -> bool {
        self.runs.known.is_empty() && self.dedupe.is_empty()
    }

    /// Takes in the next record of runs that are known as later records left them.
    pub(super) fn remember(&mut self, record: &Record) {
        if record.position.offset > self.head.offset {
            self.head = record.position;
        }
        self.dedupe.insert(record);
    }

    /// Takes in the next record, as its sequencer decided it.
    pub fn apply(&mut self, record: &Record) -> Change {
        self.head = record.position;
        let (taken, freed) = self.dedupe.insert(record);
        let mut change = Change {
            taken,
            freed,
            ..Change::default()
        };
        let draft = &record.draft;
        change.effect = run::record(&mut self.runs, draft, record.position.offset);
        change.taken += change.effect.taken;
        change.freed += change.effect.freed;
        self.runs.open += usize::from(change.effect.opened);
        self.runs.open -= usize::from(change.effect.ended);
        // Nobody waits for such a run to end.
        #[cfg(feature = "bench")]
        if draft.bare {
            change.effect = Effect::default();
        }
        if self.runs.known.len() - self.runs.open > ENDED_RUNS + ENDED_RUNS_SLACK {
            let runs = self.runs.known.len();
            change.freed += self.runs.forget_first_ended();
            change.runs_forgotten = runs - self.runs.known.len();
        }
        change
    }

    /// Forgets the runs whose time has come by `now`, if they were not looked through lately. Returns the bytes given
    /// back.
    pub fn forget_runs(&mut self, now: Timestamp, memory: Duration) -> usize {
        if now < self.forget_runs_at {
            return 0;
        }
        self.forget_runs_at = now + FORGET_RUNS_EVERY;
        let mut freed = 0;
        let known = &mut self.runs.known;
        known.retain(|run_id, run| {
            let keep = !run.is_forgotten(memory, now);
            if !keep {
                freed += run.weight(run_id);
            }
            keep
        });
        if known.capacity() > 64 && known.len() < known.capacity() / 4 {
            known.shrink_to_fit();
        }
        freed
    }

    /// Forgets what is over by `now`: ended runs after `memory`, ids by `window` and `ids`.
    pub fn forget(&mut self, now: Timestamp, memory: Duration, window: Duration, ids: usize) {
        self.forget_runs(now, memory);
        self.dedupe.forget(now, window, ids);
    }
}

impl Book for StreamState {
    fn run(&self, run_id: &RunId) -> Option<&Run> {
        self.runs.run(run_id)
    }

    fn run_mut(&mut self, run_id: &RunId) -> Option<&mut Run> {
        self.runs.run_mut(run_id)
    }

    fn put(&mut self, run_id: RunId, run: Run) -> Option<Run> {
        self.runs.put(run_id, run)
    }
}

impl Book for Runs {
    fn run(&self, run_id: &RunId) -> Option<&Run> {
        self.known.run(run_id)
    }

    fn run_mut(&mut self, run_id: &RunId) -> Option<&mut Run> {
        self.known.run_mut(run_id)
    }

    fn put(&mut self, run_id: RunId, run: Run) -> Option<Run> {
        let over = self.known.put(run_id, run);
        let was_open = over.as_ref().is_some_and(|over| over.state.is_open());
        self.open -= usize::from(was_open);
        over
    }
}

impl Runs {
    /// Forgets the runs that ended first, down to `ENDED_RUNS`. Returns the bytes given back.
    fn forget_first_ended(&mut self) -> usize {
        let mut ended: Vec<(Timestamp, RunId)> = self
            .known
            .iter()
            .filter(|(_, run)| !run.state.is_open())
            .map(|(run_id, run)| (run.last_event_at, run_id.clone()))
            .collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(ENDED_RUNS);
        let mut freed = 0;
        for (_, run_id) in ended.into_iter().take(surplus) {
            let over = self.known.remove(&run_id);
            freed += over.map_or(0, |over| over.weight(&run_id));
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::event::{
        Draft, Epoch, Event, EventId, Kind, Offset, ProducerId, RunSequence, Source, StreamKey,
        Tenant, UserId,
    };
    use crate::run::RUN_MEMORY;

    fn recorded(run: &str, sequence: u64, offset: u64, at: Timestamp, kind: Kind) -> Record {
        let user = UserId::new("u").unwrap();
        let event = Event::new(
            EventId::new(&format!("{run}-{sequence}")).unwrap(),
            StreamKey::new(Tenant::new("t").unwrap(), user),
            RunId::new(run).ok(),
            kind,
            Source::new(ProducerId::new("p").unwrap()),
            Bytes::new(),
        );
        Record {
            position: Position::new(Epoch::new(1), Offset(offset)),
            prev: Offset(offset - 1),
            draft: Draft {
                run_sequence: RunSequence(sequence),
                ..Draft::new(Arc::new(event), at)
            },
        }
    }

    #[test]
    fn runs_are_looked_through_once_a_minute_however_often_events_come() {
        let second = Duration::from_secs(1);
        let start = Timestamp::from_millis(1_800_000_000_000);
        let mut state = StreamState::empty(Position::new(Epoch::new(1), Offset(0)));
        state.apply(&recorded("open", 1, 1, start, Kind::AgentStarted));
        for (offset, run, at) in [(2, "r1", start), (4, "r2", start + second)] {
            state.apply(&recorded(run, 1, offset, at, Kind::AgentStarted));
            state.apply(&recorded(run, 2, offset + 1, at, Kind::AgentCompleted));
        }
        let over = start + RUN_MEMORY;
        let forget = |state: &mut StreamState, at| state.forget_runs(at, RUN_MEMORY);
        assert!(forget(&mut state, over) > 0);
        assert_eq!(forget(&mut state, over + second), 0);
        assert_eq!(state.runs().count(), 2);
        assert!(forget(&mut state, over + FORGET_RUNS_EVERY) > 0);
        // What has not ended is not forgotten.
        assert_eq!((state.runs().count(), state.open_runs()), (1, 1));
    }
}
