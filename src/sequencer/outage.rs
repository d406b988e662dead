//! When events could not be stored: such time is not held against a silent run.

use std::{ops::Range, time::Duration};

use super::{
    lease::{RANGES, range_of},
    uncounted::{Uncounted, Whose},
};
use crate::{
    clock::{Spans, Timestamp},
    event::StreamKey,
};

/// How long after a failure to store, or after an outage, a producer may still be kept from storing: it retries within
/// this time.
pub(super) const RECOVERY: Duration = Duration::from_secs(60);

/// How many users' own outages are remembered. Beyond that those of further users count for their buckets.
const USERS: usize = 10_000;

/// How often users are looked through for those whose outages are over and forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// The outages of nodes, of buckets, and of single users: a part of an engine may be away.
#[derive(Default)]
pub(super) struct OutageBook {
    known: Uncounted,
    /// How many users there are among them.
    users: usize,
    tidy_at: Timestamp,
    /// What this node missed itself and has not told the others, for each range that it is to be told of.
    untold: [Uncounted; RANGES],
    /// Nobody goes by this node's clock: it does not know when what fails now did, so that it is no news.
    timeless: bool,
}

impl OutageBook {
    /// Nothing could be stored at `now`, whoever's.
    pub(super) fn failed(&mut self, now: Timestamp) {
        self.fail(Whose::Everybody, now);
    }

    /// What is in `buckets` could not be reached at `now`.
    pub(super) fn buckets_failed(
        &mut self,
        buckets: impl IntoIterator<Item = usize>,
        now: Timestamp,
    ) {
        for bucket in buckets {
            self.fail(Whose::Bucket(bucket), now);
        }
    }

    /// Nobody may have watched over what is in `buckets` at `now`, as far as this node can see: it is no news for one that
    /// does.
    pub(super) fn unwatched(&mut self, buckets: Range<usize>, now: Timestamp) {
        for bucket in buckets {
            self.note(Whose::Bucket(bucket), now);
        }
    }

    /// Something of one user could not be stored at `now`.
    pub(super) fn user_failed(&mut self, stream: &StreamKey, now: Timestamp) {
        self.fail(Whose::of(stream), now);
    }

    /// Nobody could store anything through this node from `begin` to `end`: an outage that is over.
    pub(super) fn over(&mut self, begin: Timestamp, end: Timestamp) {
        self.nobody_ran(begin, end);
        self.is_news(Whose::Everybody, begin, end + RECOVERY);
    }

    /// Nobody may have run from `begin` to `end`, as far as this node can see: no news either.
    pub(super) fn nobody_ran(&mut self, begin: Timestamp, end: Timestamp) {
        let spans = self.known.entry(Whose::Everybody).or_default();
        spans.add(begin, end + RECOVERY);
    }

    /// Whether what fails from now on is no news: nobody goes by this node's clock.
    pub(super) fn set_timeless(&mut self, timeless: bool) {
        self.timeless = timeless;
    }

    fn fail(&mut self, whose: Whose, now: Timestamp) {
        let whose = self.note(whose, now);
        self.is_news(whose, now, now + RECOVERY);
    }

    /// Notes an outage, and returns whose. Where the clock went back, what was noted for a time that comes again is cut
    /// off.
    fn note(&mut self, whose: Whose, now: Timestamp) -> Whose {
        let whose = self.place(whose, now);
        let spans = self.known.entry(whose).or_default();
        spans.cut(now + RECOVERY);
        spans.add(now, now + RECOVERY);
        whose
    }

    /// Where it is noted: with the user's bucket, if there are too many users.
    fn place(&mut self, whose: Whose, now: Timestamp) -> Whose {
        let (Whose::User(_), Some(bucket)) = (whose, whose.bucket()) else {
            return whose;
        };
        if self.known.contains_key(&whose) {
            return whose;
        }
        if self.users >= USERS && now >= self.tidy_at {
            self.tidy(now);
        }
        if self.users >= USERS {
            return Whose::Bucket(bucket);
        }
        self.users += 1;
        whose
    }

    fn tidy(&mut self, now: Timestamp) {
        self.tidy_at = now + TIDY_EVERY;
        self.known.retain(|_, spans| !spans.are_over(now));
        let is_user = |whose: &&Whose| matches!(whose, Whose::User(_));
        self.users = self.known.keys().filter(is_user).count();
    }

    fn is_news(&mut self, whose: Whose, begin: Timestamp, end: Timestamp) {
        if self.timeless {
            return;
        }
        let untold = match whose.bucket() {
            Some(bucket) => std::slice::from_mut(&mut self.untold[range_of(bucket)]),
            None => &mut self.untold[..],
        };
        for untold in untold {
            let spans = untold.entry(whose).or_default();
            spans.cut(end);
            spans.add(begin, end);
        }
    }

    /// Another node knew at `now` of time that does not count.
    pub(super) fn inherit(&mut self, known: &Uncounted, now: Timestamp) {
        for (whose, spans) in known {
            let whose = self.place(*whose, now);
            let here = self.known.entry(whose).or_default();
            for (begin, end) in spans.iter() {
                here.add(begin, end.min(now + RECOVERY));
            }
        }
    }

