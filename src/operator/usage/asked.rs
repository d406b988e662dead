//! What a request for usage asks for.

use std::collections::HashSet;

use crate::{
    event::{IdError, RunId, Tenant, ThreadId, UserId},
    proto::v1::{GetUsageRequest, UsageGroup},
    reason::{Reason, Refusal, Violation},
    usage::{Day, UsageQuery},
};

/// A valid request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) query: UsageQuery,
    pub(super) run_id: Option<RunId>,
    /// No two are equal, and none is unspecified.
    pub(super) groups: Vec<UsageGroup>,
}

/// The rules that were found to be broken.
#[derive(Default)]
struct Problems(Vec<Violation>);

impl Asked {
    /// What `request` asks for, of `tenant` only, if it is one.
    ///
    /// # Errors
    /// `INVALID_REQUEST`, with every field at fault.
    pub(super) fn of(tenant: Option<Tenant>, request: &GetUsageRequest) -> Result<Self, Refusal> {
        let mut problems = Problems::default();
        let name = |text: &str| (!text.is_empty()).then(|| text.into());
        let first = problems.day("first_day", &request.first_day);
        let last = problems.day("last_day", &request.last_day);
        let asked = Self {
            query: UsageQuery {
                tenant,
                user: problems.id("user_id", &request.user_id, UserId::new),
                thread_id: problems.id("thread_id", &request.thread_id, ThreadId::new),
                provider: name(&request.provider),
                model: name(&request.model),
                days: first.unwrap_or(Day::FIRST)..=last.unwrap_or(Day::LAST),
            },
            run_id: problems.id("run_id", &request.run_id, RunId::new),
            groups: problems.groups(&request.group_by),
        };
        if asked.query.days.is_empty() {
            problems.found("last_day", "is before first_day");
        }
        if asked.by_run() {
            let what = "cannot go together with runs: a run may take days";
            if asked.groups.contains(&UsageGroup::Day) {
                problems.found("group_by", what);
            }
            for (field, day) in [("first_day", first), ("last_day", last)] {
                if day.is_some() {
                    problems.found(field, what);
                }
            }
        }
        match problems.0.is_empty() {
            true => Ok(asked),
            false => Err(Refusal::invalid(Reason::InvalidRequest, problems.0)),
        }
    }

    /// Whether it is about runs.
    pub(super) fn by_run(&self) -> bool {
        self.run_id.is_some() || self.groups.contains(&UsageGroup::Run)
    }
}

impl Problems {
    fn found(&mut self, field: &str, description: impl Into<String>) {
        self.0.push(Violation {
            field: field.to_owned(),
            description: description.into(),
        });
    }

    fn id<T>(
        &mut self,
        field: &str,
        text: &str,
        id: impl FnOnce(&str) -> Result<T, IdError>,
    ) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        id(text)
            .map_err(|error| self.found(field, error.to_string()))
            .ok()
    }

    fn day(&mut self, field: &str, text: &str) -> Option<Day> {
        if text.is_empty() {
            return None;
        }
        text.parse()
            .map_err(|error: crate::usage::DayError| self.found(field, error.to_string()))
            .ok()
    }

    fn groups(&mut self, asked: &[i32]) -> Vec<UsageGroup> {
        let (mut groups, mut seen) = (Vec::new(), HashSet::new());
        for &number in asked {
            match UsageGroup::try_from(number) {
                Err(_) | Ok(UsageGroup::Unspecified) => {
                    self.found("group_by", format!("{number} is no group"));
                    break;
                }
                Ok(group) if !seen.insert(group) => {
                    let name = group.as_str_name();
                    self.found("group_by", format!("{name} is there twice"));
                    break;
                }
                Ok(group) => groups.push(group),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut GetUsageRequest)) -> Result<Asked, String> {
        let mut request = GetUsageRequest::default();
        change(&mut request);
        Asked::of(None, &request).map_err(|refusal| {
            assert_eq!(refusal.reason, Reason::InvalidRequest);
            refusal.message
        })
    }

    fn groups(groups: &[UsageGroup]) -> Vec<i32> {
        groups.iter().map(|group| *group as i32).collect()
    }

    #[test]
    fn what_is_left_out_restricts_nothing() {
        let asked = request(|_| {}).unwrap();
        let query = &asked.query;
        assert!(query.user.is_none() && query.thread_id.is_none() && query.model.is_none());
        assert_eq!(query.days, Day::FIRST..=Day::LAST);
        assert!(asked.groups.is_empty() && !asked.by_run());
    }

    #[test]
    fn days_are_inclusive_and_in_order() {
        let days = |first: &str, last: &str| {
            let (first, last) = (first.to_owned(), last.to_owned());
            let asked = request(|request| {
                request.first_day = first;
                request.last_day = last;
            });
            asked.map(|asked| asked.query.days)
        };
        let day = |text: &str| text.parse::<Day>().unwrap();
        let one = day("2026-11-22");
        assert_eq!(days("2026-11-22", "2026-11-22"), Ok(one..=one));
        assert_eq!(days("2026-11-22", ""), Ok(one..=Day::LAST));
        assert_eq!(
            days("2026-11-23", "2026-11-22"),
            Err("invalid: last_day is before first_day".into())
        );
        assert_eq!(
            days("22.11.2026", "2026-02-30"),
            Err("invalid: first_day is not a day such as 2026-11-22; last_day is not a day such as 2026-11-22".into())
        );
    }

    #[test]
    fn runs_do_not_go_with_days() {
        use UsageGroup::{Day, Run, User};
        let what = "cannot go together with runs: a run may take days";
        let by_both = request(|request| request.group_by = groups(&[Run, User, Day]));
        assert_eq!(by_both.unwrap_err(), format!("invalid: group_by {what}"));
        let filtered = request(|request| {
            request.group_by = groups(&[Run]);
            request.last_day = "2026-11-22".into();
        });
        assert_eq!(filtered.unwrap_err(), format!("invalid: last_day {what}"));
        let of_run = request(|request| {
            request.run_id = "r1".into();
            request.first_day = "2026-11-22".into();
        });
        assert_eq!(of_run.unwrap_err(), format!("invalid: first_day {what}"));
        let of_run = request(|request| request.run_id = "r1".into()).unwrap();
        assert!(of_run.by_run());
    }

    #[test]
    fn groups_are_known_and_stated_once() {
        use UsageGroup::{Day, Tenant};
        let by = |numbers: Vec<i32>| request(|request| request.group_by = numbers);
        assert_eq!(by(groups(&[Tenant, Day])).unwrap().groups, [Tenant, Day]);
        for number in [0, 8, -1] {
            let problem = format!("invalid: group_by {number} is no group");
            assert_eq!(by(vec![1, number]).unwrap_err(), problem);
        }
        assert_eq!(
            by(vec![7, 1, 7]).unwrap_err(),
            "invalid: group_by USAGE_GROUP_DAY is there twice"
        );
    }

    #[test]
    fn ids_are_checked() {
        let long = request(|request| request.user_id = "x".repeat(129));
        assert_eq!(
            long.unwrap_err(),
            "invalid: user_id is longer than 128 characters"
        );
    }
}
