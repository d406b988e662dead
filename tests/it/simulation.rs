//! A simulation of everything at once, from a seed: three nodes over one engine that fails, hangs, answers late, loses
//! hints and changes its epoch; nodes that die and come back, and that alone cannot reach it; a clock that somebody sets; producers that retry at other
//! nodes, and readers that resume at other nodes. What was promised must hold all the same.
//!
//! A failing seed is printed; `EMITTER_SEED=<seed>` runs it again, `EMITTER_SOAK=1` runs many more.

mod chaos;
mod history;
mod node;
mod producer;
mod reader;
mod world;

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use self::{producer::Producer, reader::Reader, world::World};
use crate::support::seed;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// How long a producer may take for all that it has to say: far longer than all faults together.
const PATIENCE: Duration = Duration::from_secs(2 * 3_600);

async fn case(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new(&mut rng).await;
    let mut seeds = || StdRng::seed_from_u64(rng.random());
    let time = tokio::spawn(world::pass_time(world.clone()));
    let producers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(Producer::new(world.clone(), n, seeds()).run()))
        .collect();
    let readers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(Reader::new(world.clone(), n, seeds()).run()))
        .collect();
    let chaos = tokio::spawn(chaos::reign(world.clone(), seeds()));

    let mut told = Vec::new();
    for producer in producers {
        let done = tokio::time::timeout(PATIENCE, producer).await;
        let done = done.expect("producers get on: nothing is stuck");
        told.push(done.expect("the producer ends"));
    }
    chaos.abort();
    world.settle().await;
    world.say_the_end();
    for reader in readers {
        let done = tokio::time::timeout(MINUTE, reader).await;
        let done = done.expect("readers get to the end: no lost hint keeps them from it");
        done.expect("the reader ends");
    }
    time.abort();
    world.wait_until_all_runs_are_over().await;
    for log in &world.logs {
        log.check_order();
        log.check_answers(&told);
        log.check_runs(&world);
    }
    println!("{}", world.summary(&told));
}

#[test]
fn what_is_promised_holds_whatever_happens_soak() {
    seed::each_seed(200, 10_000, case);
}

/// A seed is a history: what fails once fails again.
#[test]
fn a_seed_gives_the_same_history() {
    let history = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut rng = StdRng::seed_from_u64(seed);
            let world = World::new(&mut rng).await;
            let mut seeds = || StdRng::seed_from_u64(rng.random());
            tokio::spawn(world::pass_time(world.clone()));
            tokio::spawn(chaos::reign(world.clone(), seeds()));
            for n in 0..2 {
                tokio::spawn(Reader::new(world.clone(), n, seeds()).run());
            }
            let producers: Vec<_> = (0..3)
                .map(|n| tokio::spawn(Producer::new(world.clone(), n, seeds()).run()))
                .collect();
            for producer in producers {
                producer.await.expect("the producer ends");
            }
            let mut lines: Vec<_> = world.logs.iter().flat_map(|log| log.lines()).collect();
            lines.sort();
            lines
        })
    };
    for seed in 0..5 {
        let (one, two) = (history(seed), history(seed));
        let differ = one.iter().zip(&two).position(|(one, two)| one != two);
        let differ = differ.map(|at| (&one[at], &two[at]));
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(one.len(), two.len(), "seed {seed}");
    }
}
