//! The rules of a run's life.

use std::time::Duration;

use super::{MAX_WAIT, Run, SILENCE_TIMEOUT};
use crate::{
    event::{Event, OpenToolCall, RunSequence, Step, Wait},
    reason::Reason,
};

/// What holds where an event leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// How long a run may be silent.
    pub silence_timeout: Duration,
    /// How long a run may wait for a person.
    pub max_wait: Duration,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            silence_timeout: SILENCE_TIMEOUT,
            max_wait: MAX_WAIT,
        }
    }
}

/// A rule of the life of runs that an event breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Nothing comes before `agent_started`.
    NotStarted,
    /// A run starts once.
    AlreadyStarted,
    /// Nothing comes after a terminal event.
    Ended,
    /// `tool_completed` needs its open call.
    ToolCallUnknown,
    /// A sub-agent's parent is an open run of the same user.
    ParentNotOpen,
}

/// Why a source may not write a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRefusal {
    /// A newer one has taken it over.
    Fenced,
    /// Another one of the same term owns it.
    Competing,
}

impl Violation {
    /// What it is called on every surface.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotStarted => Reason::RunNotStarted,
            Self::AlreadyStarted => Reason::RunAlreadyStarted,
            Self::Ended => Reason::RunEnded,
            Self::ToolCallUnknown => Reason::ToolCallUnknown,
            Self::ParentNotOpen => Reason::ParentNotOpen,
        }
    }

    /// What would have been legal instead.
    pub const fn legal(self) -> &'static str {
        match self {
            Self::NotStarted => "agent_started",
            Self::AlreadyStarted => "any event but agent_started",
            Self::Ended => "nothing: a new run needs a new run_id",
            Self::ToolCallUnknown => "tool_completed of an open tool call, or tool_executing first",
            Self::ParentNotOpen => "a parent_run_id of an open run of the same user, or none",
        }
    }
}

impl SourceRefusal {
    /// What it is called on every surface.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Fenced => Reason::SourceFenced,
            Self::Competing => Reason::CompetingSource,
        }
    }
}

/// What `event` means for its run, of which `run` is known.
///
/// # Errors
/// The rule that it breaks.
pub fn settle(run: Option<&Run>, event: &Event, defaults: &Defaults) -> Result<Step, Violation> {
    let Some(run) = run else {
        return match event.step {
            Step::Start { silence_timeout } => Ok(Step::Start {
                silence_timeout: Some(silence_timeout.unwrap_or(defaults.silence_timeout)),
            }),
            _ => Err(Violation::NotStarted),
        };
    };
    if !run.state.is_open() {
        return Err(Violation::Ended);
    }
    match &event.step {
        Step::Start { .. } => Err(Violation::AlreadyStarted),
        Step::ToolBegins {
            id,
            name,
            arguments,
            ..
        } => Ok(Step::ToolBegins {
            id: id.clone(),
            name: name.clone(),
            arguments: *arguments,
            call: match run.repeated_call(id, name, *arguments) {
                Some(open) => open.sequence(),
                None => Some(next_sequence(Some(run))),
            },
        }),
        Step::ToolEnds { id, name, call } => {
            let open = run.open_call(id.as_ref(), name.as_ref(), *call);
            let open = open.ok_or(Violation::ToolCallUnknown)?;
            Ok(Step::ToolEnds {
                id: Some(open.id.clone()),
                name: Some(open.name.clone()),
                call: open.sequence(),
            })
        }
        Step::ToolAdvances { id, call } => {
            let open = run.open_call(id.as_ref(), None, *call);
            Ok(Step::ToolAdvances {
                id: open.map(|open| open.id.clone()).or_else(|| id.clone()),
                call: open.and_then(|open| open.sequence()),
            })
        }
        Step::Wait(wait) => Ok(settled_wait(Some(run), wait, defaults)),
        step @ (Step::Resume { .. } | Step::End | Step::Other) => Ok(step.clone()),
    }
}

/// A wait in `run`, with its length and the open call that waits.
fn settled_wait(run: Option<&Run>, wait: &Wait, defaults: &Defaults) -> Step {
    let id = wait.tool_call_id.as_ref();
    let open = run.filter(|_| id.is_some());
    let open = open.and_then(|run| run.open_call(id, None, None));
    Step::Wait(Box::new(Wait {
        max_wait: Some(wait.max_wait.unwrap_or(defaults.max_wait)),
        call: open.and_then(OpenToolCall::sequence),
        ..wait.clone()
    }))
}

/// The number of the event that comes after those of `run`.
pub fn next_sequence(run: Option<&Run>) -> RunSequence {
    RunSequence(run.map_or(0, |run| run.last_sequence.0) + 1)
}

/// What an event means that is accepted though the store has lost what came before it: what it says itself.
pub fn recovered(run: Option<&Run>, event: &Event, defaults: &Defaults) -> Step {
    match &event.step {
        Step::Start { silence_timeout } => Step::Start {
            silence_timeout: Some(silence_timeout.unwrap_or(defaults.silence_timeout)),
        },
        Step::Wait(wait) => settled_wait(run, wait, defaults),
        Step::ToolBegins {
            id,
            name,
            arguments,
            ..
        } => Step::ToolBegins {
            id: id.clone(),
            name: name.clone(),
            arguments: *arguments,
            call: Some(next_sequence(run)),
        },
        // Sequences of the lost epoch mean other events in this one.
        Step::ToolEnds { id, name, .. } => Step::ToolEnds {
            id: id.clone(),
            name: name.clone(),
            call: None,
        },
        Step::ToolAdvances { id, .. } => Step::ToolAdvances {
            id: id.clone(),
            call: None,
        },
        step => step.clone(),
    }
}

/// What an event means that breaks a rule and is stored all the same, because runs are only observed: it begins a run
/// that is not known, and otherwise changes nothing.
pub fn observed(run: Option<&Run>, event: &Event, defaults: &Defaults) -> Step {
    match (run, &event.step) {
        (None, Step::End) => Step::End,
        (None, Step::Start { silence_timeout }) => Step::Start {
            silence_timeout: Some(silence_timeout.unwrap_or(defaults.silence_timeout)),
        },
        (None, _) => Step::Start {
            silence_timeout: Some(defaults.silence_timeout),
        },
        (Some(_), _) => Step::Other,
    }
}
