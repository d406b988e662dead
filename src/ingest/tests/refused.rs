//! Every rule, with what just keeps it and what just breaks it: here those of the fields beside the payload, of
//! sizes and credentials.

mod payloads;

use prost_types::{Value, value::Kind};

use super::*;
use crate::{
    proto::v1::{
        AgentStarted, Custom, Message, PatchOp, PatchOperation, Source, StateDelta, TextDelta,
        ToolCompleted, ToolExecuting, ToolProgress, tool_executing,
    },
    reason::Reason,
};

/// The fields that are refused in `event`, with the rules that they break.
fn problems(event: &v1::Event) -> Vec<(String, String)> {
    match accept(event) {
        Ok(_) => Vec::new(),
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::InvalidEvent, "{refusal}");
            refusal
                .violations
                .into_iter()
                .map(|v| (v.field, v.description))
                .collect()
        }
    }
}

#[track_caller]
fn assert_ok(event: &v1::Event) {
    assert_eq!(problems(event), []);
}

/// Exactly one field is refused: `field`, with a rule that contains `rule`.
#[track_caller]
fn assert_refused(event: &v1::Event, field: &str, rule: &str) {
    let problems = problems(event);
    let [(got_field, got_rule)] = &problems[..] else {
        panic!("{field} {rule}: {problems:?}");
    };
    assert_eq!(got_field, field);
    assert!(got_rule.contains(rule), "{rule}: {got_rule}");
}

fn message() -> v1::Event {
    event(Payload::Message(Message::default()))
}

fn tool(change: impl FnOnce(&mut ToolExecuting)) -> v1::Event {
    let mut tool = ToolExecuting {
        tool_name: "search".into(),
        ..ToolExecuting::default()
    };
    change(&mut tool);
    event(Payload::ToolExecuting(tool))
}

/// An event with parameters from a list of fields.
fn parameters(fields: &[(&str, Value)]) -> v1::Event {
    let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
    tool(|tool| {
        tool.input = Some(tool_executing::Input::Parameters(prost_types::Struct {
            fields: fields.collect(),
        }));
    })
}

fn parameters_json(text: &str) -> v1::Event {
    tool(|tool| tool.input = Some(tool_executing::Input::ParametersJson(text.into())))
}

fn with(change: impl FnOnce(&mut v1::Event)) -> v1::Event {
    let mut event = message();
    change(&mut event);
    event
}

#[test]
fn required_fields() {
    assert_ok(&message());
    assert_refused(&with(|e| e.user_id.clear()), "user_id", "is required");
    assert_refused(&with(|e| e.run_id.clear()), "run_id", "is required");
    assert_refused(&with(|e| e.payload = None), "payload", "is required");
    assert_ok(&with(|e| e.agent_name.clear()));
    let mut started = event(Payload::AgentStarted(AgentStarted::default()));
    assert_ok(&started);
    started.agent_name.clear();
    assert_refused(&started, "agent_name", "is required");
    let nameless = tool(|tool| tool.tool_name.clear());
    assert_refused(&nameless, "tool_executing.tool_name", "is required");
    let everything = with(|e| *e = v1::Event::default());
    let fields: Vec<_> = problems(&everything).into_iter().map(|(f, _)| f).collect();
    assert_eq!(fields, ["user_id", "run_id", "payload"]);
}

#[test]
fn ids_have_up_to_128_characters_and_no_control_characters() {
    type Field = fn(&mut v1::Event) -> &mut String;
    let fields: [(&str, Field); 7] = [
        ("event_id", |e| &mut e.event_id),
        ("tenant_id", |e| &mut e.tenant_id),
        ("user_id", |e| &mut e.user_id),
        ("thread_id", |e| &mut e.thread_id),
        ("run_id", |e| &mut e.run_id),
        ("parent_run_id", |e| &mut e.parent_run_id),
        ("agent_name", |e| &mut e.agent_name),
    ];
    for (name, field) in fields {
        if name != "tenant_id" {
            assert_ok(&with(|e| *field(e) = "é".repeat(128)));
        }
        assert_refused(
            &with(|e| *field(e) = "é".repeat(129)),
            name,
            "longer than 128",
        );
        assert_refused(
            &with(|e| *field(e) = "a\u{7f}".into()),
            name,
            "control character",
        );
    }
    let own = with(|e| e.event_id = "emitter:x".into());
    assert_refused(&own, "event_id", "emitter:");
    assert_ok(&with(|e| e.event_id = "emitter".into()));
}

