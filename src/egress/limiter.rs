//! How fast one client may send.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that holds one second's worth.
pub(super) struct Limiter {
    /// The time that one message takes from the bucket.
    cost: Duration,
    /// When the bucket was, or will be, empty.
    empty_at: Instant,
}

/// What the bucket holds.
const DEPTH: Duration = Duration::from_secs(1);

impl Limiter {
    /// At most `per_second` messages a second, and as many at once. Full at `now`.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            cost: DEPTH.checked_div(per_second).unwrap_or(Duration::MAX),
            empty_at: now.checked_sub(DEPTH).unwrap_or(now),
        }
    }

    /// Whether one more message is within bounds.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        // Time beyond the bucket's depth has flowed over.
        if now.saturating_duration_since(self.empty_at) > DEPTH {
            self.empty_at = now.checked_sub(DEPTH).unwrap_or(now);
        }
        match self.empty_at.checked_add(self.cost) {
            Some(empty_at) if empty_at <= now => {
                self.empty_at = empty_at;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_steady_rate() {
        let start = Instant::now() + Duration::from_secs(5);
        let mut limiter = Limiter::new(20, start);
        let burst = (0..30).filter(|_| limiter.admit(start)).count();
        assert_eq!(burst, 20);
        assert!(!limiter.admit(start + Duration::from_millis(49)));
        assert!(limiter.admit(start + Duration::from_millis(50)));
        assert!(!limiter.admit(start + Duration::from_millis(51)));
        let much_later = start + Duration::from_secs(60);
        let burst = (0..30).filter(|_| limiter.admit(much_later)).count();
        assert_eq!(burst, 20);
    }

    #[test]
    fn a_client_at_the_rate_is_never_refused() {
        let start = Instant::now();
        let mut limiter = Limiter::new(20, start);
        for n in 0..200 {
            assert!(limiter.admit(start + Duration::from_millis(50) * n), "{n}");
        }
    }

    #[test]
    fn nothing_is_admitted_at_no_rate() {
        let now = Instant::now();
        assert!(!Limiter::new(0, now).admit(now));
    }
}
