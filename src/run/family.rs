//! Runs together: what an event changes, and how runs and their sub-agents depend on one another.

use std::{collections::HashMap, hash::BuildHasher};

use super::Run;
use crate::{
    clock::Timestamp,
    event::{Draft, Offset, RunId},
};

/// The runs of one user.
pub trait Book {
    /// What is known of a run.
    fn run(&self, run_id: &RunId) -> Option<&Run>;

    /// The same, to be changed.
    fn run_mut(&mut self, run_id: &RunId) -> Option<&mut Run>;

    /// A run begins. Returns what was known under its id, which is over.
    fn put(&mut self, run_id: RunId, run: Run) -> Option<Run>;
}

impl<S: BuildHasher> Book for HashMap<RunId, Run, S> {
    fn run(&self, run_id: &RunId) -> Option<&Run> {
        self.get(run_id)
    }

    fn run_mut(&mut self, run_id: &RunId) -> Option<&mut Run> {
        self.get_mut(run_id)
    }

    fn put(&mut self, run_id: RunId, run: Run) -> Option<Run> {
        self.insert(run_id, run)
    }
}

/// What an event did to its run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The run opened.
    pub opened: bool,
    /// It ended.
    pub ended: bool,
    /// Its deadline is sooner now: a wait for a person is over.
    pub sooner: bool,
    /// Bytes that it took.
    pub taken: usize,
    /// Bytes that the run before it under its id gives back.
    pub freed: usize,
}

impl Effect {
    /// Whether there is a deadline to arm, to disarm, or to bring nearer.
    pub fn concerns_watchdog(&self) -> bool {
        self.opened || self.ended || self.sooner
    }
}

/// Takes `draft`, stored at `offset`, into the runs of its user: the one place where a run changes.
pub fn record(book: &mut impl Book, draft: &Draft, offset: Offset) -> Effect {
    let Some(run_id) = &draft.event.run_id else {
        return Effect::default();
    };
    #[cfg(feature = "bench")]
    if draft.bare {
        return super::bare::record(book, run_id, draft, offset);
    }
    let held = book.run_mut(run_id).filter(|_| draft.run_sequence.0 > 1);
    let Some(run) = held else {
        return begin(book, run_id, draft, offset);
    };
    let (before, weight, until) = (run.state, run.weight(run_id), run.own_deadline());
    run.recorded(draft, offset);
    let ended = before.is_open() && !run.state.is_open();
    let taken = run.weight(run_id).saturating_sub(weight);
    let sooner = run.own_deadline() < until;
    if ended {
        let (parent, sign) = (run.parent_run_id.clone(), run.last_sign_at);
        leave(book, run_id, parent.as_ref(), sign);
    }
    Effect {
        ended,
        sooner,
        taken,
        ..Effect::default()
    }
}

fn begin(book: &mut impl Book, run_id: &RunId, draft: &Draft, offset: Offset) -> Effect {
    let run = Run::begun(draft, offset);
    let opened = run.state.is_open();
    let parent = run.parent_run_id.clone();
    let taken = run.weight(run_id);
    let over = book.put(run_id.clone(), run);
    if opened
        && let Some(parent) = parent.and_then(|parent| book.run_mut(&parent))
        && parent.state.is_open()
        && !parent.open_children.contains(run_id)
    {
        parent.open_children.push(run_id.clone());
    }
    Effect {
        opened,
        taken,
        freed: over.map_or(0, |over| over.weight(run_id)),
        ..Effect::default()
    }
}

/// A sub-agent's run ended; its last sign of life was one of its parent too.
fn leave(book: &mut impl Book, run_id: &RunId, parent: Option<&RunId>, sign: Timestamp) {
    if let Some(parent) = parent.and_then(|parent| book.run_mut(parent)) {
        parent.open_children.retain(|child| child != run_id);
        parent.last_sign_at = parent.last_sign_at.max(sign);
    }
}

/// The open runs below `run_id`, each before the one that started it.
pub fn open_descendants(book: &impl Book, run_id: &RunId) -> Vec<RunId> {
    let mut found = Vec::new();
    // Breadth first, then turned round: whatever was started comes after its parent.
    let mut next = vec![run_id.clone()];
    while !next.is_empty() {
        let children = next.iter().filter_map(|run_id| book.run(run_id));
        let children = children.flat_map(|run| run.open_children.iter().cloned());
        next = children.collect();
        found.extend(next.iter().cloned());
    }
    found.reverse();
    found
}

/// The most runs that are looked for above one: where runs are only observed, they may name each other as parents.
const MOST_ABOVE: usize = 64;

/// The open runs above `run_id`, the nearest first.
pub fn open_ancestors(book: &impl Book, run_id: &RunId) -> Vec<RunId> {
    let parent = |run_id: &RunId| {
        let parent = book.run(run_id)?.parent_run_id.clone()?;
        let open = book.run(&parent)?.state.is_open();
        open.then_some(parent)
    };
    std::iter::successors(parent(run_id), parent)
        .take(MOST_ABOVE)
        .collect()
}

/// Until when `run` may stay silent: as long as any open sub-agent below it may, and a sign of life of those is one of
/// its own.
pub fn deadline(book: &impl Book, run: &Run) -> Timestamp {
    family_deadline(book, run).0
}

/// The deadline of `run`, and the latest sign of life of it and the open runs below it.
fn family_deadline(book: &impl Book, run: &Run) -> (Timestamp, Timestamp) {
    let (mut until, mut sign) = (run.own_deadline(), run.last_sign_at);
    for child in run.open_children.iter().filter_map(|child| book.run(child)) {
        let (child_until, child_sign) = family_deadline(book, child);
        until = until.max(child_until);
        sign = sign.max(child_sign);
    }
    (until.max(sign + run.silence_timeout), sign)
}
