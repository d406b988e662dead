//! The rules of what stands in the payloads.

use super::*;

#[test]
fn short_names_within_payloads() {
    let long = || "n".repeat(129);
    let fine = || "n".repeat(128);
    type Make = fn(String) -> Payload;
    let cases: [(&str, Make); 10] = [
        ("tool_executing.tool_name", |s| {
            Payload::ToolExecuting(ToolExecuting {
                tool_name: s,
                ..Default::default()
            })
        }),
        ("tool_executing.tool_call_id", |s| {
            let tool_name = "t".into();
            Payload::ToolExecuting(ToolExecuting {
                tool_call_id: s,
                tool_name,
                ..Default::default()
            })
        }),
        ("tool_completed.tool_call_id", |s| {
            Payload::ToolCompleted(ToolCompleted {
                tool_call_id: s,
                ..Default::default()
            })
        }),
        ("tool_progress.tool_call_id", |s| {
            Payload::ToolProgress(ToolProgress {
                tool_call_id: s,
                ..Default::default()
            })
        }),
        ("thinking_delta.message_id", |s| {
            Payload::ThinkingDelta(v1::ThinkingDelta {
                message_id: s,
                ..Default::default()
            })
        }),
        ("text_delta.message_id", |s| {
            Payload::TextDelta(TextDelta {
                message_id: s,
                ..Default::default()
            })
        }),
        ("message.message_id", |s| {
            Payload::Message(Message {
                message_id: s,
                ..Default::default()
            })
        }),
        ("custom.name", |s| {
            // A custom name has a bound and a shape of its own.
            let name = if s.len() > 128 {
                "a".repeat(65)
            } else {
                "a".repeat(64)
            };
            Payload::Custom(Custom { name, data: None })
        }),
        ("custom.name", |s| {
            let name = if s.len() > 128 { "agent_x" } else { "x_agent" };
            Payload::Custom(Custom {
                name: name.into(),
                data: None,
            })
        }),
        ("custom.name", |s| {
            let name = if s.len() > 128 { "" } else { "x" };
            Payload::Custom(Custom {
                name: name.into(),
                data: None,
            })
        }),
    ];
    for (field, make) in cases {
        assert_ok(&event(make(fine())));
        assert_refused(&event(make(long())), field, "");
    }
}

#[test]
fn values_are_finite_and_have_a_kind() {
    let list = |values| Value::from(values);
    let object =
        |key: &str, value| Value::from(std::collections::BTreeMap::from([(key.to_owned(), value)]));
    let null = |kind| Value {
        kind: Some(Kind::NullValue(kind)),
    };
    assert_ok(&parameters(&[(
        "a",
        list(vec![null(0), string(""), Value::from(f64::MAX)]),
    )]));
    for (value, field, rule) in [
        (Value::from(f64::NAN), "a", "finite"),
        (
            object(
                "b",
                list(vec![null(0), null(0), Value::from(f64::INFINITY)]),
            ),
            "a.b[2]",
            "finite",
        ),
        (
            object("x y", Value::default()),
            r#"a["x y"]"#,
            "has no kind",
        ),
        (null(5), "a", "unknown null"),
    ] {
        let path = format!("tool_executing.parameters.{field}");
        assert_refused(&parameters(&[("a", value)]), &path, rule);
    }
}

#[test]
fn values_nest_up_to_32_deep() {
    let with_struct = |depth| {
        tool(|tool| tool.input = Some(tool_executing::Input::Parameters(nested_struct(depth))))
    };
    assert_ok(&with_struct(32));
    let path = "tool_executing.parameters".to_owned() + &".a".repeat(32);
    assert_refused(&with_struct(33), &path, "nests deeper than 32");

    // So deep that protobuf's own limit comes first.
    assert_refused(&with_struct(60), "", "cannot be decoded");
}

#[test]
fn json_twins() {
    assert_ok(&parameters_json(r#" {"id":12345678901234567890} "#));
    assert_ok(&parameters_json(r#"{"a":"\ud800"}"#));
    for (text, rule) in [
        ("", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("{\"a\":1,}", "is not JSON"),
        ("{\"a\":NaN}", "is not JSON"),
    ] {
        assert_refused(
            &parameters_json(text),
            "tool_executing.parameters_json",
            rule,
        );
    }
}

#[test]
fn patch_operations() {
    let delta = |operations| event(Payload::StateDelta(StateDelta { operations }));
    let operation = |op: PatchOp, path: &str, from: &str, value: bool| PatchOperation {
        op: op.into(),
        path: path.into(),
        from: from.into(),
        value: value.then(|| string("v")),
    };
    use PatchOp::{Add, Copy, Move, Remove, Replace, Test, Unspecified};
    assert_refused(&delta(vec![]), "state_delta.operations", "required");
    assert_ok(&delta(vec![
        operation(Add, "", "", true),
        operation(Replace, "/a~0b~1c/0", "", true),
        operation(Test, "/", "", true),
        operation(Move, "/a", "/b", false),
        operation(Copy, "/a", "", false),
        operation(Remove, "/a", "", false),
    ]));
    for (operation, field, rule) in [
        (operation(Unspecified, "", "", false), "op", "required"),
        (
            PatchOperation {
                op: 9,
                ..Default::default()
            },
            "op",
            "unknown",
        ),
        (operation(Remove, "a", "", false), "path", "begin with `/`"),
        (operation(Remove, "/a~", "", false), "path", "`~`"),
        (operation(Remove, "/~2", "", false), "path", "`~`"),
        (operation(Move, "/a", "b", false), "from", "begin with `/`"),
        (operation(Add, "/a", "/b", true), "from", "only"),
        (operation(Remove, "/a", "/b", false), "from", "only"),
        (operation(Add, "/a", "", false), "value", "required"),
        (operation(Replace, "/a", "", false), "value", "required"),
        (operation(Test, "/a", "", false), "value", "required"),
        (operation(Remove, "/a", "", true), "value", "only"),
        (operation(Move, "/a", "/b", true), "value", "only"),
        (operation(Copy, "/a", "/b", true), "value", "only"),
    ] {
        let event = delta(vec![fine_operation(), operation]);
        assert_refused(&event, &format!("state_delta.operations[1].{field}"), rule);
    }
}

fn fine_operation() -> PatchOperation {
    PatchOperation {
        op: PatchOp::Remove.into(),
        path: "/a".into(),
        ..PatchOperation::default()
    }
}
