//! What usage is told apart by beyond its run, and which of that is asked for.

use std::{
    fmt,
    ops::RangeInclusive,
    str::FromStr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::Model;
use crate::{
    clock::Timestamp,
    event::{Tenant, ThreadId, UserId},
};

/// A day in UTC, counted from 1970-01-01, up to 9999-12-31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

/// A text that is no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a day such as 2026-11-22")]
pub struct DayError;

/// What usage is added up by: each combination that occurs has a sum of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// The tenant.
    pub tenant: Tenant,
    /// The day of recording.
    pub day: Day,
    /// The user; `None`: users are not told apart.
    pub user: Option<UserId>,
    /// The thread; `None`: there is none, or threads are not told apart.
    pub thread_id: Option<ThreadId>,
    /// The model.
    pub model: Model,
}

/// Which usage is asked for. Whatever is `Some` must be equal.
#[derive(Clone, Debug)]
pub struct UsageQuery {
    /// The tenant.
    pub tenant: Option<Tenant>,
    /// The user. What was folded is nobody's.
    pub user: Option<UserId>,
    /// The thread.
    pub thread_id: Option<ThreadId>,
    /// The model's provider.
    pub provider: Option<Arc<str>>,
    /// The model.
    pub model: Option<Arc<str>>,
    /// The days of recording.
    pub days: RangeInclusive<Day>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Day {
    /// The first one.
    pub const FIRST: Self = Self(0);

    /// The last one.
    pub const LAST: Self = Self(2_932_896);

    /// The day that `at` lies in.
    pub fn of(at: Timestamp) -> Self {
        let days = u128::from(at.as_millis()) / DAY.as_millis();
        Self(u32::try_from(days).unwrap_or(u32::MAX)).min(Self::LAST)
    }

    /// When it is over.
    pub fn end(self) -> Timestamp {
        Timestamp::default() + DAY * (self.0 + 1)
    }
}

impl fmt::Display for Day {
    /// Such as `2026-11-22`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = humantime::format_rfc3339_seconds(UNIX_EPOCH + DAY * self.0).to_string();
        f.write_str(begin.get(..10).unwrap_or(&begin))
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        let begin = humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).map_err(|_| DayError)?;
        let since = begin.duration_since(UNIX_EPOCH).map_err(|_| DayError)?;
        let day = since.as_secs() / DAY.as_secs();
        u32::try_from(day).map(Self).map_err(|_| DayError)
    }
}

impl Series {
    /// What stands for all users and threads of its tenant, day and model that are not told apart.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self {
            user: None,
            thread_id: None,
            ..self.clone()
        }
    }

    /// What stands for all of its tenant's day that is not told apart.
    #[must_use]
    pub fn folded_whole(&self) -> Self {
        Self {
            model: Model::other(),
            ..self.folded()
        }
    }
}

impl UsageQuery {
    /// Whether `series` is asked for.
    pub fn admits(&self, series: &Series) -> bool {
        fn same<T: PartialEq>(asked: Option<&T>, is: Option<&T>) -> bool {
            asked.is_none() || asked == is
        }
        same(self.tenant.as_ref(), Some(&series.tenant))
            && same(self.user.as_ref(), series.user.as_ref())
            && same(self.thread_id.as_ref(), series.thread_id.as_ref())
            && self.admits_model(&series.model)
            && self.days.contains(&series.day)
    }

    /// Whether `model` is asked for.
    pub fn admits_model(&self, model: &Model) -> bool {
        let same = |asked: &Option<Arc<str>>, is: &Arc<str>| {
            asked.as_ref().is_none_or(|asked| asked == is)
        };
        same(&self.provider, &model.provider) && same(&self.model, &model.model)
    }
}

impl Default for UsageQuery {
    /// Everything.
    fn default() -> Self {
        Self {
            tenant: None,
            user: None,
            thread_id: None,
            provider: None,
            model: None,
            days: Day::FIRST..=Day::LAST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_utc() {
        let at = Timestamp::from_millis;
        let last = at(1_795_305_599_999);
        for (at, want) in [
            (at(0), "1970-01-01"),
            (last, "2026-11-21"),
            (last + Duration::from_millis(1), "2026-11-22"),
            (at(u64::MAX), "9999-12-31"),
        ] {
            let day = Day::of(at);
            assert_eq!(day.to_string(), want);
            assert_eq!(want.parse(), Ok(day));
        }
        assert_eq!(Day::of(last).end(), last + Duration::from_millis(1));
        assert_eq!("1970-01-01".parse(), Ok(Day::FIRST));
        assert_eq!("9999-12-31".parse(), Ok(Day::LAST));
        for text in [
            "",
            "2026-11",
            "2026-1-1",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-11-31",
            "1969-12-31",
            "10000-01-01",
            "2026-11-22Z",
            "2026-11-22T00:00:00Z",
            " 2026-11-22",
            "+026-11-22",
        ] {
            assert_eq!(text.parse::<Day>(), Err(DayError), "{text:?}");
        }
    }

    #[test]
    fn a_query_admits_what_is_equal_in_all_that_it_states() {
        let series = Series {
            tenant: Tenant::new("t").unwrap(),
            day: "2026-11-22".parse().unwrap(),
            user: UserId::new("u").ok(),
            thread_id: None,
            model: Model {
                provider: "p".into(),
                model: "m".into(),
            },
        };
        let days = |first: &str, last: &str| first.parse().unwrap()..=last.parse().unwrap();
        let all = UsageQuery::default;
        let of_user = |user: &str| UsageQuery {
            user: UserId::new(user).ok(),
            ..all()
        };
        let of_days = |days| UsageQuery { days, ..all() };
        let of_model = |provider: Option<&str>, model: Option<&str>| UsageQuery {
            provider: provider.map(Into::into),
            model: model.map(Into::into),
            ..all()
        };
        let of_tenant = UsageQuery {
            tenant: Tenant::new("other").ok(),
            ..all()
        };
        let of_thread = UsageQuery {
            thread_id: ThreadId::new("x").ok(),
            ..all()
        };
        for (query, want) in [
            (all(), true),
            (of_user("u"), true),
            (of_user("v"), false),
            (of_tenant, false),
            (of_thread, false),
            (of_model(Some("p"), Some("m")), true),
            (of_model(Some("p"), Some("n")), false),
            (of_model(Some("q"), None), false),
            (of_days(days("2026-11-22", "2026-11-22")), true),
            (of_days(days("2026-11-01", "2026-11-21")), false),
            (of_days(days("2026-11-23", "2026-12-01")), false),
        ] {
            assert_eq!(query.admits(&series), want, "{query:?}");
        }
        assert!(
            !of_user("u").admits(&series.folded()),
            "what is folded is nobody's"
        );
    }
}
