//! Which arm an event's payload is, and what that means.

use std::sync::Arc;

/// Which arm an event's payload is. The wire type is derived from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A run begins.
    AgentStarted,
    /// The agent reasons.
    AgentThinking,
    /// A piece of reasoning text.
    ThinkingDelta,
    /// A tool call begins.
    ToolExecuting,
    /// A tool call ended.
    ToolCompleted,
    /// A tool call advances.
    ToolProgress,
    /// The run ended well.
    AgentCompleted,
    /// The run failed.
    AgentFailed,
    /// The run was cancelled.
    AgentCancelled,
    /// The run waits for a person.
    AgentWaiting,
    /// A wait for a person is over.
    AgentResumed,
    /// A piece of a message.
    TextDelta,
    /// A whole message.
    Message,
    /// The whole shared state.
    StateSnapshot,
    /// A change of the shared state.
    StateDelta,
    /// The platform's own type, by its name.
    Custom(Arc<str>),
}

/// The wire types of the typed arms.
const TYPED: [(Kind, &str); 15] = [
    (Kind::AgentStarted, "agent_started"),
    (Kind::AgentThinking, "agent_thinking"),
    (Kind::ThinkingDelta, "thinking_delta"),
    (Kind::ToolExecuting, "tool_executing"),
    (Kind::ToolCompleted, "tool_completed"),
    (Kind::ToolProgress, "tool_progress"),
    (Kind::AgentCompleted, "agent_completed"),
    (Kind::AgentFailed, "agent_failed"),
    (Kind::AgentCancelled, "agent_cancelled"),
    (Kind::AgentWaiting, "agent_waiting"),
    (Kind::AgentResumed, "agent_resumed"),
    (Kind::TextDelta, "text_delta"),
    (Kind::Message, "message"),
    (Kind::StateSnapshot, "state_snapshot"),
    (Kind::StateDelta, "state_delta"),
];

/// Prefixes that a custom name may not have.
const RESERVED_PREFIXES: &[&str] = &[
    "agent_",
    "tool_",
    "text_",
    "thinking_",
    "message_",
    "state_",
    "run_",
    "connection_",
    // For types that the contract may get.
    "plan_",
    "artifact_",
    "file_",
    "citation_",
    "step_",
    "task_",
    "thread_",
    "user_",
    "usage_",
    "command_",
    "handoff_",
    "source_",
];

impl Kind {
    /// The `type` that readers see.
    pub fn wire_type(&self) -> &str {
        match self {
            Self::Custom(name) => name,
            Self::AgentStarted => "agent_started",
            Self::AgentThinking => "agent_thinking",
            Self::ThinkingDelta => "thinking_delta",
            Self::ToolExecuting => "tool_executing",
            Self::ToolCompleted => "tool_completed",
            Self::ToolProgress => "tool_progress",
            Self::AgentCompleted => "agent_completed",
            Self::AgentFailed => "agent_failed",
            Self::AgentCancelled => "agent_cancelled",
            Self::AgentWaiting => "agent_waiting",
            Self::AgentResumed => "agent_resumed",
            Self::TextDelta => "text_delta",
            Self::Message => "message",
            Self::StateSnapshot => "state_snapshot",
            Self::StateDelta => "state_delta",
        }
    }

    /// Whether it ends its run.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::AgentCompleted | Self::AgentFailed | Self::AgentCancelled
        )
    }

    /// Whether it shows that the agent goes on, so that a wait without an id is over. A new tool call does as well.
    pub fn goes_on(&self) -> bool {
        matches!(
            self,
            Self::AgentThinking | Self::ThinkingDelta | Self::TextDelta | Self::Message
        )
    }

    /// Whether it is a piece of a text that pieces of the same text may be joined to.
    pub fn is_delta(&self) -> bool {
        matches!(self, Self::TextDelta | Self::ThinkingDelta)
    }

    /// The wire types of the typed arms.
    pub fn typed() -> impl Iterator<Item = (Kind, &'static str)> {
        TYPED.into_iter()
    }
}

/// What is wrong with `name` as a custom event's name, if anything.
pub fn custom_name_problem(name: &str) -> Option<&'static str> {
    let bytes = name.as_bytes();
    let shaped = matches!(bytes.first(), Some(b'a'..=b'z'))
        && bytes.len() <= 64
        && bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'));
    if !shaped {
        return Some("must match [a-z][a-z0-9_.-]{0,63}");
    }
    if name == "custom" || TYPED.iter().any(|(_, wire_type)| *wire_type == name) {
        return Some("is the name of a typed payload");
    }
    if RESERVED_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
    {
        return Some("has a reserved prefix");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_wire_types_agree() {
        for (kind, wire_type) in Kind::typed() {
            assert_eq!(kind.wire_type(), wire_type);
        }
    }

    #[test]
    fn custom_names_keep_clear_of_the_typed_ones() {
        let long = "a".repeat(64);
        for name in [
            "a",
            "progress",
            "my.event-1_x",
            "messages",
            "plan",
            "user.joined",
            &long,
        ] {
            assert_eq!(custom_name_problem(name), None, "{name}");
        }
        let too_long = "a".repeat(65);
        for name in [
            "",
            "A",
            "1a",
            "a b",
            "é",
            &too_long,
            "message",
            "custom",
            "agent_started",
            "agent_x",
            "tool_x",
            "text_x",
            "thinking_x",
            "message_x",
            "state_x",
            "run_x",
            "connection_x",
            "plan_x",
            "artifact_x",
            "file_x",
            "citation_x",
            "step_x",
            "task_x",
            "thread_x",
            "user_x",
            "usage_x",
            "command_x",
            "handoff_x",
            "source_x",
        ] {
            assert!(custom_name_problem(name).is_some(), "{name:?}");
        }
    }
}
