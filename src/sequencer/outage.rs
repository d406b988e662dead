//! When events could not be stored: such time is not held against a silent run.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{clock::Timestamp, event::StreamKey};

/// How long after a failure to store a producer may still be kept from storing: it retries within this time.
const RECOVERY: Duration = Duration::from_secs(60);

/// How many outages are remembered. Beyond that the two oldest are taken for one.
const OUTAGES: usize = 64;

/// How long an outage is remembered: longer than any run may be silent.
const MEMORY: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// Spans of time in which events could not be stored, oldest first, apart from one another.
#[derive(Clone, Debug, Default)]
pub struct Outages(VecDeque<(Timestamp, Timestamp)>);

impl Outages {
    /// Something could not be stored at `now`.
    pub fn failed(&mut self, now: Timestamp) {
        let until = now + RECOVERY;
        match self.0.back_mut() {
            Some((_, end)) if *end >= now => *end = (*end).max(until),
            _ => self.0.push_back((now, until)),
        }
        while self.0.front().is_some_and(|(_, end)| *end + MEMORY < now) {
            self.0.pop_front();
        }
        if self.0.len() > OUTAGES
            && let Some((begin, _)) = self.0.pop_front()
            && let Some((next, _)) = self.0.front_mut()
        {
            *next = begin;
        }
    }

    /// How much of the time from `from` to `to` they cover.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> Duration {
        let covered =
            |(begin, end): &(Timestamp, Timestamp)| (*end).min(to).since((*begin).max(from));
        self.0.iter().map(covered).sum()
    }
}

/// How many users' own outages are remembered. Beyond that those of further users are not.
const USERS: usize = 10_000;

/// How often users are looked through for those whose outages are over and forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// The outages of the node, and those of single users for whom there was no room.
#[derive(Default)]
pub(super) struct OutageBook {
    node: Outages,
    users: HashMap<StreamKey, Outages>,
    tidy_at: Timestamp,
}

impl OutageBook {
    /// Nothing could be stored at `now`, whoever's.
    pub(super) fn failed(&mut self, now: Timestamp) {
        self.node.failed(now);
    }

    /// Something of one user could not be stored at `now`.
    pub(super) fn user_failed(&mut self, stream: &StreamKey, now: Timestamp) {
        if self.users.len() >= USERS && now >= self.tidy_at {
            self.tidy_at = now + TIDY_EVERY;
            self.users.retain(|_, outages| !outages.are_over(now));
        }
        if self.users.len() < USERS || self.users.contains_key(stream) {
            self.users.entry(stream.clone()).or_default().failed(now);
        }
    }

    /// Those that concern a user.
    pub(super) fn of(&self, stream: &StreamKey) -> Vec<Outages> {
        let own = self.users.get(stream);
        [&self.node].into_iter().chain(own).cloned().collect()
    }
}

impl Outages {
    /// Whether none is remembered any more.
    fn are_over(&self, now: Timestamp) -> bool {
        let last = self.0.back();
        last.is_none_or(|(_, end)| *end + MEMORY < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    fn covered(outages: &Outages, from: u64, to: u64) -> u64 {
        outages.between(at(from), at(to)).as_secs()
    }

    #[test]
    fn failures_close_to_each_other_are_one_outage() {
        let mut outages = Outages::default();
        for second in [100, 130, 150, 1000] {
            outages.failed(at(second));
        }
        assert_eq!(outages.0.len(), 2);
        let cases = [
            ((0, 100), 0),
            ((0, 110), 10),
            ((0, 5000), 110 + 60),
            ((120, 140), 20),
            ((200, 1010), 10 + 10),
            ((210, 900), 0),
        ];
        for ((from, to), want) in cases {
            assert_eq!(covered(&outages, from, to), want, "{from}..{to}");
        }
    }

    #[test]
    fn they_are_bounded_and_err_on_the_side_of_the_silent_run() {
        let mut outages = Outages::default();
        for n in 0..200 {
            outages.failed(at(n * 1000));
        }
        assert_eq!(outages.0.len(), OUTAGES);
        assert!(covered(&outages, 0, 200_000) >= 200 * 60);
        outages.failed(at(0) + 2 * MEMORY);
        assert_eq!(outages.0.len(), 1);
    }
}
