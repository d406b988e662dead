//! Sums put together into rows.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::{
    event::{RunId, Tenant, ThreadId, UsageTotals, UserId},
    proto::v1::{GetUsageResponse, UsageGroup, UsageRow},
    usage::{Day, Model},
};

/// The most rows of an answer.
const ROWS: usize = 10_000;

/// The most bytes that the rows of an answer take: clients take 4 MiB in all, unless told otherwise.
const BYTES: usize = 3 << 20;

/// A sum, and what it is of.
pub(super) struct Part<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) user: Option<&'a UserId>,
    pub(super) thread_id: Option<&'a ThreadId>,
    pub(super) run_id: Option<&'a RunId>,
    pub(super) day: Option<Day>,
    pub(super) model: &'a Model,
    pub(super) sum: &'a UsageTotals,
}

/// Sums by what they are grouped by.
pub(super) struct Rows {
    groups: Vec<UsageGroup>,
    /// By the names of the groups, in their order.
    rows: BTreeMap<Vec<String>, UsageTotals>,
    total: UsageTotals,
}

impl Rows {
    /// None yet.
    pub(super) fn new(groups: Vec<UsageGroup>) -> Self {
        Self {
            groups,
            rows: BTreeMap::new(),
            total: UsageTotals::default(),
        }
    }

    /// Adds `part` to its row.
    pub(super) fn add(&mut self, part: &Part<'_>) {
        let names = self.groups.iter().map(|group| part.name(*group)).collect();
        self.rows.entry(names).or_default().merge(part.sum);
        self.total.merge(part.sum);
    }

    /// The answer, as far as it fits.
    pub(super) fn into_answer(self) -> GetUsageResponse {
        let mut answer = GetUsageResponse {
            rows: Vec::new(),
            total: Some(self.total.into()),
            rows_left_out: 0,
        };
        let (all, mut bytes) = (self.rows.len(), 0);
        for (names, totals) in self.rows.into_iter().take(ROWS) {
            let mut row = UsageRow {
                totals: Some(totals.into()),
                ..UsageRow::default()
            };
            for (group, name) in self.groups.iter().zip(names) {
                *field(&mut row, *group) = name;
            }
            bytes += row.encoded_len();
            if bytes > BYTES {
                break;
            }
            answer.rows.push(row);
        }
        answer.rows_left_out = (all - answer.rows.len()) as u64;
        answer
    }
}

impl Part<'_> {
    fn name(&self, group: UsageGroup) -> String {
        match group {
            UsageGroup::Unspecified => String::new(),
            UsageGroup::Tenant => self.tenant.as_str().to_owned(),
            UsageGroup::User => text(self.user.map(UserId::as_str)),
            UsageGroup::Thread => text(self.thread_id.map(ThreadId::as_str)),
            UsageGroup::Run => text(self.run_id.map(RunId::as_str)),
            UsageGroup::Provider => self.model.provider.as_ref().to_owned(),
            UsageGroup::Model => self.model.model.as_ref().to_owned(),
            UsageGroup::Day => self.day.map(|day| day.to_string()).unwrap_or_default(),
        }
    }
}

fn text(id: Option<&str>) -> String {
    id.unwrap_or_default().to_owned()
}

fn field(row: &mut UsageRow, group: UsageGroup) -> &mut String {
    match group {
        UsageGroup::User => &mut row.user_id,
        UsageGroup::Thread => &mut row.thread_id,
        UsageGroup::Run => &mut row.run_id,
        UsageGroup::Provider => &mut row.provider,
        UsageGroup::Model => &mut row.model,
        UsageGroup::Day => &mut row.day,
        UsageGroup::Tenant | UsageGroup::Unspecified => &mut row.tenant_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Tokens;

    /// One event that cost 3 billionths of a dollar per token, unless its model has no price.
    fn sum(model: &str, input: u64) -> UsageTotals {
        let priced = model != "unknown";
        UsageTotals {
            events: 1,
            tokens: Tokens {
                input,
                ..Tokens::default()
            },
            cost_nano_usd: if priced { 3 * input } else { 0 },
            unpriced_events: u64::from(!priced),
        }
    }

    fn model(name: &str) -> Model {
        Model {
            provider: "p".into(),
            model: name.into(),
        }
    }

    /// Rows by `groups` of (user, day, model, tokens).
    fn rows(groups: &[UsageGroup], parts: &[(&str, &str, &str, u64)]) -> Rows {
        let mut rows = Rows::new(groups.to_vec());
        for (user, day, name, tokens) in parts {
            rows.add(&Part {
                tenant: &Tenant::new("t").unwrap(),
                user: UserId::new(user).ok().as_ref(),
                thread_id: None,
                run_id: None,
                day: day.parse().ok(),
                model: &model(name),
                sum: &sum(name, *tokens),
            });
        }
        rows
    }

    const PARTS: [(&str, &str, &str, u64); 5] = [
        ("b", "2026-11-22", "m", 1),
        ("a", "2026-11-23", "m", 1),
        ("a", "2026-11-22", "n", 1),
        ("a", "2026-11-22", "m", 2),
        ("", "2026-11-22", "unknown", 5),
    ];

    #[test]
    fn rows_come_in_the_order_of_their_groups() {
        let answer = rows(&[UsageGroup::Day, UsageGroup::User], &PARTS).into_answer();
        let told = answer.rows.iter().map(|row| {
            let totals = row.totals.as_ref().unwrap();
            assert_eq!((row.tenant_id.as_str(), row.model.as_str()), ("", ""));
            let name = format!("{} {}", row.day, row.user_id);
            (name, totals.input_tokens, totals.cost_nano_usd)
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("2026-11-22 ".into(), 5, 0),
                ("2026-11-22 a".into(), 3, 9),
                ("2026-11-22 b".into(), 1, 3),
                ("2026-11-23 a".into(), 1, 3),
            ]
        );
        let total = answer.total.unwrap();
        assert_eq!((total.input_tokens, total.cost_nano_usd), (10, 15));
        assert_eq!((total.events, total.unpriced_events), (5, 1));
        assert_eq!(answer.rows_left_out, 0);
    }

    #[test]
    fn without_groups_there_is_one_row() {
        let answer = rows(&[], &PARTS).into_answer();
        assert_eq!(answer.rows.len(), 1);
        assert_eq!(answer.rows[0].totals, answer.total);
        let none = rows(&[], &[]).into_answer();
        assert_eq!((none.rows.len(), none.total), (0, Some(Default::default())));
    }

    #[test]
    fn rows_that_do_not_fit_are_counted_and_in_the_total() {
        for (long, count) in [(0, ROWS + 7), (480, ROWS)] {
            let mut rows = Rows::new(vec![UsageGroup::Run]);
            for n in 0..count {
                rows.add(&Part {
                    tenant: &Tenant::new("t").unwrap(),
                    user: None,
                    thread_id: None,
                    run_id: RunId::new(&format!("{n:05}{}", "\u{1f600}".repeat(long / 4)))
                        .ok()
                        .as_ref(),
                    day: None,
                    model: &model("m"),
                    sum: &sum("m", 1),
                });
            }
            let answer = rows.into_answer();
            assert!(answer.encoded_len() < 4 << 20, "{}", answer.encoded_len());
            let told = answer.rows.len();
            assert_eq!(told + answer.rows_left_out as usize, count);
            assert_eq!(long == 0, told == ROWS, "{told}");
            assert_eq!(answer.total.unwrap().input_tokens, count as u64);
            assert!(
                answer.rows[told - 1]
                    .run_id
                    .starts_with(&format!("{:05}", told - 1))
            );
        }
    }
}
