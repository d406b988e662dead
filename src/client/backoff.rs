//! How long to wait before the next attempt.

use std::time::Duration;

use crate::clock::Entropy;

/// Waits that double up to a bound, each cut short at random so that clients that failed together come back apart.
pub(super) struct Backoff {
    entropy: Entropy,
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `first` to `most`.
    pub(super) fn new(entropy: Entropy, first: Duration, most: Duration) -> Self {
        Self {
            entropy,
            first,
            most,
            failures: 0,
        }
    }

    /// Starts over: the last attempt was a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next attempt: at least half of what the number of failures asks for, and at least what the
    /// server asks for, within the bound.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(self.most);
        let jittered = whole.mul_f64(0.5 + self.entropy.fraction() / 2.0);
        let asked = asked.unwrap_or_default().min(self.most);
        jittered.max(asked.mul_f64(1.0 + self.entropy.fraction() / 4.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let first = Duration::from_millis(100);
        let most = Duration::from_secs(10);
        let mut backoff = Backoff::new(Entropy::seeded(1), first, most);
        let mut whole = first;
        for n in 0..100 {
            let wait = backoff.next(None);
            assert!(wait >= whole / 2 && wait <= whole, "{n}: {wait:?}");
            whole = (whole * 2).min(most);
        }
        backoff.reset();
        assert!(backoff.next(None) <= first);
    }

    #[test]
    fn what_the_server_asks_for_is_honoured_but_cannot_wedge() {
        let first = Duration::from_millis(100);
        let most = Duration::from_secs(10);
        let mut backoff = Backoff::new(Entropy::seeded(1), first, most);
        let asked = Duration::from_secs(2);
        assert!(backoff.next(Some(asked)) >= asked);
        assert!(backoff.next(Some(Duration::MAX)) <= most * 2);
    }
}
