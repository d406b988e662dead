//! `emitter usage`.

mod chart;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use self::chart::Chart;
use super::{
    Environment, Failure,
    ask::{Ask, answered},
    say, variable, warn,
};
use crate::{
    proto::v1::{GetUsageRequest, GetUsageResponse, UsageGroup, UsageRow, UsageTotals},
    usage::Day,
};

/// Add up what was consumed, and what it cost
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter usage
      tokens and cost of each day
  emitter usage --by model,user --first-day 2026-11-01
  emitter usage --by run --user demo
      of each run that is known; runs have no days
  emitter usage --by tenant,day --json
      one JSON object, for scripts; costs in billionths of a dollar
  emitter usage --grpc http://events.example:50051 --token \"$TOKEN\"
      any service: the token needs the scope `operate`; one of the tenant `*`
      sees every tenant

A cost of ? is not known: the events did not state it, and their models were not
among the service's [[prices]] when the events were recorded. With a + it is
incomplete for the same reason.")]
pub(super) struct Usage {
    /// What it is added up by, separated by commas [default: day; with --run, run]
    #[arg(long, value_enum, value_delimiter = ',')]
    by: Vec<By>,
    /// Only of this user
    #[arg(long)]
    user: Option<String>,
    /// Only of this thread
    #[arg(long)]
    thread: Option<String>,
    /// Only of this run
    #[arg(long)]
    run: Option<String>,
    /// Only of this provider
    #[arg(long)]
    provider: Option<String>,
    /// Only of this model
    #[arg(long)]
    model: Option<String>,
    /// Only of this day and later, in UTC, such as 2026-11-22
    #[arg(long, value_name = "DAY")]
    first_day: Option<Day>,
    /// Only of this day and earlier
    #[arg(long, value_name = "DAY")]
    last_day: Option<Day>,
    #[command(flatten)]
    ask: Ask,
}

/// What usage is added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Tenant,
    User,
    Thread,
    Run,
    Provider,
    Model,
    Day,
}

/// How wide a terminal is that does not say so.
const WIDTH: usize = 80;

