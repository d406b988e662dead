//! When events could not be stored: such time is not held against a silent run.

use std::{collections::HashMap, time::Duration};

use crate::{
    clock::{Spans, Timestamp},
    event::StreamKey,
};

/// How long after a failure to store, or after an outage, a producer may still be kept from storing: it retries within
/// this time.
const RECOVERY: Duration = Duration::from_secs(60);

/// How many users' own outages are remembered. Beyond that those of further users are not.
const USERS: usize = 10_000;

/// How often users are looked through for those whose outages are over and forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// The outages of the node, and those of single users for whom there was no room.
#[derive(Default)]
pub(super) struct OutageBook {
    node: Spans,
    users: HashMap<StreamKey, Spans>,
    tidy_at: Timestamp,
}

impl OutageBook {
    /// Nothing could be stored at `now`, whoever's.
    pub(super) fn failed(&mut self, now: Timestamp) {
        fail(&mut self.node, now);
    }

    /// Nobody could store anything from `begin` to `end`, if that is later: an outage that is over.
    pub(super) fn over(&mut self, begin: Timestamp, end: Timestamp) {
        if begin < end {
            self.node.add(begin, end + RECOVERY);
        }
    }

    /// Another node knew at `now` of time that does not count, from `begin` to `end`.
    pub(super) fn inherit(&mut self, begin: Timestamp, end: Timestamp, now: Timestamp) {
        self.node.add(begin, end.min(now + RECOVERY));
    }

    /// Something of one user could not be stored at `now`.
    pub(super) fn user_failed(&mut self, stream: &StreamKey, now: Timestamp) {
        if self.users.len() >= USERS && now >= self.tidy_at {
            self.tidy_at = now + TIDY_EVERY;
            self.users.retain(|_, spans| !spans.are_over(now));
        }
        if self.users.len() < USERS || self.users.contains_key(stream) {
            fail(self.users.entry(stream.clone()).or_default(), now);
        }
    }

    /// Those of the node as of `now`.
    pub(super) fn of_node(&mut self, now: Timestamp) -> &Spans {
        self.node.cut(now + RECOVERY);
        &self.node
    }

    /// Those that concern a user as of `now`.
    pub(super) fn of(&mut self, stream: &StreamKey, now: Timestamp) -> Vec<Spans> {
        let mut spans = vec![self.of_node(now).clone()];
        if let Some(own) = self.users.get_mut(stream) {
            own.cut(now + RECOVERY);
            spans.push(own.clone());
        }
        spans
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

    #[test]
    fn a_clock_that_goes_back_leaves_no_outage_in_what_is_to_come() {
        let stream = StreamKey::new(Tenant::new("t").unwrap(), UserId::new("u").unwrap());
        let mut book = OutageBook::default();
        book.failed(at(100));
        book.user_failed(&stream, at(5_000));
        book.over(at(4_000), at(5_000));
        let covered = |book: &mut OutageBook, now| -> Vec<u64> {
            let spans = book.of(&stream, at(now));
            let covered = spans.iter().map(|spans| spans.total().as_secs());
            covered.collect()
        };
        assert_eq!(covered(&mut book, 5_000), [1_120, 60]);
        // A producer that is still kept from storing has its minute again.
        assert_eq!(covered(&mut book, 4_500), [60 + 560, 0]);
        assert_eq!(covered(&mut book, 1_000), [60, 0]);
        book.failed(at(50));
        assert_eq!(covered(&mut book, 60), [60, 0]);
    }
}
