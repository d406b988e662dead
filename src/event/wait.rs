//! Waits for a person.

use std::{sync::Arc, time::Duration};

use super::{OpenToolCall, RunSequence, ToolCallId, WaitId};
use crate::{clock::Timestamp, proto::v1};

/// The fields of an `agent_waiting`, as sent or as settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// How long it lasts at most; always there once settled.
    pub max_wait: Option<Duration>,
    /// Names it within its run.
    pub id: Option<WaitId>,
    /// The tool call that waits.
    pub tool_call_id: Option<ToolCallId>,
    /// That call, once settled, if it is open: the `run_sequence` of its begin.
    pub call: Option<RunSequence>,
    /// What kind of answer it asks for.
    pub kind: Option<Arc<str>>,
}

/// A wait that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenWait {
    /// The `run_sequence` of its `agent_waiting`.
    pub sequence: RunSequence,
    /// When that was recorded.
    pub started_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// What it says.
    pub wait: Wait,
}

impl OpenWait {
    /// The wait that begins `now` with the event `sequence` of its run.
    pub fn begun(wait: &Wait, sequence: RunSequence, now: Timestamp) -> Self {
        Self {
            sequence,
            started_at: now,
            expires_at: now + wait.max_wait.unwrap_or_default(),
            wait: wait.clone(),
        }
    }

    /// Whether it is the tool call `call` that waits.
    pub fn is_of(&self, call: &OpenToolCall) -> bool {
        match self.wait.call {
            Some(own) => call.sequence() == Some(own),
            None => self.wait.tool_call_id.as_ref() == Some(&call.id),
        }
    }

    /// How many bytes its texts take.
    pub fn text_len(&self) -> usize {
        let Wait {
            id,
            tool_call_id,
            kind,
            ..
        } = &self.wait;
        id.as_ref().map_or(0, |id| id.as_str().len())
            + tool_call_id.as_ref().map_or(0, |id| id.as_str().len())
            + kind.as_ref().map_or(0, |kind| kind.len())
    }
}

impl From<&OpenWait> for v1::OpenWait {
    fn from(open: &OpenWait) -> Self {
        let Wait {
            id,
            tool_call_id,
            kind,
            ..
        } = &open.wait;
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            wait_id: text(id.as_ref().map(WaitId::as_str)),
            tool_call_id: text(tool_call_id.as_ref().map(ToolCallId::as_str)),
            kind: text(kind.as_deref()),
            run_sequence: open.sequence.0,
            started_at: Some(open.started_at.into()),
            expires_at: Some(open.expires_at.into()),
        }
    }
}
