//! The events behind the examples, as their producers emit them.

use emitter::proto::v1::{
    self, PatchOp, PatchOperation, agent_completed, event::Payload, tool_completed, tool_executing,
};
use prost_types::{Duration, Struct, Timestamp, Value, value::Kind};
use serde_json::json;

/// One event after the other, each with its time in milliseconds from the beginning.
pub(super) fn events() -> Vec<(u64, v1::Event)> {
    let of_r1 = |(millis, id, payload)| (millis, event("r1", id, payload));
    let mut all = vec![(123, started())];
    all.extend([(600, thinking())]);
    all.extend(tools().into_iter().map(of_r1));
    all.extend(words().into_iter().map(of_r1));
    all.extend(sub_agent());
    all.push((9_300, presence()));
    all.push(of_r1((9_900, "e19", completed())));
    all.extend(failing_run());
    all.extend(asking_run());
    all
}

/// A run with three deltas of one message.
pub(super) fn deltas() -> Vec<(u64, v1::Event)> {
    let pieces = [
        (8_100, "d1", "The "),
        (8_200, "d2", "brown "),
        (8_300, "d3", "ones fit."),
    ];
    let delta = |(millis, id, text)| (millis, event("r1", id, text_delta(text)));
    let mut all = vec![(123, started())];
    all.extend(pieces.map(delta));
    all
}

/// An event without a run that no example shows.
pub(super) fn note(id: &str) -> v1::Event {
    event("", id, custom("note", json!({})))
}

fn event(run: &str, id: &str, payload: Payload) -> v1::Event {
    v1::Event {
        event_id: id.into(),
        user_id: "u1".into(),
        run_id: run.into(),
        payload: Some(payload),
        ..Default::default()
    }
}

fn started() -> v1::Event {
    let payload = Payload::AgentStarted(v1::AgentStarted {
        message: "Looking into it".into(),
        agent_type: "research".into(),
        silence_timeout: millis(600_000.0),
    });
    v1::Event {
        thread_id: "t1".into(),
        agent_name: "researcher".into(),
        occurred_at: Some(Timestamp {
            seconds: 1_795_255_200,
            nanos: 118_000_000,
        }),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        labels: [("channel".into(), "web".into())].into(),
        ..event("r1", "e1", payload)
    }
}

fn thinking() -> v1::Event {
    let payload = Payload::AgentThinking(v1::AgentThinking {
        reasoning: "The catalogue knows.".into(),
        step_number: Some(1),
        total_steps: Some(3),
        progress_percentage: Some(12.5),
        message_id: "th0".into(),
    });
    v1::Event {
        usage: Some(v1::Usage {
            provider: "acme".into(),
            model: "large-2".into(),
            input_tokens: 812,
            output_tokens: 64,
            cached_input_tokens: 512,
            reasoning_tokens: 0,
            cost_nano_usd: Some(1_450_000),
            ..Default::default()
        }),
        ..event("r1", "e2", payload)
    }
}

