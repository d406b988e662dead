//! What a valid event becomes.

use super::*;
use crate::{
    event::Kind,
    proto::v1::{
        AgentCompleted, Message, PatchOp, PatchOperation, RecordedEvent, Source, StateDelta,
        StateSnapshot, SubscribeResponse, TextDelta, ThinkingDelta, ToolCompleted, ToolExecuting,
        ToolStatus, Usage, agent_completed, subscribe_response, tool_completed,
        tool_executing::Input,
    },
};

fn full() -> v1::Event {
    v1::Event {
        event_id: "e1".into(),
        tenant_id: "acme".into(),
        user_id: "u1".into(),
        thread_id: "t1".into(),
        run_id: "r1".into(),
        parent_run_id: "r0".into(),
        agent_name: "researcher".into(),
        source: Some(Source {
            producer_id: "p".into(),
            term: 3,
        }),
        occurred_at: Some(prost_types::Timestamp {
            seconds: 1,
            nanos: 5,
        }),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        tracestate: "a=b".into(),
        labels: [("k".into(), "v".into())].into(),
        usage: Some(Usage {
            input_tokens: 1,
            ..Usage::default()
        }),
        payload: Some(Payload::Message(Message {
            text: "hello\n".into(),
            ..Message::default()
        })),
    }
}

