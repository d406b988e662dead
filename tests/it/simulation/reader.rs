//! A reader: resumes by position wherever there is a node, reads fast or slowly, and checks every delivery against
//! everything that was ever stored.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::Engine,
    event::{Offset, Position, Record},
    fanout::{Delivery, Filter, Gap, GapReason, Start, Subscription},
};
use rand::{Rng, rngs::StdRng};

use super::{node::Node, world::World};
use crate::support::events::ALL;

pub(super) struct Reader {
    world: Arc<World>,
    user: usize,
    rng: StdRng,
    /// It has everything up to here, or was told that it is missing. `None`: it reads from the beginning.
    cursor: Option<Position>,
}

impl Reader {
    pub(super) fn new(world: Arc<World>, number: usize, rng: StdRng) -> Self {
        Self {
            user: number % world.users.len(),
            world,
            rng,
            cursor: None,
        }
    }

    pub(super) async fn run(mut self) {
        let end = self.world.end.subscribe();
        loop {
            let node = self.world.some_node(&mut self.rng).await;
            let Some(mut subscription) = self.subscribe(&node).await else {
                self.pause(500).await;
                continue;
            };
            loop {
                let last = self.world.logs[self.user].last();
                let done = self.cursor.is_some_and(|cursor| cursor.offset.0 >= last);
                if done && *end.borrow() {
                    return;
                }
                // At the end it only waits.
                let over = *end.borrow();
                match self.rng.random_range(0..20) {
                    0 if !over => {
                        self.pause(3_000).await;
                        break;
                    }
                    // A slow one.
                    1..4 => self.pause(2_000).await,
                    _ => {}
                }
                let bytes = self.rng.random_range(0..20_000);
                let patience = Duration::from_millis(self.rng.random_range(1..5_000));
                let next = tokio::time::timeout(patience, subscription.next(bytes));
                let next = tokio::select! {
                    biased;
                    () = node.died() => break,
                    next = next => next,
                };
                // Given up, or the engine failed: nothing is lost by asking again.
                if let Ok(Ok(delivery)) = next {
                    self.check(delivery).await;
                }
            }
        }
    }

    async fn subscribe(&mut self, node: &Node) -> Option<Subscription> {
        let start = self.cursor.map_or(Start::Oldest, Start::After);
        let stream = &self.world.users[self.user];
        let subscribed = node.hub.subscribe(stream, start, Filter::default());
        let subscribed = tokio::select! {
            biased;
            () = node.died() => return None,
            subscribed = subscribed => subscribed,
        };
        let subscription = subscribed.ok()?;
        self.cursor.get_or_insert(subscription.position());
        Some(subscription)
    }

    async fn pause(&mut self, most: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..most))).await;
    }

    async fn check(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Events { entries, .. } => {
                for entry in entries {
                    self.check_record(&entry.record);
                }
            }
            Delivery::CaughtUp(position) => self.pass(position),
            Delivery::Gap(gap) => self.check_gap(gap).await,
        }
    }

    /// The record is the next one.
    fn check_record(&mut self, record: &Arc<Record>) {
        let position = record.position;
        assert_eq!(record.draft.event.stream, self.world.users[self.user]);
        self.pass(Position::new(position.epoch, Offset(position.offset.0 - 1)));
        self.cursor = Some(position);
    }

    /// Nothing lies between the cursor and `to`.
    fn pass(&mut self, to: Position) {
        let log = &self.world.logs[self.user];
        let cursor = self.cursor.expect("it has begun");
        assert_eq!(to.epoch, cursor.epoch);
        assert!(
            to.offset >= cursor.offset || log.last() == 0,
            "{to} is before {cursor}"
        );
        let missing = log.between(cursor.offset.0, to.offset.0);
        assert!(
            missing.is_empty(),
            "between {cursor} and {to} is {missing:?}"
        );
        self.cursor = Some(to);
    }

    /// Something is gone, and nothing else is skipped; or the epoch is another, and everything comes again.
    async fn check_gap(&mut self, gap: Gap) {
        assert_eq!(Some(gap.after), self.cursor, "{gap:?}");
        let log = &self.world.logs[self.user];
        let page = self
            .world
            .memory
            .read(&self.world.users[self.user], Offset(0), ALL);
        let trimmed = page.await.expect("memory").trimmed;
        assert!(
            gap.next.offset <= trimmed,
            "{gap:?}, but {trimmed:?} is trimmed"
        );
        match gap.reason {
            GapReason::Trimmed => {
                let missing = log.between(gap.after.offset.0, gap.next.offset.0);
                assert!(!missing.is_empty(), "{gap:?}, but nothing is missing");
            }
            GapReason::EpochChanged => assert_ne!(gap.after.epoch, gap.next.epoch),
            GapReason::PositionAhead => panic!("{gap:?}: nothing was lost"),
        }
        self.cursor = Some(gap.next);
    }
}
