//! Seeds: printed, and given again by `EMITTER_SEED`.

use std::{future::Future, ops::Range};

/// Whether this is `EMITTER_SOAK=1`.
fn is_soak() -> bool {
    std::env::var("EMITTER_SOAK").is_ok_and(|soak| soak == "1")
}

/// How often a seeded test runs: `small`, or `long` under `EMITTER_SOAK=1`.
pub(crate) fn cases(small: u64, long: u64) -> u64 {
    if is_soak() { long } else { small }
}

/// The seeds of a test: that of `EMITTER_SEED`, or `small` ones that are the same each time, so that a rare one fails
/// for nobody by chance, or `long` new ones under `EMITTER_SOAK=1`.
pub(crate) fn seeds(small: u64, long: u64) -> Range<u64> {
    let first = match std::env::var("EMITTER_SEED") {
        Ok(seed) => return one(&seed),
        Err(_) if is_soak() => u64::from(rand::random::<u32>()),
        Err(_) => 0,
    };
    let seeds = first..first + cases(small, long);
    println!("seeds {} to {}", seeds.start, seeds.end - 1);
    seeds
}

fn one(seed: &str) -> Range<u64> {
    let seed: u64 = seed.parse().expect("EMITTER_SEED is a number");
    seed..seed + 1
}

/// A seed: that of `EMITTER_SEED`, or a new one. It is printed with the test's output.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("EMITTER_SEED") {
        Ok(seed) => seed.parse().expect("EMITTER_SEED is a number"),
        Err(_) => u64::from(rand::random::<u32>()),
    };
    println!("EMITTER_SEED={seed}");
    seed
}

/// Runs `case` for each of these `seeds`. A failing one is printed.
pub(crate) fn each_seed<F: Future<Output = ()>>(small: u64, long: u64, case: impl Fn(u64) -> F) {
    for seed in seeds(small, long) {
        let failing = Failing(seed);
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(case(seed));
        std::mem::forget(failing);
    }
}

/// Names the seed if the case panics.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        eprintln!("failed: run this test again with EMITTER_SEED={}", self.0);
    }
}