#[test]
fn the_header_is_typed_and_the_body_holds_the_rest() {
    let accepted = accept(&full()).unwrap();
    assert_eq!(accepted.event_id.as_str(), "e1");
    assert_eq!(format!("{:?}", accepted.stream), r#""acme"/"u1""#);
    let text = |id: Option<&str>| id.map(str::to_owned);
    assert_eq!(
        text(accepted.thread_id.as_ref().map(|id| id.as_str())),
        text(Some("t1"))
    );
    assert_eq!(
        text(accepted.run_id.as_ref().map(|id| id.as_str())),
        text(Some("r1"))
    );
    assert_eq!(
        text(accepted.parent_run_id.as_ref().map(|id| id.as_str())),
        text(Some("r0"))
    );
    assert_eq!(
        text(accepted.agent_name.as_ref().map(|id| id.as_str())),
        text(Some("researcher"))
    );
    assert_eq!(accepted.kind, Kind::Message);
    let sent = full();
    let want = v1::Event {
        occurred_at: sent.occurred_at,
        traceparent: sent.traceparent,
        tracestate: sent.tracestate,
        labels: sent.labels,
        usage: sent.usage,
        payload: sent.payload,
        ..v1::Event::default()
    };
    assert_eq!(body(&accepted), want);
}

#[test]
fn a_retry_may_change_its_source_time_and_trace_but_nothing_else() {
    let hash = |change: fn(&mut v1::Event)| {
        let mut event = full();
        change(&mut event);
        accept(&event).unwrap().content
    };
    let first = hash(|_| {});
    assert_eq!(hash(|e| e.event_id = "e2".into()), first);
    assert_eq!(hash(|e| e.source = None), first);
    assert_eq!(hash(|e| e.tenant_id.clear()), first);
    assert_eq!(hash(|e| e.occurred_at = None), first);
    assert_eq!(hash(|e| e.traceparent.clear()), first);
    assert_eq!(hash(|e| e.tracestate.clear()), first);
    assert_ne!(hash(|e| e.run_id = "r2".into()), first);
    assert_ne!(hash(|e| e.thread_id.clear()), first);
    assert_ne!(hash(|e| e.agent_name.clear()), first);
    assert_ne!(hash(|e| e.labels.clear()), first);
    assert_ne!(hash(|e| e.usage = None), first);
    assert_ne!(
        hash(|e| e.payload = Some(Payload::Message(Message::default()))),
        first
    );

    // Two secrets look the same once they are redacted, but are not the same event.
    let tool = |parameters: &str| {
        accept(&event(Payload::ToolExecuting(ToolExecuting {
            tool_name: "t".into(),
            input: Some(Input::ParametersJson(parameters.into())),
            ..ToolExecuting::default()
        })))
        .unwrap()
    };
    let (one, two) = (tool(r#"{"key":"1"}"#), tool(r#"{"key":"2"}"#));
    assert_ne!(one.content, two.content);
    // What the server fills in does not count.
    assert_eq!(tool(r#"{"key":"1"}"#).content, one.content);
}

#[test]
fn json_texts_are_compared_as_values() {
    type Twin = fn(&str) -> Payload;
    let twins: [Twin; 3] = [
        |text| {
            Payload::ToolExecuting(ToolExecuting {
                tool_name: "t".into(),
                input: Some(Input::ParametersJson(text.into())),
                ..ToolExecuting::default()
            })
        },
        |text| {
            Payload::ToolCompleted(ToolCompleted {
                tool_name: "t".into(),
                output: Some(tool_completed::Output::ResultJson(text.into())),
                ..ToolCompleted::default()
            })
        },
        |text| {
            Payload::AgentCompleted(AgentCompleted {
                output: Some(agent_completed::Output::ResultJson(text.into())),
                ..AgentCompleted::default()
            })
        },
    ];
    let text = r#"{"b":[1.0,"é"],"a":1e999}"#;
    for twin in twins {
        let hash = |text: &str| accept(&event(twin(text))).unwrap().content;
        let first = hash(text);
        for same in [
            "{\n  \"b\": [1, \"\\u00e9\"],\r\n\t\"a\": 10e998\n}\n",
            r#"{"a":1e999,"b":[10e-1,"é"]}"#,
            r#"{"a":0,"b":[1.0,"é"],"a":1e999}"#,
        ] {
            assert_eq!(hash(same), first, "{same}");
        }
        for other in [
            r#"{"b":[1.1,"é"],"a":1e999}"#,
            r#"{"b":["é",1.0],"a":1e999}"#,
            r#"{"b":[1.0,"é"],"a":1e998}"#,
        ] {
            assert_ne!(hash(other), first, "{other}");
        }
    }
}

#[test]
fn a_retry_may_state_what_the_server_fills_in() {
    let completed = |status: ToolStatus, error: &str| {
        let payload = Payload::ToolCompleted(ToolCompleted {
            tool_call_id: "c1".into(),
            status: status.into(),
            error: error.into(),
            ..ToolCompleted::default()
        });
        accept(&event(payload)).unwrap().content
    };
    let (unstated, succeeded) = (ToolStatus::Unspecified, ToolStatus::Succeeded);
    assert_eq!(completed(unstated, ""), completed(succeeded, ""));
    assert_eq!(
        completed(unstated, "no"),
        completed(ToolStatus::Failed, "no")
    );
    assert_ne!(
        completed(succeeded, "no"),
        completed(ToolStatus::Failed, "no")
    );
    let begun = |call_sequence| {
        let payload = Payload::ToolExecuting(ToolExecuting {
            tool_call_id: "c1".into(),
            tool_name: "t".into(),
            call_sequence,
            ..ToolExecuting::default()
        });
        accept(&event(payload)).unwrap().content
    };
    assert_eq!(begun(None), begun(Some(7)));
}

#[test]
fn json_texts_are_stored_on_one_line_and_exact() {
    let stored = |text: &str| {
        let payload = Payload::ToolCompleted(ToolCompleted {
            output: Some(tool_completed::Output::ResultJson(text.into())),
            ..ToolCompleted::default()
        });
        match body(&accept(&event(payload)).unwrap()).payload {
            Some(Payload::ToolCompleted(tool)) => tool.output,
            other => panic!("{other:?}"),
        }
    };
    for (text, want) in [
        (
            "{\n \"a\" : 1e999,\r\n\"b\": 12345678901234567890 }",
            r#"{"a":1e999,"b":12345678901234567890}"#,
        ),
        (r#""cut \ud83d""#, "\"cut \u{fffd}\""),
    ] {
        assert_eq!(
            stored(text),
            Some(tool_completed::Output::ResultJson(want.into())),
            "{text}"
        );
    }
}

#[test]
fn maps_are_compared_sorted() {
    let labels = |pairs: [(&str, &str); 2]| {
        let mut wire = event(Payload::Message(Message::default())).encode_to_vec();
        for (key, value) in pairs {
            let one = v1::Event {
                labels: [(key.to_owned(), value.to_owned())].into(),
                ..v1::Event::default()
            };
            wire.extend(one.encode_to_vec());
        }
        intake()
            .accept(&wire, &producer(), &mut Vec::new())
            .unwrap()
    };
    let one = labels([("a", "1"), ("b", "2")]);
    let other = labels([("b", "2"), ("a", "1")]);
    assert_eq!((one.content, one.body), (other.content, other.body));
}

#[test]
fn ids_that_are_left_out_are_filled_in() {
    let mut nameless = event(Payload::ToolExecuting(ToolExecuting {
        tool_name: "search".into(),
        ..ToolExecuting::default()
    }));
    nameless.event_id.clear();
    let accepted = accept(&nameless).unwrap();
    let Some(Payload::ToolExecuting(tool)) = body(&accepted).payload else {
        panic!("{accepted:?}");
    };
    for id in [accepted.event_id.as_str(), &tool.tool_call_id] {
        let uuid = uuid::Uuid::parse_str(id).unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_timestamp().unwrap().to_unix().0, 1_795_255_200);
    }
    assert_ne!(accepted.event_id.as_str(), tool.tool_call_id);
}

#[test]
fn the_status_of_a_tool_call_follows_its_error() {
    use ToolStatus::{Failed, Succeeded, Unspecified};
    for (status, error, want) in [
        (Unspecified, "", Succeeded),
        (Unspecified, "boom", Failed),
        (Succeeded, "", Succeeded),
        (Succeeded, "a warning", Succeeded),
        (Failed, "", Failed),
    ] {
        let sent = Payload::ToolCompleted(ToolCompleted {
            status: status.into(),
            error: error.into(),
            ..ToolCompleted::default()
        });
        let Some(Payload::ToolCompleted(tool)) = body(&accept(&event(sent)).unwrap()).payload
        else {
            panic!("{status:?}");
        };
        assert_eq!(tool.status(), want, "{status:?} {error:?}");
    }
}

#[test]
fn parameters_are_redacted_and_nothing_else() {
    let secret = || prost_types::Struct {
        fields: [
            ("api_key".into(), string("s3cret")),
            ("q".into(), string("s3cret")),
        ]
        .into(),
    };
    let sent = Payload::ToolExecuting(ToolExecuting {
        tool_call_id: "c1".into(),
        tool_name: "t".into(),
        input: Some(Input::Parameters(secret())),
        ..ToolExecuting::default()
    });
    let Some(Payload::ToolExecuting(tool)) = body(&accept(&event(sent.clone())).unwrap()).payload
    else {
        panic!();
    };
    let Some(Input::Parameters(fields)) = tool.input else {
        panic!();
    };
    assert_eq!(fields.fields["api_key"], string("[redacted]"));
    assert_eq!(fields.fields["q"], string("s3cret"));

    let result = Payload::ToolCompleted(ToolCompleted {
        status: ToolStatus::Succeeded.into(),
        output: Some(v1::tool_completed::Output::ResultJson(
            r#"{"api_key":"s3cret"}"#.into(),
        )),
        ..ToolCompleted::default()
    });
    assert_eq!(
        body(&accept(&event(result.clone())).unwrap()).payload,
        Some(result)
    );

    let off = Config {
        redaction: super::super::Redaction {
            enabled: false,
            ..Default::default()
        },
        ..Config::default()
    };
    let intake = Intake::new(Clock::system(), Entropy::system(), &off);
    let wire = event(sent.clone()).encode_to_vec();
    let kept = intake.accept(&wire, &producer(), &mut Vec::new()).unwrap();
    assert_eq!(body(&kept).payload, Some(sent));
}

#[test]
fn only_plain_deltas_are_joinable() {
    let text = || event(Payload::TextDelta(TextDelta::default()));
    let thought = event(Payload::ThinkingDelta(ThinkingDelta::default()));
    let labelled = v1::Event {
        labels: [("k".into(), "v".into())].into(),
        ..text()
    };
    let used = v1::Event {
        usage: Some(Usage::default()),
        ..text()
    };
    let message = event(Payload::Message(Message::default()));
    for (event, want) in [
        (text(), true),
        (thought, true),
        (labelled, false),
        (used, false),
        (message, false),
    ] {
        assert_eq!(accept(&event).unwrap().joinable, want, "{event:?}");
    }
}

/// A stock decoder stops at 100 nested messages. What is accepted must pass it again inside the answer of a
/// subscription, or one event would end the stream of its reader for good.
#[test]
fn the_deepest_event_can_be_decoded_by_readers() {
    let deepest = |depth| {
        Some(prost_types::Value {
            kind: Some(prost_types::value::Kind::StructValue(nested_struct(depth))),
        })
    };
    let parameters = Payload::ToolExecuting(ToolExecuting {
        tool_name: "t".into(),
        input: Some(Input::Parameters(nested_struct(32))),
        ..ToolExecuting::default()
    });
    let snapshot = Payload::StateSnapshot(StateSnapshot {
        snapshot: deepest(32),
    });
    let delta = Payload::StateDelta(StateDelta {
        operations: vec![PatchOperation {
            op: PatchOp::Add.into(),
            value: deepest(31),
            ..PatchOperation::default()
        }],
    });
    for payload in [parameters, snapshot, delta] {
        let Ok(accepted) = accept(&event(payload.clone())) else {
            panic!("refused: {payload:?}");
        };
        let sent = SubscribeResponse {
            item: Some(subscribe_response::Item::Event(RecordedEvent {
                event: Some(body(&accepted)),
                ..RecordedEvent::default()
            })),
        };
        let read = SubscribeResponse::decode(&sent.encode_to_vec()[..]);
        assert_eq!(read, Ok(sent), "{payload:?}");
    }
}
