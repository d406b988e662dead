//! Stretches of time that do not count.

use std::{collections::VecDeque, time::Duration};

use super::Timestamp;

/// How many spans are remembered. Beyond that the oldest are forgotten: time between spans is never taken for one.
const SPANS: usize = 64;

/// How long a span is remembered after its end: longer than any run may be silent.
const MEMORY: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Spans of time by the wall clock, oldest first, apart from one another; at most 64, and of the last 8 days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(VecDeque<(Timestamp, Timestamp)>);

impl Spans {
    /// Adds the time from `begin` to `end`.
    pub fn add(&mut self, begin: Timestamp, end: Timestamp) {
        if begin >= end {
            return;
        }
        let (mut begin, mut end) = (begin, end);
        // The clock may have gone back: what comes is not always the latest.
        self.0.retain(|(b, e)| {
            let apart = *e < begin || end < *b;
            if !apart {
                (begin, end) = (begin.min(*b), end.max(*e));
            }
            apart && *e + MEMORY >= end
        });
        let at = self.0.partition_point(|(b, _)| *b < begin);
        self.0.insert(at, (begin, end));
        if self.0.len() > SPANS {
            self.0.pop_front();
        }
    }

    /// Drops what is after `end`.
    pub fn cut(&mut self, end: Timestamp) {
        self.0.retain(|(b, _)| *b < end);
        if let Some((_, last)) = self.0.back_mut() {
            *last = (*last).min(end);
        }
    }

    /// How much of the time from `from` to `to` they cover.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> Duration {
        Self::of_all_between(std::slice::from_ref(self), from, to)
    }

    /// How much of the time from `from` to `to` at least one of `all` covers.
    pub fn of_all_between(all: &[Self], from: Timestamp, to: Timestamp) -> Duration {
        let mut spans: Vec<_> = all.iter().flat_map(Self::iter).collect();
        spans.sort_unstable();
        let (mut covered, mut until) = (Duration::ZERO, from);
        for (begin, end) in spans {
            let end = end.min(to);
            covered += end.since(begin.max(until));
            until = until.max(end);
        }
        covered
    }

    /// How much they cover.
    pub fn total(&self) -> Duration {
        self.0.iter().map(|(b, e)| e.since(*b)).sum()
    }

    /// Whether none is remembered that a decision at `now` could need.
    pub fn are_over(&self, now: Timestamp) -> bool {
        let last = self.0.back();
        last.is_none_or(|(_, end)| *end + MEMORY < now)
    }

    /// The same, but at most the latest `count` of them.
    #[must_use]
    pub fn at_most(mut self, count: usize) -> Self {
        self.0.drain(..self.0.len().saturating_sub(count));
        self
    }

    /// Each one's begin and end, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Timestamp, Timestamp)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn seconds(spans: &Spans) -> Vec<(u64, u64)> {
        let since = |moment: Timestamp| moment.since(at(0)).as_secs();
        spans.iter().map(|(b, e)| (since(b), since(e))).collect()
    }

    #[test]
    fn what_touches_is_one_span_in_whatever_order_it_comes() {
        for (added, want) in [
            (&[(100, 160), (130, 190)][..], &[(100, 190)][..]),
            (&[(100, 160), (200, 260)], &[(100, 160), (200, 260)]),
            // The clock went back.
            (&[(200, 260), (100, 160)], &[(100, 160), (200, 260)]),
            (&[(200, 260), (300, 360), (100, 400)], &[(100, 400)]),
            (&[(200, 260), (100, 200)], &[(100, 260)]),
            (&[(100, 100), (100, 90)], &[]),
        ] {
            assert_eq!(seconds(&spans(added)), want, "{added:?}");
        }
    }

    #[test]
    fn they_tell_how_much_of_a_time_they_cover() {
        let spans = spans(&[(100, 210), (1000, 1060)]);
        for ((from, to), want) in [
            ((0, 100), 0),
            ((0, 110), 10),
            ((0, 5000), 170),
            ((120, 140), 20),
            ((200, 1010), 20),
            ((210, 900), 0),
            ((140, 120), 0),
        ] {
            let covered = spans.between(at(from), at(to)).as_secs();
            assert_eq!(covered, want, "{from}..{to}");
        }
        assert_eq!(spans.total().as_secs(), 170);
    }

    #[test]
    fn what_is_cut_off_is_told_no_more() {
        for (end, want) in [
            (50, &[][..]),
            (150, &[(100, 150)]),
            (500, &[(100, 200)]),
            (1030, &[(100, 200), (1000, 1030)]),
            (2000, &[(100, 200), (1000, 1060)]),
        ] {
            let mut spans = spans(&[(100, 200), (1000, 1060)]);
            spans.cut(at(end));
            assert_eq!(seconds(&spans), want, "at {end}");
        }
    }

    #[test]
    fn what_several_cover_is_covered_once() {
        let all = [
            spans(&[(100, 210), (1000, 1060)]),
            spans(&[(200, 260)]),
            spans(&[(120, 130), (1060, 1070)]),
        ];
        for ((from, to), want) in [
            ((0, 5000), 160 + 70),
            ((110, 125), 15),
            ((0, 220), 120),
            ((205, 1065), 55 + 65),
            ((300, 900), 0),
            ((140, 120), 0),
        ] {
            let covered = Spans::of_all_between(&all, at(from), at(to)).as_secs();
            assert_eq!(covered, want, "{from}..{to}");
        }
    }

    #[test]
    fn they_are_bounded_and_the_oldest_are_forgotten() {
        let mut spans = Spans::default();
        for n in 0..200 {
            spans.add(at(n * 1000), at(n * 1000 + 60));
        }
        let latest = |count: u64| (200 - count..200).map(|n| (n * 1000, n * 1000 + 60));
        assert_eq!(seconds(&spans), latest(64).collect::<Vec<_>>());
        // Nor is anything kept that comes late.
        spans.add(at(500), at(560));
        assert_eq!(seconds(&spans), latest(64).collect::<Vec<_>>());
        for count in [0, 1, 2, 64, 100] {
            let few = spans.clone().at_most(count as usize);
            let want: Vec<_> = latest(count.min(64)).collect();
            assert_eq!(seconds(&few), want, "at most {count}");
        }
        spans.add(at(0) + 2 * MEMORY, at(60) + 2 * MEMORY);
        assert_eq!(spans.iter().len(), 1);
    }
}
