//! Only for benchmarks: a run without rules, for the cost of the rules to be measured against.

use super::{Book, Effect, Run, RunState};
use crate::event::{Draft, Offset, RunId};

/// Counts `draft` in its run, which remembers what later events inherit, and whether it is open.
pub(super) fn record(
    book: &mut impl Book,
    run_id: &RunId,
    draft: &Draft,
    offset: Offset,
) -> Effect {
    let ends = draft.event.kind.is_terminal();
    let held = book.run_mut(run_id).filter(|_| draft.run_sequence.0 > 1);
    let Some(run) = held else {
        let run = begun(draft, offset);
        let taken = run.weight(run_id);
        book.put(run_id.clone(), run);
        return Effect {
            opened: !ends,
            taken,
            ..Effect::default()
        };
    };
    run.last_sequence = draft.run_sequence;
    run.last = offset;
    run.last_event_at = draft.recorded_at;
    if run.thread_id.is_none() {
        run.thread_id = draft.thread_id.clone();
    }
    if run.agent_name.is_none() {
        run.agent_name = draft.agent_name.clone();
    }
    let ended = ends && run.state.is_open();
    if ended {
        run.state = RunState::Completed;
    }
    Effect {
        ended,
        ..Effect::default()
    }
}

fn begun(draft: &Draft, offset: Offset) -> Run {
    let ended = draft.event.kind.is_terminal();
    let run = Run::begun(draft, offset);
    Run {
        state: if ended {
            RunState::Completed
        } else {
            run.state
        },
        parent_run_id: None,
        ..run
    }
}
