//! A run as its last event left it.

use std::time::Duration;

use super::{RunState, SILENCE_TIMEOUT, life::SourceRefusal};
use crate::{
    clock::Timestamp,
    event::{
        AgentName, ContentHash, Draft, Kind, Offset, OpenToolCall, OpenWait, RunId, RunSequence,
        Source, Step, Summary, ThreadId, ToolCallId, ToolName, WaitId,
    },
    usage::UsageByModel,
};

/// A run as its last event left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// How it stands.
    pub state: RunState,
    /// The number of its last event.
    pub last_sequence: RunSequence,
    /// When its first event was recorded.
    pub started_at: Timestamp,
    /// Where its first event stands; 0 until that has a place.
    pub start: Offset,
    /// Where its last event stands; 0 until that has a place.
    pub last: Offset,
    /// When its last event was recorded.
    pub last_event_at: Timestamp,
    /// When it last gave a sign of life: an event of its own or of a sub-agent, not one of the service.
    pub last_sign_at: Timestamp,
    /// Its open waits for a person, oldest first. A wait that has expired stays until the run's next event.
    pub open_waits: Vec<OpenWait>,
    /// How long it may be silent.
    pub silence_timeout: Duration,
    /// Who writes it.
    pub source: Source,
    /// The thread that its events inherit.
    pub thread_id: Option<ThreadId>,
    /// The agent that its events inherit.
    pub agent_name: Option<AgentName>,
    /// The run that started it.
    pub parent_run_id: Option<RunId>,
    /// Its open tool calls, oldest first; once it has ended, those that were open then.
    pub open_tool_calls: Vec<OpenToolCall>,
    /// Its sub-agents' runs that have not ended, oldest first.
    pub open_children: Vec<RunId>,
    /// What it has consumed.
    pub usage: UsageByModel,
    /// The store has lost some of its events, and what came after them was accepted all the same.
    pub recovered: bool,
}

impl Run {
    /// The run that begins with `draft`, stored at `offset`.
    pub(super) fn begun(draft: &Draft, offset: Offset) -> Self {
        let silence_timeout = match draft.step {
            Step::Start { silence_timeout } => silence_timeout.unwrap_or(SILENCE_TIMEOUT),
            _ => draft.recovered.unwrap_or(SILENCE_TIMEOUT),
        };
        let mut run = Self {
            state: RunState::Running,
            last_sequence: draft.run_sequence,
            started_at: draft.recorded_at,
            start: offset,
            last: offset,
            last_event_at: draft.recorded_at,
            last_sign_at: draft.recorded_at,
            open_waits: Vec::new(),
            silence_timeout,
            source: draft.event.source.clone(),
            thread_id: None,
            agent_name: None,
            parent_run_id: draft.parent_run_id.clone(),
            open_tool_calls: Vec::new(),
            open_children: Vec::new(),
            usage: UsageByModel::default(),
            recovered: false,
        };
        run.recorded(draft, offset);
        if draft.run_sequence.0 > 1 {
            // An event of a run that was forgotten: only one that had ended is.
            run.state = RunState::Completed;
        }
        run
    }

    /// Takes in the run's next event.
    pub(super) fn recorded(&mut self, draft: &Draft, offset: Offset) {
        let event = &draft.event;
        self.last_sequence = draft.run_sequence;
        self.last = offset;
        self.last_event_at = draft.recorded_at;
        self.recovered |= draft.recovered.is_some();
        if !event.event_id.is_own() {
            self.last_sign_at = self.last_sign_at.max(draft.recorded_at);
            if event.source != self.source {
                self.source = event.source.clone();
            }
        }
        if self.thread_id.is_none() {
            self.thread_id = draft.thread_id.clone();
        }
        if self.agent_name.is_none() {
            self.agent_name = draft.agent_name.clone();
        }
        if let Some((usage, cost)) = draft.consumed() {
            self.usage.add(usage, cost);
        }
        self.step(draft);
    }

    fn step(&mut self, draft: &Draft) {
        // What breaks a rule changes nothing, but where it begins a run that was not known.
        let changes_nothing = draft.violation.is_some() && draft.run_sequence.0 > 1;
        if changes_nothing || !self.state.is_open() {
            return;
        }
        let ended = self.tool_calls(draft);
        self.waits(draft, ended.as_ref());
        self.state = match (&draft.step, &draft.event.kind) {
            (Step::End, Kind::AgentFailed) => RunState::Failed,
            (Step::End, Kind::AgentCancelled) => RunState::Cancelled,
            (Step::End, _) => RunState::Completed,
            _ if self.open_waits.is_empty() => RunState::Running,
            _ => RunState::Waiting,
        };
    }

    /// Takes in what `draft` means for the tool calls. Returns the call that it ends.
    fn tool_calls(&mut self, draft: &Draft) -> Option<OpenToolCall> {
        match &draft.step {
            Step::ToolBegins {
                id,
                name,
                arguments,
                call,
            } => {
                let opens = match call {
                    Some(call) => *call == draft.run_sequence,
                    // A record of an earlier version, which knew calls by their ids only.
                    None => self.open_call(Some(id), None, None).is_none(),
                };
                if opens {
                    self.open_tool_calls.push(OpenToolCall {
                        call_sequence: draft.run_sequence,
                        arguments: *arguments,
                        id: id.clone(),
                        name: name.clone(),
                        started_at: draft.recorded_at,
                    });
                }
                None
            }
            Step::ToolEnds { id, name, call } => {
                let ends = |open: &OpenToolCall| is_call(open, id.as_ref(), name.as_ref(), *call);
                let ended = self.open_tool_calls.iter().position(ends)?;
                Some(self.open_tool_calls.remove(ended))
            }
            _ => None,
        }
    }

