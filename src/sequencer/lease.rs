//! Which node watches over which runs: a lease for each range of buckets, in the key store that nodes share.
//!
//! What a lease says is who sweeps, no more: a verdict is an ordinary append under a derived id, so that two nodes that
//! believe to hold the same lease do no harm.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    Sequencer,
    uncounted::{self, Uncounted, Whose},
};
use crate::{
    clock::{Entropy, Timestamp},
    engine::{Condition, EngineError, Key, KeyEntry},
    event::BUCKETS,
};

/// How many leases there are.
pub(super) const RANGES: usize = 16;

/// For how many buckets each is.
const RANGE: usize = BUCKETS / RANGES;

/// How long another node's lease holds after this node first saw it as it is.
const HOLDS: Duration = Duration::from_secs(15);

/// How old a lease is when its holder renews it.
const RENEWED: Duration = Duration::from_secs(5);

/// How long it is kept, so that one can tell since when nobody watched: longer than any run may be silent. Where no node
/// ran for longer than this, that is not known any more, and counts as silence.
pub(super) const KEPT: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// How many spans of time that does not count are told of each bucket or user: the latest.
pub(super) const TOLD: usize = 32;

/// The leases of this node.
pub(super) struct Leases {
    /// Names the node; never 0.
    node: u64,
    /// How often a lease was put, so that no value comes twice.
    puts: u64,
    known: [Known; RANGES],
    /// Nothing is taken any more.
    given_back: bool,
}

/// What is known of a lease.
#[derive(Clone, Default)]
struct Known {
    /// As this node put it, if it holds it. It holds it until it is told otherwise: where the engine cannot be asked,
    /// nobody else can take it.
    held: Option<Held>,
    /// What this node found there last.
    seen: Option<Seen>,
}

/// A lease as it was put last.
#[derive(Clone)]
struct Held {
    value: Bytes,
    /// By the steady clock, just before it was put.
    put_at: Duration,
}

/// A lease as it was found. When it was put tells nothing of its age: that is by its holder's clock.
#[derive(Clone)]
struct Seen {
    value: Bytes,
    /// When this node first found it so, by the steady clock.
    since: Duration,
    /// Since when nobody is known to have run, until this node did. Only of what was found first.
    unwatched_since: Option<Timestamp>,
}

/// A lease that is about to be put.
struct Draw {
    range: usize,
    known: Known,
    /// Who is to hold it.
    node: u64,
    puts: u64,
}

impl Leases {
    pub(super) fn new(entropy: &Entropy) -> Self {
        Self {
            node: entropy.bits().max(1),
            puts: 0,
            known: Default::default(),
            given_back: false,
        }
    }

    /// Which are to be renewed or taken at `steady`, by their ranges.
    fn due(&self, steady: Duration) -> Vec<usize> {
        let is_due = |range: &usize| match &self.known[*range].held {
            Some(held) => held.put_at + RENEWED <= steady,
            None => true,
        };
        (0..RANGES).filter(is_due).collect()
    }

    fn holds(&self, range: usize) -> bool {
        self.known[range].held.is_some()
    }

    /// The lease of `range`, to be put for `node`.
    fn draw(&mut self, range: usize, node: u64) -> Draw {
        self.puts += 1;
        Draw {
            range,
            known: self.known[range].clone(),
            node,
            puts: self.puts,
        }
    }

    /// The buckets of the leases that are held, neighbours together.
    fn buckets(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for range in (0..RANGES).filter(|range| self.holds(*range)) {
            let buckets = buckets_of(range);
            match ranges.last_mut() {
                Some(last) if last.end == buckets.start => last.end = buckets.end,
                _ => ranges.push(buckets),
            }
        }
        ranges
    }
}

/// The buckets that a lease is for.
pub(super) fn buckets_of(range: usize) -> Range<usize> {
    range * RANGE..(range + 1) * RANGE
}

/// The lease that a bucket is of.
pub(super) fn range_of(bucket: usize) -> usize {
    bucket / RANGE
}

impl Sequencer {
    /// Renews the leases that this node holds, and takes those that nobody holds any more. Returns the buckets that
    /// are its own to sweep.
    ///
    /// # Errors
    /// None of the leases can be asked for.
    pub(super) async fn hold_leases(&self) -> Result<Vec<Range<usize>>, EngineError> {
        let mut leases = self.leases.lock().await;
        let held = if leases.given_back {
            Ok(())
        } else if let Condition::Unfit(_) = self.engine.condition() {
            // It could store no verdict; other nodes may.
            self.give_back(&mut leases).await;
            Ok(())
        } else {
            self.hold_due(&mut leases).await
        };
        let count = (0..RANGES).filter(|range| leases.holds(*range)).count();
        self.metrics.watchdog_ranges.set(count as f64);
        held.map(|()| leases.buckets())
    }

