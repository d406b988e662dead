//! What breaks a rule beside an event does not refuse it: what is stored instead, as readers, receipts and operators see it.

use std::collections::BTreeMap;

use emitter::proto::v1::{
    self, AdjustmentAction as Action, AgentCompleted, AgentFailed, GetRunRequest, RecordedEvent,
    ToolCompleted, ToolStatus, agent_completed, emitter_operator_client::EmitterOperatorClient,
    event::Payload, subscribe_response::Item, tool_completed,
};
use prost_types::{Duration, Timestamp, Value, value::Kind};
use serde_json::json;

use super::{
    server::Server,
    wire::{self, Grpc, Socket},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// One event as its producer sends it, as it is stored, and what was changed.
struct Case {
    sent: v1::Event,
    stored: v1::Event,
    changes: &'static [(&'static str, Action)],
}

/// A case in which `sent` makes one event of a plain one, and `stored` the other.
fn case(
    plain: &dyn Fn() -> v1::Event,
    sent: impl FnOnce(&mut v1::Event),
    stored: impl FnOnce(&mut v1::Event),
    changes: &'static [(&'static str, Action)],
) -> Case {
    let (mut before, mut after) = (plain(), plain());
    sent(&mut before);
    stored(&mut after);
    Case {
        sent: before,
        stored: after,
        changes,
    }
}

fn of(payload: Payload) -> v1::Event {
    v1::Event {
        user_id: "u1".into(),
        agent_name: "researcher".into(),
        payload: Some(payload),
        ..Default::default()
    }
}

fn completed(output: Option<agent_completed::Output>) -> v1::Event {
    of(Payload::AgentCompleted(AgentCompleted {
        message: "done".into(),
        execution_time: None,
        output,
    }))
}

fn result(value: Value) -> v1::Event {
    completed(Some(agent_completed::Output::Result(value)))
}

fn result_json(text: &str) -> v1::Event {
    completed(Some(agent_completed::Output::ResultJson(text.into())))
}

fn took(seconds: i64, nanos: i32) -> v1::Event {
    of(Payload::AgentCompleted(AgentCompleted {
        execution_time: Some(Duration { seconds, nanos }),
        ..Default::default()
    }))
}

fn failed(code: &str, message: &str) -> v1::Event {
    of(Payload::AgentFailed(AgentFailed {
        code: code.into(),
        message: message.into(),
        retryable: None,
    }))
}

fn cancelled(reason: &str) -> v1::Event {
    of(Payload::AgentCancelled(v1::AgentCancelled {
        reason: reason.into(),
    }))
}

fn tool(change: impl FnOnce(&mut ToolCompleted)) -> v1::Event {
    let mut tool = ToolCompleted {
        tool_call_id: "c1".into(),
        tool_name: "search".into(),
        status: ToolStatus::Succeeded.into(),
        ..Default::default()
    };
    change(&mut tool);
    of(Payload::ToolCompleted(tool))
}

fn null() -> Value {
    Value {
        kind: Some(Kind::NullValue(0)),
    }
}

fn list(values: Vec<Value>) -> Value {
    Value::from(values)
}

/// Changes beside the payload, on an event that ends its run.
fn beside() -> Vec<Case> {
    let end = || completed(None);
    let zeros = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
    let labels = |count: usize| -> BTreeMap<String, String> {
        (0..count)
            .map(|n| (format!("k{n:02}"), "v".into()))
            .collect()
    };
    vec![
        case(
            &end,
            |e| e.traceparent = zeros,
            |_| {},
            &[("traceparent", Action::Dropped)],
        ),
        case(
            &end,
            |e| e.traceparent = PARENT.replacen("00", "01", 1),
            |e| e.traceparent = PARENT.into(),
            &[("traceparent", Action::Corrected)],
        ),
        case(
            &end,
            |e| {
                e.traceparent = PARENT.into();
                e.tracestate = "key=value,".repeat(60);
            },
            |e| {
                e.traceparent = PARENT.into();
                e.tracestate = "key=value,".repeat(51)[..509].into();
            },
            &[("tracestate", Action::Truncated)],
        ),
        case(
            &end,
            |e| {
                e.occurred_at = Some(Timestamp {
                    seconds: 0,
                    nanos: -1,
                })
            },
            |_| {},
            &[("occurred_at", Action::Dropped)],
        ),
        case(
            &end,
            |e| e.labels = labels(40),
            |e| e.labels = labels(32),
            &[("labels", Action::Dropped)],
        ),
        case(
            &end,
            |e| e.labels = [("k".into(), "v".repeat(257))].into(),
            |_| {},
            &[("labels.k", Action::Dropped)],
        ),
        case(
            &end,
            |e| {
                e.usage = Some(v1::Usage {
                    model: "m".repeat(129),
                    input_tokens: u64::MAX,
                    ..Default::default()
                });
            },
            |e| {
                e.usage = Some(v1::Usage {
                    model: "m".repeat(128),
                    input_tokens: (1 << 53) - 1,
                    ..Default::default()
                });
            },
            &[
                ("usage.model", Action::Truncated),
                ("usage.input_tokens", Action::Clamped),
            ],
        ),
    ]
}

