//! The `payload` of an event, arm by arm.

mod exact;

use prost_types::Duration;
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::value::RawValue;

use crate::proto::v1::{
    AgentCancelled, AgentCompleted, AgentFailed, AgentResumed, AgentStarted, AgentThinking,
    AgentWaiting, Custom, Message, PatchOp, PatchOperation, StateDelta, StateSnapshot, TextDelta,
    ThinkingDelta, ToolCompleted, ToolExecuting, ToolProgress, ToolStatus, agent_completed,
    event::Payload, tool_completed, tool_executing,
};

/// Reads the payload of an event of the type `kind` from the JSON object `text`. A type that is no arm's is a custom
/// one.
pub(super) fn read(kind: &str, text: &str) -> Result<Payload, String> {
    Ok(match kind {
        "agent_started" => Payload::AgentStarted(parse::<Started>(text)?.into()),
        "agent_thinking" => Payload::AgentThinking(parse::<Thinking>(text)?.into()),
        "thinking_delta" => Payload::ThinkingDelta(parse::<Text>(text)?.into_thinking_delta()?),
        "tool_executing" => Payload::ToolExecuting(parse::<Executing>(text)?.into()),
        "tool_completed" => Payload::ToolCompleted(parse::<Completed>(text)?.into()),
        "tool_progress" => Payload::ToolProgress(parse::<Progress>(text)?.into()),
        "agent_completed" => Payload::AgentCompleted(parse::<Done>(text)?.into()),
        "agent_failed" => Payload::AgentFailed(parse::<Failed>(text)?.into()),
        "agent_cancelled" => Payload::AgentCancelled(parse::<Cancelled>(text)?.into()),
        "agent_waiting" => Payload::AgentWaiting(parse::<Waiting>(text)?.into()),
        "agent_resumed" => Payload::AgentResumed(parse::<Resumed>(text)?.into()),
        "text_delta" => Payload::TextDelta(parse::<Text>(text)?.into_text_delta()),
        "message" => Payload::Message(parse::<Text>(text)?.into_message()),
        "state_snapshot" => Payload::StateSnapshot(parse::<Snapshot>(text)?.try_into()?),
        "state_delta" => Payload::StateDelta(parse::<Delta>(text)?.try_into()?),
        name => Payload::Custom(Custom {
            name: name.to_owned(),
            data: Some(exact::structure(text)?),
        }),
    })
}

