//! What an event means for the run that it belongs to.

use std::time::Duration;

use super::{Kind, ProducerId, ToolCallId, ToolName, UsageTotals};
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
        /// The call.
        id: ToolCallId,
        /// Its tool.
        name: ToolName,
    },
    /// A tool call ends.
    ToolEnds {
        /// The call; without it, the oldest open call of the tool.
        id: Option<ToolCallId>,
        /// Its tool.
        name: Option<ToolName>,
    },
    /// The run waits for a person.
    Wait {
        /// For how long.
        max_wait: Option<Duration>,
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
            },
            Kind::AgentWaiting => Self::Wait { max_wait: None },
            kind if kind.is_terminal() => Self::End,
            _ => Self::Other,
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
    /// The call.
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

impl From<&OpenToolCall> for v1::OpenToolCall {
    fn from(call: &OpenToolCall) -> Self {
        Self {
            tool_call_id: call.id.as_str().to_owned(),
            tool_name: call.name.as_str().to_owned(),
            started_at: Some(call.started_at.into()),
            ..Default::default()
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
