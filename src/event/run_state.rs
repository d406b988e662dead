//! How a run stands.

use crate::proto::v1;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunState {
    /// It goes on.
    Running,
    /// It goes on, and waits for a person.
    Waiting,
    /// It ended well.
    Completed,
    /// It ended in failure.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl RunState {
    /// Whether the run has not ended.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Waiting)
    }

    /// The name on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<RunState> for v1::RunState {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Running => Self::Running,
            RunState::Waiting => Self::Waiting,
            RunState::Completed => Self::Completed,
            RunState::Failed => Self::Failed,
            RunState::Cancelled => Self::Cancelled,
        }
    }
}