/// Removes the number of the tool call that `payload` is about; its `tool_call_id` stays.
pub(super) fn forget_call(payload: &mut Payload) {
    match payload {
        Payload::ToolCompleted(tool) => tool.call_sequence = None,
        Payload::ToolProgress(tool) => tool.call_sequence = None,
        _ => {}
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The JSON text of `value`.
fn twin(value: Option<Box<RawValue>>) -> Option<String> {
    value.map(|value| value.get().to_owned())
}

/// Milliseconds as a duration, to the nanosecond. What is negative stays so, for the server to refuse.
fn millis(millis: Option<f64>) -> Option<Duration> {
    const NANOS_PER_SECOND: i128 = 1_000_000_000;
    let nanos = (millis? * 1e6).round() as i128;
    let seconds = i64::try_from(nanos / NANOS_PER_SECOND).unwrap_or(i64::MAX);
    let nanos = i32::try_from(nanos % NANOS_PER_SECOND).unwrap_or(0);
    Some(Duration { seconds, nanos })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Started {
    #[serde(default)]
    message: String,
    #[serde(default)]
    agent_type: String,
    silence_timeout_ms: Option<f64>,
}

impl From<Started> for AgentStarted {
    fn from(p: Started) -> Self {
        Self {
            message: p.message,
            agent_type: p.agent_type,
            silence_timeout: millis(p.silence_timeout_ms),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thinking {
    #[serde(default)]
    reasoning: String,
    step_number: Option<u32>,
    total_steps: Option<u32>,
    progress_percentage: Option<f64>,
    #[serde(default)]
    message_id: String,
}

impl From<Thinking> for AgentThinking {
    fn from(p: Thinking) -> Self {
        Self {
            reasoning: p.reasoning,
            step_number: p.step_number,
            total_steps: p.total_steps,
            progress_percentage: p.progress_percentage,
            message_id: p.message_id,
        }
    }
}

/// A message or a piece of one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    message_id: String,
    role: Option<String>,
    #[serde(default)]
    text: String,
}

impl Text {
    fn into_thinking_delta(self) -> Result<ThinkingDelta, String> {
        if self.role.is_some() {
            return Err("unknown field `role`, expected `message_id` or `text`".into());
        }
        Ok(ThinkingDelta {
            message_id: self.message_id,
            text: self.text,
        })
    }

    fn into_text_delta(self) -> TextDelta {
        TextDelta {
            message_id: self.message_id,
            role: self.role.unwrap_or_default(),
            text: self.text,
        }
    }

    fn into_message(self) -> Message {
        Message {
            message_id: self.message_id,
            role: self.role.unwrap_or_default(),
            text: self.text,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Executing {
    #[serde(default)]
    tool_call_id: String,
    #[serde(default)]
    tool_name: String,
    #[serde(default)]
    description: String,
    parameters: Option<Box<RawValue>>,
    /// The server assigns it.
    #[serde(rename = "call_sequence")]
    _call_sequence: Option<IgnoredAny>,
}

impl From<Executing> for ToolExecuting {
    fn from(p: Executing) -> Self {
        Self {
            tool_call_id: p.tool_call_id,
            tool_name: p.tool_name,
            description: p.description,
            input: twin(p.parameters).map(tool_executing::Input::ParametersJson),
            ..Default::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Succeeded,
    Failed,
    Cancelled,
    Denied,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Completed {
    #[serde(default)]
    tool_call_id: String,
    #[serde(default)]
    tool_name: String,
    call_sequence: Option<u64>,
    status: Option<Status>,
    #[serde(default)]
    error: String,
    execution_time_ms: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
}

impl From<Completed> for ToolCompleted {
    fn from(p: Completed) -> Self {
        let status = match p.status {
            None => ToolStatus::Unspecified,
            Some(Status::Succeeded) => ToolStatus::Succeeded,
            Some(Status::Failed) => ToolStatus::Failed,
            Some(Status::Cancelled) => ToolStatus::Cancelled,
            Some(Status::Denied) => ToolStatus::Denied,
        };
        Self {
            tool_call_id: p.tool_call_id,
            tool_name: p.tool_name,
            status: status.into(),
            error: p.error,
            execution_time: millis(p.execution_time_ms),
            output: twin(p.result).map(tool_completed::Output::ResultJson),
            call_sequence: p.call_sequence,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    #[serde(default)]
    tool_call_id: String,
    call_sequence: Option<u64>,
    fraction: Option<f64>,
    #[serde(default)]
    message: String,
}

impl From<Progress> for ToolProgress {
    fn from(p: Progress) -> Self {
        Self {
            tool_call_id: p.tool_call_id,
            fraction: p.fraction,
            message: p.message,
            call_sequence: p.call_sequence,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    #[serde(default)]
    message: String,
    execution_time_ms: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
}

impl From<Done> for AgentCompleted {
    fn from(p: Done) -> Self {
        Self {
            message: p.message,
            execution_time: millis(p.execution_time_ms),
            output: twin(p.result).map(agent_completed::Output::ResultJson),
        }
    }
}

/// A value that is there is kept, also when it is null.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(value).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    retryable: Option<bool>,
}

impl From<Failed> for AgentFailed {
    fn from(p: Failed) -> Self {
        Self {
            code: p.code,
            message: p.message,
            retryable: p.retryable,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancelled {
    #[serde(default)]
    reason: String,
}

impl From<Cancelled> for AgentCancelled {
    fn from(p: Cancelled) -> Self {
        Self { reason: p.reason }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    #[serde(default)]
    wait_id: String,
    #[serde(default)]
    tool_call_id: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    choices: Vec<String>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    prompt: String,
    max_wait_ms: Option<f64>,
}

impl From<Waiting> for AgentWaiting {
    fn from(p: Waiting) -> Self {
        Self {
            reason: p.reason,
            prompt: p.prompt,
            max_wait: millis(p.max_wait_ms),
            wait_id: p.wait_id,
            tool_call_id: p.tool_call_id,
            kind: p.kind,
            choices: p.choices,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resumed {
    #[serde(default)]
    wait_id: String,
}

impl From<Resumed> for AgentResumed {
    fn from(p: Resumed) -> Self {
        Self { wait_id: p.wait_id }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    snapshot: Box<RawValue>,
}

impl TryFrom<Snapshot> for StateSnapshot {
    type Error = String;

    fn try_from(p: Snapshot) -> Result<Self, String> {
        Ok(Self {
            snapshot: Some(exact::value(p.snapshot.get())?),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delta {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: Op,
    path: String,
    #[serde(default)]
    from: String,
    #[serde(default, deserialize_with = "present")]
    value: Option<Box<RawValue>>,
}

impl TryFrom<Delta> for StateDelta {
    type Error = String;

    fn try_from(p: Delta) -> Result<Self, String> {
        let operations = p.operations.into_iter().map(PatchOperation::try_from);
        Ok(Self {
            operations: operations.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<Operation> for PatchOperation {
    type Error = String;

    fn try_from(p: Operation) -> Result<Self, String> {
        let op = match p.op {
            Op::Add => PatchOp::Add,
            Op::Remove => PatchOp::Remove,
            Op::Replace => PatchOp::Replace,
            Op::Move => PatchOp::Move,
            Op::Copy => PatchOp::Copy,
            Op::Test => PatchOp::Test,
        };
        Ok(Self {
            op: op.into(),
            path: p.path,
            from: p.from,
            value: p.value.map(|text| exact::value(text.get())).transpose()?,
        })
    }
}
