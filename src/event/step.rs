//! What an event means for the run that it belongs to.

use std::time::Duration;

use super::{
    ContentHash, Kind, ProducerId, RunSequence, ToolCallId, ToolName, UsageTotals, Wait, WaitId,
};
use crate::{clock::Timestamp, proto::v1};

/// Who emits an event: a process, and which incarnation of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The process.
    pub producer_id: ProducerId,
    /// Its incarnation: a higher term is newer, whoever the producer.
    pub term: u64,
}

/// What an event means for the life of its run: as stated by its producer in an event, as settled in a draft, where
/// nothing is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The run begins.
    Start {
        /// How long it may be silent.
        silence_timeout: Option<Duration>,
    },
    /// A tool call begins.
    ToolBegins {
        /// The call's id.
        id: ToolCallId,
        /// Its tool.
        name: ToolName,
        /// A hash of its arguments, by which a repeated begin is recognised; none in records of an earlier version.
        arguments: Option<ContentHash>,
        /// The call, once settled: this event, or the open call that it repeats.
        call: Option<RunSequence>,
    },
    /// A tool call ends.
    ToolEnds {
        /// The call's id; without it, the oldest open call of the tool.
        id: Option<ToolCallId>,
        /// Its tool.
        name: Option<ToolName>,
        /// The call, which selects it exactly. Settled, it is absent only where the begin's number is not known.
        call: Option<RunSequence>,
    },
    /// A tool call advances.
    ToolAdvances {
        /// The call's id.
        id: Option<ToolCallId>,
        /// The call, as on its end. Settled, it is absent where no such call is open.
        call: Option<RunSequence>,
    },
    /// The run waits for a person.
    Wait(Box<Wait>),
    /// A wait for a person is over.
    Resume {
        /// The wait; without it, all waits of the run.
        id: Option<WaitId>,
    },
    /// The run ends, as the event's kind says.
    End,
    /// Nothing but that the run goes on.
    Other,
}

impl Step {
    /// What a payload of `kind` means that states nothing.
    pub fn of(kind: &Kind) -> Self {
        match kind {
            Kind::AgentStarted => Self::Start {
                silence_timeout: None,
            },
            Kind::ToolCompleted => Self::ToolEnds {
                id: None,
                name: None,
                call: None,
            },
            Kind::ToolProgress => Self::ToolAdvances {
                id: None,
                call: None,
            },
            Kind::AgentWaiting => Self::wait(None),
            Kind::AgentResumed => Self::Resume { id: None },
            kind if kind.is_terminal() => Self::End,
            _ => Self::Other,
        }
    }

    /// A wait that says nothing but how long it lasts.
    pub fn wait(max_wait: Option<Duration>) -> Self {
        Self::Wait(Box::new(Wait {
            max_wait,
            ..Wait::default()
        }))
    }

    /// The tool call that a settled step is about, if it is open: the `run_sequence` of its begin.
    pub fn call(&self) -> Option<RunSequence> {
        match self {
            Self::ToolBegins { call, .. }
            | Self::ToolEnds { call, .. }
            | Self::ToolAdvances { call, .. } => *call,
            Self::Wait(wait) => wait.call,
            _ => None,
        }
    }
}

impl Source {
    /// The first incarnation of `producer_id`.
    pub fn new(producer_id: ProducerId) -> Self {
        Self {
            producer_id,
            term: 0,
        }
    }
}

/// A tool call that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenToolCall {
    /// The `run_sequence` of its begin, which identifies it; 0 where an earlier version stored it.
    pub call_sequence: RunSequence,
    /// A hash of its arguments; none where an earlier version stored it.
    pub arguments: Option<ContentHash>,
    /// Its id, which other open calls may have too.
    pub id: ToolCallId,
    /// Its tool.
    pub name: ToolName,
    /// When its begin was recorded.
    pub started_at: Timestamp,
}

/// What a run came to, told with the event that ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The tool calls that were still open, oldest first.
    pub open_tool_calls: Vec<OpenToolCall>,
    /// What it consumed, if anything was reported.
    pub usage: Option<UsageTotals>,
}

impl OpenToolCall {
    /// The `run_sequence` of its begin, where it is known.
    pub fn sequence(&self) -> Option<RunSequence> {
        Some(self.call_sequence).filter(|sequence| sequence.0 > 0)
    }
}

impl From<&OpenToolCall> for v1::OpenToolCall {
    fn from(call: &OpenToolCall) -> Self {
        Self {
            tool_call_id: call.id.as_str().to_owned(),
            tool_name: call.name.as_str().to_owned(),
            started_at: Some(call.started_at.into()),
            call_sequence: call.call_sequence.0,
        }
    }
}

impl From<&Source> for v1::Source {
    fn from(source: &Source) -> Self {
        Self {
            producer_id: source.producer_id.as_str().to_owned(),
            term: source.term,
        }
    }
}
