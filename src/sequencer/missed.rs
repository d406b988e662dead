//! What nodes tell each other of events that they could not store, through the key store that they share: the node that
//! watches over a run need not be the one that its producer cannot get through.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    Sequencer,
    lease::{KEPT, RANGES, TOLD, buckets_of},
    outage::RECOVERY,
    uncounted::{self, Uncounted, Whose},
};
use crate::{
    clock::Timestamp,
    engine::{Condition, EngineError, Key},
};

/// The form of the value.
const VERSION: u64 = 1;

/// How often what is news is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How often a value is put again because other nodes came first; after that it is news for another second.
const ATTEMPTS: usize = 3;

/// How long a node that is about to go tries to tell all that is news.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long it waits before it tries again.
const LAST_WORDS_PAUSE: Duration = Duration::from_millis(50);

/// How many users are told of in a range. Beyond that, what was over first counts for its bucket. With 32 spans of each, of
/// each of 64 buckets, and of everybody, 24 bytes a span, a value is below 100 KiB.
const USERS: usize = 64;

/// How far ahead another node's clock may be. What is said of a later time was said before clocks went back.
const AHEAD: Duration = Duration::from_secs(60 * 60);

/// How often in a row nobody could be asked what was missed of a range until that is worth a warning.
const WARN_AFTER: u32 = 10;

impl Sequencer {
    /// Tells the other nodes once a second what could not be stored through this one, for as long as this is polled. A
    /// range whose place hangs delays no other.
    pub async fn keep_telling(&self) {
        join_all((0..RANGES).map(|range| self.keep_telling_of(range))).await;
    }

    async fn keep_telling_of(&self, range: usize) {
        loop {
            self.tell_of(range).await;
            tokio::time::sleep(TELL_EVERY).await;
        }
    }

    /// Tells the other nodes, of all ranges at once, what could not be stored through this one and is not told yet. What
    /// cannot be told now is told later. Whether nothing is left.
    pub async fn tell_missed(&self) -> bool {
        let told = join_all((0..RANGES).map(|range| self.tell_of(range))).await;
        told.into_iter().all(|told| told)
    }

    /// The same, until nothing is left, or for two seconds: this node is about to go.
    pub async fn tell_rest(&self) {
        let told = async {
            while !self.tell_missed().await {
                tokio::time::sleep(LAST_WORDS_PAUSE).await;
            }
        };
        if tokio::time::timeout(LAST_WORDS, told).await.is_err() {
            tracing::warn!("other nodes were not told all that could not be stored here");
        }
    }

    /// Whether nothing is left to tell of a range. A node whose clock nobody goes by tells nothing: what it would forget of
    /// what others said goes by its own.
    async fn tell_of(&self, range: usize) -> bool {
        if let Condition::Unfit(_) = self.engine.condition() {
            return true;
        }
        let news = self.outages.lock().news(range, self.clock.now());
        if news.is_empty() {
            return true;
        }
        match self.tell(range, &news).await {
            Ok(true) => {
                self.outages.lock().told(range, &news);
                return true;
            }
            Ok(false) => tracing::debug!(range, "other nodes came first too often"),
            Err(error) => tracing::debug!(%error, range, "what was missed was not told"),
        }
        false
    }

