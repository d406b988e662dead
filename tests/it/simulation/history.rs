//! What must hold of everything that was ever stored, and of what was answered.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    clock::Clock,
    engine::{Engine, Watch, Watcher},
    event::{Kind, Position, Record, Step, StreamKey},
};

use super::{producer::Told, world::World};

/// Everything that was ever stored for one user, in the order in which the engine told of it, and when.
pub(super) struct Log {
    user: StreamKey,
    heard: Arc<Heard>,
    _watch: Watch,
}

struct Heard {
    clock: Clock,
    records: Mutex<Vec<(Arc<Record>, Duration)>>,
    /// Runs that have begun and not ended.
    open: Mutex<HashSet<String>>,
}

impl Watcher for Heard {
    fn stands_at(&self, _head: Position) {}

    fn appended(&self, records: &[Arc<Record>]) {
        let at = self.clock.steady();
        let (mut all, mut open) = (self.records.lock().unwrap(), self.open.lock().unwrap());
        for record in records {
            all.push((record.clone(), at));
            let run = run_of(record);
            match record.draft.event.kind.is_terminal() {
                true => open.remove(&run),
                false => open.insert(run),
            };
        }
    }
}

fn run_of(record: &Record) -> String {
    let run = record.draft.event.run_id.as_ref().expect("a run");
    run.as_str().to_owned()
}

/// A run as the log tells of it.
struct Run {
    timeout: Duration,
    parent: Option<String>,
    /// When its last sign of life was decided, by the time that passes.
    sign: Duration,
    events: u64,
    over: bool,
}

impl Log {
    pub(super) async fn new(engine: &dyn Engine, user: &StreamKey, clock: Clock) -> Arc<Self> {
        let heard = Arc::new(Heard {
            clock,
            records: Mutex::default(),
            open: Mutex::default(),
        });
        let watch = engine.watch(user, heard.clone()).await.expect("watched");
        Arc::new(Self {
            user: user.clone(),
            heard,
            _watch: watch,
        })
    }

    pub(super) fn records(&self) -> Vec<(Arc<Record>, Duration)> {
        self.heard.records.lock().unwrap().clone()
    }

    /// The records after `after` and up to `to`.
    pub(super) fn between(&self, after: u64, to: u64) -> Vec<Arc<Record>> {
        let records = self.heard.records.lock().unwrap();
        let from = records.partition_point(|(record, _)| record.position.offset.0 <= after);
        let end = records.partition_point(|(record, _)| record.position.offset.0 <= to);
        let between = records.get(from..end).unwrap_or_default();
        between.iter().map(|(record, _)| record.clone()).collect()
    }

    pub(super) fn last(&self) -> u64 {
        let records = self.heard.records.lock().unwrap();
        records
            .last()
            .map_or(0, |(record, _)| record.position.offset.0)
    }

    pub(super) fn open_runs(&self) -> usize {
        self.heard.open.lock().unwrap().len()
    }

    /// How many runs were ended because they were silent.
    pub(super) fn verdicts(&self) -> usize {
        let records = self.records();
        let verdicts = records.iter().filter(|(record, _)| is_verdict(record));
        verdicts.count()
    }

    /// One line for each record.
    pub(super) fn lines(&self) -> Vec<String> {
        let records = self.records();
        let line = |(record, at): &(Arc<Record>, Duration)| {
            let draft = &record.draft;
            let id = draft.event.event_id.as_str();
            format!(
                "{:5} {id} {} {at:?}",
                record.position.offset.0, draft.recorded_at
            )
        };
        records.iter().map(line).collect()
    }

    /// One order, each id once, and nobody else's event.
    pub(super) fn check_order(&self) {
        let (mut prev, mut ids) = (0, HashSet::new());
        for (record, _) in self.records() {
            let (at, id) = (
                record.position.offset.0,
                record.draft.event.event_id.clone(),
            );
            assert!(at > prev, "{at} comes after {prev}");
            assert_eq!(record.prev.0, prev, "before {at}");
            prev = at;
            assert_eq!(record.draft.event.stream, self.user, "at {at}");
            assert!(ids.insert(id.clone()), "{id:?} is stored twice");
        }
    }