/// What stands in the payloads of the arms that end a run or a tool call.
fn payloads() -> Vec<Case> {
    let arm = |sent, stored, changes| Case {
        sent,
        stored,
        changes,
    };
    let (nan, long) = (Value::from(f64::NAN), "x".repeat(100_000));
    let tool_result = |value| tool(|t| t.output = Some(tool_completed::Output::Result(value)));
    let tool_json = |text: &str| {
        let output = tool_completed::Output::ResultJson(text.into());
        tool(|t| t.output = Some(output))
    };
    let tool_took = |seconds, nanos| tool(|t| t.execution_time = Some(Duration { seconds, nanos }));
    vec![
        arm(
            took(0, -3_000_000),
            took(0, 0),
            &[("agent_completed.execution_time", Action::Clamped)],
        ),
        arm(
            result(list(vec![Value::from(1.0), nan.clone()])),
            result(list(vec![Value::from(1.0), null()])),
            &[("agent_completed.result[1]", Action::Nulled)],
        ),
        arm(
            result_json("{\"a\":NaN}"),
            result_json("null"),
            &[("agent_completed.result_json", Action::Nulled)],
        ),
        arm(
            result(list(vec![null(); 40_000])),
            result(null()),
            &[("agent_completed.result", Action::Nulled)],
        ),
        arm(
            failed(&"c".repeat(129), "no"),
            failed(&"c".repeat(128), "no"),
            &[("agent_failed.code", Action::Truncated)],
        ),
        arm(
            failed("rate\nlimited", "no"),
            failed("rate limited", "no"),
            &[("agent_failed.code", Action::Corrected)],
        ),
        arm(
            failed("E", &long),
            // The text that is left is as long as fits.
            failed("E", ""),
            &[("agent_failed.message", Action::Truncated)],
        ),
        arm(
            cancelled(&long),
            cancelled(""),
            &[("agent_cancelled.reason", Action::Truncated)],
        ),
        arm(
            tool_took(-1, 0),
            tool_took(0, 0),
            &[("tool_completed.execution_time", Action::Clamped)],
        ),
        arm(
            tool_result(nan),
            tool_result(null()),
            &[("tool_completed.result", Action::Nulled)],
        ),
        arm(
            tool_json("[1"),
            tool_json("null"),
            &[("tool_completed.result_json", Action::Nulled)],
        ),
        arm(
            tool(|t| t.status = 99),
            tool(|_| {}),
            &[("tool_completed.status", Action::Dropped)],
        ),
        arm(
            tool(|t| t.tool_name = "n".repeat(129)),
            tool(|t| t.tool_name.clear()),
            &[("tool_completed.tool_name", Action::Dropped)],
        ),
    ]
}

/// The text that an end of a run says to the person, taken out.
fn take_words(event: &mut v1::Event) -> String {
    match &mut event.payload {
        Some(Payload::AgentFailed(p)) => std::mem::take(&mut p.message),
        Some(Payload::AgentCancelled(p)) => std::mem::take(&mut p.reason),
        _ => String::new(),
    }
}

fn changes(adjustments: &[v1::Adjustment]) -> Vec<(&str, Action)> {
    let change = |a: &v1::Adjustment| a.action();
    adjustments
        .iter()
        .map(|a| (a.field.as_str(), change(a)))
        .collect()
}