    /// Whether `news` of a range are known now.
    async fn tell(&self, range: usize, news: &Uncounted) -> Result<bool, EngineError> {
        let key = key(range);
        for _ in 0..ATTEMPTS {
            let there = self.engine.get(&key).await?.map(|there| there.value);
            let known = there.as_deref().map(decode).unwrap_or_default();
            let value = encode(&merge(known, news, self.clock.now()));
            let is_told = match there {
                Some(there) if there == value => true,
                Some(there) => {
                    let set = self.engine.compare_and_set(&key, &there, value, KEPT);
                    set.await?
                }
                None => {
                    let there = self.engine.put_if_absent(&key, value, KEPT);
                    there.await?.is_none()
                }
            };
            if is_told {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes in what other nodes could not store, before any run of a range is judged. Whether they could be asked; else
    /// none of its runs is judged now, which is no outage: the next sweep asks again.
    pub(super) async fn hear(&self, range: usize) -> bool {
        let there = self.engine.get(&key(range)).await;
        let is_heard = there.is_ok();
        match there {
            Ok(there) => {
                let missed = there.map(|there| decode(&there.value)).unwrap_or_default();
                let now = self.clock.now();
                self.outages.lock().inherit(&missed, now);
            }
            Err(error) => tracing::debug!(%error, range, "nobody knows what other nodes missed"),
        }
        match self.unheard.lock().look(range, is_heard) {
            Some(Say::Lost) => tracing::warn!(
                buckets = ?buckets_of(range),
                "silent runs are not ended: it cannot be asked what other nodes could not store"
            ),
            Some(Say::Back) => {
                tracing::warn!(buckets = ?buckets_of(range), "silent runs are ended again")
            }
            None => {}
        }
        is_heard
    }
}

/// How often in a row nobody could be asked what was missed, of each range.
#[derive(Default)]
pub(super) struct Unheard([u32; RANGES]);

/// What operators are to know of a range.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    /// It stays as it is: nobody can be asked.
    Lost,
    /// That is over.
    Back,
}

impl Unheard {
    fn look(&mut self, range: usize, is_heard: bool) -> Option<Say> {
        let count = &mut self.0[range];
        if is_heard {
            let before = std::mem::take(count);
            return (before >= WARN_AFTER).then_some(Say::Back);
        }
        *count = count.saturating_add(1);
        (*count == WARN_AFTER).then_some(Say::Lost)
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
    use std::collections::BTreeMap;

    use super::{super::outage::OutageBook, *};
    use crate::{
        clock::{Entropy, Spans},
        event::{BUCKETS, StreamKey, Tenant, UserId},
    };

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
    fn what_is_told_is_bounded_and_the_oldest_is_forgotten() {
        let mut told = Uncounted::new();
        for round in 0..40 {
            for n in 0..200 {
                let begin = n * 10 + round * 10_000;
                told = merge(told, &missed(user(n), &[(begin, begin + 60)]), at(begin));
            }
        }
        let many: Vec<_> = (0..40).map(|n| (n * 100, n * 100 + 60)).collect();
        for whose in (0..64).map(Whose::Bucket).chain([Whose::Everybody]) {
            told = merge(told, &missed(whose, &many), at(400_000));
        }
        for n in 136..200 {
            told = merge(told, &missed(user(n), &many), at(400_000));
        }
        let users: Vec<_> = told
            .keys()
            .filter(|whose| matches!(whose, Whose::User(_)))
            .collect();
        let last: Vec<_> = (200 - USERS as u64..200).map(user).collect();
        assert_eq!(users, last.iter().collect::<Vec<_>>());
        assert!(told.values().all(|spans| spans.iter().len() <= TOLD));
        let bytes = encode(&told).len();
        assert_eq!(bytes, 8 + (1 + 64 + 64) * TOLD * 24);
        assert!(bytes < 100 * 1024, "{bytes} bytes");
        let everybody = &told[&Whose::Everybody];
        assert_eq!(*everybody, spans(&many[8..]));
        // Of a user who has no place of its own, the bucket's are the latest.
        let bucket = &told[&Whose::Bucket(5)];
        let last = 39 * 10_000 + 135 * 10;
        assert_eq!(bucket.between(at(last), at(last + 60)).as_secs(), 60);
    }

    /// A failure somewhere every second: one in 16 seconds of a range, each of another user.
    #[test]
    fn single_failures_of_many_users_excuse_no_bucket_for_long() {
        const QUARTER: u64 = 15 * 60;
        let entropy = Entropy::seeded(1);
        let mut told = Uncounted::new();
        let (mut longest, mut total) = (Duration::ZERO, Duration::ZERO);
        let mut looks = 0;
        for second in (0..2 * DAY).step_by(16) {
            let bucket = entropy.bits() % 64;
            let whose = Whose::User((second + 1) * BUCKETS as u64 + bucket);
            told = merge(told, &missed(whose, &[(second, second + 60)]), at(second));
            if second < DAY || second % (10 * 16) != 0 {
                continue;
            }
            let mut book = OutageBook::default();
            book.inherit(&told, at(second));
            for stream in &streams() {
                let spans = book.of(stream, at(second));
                for end in [second, second - QUARTER, second - 2 * QUARTER] {
                    let from = at(end - QUARTER);
                    let excused = Spans::of_all_between(&spans, from, at(end));
                    longest = longest.max(excused);
                    total += excused;
                    looks += 1;
                }
            }
        }
        // A bucket has a failure in 1,024 seconds.
        let mean = total.as_secs() / looks;
        assert!((10..=60).contains(&mean), "{mean} s of 15 min");
        assert!(longest.as_secs() <= 8 * 60, "{longest:?} of 15 min");
    }

    /// One of each bucket of the first range, for whom nothing failed.
    fn streams() -> Vec<StreamKey> {
        let tenant = Tenant::new("t").unwrap();
        let of = |n: u64| StreamKey::new(tenant.clone(), UserId::new(&format!("u{n}")).unwrap());
        let mut found = BTreeMap::new();
        for stream in (0..20_000).map(of).filter(|stream| stream.bucket() < 64) {
            found.entry(stream.bucket()).or_insert(stream);
        }
        assert_eq!(found.len(), 64);
        found.into_values().collect()
    }

    #[test]
    fn it_is_said_once_that_nobody_can_be_asked_and_once_that_that_is_over() {
        let mut unheard = Unheard::default();
        let (not, heard) = (false, true);
        let mut say = |range, looks: &[bool]| -> Vec<_> {
            let said = looks.iter().map(|is_heard| unheard.look(range, *is_heard));
            said.flatten().collect()
        };
        assert_eq!(say(3, &[not; 9]), []);
        assert_eq!(say(3, &[heard, heard]), []);
        assert_eq!(say(3, &[not; 9]), []);
        assert_eq!(say(4, &[not, heard]), []);
        assert_eq!(say(3, &[not; 30]), [Say::Lost]);
        assert_eq!(say(3, &[heard, heard]), [Say::Back]);
        assert_eq!(say(3, &[not; 10]), [Say::Lost]);
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
