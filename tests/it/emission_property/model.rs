//! What must hold of everything that was ever stored, and of what was answered.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    clock::Timestamp,
    engine::{Engine, Watch, Watcher},
    event::{Event, Position, Record, StreamKey},
    reason::Reason,
    run::RUN_MEMORY,
};

use crate::support::rig::{Answer, word};

/// How long ids are remembered.
const WINDOW: Duration = Duration::from_secs(600);

/// Everything that was ever stored for one user, in the order in which the engine told of it.
pub(super) struct Log {
    pub(super) user: StreamKey,
    heard: Arc<Heard>,
    _watch: Watch,
}

#[derive(Default)]
struct Heard(Mutex<Vec<Arc<Record>>>);

impl Watcher for Heard {
    fn stands_at(&self, _head: Position) {}

    fn appended(&self, records: &[Arc<Record>]) {
        self.0.lock().unwrap().extend_from_slice(records);
    }
}

impl Log {
    pub(super) async fn new(engine: &dyn Engine, user: &StreamKey) -> Arc<Self> {
        let heard = Arc::new(Heard::default());
        let watch = engine.watch(user, heard.clone()).await.expect("watched");
        Arc::new(Self {
            user: user.clone(),
            heard,
            _watch: watch,
        })
    }

    pub(super) fn records(&self) -> Vec<Arc<Record>> {
        self.heard.0.lock().unwrap().clone()
    }

    /// The records after `after` and up to `to`.
    pub(super) fn between(&self, after: u64, to: u64) -> Vec<Arc<Record>> {
        let records = self.heard.0.lock().unwrap();
        let from = records.partition_point(|record| record.position.offset.0 <= after);
        let end = records.partition_point(|record| record.position.offset.0 <= to);
        records.get(from..end).unwrap_or_default().to_vec()
    }

    pub(super) fn last(&self) -> u64 {
        let records = self.heard.0.lock().unwrap();
        records.last().map_or(0, |record| record.position.offset.0)
    }

    /// One total order, run sequences without holes, every id once within its window, nobody else's event.
    pub(super) fn check_order(&self) {
        let mut prev = 0;
        let mut runs: HashMap<String, (u64, Timestamp)> = HashMap::new();
        let mut ids: HashMap<String, Timestamp> = HashMap::new();
        for record in self.records() {
            let draft = &record.draft;
            let at = record.position.offset.0;
            assert!(at > prev, "{at} comes after {prev}");
            assert_eq!(record.prev.0, prev, "before {at}");
            prev = at;
            assert_eq!(draft.event.stream, self.user, "at {at}");
            let id = draft.event.event_id.as_str().to_owned();
            if let Some(before) = ids.insert(id.clone(), draft.recorded_at) {
                let apart = draft.recorded_at.since(before);
                assert!(apart >= WINDOW, "{id} is stored twice, {apart:?} apart");
            }
            let Some(run) = &draft.event.run_id else {
                assert_eq!(draft.run_sequence.0, 0, "{id}");
                continue;
            };
            let want = match runs.get(run.as_str()) {
                Some((last, last_at)) if *last_at + RUN_MEMORY > draft.recorded_at => last + 1,
                _ => 1,
            };
            assert_eq!(draft.run_sequence.0, want, "{id} of {run:?} at {at}");
            runs.insert(run.as_str().to_owned(), (want, draft.recorded_at));
        }
    }
}

/// One event of one call, and what was answered; `None` if the caller went away before.
pub(super) struct Told {
    pub(super) user: usize,
    pub(super) event: Arc<Event>,
    pub(super) answer: Option<Answer>,
}

/// What one producer did and was told.
#[derive(Default)]
pub(super) struct History {
    pub(super) told: Vec<Told>,
    /// Ids by user that were acknowledged before the producer went on, in its order.
    pub(super) in_order: Vec<(usize, String)>,
}

/// Acknowledged means stored, refused means not stored, and each producer's order is kept.
pub(super) fn check_answers(logs: &[Arc<Log>], histories: &[History]) {
    for (user, log) in logs.iter().enumerate() {
        let records = log.records();
        let mut by_offset = BTreeMap::new();
        let mut first: HashMap<&str, u64> = HashMap::new();
        for record in &records {
            let offset = record.position.offset.0;
            by_offset.insert(offset, record);
            let id = record.draft.event.event_id.as_str();
            first.entry(id).or_insert(offset);
        }
        let mut may_be_stored: HashMap<&str, bool> = HashMap::from([("end", true)]);
        let told = histories.iter().flat_map(|history| &history.told);
        for told in told.filter(|told| told.user == user) {
            let id = told.event.event_id.as_str();
            let stored = match &told.answer {
                Some(Ok(receipt)) => {
                    let record = by_offset.get(&receipt.position.offset.0);
                    let record = record.unwrap_or_else(|| panic!("{receipt:?} is not stored"));
                    assert_eq!(receipt, &record.receipt(receipt.duplicate));
                    assert_eq!(record.draft.event.event_id.as_str(), id);
                    assert_eq!(record.draft.event.content, told.event.content, "{id}");
                    true
                }
                Some(Err(refusal)) => refusal.reason == Reason::OutcomeUnknown,
                None => true,
            };
            *may_be_stored.entry(id).or_default() |= stored;
        }
        for id in first.keys() {
            let may = may_be_stored.get(id).copied().unwrap_or(false);
            assert!(may, "{id} is stored, but every answer denied it");
        }
        for history in histories {
            let mut before = (0, "");
            for (_, id) in history.in_order.iter().filter(|(of, _)| *of == user) {
                let at = first.get(&**id).copied().expect("it was acknowledged");
                assert!(at > before.0, "{id} at {at} comes before {before:?}");
                before = (at, id);
            }
        }
    }
    let told = histories.iter().flat_map(|history| &history.told);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for told in told {
        *counts
            .entry(told.answer.as_ref().map_or("gone", word))
            .or_default() += 1;
    }
    println!("answers {counts:?}");
}
