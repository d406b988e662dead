//! Usage as a table with bars.

use crate::{cli::text::plain, proto::v1::UsageTotals, usage::format_dollars};

/// The headings of what is added up.
const SUMS: [&str; 4] = ["EVENTS", "INPUT", "OUTPUT", "COST "];

/// The longest name that is shown whole, in characters.
const NAME: usize = 40;

/// How long the longest bar is, in columns.
const BAR: std::ops::RangeInclusive<usize> = 10..=60;

/// A table of usage, and a bar for the tokens of each row.
pub(super) struct Chart {
    /// How many columns say what a row is of.
    names: usize,
    /// The cells of each line, the headings first, and the tokens that its bar stands for.
    lines: Vec<(Vec<String>, u64)>,
}

impl Chart {
    /// A table of rows that `headings` say what they are of.
    pub(super) fn new<'a>(headings: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<String> = headings.map(str::to_owned).collect();
        let sums = SUMS.map(str::to_owned);
        Self {
            names: names.len(),
            lines: vec![(names.into_iter().chain(sums).collect(), 0)],
        }
    }

    /// Adds a row.
    pub(super) fn row<'a>(&mut self, names: impl Iterator<Item = &'a str>, totals: &UsageTotals) {
        let tokens = totals.input_tokens.saturating_add(totals.output_tokens);
        let cells = names.map(name).chain(sums(totals)).collect();
        self.lines.push((cells, tokens));
    }

    /// Adds the total.
    pub(super) fn total(&mut self, totals: &UsageTotals) {
        let blank = (1..self.names).map(|_| String::new());
        let names = std::iter::once("total".to_owned()).chain(blank);
        self.lines.push((names.chain(sums(totals)).collect(), 0));
    }

    /// All of it, at most `columns` wide if names allow.
    pub(super) fn drawn(&self, columns: usize) -> String {
        let mut widths = vec![0; self.names + SUMS.len()];
        for (cells, _) in &self.lines {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        let table: usize = widths.iter().map(|width| width + 2).sum();
        let longest = columns
            .saturating_sub(table)
            .clamp(*BAR.start(), *BAR.end());
        let most = self.lines.iter().map(|(_, tokens)| *tokens).max();
        let most = most.unwrap_or_default();
        let mut text = String::new();
        for (cells, tokens) in &self.lines {
            let mut line = String::new();
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                line += &match column < self.names {
                    true => format!("{cell:<width$}  "),
                    false => format!("{cell:>width$}  "),
                };
            }
            // The cost's own last column is between it and the bar.
            line.pop();
            line += &bar(*tokens, most, longest);
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn name(name: &str) -> String {
    let name = plain(name);
    match name.chars().count() {
        0 => "-".to_owned(),
        count if count > NAME => name.chars().take(NAME - 1).chain(['…']).collect(),
        _ => name.into_owned(),
    }
}

fn sums(totals: &UsageTotals) -> [String; 4] {
    let cost = match (totals.cost_nano_usd, totals.unpriced_events) {
        (cost, 0) => format!("{} ", format_dollars(cost)),
        (0, _) => "? ".to_owned(),
        (cost, _) => format!("{}+", format_dollars(cost)),
    };
    [
        grouped(totals.events),
        grouped(totals.input_tokens),
        grouped(totals.output_tokens),
        cost,
    ]
}

/// `number` with its digits in threes.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A bar for `tokens`, as long as `longest` for `most`, in eighths of a column. What is not nothing is seen.
fn bar(tokens: u64, most: u64, longest: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let scaled = u128::from(tokens) * (longest as u128) * 8;
    let eighths = scaled.div_ceil(u128::from(most.max(1)));
    let eighths = usize::try_from(eighths).unwrap_or_default();
    let part = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    "█".repeat(eighths / 8) + part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_never_too_long() {
        for (tokens, most, want) in [
            (0, 0, ""),
            (0, 10, ""),
            (10, 10, "██████████"),
            (5, 10, "█████"),
            (1, 80, "▏"),
            (1, 1_000_000, "▏"),
            (11, 80, "█▍"),
            (u64::MAX, u64::MAX, "██████████"),
        ] {
            assert_eq!(bar(tokens, most, 10), want, "{tokens} of {most}");
        }
    }

    #[test]
    fn a_wide_table_keeps_to_the_terminal() {
        let totals = UsageTotals {
            input_tokens: 5,
            ..UsageTotals::default()
        };
        for columns in [0, 80, 120, 1_000] {
            let mut chart = Chart::new(["USER"].into_iter());
            chart.row([&*"é".repeat(100)].into_iter(), &totals);
            let drawn = chart.drawn(columns);
            let widest = drawn.lines().map(|line| line.chars().count()).max();
            let want = columns.clamp(42 + 8 + 7 + 8 + 12 + 10, 42 + 8 + 7 + 8 + 12 + 60);
            assert!(widest <= Some(want), "{columns}: {drawn}");
            assert!(drawn.contains("é… "), "{drawn}");
        }
    }

    #[test]
    fn digits_come_in_threes() {
        for (number, want) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), want);
        }
    }
}