type Told = (u64, &'static str, Payload);

fn tools() -> [Told; 6] {
    let delta = Payload::ThinkingDelta(v1::ThinkingDelta {
        message_id: "th1".into(),
        text: "Boots, ".into(),
    });
    let search = Payload::ToolExecuting(v1::ToolExecuting {
        tool_call_id: "c1".into(),
        tool_name: "search".into(),
        description: "Searches the catalogue".into(),
        input: Some(tool_executing::Input::Parameters(structure(
            json!({"query": "boots", "limit": 3, "api_key": "sk-17"}),
        ))),
        ..Default::default()
    });
    let progress = Payload::ToolProgress(v1::ToolProgress {
        tool_call_id: "c1".into(),
        fraction: Some(0.5),
        message: "page 2 of 4".into(),
        ..Default::default()
    });
    let found = Payload::ToolCompleted(v1::ToolCompleted {
        tool_call_id: "c1".into(),
        tool_name: "search".into(),
        execution_time: millis(118.0),
        output: Some(tool_completed::Output::Result(value(json!({"hits": 3})))),
        ..Default::default()
    });
    let failed = Payload::ToolCompleted(v1::ToolCompleted {
        tool_call_id: "c2".into(),
        tool_name: "fetch".into(),
        error: "not found".into(),
        execution_time: millis(96.25),
        ..Default::default()
    });
    [
        (900, "e3", delta),
        (1_480, "e4", search),
        (1_530, "e5", progress),
        (1_598, "e6", found),
        (2_003, "e7", executing("c2", "fetch")),
        (2_100, "e8", failed),
    ]
}

fn words() -> [Told; 7] {
    let waiting = Payload::AgentWaiting(v1::AgentWaiting {
        reason: "approval".into(),
        prompt: "Which colour?".into(),
        max_wait: millis(3_600_000.0),
        ..Default::default()
    });
    let message = Payload::Message(v1::Message {
        message_id: "m1".into(),
        role: "assistant".into(),
        text: "The brown ones fit.".into(),
    });
    let snapshot = Payload::StateSnapshot(v1::StateSnapshot {
        snapshot: Some(value(json!({"cart": [], "total": null}))),
    });
    let operations = vec![
        operation(PatchOp::Test, "/total", "", Some(json!(null))),
        operation(PatchOp::Add, "/cart/0", "", Some(json!({"sku": "b-17"}))),
        operation(PatchOp::Replace, "/total", "", Some(json!(89.5))),
        operation(PatchOp::Copy, "/last", "/cart/0", None),
        operation(PatchOp::Move, "/first", "/last", None),
        operation(PatchOp::Remove, "/first", "", None),
    ];
    let change = Payload::StateDelta(v1::StateDelta { operations });
    [
        (2_200, "e9", waiting),
        (8_000, "e10", text_delta("The brown ")),
        (8_400, "e11", message),
        (8_500, "e12", snapshot),
        (8_600, "e13", change),
        (8_700, "e14", custom("cart.updated", json!({"items": 1}))),
        (9_000, "e15", executing("c3", "order")),
    ]
}

/// It waits, and ends with its parent.
fn sub_agent() -> [(u64, v1::Event); 2] {
    let started = v1::Event {
        agent_name: "checker".into(),
        parent_run_id: "r1".into(),
        ..event(
            "r2",
            "e16",
            Payload::AgentStarted(v1::AgentStarted::default()),
        )
    };
    let waiting = Payload::AgentWaiting(v1::AgentWaiting::default());
    [(9_100, started), (9_100, event("r2", "e17", waiting))]
}

fn presence() -> v1::Event {
    event("", "e18", custom("presence", json!({"online": true})))
}

fn completed() -> Payload {
    Payload::AgentCompleted(v1::AgentCompleted {
        message: "Done".into(),
        execution_time: millis(9_777.0),
        output: Some(agent_completed::Output::ResultJson(
            r#"{"sku": "b-17"}"#.into(),
        )),
    })
}

fn failing_run() -> [(u64, v1::Event); 2] {
    let started = v1::Event {
        agent_name: "writer".into(),
        ..event(
            "r3",
            "e20",
            Payload::AgentStarted(v1::AgentStarted::default()),
        )
    };
    let failed = Payload::AgentFailed(v1::AgentFailed {
        code: "RATE_LIMITED".into(),
        message: "The model is busy".into(),
        retryable: Some(true),
    });
    // Its trace context is invalid and does not refuse it.
    let failed = v1::Event {
        traceparent: format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
        ..event("r3", "e21", failed)
    };
    [(11_000, started), (12_000, failed)]
}

/// It asks a person beside a tool call, and goes on.
fn asking_run() -> [(u64, v1::Event); 4] {
    let started = v1::Event {
        agent_name: "writer".into(),
        ..event(
            "r4",
            "e22",
            Payload::AgentStarted(v1::AgentStarted::default()),
        )
    };
    let waiting = Payload::AgentWaiting(v1::AgentWaiting {
        wait_id: "w1".into(),
        tool_call_id: "c1".into(),
        kind: "approval".into(),
        prompt: "Send it?".into(),
        choices: vec!["yes".into(), "no".into()],
        max_wait: millis(3_600_000.0),
        ..Default::default()
    });
    let resumed = Payload::AgentResumed(v1::AgentResumed {
        wait_id: "w1".into(),
    });
    [
        (13_000, started),
        (13_100, event("r4", "e23", executing("c1", "send"))),
        (13_200, event("r4", "e24", waiting)),
        (14_000, event("r4", "e25", resumed)),
    ]
}

fn executing(call: &str, tool: &str) -> Payload {
    Payload::ToolExecuting(v1::ToolExecuting {
        tool_call_id: call.into(),
        tool_name: tool.into(),
        ..Default::default()
    })
}

fn text_delta(text: &str) -> Payload {
    Payload::TextDelta(v1::TextDelta {
        message_id: "m1".into(),
        role: "assistant".into(),
        text: text.into(),
    })
}

fn custom(name: &str, data: serde_json::Value) -> Payload {
    Payload::Custom(v1::Custom {
        name: name.into(),
        data: Some(structure(data)),
    })
}

fn operation(
    op: PatchOp,
    path: &str,
    from: &str,
    operand: Option<serde_json::Value>,
) -> PatchOperation {
    PatchOperation {
        op: op.into(),
        path: path.into(),
        from: from.into(),
        value: operand.map(value),
    }
}

fn millis(millis: f64) -> Option<Duration> {
    let span = std::time::Duration::from_secs_f64(millis / 1000.0);
    Some(span.try_into().unwrap())
}

fn structure(json: serde_json::Value) -> Struct {
    match value(json).kind {
        Some(Kind::StructValue(fields)) => fields,
        other => panic!("no object: {other:?}"),
    }
}

fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value {
            kind: Some(Kind::NullValue(0)),
        },
        Json::Bool(truth) => truth.into(),
        Json::Number(number) => number.as_f64().unwrap().into(),
        Json::String(text) => text.into(),
        Json::Array(items) => items.into_iter().map(value).collect::<Vec<_>>().into(),
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(name, field)| (name, value(field)));
            Kind::StructValue(Struct {
                fields: fields.collect(),
            })
            .into()
        }
    }
}
