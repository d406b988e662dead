//! When somebody set the wall clock.

use std::time::Duration;

use super::{Spans, Timestamp};

/// What the wall clock gets ahead or falls behind at once, and what is no drift.
const JUMP: Duration = Duration::from_secs(5);

/// What is known of the wall clock's jumps, by a clock that nobody sets.
#[derive(Debug, Default)]
pub(super) struct Jumps {
    /// When both were looked at last: wall and steady.
    seen: Option<(Timestamp, Duration)>,
    skipped: Spans,
}

impl Jumps {
    /// It is `now` by the wall clock and `steady` by the other.
    pub(super) fn look(&mut self, now: Timestamp, steady: Duration) {
        let Some((seen, steady_then)) = self.seen.replace((now, steady)) else {
            return;
        };
        let passed = steady.saturating_sub(steady_then);
        let expected = seen + passed;
        let ahead = now.since(expected);
        if ahead > JUMP {
            self.skipped.add(now - ahead, now);
        }
        // Where it went back, that time comes again, and counts.
        self.skipped.cut(now);
    }

    /// What the wall clock skipped.
    pub(super) fn skipped(&self) -> &Spans {
        &self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    /// What is skipped after looks at these seconds, by the wall clock and the steady one.
    fn skipped(looks: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut jumps = Jumps::default();
        for (wall, steady) in looks {
            jumps.look(at(*wall), Duration::from_secs(*steady));
        }
        let since = |moment: Timestamp| moment.since(at(0)).as_secs();
        let spans = jumps.skipped().iter();
        spans.map(|(b, e)| (since(b), since(e))).collect()
    }

    #[test]
    fn a_jump_ahead_is_time_that_did_not_pass() {
        for (looks, want) in [
            (&[(0, 0), (10, 10)][..], &[][..]),
            // A long look away is none.
            (&[(0, 0), (HOUR, HOUR)], &[]),
            // Drift is none.
            (&[(0, 0), (15, 10), (30, 20)], &[]),
            (
                &[(0, 0), (HOUR + 10, 10), (HOUR + 20, 20)],
                &[(10, HOUR + 10)],
            ),
            // Back again: the hour is still to come.
            (&[(0, 0), (HOUR + 10, 10), (20, 20)], &[(10, 20)]),
            (&[(HOUR, 0), (10, 10), (20, 20)], &[]),
        ] {
            assert_eq!(skipped(looks), want, "{looks:?}");
        }
    }
}