    /// Acknowledged means stored, refused means not stored, and each producer's order is kept.
    pub(super) fn check_answers(&self, told: &[Vec<Told>]) {
        let records = self.records();
        let by_id: HashMap<_, _> = records
            .iter()
            .map(|(record, _)| (record.draft.event.event_id.clone(), record))
            .collect();
        let mut known = HashSet::new();
        for told in told {
            let mut before = 0;
            for told in told.iter().filter(|told| told.event.stream == self.user) {
                let id = &told.event.event_id;
                assert_eq!(told.user, self.number(), "{id:?}");
                known.insert(id.clone());
                match &told.answer {
                    Some(Ok(receipt)) => {
                        let record = by_id.get(id);
                        let record = record.unwrap_or_else(|| panic!("{receipt:?} is not stored"));
                        let offset = record.position.offset;
                        assert_eq!(receipt.position.offset, offset, "{receipt:?}");
                        assert_eq!(receipt.run_sequence, record.draft.run_sequence);
                        assert_eq!(record.draft.event.content, told.event.content, "{id:?}");
                        assert!(
                            offset.0 > before,
                            "{id:?} at {offset:?} comes before {before}"
                        );
                        before = offset.0;
                    }
                    Some(Err(refusal)) => {
                        assert!(!by_id.contains_key(id), "{id:?} is stored, but {refusal:?}");
                    }
                    None => {}
                }
            }
        }
        for (id, record) in by_id {
            let is_known = id.is_own() || known.contains(&id);
            assert!(is_known, "nobody sent {record:?}");
        }
    }

    fn number(&self) -> usize {
        let digits = self.user.user().as_str().trim_start_matches('u');
        digits.parse().expect("a number")
    }

    /// Every run counts its events without holes and ends exactly once, and none by the service before it was silent
    /// for as long as it may be, with all that is below it. What no node could know of is no excuse: see
    /// `Node::has_told_by`.
    pub(super) fn check_runs(&self, world: &World) {
        let mut runs: BTreeMap<String, Run> = BTreeMap::new();
        for (record, stored) in self.records() {
            let (draft, id) = (&record.draft, run_of(&record));
            let decided = world.decided(draft.recorded_at, stored);
            if is_verdict(&record) {
                let silent = decided.saturating_sub(last_sign(&runs, &id));
                let timeout = runs[&id].timeout;
                let excused = world.excused(self.number(), decided - silent, decided);
                assert!(
                    silent >= timeout + excused,
                    "{id} ended after {silent:?} of {timeout:?} and {excused:?}: {record:?}"
                );
            }
            let run = runs.entry(id.clone()).or_insert_with(|| Run {
                timeout: match (&draft.step, draft.recovered) {
                    (Step::Start { silence_timeout }, _) => silence_timeout.expect("settled"),
                    // After a change of the epoch, an event may come whose start was refused.
                    (_, Some(timeout)) => timeout,
                    _ => panic!("{id} begins with {record:?}"),
                },
                parent: draft
                    .parent_run_id
                    .as_ref()
                    .map(|id| id.as_str().to_owned()),
                sign: decided,
                events: 0,
                over: false,
            });
            assert!(!run.over, "after the end of {id}: {record:?}");
            run.events += 1;
            assert_eq!(draft.run_sequence.0, run.events, "{record:?}");
            run.over = draft.event.kind.is_terminal();
            if !draft.event.event_id.is_own() {
                run.sign = decided;
            }
        }
        for (id, run) in runs {
            assert!(run.over, "{id} never ends");
        }
    }
}

/// Whether it ends a run that was silent for too long.
fn is_verdict(record: &Record) -> bool {
    let event = &record.draft.event;
    event.event_id.is_own() && event.kind == Kind::AgentFailed
}

/// The last sign of life of a run and all below it.
fn last_sign(runs: &BTreeMap<String, Run>, id: &str) -> Duration {
    let below = runs
        .iter()
        .filter(|(_, run)| run.parent.as_deref() == Some(id));
    let below = below.map(|(child, _)| last_sign(runs, child));
    below.max().unwrap_or_default().max(runs[id].sign)
}