#[test]
fn a_custom_event_may_come_without_a_run() {
    let name = "progress".into();
    let mut custom = event(Payload::Custom(Custom { name, data: None }));
    custom.run_id.clear();
    assert_ok(&custom);
    custom.run_id = "\n".into();
    assert_refused(&custom, "run_id", "control");
}

#[test]
fn sources() {
    let source = |id: &str, term| {
        let producer_id = id.to_owned();
        with(|e| e.source = Some(Source { producer_id, term }))
    };
    assert_ok(&source("", 0));
    assert_ok(&source(&"p".repeat(128), u64::MAX));
    assert_refused(&source("", 1), "source.producer_id", "required");
    assert_refused(&source(&"p".repeat(129), 0), "source.producer_id", "128");
}

#[test]
fn an_event_has_up_to_64_kib_as_received() {
    let sized = |bytes: usize| {
        let text = |length| {
            let text = "x".repeat(length);
            event(Payload::Message(Message {
                text,
                ..Default::default()
            }))
        };
        let event = text(bytes - 60_000);
        let rest = bytes - event.encoded_len();
        let event = text(bytes - 60_000 + rest);
        // The lengths inside may take more bytes now.
        let over = event.encoded_len() - bytes;
        let event = text(bytes - 60_000 + rest - over);
        assert_eq!(event.encoded_len(), bytes);
        event
    };
    assert_ok(&sized(65_535));
    assert_ok(&sized(65_536));
    assert_refused(&sized(65_537), "", "is larger than 65536 bytes");

    // Fields that this version does not know count too.
    let mut wire = sized(65_530).encode_to_vec();
    wire.extend([0xf8, 0x3f, 0x00, 0xf8, 0x3f, 0x00]);
    let accept = |wire: &[u8]| intake().accept(wire, &producer(), &mut Vec::new());
    assert!(accept(&wire).is_ok());
    wire.extend([0xf8, 0x3f, 0x00]);
    assert_eq!(
        accept(&wire).unwrap_err().violations[0].description,
        "is larger than 65536 bytes"
    );
}

#[test]
fn all_problems_are_told_up_to_a_bound() {
    let several = with(|e| {
        e.user_id.clear();
        e.thread_id = "\n".into();
        e.payload = Some(Payload::ToolProgress(ToolProgress {
            tool_call_id: "\0".into(),
            ..Default::default()
        }));
    });
    let fields: Vec<_> = problems(&several)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    assert_eq!(
        fields,
        ["user_id", "thread_id", "tool_progress.tool_call_id"]
    );

    let many: Vec<_> = (0..40).map(|n| format!("{n}")).collect();
    let many: Vec<_> = many
        .iter()
        .map(|k| (k.as_str(), Value::default()))
        .collect();
    assert_eq!(problems(&parameters(&many)).len(), 32);

    // A status must fit into the headers that stock clients accept.
    let keys: Vec<_> = (0..100)
        .map(|n| format!("{n}{}", "\u{1F600}\"".repeat(50)))
        .collect();
    let worst: Vec<_> = keys
        .iter()
        .map(|k| (k.as_str(), Value::default()))
        .collect();
    let refusal = accept(&parameters(&worst))
        .unwrap_err()
        .below("events[999]");
    let response = crate::reason::to_status(&refusal).into_http::<()>();
    let bytes: usize = response
        .headers()
        .iter()
        .map(|(k, v)| k.as_str().len() + v.len() + 32)
        .sum();
    assert!(bytes < 8 * 1024, "{bytes}");
}

#[test]
fn what_cannot_be_decoded_is_refused() {
    let wire = [0x0a, 5, b'x'];
    let refusal = intake()
        .accept(&wire, &producer(), &mut Vec::new())
        .unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidEvent);
    assert!(refusal.message.contains("cannot be decoded"), "{refusal}");
}

#[test]
fn the_credential_says_which_tenant_and_users() {
    let mut principal = producer();
    principal.users = Some([UserId::new("u1").unwrap()].into());
    let accept = |event: &v1::Event| {
        intake()
            .accept(&event.encode_to_vec(), &principal, &mut Vec::new())
            .map(|event| format!("{:?}", event.stream))
            .map_err(|refusal| refusal.reason)
    };
    let stream = Ok(r#""acme"/"u1""#.to_owned());
    assert_eq!(accept(&message()), stream);
    assert_eq!(accept(&with(|e| e.tenant_id = "acme".into())), stream);
    assert_eq!(
        accept(&with(|e| e.tenant_id = "other".into())),
        Err(Reason::TenantForbidden)
    );
    assert_eq!(
        accept(&with(|e| e.user_id = "u2".into())),
        Err(Reason::UserForbidden)
    );
}