#[tokio::test]
async fn side_data_never_refuses_the_end_of_a_run_or_a_tool_call() {
    let server = Server::start().await;
    let token = server.token("agents", "emit");
    let reading = server.token("u1", "subscribe");
    let mut client = wire::emitter(server.grpc).await;
    let request = v1::SubscribeRequest::default();
    let mut reader = Grpc::open(&server, &reading, request).await;
    reader.established().await;
    for (n, case) in beside().into_iter().chain(payloads()).enumerate() {
        let run = format!("r{n}");
        let tool = Payload::ToolExecuting(v1::ToolExecuting {
            tool_call_id: "c1".into(),
            tool_name: "search".into(),
            ..Default::default()
        });
        let begun = wire::event("u1", &run, &format!("{run}-tool"), tool);
        server
            .emit_all("agents", vec![wire::started("u1", &run), begun])
            .await;
        let sent = v1::Event {
            event_id: format!("{run}-end"),
            run_id: run.clone(),
            ..case.sent
        };
        let emit = v1::EmitRequest {
            event: Some(sent.clone()),
        };
        let answer = client.emit(wire::with_token(&token, emit)).await;
        let answer = answer.unwrap_or_else(|status| panic!("{:?}: {status}", case.changes));
        let receipt = answer.into_inner().receipt.unwrap();
        assert_eq!(changes(&receipt.adjustments), case.changes);
        assert!(receipt.adjustments.iter().all(|a| !a.reason.is_empty()));

        let recorded = end_of(&mut reader, &run).await;
        assert_eq!(recorded.adjustments, receipt.adjustments);
        let mut got = recorded.event.unwrap();
        let mut want = v1::Event {
            event_id: sent.event_id.clone(),
            run_id: run,
            ..case.stored
        };
        let (words, sent_words) = (take_words(&mut got), take_words(&mut sent.clone()));
        match sent_words.len() {
            ..=65_536 => assert_eq!(words, take_words(&mut want)),
            _ => assert!((65_000..65_536).contains(&words.len()), "{}", words.len()),
        }
        clear_call_sequence(&mut got);
        assert_eq!(got, want);

        // A retry gets the stored adjustments, in a batch as well.
        let batch = v1::EmitBatchRequest { events: vec![sent] };
        let answer = client.emit_batch(wire::with_token(&token, batch)).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(answer.adjusted_count, 1);
        let want = v1::Receipt {
            duplicate: true,
            ..receipt
        };
        let outcome = answer.results[0].outcome.clone();
        assert_eq!(outcome, Some(v1::emit_result::Outcome::Receipt(want)));
    }
    server.stop().await;
}

/// Which call an end belongs to is the server's to say.
fn clear_call_sequence(event: &mut v1::Event) {
    if let Some(Payload::ToolCompleted(tool)) = &mut event.payload {
        tool.call_sequence = None;
    }
}

/// The record of the event that ends `run` or its tool call.
async fn end_of(reader: &mut Grpc, run: &str) -> RecordedEvent {
    loop {
        if let Item::Event(recorded) = reader.next().await.unwrap() {
            let event_id = &recorded.event.as_ref().unwrap().event_id;
            if *event_id == format!("{run}-end") {
                return recorded;
            }
        }
    }
}

#[tokio::test]
async fn adjustments_reach_browsers_operators_and_metrics() {
    let server = Server::start().await;
    let labels = [("ok".into(), "v".into()), ("k\n".into(), "v".into())].into();
    let end = v1::Event {
        labels,
        event_id: "end".into(),
        run_id: "r1".into(),
        ..failed(&"c".repeat(129), "no")
    };
    let plain = wire::started("u1", "r1");
    let results = server.try_emit("agents", vec![plain, end]).await;
    println!("{results:?}");

    let reading = server.token("u1", "subscribe");
    let mut socket = Socket::connect(server.http, &reading, "from=oldest").await;
    assert_eq!(socket.event().await.get("adjustments"), None);
    let frame = socket.event().await;
    let want = json!([
        {"field": "labels[\"k\\n\"]", "action": "dropped", "reason": "has a key with a control character"},
        {"field": "agent_failed.code", "action": "truncated", "reason": "is longer than 128 characters"},
    ]);
    assert_eq!(frame["adjustments"], want);
    assert_eq!(frame["labels"], json!({"ok": "v"}));

    let url = format!("http://{}", server.grpc);
    let mut operator = EmitterOperatorClient::connect(url).await.unwrap();
    let request = GetRunRequest {
        run_id: "r1".into(),
        ..Default::default()
    };
    let operating = server.token("ops", "operate");
    let shown = operator
        .get_run(wire::with_token(&operating, request))
        .await;
    let timeline = shown.unwrap().into_inner().timeline;
    let fields = ["labels[\"k\\n\"]", "agent_failed.code"];
    let actions = [Action::Dropped, Action::Truncated];
    assert_eq!(timeline[0].adjustments, []);
    assert_eq!(
        changes(&timeline[1].adjustments),
        fields.into_iter().zip(actions).collect::<Vec<_>>()
    );
    for field in ["labels", "agent_failed"] {
        let name = format!("emitter_events_adjusted_total{{field=\"{field}\"}}");
        assert_eq!(server.metric(&name).await, 1.0, "{name}");
    }
    server.stop().await;
}
