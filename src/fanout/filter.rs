//! What a reader asked to see of its stream.

use std::collections::BTreeSet;

use crate::{
    event::{Record, RunId, ThreadId},
    run::Run,
};

/// The most wire types that a filter names.
pub const FILTER_TYPES: usize = 64;

/// Narrows what a reader is sent. Empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this thread.
    pub thread_id: Option<ThreadId>,
    /// Only this run.
    pub run_id: Option<RunId>,
    /// Only these wire types; `None` means all.
    pub types: Option<BTreeSet<String>>,
}

impl Filter {
    /// Whether `record` is to be sent.
    pub fn admits(&self, record: &Record) -> bool {
        let draft = &record.draft;
        let thread = self
            .thread_id
            .as_ref()
            .is_none_or(|want| draft.thread_id.as_ref() == Some(want));
        let run = self
            .run_id
            .as_ref()
            .is_none_or(|want| draft.event.run_id.as_ref() == Some(want));
        let kind = self
            .types
            .as_ref()
            .is_none_or(|want| want.contains(draft.event.kind.wire_type()));
        thread && run && kind
    }

    /// Whether `run` is one whose events it admits, types aside.
    pub fn admits_run(&self, run_id: &RunId, run: &Run) -> bool {
        let thread = self.thread_id.as_ref();
        let thread = thread.is_none_or(|want| run.thread_id.as_ref() == Some(want));
        thread && self.run_id.as_ref().is_none_or(|want| run_id == want)
    }
}
