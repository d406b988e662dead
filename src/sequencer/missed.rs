//! What nodes tell each other of events that they could not store, through the key store that they share: the node that
//! watches over a run need not be the one that its producer cannot get through.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    Sequencer,
    lease::{KEPT, TOLD, buckets_of, range_of},
    outage::RECOVERY,
    uncounted::{self, Uncounted, Whose},
};
use crate::{
    clock::Timestamp,
    engine::{Condition, Due, EngineError, Key},
};

/// The form of the value.
const VERSION: u64 = 1;

/// How often a value is put again because other nodes came first; after that it is news for another second.
const ATTEMPTS: usize = 3;

/// How many users are told of in a range. Beyond that, what was over first counts for its bucket.
const USERS: usize = 256;

/// How far ahead another node's clock may be. What is said of a later time was said before clocks went back.
const AHEAD: Duration = Duration::from_secs(60 * 60);

impl Sequencer {
    /// Tells the other nodes what could not be stored through this one, all at once. What cannot be told now is told
    /// later. A node whose clock nobody goes by tells nothing: it does not know when that was.
    pub(super) async fn tell_missed(&self) {
        if let Condition::Unfit(_) = self.engine.condition() {
            return;
        }
        let news = self.outages.lock().news(self.clock.now());
        let tell = async |(range, news): (usize, Uncounted)| match self.tell(range, &news).await {
            Ok(true) => self.outages.lock().told(range, &news),
            Ok(false) => tracing::debug!(range, "other nodes came first too often"),
            Err(error) => tracing::debug!(%error, range, "what was missed was not told"),
        };
        join_all(news.into_iter().map(tell)).await;
    }

