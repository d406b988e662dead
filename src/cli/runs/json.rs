//! Runs for a script: the messages of the contract as JSON in snake_case. What is empty is left out.

use prost_types::{Duration, Timestamp};
use serde_json::{Map, Value};

use super::words;
use crate::proto::v1::{
    Acknowledgement, Adjustment, Connection, Cost, CostBasis, GetRunResponse, ModelUsage,
    OpenToolCall, OpenWait, Position, Run, Source, SourceRefusal, TimelineItem, Transport, Usage,
    UsageTotals,
};

/// A run as it stands.
pub(super) fn run(run: &Run) -> Value {
    Object::new()
        .text("tenant_id", &run.tenant_id)
        .text("user_id", &run.user_id)
        .text("run_id", &run.run_id)
        .text("thread_id", &run.thread_id)
        .text("agent_name", &run.agent_name)
        .text("parent_run_id", &run.parent_run_id)
        .with("state", words::state(run.state))
        .time("started_at", run.started_at.as_ref())
        .time("last_event_at", run.last_event_at.as_ref())
        .with("run_sequence", run.run_sequence)
        .maybe("source", run.source.as_ref().map(source))
        .list("open_tool_calls", &run.open_tool_calls, open_tool_call)
        .list("open_waits", &run.open_waits, open_wait)
        .maybe("usage", run.usage.as_ref().map(totals))
        .time("silent_until", run.silent_until.as_ref())
        .maybe("recovered", run.recovered.then_some(Value::Bool(true)))
        .end()
}

/// A run, whole.
pub(super) fn whole(shown: &GetRunResponse, below: &[Run]) -> Value {
    let delivery = shown.delivery.as_ref().map(|delivery| {
        Object::new()
            .maybe("stored_up_to", delivery.stored_up_to.as_ref().map(position))
            .list("connections", &delivery.connections, connection)
            .list(
                "acknowledgements",
                &delivery.acknowledgements,
                acknowledgement,
            )
            .end()
    });
    Object::new()
        .maybe("run", shown.run.as_ref().map(run))
        .list("timeline", &shown.timeline, item)
        .with("timeline_truncated", shown.timeline_truncated)
        .list("usage", &shown.usage, model_usage)
        .list("source_refusals", &shown.source_refusals, source_refusal)
        .maybe("delivery", delivery)
        .list("open_children", &shown.open_children, |id| {
            Value::from(id.as_str())
        })
        .list("sub_agents", below, run)
        .end()
}

