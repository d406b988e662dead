//! Time that passes because a drawn schedule says so, on a paused clock: nothing is waited for.

use std::{ops::Range, time::Duration};

use rand::{Rng, rngs::StdRng};

/// Lets so many milliseconds pass, drawn by `rng`: the other tasks of the schedule have their turn.
pub(crate) async fn pass(rng: &mut StdRng, millis: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(millis))).await;
}
