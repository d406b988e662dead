//! Which runs the watchdog is to look at.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;

use super::{Inner, call, call::CallError, names};
use crate::{clock::Timestamp, engine::Due, event::BUCKETS};

/// How long it is taken for granted when a bucket's first run is due: other nodes arm deadlines too.
const FRESH: Duration = Duration::from_secs(10);

/// How many buckets are asked at once when the first deadlines are looked up, and when runs are.
const LOOKED_UP: usize = 64;
const VISITED: usize = 16;

/// When the first run of each bucket is due, as far as this node knows: an idle second asks Redis nothing.
pub(super) struct Deadlines {
    buckets: Vec<Known>,
}

/// In milliseconds.
struct Known {
    /// The first deadline; `u64::MAX`: there is none.
    earliest: AtomicU64,
    /// When that was looked up; 0: never.
    looked_up: AtomicU64,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        let known = || Known {
            earliest: AtomicU64::new(u64::MAX),
            looked_up: AtomicU64::new(0),
        };
        Self {
            buckets: (0..BUCKETS).map(|_| known()).collect(),
        }
    }

    /// A run of the bucket may be due at `at`.
    pub(super) fn lower(&self, bucket: usize, at: Timestamp) {
        if let Some(known) = self.buckets.get(bucket) {
            known.earliest.fetch_min(at.as_millis(), Ordering::AcqRel);
        }
    }

    fn is_due(&self, bucket: usize, now: Timestamp) -> bool {
        let known = self.buckets.get(bucket);
        known.is_some_and(|known| known.earliest.load(Ordering::Acquire) <= now.as_millis())
    }

    /// Whether it is unknown by now when the first run of the bucket is due.
    fn is_stale(&self, bucket: usize, now: Timestamp) -> bool {
        let at = |known: &Known| Timestamp::from_millis(known.looked_up.load(Ordering::Relaxed));
        // A clock that was set back counts as well.
        let is_old = |at: Timestamp| at > now || at + FRESH <= now;
        self.buckets
            .get(bucket)
            .is_some_and(|known| is_old(at(known)))
    }
}

impl Inner {
    pub(super) async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, CallError> {
        let stale = buckets
            .clone()
            .filter(|bucket| self.due.is_stale(*bucket, now));
        let look_ups = stream::iter(stale).map(|bucket| self.look_up(bucket, now));
        let mut look_ups = look_ups.buffer_unordered(LOOKED_UP);
        while look_ups.try_next().await?.is_some() {}

        let due = buckets.filter(|bucket| self.due.is_due(*bucket, now));
        let visits = stream::iter(due).map(|bucket| self.visit(bucket, now, limit));
        let mut visits = visits.buffered(VISITED);
        let mut found = Vec::new();
        while let Some(more) = visits.try_next().await? {
            found.extend(more);
            if found.len() >= limit {
                found.truncate(limit);
                break;
            }
        }
        Ok(found)
    }

    /// Looks up when the first run of the bucket is due.
    async fn look_up(&self, bucket: usize, now: Timestamp) -> Result<(), CallError> {
        let Some(known) = self.due.buckets.get(bucket) else {
            return Ok(());
        };
        // What is armed here from now on is not in the answer, maybe: it lowers what is put in place of this.
        let before = known.earliest.swap(u64::MAX, Ordering::AcqRel);
        let mut first = redis::cmd("ZRANGE");
        first.arg(self.names.deadlines(bucket)).arg(0).arg(0);
        first.arg("WITHSCORES");
        let answer = self.calls.run(&first).await.and_then(call::array);
        let earliest = match &answer {
            Ok(items) => items.get(1).map_or(u64::MAX, score),
            Err(_) => before,
        };
        known.earliest.fetch_min(earliest, Ordering::AcqRel);
        answer?;
        known.looked_up.store(now.as_millis(), Ordering::Relaxed);
        Ok(())
    }

    /// The runs of the bucket that are due.
    async fn visit(
        &self,
        bucket: usize,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, CallError> {
        let mut range = redis::cmd("ZRANGEBYSCORE");
        range
            .arg(self.names.deadlines(bucket))
            .arg("-inf")
            .arg(now.as_millis())
            .arg("LIMIT")
            .arg(0)
            .arg(i64::try_from(limit).unwrap_or(i64::MAX));
        let members = call::array(self.calls.run(&range).await?)?;
        if members.is_empty() {
            self.look_up(bucket, now).await?;
        }
        let due = members.into_iter().map(|member| {
            let member = call::text(member)?;
            names::due_of(&member).ok_or_else(|| call::odd("no deadline"))
        });
        due.collect()
    }
}

fn score(item: &Value) -> u64 {
    let score = match item {
        Value::BulkString(text) => std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok()),
        Value::Double(score) => Some(*score),
        _ => None,
    };
    // A double that is no whole number of milliseconds was not put there by the functions.
    score.map_or(0, |score: f64| score as u64)
}
