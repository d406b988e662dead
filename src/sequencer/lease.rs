//! Which node watches over which runs: a lease for each range of buckets, in the key store that nodes share.
//!
//! What a lease says is who sweeps, no more: a verdict is an ordinary append under a derived id, so that two nodes that
//! believe to hold the same lease do no harm.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;

use super::Sequencer;
use crate::{
    clock::{Entropy, Spans, Timestamp},
    engine::{EngineError, Key, KeyEntry},
    event::BUCKETS,
};

/// How many leases there are.
const RANGES: usize = 16;

/// For how many buckets each is.
const RANGE: usize = BUCKETS / RANGES;

/// How long a lease holds after it was put.
const HOLDS: Duration = Duration::from_secs(15);

/// How old a lease is when its holder renews it.
const RENEWED: Duration = Duration::from_secs(5);

/// How long it is kept, so that one can tell since when nobody watched: longer than any run may be silent.
const KEPT: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// The leases of this node.
pub(super) struct Leases {
    /// Names the node; never 0.
    node: u64,
    /// How often a lease was put, so that no value comes twice.
    puts: u64,
    held: [Option<Held>; RANGES],
    /// Nothing is taken any more.
    given_back: bool,
}

/// A lease that is about to be put.
struct Draw {
    range: usize,
    /// What is under its key, if this node holds it.
    held: Option<Bytes>,
    /// Who is to hold it.
    node: u64,
    puts: u64,
}

/// A lease as it was put last.
struct Held {
    value: Bytes,
    /// By the steady clock, just before it was put.
    put_at: Duration,
}

impl Leases {
    pub(super) fn new(entropy: &Entropy) -> Self {
        Self {
            node: entropy.bits().max(1),
            puts: 0,
            held: [const { None }; RANGES],
            given_back: false,
        }
    }

    /// Which are to be renewed or taken at `steady`, by their ranges.
    fn due(&self, steady: Duration) -> Vec<usize> {
        let is_due = |held: &Option<Held>| match held {
            Some(held) => held.put_at + RENEWED <= steady,
            None => true,
        };
        let held = self.held.iter().enumerate();
        held.filter(|(_, held)| is_due(held))
            .map(|(range, _)| range)
            .collect()
    }

    /// Lets the lease of `range` go, to be put for `node`.
    fn draw(&mut self, range: usize, node: u64) -> Draw {
        self.puts += 1;
        Draw {
            range,
            held: self.held[range].take().map(|held| held.value),
            node,
            puts: self.puts,
        }
    }

    /// The buckets of the leases that are held, neighbours together.
    fn buckets(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (range, _) in self.held.iter().enumerate().filter(|(_, h)| h.is_some()) {
            let buckets = range * RANGE..(range + 1) * RANGE;
            match ranges.last_mut() {
                Some(last) if last.end == buckets.start => last.end = buckets.end,
                _ => ranges.push(buckets),
            }
        }
        ranges
    }
}

impl Sequencer {
    /// Renews the leases that this node holds, and takes those that nobody holds any more. Returns the buckets that
    /// are its own to sweep.
    pub(super) async fn hold_leases(&self) -> Result<Vec<Range<usize>>, EngineError> {
        let mut leases = self.leases.lock().await;
        let held = match leases.given_back {
            true => Ok(()),
            false => self.hold_due(&mut leases).await,
        };
        let steady = self.clock.steady();
        for lease in &mut leases.held {
            lease.take_if(|lease| lease.put_at + HOLDS <= steady);
        }
        let count = leases.held.iter().flatten().count();
        self.metrics.watchdog_ranges.set(count as f64);
        held.map(|()| leases.buckets())
    }

    /// Gives all leases back, so that other nodes take them at once, and takes no more.
    pub async fn stop_watching(&self) {
        let mut leases = self.leases.lock().await;
        leases.given_back = true;
        let ranges = (0..RANGES).filter(|range| leases.held[*range].is_some());
        for ranges in one_first(&ranges.collect::<Vec<_>>()) {
            let draws = ranges.iter().map(|range| leases.draw(*range, 0));
            let giving = draws.collect::<Vec<_>>().into_iter();
            let given = join_all(giving.map(|draw| self.put(draw))).await;
            if let Some(error) = given.into_iter().find_map(Result::err) {
                // They are taken over when they have run out.
                tracing::debug!(%error, "leases were not given back");
                break;
            }
        }
        self.metrics.watchdog_ranges.set(0.0);
    }

