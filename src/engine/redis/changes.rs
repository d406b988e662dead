//! What a commit makes of the runs that it was decided on.

use std::collections::HashMap;

use crate::{
    clock::Timestamp,
    engine::StreamState,
    event::{Record, RunId},
    run::{self, Book, Effect, Run},
};

/// The runs of a state, and those that changed since.
pub(super) struct Changes<'a> {
    before: &'a StreamState,
    changed: HashMap<RunId, Run>,
    effects: Vec<(RunId, Effect)>,
}

/// What becomes of a run's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// A run begins, maybe under the id of one that had ended.
    Begins,
    /// An open run goes on.
    GoesOn,
    /// A run ends, or is not known but for its end.
    Ends,
    /// A run that had ended has another event.
    Ended,
}

/// What becomes of a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// The run is looked at then.
    Arm(RunId, Timestamp),
    /// It is looked at no later.
    Lower(RunId, Timestamp),
    /// It is not looked at any more.
    Disarm(RunId),
}

impl Row {
    /// What the functions call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Begins => "begins",
            Self::GoesOn => "goes_on",
            Self::Ends => "ends",
            Self::Ended => "ended",
        }
    }
}

impl<'a> Changes<'a> {
    /// Nothing yet, on top of `before`.
    pub(super) fn new(before: &'a StreamState) -> Self {
        Self {
            before,
            changed: HashMap::new(),
            effects: Vec::new(),
        }
    }

    /// Takes in the next record.
    pub(super) fn record(&mut self, record: &Record) {
        let effect = run::record(self, &record.draft, record.position.offset);
        #[cfg(feature = "bench")]
        if record.draft.bare {
            return;
        }
        if let Some(run_id) = &record.draft.event.run_id
            && effect.concerns_watchdog()
        {
            self.effects.push((run_id.clone(), effect));
        }
    }

    /// Every run that changed, as it is now.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = (Row, &RunId, &Run)> {
        self.changed.iter().map(|(run_id, run)| {
            let was_open = self.before.run(run_id).map(|run| run.state.is_open());
            let row = match (was_open, run.state.is_open()) {
                (Some(true), true) => Row::GoesOn,
                (_, true) => Row::Begins,
                (Some(false), false) => Row::Ended,
                (_, false) => Row::Ends,
            };
            (row, run_id, run)
        })
    }

    /// What becomes of deadlines, in order: runs that opened are armed, those that ended disarmed, and those that an
    /// event may have brought nearer are lowered.
    pub(super) fn deadlines(&self) -> Vec<Deadline> {
        let mut deadlines = Vec::new();
        for (run_id, effect) in &self.effects {
            let Some(run) = self.run(run_id) else {
                continue;
            };
            if effect.ended {
                deadlines.push(Deadline::Disarm(run_id.clone()));
            }
            if effect.opened && run.state.is_open() {
                deadlines.push(Deadline::Arm(run_id.clone(), run.own_deadline()));
            }
            if effect.sooner {
                deadlines.push(Deadline::Lower(run_id.clone(), run.own_deadline()));
            }
            if effect.ended || effect.sooner {
                let above = run::open_ancestors(self, run_id).into_iter();
                let above = above.filter_map(|id| Some((self.run(&id)?.own_deadline(), id)));
                deadlines.extend(above.map(|(at, id)| Deadline::Lower(id, at)));
            }
        }
        deadlines
    }
}

impl Book for Changes<'_> {
    fn run(&self, run_id: &RunId) -> Option<&Run> {
        self.changed.get(run_id).or_else(|| self.before.run(run_id))
    }

    fn run_mut(&mut self, run_id: &RunId) -> Option<&mut Run> {
        if !self.changed.contains_key(run_id) {
            let run = self.before.run(run_id)?.clone();
            self.changed.insert(run_id.clone(), run);
        }
        self.changed.get_mut(run_id)
    }

    fn put(&mut self, run_id: RunId, run: Run) -> Option<Run> {
        let known = self.before.run(&run_id);
        self.changed.insert(run_id, run).or_else(|| known.cloned())
    }
}
