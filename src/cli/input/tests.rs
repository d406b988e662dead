use serde_json::json;

use super::*;
use crate::proto::v1::{
    PatchOp, ToolStatus, agent_completed, event::Payload, tool_completed, tool_executing,
};

fn read(line: &serde_json::Value) -> Event {
    event(&line.to_string()).unwrap().unwrap()
}

fn payload(kind: &str, payload: &serde_json::Value) -> Payload {
    read(&json!({"type": kind, "payload": payload}))
        .payload
        .unwrap()
}

#[test]
fn a_frame_reads_as_the_event_that_it_was() {
    let line = r#"{"type":"tool_completed","event_id":"e1","epoch":"00000000000000ab","offset":42,"run_sequence":7,
        "timestamp":"2026-11-21T10:00:00.123Z","recorded_at":"2026-11-21T10:00:00.456Z","user_id":"u1",
        "thread_id":"t1","run_id":"r1","parent_run_id":"r0","agent_name":"a","traceparent":"00-x","labels":{"k":"v"},
        "usage":{"model":"m","input_tokens":3,"cache_write_input_tokens":2,"cache_write_1h_input_tokens":1,
        "cost_nano_usd":0},"cost":{"nano_usd":0,"basis":"stated"},"first_offset":40,"joined":2,"summary":{},
        "payload":{"tool_call_id":"c1","call_sequence":5,"tool_name":"search","status":"failed","error":"no",
        "result":{"id":12345678901234567890123,"x":1.10},"execution_time_ms":118.5}}"#;
    let event = event(line).unwrap().unwrap();
    assert_eq!(
        [
            &*event.event_id,
            &event.user_id,
            &event.thread_id,
            &event.run_id,
            &event.parent_run_id
        ],
        ["e1", "u1", "t1", "r1", "r0"]
    );
    assert_eq!(event.occurred_at.unwrap().nanos, 123_000_000);
    assert_eq!(event.labels["k"], "v");
    let usage = event.usage.unwrap();
    assert_eq!(usage.cost_nano_usd, Some(0));
    let writes = (
        usage.cache_write_input_tokens,
        usage.cache_write_1h_input_tokens,
    );
    assert_eq!(writes, (2, 1));
    let Some(Payload::ToolCompleted(tool)) = event.payload else {
        panic!("another arm");
    };
    // It numbers the calls of another stream.
    assert_eq!(tool.call_sequence, None);
    assert_eq!(tool.status(), ToolStatus::Failed);
    assert_eq!(tool.execution_time.unwrap().nanos, 118_500_000);
    let exact = r#"{"id":12345678901234567890123,"x":1.10}"#;
    assert_eq!(
        tool.output,
        Some(tool_completed::Output::ResultJson(exact.into()))
    );
}