    /// Whether `news` of a range are known now.
    async fn tell(&self, range: usize, news: &Uncounted) -> Result<bool, EngineError> {
        let key = key(range);
        for _ in 0..ATTEMPTS {
            let with = |there: &[u8]| encode(&merge(decode(there), news, self.clock.now()));
            let there = self.engine.put_if_absent(&key, with(&[]), KEPT).await?;
            let Some(there) = there.map(|there| there.value) else {
                return Ok(true);
            };
            let value = with(&there);
            if value == there
                || self
                    .engine
                    .compare_and_set(&key, &there, value, KEPT)
                    .await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes in what other nodes could not store, before any run of `due` is judged. Leaves those of which that is not
    /// known.
    pub(super) async fn knowing_missed(&self, due: Vec<Due>) -> Vec<Due> {
        let ranges = due.iter().map(|due| range_of(due.stream.bucket()));
        let ranges: BTreeSet<usize> = ranges.collect();
        let reads = ranges.iter().map(|range| self.hear(*range));
        let heard = join_all(reads).await;
        let unheard = ranges.into_iter().zip(heard).filter(|(_, heard)| !heard);
        let unheard: BTreeSet<usize> = unheard.map(|(range, _)| range).collect();
        let is_known = |due: &Due| !unheard.contains(&range_of(due.stream.bucket()));
        due.into_iter().filter(is_known).collect()
    }

    /// Whether it could be asked what other nodes missed of a range; else nobody there is judged, and that is an outage.
    async fn hear(&self, range: usize) -> bool {
        let there = self.engine.get(&key(range)).await;
        let (mut outages, now) = (self.outages.lock(), self.clock.now());
        match there {
            Ok(there) => {
                let missed = there.map(|there| decode(&there.value));
                outages.inherit(&missed.unwrap_or_default(), now);
                true
            }
            Err(error) => {
                tracing::debug!(%error, range, "nobody knows what other nodes missed");
                outages.buckets_failed(buckets_of(range), now);
                false
            }
        }
    }
}

fn key(range: usize) -> Key {
    Key::Missed(buckets_of(range).start)
}

fn encode(missed: &Uncounted) -> Bytes {
    uncounted::encode(&[VERSION], missed)
}

/// What was missed, as `bytes` say; nothing, if they are of no such form.
fn decode(bytes: &[u8]) -> Uncounted {
    match uncounted::decode(bytes) {
        Some(([VERSION], missed)) => missed,
        _ => Uncounted::new(),
    }
}

/// What is known once `news` are: of the last 8 days, and bounded.
fn merge(mut known: Uncounted, news: &Uncounted, now: Timestamp) -> Uncounted {
    for spans in known.values_mut() {
        spans.cut(now + RECOVERY + AHEAD);
    }
    for (whose, spans) in news {
        add(&mut known, *whose, spans.iter());
    }
    known.retain(|_, spans| !spans.are_over(now));
    let ends = known.iter().filter_map(|(whose, spans)| {
        let is_user = matches!(whose, Whose::User(_));
        is_user.then(|| (spans.iter().last(), *whose))
    });
    let mut users: Vec<_> = ends
        .map(|(last, whose)| (last.map(|(_, end)| end), whose))
        .collect();
    users.sort_unstable();
    for (_, user) in &users[..users.len().saturating_sub(USERS)] {
        if let (Some(spans), Some(bucket)) = (known.remove(user), user.bucket()) {
            add(&mut known, Whose::Bucket(bucket), spans.iter());
        }
    }
    let bounded = known
        .into_iter()
        .map(|(whose, spans)| (whose, spans.at_most(TOLD)));
    bounded.collect()
}

fn add(known: &mut Uncounted, whose: Whose, spans: impl Iterator<Item = (Timestamp, Timestamp)>) {
    let known = known.entry(whose).or_default();
    for (begin, end) in spans {
        known.add(begin, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Spans, event::BUCKETS};

    const DAY: u64 = 24 * 60 * 60;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn spans(of: &[(u64, u64)]) -> Spans {
        let mut spans = Spans::default();
        for (begin, end) in of {
            spans.add(at(*begin), at(*end));
        }
        spans
    }

    fn missed(whose: Whose, of: &[(u64, u64)]) -> Uncounted {
        [(whose, spans(of))].into()
    }

    /// A user of bucket 5.
    fn user(n: u64) -> Whose {
        Whose::User((n + 1) * BUCKETS as u64 + 5)
    }

    #[test]
    fn what_nodes_tell_comes_together_and_is_read_as_it_was_written() {
        let mut told = Uncounted::new();
        for news in [
            missed(Whose::Everybody, &[(100, 160)]),
            missed(Whose::Bucket(5), &[(100, 160)]),
            missed(user(1), &[(100, 160)]),
            // It goes on, second by second.
            missed(user(1), &[(101, 161)]),
            missed(user(1), &[(102, 162)]),
            missed(user(2), &[(150, 210)]),
        ] {
            told = decode(&encode(&merge(told, &news, at(200))));
        }
        let want = [
            (Whose::Bucket(5), spans(&[(100, 160)])),
            (user(1), spans(&[(100, 162)])),
            (user(2), spans(&[(150, 210)])),
            (Whose::Everybody, spans(&[(100, 160)])),
        ];
        assert_eq!(told, want.into());
    }

    #[test]
    fn what_is_told_is_bounded_and_excuses_no_less() {
        let mut told = Uncounted::new();
        for round in 0..20 {
            for n in 0..2_000 {
                let begin = n * 10 + round * 100_000;
                told = merge(told, &missed(user(n), &[(begin, begin + 60)]), at(begin));
            }
        }
        for bucket in 0..64 {
            let begin = |n: u64| 1_900_000 + n * 100;
            let many: Vec<_> = (0..20).map(|n| (begin(n), begin(n) + 60)).collect();
            told = merge(told, &missed(Whose::Bucket(bucket), &many), at(2_000_000));
        }
        let users = told.keys().filter(|whose| matches!(whose, Whose::User(_)));
        assert_eq!(users.count(), USERS);
        assert!(told.values().all(|spans| spans.iter().len() <= TOLD));
        let bytes = encode(&told).len();
        assert!(bytes <= 64 * 1024, "{bytes} bytes");
        for n in 0..2_000 {
            let mine = told.get(&user(n)).unwrap_or(&told[&Whose::Bucket(5)]);
            let begin = n * 10 + 1_900_000;
            let last = mine.between(at(begin), at(begin + 60)).as_secs();
            assert_eq!(last, 60, "user {n}: {mine:?}");
        }
    }

    #[test]
    fn what_was_over_long_ago_is_dropped() {
        let told = missed(user(1), &[(100, 160)]);
        for (now, left) in [(8 * DAY, true), (8 * DAY + 161, false)] {
            let told = merge(told.clone(), &Uncounted::new(), at(now));
            assert_eq!(told.contains_key(&user(1)), left, "at {now}");
        }
    }

    #[test]
    fn clocks_of_nodes_may_differ_and_may_be_set_back() {
        for (behind, kept) in [
            (0, 60),
            (60, 60),
            (3_600, 60),
            (3_640, 20),
            (3_700, 0),
            (DAY, 0),
        ] {
            let told = missed(user(1), &[(DAY, DAY + 60)]);
            let now = at(DAY - behind);
            let told = merge(told, &missed(user(2), &[(0, 60)]), now);
            let left = told
                .get(&user(1))
                .map_or(0, |spans| spans.total().as_secs());
            assert_eq!(left, kept, "{behind} seconds behind");
        }
    }

    #[test]
    fn garbage_is_nothing_and_makes_room() {
        for garbage in [&b""[..], b"1234567", b"12345678", &[0; 32], &[2; 32]] {
            assert_eq!(decode(garbage), Uncounted::new(), "{garbage:?}");
            let news = missed(user(1), &[(100, 160)]);
            assert_eq!(merge(decode(garbage), &news, at(160)), news);
        }
    }
}
