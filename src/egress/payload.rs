//! The `payload` of an event's JSON frame, arm by arm.

use prost_types::{Struct, Value};

use super::json::{self, Object};
use crate::proto::v1::{
    self, PatchOp, PatchOperation, ToolStatus, agent_completed, event::Payload, tool_completed,
    tool_executing,
};

/// Writes the object that stands under `payload`. Empty texts are absent.
pub(super) fn write(out: &mut Vec<u8>, payload: &Payload) {
    if let Payload::Custom(custom) = payload {
        return match &custom.data {
            Some(data) => json::structure(out, data),
            None => out.extend_from_slice(b"{}"),
        };
    }
    let mut object = Object::begin(out);
    fields(&mut object, payload);
    object.end();
}

fn fields(to: &mut Object<'_>, payload: &Payload) {
    match payload {
        Payload::AgentStarted(p) => {
            to.text("message", &p.message);
            to.text("agent_type", &p.agent_type);
            to.millis("silence_timeout_ms", p.silence_timeout.as_ref());
        }
        Payload::AgentThinking(p) => agent_thinking(to, p),
        Payload::ThinkingDelta(p) => {
            to.text("message_id", &p.message_id);
            to.text("text", &p.text);
        }
        Payload::ToolExecuting(p) => tool_executing(to, p),
        Payload::ToolCompleted(p) => tool_completed(to, p),
        Payload::ToolProgress(p) => {
            call(to, &p.tool_call_id, p.call_sequence);
            to.double("fraction", p.fraction);
            to.text("message", &p.message);
        }
        Payload::AgentCompleted(p) => agent_completed(to, p),
        Payload::AgentFailed(p) => {
            to.text("code", &p.code);
            to.text("message", &p.message);
            if let Some(retryable) = p.retryable {
                to.boolean("retryable", retryable);
            }
        }
        Payload::AgentCancelled(p) => to.text("reason", &p.reason),
        Payload::AgentWaiting(p) => agent_waiting(to, p),
        Payload::AgentResumed(p) => to.text("wait_id", &p.wait_id),
        Payload::TextDelta(p) => message(to, &p.message_id, &p.role, &p.text),
        Payload::Message(p) => message(to, &p.message_id, &p.role, &p.text),
        Payload::StateSnapshot(p) => value(to, "snapshot", p.snapshot.as_ref()),
        Payload::StateDelta(p) => {
            json::array(to.field("operations"), &p.operations, operation);
        }
        // Its payload is the data object itself.
        Payload::Custom(_) => {}
    }
}

fn agent_thinking(to: &mut Object<'_>, p: &v1::AgentThinking) {
    to.text("message_id", &p.message_id);
    to.text("reasoning", &p.reasoning);
    if let Some(step) = p.step_number {
        to.integer("step_number", step.into());
    }
    if let Some(steps) = p.total_steps {
        to.integer("total_steps", steps.into());
    }
    to.double("progress_percentage", p.progress_percentage);
}

fn agent_waiting(to: &mut Object<'_>, p: &v1::AgentWaiting) {
    to.text("wait_id", &p.wait_id);
    to.text("tool_call_id", &p.tool_call_id);
    to.text("kind", &p.kind);
    to.text("reason", &p.reason);
    to.text("prompt", &p.prompt);
    if !p.choices.is_empty() {
        json::array(to.field("choices"), &p.choices, |out, choice| {
            json::text(out, choice);
        });
    }
    to.millis("max_wait_ms", p.max_wait.as_ref());
}

/// Which tool call an event is about.
fn call(to: &mut Object<'_>, id: &str, sequence: Option<u64>) {
    to.text("tool_call_id", id);
    if let Some(sequence) = sequence {
        to.integer("call_sequence", sequence);
    }
}

fn tool_executing(to: &mut Object<'_>, p: &v1::ToolExecuting) {
    call(to, &p.tool_call_id, p.call_sequence);
    to.text("tool_name", &p.tool_name);
    to.text("description", &p.description);
    match &p.input {
        None => {}
        Some(tool_executing::Input::Parameters(object)) => structure(to, "parameters", object),
        Some(tool_executing::Input::ParametersJson(text)) => exact(to, "parameters", text),
    }
}

fn tool_completed(to: &mut Object<'_>, p: &v1::ToolCompleted) {
    call(to, &p.tool_call_id, p.call_sequence);
    to.text("tool_name", &p.tool_name);
    let status = match p.status() {
        ToolStatus::Succeeded => "succeeded",
        ToolStatus::Failed => "failed",
        ToolStatus::Cancelled => "cancelled",
        ToolStatus::Denied => "denied",
        ToolStatus::Unspecified if p.error.is_empty() => "succeeded",
        ToolStatus::Unspecified => "failed",
    };
    to.plain("status", status);
    to.text("error", &p.error);
    to.millis("execution_time_ms", p.execution_time.as_ref());
    match &p.output {
        None => {}
        Some(tool_completed::Output::Result(result)) => value(to, "result", Some(result)),
        Some(tool_completed::Output::ResultJson(text)) => exact(to, "result", text),
    }
}

fn agent_completed(to: &mut Object<'_>, p: &v1::AgentCompleted) {
    to.text("message", &p.message);
    to.millis("execution_time_ms", p.execution_time.as_ref());
    match &p.output {
        None => {}
        Some(agent_completed::Output::Result(result)) => value(to, "result", Some(result)),
        Some(agent_completed::Output::ResultJson(text)) => exact(to, "result", text),
    }
}

fn message(to: &mut Object<'_>, message_id: &str, role: &str, text: &str) {
    to.text("message_id", message_id);
    to.text("role", role);
    to.text("text", text);
}

/// One RFC 6902 operation. A pointer may be empty (the whole document), so those that an operation needs are always
/// written.
fn operation(out: &mut Vec<u8>, operation: &PatchOperation) {
    let op = operation.op();
    let mut object = Object::begin(out);
    object.plain("op", op_name(op));
    json::text(object.field("path"), &operation.path);
    match op {
        PatchOp::Move | PatchOp::Copy => json::text(object.field("from"), &operation.from),
        PatchOp::Add | PatchOp::Replace | PatchOp::Test => {
            let null = Value { kind: None };
            json::value(
                object.field("value"),
                operation.value.as_ref().unwrap_or(&null),
            );
        }
        PatchOp::Remove | PatchOp::Unspecified => {}
    }
    object.end();
}

fn op_name(op: PatchOp) -> &'static str {
    match op {
        PatchOp::Unspecified => "",
        PatchOp::Add => "add",
        PatchOp::Remove => "remove",
        PatchOp::Replace => "replace",
        PatchOp::Move => "move",
        PatchOp::Copy => "copy",
        PatchOp::Test => "test",
    }
}

fn structure(to: &mut Object<'_>, name: &str, value: &Struct) {
    json::structure(to.field(name), value);
}

fn value(to: &mut Object<'_>, name: &str, value: Option<&Value>) {
    if let Some(value) = value {
        json::value(to.field(name), value);
    }
}

/// JSON text as its producer wrote it: it was found valid when it came in.
fn exact(to: &mut Object<'_>, name: &str, text: &str) {
    to.field(name).extend_from_slice(text.as_bytes());
}