    /// Gives all leases back, so that other nodes take them at once, and takes no more. Before that, they are told what
    /// could not be stored here: whoever takes a lease judges by it.
    pub async fn stop_watching(&self) {
        self.tell_rest().await;
        let mut leases = self.leases.lock().await;
        leases.given_back = true;
        self.give_back(&mut leases).await;
        self.metrics.watchdog_ranges.set(0.0);
    }

    async fn give_back(&self, leases: &mut Leases) {
        let ranges: Vec<usize> = (0..RANGES).filter(|range| leases.holds(*range)).collect();
        for (_, error) in self.put_all(leases, &ranges, 0).await {
            // They are taken over when they have not changed for a while.
            tracing::debug!(%error, "a lease was not given back");
        }
        leases.known = Default::default();
    }

    /// Renews and takes what is due. Where all of that fails, the others are asked for too: it may be one place that is
    /// away, or everything.
    async fn hold_due(&self, leases: &mut Leases) -> Result<(), EngineError> {
        let node = leases.node;
        let mut asked = leases.due(self.clock.steady());
        let mut failed = self.put_all(leases, &asked, node).await;
        if !failed.is_empty() && failed.len() == asked.len() {
            let others: Vec<_> = (0..RANGES).filter(|range| !asked.contains(range)).collect();
            failed.extend(self.put_all(leases, &others, node).await);
            asked.extend(others);
        }
        let all_failed = failed.len() == asked.len();
        let (mut outages, now) = (self.outages.lock(), self.clock.now());
        for (range, error) in failed {
            if all_failed {
                return Err(error);
            }
            tracing::debug!(%error, range, "a lease was neither renewed nor taken");
            // Whoever holds it sees what is away there; else nobody may.
            if !leases.holds(range) {
                outages.unwatched(buckets_of(range), now);
            }
        }
        Ok(())
    }

    /// Puts the leases of `ranges` for `node`, all at once: an engine that syncs does it once for all that wait. Returns
    /// those that it failed for.
    async fn put_all(
        &self,
        leases: &mut Leases,
        ranges: &[usize],
        node: u64,
    ) -> Vec<(usize, EngineError)> {
        let draws = ranges.iter().map(|range| leases.draw(*range, node));
        let draws: Vec<_> = draws.collect();
        let put = join_all(draws.into_iter().map(|draw| self.put(draw))).await;
        let mut failed = Vec::new();
        for (range, put) in ranges.iter().zip(put) {
            match put {
                Ok(known) => leases.known[*range] = known,
                Err(error) => failed.push((*range, error)),
            }
        }
        failed
    }

    /// Puts a lease, unless another node holds it.
    async fn put(&self, draw: Draw) -> Result<Known, EngineError> {
        let (key, put_at) = (Key::Lease(draw.range), self.clock.steady());
        let value = || self.lease(&draw).encode();
        let mut seen = draw.known.seen.clone();
        let expected = match &draw.known.held {
            Some(held) => held.value.clone(),
            None => {
                let value = value();
                let there = self.engine.put_if_absent(&key, value.clone(), KEPT).await?;
                let Some(there) = there else {
                    return Ok(Known::put(value, put_at));
                };
                let found = self.see(seen, &there);
                let may_take = self.may_take(&found, draw.node);
                seen = Some(found);
                if !may_take {
                    return Ok(Known { held: None, seen });
                }
                there.value
            }
        };
        // With what the holder before knew.
        let value = value();
        let set = self
            .engine
            .compare_and_set(&key, &expected, value.clone(), KEPT);
        match set.await? {
            true => Ok(Known::put(value, put_at)),
            false => Ok(Known { held: None, seen }),
        }
    }

    fn lease(&self, draw: &Draw) -> Lease {
        Lease {
            node: draw.node,
            puts: draw.puts,
            uncounted: self.uncounted_of(draw.range),
        }
    }

    /// Takes note of a lease that is there, where `before` is what was found before.
    fn see(&self, before: Option<Seen>, there: &KeyEntry) -> Seen {
        let is_first = before.is_none();
        before
            .filter(|seen| seen.value == there.value)
            .unwrap_or_else(|| Seen {
                value: there.value.clone(),
                since: self.clock.steady(),
                unwatched_since: self.last_sign(there.put_at).filter(|_| is_first),
            })
    }