    /// Takes in what `draft`, which ended the tool call `ended`, means for the waits: those that have expired or that it
    /// ends are removed.
    fn waits(&mut self, draft: &Draft, ended: Option<&OpenToolCall>) {
        let now = draft.recorded_at;
        let waits = &mut self.open_waits;
        waits.retain(|open| open.expires_at > now);
        let goes_on = match &draft.step {
            // A call that this event has not begun is one that it repeats.
            Step::ToolBegins { call, .. } => *call == Some(draft.run_sequence),
            Step::ToolEnds { .. } => {
                waits.retain(|open| !ended.is_some_and(|call| open.is_of(call)));
                self.open_tool_calls.is_empty()
            }
            Step::Wait(wait) => {
                // An agent that is executed again after a crash asks again.
                waits.retain(|open| open.wait.id.is_none() || open.wait.id != wait.id);
                waits.push(OpenWait::begun(wait, draft.run_sequence, now));
                false
            }
            Step::Resume { id } => {
                waits.retain(|open| id.is_some() && open.wait.id != *id);
                false
            }
            Step::End => {
                waits.clear();
                false
            }
            _ => draft.event.kind.goes_on(),
        };
        if goes_on {
            waits.retain(|open| open.wait.id.is_some());
        }
    }

    /// The open call that an end or progress is about: exactly `call`, if it is stated; else the oldest with `id` and,
    /// if stated, `name`; without an id the oldest of the tool `name`.
    pub(super) fn open_call(
        &self,
        id: Option<&ToolCallId>,
        name: Option<&ToolName>,
        call: Option<RunSequence>,
    ) -> Option<&OpenToolCall> {
        self.open_tool_calls
            .iter()
            .find(|open| is_call(open, id, name, call))
    }

    /// The open call that a begin repeats: the same id, tool and arguments. A framework that executes a step again after
    /// a crash begins its calls again.
    pub(super) fn repeated_call(
        &self,
        id: &ToolCallId,
        name: &ToolName,
        arguments: Option<ContentHash>,
    ) -> Option<&OpenToolCall> {
        let same_arguments = |open: &OpenToolCall| match (open.arguments, arguments) {
            (Some(open), Some(begun)) => open == begun,
            // An earlier version stored no arguments and knew calls by their ids only.
            _ => true,
        };
        self.open_tool_calls
            .iter()
            .find(|open| open.id == *id && open.name == *name && same_arguments(open))
    }

    /// Whether `source` may write the run: its owner, or whoever has a higher term.
    ///
    /// # Errors
    /// Which rule forbids it.
    pub fn admits(&self, source: &Source) -> Result<(), SourceRefusal> {
        let owner = &self.source;
        if source.term < owner.term {
            return Err(SourceRefusal::Fenced);
        }
        if source.term == owner.term && source.producer_id != owner.producer_id {
            return Err(SourceRefusal::Competing);
        }
        Ok(())
    }

    /// Until when it may stay silent, its sub-agents not counted.
    pub fn own_deadline(&self) -> Timestamp {
        let silent = self.last_sign_at + self.silence_timeout;
        silent.max(self.waits_until())
    }

    /// Until when it waits for a person: until its last open wait expires. Without one, the beginning of time.
    pub fn waits_until(&self) -> Timestamp {
        self.last_wait()
            .map_or_else(Timestamp::default, |open| open.expires_at)
    }

    /// The open wait that expires last.
    pub fn last_wait(&self) -> Option<&OpenWait> {
        self.open_waits.iter().max_by_key(|open| open.expires_at)
    }

    /// How many waits will be open `now` beside one with the id `id`, which replaces the one before it.
    pub fn waits_beside(&self, id: Option<&WaitId>, now: Timestamp) -> usize {
        let stays = |open: &&OpenWait| {
            open.expires_at > now && (id.is_none() || open.wait.id.as_ref() != id)
        };
        self.open_waits.iter().filter(stays).count()
    }

    /// When it is forgotten, if it has ended; an open run is not.
    pub fn forgotten_at(&self, memory: Duration) -> Option<Timestamp> {
        (!self.state.is_open()).then(|| self.last_event_at + memory)
    }

    /// Whether it is over and forgotten by `now`.
    pub fn is_forgotten(&self, memory: Duration, now: Timestamp) -> bool {
        self.forgotten_at(memory).is_some_and(|at| at <= now)
    }

    /// What it came to.
    pub fn summary(&self) -> Summary {
        Summary {
            open_tool_calls: self.open_tool_calls.clone(),
            usage: (!self.usage.is_empty()).then(|| self.usage.totals()),
        }
    }

    /// About how many bytes it takes where it is remembered as `run_id`. A child that is open counts with the child:
    /// this changes only with the run's own events, and never shrinks.
    pub fn weight(&self, run_id: &RunId) -> usize {
        const MAP: usize = 16; // what a map adds to an entry at its usual load
        const NAMES: usize = 48; // two short texts and what the allocator adds
        let entry = run_id.as_str().len() + size_of::<(RunId, Self)>() + MAP;
        entry
            + size_of::<RunId>()
            + self.open_tool_calls.capacity() * (size_of::<OpenToolCall>() + NAMES)
            + self.open_waits.capacity() * (size_of::<OpenWait>() + NAMES)
            + self.usage.weight()
    }
}

fn is_call(
    open: &OpenToolCall,
    id: Option<&ToolCallId>,
    name: Option<&ToolName>,
    call: Option<RunSequence>,
) -> bool {
    match (call, id) {
        (Some(call), _) => open.sequence() == Some(call),
        (None, Some(id)) => open.id == *id && name.is_none_or(|name| open.name == *name),
        (None, None) => Some(&open.name) == name,
    }
}
