//! A reader: comes, goes, resumes where it was, and checks every delivery against everything that was ever stored.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::Engine,
    event::{Epoch, Kind, Offset, Position, Record},
    fanout::{Delivery, Filter, Gap, GapReason, Start, Subscription},
};
use rand::{Rng, rngs::StdRng};

use super::{World, model::Log};
use crate::support::{
    events::{ALL, run_id},
    schedule,
};

pub(super) struct Reader {
    world: Arc<World>,
    user: usize,
    rng: StdRng,
    filter: Filter,
    /// It has everything up to here that its filter admits, or was told that it is missing.
    cursor: Position,
    /// The gap that must come first.
    due: Option<GapReason>,
}

impl Reader {
    pub(super) fn new(world: Arc<World>, user: usize, mut rng: StdRng) -> Self {
        let types = |kinds: &[Kind]| {
            let names = kinds.iter().map(|kind| kind.wire_type().to_owned());
            Some(names.collect())
        };
        let filter = match rng.random_range(0..5) {
            0 => Filter {
                run_id: Some(run_id(&format!("u{user}-r1"))),
                ..Filter::default()
            },
            1 => Filter {
                types: types(&[Kind::AgentCompleted, Kind::AgentStarted]),
                ..Filter::default()
            },
            2 => Filter {
                types: types(&[Kind::ToolProgress]),
                ..Filter::default()
            },
            _ => Filter::default(),
        };
        Self {
            world,
            user,
            rng,
            filter,
            cursor: Position::new(Epoch::new(0), Offset(0)),
            due: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut subscription = self.begin().await;
        let last = self.world.last.subscribe();
        for turn in 0.. {
            let end = last.borrow().as_ref().map(|last| last[self.user]);
            if end.is_some_and(|end| self.cursor.offset.0 >= end) && self.due.is_none() {
                return;
            }
            assert!(
                end.is_none() || turn < 100_000,
                "stuck at {}, the end is {end:?}",
                self.cursor
            );
            match self.rng.random_range(0..20) {
                0 if end.is_none() => {
                    drop(subscription);
                    self.pause(100).await;
                    subscription = self.resume().await;
                }
                // A slow one.
                1..4 => self.pause(40).await,
                _ => {
                    let bytes = self.rng.random_range(0..20_000);
                    let patience = Duration::from_millis(self.rng.random_range(1..30));
                    let next = tokio::time::timeout(patience, subscription.next(bytes)).await;
                    // Given up, or the engine failed: nothing is lost by asking again.
                    if let Ok(Ok(delivery)) = next {
                        self.check(delivery).await;
                    }
                }
            }
        }
    }

    async fn pause(&mut self, most: u64) {
        schedule::pass(&mut self.rng, 0..most).await;
    }

    /// Subscribes anew, at the head, the oldest, or somewhere that is none.
    async fn begin(&mut self) -> Subscription {
        let head = self.world.rig.memory.load(&self.world.users[self.user]);
        let head = head.await.unwrap().head;
        let (start, due) = match self.rng.random_range(0..6) {
            0 => {
                let foreign = Position::new(Epoch::new(0xf0), Offset(self.rng.random_range(0..9)));
                (Start::After(foreign), Some(GapReason::EpochChanged))
            }
            1 => {
                let ahead = Position::new(head.epoch, Offset(1_000_000));
                (Start::After(ahead), Some(GapReason::PositionAhead))
            }
            2 => (Start::Head, None),
            _ => (Start::Oldest, None),
        };
        let subscription = self.subscribe(start).await;
        self.due = due;
        self.cursor = subscription.position();
        subscription
    }

    async fn resume(&mut self) -> Subscription {
        if self.rng.random_bool(0.1) || self.due.is_some() {
            return self.begin().await;
        }
        self.subscribe(Start::After(self.cursor)).await
    }

    async fn subscribe(&mut self, start: Start) -> Subscription {
        let user = self.world.users[self.user].clone();
        loop {
            let filter = self.filter.clone();
            match self.world.hub.subscribe(&user, start, filter).await {
                Ok(subscription) => return subscription,
                Err(_) => self.pause(5).await,
            }
        }
    }

    async fn check(&mut self, delivery: Delivery) {
        let log = self.world.logs[self.user].clone();
        if let Some(due) = self.due.take() {
            match delivery {
                Delivery::Gap(gap) if gap.reason == due && gap.after == self.cursor => {
                    self.cursor = gap.next;
                    return;
                }
                other => panic!("{due:?} is due, not {other:?}"),
            }
        }
        match delivery {
            Delivery::Events { entries, .. } => {
                assert!(!entries.is_empty());
                for entry in entries {
                    self.check_record(&log, &entry.record);
                }
            }
            Delivery::CaughtUp(position) => self.pass(&log, position),
            Delivery::Gap(gap) => self.check_gap(&log, gap).await,
        }
    }

    /// The record is the next one that the filter admits.
    fn check_record(&mut self, log: &Log, record: &Arc<Record>) {
        let position = record.position;
        assert_eq!(record.draft.event.stream, self.world.users[self.user]);
        assert!(self.filter.admits(record), "{record:?}");
        let stored = log.between(position.offset.0 - 1, position.offset.0);
        assert!(
            stored.iter().any(|stored| Arc::ptr_eq(stored, record)),
            "{record:?} is not what was stored: {stored:?}"
        );
        let before = Position::new(position.epoch, Offset(position.offset.0 - 1));
        assert!(
            position.offset > self.cursor.offset,
            "{position} was there before {}",
            self.cursor
        );
        self.pass(log, before);
        self.cursor = position;
    }

    /// Nothing that the filter admits lies between the cursor and `to`.
    fn pass(&mut self, log: &Log, to: Position) {
        assert_eq!(to.epoch, self.cursor.epoch);
        assert!(
            to.offset >= self.cursor.offset || log.last() == 0,
            "{to} is before {}",
            self.cursor
        );
        let passed = log.between(self.cursor.offset.0, to.offset.0);
        let missing = passed.iter().find(|record| self.filter.admits(record));
        assert!(
            missing.is_none(),
            "between {} and {to} is {missing:?}",
            self.cursor
        );
        self.cursor = to;
    }

    /// Something is missing, all of it is gone, and nothing else is skipped.
    async fn check_gap(&mut self, log: &Log, gap: Gap) {
        assert_eq!(gap.reason, GapReason::Trimmed, "{gap:?}");
        self.pass(log, gap.after);
        let missing = log.between(gap.after.offset.0, gap.next.offset.0);
        assert!(!missing.is_empty(), "{gap:?}, but nothing is missing");
        let user = &self.world.users[self.user];
        let page = self.world.rig.memory.read(user, Offset(0), ALL).await;
        let trimmed = page.unwrap().trimmed;
        assert!(
            gap.next.offset <= trimmed,
            "{gap:?}, but {trimmed:?} is trimmed"
        );
        self.cursor = gap.next;
    }
}
