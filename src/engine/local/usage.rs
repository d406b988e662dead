//! What was consumed: one sum per series, in the bucket of its user.
//!
//! The number of series is bounded. Beyond the bound a new series is folded into the one of its tenant, day and model,
//! and where even those are too many, into the one of its tenant and day: totals by tenant and day are always exact,
//! and those by model until then. What is left are few: one for each bucket, tenant and day; their bytes count.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Bucket, Config, Local};
use crate::{
    clock::Timestamp,
    event::{Cost, Record, StreamKey, Usage, UsageTotals},
    usage::{Day, Model, Series, UsageQuery},
};

/// The sums of one bucket.
#[derive(Default)]
pub(in crate::engine) struct Ledger {
    days: BTreeMap<Day, HashMap<Series, UsageTotals>>,
}

/// Sums that changed, by the bucket that they lie in.
pub(in crate::engine) type Sums = HashMap<(usize, Series), UsageTotals>;

/// Room for series, shared by all buckets.
struct Room<'a> {
    series: &'a AtomicUsize,
    most: usize,
}

/// What an addition came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Added {
    /// Bytes taken.
    taken: usize,
    /// It was not added to a series of its own.
    folded: bool,
}

impl Room<'_> {
    /// Takes one of the first `most` places, if one is free.
    fn take(&self, most: usize) -> bool {
        let one_more = |series: usize| (series < most).then_some(series + 1);
        self.series
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }
}

impl Ledger {
    /// Adds what one event adds to `series`, or to what that is folded into if there is no room.
    fn add(
        &mut self,
        series: Series,
        (usage, cost): (&Usage, Cost),
        room: &Room<'_>,
    ) -> (Series, UsageTotals, Added) {
        let sums = self.days.entry(series.day).or_default();
        let (place, added) = Self::place(sums, series, room);
        let sum = sums.entry(place.clone()).or_default();
        sum.add(usage, cost);
        (place, *sum, added)
    }

    /// Takes in a sum. Returns the bytes that this takes.
    pub(in crate::engine) fn restore(&mut self, series: Series, sum: UsageTotals) -> usize {
        let taken = weight(&series);
        let sums = self.days.entry(series.day).or_default();
        sums.entry(series).or_default().merge(&sum);
        taken
    }

    /// Which sum `series` is added to.
    fn place(
        sums: &HashMap<Series, UsageTotals>,
        series: Series,
        room: &Room<'_>,
    ) -> (Series, Added) {
        if sums.contains_key(&series) {
            return (series, Added::default());
        }
        let (fold, whole) = (series.folded(), series.folded_whole());
        let twice = room.most.saturating_mul(2);
        // For the last of these there is always room: nothing is left uncounted.
        let unplaced = (whole.clone(), Added::default());
        let places = [
            (series, room.most, false),
            (fold, twice, true),
            (whole, usize::MAX, true),
        ];
        for (place, most, folded) in places {
            let known = sums.contains_key(&place);
            if known || room.take(most) {
                let taken = if known { 0 } else { weight(&place) };
                return (place, Added { taken, folded });
            }
        }
        unplaced
    }

    /// Forgets the days that are over by `now` for as long as `config` says. Returns the series and the bytes given
    /// back.
    fn forget(&mut self, config: &Config, now: Timestamp) -> (usize, usize) {
        let (mut series, mut bytes) = (0, 0);
        while let Some(first) = self.days.first_entry()
            && is_over(*first.key(), config, now)
        {
            let sums = first.remove();
            series += sums.len();
            bytes += sums.keys().map(weight).sum::<usize>();
        }
        (series, bytes)
    }

    /// What `query` asks for.
    fn matching<'a>(
        &'a self,
        query: &'a UsageQuery,
        is_kept: impl Fn(Day) -> bool,
    ) -> impl Iterator<Item = (Series, UsageTotals)> {
        let days = self.days.iter().filter(move |(day, _)| is_kept(**day));
        let sums = days.flat_map(|(_, sums)| sums);
        let asked = sums.filter(|(series, _)| query.admits(series));
        asked.map(|(series, sum)| (series.clone(), *sum))
    }
}