    /// What other nodes have not been told of a range, as of `now`.
    pub(super) fn news(&mut self, range: usize, now: Timestamp) -> Uncounted {
        let untold = &mut self.untold[range];
        untold.retain(|_, spans| {
            spans.cut(now + RECOVERY);
            !spans.are_over(now)
        });
        untold.clone()
    }

    /// The others were told `news` of a range. What has happened meanwhile they have not.
    pub(super) fn told(&mut self, range: usize, news: &Uncounted) {
        self.untold[range].retain(|whose, spans| news.get(whose) != Some(spans));
    }

    /// Those of everybody as of `now`.
    pub(super) fn of_everybody(&mut self, now: Timestamp) -> Spans {
        self.of_each([Whose::Everybody], now)
            .pop()
            .unwrap_or_default()
    }

    /// Those of each of `buckets` as of `now`.
    pub(super) fn of_buckets(&mut self, buckets: Range<usize>, now: Timestamp) -> Uncounted {
        let [first, end] = [buckets.start, buckets.end].map(Whose::Bucket);
        let found = self.known.range_mut(first..end).map(|(bucket, spans)| {
            spans.cut(now + RECOVERY);
            (*bucket, spans.clone())
        });
        found.collect()
    }

    /// Those that concern a user as of `now`. They may overlap.
    pub(super) fn of(&mut self, stream: &StreamKey, now: Timestamp) -> Vec<Spans> {
        let bucket = Whose::Bucket(stream.bucket());
        self.of_each([Whose::Everybody, bucket, Whose::of(stream)], now)
    }

    fn of_each<const N: usize>(&mut self, each: [Whose; N], now: Timestamp) -> Vec<Spans> {
        let mut found = Vec::new();
        for whose in each {
            if let Some(known) = self.known.get_mut(&whose) {
                known.cut(now + RECOVERY);
                found.push(known.clone());
            }
        }
        found
    }
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
        let spans = book.of(stream, at(now));
        Spans::of_all_between(&spans, at(0), at(u64::from(u32::MAX))).as_secs()
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
        let seconds = |(whose, spans): (&Whose, &Spans)| (*whose, spans.total().as_secs());
        let seconds: Vec<_> = told.iter().map(seconds).collect();
        assert_eq!(seconds, [(Whose::Bucket(one.bucket()), 60)]);
        let mut heir = OutageBook::default();
        heir.inherit(&told, at(200));
        assert_eq!(covered(&mut heir, &one, 200), 60);
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

    /// What is told, by range, and of how many seconds.
    fn news(book: &mut OutageBook, now: u64) -> Vec<(usize, Whose, u64)> {
        let news = (0..RANGES).flat_map(|range| {
            let seconds =
                move |(whose, spans): (Whose, Spans)| (range, whose, spans.total().as_secs());
            book.news(range, at(now)).into_iter().map(seconds)
        });
        news.collect()
    }

    #[test]
    fn what_a_node_noted_is_news_until_it_is_told() {
        let one = user("u");
        let (range, whose) = (range_of(one.bucket()), Whose::of(&one));
        let mut book = OutageBook::default();
        book.user_failed(&one, at(100));
        assert_eq!(news(&mut book, 101), [(range, whose, 60)]);
        let told = book.news(range, at(101));
        // It goes on while that is told.
        book.user_failed(&one, at(102));
        book.told(range, &told);
        assert_eq!(news(&mut book, 103), [(range, whose, 62)]);
        let told = book.news(range, at(103));
        book.told(range, &told);
        assert_eq!(news(&mut book, 104), []);
        // What others told is none.
        book.inherit(&told, at(104));
        assert_eq!(news(&mut book, 104), []);
        // Nor is what others see better.
        book.unwatched(0..64, at(104));
        book.nobody_ran(at(50), at(104));
        assert_eq!(news(&mut book, 104), []);
        // Nor what failed when nobody knows.
        book.set_timeless(true);
        book.user_failed(&one, at(104));
        book.failed(at(104));
        book.over(at(50), at(104));
        book.buckets_failed(0..64, at(104));
        assert_eq!(news(&mut book, 104), []);
        book.set_timeless(false);
        assert_eq!(news(&mut book, 104), []);
        // What concerns everybody is told of each range, and without what is no news.
        book.failed(at(200));
        let of_all = news(&mut book, 200);
        let each: Vec<_> = (0..RANGES).map(|n| (n, Whose::Everybody, 60)).collect();
        assert_eq!(of_all, each);
        let told = book.news(3, at(200));
        book.told(3, &told);
        assert_eq!(news(&mut book, 200).len(), RANGES - 1);
    }

    #[test]
    fn news_of_a_time_that_comes_again_is_none() {
        let one = user("u");
        let mut book = OutageBook::default();
        book.user_failed(&one, at(1_000));
        assert_eq!(news(&mut book, 100), []);
        book.user_failed(&one, at(1_000));
        book.user_failed(&one, at(100));
        let seconds: Vec<_> = news(&mut book, 1_000).iter().map(|news| news.2).collect();
        assert_eq!(seconds, [60]);
        assert_eq!(news(&mut book, 9 * 24 * 60 * 60), []);
    }
}
