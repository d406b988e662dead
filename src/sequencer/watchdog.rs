//! Ends runs that were silent for too long.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use tokio::time::Instant;

use super::{Sequencer, lease::range_of};
use crate::{
    engine::Due,
    event::{BUCKETS, RunId, StreamKey},
};

/// How many runs are looked at between two questions to the engine.
const PAGE: usize = 4_096;

/// How many pages one sweep looks at; the rest has a second to wait.
const PAGES: usize = 64;

/// How many users' runs are looked at at once, of each range.
const USERS: usize = 64;

/// How far apart the buckets are that sweeps begin at. Odd: each bucket comes first at some time.
const STRIDE: usize = 67;

/// How long nobody sweeps until that is time that does not count: this process may not have run at all.
const PAUSE: Duration = Duration::from_secs(15);

/// What is known of the sweeps before.
#[derive(Default)]
pub(super) struct Sweeps {
    /// The bucket that the next one begins at.
    first: usize,
    /// When the last one was over.
    over_at: Option<Instant>,
}

impl Sequencer {
    /// Looks at the runs whose deadline has come and that this node watches over, and ends those that were silent for
    /// too long, each by an ordinary append in its user's order. Called about once a second; returns how many runs it
    /// looked at.
    pub async fn sweep(self: &Arc<Self>) -> usize {
        let first = self.begin_sweep();
        let looked_at = match self.hold_leases().await {
            Ok(held) => {
                let left = AtomicUsize::new(PAGES);
                // All at once: a part of the engine that does not answer holds up no other.
                let held = rotated(held, first).into_iter();
                let sweeps = held.map(|buckets| self.sweep_buckets(buckets, &left));
                join_all(sweeps).await.into_iter().sum()
            }
            Err(error) => {
                tracing::debug!(%error, "the watchdog cannot see");
                self.outages().failed(self.clock.now());
                0
            }
        };
        self.sweeps.lock().over_at = Some(Instant::now());
        looked_at
    }

    /// Where to begin.
    fn begin_sweep(&self) -> usize {
        let mut sweeps = self.sweeps.lock();
        let paused = sweeps.over_at.map(|at| at.elapsed()).unwrap_or_default();
        if paused > PAUSE {
            let now = self.clock.now();
            self.outages().over(now - paused, now);
        }
        let first = sweeps.first;
        sweeps.first = (first + STRIDE) % BUCKETS;
        first
    }

    async fn sweep_buckets(self: &Arc<Self>, buckets: Range<usize>, left: &AtomicUsize) -> usize {
        let take_page = |left: usize| left.checked_sub(1);
        let mut looked_at = 0;
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_page)
            .is_ok()
        {
            let now = self.clock.now();
            let found = self.engine.due_in_reach(buckets.clone(), now, PAGE).await;
            if !found.out_of_reach.is_empty() {
                tracing::debug!(buckets = ?found.out_of_reach, "the watchdog cannot see");
                let away = found.out_of_reach.into_iter();
                self.outages().buckets_failed(away, self.clock.now());
            }
            let count = found.due.len();
            // One user or range that cannot be helped keeps nobody else of the page from being looked at.
            let looks = by_range(found.due).into_iter();
            let looks = looks.map(|(range, due)| self.look_at_range(range, due));
            let looks = join_all(looks).await;
            looked_at += looks.iter().map(|(count, _)| count).sum::<usize>();
            if count < PAGE || !looks.iter().all(|(_, all)| *all) {
                break;
            }
        }
        looked_at
    }

    /// Looks at the runs of a range, once it is known what other nodes missed there. How many it looked at, and whether
    /// that could be done for all.
    async fn look_at_range(self: &Arc<Self>, range: usize, due: Vec<Due>) -> (usize, bool) {
        match self.hear(range).await {
            true => (due.len(), self.look_at(due).await),
            false => (0, false),
        }
    }

    /// Looks at the runs, each in its user's order. Whether that could be done for all users.
    async fn look_at(self: &Arc<Self>, due: Vec<Due>) -> bool {
        // In an order, so that simulations replay.
        let mut by_user: BTreeMap<StreamKey, Vec<RunId>> = BTreeMap::new();
        for due in due {
            by_user.entry(due.stream).or_default().push(due.run_id);
        }
        let looks = stream::iter(by_user).map(|(stream, runs)| {
            // Nobody waits for an answer: a run that could not be ended stays due.
            let looked = self.enqueue_new(stream, Vec::new(), runs, None);
            async { looked.await.is_ok() }
        });
        let looked = looks.buffer_unordered(USERS);
        looked.fold(true, async |all, looked| all && looked).await
    }
}

fn by_range(due: Vec<Due>) -> BTreeMap<usize, Vec<Due>> {
    let mut by_range: BTreeMap<usize, Vec<Due>> = BTreeMap::new();
    for due in due {
        let range = range_of(due.stream.bucket());
        by_range.entry(range).or_default().push(due);
    }
    by_range
}

/// The same buckets, beginning at `first`: runs that cannot be ended come first in their turn only, and hide no others.
fn rotated(ranges: Vec<Range<usize>>, first: usize) -> Vec<Range<usize>> {
    let after = ranges.iter().map(|range| range.start.max(first)..range.end);
    let before = ranges.iter().map(|range| range.start..range.end.min(first));
    after
        .chain(before)
        .filter(|range| !range.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_begins_at_its_bucket_and_leaves_none_out() {
        let held = || vec![0..192, 448..512, 960..1024];
        for (first, want) in [
            (0, held()),
            (100, vec![100..192, 448..512, 960..1024, 0..100]),
            (300, vec![448..512, 960..1024, 0..192]),
            (1023, vec![1023..1024, 0..192, 448..512, 960..1023]),
        ] {
            assert_eq!(rotated(held(), first), want, "from {first}");
        }
    }
}