    /// When the holder of a lease that was put at `put_at` is last known to have run, if that is before this node did.
    /// By a clock that is ahead of this node's, nobody knows.
    fn last_sign(&self, put_at: Timestamp) -> Option<Timestamp> {
        let is_ahead = put_at > self.clock.now();
        let last = if is_ahead { self.began_at } else { put_at };
        (is_ahead || last < self.began_at).then_some(last)
    }

    /// Whether the lease may be replaced: it is this node's own, nobody's, or has not changed for as long as one holds.
    /// What its holder knew of time that does not count is taken over before any run is judged. Nobody is known to have
    /// run between its holder's last sign and this node's begin; where this node ran all the while, producers had where
    /// to go. Others may know better, so they are not told: the lease says it.
    fn may_take(&self, seen: &Seen, node: u64) -> bool {
        let lease = Lease::decode(&seen.value);
        if lease.node == node {
            return true;
        }
        if lease.node != 0 && self.clock.steady() < seen.since + HOLDS {
            return false;
        }
        let (mut outages, now) = (self.outages.lock(), self.clock.now());
        outages.inherit(&lease.uncounted, now);
        if let Some(since) = seen.unwatched_since {
            let end = self.began_at.min(now);
            outages.nobody_ran(since.min(end), end);
        }
        true
    }

    /// The time that is not held against anybody's silent runs, and against those of each bucket of a range. Of single
    /// users, other nodes are told by `missed`.
    fn uncounted_of(&self, range: usize) -> Uncounted {
        let mut all = self.clock.skipped();
        let (mut outages, now) = (self.outages.lock(), self.clock.now());
        for (begin, end) in outages.of_everybody(now).iter() {
            all.add(begin, end);
        }
        let buckets = outages.of_buckets(buckets_of(range), now).into_iter();
        let buckets = buckets.map(|(bucket, spans)| (bucket, spans.at_most(TOLD)));
        buckets
            .chain([(Whose::Everybody, all)])
            .filter(|(_, spans)| spans.iter().len() > 0)
            .collect()
    }
}

impl Known {
    /// A lease that this node put: what comes after it, if another takes it, comes while this node runs.
    fn put(value: Bytes, put_at: Duration) -> Self {
        let seen = Seen {
            value: value.clone(),
            since: put_at,
            unwatched_since: None,
        };
        Self {
            held: Some(Held { value, put_at }),
            seen: Some(seen),
        }
    }
}

/// What is under a lease's key.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lease {
    /// Who holds it; 0: nobody.
    node: u64,
    /// Counts the values that its holder put.
    puts: u64,
    /// What its holder knew of time that is not held against silent runs.
    uncounted: Uncounted,
}

impl Lease {
    /// Node and puts, then what does not count.
    fn encode(&self) -> Bytes {
        uncounted::encode(&[self.node, self.puts], &self.uncounted)
    }

    /// The lease of which `bytes` were made; nobody's, if they are none.
    fn decode(bytes: &[u8]) -> Self {
        let decoded = uncounted::decode(bytes);
        let lease = decoded.map(|([node, puts], uncounted)| Self {
            node,
            puts,
            uncounted,
        });
        lease.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Spans;

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let at = |seconds: u64| Timestamp::from_millis(1_800_000_000_000 + seconds * 1000);
        let mut spans = Spans::default();
        for (count, buckets) in [
            (0, vec![]),
            (1, vec![Whose::Everybody]),
            (
                64,
                vec![Whose::Everybody, Whose::Bucket(0), Whose::Bucket(1023)],
            ),
        ] {
            for n in 0..count {
                spans.add(at(n * 100), at(n * 100 + 60));
            }
            let uncounted = buckets.into_iter().map(|whose| (whose, spans.clone()));
            let lease = Lease {
                node: u64::MAX,
                puts: 7,
                uncounted: uncounted.collect(),
            };
            assert_eq!(Lease::decode(&lease.encode()), lease);
        }
        for none in [&b""[..], b"1234567", b"12345678", b"12345678123456789"] {
            assert_eq!(Lease::decode(none), Lease::default(), "{none:?}");
        }
    }

    #[test]
    fn neighbours_are_swept_together() {
        let mut leases = Leases::new(&Entropy::seeded(1));
        for range in [0, 1, 2, 7, 15] {
            leases.known[range] = Known::put(Bytes::new(), Duration::ZERO);
        }
        assert_eq!(leases.buckets(), [0..192, 448..512, 960..1024]);
    }
}
