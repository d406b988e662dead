//! What a sequencer knows of a stream when it decides.

use std::time::Duration;

use super::DedupeWindow;
use crate::{
    clock::Timestamp,
    event::{IdMap, Position, Record, RunId},
    run::RunState,
};

/// How many ended runs of one user are remembered; more than that, and the ones that ended first are forgotten.
const ENDED_RUNS: usize = 10_000;

/// How far `ENDED_RUNS` may be passed before it is enforced, so that enforcing it is cheap per run.
const ENDED_RUNS_SLACK: usize = 1_000;

/// How often the runs are looked through for those whose time has come. A run that is asked for in between says itself
/// whether it is over.
const FORGET_RUNS_EVERY: Duration = Duration::from_secs(60);

/// A stream as its last record left it: everything that decides what becomes of the next event.
#[derive(Clone, Debug)]
pub struct StreamState {
    /// The position of the last record.
    pub head: Position,
    /// The ids that are remembered.
    pub dedupe: DedupeWindow,
    runs: IdMap<RunId, RunState>,
    open_runs: usize,
    /// When the runs are next looked through.
    forget_runs_at: Timestamp,
}

/// What was taken and given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
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
            dedupe: DedupeWindow::default(),
            runs: IdMap::default(),
            open_runs: 0,
            forget_runs_at: Timestamp::default(),
        }
    }

    /// What is known of the run.
    pub fn run(&self, run_id: &RunId) -> Option<&RunState> {
        self.runs.get(run_id)
    }

    /// How many runs are remembered that have not ended.
    pub fn open_runs(&self) -> usize {
        self.open_runs
    }

    /// Whether nothing is remembered but the head.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.dedupe.is_empty()
    }

    /// Takes in the next record, as its sequencer decided it.
    pub fn apply(&mut self, record: &Record) -> Change {
        self.head = record.position;
        let mut change = Change {
            taken: self.dedupe.insert(record),
            ..Change::default()
        };
        let Some(run_id) = &record.draft.event.run_id else {
            return change;
        };
        let held = self.runs.get(run_id);
        // A first event begins a new run, whatever is still held under its id.
        let before = held.filter(|_| record.draft.run_sequence.0 > 1);
        let after = RunState::recorded(before, &record.draft);
        let was_open = held.is_some_and(|run| !run.ended);
        if held.is_none() {
            change.taken += run_weight(run_id);
        }
        self.open_runs = self.open_runs + usize::from(!after.ended) - usize::from(was_open);
        self.runs.insert(run_id.clone(), after);
        if self.runs.len() - self.open_runs > ENDED_RUNS + ENDED_RUNS_SLACK {
            let runs = self.runs.len();
            change.freed += self.forget_first_ended();
            change.runs_forgotten = runs - self.runs.len();
        }
        change
    }

    /// Forgets the runs whose time has come by `now`, if they were not looked through lately. Returns the bytes given
    /// back.
    pub fn forget_runs(&mut self, now: Timestamp) -> usize {
        if now < self.forget_runs_at {
            return 0;
        }
        self.forget_runs_at = now + FORGET_RUNS_EVERY;
        let open = &mut self.open_runs;
        let mut freed = 0;
        self.runs.retain(|run_id, run| {
            let keep = run.forgotten_at() > now;
            if !keep {
                freed += run_weight(run_id);
                *open -= usize::from(!run.ended);
            }
            keep
        });
        if self.runs.capacity() > 64 && self.runs.len() < self.runs.capacity() / 4 {
            self.runs.shrink_to_fit();
        }
        freed
    }

    /// Forgets what is over by `now`: runs by their own rule, ids by `window` and `ids`.
    pub fn forget(&mut self, now: Timestamp, window: Duration, ids: usize) {
        self.forget_runs(now);
        self.dedupe.forget(now, window, ids);
    }

    /// Forgets the runs that ended first, down to `ENDED_RUNS`. Returns the bytes given back.
    fn forget_first_ended(&mut self) -> usize {
        let mut ended: Vec<(Timestamp, RunId)> = self
            .runs
            .iter()
            .filter(|(_, run)| run.ended)
            .map(|(run_id, run)| (run.last_event_at, run_id.clone()))
            .collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(ENDED_RUNS);
        let mut freed = 0;
        for (_, run_id) in ended.into_iter().take(surplus) {
            freed += run_weight(&run_id);
            self.runs.remove(&run_id);
        }
        freed
    }
}

/// About how many bytes a remembered run takes.
fn run_weight(run_id: &RunId) -> usize {
    const MAP: usize = 16; // what a map adds to an entry at its usual load
    run_id.as_str().len() + size_of::<(RunId, RunState)>() + MAP
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::event::{
        ContentHash, Draft, Epoch, Event, EventId, Kind, Offset, RunSequence, StreamKey, Tenant,
        UserId,
    };
    use crate::run::RUN_MEMORY;

    fn started(run: &str, offset: u64, recorded_at: Timestamp) -> Record {
        let user = UserId::new("u").unwrap();
        let event = Event {
            event_id: EventId::new(run).unwrap(),
            stream: StreamKey::new(Tenant::new("t").unwrap(), user),
            run_id: RunId::new(run).ok(),
            thread_id: None,
            parent_run_id: None,
            agent_name: None,
            kind: Kind::AgentStarted,
            content: ContentHash::of(b""),
            joinable: false,
            body: Bytes::new(),
        };
        Record {
            position: Position::new(Epoch::new(1), Offset(offset)),
            prev: Offset(offset - 1),
            draft: Draft {
                event: Arc::new(event),
                run_sequence: RunSequence(1),
                recorded_at,
                thread_id: None,
                agent_name: None,
                parent_run_id: None,
            },
        }
    }

    #[test]
    fn runs_are_looked_through_once_a_minute_however_often_events_come() {
        let second = Duration::from_secs(1);
        let start = Timestamp::from_millis(1_800_000_000_000);
        let mut state = StreamState::empty(Position::new(Epoch::new(1), Offset(0)));
        state.apply(&started("r1", 1, start));
        state.apply(&started("r2", 2, start + second));
        let over = start + RUN_MEMORY;
        assert!(state.forget_runs(over) > 0);
        assert_eq!(state.forget_runs(over + second), 0);
        assert_eq!(state.open_runs(), 1);
        assert!(state.forget_runs(over + FORGET_RUNS_EVERY) > 0);
        assert!(state.runs.is_empty());
    }
}
