//! What clients acknowledge, in the key store of an engine that may fail.

use std::{sync::Arc, time::Duration};

use emitter::{
    clock::Clock,
    engine::{Engine, Key, memory},
    event::{ClientId, Epoch, Offset, Position, StreamKey},
    fanout::{Acks, CLIENTS, Config, Hub},
};
use tokio::task::yield_now;

use crate::support::{
    events,
    faulty_engine::{FaultyEngine, Odds},
};

const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    engine: Arc<FaultyEngine>,
    clock: Clock,
    user: StreamKey,
}

impl Rig {
    fn new() -> Self {
        let (memory, clock) = events::memory(memory::Config::default());
        Self {
            engine: FaultyEngine::new(memory, 1),
            clock,
            user: events::stream("u"),
        }
    }

    /// The acknowledgements as a node knows them that has just begun, and so has nothing but what is stored.
    fn node(&self) -> Arc<Acks> {
        let (engine, clock) = (self.engine.clone(), self.clock.clone());
        let hub = Hub::new(engine, Config::default(), clock, events::metrics());
        hub.acks().clone()
    }

    fn ack(&self, acks: &Arc<Acks>, client: &str, position: Position) {
        acks.acknowledge(&self.user, ClientId::new(client).unwrap(), position);
    }

    async fn of(&self, acks: &Acks, client: &str) -> Option<Position> {
        let client = ClientId::new(client).unwrap();
        acks.of_client(&self.user, &client).await.unwrap()
    }

    async fn clients(&self, acks: &Acks) -> Vec<String> {
        let acks = acks.of(&self.user).await.unwrap();
        let id = |ack: &emitter::fanout::Ack| ack.client_id.as_str().to_owned();
        acks.iter().map(id).collect()
    }
}

fn at(epoch: u64, offset: u64) -> Position {
    Position::new(Epoch::new(epoch), Offset(offset))
}

/// Waits until everything is stored; time passes by itself meanwhile.
async fn settled(acks: &Acks) {
    while !acks.is_settled() {
        tokio::time::sleep(SECOND / 100).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_counts_at_once_and_is_stored_soon() {
    let r = Rig::new();
    let acks = r.node();
    r.ack(&acks, "a", at(1, 5));
    assert_eq!(r.of(&acks, "a").await, Some(at(1, 5)));
    assert_eq!(r.of(&acks, "b").await, None);
    settled(&acks).await;
    let [ack] = &r.node().of(&r.user).await.unwrap()[..] else {
        panic!("one");
    };
    assert_eq!((ack.position, ack.at), (at(1, 5), events::START));
}

#[tokio::test(start_paused = true)]
async fn it_never_moves_back_within_an_epoch() {
    let r = Rig::new();
    for (acked, want) in [
        (at(1, 5), at(1, 5)),
        (at(1, 4), at(1, 5)),
        (at(1, 5), at(1, 5)),
        (at(1, 9), at(1, 9)),
        (at(2, 1), at(2, 1)),
        (at(2, 0), at(2, 1)),
    ] {
        // Neither what is stored nor what is still to be stored moves back.
        for _ in 0..2 {
            let acks = r.node();
            r.ack(&acks, "a", acked);
            assert_eq!(r.of(&acks, "a").await, Some(want), "after {acked}");
            r.ack(&acks, "a", Position::new(acked.epoch, Offset(0)));
            settled(&acks).await;
            assert_eq!(r.of(&r.node(), "a").await, Some(want), "after {acked}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_sixteen_the_client_that_acknowledged_longest_ago_is_forgotten() {
    let r = Rig::new();
    let acks = r.node();
    for n in 0..CLIENTS {
        r.ack(&acks, &format!("c{n}"), at(1, 1));
        settled(&acks).await;
    }
    r.ack(&acks, "c0", at(1, 1));
    r.ack(&acks, "new", at(1, 1));
    let mut want: Vec<_> = (2..CLIENTS).map(|n| format!("c{n}")).collect();
    want.extend(["c0".to_owned(), "new".to_owned()]);
    assert_eq!(r.clients(&acks).await, want);
    settled(&acks).await;
    assert_eq!(r.clients(&r.node()).await, want);
}

#[tokio::test(start_paused = true)]
async fn one_user_is_stored_at_most_once_a_second() {
    let r = Rig::new();
    let acks = r.node();
    r.ack(&acks, "a", at(1, 1));
    settled(&acks).await;
    let begun = tokio::time::Instant::now();
    for n in 2..100 {
        r.ack(&acks, "a", at(1, n));
        yield_now().await;
    }
    assert_eq!(
        r.of(&r.node(), "a").await,
        Some(at(1, 1)),
        "stored too early"
    );
    settled(&acks).await;
    assert!(begun.elapsed() <= SECOND, "{:?}", begun.elapsed());
    assert_eq!(r.of(&r.node(), "a").await, Some(at(1, 99)));
}

#[tokio::test(start_paused = true)]
async fn nodes_do_not_overwrite_each_other() {
    let r = Rig::new();
    let (one, two) = (r.node(), r.node());
    r.ack(&one, "a", at(1, 1));
    settled(&one).await;
    r.engine.fail_next_set();
    r.ack(&two, "b", at(1, 2));
    settled(&two).await;
    assert_eq!(r.clients(&r.node()).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_is_tried_again_and_given_up_in_the_end() {
    let r = Rig::new();
    let down = Odds {
        call: 1.0,
        ..Odds::default()
    };
    let acks = r.node();
    r.engine.set_odds(down);
    r.ack(&acks, "a", at(1, 1));
    tokio::time::sleep(3 * SECOND).await;
    assert!(!acks.is_settled());
    r.engine.set_odds(Odds::default());
    settled(&acks).await;
    assert_eq!(r.of(&r.node(), "a").await, Some(at(1, 1)));

    r.engine.set_odds(down);
    r.ack(&acks, "a", at(1, 2));
    let begun = tokio::time::Instant::now();
    settled(&acks).await;
    assert!(begun.elapsed() > 8 * SECOND, "{:?}", begun.elapsed());
    r.engine.set_odds(Odds::default());
    assert_eq!(r.of(&acks, "a").await, Some(at(1, 1)));
}

#[tokio::test(start_paused = true)]
async fn they_are_kept_for_a_week_after_the_last_one() {
    let r = Rig::new();
    let acks = r.node();
    // Put, and then replaced.
    for _ in 0..2 {
        r.clock.advance(events::hours(7 * 24) - SECOND);
        r.ack(&acks, "a", at(1, 1));
        settled(&acks).await;
    }
    r.clock.advance(events::hours(7 * 24) - SECOND);
    assert_eq!(r.of(&acks, "a").await, Some(at(1, 1)));
    r.clock.advance(SECOND);
    assert_eq!(r.of(&acks, "a").await, None);
    let key = Key::Acks(r.user.clone());
    assert_eq!(r.engine.get(&key).await.unwrap(), None);
}