fn is_over(day: Day, config: &Config, now: Timestamp) -> bool {
    day.end() + config.usage_age <= now
}

/// About how many bytes a series takes.
fn weight(series: &Series) -> usize {
    const MAP: usize = 16; // what a map adds to an entry at its usual load
    const TEXTS: usize = 72; // what three texts' counts and the allocator add
    let user = series.user.as_ref().map_or(0, |id| id.as_str().len());
    let thread = series.thread_id.as_ref().map_or(0, |id| id.as_str().len());
    let texts = TEXTS + series.tenant.as_str().len() + user + thread + series.model.weight();
    size_of::<(Series, UsageTotals)>() + MAP + texts
}

impl Local {
    /// Adds up what `records`, just appended to `key`, have consumed.
    /// The sums that changed are put into `sums`.
    pub(in crate::engine) fn account(
        &self,
        bucket: &mut Bucket,
        key: &StreamKey,
        records: &[Arc<Record>],
        mut sums: Option<&mut Sums>,
    ) {
        let room = Room {
            series: &self.usage_series,
            most: self.config.usage_series,
        };
        for draft in records.iter().map(|record| &record.draft) {
            #[cfg(feature = "bench")]
            if draft.bare {
                continue;
            }
            let Some((usage, cost)) = draft.consumed() else {
                continue;
            };
            let series = Series {
                tenant: key.tenant().clone(),
                day: Day::of(draft.recorded_at),
                user: Some(key.user().clone()),
                thread_id: draft.thread_id.clone(),
                model: Model::of(usage),
            };
            let (place, sum, added) = bucket.usage.add(series, (usage, cost), &room);
            if let Some(sums) = sums.as_deref_mut() {
                sums.insert((key.bucket(), place), sum);
            }
            self.grow(added.taken, 0);
            self.metrics.usage_folded.increment(added.folded.into());
        }
    }

    /// Whether the usage of `day` is no longer kept.
    pub(in crate::engine) fn is_over(&self, day: Day) -> bool {
        is_over(day, &self.config, self.clock.now())
    }

    /// Forgets the usage of days that are no longer kept. Returns the bytes given back.
    pub(in crate::engine) fn forget_usage(&self, ledger: &mut Ledger, now: Timestamp) -> usize {
        let (series, bytes) = ledger.forget(&self.config, now);
        self.usage_series.fetch_sub(series, Ordering::Relaxed);
        bytes
    }

