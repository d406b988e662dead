//! Seeds: printed, and given again by `EMITTER_SEED`.

use std::future::Future;

/// How often a seeded test runs: `small`, or `long` under `EMITTER_SOAK=1`.
pub(crate) fn cases(small: u64, long: u64) -> u64 {
    match std::env::var("EMITTER_SOAK") {
        Ok(soak) if soak == "1" => long,
        _ => small,
    }
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

/// Runs `case` for `cases` seeds; for one only, if `EMITTER_SEED` names it. A failing seed is printed.
pub(crate) fn each_seed<F: Future<Output = ()>>(cases: u64, case: impl Fn(u64) -> F) {
    each_seed_from(u64::from(rand::random::<u32>()), cases, case);
}

/// The same, from the seed `first` on.
pub(crate) fn each_seed_from<F: Future<Output = ()>>(
    first: u64,
    cases: u64,
    case: impl Fn(u64) -> F,
) {
    let one = std::env::var("EMITTER_SEED").ok();
    let seeds = match one.map(|seed| seed.parse::<u64>().expect("EMITTER_SEED is a number")) {
        Some(seed) => seed..seed + 1,
        None => first..first + cases,
    };
    println!("seeds {} to {}", seeds.start, seeds.end - 1);
    for seed in seeds {
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
