//! Runs as a table.

use std::fmt::Write as _;

use super::words;
use crate::{cli::text::plain, clock::Timestamp, proto::v1::Run};

/// One line for each of `runs`, below a heading. The tenant is shown where there are several.
pub(super) fn text(runs: &[Run], now: Timestamp, coloured: bool) -> String {
    let first = runs.first().map(|run| &run.tenant_id);
    let tenants = runs.iter().any(|run| Some(&run.tenant_id) != first);
    let heading = [
        "STARTED",
        "STATE",
        "TENANT",
        "USER",
        "AGENT",
        "RUN",
        "EVENTS",
        "LAST EVENT",
    ];
    let heading = heading.map(str::to_owned);
    let rows: Vec<[String; 8]> = runs.iter().map(|run| row(run, now)).collect();
    let mut widths = [0; 8];
    for row in std::iter::once(&heading).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    if !tenants {
        widths[TENANT] = 0;
    }
    let mut text = line(&heading, &widths, "", coloured);
    for (row, run) in rows.iter().zip(runs) {
        text += &line(row, &widths, words::state_colour(run.state), coloured);
    }
    text
}

/// The columns that are treated specially.
const STATE: usize = 1;
const TENANT: usize = 2;

fn row(run: &Run, now: Timestamp) -> [String; 8] {
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => plain(text).into_owned(),
    };
    let last = now.since(words::moment(run.last_event_at.as_ref()));
    [
        words::time(words::moment(run.started_at.as_ref())),
        words::state(run.state).to_owned(),
        or_dash(&run.tenant_id),
        or_dash(&run.user_id),
        or_dash(&run.agent_name),
        or_dash(&run.run_id),
        run.run_sequence.to_string(),
        format!("{} ago", words::age(last)),
    ]
}

/// A column without a width is left out.
fn line(row: &[String; 8], widths: &[usize; 8], colour: &str, coloured: bool) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        if *width == 0 {
            continue;
        }
        let fill = " ".repeat(width.saturating_sub(cell.chars().count()) + 2);
        let painted = coloured && column == STATE && !colour.is_empty();
        let _never_fails = write!(line, "{}{fill}", words::painted(cell, colour, painted));
    }
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::RunState;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_100_000);

    fn run(tenant: &str, id: &str, state: RunState) -> Run {
        Run {
            tenant_id: tenant.into(),
            user_id: "u\u{1b}1".into(),
            run_id: id.into(),
            state: state.into(),
            started_at: Some(Timestamp::from_millis(1_800_000_000_000).into()),
            last_event_at: Some(Timestamp::from_millis(1_800_000_040_000).into()),
            run_sequence: 7,
            ..Run::default()
        }
    }

    #[test]
    fn runs_stand_in_columns() {
        let runs = [
            run("t", "r1", RunState::Running),
            run("t", "run-22", RunState::Completed),
        ];
        let want = "\
STARTED              STATE      USER     AGENT  RUN     EVENTS  LAST EVENT
2027-01-15 08:00:00  running    u\\u{1b}1  -      r1      7       1m ago
2027-01-15 08:00:00  completed  u\\u{1b}1  -      run-22  7       1m ago
";
        let text = text(&runs, NOW, false);
        assert_eq!(
            text,
            want.replace("USER     AGENT", "USER      AGENT"),
            "\n{text}"
        );
    }

    #[test]
    fn tenants_are_told_apart_where_there_are_several() {
        let runs = [
            run("t1", "r1", RunState::Running),
            run("t2", "r1", RunState::Failed),
        ];
        let text = text(&runs, NOW, false);
        assert!(text.contains("  TENANT  "), "{text}");
        assert!(text.contains("failed   t2  "), "{text}");
    }

    #[test]
    fn only_the_state_is_coloured() {
        let text = text(&[run("t", "r1", RunState::Failed)], NOW, true);
        assert!(text.contains("  \u{1b}[31mfailed\u{1b}[0m  "), "{text:?}");
        assert_eq!(text.matches('\u{1b}').count(), 2, "{text:?}");
    }
}
