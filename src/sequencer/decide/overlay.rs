//! The runs of a stream as the drafts of a group leave them.

use std::{collections::hash_map::Entry, time::Duration};

use crate::{
    clock::Timestamp,
    engine::StreamState,
    event::{IdMap, RunId},
    run::{Book, Run},
};

/// The runs as the group's drafts leave them.
pub(super) struct Overlay<'a> {
    stored: Stored<'a>,
    changed: IdMap<RunId, Run>,
}

/// The runs as they were before.
struct Stored<'a> {
    state: &'a StreamState,
    memory: Duration,
    now: Timestamp,
}

impl<'a> Overlay<'a> {
    /// The runs of `state` that are not forgotten by `now`, `memory` after their end.
    pub(super) fn new(state: &'a StreamState, memory: Duration, now: Timestamp) -> Self {
        Self {
            stored: Stored { state, memory, now },
            changed: IdMap::default(),
        }
    }
}

impl Book for Overlay<'_> {
    fn run(&self, run_id: &RunId) -> Option<&Run> {
        let changed = self.changed.get(run_id);
        changed.or_else(|| self.stored.run(run_id))
    }

    fn run_mut(&mut self, run_id: &RunId) -> Option<&mut Run> {
        match self.changed.entry(run_id.clone()) {
            Entry::Occupied(there) => Some(there.into_mut()),
            Entry::Vacant(place) => Some(place.insert(self.stored.run(run_id)?.clone())),
        }
    }

    fn put(&mut self, run_id: RunId, run: Run) -> Option<Run> {
        self.changed.insert(run_id, run)
    }
}

impl<'a> Stored<'a> {
    fn run(&self, run_id: &RunId) -> Option<&'a Run> {
        let run = self.state.run(run_id)?;
        (!run.is_forgotten(self.memory, self.now)).then_some(run)
    }
}
