//! Listing runs, in an order that does not change while runs start and end.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::{
    clock::Timestamp,
    event::{AgentName, RunId, StreamKey, Tenant, ThreadId, UserId},
    run::{Run, RunState},
};

/// Which runs to list. Every filter that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Only runs of this tenant.
    pub tenant: Option<Tenant>,
    /// Only runs of a user of this name.
    pub user: Option<UserId>,
    /// Only runs of this thread.
    pub thread_id: Option<ThreadId>,
    /// Only runs of this agent.
    pub agent_name: Option<AgentName>,
    /// Only sub-agents' runs that this run started.
    pub parent_run_id: Option<RunId>,
    /// Only runs in one of these states; empty: all.
    pub states: Vec<RunState>,
    /// Only runs that started then or later.
    pub started_from: Option<Timestamp>,
    /// Only runs that started before.
    pub started_before: Option<Timestamp>,
    /// Only runs that stand after this place.
    pub after: Option<RunPlace>,
    /// How many at most.
    pub limit: usize,
}

/// Where a run stands among all runs: those that started last come first. It never changes, so that a list goes on
/// after a place whatever started or ended meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPlace {
    /// When the run started.
    pub started_at: Timestamp,
    /// Whose it is.
    pub stream: StreamKey,
    /// The run.
    pub run_id: RunId,
}

/// A run, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRun {
    /// Whose it is.
    pub stream: StreamKey,
    /// The run.
    pub run_id: RunId,
    /// What is known of it.
    pub run: Run,
}

/// The runs that answer a query, out of those that are offered one by one, in any order. It holds no more of them
/// than the query asks for, and one.
#[derive(Debug)]
pub struct RunList<'a> {
    query: &'a RunQuery,
    first: BTreeMap<RunPlace, Run>,
}

impl RunQuery {
    /// The only stream whose runs can answer it, if there is but one.
    pub fn stream(&self) -> Option<StreamKey> {
        let one = self.tenant.clone().zip(self.user.clone());
        one.map(|(tenant, user)| StreamKey::new(tenant, user))
    }

    /// Whether a run of `stream` can answer it.
    pub fn admits_stream(&self, stream: &StreamKey) -> bool {
        let is = |tenant: &Tenant| tenant == stream.tenant();
        let of = |user: &UserId| user == stream.user();
        self.tenant.as_ref().is_none_or(is) && self.user.as_ref().is_none_or(of)
    }

    /// Whether `run` answers it, but for its stream and its place.
    pub fn admits(&self, run: &Run) -> bool {
        let started = run.started_at;
        (self.thread_id.is_none() || self.thread_id == run.thread_id)
            && (self.agent_name.is_none() || self.agent_name == run.agent_name)
            && (self.parent_run_id.is_none() || self.parent_run_id == run.parent_run_id)
            && (self.states.is_empty() || self.states.contains(&run.state))
            && self.started_from.is_none_or(|from| started >= from)
            && self.started_before.is_none_or(|before| started < before)
    }
}

impl Ord for RunPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        let newest_first = other.started_at.cmp(&self.started_at);
        newest_first
            .then_with(|| self.stream.cmp(&other.stream))
            .then_with(|| self.run_id.cmp(&other.run_id))
    }
}

impl PartialOrd for RunPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl KnownRun {
    /// Where it stands among all runs.
    pub fn place(&self) -> RunPlace {
        RunPlace {
            started_at: self.run.started_at,
            stream: self.stream.clone(),
            run_id: self.run_id.clone(),
        }
    }
}

impl<'a> RunList<'a> {
    /// An empty list of what answers `query`.
    pub fn new(query: &'a RunQuery) -> Self {
        let first = BTreeMap::new();
        Self { query, first }
    }

    /// Takes in a run of a stream that the query admits, if it belongs in the list.
    pub fn offer(&mut self, stream: &StreamKey, run_id: &RunId, run: &Run) {
        if !self.query.admits(run) || self.is_too_old(run) {
            return;
        }
        let place = RunPlace {
            started_at: run.started_at,
            stream: stream.clone(),
            run_id: run_id.clone(),
        };
        if self
            .query
            .after
            .as_ref()
            .is_some_and(|after| place <= *after)
        {
            return;
        }
        self.first.insert(place, run.clone());
        if self.first.len() > self.query.limit {
            self.first.pop_last();
        }
    }

    /// The runs, in their order.
    pub fn into_runs(self) -> Vec<KnownRun> {
        let known = |(place, run): (RunPlace, Run)| KnownRun {
            stream: place.stream,
            run_id: place.run_id,
            run,
        };
        self.first.into_iter().map(known).collect()
    }

    /// Whether the list is full of runs that started later: most runs are told apart by this alone.
    fn is_too_old(&self, run: &Run) -> bool {
        let full = self.first.len() >= self.query.limit;
        let last = self.first.last_key_value();
        full && last.is_none_or(|(last, _)| run.started_at < last.started_at)
    }
}
