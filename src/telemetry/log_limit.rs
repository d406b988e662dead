//! Bounds log lines that a peer can cause.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How many lines one place in the code may log within `WINDOW`.
const LINES: u32 = 10;

const WINDOW: Duration = Duration::from_secs(10);

/// Bounds the lines that one place in the code logs: at most 10 within 10 seconds, whatever causes them. A `static`
/// beside the place holds it.
///
/// ```
/// use emitter::telemetry::LogLimit;
///
/// static REFUSED: LogLimit = LogLimit::new();
///
/// if let Some(left_out) = REFUSED.admit() {
///     tracing::warn!(left_out, "a token is refused");
/// }
/// ```
#[derive(Debug)]
pub struct LogLimit(Mutex<Window>);

#[derive(Debug)]
struct Window {
    begun: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    /// A limit that has admitted nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Window {
            begun: None,
            lines: 0,
            left_out: 0,
        }))
    }

    /// Whether a line may be logged now. If so, how many lines were left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        let over = |begun| now.saturating_duration_since(begun) >= WINDOW;
        if window.begun.is_none_or(over) {
            window.begun = Some(now);
            window.lines = 0;
        }
        if window.lines == LINES {
            window.left_out += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_in_ten_seconds_and_the_next_says_how_many_were_left_out() {
        let limit = LogLimit::new();
        let start = Instant::now();
        let admitted = |after: u64, tries: u32| {
            let now = start + Duration::from_millis(after);
            (0..tries).filter_map(|_| limit.admit_at(now)).collect()
        };
        let none_left_out = vec![0; 10];
        let batches: [Vec<u64>; 4] = [
            admitted(0, 25),
            admitted(9_999, 5),
            admitted(10_000, 1),
            admitted(10_001, 1),
        ];
        assert_eq!(batches, [none_left_out, vec![], vec![20], vec![0]]);
    }
}