impl Usage {
    pub(super) fn run(&self, environment: &Environment) -> Result<ExitCode, Failure> {
        let by = self.by();
        let request = self.request(&by);
        let usage = self.ask.of_service(environment, async |operator| {
            answered(operator.get_usage(request).await)
        })?;
        if self.ask.json {
            say(&in_json(&usage, &by).to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        if usage.rows.is_empty() {
            warn("no usage");
            return Ok(ExitCode::SUCCESS);
        }
        let columns = variable(environment, "COLUMNS");
        let columns = columns.and_then(|text| text.to_str()?.parse().ok());
        say(&text(&usage, &by, columns.unwrap_or(WIDTH)))?;
        if usage.rows_left_out > 0 {
            let left_out = usage.rows_left_out;
            warn(&format!(
                "{left_out} more rows are in the total only: ask for less, or group by less"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn by(&self) -> Vec<By> {
        match (self.by.is_empty(), &self.run) {
            (false, _) => self.by.clone(),
            (true, Some(_)) => vec![By::Run],
            (true, None) => vec![By::Day],
        }
    }

    fn request(&self, by: &[By]) -> GetUsageRequest {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let day = |day: Option<Day>| day.map(|day| day.to_string()).unwrap_or_default();
        GetUsageRequest {
            tenant_id: self.ask.tenant_id(),
            user_id: text(&self.user),
            thread_id: text(&self.thread),
            run_id: text(&self.run),
            provider: text(&self.provider),
            model: text(&self.model),
            first_day: day(self.first_day),
            last_day: day(self.last_day),
            group_by: by.iter().map(|by| by.group().into()).collect(),
        }
    }
}

impl By {
    const fn group(self) -> UsageGroup {
        match self {
            Self::Tenant => UsageGroup::Tenant,
            Self::User => UsageGroup::User,
            Self::Thread => UsageGroup::Thread,
            Self::Run => UsageGroup::Run,
            Self::Provider => UsageGroup::Provider,
            Self::Model => UsageGroup::Model,
            Self::Day => UsageGroup::Day,
        }
    }

    /// The column's heading, the field in the contract, and what a row has there.
    fn of(self, row: &UsageRow) -> (&'static str, &'static str, &str) {
        match self {
            Self::Tenant => ("TENANT", "tenant_id", &row.tenant_id),
            Self::User => ("USER", "user_id", &row.user_id),
            Self::Thread => ("THREAD", "thread_id", &row.thread_id),
            Self::Run => ("RUN", "run_id", &row.run_id),
            Self::Provider => ("PROVIDER", "provider", &row.provider),
            Self::Model => ("MODEL", "model", &row.model),
            Self::Day => ("DAY", "day", &row.day),
        }
    }
}

/// For a person, on a terminal of `columns`.
fn text(usage: &GetUsageResponse, by: &[By], columns: usize) -> String {
    let none = UsageRow::default();
    let mut chart = Chart::new(by.iter().map(|by| by.of(&none).0));
    for row in &usage.rows {
        let names = by.iter().map(|by| by.of(row).2);
        chart.row(names, &row.totals.unwrap_or_default());
    }
    let total = usage.total.unwrap_or_default();
    if usage.rows.len() > 1 || usage.rows_left_out > 0 {
        chart.total(&total);
    }
    let mut text = chart.drawn(columns);
    if total.unpriced_events > 0 {
        let events = match total.unpriced_events {
            1 => "1 event".to_owned(),
            events => format!("{events} events"),
        };
        text += &format!("\n? and +: the cost lacks {events} of models without a price");
    }
    text
}

/// For a script: the contract's message in snake_case. A row has what it is grouped by.
fn in_json(usage: &GetUsageResponse, by: &[By]) -> Value {
    let rows = usage.rows.iter().map(|row| {
        let names = by.iter().map(|by| {
            let (_, field, name) = by.of(row);
            (field.to_owned(), Value::from(name))
        });
        let mut fields: Map<String, Value> = names.collect();
        fields.insert("totals".into(), totals(row.totals));
        Value::Object(fields)
    });
    json!({
        "rows": rows.collect::<Vec<_>>(),
        "total": totals(usage.total),
        "rows_left_out": usage.rows_left_out,
    })
}

fn totals(totals: Option<UsageTotals>) -> Value {
    let totals = totals.unwrap_or_default();
    json!({
        "events": totals.events,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "cached_input_tokens": totals.cached_input_tokens,
        "cache_write_input_tokens": totals.cache_write_input_tokens,
        "cache_write_1h_input_tokens": totals.cache_write_1h_input_tokens,
        "reasoning_tokens": totals.reasoning_tokens,
        "cost_nano_usd": totals.cost_nano_usd,
        "unpriced_events": totals.unpriced_events,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        usage: Usage,
    }

    fn parse(args: &str) -> Result<Usage, clap::Error> {
        let args = std::iter::once("usage").chain(args.split_whitespace());
        Command::try_parse_from(args).map(|command| command.usage)
    }

    fn row(user: &str, day: &str, input: u64, cost: u64, unpriced: u64) -> UsageRow {
        UsageRow {
            user_id: user.into(),
            day: day.into(),
            totals: Some(UsageTotals {
                events: 1,
                input_tokens: input,
                output_tokens: 0,
                cost_nano_usd: cost,
                unpriced_events: unpriced,
                ..UsageTotals::default()
            }),
            ..UsageRow::default()
        }
    }

    #[test]
    fn flags_become_a_request() {
        let usage = parse("").unwrap();
        let request = usage.request(&usage.by());
        assert_eq!(request.group_by, [7]);
        let usage = parse("--run r1").unwrap();
        let request = usage.request(&usage.by());
        assert_eq!((request.group_by, request.run_id), (vec![4], "r1".into()));
        let args = "--by tenant,model --user u --thread t --provider p --model m --tenant acme \
             --first-day 2026-11-01 --last-day 2026-11-30";
        let usage = parse(args).unwrap();
        let want = GetUsageRequest {
            tenant_id: "acme".into(),
            user_id: "u".into(),
            thread_id: "t".into(),
            run_id: String::new(),
            provider: "p".into(),
            model: "m".into(),
            first_day: "2026-11-01".into(),
            last_day: "2026-11-30".into(),
            group_by: vec![1, 6],
        };
        assert_eq!(usage.request(&usage.by()), want);
        for wrong in ["--by week", "--first-day yesterday", "--by"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_row_says_what_it_is_of_and_what_it_cost() {
        let usage = GetUsageResponse {
            rows: vec![
                row("", "2026-11-21", 8_000, 0, 1),
                row("a\u{1b}[31m", "2026-11-21", 1_234_567, 1_500_000_000, 0),
                row("b", "2026-11-22", 1, 400, 2),
            ],
            total: row("", "", 1_242_568, 1_500_000_400, 3).totals,
            rows_left_out: 0,
        };
        let drawn = text(&usage, &[By::Day, By::User], 80);
        assert_eq!(
            drawn,
            "\
DAY         USER         EVENTS      INPUT  OUTPUT        COST
2026-11-21  -                 1      8,000       0           ?  ▏
2026-11-21  a\\u{1b}[31m       1  1,234,567       0   $1.500000  ███████████████
2026-11-22  b                 1          1       0  <$0.000001+ ▏
total                         1  1,242,568       0   $1.500000+

? and +: the cost lacks 3 events of models without a price"
        );
        let json = in_json(&usage, &[By::Day, By::User]);
        assert_eq!(json["rows"][2]["day"], "2026-11-22");
        assert_eq!(json["rows"][2]["totals"]["cost_nano_usd"], 400);
        assert_eq!(json["rows"][0]["user_id"], "");
        assert_eq!(json["rows"][0].as_object().map(Map::len), Some(3));
        assert_eq!(json["total"]["unpriced_events"], 3);
    }
}
