//! How far the clocks of this node and of Redis are apart. Ages are reckoned by the caller's clock: one that is ahead by
//! more than the dedupe window would forget ids, and one that is ahead by more than the retention records, for all nodes.

use std::{
    sync::atomic::{AtomicI64, AtomicUsize, Ordering},
    time::Duration,
};

use super::{Inner, call, call::CallError};
use crate::event::BUCKETS;

/// How far apart the buckets are that are asked in turn, until one answers: a cluster's server may be away.
const STEP: usize = 389;

/// Before the clocks were compared.
const NEVER: i64 = i64::MIN;

/// By how many milliseconds this node's clock was ahead when they were last compared, and who is asked next time.
pub(super) struct Clocks {
    ahead: AtomicI64,
    judge: AtomicUsize,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            ahead: AtomicI64::new(NEVER),
            judge: AtomicUsize::new(0),
        }
    }
}

impl Clocks {
    /// Whether they were ever compared.
    pub(super) fn are_known(&self) -> bool {
        self.ahead.load(Ordering::Relaxed) != NEVER
    }
}

impl Inner {
    /// # Errors
    /// When the clocks are too far apart for this node to store or forget anything.
    pub(super) fn check_clock(&self) -> Result<(), CallError> {
        let ahead = self.clocks.ahead.load(Ordering::Relaxed);
        if !self.clocks.are_known() && self.config.clock_tolerance < Duration::MAX {
            let why = "the clock of Redis is not known yet".to_owned();
            return Err(CallError::Refused(why));
        }
        if Duration::from_millis(ahead.unsigned_abs()) <= self.config.clock_tolerance {
            return Ok(());
        }
        Err(CallError::Refused(format!(
            "this node's clock is {ahead} ms ahead of that of Redis"
        )))
    }

    /// The same, once the clocks were compared.
    pub(super) async fn await_clock(&self) -> Result<(), CallError> {
        if !self.clocks.are_known() {
            self.compare_clocks().await;
        }
        self.check_clock()
    }

    /// Compares the clocks; what cannot be asked leaves what was known.
    pub(super) async fn compare_clocks(&self) {
        let ahead = match self.ahead().await {
            Ok(ahead) => ahead,
            Err(error) => return tracing::warn!(?error, "the clock of Redis was not read"),
        };
        let agreed = !self.clocks.are_known() || self.check_clock().is_ok();
        self.clocks.ahead.store(ahead, Ordering::Relaxed);
        self.metrics.redis_clock_ahead.set(ahead as f64 / 1e3);
        match (agreed, self.check_clock()) {
            (true, Err(_)) => tracing::error!(
                ahead_ms = ahead,
                "the clock is not that of Redis: emits are refused"
            ),
            (false, Ok(())) => tracing::info!("the clock is that of Redis again"),
            _ => {}
        }
    }

    async fn ahead(&self) -> Result<i64, CallError> {
        self.shards.reached().await?;
        let last = self.clocks.judge.load(Ordering::Relaxed);
        let mut judges = (0..BUCKETS).map(|n| (last + n * STEP) % BUCKETS);
        let judge = judges
            .find(|bucket| self.is_in_reach(*bucket))
            .unwrap_or(last);
        let before = self.clock.now();
        let answer = self.call("clock", judge).on(&self.shards).await;
        let next = match answer {
            Ok(_) => judge,
            Err(_) => (judge + STEP) % BUCKETS,
        };
        self.clocks.judge.store(next, Ordering::Relaxed);
        let mut answer = answer?.into_iter();
        let ours = before + self.clock.now().since(before) / 2;
        let seconds = call::number(call::next(&mut answer)?)?;
        let micros = call::number(call::next(&mut answer)?)?;
        let theirs = seconds.saturating_mul(1_000) + micros / 1_000;
        Ok(ours.as_millis().cast_signed() - theirs.cast_signed())
    }
}
