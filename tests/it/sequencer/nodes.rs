//! Several nodes write to one stream: what one of them knows may be old.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::memory,
    event::{Epoch, Event, Kind, StreamKey},
    reason::Reason,
    sequencer::{Config, Sequencer},
};

use crate::support::{
    events::{event, stream},
    faulty_engine::Odds,
    rig::{Answer, Rig, words},
};

const MINUTE: Duration = Duration::from_secs(60);

/// Two nodes that both know the stream of `u`, with one run.
async fn nodes() -> (Rig, [Arc<Sequencer>; 2], StreamKey) {
    let rig = Rig::with(Config::default(), memory::Config::default(), 1);
    let nodes = [rig.sequencer.clone(), rig.node(Config::default(), 2)];
    let user = stream("u");
    let starts = event(&user, "0", Some("known"), Kind::AgentStarted);
    for answer in ["stored", "duplicate"].into_iter().zip(&nodes) {
        let (want, node) = answer;
        assert_eq!(words(&emit(node, &user, starts.clone()).await), [want]);
    }
    (rig, nodes, user)
}

async fn emit(node: &Arc<Sequencer>, user: &StreamKey, event: Event) -> Vec<Answer> {
    node.submit(user.clone(), vec![Arc::new(event)], None).await
}

#[tokio::test(start_paused = true)]
async fn an_event_is_not_refused_for_what_another_node_has_changed() {
    let (_rig, [one, two], user) = nodes().await;
    let starts = event(&user, "1", Some("r"), Kind::AgentStarted);
    assert_eq!(words(&emit(&one, &user, starts).await), ["stored"]);
    let thinks = event(&user, "2", Some("r"), Kind::AgentThinking);
    assert_eq!(words(&emit(&two, &user, thinks).await), ["stored"]);
    // What is refused is refused for what is so.
    let ends = event(&user, "3", Some("r"), Kind::AgentCompleted);
    assert_eq!(words(&emit(&two, &user, ends).await), ["stored"]);
    let late = event(&user, "4", Some("r"), Kind::AgentThinking);
    assert_eq!(words(&emit(&one, &user, late).await), ["RUN_ENDED"]);
}

/// A retry goes to any node.
#[tokio::test(start_paused = true)]
async fn nodes_of_one_store_have_one_key_of_content_hashes() {
    let (rig, [one, two], user) = nodes().await;
    let key = one.content_key(&user).await.unwrap();
    assert_eq!(two.content_key(&user).await.unwrap(), key);
    // A node that knows the key needs no store for it; one that does not cannot take events in.
    let three = rig.node(Config::default(), 3);
    let fails = Odds {
        call: 1.0,
        ..Odds::default()
    };
    rig.engine.set_odds(fails);
    assert_eq!(one.content_key(&user).await.unwrap(), key);
    let refused = three.content_key(&user).await.unwrap_err();
    assert_eq!(refused.reason, Reason::EngineUnavailable);
    rig.engine.set_odds(Odds::default());
    assert_eq!(three.content_key(&user).await.unwrap(), key);
    assert_ne!(
        Rig::with(Config::default(), memory::Config::default(), 9)
            .sequencer
            .content_key(&user)
            .await
            .unwrap(),
        key
    );
}

/// The node that watches has heard nothing of the run but that it is due.
#[tokio::test(start_paused = true)]
async fn a_watchdog_ends_runs_that_other_nodes_started() {
    let (rig, [one, two], user) = nodes().await;
    one.sweep().await;
    let starts = event(&user, "1", Some("r"), Kind::AgentStarted);
    assert_eq!(words(&emit(&two, &user, starts).await), ["stored"]);
    let ends = event(&user, "2", Some("known"), Kind::AgentCompleted);
    assert_eq!(words(&emit(&two, &user, ends).await), ["stored"]);
    rig.clock.advance(15 * MINUTE);
    one.sweep().await;
    let stored = rig.stored(&user).await;
    assert_eq!(stored.len(), 4, "{stored:?}");
    assert_eq!(stored[3].draft.event.kind, Kind::AgentFailed);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_of_an_old_epoch_is_not_given_again_unseen() {
    let (rig, [one, _], user) = nodes().await;
    rig.epochs.lose(Epoch::new(7), rig.clock.now());
    let again = event(&user, "0", Some("known"), Kind::AgentStarted);
    let loads = rig.engine.loads();
    assert_eq!(
        words(&emit(&one, &user, again.clone()).await),
        ["duplicate"]
    );
    assert_eq!(rig.engine.loads(), loads + 1, "it looked what is left");
    let fails = Odds {
        call: 1.0,
        ..Odds::default()
    };
    rig.engine.set_odds(fails);
    let unseen = emit(&one, &user, again).await;
    assert_eq!(words(&unseen), ["ENGINE_UNAVAILABLE"]);
}
