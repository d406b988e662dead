//! The runs that a reader may have to draw, whatever it has seen of them.

use super::Filter;
use crate::{
    engine::OpenRuns,
    event::{Offset, Position, RunId},
    run::Run,
};

/// How many open runs a reader is told.
pub const OPEN_RUNS: usize = 64;

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRun {
    /// The run.
    pub run_id: RunId,
    /// How it stands.
    pub run: Run,
}

/// Of the open runs that `filter` admits, the `OPEN_RUNS` that started last, oldest first.
pub(super) fn shown(open: OpenRuns, filter: &Filter) -> Vec<OpenRun> {
    let mut runs: Vec<_> = admitted(open, filter).collect();
    runs.sort_unstable_by_key(|open| open.run.start);
    runs.drain(..runs.len().saturating_sub(OPEN_RUNS));
    runs
}

/// Just before the oldest open run that `filter` admits; the head, if there is none.
pub(super) fn start(open: OpenRuns, filter: &Filter) -> Position {
    let head = open.head;
    let oldest = admitted(open, filter).map(|open| open.run.start).min();
    let before = oldest.map(|Offset(start)| Offset(start.saturating_sub(1)));
    Position::new(head.epoch, before.unwrap_or(head.offset))
}

fn admitted(open: OpenRuns, filter: &Filter) -> impl Iterator<Item = OpenRun> {
    let runs = open.runs.into_iter();
    runs.filter(|(run_id, run)| filter.admits_run(run_id, run))
        .map(|(run_id, run)| OpenRun { run_id, run })
}
