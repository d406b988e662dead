use std::sync::Arc;

use prost_types::{Duration, Struct, Timestamp, Value};

use super::*;
use crate::{
    egress::fixtures::{body, record},
    event::{Action, Adjustment, Cost, CostBasis, Event, RunId, RunSequence},
    proto::v1::{
        PatchOp, PatchOperation, agent_completed, event::Payload, subscribe_response::Item,
        tool_completed, tool_executing,
    },
};

fn json(record: &Record) -> String {
    let bytes = Encoder::new(Encoding::Json, Counter::noop()).encode(record);
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let _is_json: serde_json::Value = serde_json::from_str(&text).unwrap();
    text
}

fn recorded(record: &Record) -> v1::RecordedEvent {
    let bytes = Encoder::new(Encoding::Proto, Counter::noop()).encode(record);
    match v1::SubscribeResponse::decode(bytes).unwrap().item {
        Some(Item::Event(recorded)) => recorded,
        other => panic!("{other:?}"),
    }
}

fn kind(wire_type: &str) -> Kind {
    Kind::typed()
        .find(|(_, name)| *name == wire_type)
        .map(|(kind, _)| kind)
        .unwrap()
}

/// What stands under `payload` in the frame of an event of `wire_type`.
fn payload_of(wire_type: &str, payload: Payload) -> String {
    let frame = json(&record(kind(wire_type), &body(payload)));
    let head = format!(
        r#"{{"type":"{wire_type}","event_id":"e1","epoch":"00000000000000ab","offset":42,"run_sequence":7,"timestamp":"2026-11-21T10:00:00.123Z","recorded_at":"2026-11-21T10:00:00.123Z","user_id":"u1","thread_id":"t1","run_id":"r1","agent_name":"researcher","payload":"#
    );
    let payload = frame
        .strip_prefix(&head)
        .unwrap_or_else(|| panic!("{frame}"));
    payload.strip_suffix('}').unwrap().to_owned()
}

