//! What goes wrong.

use std::{sync::Arc, time::Duration};

use rand::{Rng, rngs::StdRng};

use super::{
    HOUR, SECOND,
    world::{NODES, World},
};
use crate::support::faulty_engine::Odds;

/// How often the clock jumps at most, and the epoch changes.
const JUMPS: usize = 4;
const EPOCHS: usize = 2;

/// Has something go wrong every few seconds, until it is aborted.
pub(super) async fn reign(world: Arc<World>, mut rng: StdRng) {
    let (mut jumps, mut epochs) = (JUMPS, EPOCHS);
    loop {
        let pause = Duration::from_millis(rng.random_range(1_000..20_000));
        tokio::time::sleep(pause).await;
        let place = rng.random_range(0..NODES);
        match rng.random_range(0..11) {
            0..3 => die_and_come_back(&world, place, &mut rng),
            3 | 4 => freeze(&world, place, &mut rng),
            10 => cut_off(&world, place, &mut rng),
            5 if jumps > 0 => {
                jumps -= 1;
                let by = Duration::from_millis(rng.random_range(60_000..HOUR.as_millis() as u64));
                world.jump(by, rng.random_bool(0.5));
            }
            6 if epochs > 0 => {
                epochs -= 1;
                world.change_epoch(rng.random());
            }
            _ => {
                let mut odds = |most: f64| rng.random_range(0.0..most);
                let odds = Odds {
                    append: odds(0.3),
                    call: odds(0.1),
                    delay: odds(0.8),
                    lost_hint: odds(0.6),
                };
                if let Some(node) = world.node_at(place) {
                    node.engine.set_odds(odds);
                }
            }
        }
    }
}

/// With or without a word.
fn die_and_come_back(world: &Arc<World>, place: usize, rng: &mut StdRng) {
    let drains = rng.random_bool(0.5);
    let away = Duration::from_millis(rng.random_range(100..60_000));
    let world = world.clone();
    tokio::spawn(async move {
        if drains && let Some(node) = world.node_at(place) {
            node.sequencer.stop_watching().await;
        }
        world.kill(place);
        tokio::time::sleep(away).await;
        world.start(place);
    });
}

fn freeze(world: &Arc<World>, place: usize, rng: &mut StdRng) {
    let Some(node) = world.node_at(place) else {
        return;
    };
    node.freeze(true);
    let for_so_long = rng.random_range(1..20) * SECOND;
    tokio::spawn(async move {
        tokio::time::sleep(for_so_long).await;
        // One that has died meanwhile stays cut off.
        tokio::select! {
            biased;
            () = node.died() => {}
            () = std::future::ready(()) => node.freeze(false),
        }
    });
}

/// It alone cannot reach the store.
fn cut_off(world: &Arc<World>, place: usize, rng: &mut StdRng) {
    let Some(node) = world.node_at(place) else {
        return;
    };
    node.cut_off(true);
    let for_so_long = rng.random_range(5..90) * SECOND;
    tokio::spawn(async move {
        tokio::time::sleep(for_so_long).await;
        node.cut_off(false);
    });
}