#[test]
fn a_line_of_a_producer_selects_its_call() {
    let call = json!({"tool_call_id": "c1", "call_sequence": 5});
    match payload("tool_completed", &call) {
        Payload::ToolCompleted(tool) => assert_eq!(tool.call_sequence, Some(5)),
        other => panic!("{other:?}"),
    }
    match payload("tool_progress", &call) {
        Payload::ToolProgress(tool) => assert_eq!(tool.call_sequence, Some(5)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_that_was_cut_inside_an_emoji_is_taken() {
    let line = r#"{"type":"message","payload":{"text":"cut \ud83d"}}"#;
    let Some(Payload::Message(message)) = event(line).unwrap().unwrap().payload else {
        panic!("another arm");
    };
    assert_eq!(message.text, "cut \u{fffd}");
    let line = r#"{"type":"tool_completed","payload":{"status":"cancelled","result":1e999}}"#;
    let Some(Payload::ToolCompleted(tool)) = event(line).unwrap().unwrap().payload else {
        panic!("another arm");
    };
    assert_eq!(tool.status(), ToolStatus::Cancelled);
    let exact = tool_completed::Output::ResultJson("1e999".into());
    assert_eq!(tool.output, Some(exact));
}

#[test]
fn a_cost_that_the_service_computed_is_not_stated() {
    let usage = json!({"model": "m", "input_tokens": 3});
    let cost = json!({"nano_usd": 2000, "basis": "priced"});
    let priced = read(&json!({"type": "x", "usage": usage, "cost": cost}));
    assert_eq!(priced.usage.unwrap().cost_nano_usd, None);
}

#[test]
fn accounting_is_read_by_its_name() {
    let accounting = |name: &str| {
        let line = json!({"type": "x", "usage": {"accounting": name}});
        let event = event(&line.to_string())?;
        Ok::<_, String>(event.unwrap().usage.unwrap().accounting())
    };
    assert_eq!(accounting("exclusive"), Ok(UsageAccounting::Exclusive));
    assert_eq!(accounting("inclusive"), Ok(UsageAccounting::Inclusive));
    assert!(accounting("other").is_err());
}

#[test]
fn the_servers_own_time_is_not_taken_for_the_producers() {
    let at = "2026-11-21T10:00:00.123Z";
    let both = read(&json!({"type": "x", "timestamp": at, "recorded_at": at}));
    assert_eq!(both.occurred_at, None);
    let own = read(&json!({"type": "x", "timestamp": at}));
    assert!(own.occurred_at.is_some());
}

#[test]
fn every_arm_is_read() {
    for (kind, _) in crate::event::Kind::typed().map(|(_, kind)| (kind, ())) {
        let body = match kind {
            "state_snapshot" => json!({"snapshot": null}),
            "state_delta" => json!({"operations": []}),
            _ => json!({}),
        };
        assert!(
            !matches!(payload(kind, &body), Payload::Custom(_)),
            "{kind}"
        );
        let odd = json!({"type": kind, "payload": {"odd": 1}});
        assert!(
            event(&odd.to_string())
                .unwrap_err()
                .starts_with("payload: "),
            "{kind}"
        );
    }
    let Payload::Custom(custom) = payload("my.type", &json!({"n": 1, "l": [null, true, "x"]}))
    else {
        panic!("another arm");
    };
    assert_eq!(
        (custom.name.as_str(), custom.data.unwrap().fields.len()),
        ("my.type", 2)
    );
}

#[test]
fn fields_keep_their_meaning() {
    let Payload::AgentStarted(p) = payload("agent_started", &json!({"silence_timeout_ms": 90_000}))
    else {
        panic!("another arm");
    };
    assert_eq!(p.silence_timeout.unwrap().seconds, 90);
    let Payload::AgentThinking(p) = payload("agent_thinking", &json!({"step_number": 0})) else {
        panic!("another arm");
    };
    assert_eq!((p.step_number, p.total_steps), (Some(0), None));
    let Payload::ToolExecuting(p) = payload("tool_executing", &json!({"parameters": {"a": 1}}))
    else {
        panic!("another arm");
    };
    assert_eq!(
        p.input,
        Some(tool_executing::Input::ParametersJson(r#"{"a":1}"#.into()))
    );
    let Payload::AgentCompleted(p) = payload("agent_completed", &json!({"result": null})) else {
        panic!("another arm");
    };
    assert_eq!(
        p.output,
        Some(agent_completed::Output::ResultJson("null".into()))
    );
    let operations = json!({"operations": [{"op": "test", "path": "", "value": null}, {"op": "move", "path": "/a", "from": "/b"}]});
    let Payload::StateDelta(p) = payload("state_delta", &operations) else {
        panic!("another arm");
    };
    assert_eq!(p.operations[0].op(), PatchOp::Test);
    assert!(p.operations[0].value.is_some() && p.operations[1].value.is_none());
}

#[test]
fn what_is_wrong_is_told() {
    let cases = [
        ("nonsense", "expected"),
        ("[]", "expected"),
        ("{}", "it has no `type`"),
        (r#"{"type":"x","user":"u"}"#, "unknown field `user`"),
        (r#"{"type":"x","timestamp":"noon"}"#, "RFC 3339"),
        (r#"{"type":"x","payload":3}"#, "payload: "),
        (
            r#"{"type":"x","payload":{"id":9007199254740993}}"#,
            "9007199254740993 would lose digits",
        ),
        (
            r#"{"type":"state_delta","payload":{"operations":[{"op":"no","path":""}]}}"#,
            "payload: unknown variant",
        ),
    ];
    for (line, want) in cases {
        let error = event(line).unwrap_err();
        assert!(error.contains(want), "{line}: {error}");
    }
    assert_eq!(
        event(r#"{"type":"connection_heartbeat","odd":1}"#),
        Ok(None)
    );
}