fn item(item: &TimelineItem) -> Value {
    Object::new()
        .maybe("position", item.position.as_ref().map(position))
        .with("run_sequence", item.run_sequence)
        .time("recorded_at", item.recorded_at.as_ref())
        .text("type", &item.r#type)
        .text("text", &item.text)
        .text("tool_call_id", &item.tool_call_id)
        .maybe("call_sequence", item.call_sequence.map(Value::from))
        .text("tool_name", &item.tool_name)
        .maybe("duration_ms", item.duration.as_ref().and_then(millis))
        .maybe("step_number", item.step_number.map(Value::from))
        .maybe("source", item.source.as_ref().map(source))
        .text("violation", &item.violation)
        .maybe("usage", item.usage.as_ref().map(usage))
        .maybe("cost", item.cost.as_ref().map(cost))
        .text("message_id", &item.message_id)
        .text("role", &item.role)
        .list("adjustments", &item.adjustments, adjustment)
        .end()
}

/// What the service changed of an event.
pub(in crate::cli) fn adjustment(adjustment: &Adjustment) -> Value {
    Object::new()
        .text("field", &adjustment.field)
        .text("action", words::adjustment(adjustment.action()))
        .text("reason", &adjustment.reason)
        .end()
}

fn open_tool_call(call: &OpenToolCall) -> Value {
    Object::new()
        .text("tool_call_id", &call.tool_call_id)
        .maybe(
            "call_sequence",
            (call.call_sequence > 0).then(|| call.call_sequence.into()),
        )
        .text("tool_name", &call.tool_name)
        .time("started_at", call.started_at.as_ref())
        .end()
}

fn open_wait(wait: &OpenWait) -> Value {
    Object::new()
        .text("wait_id", &wait.wait_id)
        .text("tool_call_id", &wait.tool_call_id)
        .text("kind", &wait.kind)
        .with("run_sequence", wait.run_sequence)
        .time("started_at", wait.started_at.as_ref())
        .time("expires_at", wait.expires_at.as_ref())
        .end()
}

fn source(source: &Source) -> Value {
    Object::new()
        .text("producer_id", &source.producer_id)
        .with("term", source.term)
        .end()
}

fn usage(usage: &Usage) -> Value {
    Object::new()
        .text("provider", &usage.provider)
        .text("model", &usage.model)
        .with("input_tokens", usage.input_tokens)
        .with("output_tokens", usage.output_tokens)
        .with("cached_input_tokens", usage.cached_input_tokens)
        .with("cache_write_input_tokens", usage.cache_write_input_tokens)
        .with(
            "cache_write_1h_input_tokens",
            usage.cache_write_1h_input_tokens,
        )
        .with("reasoning_tokens", usage.reasoning_tokens)
        .maybe("cost_nano_usd", usage.cost_nano_usd.map(Value::from))
        .end()
}

fn cost(cost: &Cost) -> Value {
    let basis = match cost.basis() {
        CostBasis::Stated => "stated",
        CostBasis::Priced => "priced",
        CostBasis::Unpriced => "unpriced",
        CostBasis::Unspecified => "",
    };
    Object::new()
        .with("nano_usd", cost.nano_usd)
        .text("basis", basis)
        .end()
}

fn totals(totals: &UsageTotals) -> Value {
    Object::new()
        .with("events", totals.events)
        .with("input_tokens", totals.input_tokens)
        .with("output_tokens", totals.output_tokens)
        .with("cached_input_tokens", totals.cached_input_tokens)
        .with("cache_write_input_tokens", totals.cache_write_input_tokens)
        .with(
            "cache_write_1h_input_tokens",
            totals.cache_write_1h_input_tokens,
        )
        .with("reasoning_tokens", totals.reasoning_tokens)
        .with("cost_nano_usd", totals.cost_nano_usd)
        .with("unpriced_events", totals.unpriced_events)
        .end()
}

fn model_usage(of_model: &ModelUsage) -> Value {
    Object::new()
        .text("provider", &of_model.provider)
        .text("model", &of_model.model)
        .maybe("totals", of_model.totals.as_ref().map(totals))
        .end()
}

pub(in crate::cli) fn source_refusal(refused: &SourceRefusal) -> Value {
    Object::new()
        .text("tenant_id", &refused.tenant_id)
        .text("user_id", &refused.user_id)
        .text("run_id", &refused.run_id)
        .maybe("owner", refused.owner.as_ref().map(source))
        .maybe("refused", refused.refused.as_ref().map(source))
        .text("reason", &refused.reason)
        .with("count", refused.count)
        .time("first_at", refused.first_at.as_ref())
        .time("last_at", refused.last_at.as_ref())
        .end()
}

pub(in crate::cli) fn connection(reader: &Connection) -> Value {
    let transport = match reader.transport() {
        Transport::Websocket => "websocket",
        Transport::Sse => "sse",
        Transport::Grpc => "grpc",
        Transport::Unspecified => "",
    };
    Object::new()
        .text("connection_id", &reader.connection_id)
        .text("tenant_id", &reader.tenant_id)
        .text("user_id", &reader.user_id)
        .text("client_id", &reader.client_id)
        .text("transport", transport)
        .time("connected_at", reader.connected_at.as_ref())
        .maybe("position", reader.position.as_ref().map(position))
        .end()
}

fn acknowledgement(ack: &Acknowledgement) -> Value {
    Object::new()
        .text("client_id", &ack.client_id)
        .maybe("position", ack.position.as_ref().map(position))
        .time("acknowledged_at", ack.acknowledged_at.as_ref())
        .with("covers_run", ack.covers_run)
        .end()
}

/// `<epoch>-<offset>`, as readers hand it back.
fn position(position: &Position) -> Value {
    Value::from(format!("{}-{}", position.epoch, position.offset))
}

fn millis(span: &Duration) -> Option<Value> {
    let span = std::time::Duration::try_from(*span).ok()?;
    u64::try_from(span.as_millis()).ok().map(Value::from)
}

/// A JSON object under construction.
struct Object(Map<String, Value>);

impl Object {
    fn new() -> Self {
        Self(Map::new())
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn maybe(self, name: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn text(self, name: &str, text: &str) -> Self {
        self.maybe(name, (!text.is_empty()).then(|| text.into()))
    }

    fn time(self, name: &str, at: Option<&Timestamp>) -> Self {
        self.maybe(name, at.map(|at| at.to_string().into()))
    }

    /// A list, which is there even when it is empty.
    fn list<T>(self, name: &str, items: &[T], value: impl Fn(&T) -> Value) -> Self {
        self.with(name, items.iter().map(value).collect::<Vec<_>>())
    }

    fn end(self) -> Value {
        Value::Object(self.0)
    }
}
