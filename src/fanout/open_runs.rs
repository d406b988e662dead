//! The runs that a reader may have to draw, whatever it has seen of them.

use super::Filter;
use crate::{
    engine::OpenRuns,
    event::{Offset, Position, RunId},
    run::Run,
};

/// How many open runs a reader is told.
pub const OPEN_RUNS: usize = 64;

/// How many open tool calls of each a reader is told. With `OPEN_RUNS`, and ids as long as they may be, it all fits
/// into the 1 MiB that stock WebSocket clients take, and the 4 MiB of gRPC's.
pub const OPEN_TOOL_CALLS: usize = 8;

/// How many bytes the open waits of all these runs take, at most: a run may have 16, with ids as long as they may be. The
/// waits of runs that started earlier, and of one run those that began earlier, are left out beyond that.
const OPEN_WAIT_BYTES: usize = 192 << 10;

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRun {
    /// The run.
    pub run_id: RunId,
    /// How it stands.
    pub run: Run,
}

/// Of the open runs that `filter` admits, the `OPEN_RUNS` that started last, oldest first, each with the
/// `OPEN_TOOL_CALLS` that began last.
pub(super) fn shown(open: OpenRuns, filter: &Filter) -> Vec<OpenRun> {
    let mut runs: Vec<_> = admitted(open, filter).collect();
    runs.sort_unstable_by_key(|open| open.run.start);
    runs.drain(..runs.len().saturating_sub(OPEN_RUNS));
    for open in &mut runs {
        let calls = &mut open.run.open_tool_calls;
        calls.drain(..calls.len().saturating_sub(OPEN_TOOL_CALLS));
    }
    bound_waits(&mut runs);
    runs
}

/// Leaves out waits beyond `OPEN_WAIT_BYTES`, those of the first runs first.
pub(crate) fn bound_waits(runs: &mut [OpenRun]) {
    const FIELDS: usize = 192; // names, times and a number
    let mut room = OPEN_WAIT_BYTES;
    for open in runs.iter_mut().rev() {
        let waits = &mut open.run.open_waits;
        let fit = waits.iter().rev().take_while(|wait| {
            // A character may take two in JSON.
            let taken = FIELDS + 2 * wait.text_len();
            let fits = taken <= room;
            room = if fits { room - taken } else { 0 };
            fits
        });
        let left_out = waits.len() - fit.count();
        waits.drain(..left_out);
    }
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

#[cfg(test)]
pub(crate) mod fixtures {
    use std::time::Duration;

    use super::OpenRun;
    use crate::{
        clock::Timestamp,
        event::{
            AgentName, Offset, OpenToolCall, OpenWait, ProducerId, RunId, RunSequence, Source,
            ThreadId, ToolCallId, ToolName, Wait,
        },
        run::{Run, RunState},
        usage::UsageByModel,
    };

    /// The run `r<start>` of `thread`, which waits, with an open tool call.
    pub(crate) fn open_run(start: u64, thread: &str) -> OpenRun {
        let at = Timestamp::from_millis(1_795_255_200_123);
        let call = OpenToolCall {
            call_sequence: RunSequence(1),
            arguments: None,
            id: ToolCallId::new("c1").unwrap(),
            name: ToolName::new("search").unwrap(),
            started_at: at,
        };
        let run = Run {
            recovered: false,
            state: RunState::Waiting,
            last_sequence: RunSequence(1),
            started_at: at,
            start: Offset(start),
            last: Offset(start),
            last_event_at: at,
            last_sign_at: at,
            open_waits: vec![OpenWait::begun(&Wait::default(), RunSequence(1), at)],
            silence_timeout: Duration::from_secs(60),
            source: Source::new(ProducerId::new("p").unwrap()),
            thread_id: Some(ThreadId::new(thread).unwrap()),
            agent_name: Some(AgentName::new("researcher").unwrap()),
            parent_run_id: Some(RunId::new("r0").unwrap()),
            open_tool_calls: vec![call],
            open_children: Vec::new(),
            usage: UsageByModel::default(),
        };
        OpenRun {
            run_id: RunId::new(&format!("r{start}")).unwrap(),
            run,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fixtures::open_run, *};
    use crate::event::{Epoch, ThreadId};

    /// Runs that started at `starts`, the odd ones in the thread `odd`.
    fn open(starts: impl IntoIterator<Item = u64>) -> OpenRuns {
        let runs = starts.into_iter().map(|start| {
            let OpenRun { run_id, run } = open_run(start, ["even", "odd"][start as usize % 2]);
            (run_id, run)
        });
        OpenRuns {
            head: Position::new(Epoch::new(1), Offset(999)),
            runs: runs.collect(),
        }
    }

    fn filter(thread: Option<&str>, run: Option<&str>) -> Filter {
        Filter {
            thread_id: thread.map(|id| ThreadId::new(id).unwrap()),
            run_id: run.map(|id| RunId::new(id).unwrap()),
            types: Some(["message".to_owned()].into()),
        }
    }

    #[test]
    fn the_last_ones_that_the_filter_admits_are_shown_oldest_first() {
        let shown = |starts: Vec<u64>, filter| -> Vec<u64> {
            let shown = super::shown(open(starts), &filter);
            shown.iter().map(|open| open.run.start.0).collect()
        };
        assert_eq!(shown(vec![3, 1, 2], filter(None, None)), [1, 2, 3]);
        assert_eq!(shown(vec![3, 1, 2], filter(Some("odd"), None)), [1, 3]);
        assert_eq!(shown(vec![3, 1, 2], filter(None, Some("r2"))), [2]);
        assert_eq!(
            shown(vec![3], filter(Some("even"), Some("r3"))),
            [] as [u64; 0]
        );
        let many = (1..=100).rev().collect();
        let want: Vec<u64> = (37..=100).collect();
        assert_eq!(shown(many, filter(None, None)), want);
    }

    #[test]
    fn open_begins_just_before_the_oldest_of_all_that_the_filter_admits() {
        let start = |starts: Vec<u64>, filter| super::start(open(starts), &filter).offset.0;
        assert_eq!(start((5..200).collect(), filter(None, None)), 4);
        assert_eq!(start(vec![7, 6, 9], filter(Some("odd"), None)), 6);
        assert_eq!(start(vec![7], filter(Some("even"), None)), 999);
        assert_eq!(start(vec![], filter(None, None)), 999);
    }
}
