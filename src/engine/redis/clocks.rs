//! How far the clocks of this node and of Redis are apart. Ages are reckoned by the caller's clock: one that is ahead by
//! more than the dedupe window would forget ids, and one that is ahead by more than the retention records, for all nodes.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use super::{Inner, call, call::CallError};

/// The bucket by whose server's clock this node's is judged.
const JUDGE: usize = 0;

/// By how many milliseconds this node's clock was ahead when they were last compared; 0 before.
#[derive(Default)]
pub(super) struct Clocks(AtomicI64);

impl Inner {
    /// # Errors
    /// When the clocks are too far apart for this node to store or forget anything.
    pub(super) fn check_clock(&self) -> Result<(), CallError> {
        let ahead = self.clocks.0.load(Ordering::Relaxed);
        if Duration::from_millis(ahead.unsigned_abs()) <= self.config.clock_tolerance {
            return Ok(());
        }
        Err(CallError::Refused(format!(
            "this node's clock is {ahead} ms ahead of that of Redis"
        )))
    }

    /// Compares the clocks; what cannot be asked leaves what was known.
    pub(super) async fn compare_clocks(&self) {
        let ahead = match self.ahead().await {
            Ok(ahead) => ahead,
            Err(error) => return tracing::debug!(?error, "the clock of Redis was not read"),
        };
        let agreed = self.check_clock().is_ok();
        self.clocks.0.store(ahead, Ordering::Relaxed);
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
        let before = self.clock.now();
        let mut answer = self.call("clock", JUDGE).on(&self.calls).await?.into_iter();
        let ours = before + self.clock.now().since(before) / 2;
        let seconds = call::number(call::next(&mut answer)?)?;
        let micros = call::number(call::next(&mut answer)?)?;
        let theirs = seconds.saturating_mul(1_000) + micros / 1_000;
        Ok(ours.as_millis().cast_signed() - theirs.cast_signed())
    }
}
