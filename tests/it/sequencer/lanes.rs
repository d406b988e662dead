//! Lanes: what waits together is stored together, in the order in which it came.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use emitter::{engine::memory, event::Kind, sequencer::Config};

use crate::support::{
    events::{event, note, stream},
    rig::{Rig, observing, until, words},
};

#[tokio::test(start_paused = true)]
async fn what_waits_is_stored_in_one_append_in_the_order_of_its_arrival() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.hold();
    let mut calls = Vec::new();
    for n in 0..300 {
        let events = vec![note(&user, &format!("e{n:03}"))];
        let (sequencer, user) = (rig.sequencer.clone(), user.clone());
        calls.push(tokio::spawn(async move {
            sequencer.submit(user, events, None).await
        }));
        until("it waits", || rig.sequencer.in_flight() == n + 1).await;
    }
    rig.engine.release();
    for call in calls {
        assert_eq!(words(&call.await.unwrap()), ["stored"]);
    }
    assert_eq!(rig.engine.appends(), 2, "the first, and all that waited");
    let ids = rig.stored_ids(&user).await;
    assert!(ids.is_sorted(), "{ids:?}");
    assert_eq!(ids.len(), 300);
    until("nothing in flight", || rig.sequencer.in_flight() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_group_is_bounded_in_events() {
    let rig = Rig::new();
    let user = stream("u");
    rig.engine.hold();
    let submit = |name: &str, count: usize| {
        let events = (0..count)
            .map(|n| note(&user, &format!("{name}{n}")))
            .collect();
        let (sequencer, user) = (rig.sequencer.clone(), user.clone());
        tokio::spawn(async move { sequencer.submit(user, events, None).await })
    };
    let mut calls = vec![submit("a", 1)];
    until("the append", || rig.engine.waiting() == 1).await;
    let mut waiting = 1;
    for (name, count) in [("b", 600), ("c", 400), ("d", 1), ("e", 1_000)] {
        calls.push(submit(name, count));
        waiting += count;
        until("it waits", || rig.sequencer.in_flight() == waiting).await;
    }
    rig.engine.release();
    for call in calls {
        let answers = call.await.unwrap();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    assert_eq!(rig.engine.appends(), 4, "a, b with c, d, e");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_keeps_its_order_among_many() {
    const TASKS: usize = 8;
    const EACH: usize = 200;
    let rig = Rig::new();
    let user = stream("u");
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (sequencer, user) = (rig.sequencer.clone(), user.clone());
            tokio::spawn(async move {
                for n in 0..EACH {
                    let run = format!("r{task}");
                    let id = format!("t{task}-{n:03}");
                    let event = event(&user, &id, Some(&run), Kind::AgentThinking);
                    let events = vec![Arc::new(event)];
                    let answers = sequencer.submit(user.clone(), events, None).await;
                    let receipt = answers[0].as_ref().expect("stored");
                    assert_eq!(receipt.run_sequence.0, n as u64 + 1, "{id}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stored = rig.stored(&user).await;
    assert_eq!(stored.len(), TASKS * EACH);
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for record in &stored {
        let id = record.draft.event.event_id.as_str().to_owned();
        let before = last.insert(id[..2].to_owned(), id.clone());
        assert!(before.as_ref() < Some(&id), "{id} after {before:?}");
    }
    until("nothing in flight", || rig.sequencer.in_flight() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_was_let_go_is_loaded_with_its_state_intact() {
    let evicting = Config {
        lanes: 1,
        ..observing()
    };
    for (what, config) in [("idle", observing()), ("evicted", evicting)] {
        let rig = Rig::with(config, memory::Config::default(), 1);
        let user = stream("u");
        let thinks = |id: &str| event(&user, id, Some("r"), Kind::AgentThinking);
        let others: Vec<_> = (0..400).map(|n| stream(&format!("o{n}"))).collect();
        for n in 1..4u64 {
            let ids = [format!("a{n}"), format!("b{n}")];
            let answers = rig.emit(&user, ids.iter().map(|id| thinks(id))).await;
            let sequences: Vec<_> = answers.iter().flatten().map(|r| r.run_sequence.0).collect();
            assert_eq!(sequences, [2 * n - 1, 2 * n], "{what}");
            let loads = rig.engine.loads();
            if what == "idle" {
                rig.clock.advance(Duration::from_secs(30));
                rig.sequencer.maintain();
            } else {
                for other in &others {
                    let events = vec![note(other, &format!("o{n}"))];
                    rig.sequencer.submit(other.clone(), events, None).await;
                }
            }
            let retry = rig.emit(&user, [thinks(&ids[0])]).await;
            assert_eq!(words(&retry), ["duplicate"], "{what}");
            assert!(rig.engine.loads() > loads, "{what}: it was loaded again");
        }
        assert_eq!(rig.stored(&user).await.len(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_in_use_is_never_let_go() {
    let config = Config {
        lanes: 1,
        ..observing()
    };
    let rig = Rig::with(config, memory::Config::default(), 1);
    rig.engine.hold();
    let users: Vec<_> = (0..200).map(|n| stream(&format!("u{n}"))).collect();
    let submit = |user: &emitter::event::StreamKey, id: &str| {
        let (sequencer, events, user) = (rig.sequencer.clone(), vec![note(user, id)], user.clone());
        tokio::spawn(async move { sequencer.submit(user, events, None).await })
    };
    let mut calls: Vec<_> = users.iter().map(|user| submit(user, "a")).collect();
    until("all are driven", || rig.engine.waiting() == users.len()).await;
    rig.clock.advance(Duration::from_secs(3_600));
    rig.sequencer.maintain();
    calls.extend(users.iter().map(|user| submit(user, "b")));
    until("all wait", || rig.sequencer.in_flight() == 2 * users.len()).await;
    assert_eq!(
        rig.engine.waiting(),
        users.len(),
        "one append at a time for each user"
    );
    rig.engine.release();
    for call in calls {
        assert_eq!(words(&call.await.unwrap()), ["stored"]);
    }
    for user in &users {
        assert_eq!(rig.stored_ids(user).await, ["a", "b"]);
    }
}