fn seconds(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

fn fields(fields: &[(&str, Value)]) -> Struct {
    Struct {
        fields: fields
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect(),
    }
}

#[test]
fn adjustments_stand_in_every_encoding() {
    let mut record = record(Kind::AgentCancelled, &v1::Event::default());
    let event = Event {
        adjustments: vec![Adjustment {
            field: r#"labels["a b"]"#.into(),
            action: Action::Dropped,
            reason: "has a control character".into(),
        }]
        .into(),
        ..Event::clone(&record.draft.event)
    };
    record.draft.event = Arc::new(event);
    let frame = json(&record);
    let want = r#""adjustments":[{"field":"labels[\"a b\"]","action":"dropped","reason":"has a control character"}],"payload""#;
    assert!(frame.contains(want), "{frame}");
    let want = v1::Adjustment {
        field: r#"labels["a b"]"#.into(),
        action: v1::AdjustmentAction::Dropped.into(),
        reason: "has a control character".into(),
    };
    assert_eq!(recorded(&record).adjustments, [want]);
}

#[test]
fn every_arm_of_a_run() {
    let cases = [
        (
            "agent_started",
            Payload::AgentStarted(v1::AgentStarted {
                message: "Hi \"you\"".into(),
                agent_type: "research".into(),
                silence_timeout: seconds(90, 0),
            }),
            r#"{"message":"Hi \"you\"","agent_type":"research","silence_timeout_ms":90000}"#,
        ),
        (
            "agent_started",
            Payload::AgentStarted(v1::AgentStarted::default()),
            "{}",
        ),
        (
            "agent_thinking",
            Payload::AgentThinking(v1::AgentThinking {
                reasoning: "so".into(),
                step_number: Some(0),
                total_steps: Some(3),
                progress_percentage: Some(33.5),
                ..Default::default()
            }),
            r#"{"reasoning":"so","step_number":0,"total_steps":3,"progress_percentage":33.5}"#,
        ),
        (
            "thinking_delta",
            Payload::ThinkingDelta(v1::ThinkingDelta {
                message_id: "m1".into(),
                text: "é\n".into(),
            }),
            r#"{"message_id":"m1","text":"é\n"}"#,
        ),
        (
            "agent_completed",
            Payload::AgentCompleted(v1::AgentCompleted {
                message: "done".into(),
                execution_time: seconds(0, 1_500_000),
                output: Some(agent_completed::Output::Result(Value::from(1.0))),
            }),
            r#"{"message":"done","execution_time_ms":1.5,"result":1}"#,
        ),
        (
            "agent_failed",
            Payload::AgentFailed(v1::AgentFailed {
                code: "E".into(),
                message: "no".into(),
                retryable: Some(false),
            }),
            r#"{"code":"E","message":"no","retryable":false}"#,
        ),
        (
            "agent_cancelled",
            Payload::AgentCancelled(v1::AgentCancelled {
                reason: "user".into(),
            }),
            r#"{"reason":"user"}"#,
        ),
        (
            "agent_waiting",
            Payload::AgentWaiting(v1::AgentWaiting {
                reason: "approval".into(),
                prompt: "go?".into(),
                max_wait: seconds(604_800, 0),
                ..Default::default()
            }),
            r#"{"reason":"approval","prompt":"go?","max_wait_ms":604800000}"#,
        ),
    ];
    for (wire_type, payload, want) in cases {
        assert_eq!(payload_of(wire_type, payload), want);
    }
}

#[test]
fn every_arm_of_a_tool() {
    let executing = |input| {
        Payload::ToolExecuting(v1::ToolExecuting {
            tool_call_id: "c1".into(),
            tool_name: "search".into(),
            description: "look".into(),
            input,
            ..Default::default()
        })
    };
    let completed = |status: v1::ToolStatus, error: &str, output| {
        Payload::ToolCompleted(v1::ToolCompleted {
            tool_call_id: "c1".into(),
            tool_name: "search".into(),
            status: status.into(),
            error: error.into(),
            execution_time: seconds(0, 118_000_000),
            output,
            ..Default::default()
        })
    };
    let parameters = fields(&[("q", Value::from("x")), ("n", Value::from(10.0))]);
    let exact = r#"{ "id": 9223372036854775807, "a":1.0 }"#;
    let cases = [
        (
            "tool_executing",
            executing(Some(tool_executing::Input::Parameters(parameters))),
            r#"{"tool_call_id":"c1","tool_name":"search","description":"look","parameters":{"n":10,"q":"x"}}"#,
        ),
        (
            "tool_executing",
            executing(Some(tool_executing::Input::ParametersJson(exact.into()))),
            r#"{"tool_call_id":"c1","tool_name":"search","description":"look","parameters":{ "id": 9223372036854775807, "a":1.0 }}"#,
        ),
        (
            "tool_completed",
            completed(
                v1::ToolStatus::Succeeded,
                "",
                Some(tool_completed::Output::ResultJson(
                    "18446744073709551615".into(),
                )),
            ),
            r#"{"tool_call_id":"c1","tool_name":"search","status":"succeeded","execution_time_ms":118,"result":18446744073709551615}"#,
        ),
        (
            "tool_completed",
            completed(
                v1::ToolStatus::Unspecified,
                "",
                Some(tool_completed::Output::Result(Value { kind: None })),
            ),
            r#"{"tool_call_id":"c1","tool_name":"search","status":"succeeded","execution_time_ms":118,"result":null}"#,
        ),
        (
            "tool_completed",
            completed(v1::ToolStatus::Unspecified, "boom", None),
            r#"{"tool_call_id":"c1","tool_name":"search","status":"failed","error":"boom","execution_time_ms":118}"#,
        ),
        (
            "tool_completed",
            completed(v1::ToolStatus::Failed, "", None),
            r#"{"tool_call_id":"c1","tool_name":"search","status":"failed","execution_time_ms":118}"#,
        ),
        (
            "tool_progress",
            Payload::ToolProgress(v1::ToolProgress {
                tool_call_id: "c1".into(),
                fraction: Some(0.0),
                message: "on it".into(),
                ..Default::default()
            }),
            r#"{"tool_call_id":"c1","fraction":0,"message":"on it"}"#,
        ),
    ];
    for (wire_type, payload, want) in cases {
        assert_eq!(payload_of(wire_type, payload), want);
    }
}

#[test]
fn an_event_for_fetch_is_the_json_frame_behind_its_position() {
    let exact = "{\r\n\"id\":\r1,\n\n\"data\": \"a\\nb\"}\r\n";
    let executing = v1::ToolExecuting {
        input: Some(tool_executing::Input::ParametersJson(exact.into())),
        ..Default::default()
    };
    let record = record(
        Kind::ToolExecuting,
        &body(Payload::ToolExecuting(executing)),
    );
    let (sse, as_json) = (
        Encoder::new(Encoding::Sse, Counter::noop()),
        Encoder::new(Encoding::Json, Counter::noop()),
    );
    let event = String::from_utf8(sse.encode(&record).to_vec()).unwrap();
    let (id, rest) = event.split_once('\n').unwrap();
    assert_eq!(id, "id: 00000000000000ab-42");
    let lines = rest.strip_suffix("\n\n").unwrap().split('\n');
    let data: Vec<_> = lines
        .map(|line| {
            line.strip_prefix("data: ")
                .unwrap_or_else(|| panic!("{event:?}"))
        })
        .collect();
    let read: serde_json::Value = serde_json::from_str(&data.join("\n")).unwrap();
    let want: serde_json::Value = serde_json::from_slice(&as_json.encode(&record)).unwrap();
    assert_eq!(read, want);
    assert_ne!(sse.slot(), as_json.slot());
}

#[test]
fn every_arm_of_texts_and_state() {
    let operation = |op: PatchOp, path: &str, from: &str, value| PatchOperation {
        op: op.into(),
        path: path.into(),
        from: from.into(),
        value,
    };
    let operations = vec![
        operation(PatchOp::Add, "/a", "", Some(Value::from(1.0))),
        operation(PatchOp::Remove, "/b", "", None),
        operation(PatchOp::Replace, "", "", Some(Value { kind: None })),
        operation(PatchOp::Move, "/c", "/d", None),
        operation(PatchOp::Copy, "/e", "", None),
        operation(PatchOp::Test, "/f", "", Some(Value::from("x"))),
    ];
    let cases = [
        (
            "text_delta",
            Payload::TextDelta(v1::TextDelta {
                message_id: "m1".into(),
                role: "assistant".into(),
                text: "Hel".into(),
            }),
            r#"{"message_id":"m1","role":"assistant","text":"Hel"}"#,
        ),
        (
            "message",
            Payload::Message(v1::Message {
                message_id: "m1".into(),
                role: String::new(),
                text: "Hello".into(),
            }),
            r#"{"message_id":"m1","text":"Hello"}"#,
        ),
        (
            "state_snapshot",
            Payload::StateSnapshot(v1::StateSnapshot {
                snapshot: Some(Value::from(vec![Value::from(-0.0), Value::from(false)])),
            }),
            r#"{"snapshot":[0,false]}"#,
        ),
        (
            "state_delta",
            Payload::StateDelta(v1::StateDelta { operations }),
            r#"{"operations":[{"op":"add","path":"/a","value":1},{"op":"remove","path":"/b"},{"op":"replace","path":"","value":null},{"op":"move","path":"/c","from":"/d"},{"op":"copy","path":"/e","from":""},{"op":"test","path":"/f","value":"x"}]}"#,
        ),
    ];
    for (wire_type, payload, want) in cases {
        assert_eq!(payload_of(wire_type, payload), want);
    }
}

#[test]
fn a_custom_event_is_of_the_type_that_it_names() {
    let custom = |data| {
        body(Payload::Custom(v1::Custom {
            name: "my.type".into(),
            data,
        }))
    };
    let kind = Kind::Custom("my.type".into());
    let mut of_no_run = record(kind.clone(), &custom(None));
    of_no_run.draft.run_sequence = RunSequence(0);
    of_no_run.draft.thread_id = None;
    of_no_run.draft.agent_name = None;
    let event = Event {
        run_id: None,
        ..(*of_no_run.draft.event).clone()
    };
    of_no_run.draft.event = Arc::new(event);
    assert_eq!(
        json(&of_no_run),
        r#"{"type":"my.type","event_id":"e1","epoch":"00000000000000ab","offset":42,"timestamp":"2026-11-21T10:00:00.123Z","recorded_at":"2026-11-21T10:00:00.123Z","user_id":"u1","custom":true,"payload":{}}"#
    );
    let data = fields(&[("b", Value::from(true)), ("a", Value::from("x"))]);
    let frame = json(&record(kind, &custom(Some(data))));
    assert!(
        frame.ends_with(r#","custom":true,"payload":{"a":"x","b":true}}"#),
        "{frame}"
    );
}

/// A record with every field that an event can have.
fn full() -> Record {
    let body = v1::Event {
        occurred_at: Some(Timestamp {
            seconds: 1_795_255_199,
            nanos: 5_000,
        }),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        tracestate: "a=b".into(),
        labels: [
            ("k\"".to_owned(), "v".to_owned()),
            ("a".to_owned(), String::new()),
        ]
        .into(),
        usage: Some(v1::Usage {
            provider: "p".into(),
            model: "m".into(),
            input_tokens: 1,
            output_tokens: (1 << 53) - 1,
            cached_input_tokens: 0,
            reasoning_tokens: 2,
            cost_nano_usd: Some(0),
            cache_write_input_tokens: 4,
            cache_write_1h_input_tokens: 3,
            ..Default::default()
        }),
        ..body(Payload::AgentCancelled(v1::AgentCancelled::default()))
    };
    let mut full = record(Kind::AgentCancelled, &body);
    full.draft.parent_run_id = Some(RunId::new("r0").unwrap());
    full.draft.cost = Some(Cost {
        nano_usd: 2_000,
        basis: CostBasis::Priced,
    });
    full
}

#[test]
fn everything_at_the_top_in_its_order() {
    assert_eq!(
        json(&full()),
        r#"{"type":"agent_cancelled","event_id":"e1","epoch":"00000000000000ab","offset":42,"run_sequence":7,"timestamp":"2026-11-21T09:59:59.000005Z","recorded_at":"2026-11-21T10:00:00.123Z","user_id":"u1","thread_id":"t1","run_id":"r1","parent_run_id":"r0","agent_name":"researcher","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","labels":{"a":"","k\"":"v"},"usage":{"provider":"p","model":"m","input_tokens":1,"output_tokens":9007199254740991,"cache_write_input_tokens":4,"cache_write_1h_input_tokens":3,"reasoning_tokens":2,"cost_nano_usd":0},"cost":{"nano_usd":2000,"basis":"priced"},"payload":{}}"#
    );
}

#[test]
fn the_wire_form_decodes_to_the_whole_event() {
    let full = full();
    let mut event = v1::Event::decode(full.draft.event.body.clone()).unwrap();
    event.event_id = "e1".into();
    event.user_id = "u1".into();
    event.thread_id = "t1".into();
    event.run_id = "r1".into();
    event.parent_run_id = "r0".into();
    event.agent_name = "researcher".into();
    let want = v1::RecordedEvent {
        event: Some(event),
        position: Some(v1::Position {
            epoch: "00000000000000ab".into(),
            offset: 42,
        }),
        run_sequence: 7,
        recorded_at: Some(Timestamp {
            seconds: 1_795_255_200,
            nanos: 123_000_000,
        }),
        cost: Some(v1::Cost {
            nano_usd: 2_000,
            basis: v1::CostBasis::Priced.into(),
        }),
        r#type: "agent_cancelled".into(),
        ..Default::default()
    };
    assert_eq!(recorded(&full), want);
}

#[test]
fn the_wire_form_of_a_large_body_has_the_right_lengths() {
    for len in [0, 1, 100, 127, 128, 16_383, 16_384, 60_000] {
        let text = "x".repeat(len);
        let message = Payload::Message(v1::Message {
            text: text.clone(),
            ..Default::default()
        });
        let got = recorded(&record(Kind::Message, &body(message)));
        let Some(Payload::Message(message)) = got.event.and_then(|event| event.payload) else {
            panic!("no message");
        };
        assert_eq!((message.text, got.run_sequence), (text, 7));
    }
}

#[test]
fn a_body_that_cannot_be_decoded_yields_the_rest() {
    let mut broken = record(Kind::Message, &v1::Event::default());
    let event = Event {
        body: Bytes::from_static(&[0xff]),
        ..(*broken.draft.event).clone()
    };
    broken.draft.event = Arc::new(event);
    assert!(json(&broken).ends_with(r#","payload":{}}"#));
}
