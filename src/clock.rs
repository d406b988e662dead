//! Time and randomness, passed in everywhere so that tests choose them.

mod jumps;
mod spans;

pub use spans::Spans;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

use self::jumps::Jumps;

/// A moment by the wall clock, in whole milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment that many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis(span)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis(span)))
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(at: Timestamp) -> Self {
        prost_types::Timestamp {
            seconds: (at.0 / 1000).cast_signed(),
            nanos: (at.0 % 1000) as i32 * 1_000_000,
        }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}",
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.0))
        )
    }
}

/// The wall clock, the system's or one that a test moves by hand; and beside it a steady one that nobody sets, by which
/// it knows the wall clock's jumps. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    jumps: Mutex<Jumps>,
}

#[derive(Debug)]
enum Source {
    /// The system's; the steady clock begins here.
    System(Instant),
    Manual {
        /// Milliseconds since the clock was made.
        steady: AtomicU64,
        /// The wall clock when the steady one began, in milliseconds, or what it would have been by what it says now.
        origin: AtomicU64,
    },
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::of(Source::System(Instant::now()))
    }

    /// A clock that stands at `start` until a test moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self::of(Source::Manual {
            steady: AtomicU64::new(0),
            origin: AtomicU64::new(start.0),
        })
    }

    fn of(source: Source) -> Self {
        let clock = Self(Arc::new(Inner {
            source,
            jumps: Mutex::default(),
        }));
        clock.look();
        clock
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        match &self.0.source {
            Source::Manual { .. } => self.both().0,
            Source::System(_) => Timestamp(system_millis()),
        }
    }

    /// How long this clock has been running, whatever the wall clock was set to meanwhile.
    pub fn steady(&self) -> Duration {
        self.both().1
    }

    /// The wall clock and the steady one.
    fn both(&self) -> (Timestamp, Duration) {
        match &self.0.source {
            Source::Manual { steady, origin } => {
                let steady = steady.load(Ordering::Acquire);
                let wall = origin.load(Ordering::Acquire).wrapping_add(steady);
                (Timestamp(wall), Duration::from_millis(steady))
            }
            Source::System(began) => (Timestamp(system_millis()), began.elapsed()),
        }
    }

    /// What the wall clock skipped by jumps ahead of more than 5 seconds since this clock was made, as far as `Spans`
    /// remember: in these spans no time passed. Exact only if something asks about once a second, by this or `age_now`:
    /// a jump counts as one at the end of the time in which nobody looked.
    pub fn skipped(&self) -> Spans {
        self.look();
        self.0.jumps.lock().skipped().clone()
    }

    /// The present moment, less what the wall clock skipped. By this, nothing gets older by a jump ahead; what came
    /// after the jump is taken for younger than it is.
    pub fn age_now(&self) -> Timestamp {
        let now = self.look();
        let skipped = self.0.jumps.lock().skipped().total();
        now - skipped
    }

    /// Compares the two clocks.
    fn look(&self) -> Timestamp {
        let mut jumps = self.0.jumps.lock();
        let (now, steady) = self.both();
        jumps.look(now, steady);
        now
    }

    /// Lets that much time pass by a manual clock; the system's clock does not move.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual { steady, .. } = &self.0.source {
            steady.fetch_add(millis(span), Ordering::AcqRel);
        }
    }

    /// Sets a manual clock: forward, time passes until then; backward, the wall clock jumps. The system's clock does
    /// not move.
    pub fn set(&self, to: Timestamp) {
        let now = self.now();
        self.advance(to.since(now));
        self.jump_back(now.since(to));
    }

    /// Has a manual clock jump ahead, in no time; the system's clock does not move.
    pub fn jump_ahead(&self, span: Duration) {
        if let Source::Manual { origin, .. } = &self.0.source {
            origin.fetch_add(millis(span), Ordering::AcqRel);
        }
    }

    /// Has a manual clock jump back; the system's clock does not move.
    pub fn jump_back(&self, span: Duration) {
        if let Source::Manual { origin, .. } = &self.0.source {
            origin.fetch_sub(millis(span), Ordering::AcqRel);
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn system_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// Randomness: the system's, or a seeded sequence for a test.
#[derive(Clone, Debug, Default)]
pub struct Entropy(Option<Arc<Mutex<StdRng>>>);

impl Entropy {
    /// The system's randomness.
    pub fn system() -> Self {
        Self(None)
    }

    /// The sequence of `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.0 {
            Some(rng) => rng.lock().fill(bytes),
            None => rand::rng().fill(bytes),
        }
    }

    /// 64 random bits.
    pub fn bits(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number from 0 up to, but not including, 1.
    pub fn fraction(&self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A UUIDv7 for the moment `now`, as 36 characters.
    pub fn uuid(&self, now: Timestamp) -> String {
        let mut bytes = [0; 10];
        self.fill(&mut bytes);
        uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &bytes)
            .into_uuid()
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339_with_milliseconds() {
        let at = Timestamp::from_millis(1_795_255_200_123);
        assert_eq!(at.to_string(), "2026-11-21T10:00:00.123Z");
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = Clock::manual(Timestamp::from_millis(5));
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp::from_millis(1005));
        clock.set(Timestamp::from_millis(7));
        assert_eq!(clock.now(), Timestamp::from_millis(7));
    }

    #[test]
    fn nothing_gets_older_by_a_jump_ahead() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        let start = Timestamp::from_millis(1_800_000_000_000);
        let clock = Clock::manual(start);
        clock.advance(hour);
        assert_eq!(clock.age_now(), start + hour);
        clock.jump_ahead(hour);
        clock.advance(second);
        assert_eq!(clock.now(), start + 2 * hour + second);
        assert_eq!(clock.age_now(), start + hour + second);
        let skipped = clock.skipped();
        assert_eq!(skipped.between(start, clock.now()), hour);
        // That hour is still to come.
        clock.jump_back(hour);
        assert_eq!(clock.now(), start + hour + second);
        assert_eq!(clock.steady(), hour + second);
        assert_eq!(clock.age_now(), clock.now());
        clock.advance(hour);
        assert_eq!(clock.age_now(), clock.now());
    }

    #[test]
    fn a_seed_gives_the_same_sequence() {
        let (a, b) = (Entropy::seeded(1), Entropy::seeded(1));
        assert_eq!(a.bits(), b.bits());
        let now = Timestamp::from_millis(0);
        assert_eq!(a.uuid(now), b.uuid(now));
        assert!((0.0..1.0).contains(&a.fraction()));
    }
}
