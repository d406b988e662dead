//! The rules of each payload.

use std::time::Duration;

use prost_types::Struct;

use crate::{
    event::{
        Action, ContentHash, Kind, RunSequence, Step, ToolCallId, ToolName, Wait, WaitId,
        custom_name_problem,
    },
    proto::v1::{
        AgentCompleted, AgentWaiting, Custom, PatchOp, PatchOperation, StateDelta, ToolCompleted,
        ToolExecuting, ToolStatus, agent_completed, event::Payload, tool_completed, tool_executing,
    },
};

use super::{
    canonical,
    check::{Checker, NAME_CHARS, length},
    path::Path,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a run may be silent.
const SILENCE: (Duration, Duration) = (Duration::from_secs(1), DAY);

/// How long a run may wait for a person.
const WAIT: (Duration, Duration) = (
    Duration::from_nanos(1),
    Duration::from_secs(7 * DAY.as_secs()),
);

/// The most answers that an `agent_waiting` offers.
const CHOICES: usize = 32;

/// The longest of them, in characters.
const CHOICE_CHARS: usize = 256;

/// Checks `payload`, adjusts what need not refuse it, and says what it is.
pub(super) fn check(payload: &mut Payload, checker: &mut Checker) -> Kind {
    let (kind, arm) = named(payload);
    let at = &Path::ROOT.field(arm);
    match payload {
        Payload::AgentStarted(p) => checker.clamp_duration_within(
            &at.field("silence_timeout"),
            &mut p.silence_timeout,
            SILENCE,
            "must be from 1 s to 24 h",
        ),
        Payload::AgentThinking(p) => {
            let progress = at.field("progress_percentage");
            checker.clamp_number(&progress, &mut p.progress_percentage, 100);
            checker.name(&at.field("message_id"), &p.message_id);
        }
        Payload::ThinkingDelta(p) => checker.name(&at.field("message_id"), &p.message_id),
        Payload::ToolExecuting(p) => tool_executing(at, p, checker),
        Payload::ToolCompleted(p) => tool_completed(at, p, checker),
        Payload::ToolProgress(p) => {
            checker.name(&at.field("tool_call_id"), &p.tool_call_id);
            checker.clamp_number(&at.field("fraction"), &mut p.fraction, 1);
        }
        Payload::AgentCompleted(p) => agent_completed(at, p, checker),
        Payload::AgentFailed(p) => checker.cut_line(&at.field("code"), &mut p.code, NAME_CHARS),
        Payload::AgentCancelled(_) => {}
        Payload::AgentWaiting(p) => agent_waiting(at, p, checker),
        Payload::AgentResumed(p) => checker.name(&at.field("wait_id"), &p.wait_id),
        Payload::TextDelta(p) => {
            checker.name(&at.field("message_id"), &p.message_id);
            checker.cut_line(&at.field("role"), &mut p.role, NAME_CHARS);
        }
        Payload::Message(p) => {
            checker.name(&at.field("message_id"), &p.message_id);
            checker.cut_line(&at.field("role"), &mut p.role, NAME_CHARS);
        }
        Payload::StateSnapshot(p) => {
            if let Some(snapshot) = &mut p.snapshot {
                checker.null_value(&at.field("snapshot"), snapshot);
            }
        }
        Payload::StateDelta(p) => state_delta(at, p, checker),
        Payload::Custom(p) => custom(at, p, checker),
    }
    kind
}

/// What `payload` is, and the name of its arm.
fn named(payload: &Payload) -> (Kind, &'static str) {
    match payload {
        Payload::AgentStarted(_) => (Kind::AgentStarted, "agent_started"),
        Payload::AgentThinking(_) => (Kind::AgentThinking, "agent_thinking"),
        Payload::ThinkingDelta(_) => (Kind::ThinkingDelta, "thinking_delta"),
        Payload::ToolExecuting(_) => (Kind::ToolExecuting, "tool_executing"),
        Payload::ToolCompleted(_) => (Kind::ToolCompleted, "tool_completed"),
        Payload::ToolProgress(_) => (Kind::ToolProgress, "tool_progress"),
        Payload::AgentCompleted(_) => (Kind::AgentCompleted, "agent_completed"),
        Payload::AgentFailed(_) => (Kind::AgentFailed, "agent_failed"),
        Payload::AgentCancelled(_) => (Kind::AgentCancelled, "agent_cancelled"),
        Payload::AgentWaiting(_) => (Kind::AgentWaiting, "agent_waiting"),
        Payload::AgentResumed(_) => (Kind::AgentResumed, "agent_resumed"),
        Payload::TextDelta(_) => (Kind::TextDelta, "text_delta"),
        Payload::Message(_) => (Kind::Message, "message"),
        Payload::StateSnapshot(_) => (Kind::StateSnapshot, "state_snapshot"),
        Payload::StateDelta(_) => (Kind::StateDelta, "state_delta"),
        Payload::Custom(p) => (Kind::Custom(p.name.as_str().into()), "custom"),
    }
}

/// What a valid `payload` means for its run.
pub(super) fn step(payload: &Payload) -> Step {
    match payload {
        Payload::AgentStarted(p) => Step::Start {
            silence_timeout: p.silence_timeout.as_ref().and_then(length),
        },
        Payload::ToolExecuting(p) => {
            let call = ToolCallId::new(&p.tool_call_id);
            match (call, ToolName::new(&p.tool_name)) {
                (Ok(id), Ok(name)) => Step::ToolBegins {
                    id,
                    name,
                    arguments: Some(arguments(p)),
                    call: None,
                },
                // Both were checked or filled in.
                _ => Step::Other,
            }
        }
        Payload::ToolCompleted(p) => Step::ToolEnds {
            id: ToolCallId::new(&p.tool_call_id).ok(),
            name: ToolName::new(&p.tool_name).ok(),
            call: p.call_sequence.map(RunSequence),
        },
        Payload::ToolProgress(p) => Step::ToolAdvances {
            id: ToolCallId::new(&p.tool_call_id).ok(),
            call: p.call_sequence.map(RunSequence),
        },
        Payload::AgentWaiting(p) => Step::Wait(Box::new(Wait {
            max_wait: p.max_wait.as_ref().and_then(length),
            id: WaitId::new(&p.wait_id).ok(),
            tool_call_id: ToolCallId::new(&p.tool_call_id).ok(),
            call: None,
            kind: (!p.kind.is_empty()).then(|| p.kind.as_str().into()),
        })),
        Payload::AgentResumed(p) => Step::Resume {
            id: WaitId::new(&p.wait_id).ok(),
        },
        Payload::AgentCompleted(_) | Payload::AgentFailed(_) | Payload::AgentCancelled(_) => {
            Step::End
        }
        _ => Step::Other,
    }
}

/// A hash of a call's arguments as they are stored, by which a repeated begin is recognised. No arguments are an empty
/// object.
fn arguments(p: &ToolExecuting) -> ContentHash {
    let mut form = Vec::new();
    match &p.input {
        Some(tool_executing::Input::Parameters(fields)) => canonical::structure(&mut form, fields),
        Some(tool_executing::Input::ParametersJson(text)) => canonical::text(&mut form, text),
        None => canonical::structure(&mut form, &Struct::default()),
    }
    ContentHash::of(&form)
}

fn tool_executing(at: &Path<'_>, p: &ToolExecuting, checker: &mut Checker) {
    checker.name(&at.field("tool_call_id"), &p.tool_call_id);
    checker.required_name(&at.field("tool_name"), &p.tool_name);
    match &p.input {
        Some(tool_executing::Input::Parameters(fields)) => {
            checker.fields(&at.field("parameters"), fields);
        }
        Some(tool_executing::Input::ParametersJson(text)) => {
            checker.json_object(&at.field("parameters_json"), text);
        }
        None => {}
    }
}

fn tool_completed(at: &Path<'_>, p: &mut ToolCompleted, checker: &mut Checker) {
    checker.name(&at.field("tool_call_id"), &p.tool_call_id);
    tool_name(&at.field("tool_name"), &mut p.tool_name, checker);
    if ToolStatus::try_from(p.status).is_err() {
        p.set_status(ToolStatus::Unspecified);
        checker.adjust(&at.field("status"), Action::Dropped, "is unknown");
    }
    checker.clamp_duration(&at.field("execution_time"), &mut p.execution_time);
    match &mut p.output {
        Some(tool_completed::Output::Result(value)) => {
            checker.null_value(&at.field("result"), value);
        }
        Some(tool_completed::Output::ResultJson(text)) => {
            checker.null_json(&at.field("result_json"), text);
        }
        None => {}
    }
}

/// Drops a name that no tool can have: where the call's id is stated, it says enough.
fn tool_name(at: &Path<'_>, name: &mut String, checker: &mut Checker) {
    if !name.is_empty()
        && let Err(error) = ToolName::new(name)
    {
        name.clear();
        checker.adjust(at, Action::Dropped, error.to_string());
    }
}

fn agent_completed(at: &Path<'_>, p: &mut AgentCompleted, checker: &mut Checker) {
    checker.clamp_duration(&at.field("execution_time"), &mut p.execution_time);
    match &mut p.output {
        Some(agent_completed::Output::Result(value)) => {
            checker.null_value(&at.field("result"), value);
        }
        Some(agent_completed::Output::ResultJson(text)) => {
            checker.null_json(&at.field("result_json"), text);
        }
        None => {}
    }
}

fn agent_waiting(at: &Path<'_>, p: &mut AgentWaiting, checker: &mut Checker) {
    checker.name(&at.field("wait_id"), &p.wait_id);
    checker.name(&at.field("tool_call_id"), &p.tool_call_id);
    checker.cut_line(&at.field("kind"), &mut p.kind, NAME_CHARS);
    checker.clamp_duration_within(
        &at.field("max_wait"),
        &mut p.max_wait,
        WAIT,
        "must be longer than 0 and at most 7 days",
    );
    let at = at.field("choices");
    if p.choices.len() > CHOICES {
        p.choices.truncate(CHOICES);
        let rule = format!("has more than {CHOICES} entries");
        checker.adjust(&at, Action::Truncated, rule);
    }
    for (index, choice) in p.choices.iter_mut().enumerate() {
        checker.cut_line(&at.index(index), choice, CHOICE_CHARS);
    }
}

fn state_delta(at: &Path<'_>, p: &mut StateDelta, checker: &mut Checker) {
    let at = at.field("operations");
    if p.operations.is_empty() {
        checker.fail(&at, "is required");
    }
    for (index, operation) in p.operations.iter_mut().enumerate() {
        patch_operation(&at.index(index), operation, checker);
    }
}

fn patch_operation(at: &Path<'_>, p: &mut PatchOperation, checker: &mut Checker) {
    checker.pointer(&at.field("path"), &p.path);
    let (takes_from, takes_value) = match PatchOp::try_from(p.op) {
        Ok(PatchOp::Add | PatchOp::Replace | PatchOp::Test) => (false, true),
        Ok(PatchOp::Move | PatchOp::Copy) => (true, false),
        Ok(PatchOp::Remove) => (false, false),
        Ok(PatchOp::Unspecified) => return checker.fail(&at.field("op"), "is required"),
        Err(_) => return checker.fail(&at.field("op"), "is unknown"),
    };
    // An empty `from` is the pointer to the whole state, so only a wrong one can be told.
    if takes_from {
        checker.pointer(&at.field("from"), &p.from);
    } else if !p.from.is_empty() {
        checker.fail(&at.field("from"), "belongs to `move` and `copy` only");
    }
    match (&mut p.value, takes_value) {
        (Some(value), true) => checker.null_operand(&at.field("value"), value),
        (None, true) => checker.fail(&at.field("value"), "is required"),
        (Some(_), false) => {
            let rule = "belongs to `add`, `replace` and `test` only";
            checker.fail(&at.field("value"), rule);
        }
        (None, false) => {}
    }
}

fn custom(at: &Path<'_>, p: &mut Custom, checker: &mut Checker) {
    if p.name.is_empty() {
        checker.fail(&at.field("name"), "is required");
    } else if let Some(problem) = custom_name_problem(&p.name) {
        checker.fail(&at.field("name"), problem);
    }
    if let Some(data) = &mut p.data {
        checker.null_fields(&at.field("data"), data);
    }
}