    /// Renews and takes what is due, all at once: an engine that syncs does it once for all that wait.
    async fn hold_due(&self, leases: &mut Leases) -> Result<(), EngineError> {
        let node = leases.node;
        for ranges in one_first(&leases.due(self.clock.steady())) {
            let draws: Vec<_> = ranges
                .iter()
                .map(|range| leases.draw(*range, node))
                .collect();
            let put = join_all(draws.into_iter().map(|draw| self.put(draw))).await;
            let mut all = Ok(());
            for (range, put) in ranges.iter().zip(put) {
                match put {
                    Ok(held) => leases.held[*range] = held,
                    Err(error) => all = Err(error),
                }
            }
            all?;
        }
        Ok(())
    }

    /// Puts a lease, unless another node holds it.
    async fn put(&self, draw: Draw) -> Result<Option<Held>, EngineError> {
        let (key, put_at) = (Key::Lease(draw.range), self.clock.steady());
        let value = || {
            let lease = Lease {
                node: draw.node,
                puts: draw.puts,
                uncounted: self.uncounted_of_node(),
            };
            lease.encode()
        };
        let expected = match draw.held {
            Some(held) => held,
            None => {
                let value = value();
                let there = self.engine.put_if_absent(&key, value.clone(), KEPT).await?;
                let Some(there) = there else {
                    return Ok(Some(Held { value, put_at }));
                };
                if !self.may_take(&there, draw.node) {
                    return Ok(None);
                }
                there.value
            }
        };
        // With what the holder before knew.
        let value = value();
        let set = self
            .engine
            .compare_and_set(&key, &expected, value.clone(), KEPT);
        Ok(set.await?.then_some(Held { value, put_at }))
    }

    /// Whether the lease `there` may be replaced: it is this node's own, nobody's, or has run out. What its holder knew
    /// of time that does not count is taken over before any run is judged. Nobody is known to have run between its
    /// holder's last sign and this node's begin; where this node ran all the while, producers had where to go.
    fn may_take(&self, there: &KeyEntry, node: u64) -> bool {
        let (lease, now) = (Lease::decode(&there.value), self.clock.now());
        if lease.node == node {
            return true;
        }
        let ran_out = there.put_at + HOLDS <= now;
        let clock_went_back = there.put_at > now + HOLDS;
        if lease.node != 0 && !ran_out && !clock_went_back {
            return false;
        }
        let mut outages = self.outages.lock();
        for (begin, end) in lease.uncounted.iter() {
            outages.inherit(begin, end, now);
        }
        outages.over(there.put_at, self.began_at.min(now));
        true
    }

    /// The time that is not held against any user's silent runs.
    fn uncounted_of_node(&self) -> Spans {
        let mut spans = self.clock.skipped();
        let mut outages = self.outages.lock();
        for (begin, end) in outages.of_node(self.clock.now()).iter() {
            spans.add(begin, end);
        }
        spans
    }
}

/// The first alone, then the others: an engine that fails is asked once, not for every range.
fn one_first(ranges: &[usize]) -> [&[usize]; 2] {
    let (first, others) = ranges.split_at(ranges.len().min(1));
    [first, others]
}

/// What is under a lease's key.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lease {
    /// Who holds it; 0: nobody.
    node: u64,
    /// Counts the values that its holder put.
    puts: u64,
    /// What its holder knew of time that is not held against silent runs.
    uncounted: Spans,
}

impl Lease {
    /// Numbers of eight bytes, the lowest first: node, puts, then begin and end of each span.
    fn encode(&self) -> Bytes {
        let spans = self.uncounted.iter();
        let spans = spans.flat_map(|(begin, end)| [begin.as_millis(), end.as_millis()]);
        let numbers = [self.node, self.puts].into_iter().chain(spans);
        numbers
            .flat_map(u64::to_le_bytes)
            .collect::<Vec<_>>()
            .into()
    }

    /// The lease of which `bytes` were made; nobody's, if they are none.
    fn decode(bytes: &[u8]) -> Self {
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return Self::default();
        };
        let numbers: Vec<u64> = numbers.iter().map(|n| u64::from_le_bytes(*n)).collect();
        let [node, puts, spans @ ..] = numbers.as_slice() else {
            return Self::default();
        };
        let mut uncounted = Spans::default();
        for span in spans.as_chunks::<2>().0 {
            let [begin, end] = span.map(Timestamp::from_millis);
            uncounted.add(begin, end);
        }
        Self {
            node: *node,
            puts: *puts,
            uncounted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let at = |seconds: u64| Timestamp::from_millis(1_800_000_000_000 + seconds * 1000);
        let mut uncounted = Spans::default();
        for spans in [0, 1, 64] {
            for n in 0..spans {
                uncounted.add(at(n * 100), at(n * 100 + 60));
            }
            let lease = Lease {
                node: u64::MAX,
                puts: 7,
                uncounted: uncounted.clone(),
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
            leases.held[range] = Some(Held {
                value: Bytes::new(),
                put_at: Duration::ZERO,
            });
        }
        assert_eq!(leases.buckets(), [0..192, 448..512, 960..1024]);
    }
}
