//! Which runs the watchdog is to look at.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use redis::Value;
use tokio::time::Instant;

use super::{Inner, call, call::CallError, names};
use crate::{
    clock::Timestamp,
    engine::{Due, DueInReach},
    event::BUCKETS,
};

/// How long it is taken for granted when a bucket's first run is due: other nodes arm deadlines too, and a bucket that is
/// away is to be noticed.
const FRESH: Duration = Duration::from_secs(5);

/// How many buckets are asked at once when the first deadlines are looked up, and when runs are. Where a third of them
/// does not answer in time, two times `timeout` go by until all were looked up.
const LOOKED_UP: usize = 256;
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
    /// A part of the buckets may be away: the others are asked all the same.
    pub(super) async fn due_in_reach(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> DueInReach {
        let mut away = self.look_up_stale(buckets.clone(), now).await;
        let due = buckets.filter(|bucket| self.due.is_due(*bucket, now) && !away.contains(bucket));
        let due: Vec<usize> = due.collect();
        let visits = stream::iter(due);
        let visits = visits.map(async |bucket| (bucket, self.visit(bucket, now, limit).await));
        let mut visits = visits.buffer_unordered(VISITED);
        let (began, mut found) = (Instant::now(), Vec::new());
        // Where visits fail late, those that come after them have to wait for the next question.
        while found.len() < limit
            && began.elapsed() < self.config.timeout
            && let Some((bucket, visited)) = visits.next().await
        {
            match visited {
                Ok(more) => found.extend(more),
                Err(error) => {
                    tracing::debug!(?error, bucket, "a bucket was not visited");
                    away.insert(bucket);
                }
            }
        }
        found.truncate(limit);
        DueInReach {
            due: found,
            out_of_reach: away.into_iter().collect(),
        }
    }

    /// Looks up the first deadlines that are not known by now. Returns the buckets that are away.
    async fn look_up_stale(&self, buckets: Range<usize>, now: Timestamp) -> BTreeSet<usize> {
        let stale = buckets.filter(|bucket| self.due.is_stale(*bucket, now));
        let look_ups = stream::iter(stale);
        let look_ups = look_ups.map(async |bucket| (bucket, self.look_up(bucket, now).await));
        let mut look_ups = look_ups.buffer_unordered(LOOKED_UP);
        let mut away = BTreeSet::new();
        while let Some((bucket, looked_up)) = look_ups.next().await {
            if let Err(error) = looked_up {
                tracing::debug!(?error, bucket, "a bucket's first deadline is not known");
                away.insert(bucket);
            }
        }
        away
    }

    /// Looks up when the first run of the bucket is due.
    async fn look_up(&self, bucket: usize, now: Timestamp) -> Result<(), CallError> {
        let Some(known) = self.due.buckets.get(bucket) else {
            return Ok(());
        };
        // What is armed here from now on is not in the answer, maybe: it lowers what is put in place of this.
        let before = known.earliest.swap(u64::MAX, Ordering::AcqRel);
        let key = self.names.deadlines(bucket);
        let mut first = redis::cmd("ZRANGE");
        first.arg(&key).arg(0).arg(0).arg("WITHSCORES");
        let answer = self.shards.run(&key, &first).await.and_then(call::array);
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
        let key = self.names.deadlines(bucket);
        let mut range = redis::cmd("ZRANGEBYSCORE");
        range
            .arg(&key)
            .arg("-inf")
            .arg(now.as_millis())
            .arg("LIMIT")
            .arg(0)
            .arg(i64::try_from(limit).unwrap_or(i64::MAX));
        let members = call::array(self.shards.run(&key, &range).await?)?;
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