    /// What `query` asks for, bucket by bucket.
    pub(in crate::engine) async fn usage(&self, query: &UsageQuery) -> Vec<(Series, UsageTotals)> {
        let now = self.clock.now();
        let is_kept = |day| !is_over(day, &self.config, now);
        let mut found = Vec::new();
        for bucket in &self.buckets {
            found.extend(bucket.lock().usage.matching(query, is_kept));
            // A visit to everything at once would hold up a single-threaded runtime.
            tokio::task::consume_budget().await;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{Tenant, ThreadId, Tokens, UserId};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn series(tenant: &str, day: &str, user: &str, model: &str) -> Series {
        Series {
            tenant: Tenant::new(tenant).unwrap(),
            day: day.parse().unwrap(),
            user: UserId::new(user).ok(),
            thread_id: ThreadId::new(&format!("thread of {user}")).ok(),
            model: Model {
                provider: "p".into(),
                model: model.into(),
            },
        }
    }

    fn used(ledger: &mut Ledger, series: Series, room: &Room<'_>) -> Added {
        let usage = usage(&series.model.model);
        ledger
            .add(series, (&usage, Cost::without_price(&usage)), room)
            .2
    }

    fn usage(model: &str) -> Usage {
        Usage {
            provider: "p".into(),
            model: model.into(),
            tokens: Tokens {
                input: 1,
                ..Tokens::default()
            },
            cost_nano_usd: None,
        }
    }

    /// Each series as `tenant day user model`, and how many tokens it has.
    fn told(ledger: &Ledger) -> Vec<(String, u64)> {
        let name = |series: &Series| {
            let user = series.user.as_ref().map_or("-", |user| user.as_str());
            let (tenant, model) = (series.tenant.as_str(), &series.model.model);
            assert_eq!(series.user.is_some(), series.thread_id.is_some());
            format!("{tenant} {} {user} {model}", series.day)
        };
        let all = UsageQuery::default();
        let sums = ledger.matching(&all, |_| true);
        let mut told: Vec<_> = sums.map(|(s, sum)| (name(&s), sum.tokens.input)).collect();
        told.sort();
        told
    }

    #[test]
    fn beyond_the_bound_series_fold_first_by_model_and_then_whole() {
        let count = AtomicUsize::new(0);
        let room = Room {
            series: &count,
            most: 2,
        };
        let mut ledger = Ledger::default();
        let mut taken = 0;
        let mut add = |user: &str, model: &str| {
            let added = used(&mut ledger, series("t", "2026-11-22", user, model), &room);
            taken += added.taken;
            added.folded
        };
        // Two are told apart, also later.
        assert!(!add("a", "m"));
        assert!(!add("b", "m"));
        assert!(add("c", "m"));
        assert!(add("d", "m"));
        assert!(!add("a", "m"));
        // Two more stand for models.
        assert!(add("a", "n"));
        // Then there is one for the rest, though known models go on.
        assert!(add("a", "o"));
        assert!(add("c", "q"));
        assert!(add("e", "n"));
        let day = "2026-11-22";
        assert_eq!(
            told(&ledger),
            [
                (format!("t {day} - (other)"), 2),
                (format!("t {day} - m"), 2),
                (format!("t {day} - n"), 2),
                (format!("t {day} a m"), 2),
                (format!("t {day} b m"), 1),
            ]
        );
        assert_eq!(count.load(Ordering::Relaxed), 5);
        let config = Config {
            usage_age: DAY,
            ..Config::default()
        };
        let over = "2026-11-23".parse::<Day>().unwrap().end();
        assert_eq!(ledger.forget(&config, over), (5, taken));
    }

    #[test]
    fn folding_keeps_tenants_and_days_apart() {
        let count = AtomicUsize::new(0);
        let room = Room {
            series: &count,
            most: 0,
        };
        let mut ledger = Ledger::default();
        for tenant in ["s", "t"] {
            for day in ["2026-11-21", "2026-11-22"] {
                for user in ["a", "b"] {
                    used(&mut ledger, series(tenant, day, user, "m"), &room);
                }
            }
        }
        let told = told(&ledger);
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told.iter().all(|(_, tokens)| *tokens == 2), "{told:?}");
    }

    #[test]
    fn a_day_is_forgotten_as_a_whole_and_gives_back_its_place() {
        let count = AtomicUsize::new(0);
        let room = Room {
            series: &count,
            most: 10,
        };
        let mut ledger = Ledger::default();
        let mut taken = 0;
        for day in ["2026-11-20", "2026-11-22", "2026-11-21"] {
            for user in ["a", "b"] {
                taken += used(&mut ledger, series("t", day, user, "m"), &room).taken;
            }
        }
        let config = Config {
            usage_age: 31 * DAY,
            ..Config::default()
        };
        let first = "2026-11-20".parse::<Day>().unwrap();
        let over = first.end() + 31 * DAY;
        let just_before = Timestamp::from_millis(over.as_millis() - 1);
        assert_eq!(ledger.forget(&config, just_before), (0, 0));
        assert_eq!(ledger.forget(&config, over), (2, taken / 3));
        assert_eq!(ledger.forget(&config, over), (0, 0));
        assert_eq!(ledger.forget(&config, over + 2 * DAY), (4, taken / 3 * 2));
        assert!(ledger.days.is_empty());
    }
}
