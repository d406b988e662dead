//! When events could not be stored: such time is not held against a silent run.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    time::Duration,
};

use crate::{
    clock::{Spans, Timestamp},
    event::StreamKey,
};

/// How long after a failure to store, or after an outage, a producer may still be kept from storing: it retries within
/// this time.
const RECOVERY: Duration = Duration::from_secs(60);

/// How many users' own outages are remembered. Beyond that those of further users count for their buckets.
const USERS: usize = 10_000;

/// How often users are looked through for those whose outages are over and forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// The outages of the node, of buckets, and of single users: a part of an engine may be away.
#[derive(Default)]
pub(super) struct OutageBook {
    node: Spans,
    buckets: BTreeMap<usize, Bucket>,
    /// How many users there are in all buckets.
    users: usize,
    tidy_at: Timestamp,
}

/// What lies in one place.
#[derive(Default)]
struct Bucket {
    all: Spans,
    users: HashMap<StreamKey, Spans>,
}

impl OutageBook {
    /// Nothing could be stored at `now`, whoever's.
    pub(super) fn failed(&mut self, now: Timestamp) {
        fail(&mut self.node, now);
    }

    /// What is in `buckets` could not be reached at `now`.
    pub(super) fn buckets_failed(
        &mut self,
        buckets: impl IntoIterator<Item = usize>,
        now: Timestamp,
    ) {
        for bucket in buckets {
            fail(&mut self.buckets.entry(bucket).or_default().all, now);
        }
    }

    /// Nobody could store anything from `begin` to `end`: an outage that is over.
    pub(super) fn over(&mut self, begin: Timestamp, end: Timestamp) {
        self.node.add(begin, end + RECOVERY);
    }

    /// Another node knew at `now` of time that does not count, from `begin` to `end`: for a bucket, or for everybody.
    pub(super) fn inherit(
        &mut self,
        bucket: Option<usize>,
        (begin, end): (Timestamp, Timestamp),
        now: Timestamp,
    ) {
        let spans = match bucket {
            Some(bucket) => &mut self.buckets.entry(bucket).or_default().all,
            None => &mut self.node,
        };
        spans.add(begin, end.min(now + RECOVERY));
    }

    /// Something of one user could not be stored at `now`.
    pub(super) fn user_failed(&mut self, stream: &StreamKey, now: Timestamp) {
        if self.users >= USERS && now >= self.tidy_at {
            self.tidy(now);
        }
        let bucket = self.buckets.entry(stream.bucket()).or_default();
        if let Some(own) = bucket.users.get_mut(stream) {
            fail(own, now);
        } else if self.users < USERS {
            self.users += 1;
            fail(bucket.users.entry(stream.clone()).or_default(), now);
        } else {
            fail(&mut bucket.all, now);
        }
    }

    fn tidy(&mut self, now: Timestamp) {
        self.tidy_at = now + TIDY_EVERY;
        for bucket in self.buckets.values_mut() {
            bucket.users.retain(|_, spans| !spans.are_over(now));
        }
        self.users = self.buckets.values().map(|bucket| bucket.users.len()).sum();
    }

    /// Those of the node as of `now`.
    pub(super) fn of_node(&mut self, now: Timestamp) -> &Spans {
        self.node.cut(now + RECOVERY);
        &self.node
    }

    /// Those of each of `buckets` as of `now`, and of anybody there.
    pub(super) fn of_buckets(
        &mut self,
        buckets: Range<usize>,
        now: Timestamp,
    ) -> Vec<(usize, Spans)> {
        let mut found = Vec::new();
        for (number, bucket) in self.buckets.range_mut(buckets) {
            let mut spans = Spans::default();
            for own in bucket.users.values_mut().chain([&mut bucket.all]) {
                join(&mut spans, own, now);
            }
            found.push((*number, spans));
        }
        found
    }

    /// Those that concern a user as of `now`.
    pub(super) fn of(&mut self, stream: &StreamKey, now: Timestamp) -> Spans {
        let mut spans = self.of_node(now).clone();
        if let Some(bucket) = self.buckets.get_mut(&stream.bucket()) {
            join(&mut spans, &mut bucket.all, now);
            if let Some(own) = bucket.users.get_mut(stream) {
                join(&mut spans, own, now);
            }
        }
        spans
    }
}

/// Adds what is known as of `now` to `spans`: what several tell of is one outage.
fn join(spans: &mut Spans, known: &mut Spans, now: Timestamp) {
    known.cut(now + RECOVERY);
    for (begin, end) in known.iter() {
        spans.add(begin, end);
    }
}

/// Where the clock went back, what was noted for a time that comes again is cut off.
fn fail(spans: &mut Spans, now: Timestamp) {
    spans.cut(now + RECOVERY);
    spans.add(now, now + RECOVERY);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Tenant, UserId};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn user(name: &str) -> StreamKey {
        StreamKey::new(Tenant::new("t").unwrap(), UserId::new(name).unwrap())
    }

    fn covered(book: &mut OutageBook, stream: &StreamKey, now: u64) -> u64 {
        book.of(stream, at(now)).total().as_secs()
    }

    #[test]
    fn a_clock_that_goes_back_leaves_no_outage_in_what_is_to_come() {
        let stream = user("u");
        let mut book = OutageBook::default();
        book.failed(at(100));
        book.buckets_failed([stream.bucket()], at(3_000));
        book.user_failed(&stream, at(5_000));
        book.over(at(4_000), at(5_000));
        assert_eq!(covered(&mut book, &stream, 5_000), 60 + 60 + 1_060);
        // A producer that is still kept from storing has its minute again.
        assert_eq!(covered(&mut book, &stream, 4_500), 60 + 60 + 560);
        assert_eq!(covered(&mut book, &stream, 1_000), 60);
        book.failed(at(50));
        assert_eq!(covered(&mut book, &stream, 60), 60);
    }

    #[test]
    fn what_is_away_excuses_those_who_are_there() {
        let (one, other) = (user("u"), user("v"));
        assert_ne!(one.bucket(), other.bucket());
        let mut book = OutageBook::default();
        book.user_failed(&one, at(100));
        // The same outage, told twice.
        book.buckets_failed([one.bucket()], at(110));
        assert_eq!(covered(&mut book, &one, 200), 70);
        assert_eq!(covered(&mut book, &other, 200), 0);
        let told = book.of_buckets(0..crate::event::BUCKETS, at(200));
        let told: Vec<_> = told
            .iter()
            .map(|(b, s)| (*b, s.total().as_secs()))
            .collect();
        assert_eq!(told, [(one.bucket(), 70)]);
        let mut heir = OutageBook::default();
        heir.inherit(Some(one.bucket()), (at(100), at(170)), at(200));
        assert_eq!(covered(&mut heir, &one, 200), 70);
        assert_eq!(covered(&mut heir, &other, 200), 0);
    }

    #[test]
    fn users_beyond_those_that_are_remembered_count_for_their_buckets() {
        let mut book = OutageBook::default();
        for n in 0..USERS {
            book.user_failed(&user(&format!("u{n}")), at(100));
        }
        let late = user("late");
        book.user_failed(&late, at(100));
        assert_eq!(covered(&mut book, &late, 200), 60);
        assert_eq!(book.users, USERS);
        // Those that are over make room.
        let later = 9 * 24 * 60 * 60;
        book.user_failed(&late, at(later));
        assert_eq!((covered(&mut book, &late, later + 60), book.users), (60, 1));
    }
}
