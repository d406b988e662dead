//! The rules of what stands in the payloads.

use super::*;

#[test]
fn short_names_within_payloads() {
    let long = || "n".repeat(129);
    let fine = || "n".repeat(128);
    type Make = fn(String) -> Payload;
    let cases: [(&str, Make); 14] = [
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
        ("tool_completed.tool_name", |s| {
            Payload::ToolCompleted(ToolCompleted {
                tool_name: s,
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
        ("agent_failed.code", |s| {
            Payload::AgentFailed(AgentFailed {
                code: s,
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
        ("text_delta.role", |s| {
            Payload::TextDelta(TextDelta {
                role: s,
                ..Default::default()
            })
        }),
        ("message.message_id", |s| {
            Payload::Message(Message {
                message_id: s,
                ..Default::default()
            })
        }),
        ("message.role", |s| {
            Payload::Message(Message {
                role: s,
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
fn numbers_have_ranges() {
    let fraction = |fraction| {
        let fraction = Some(fraction);
        event(Payload::ToolProgress(ToolProgress {
            fraction,
            ..Default::default()
        }))
    };
    let progress = |progress| {
        let progress_percentage = Some(progress);
        event(Payload::AgentThinking(AgentThinking {
            progress_percentage,
            ..Default::default()
        }))
    };
    for (event, field, valid) in [
        (fraction(0.0), "", true),
        (fraction(-0.0), "", true),
        (fraction(1.0), "", true),
        (
            fraction(1.0 + f64::EPSILON),
            "tool_progress.fraction",
            false,
        ),
        (
            fraction(-f64::MIN_POSITIVE),
            "tool_progress.fraction",
            false,
        ),
        (fraction(f64::NAN), "tool_progress.fraction", false),
        (progress(0.0), "", true),
        (progress(100.0), "", true),
        (
            progress(100.000_000_1),
            "agent_thinking.progress_percentage",
            false,
        ),
        (progress(-1.0), "agent_thinking.progress_percentage", false),
        (
            progress(f64::INFINITY),
            "agent_thinking.progress_percentage",
            false,
        ),
    ] {
        if valid {
            assert_ok(&event);
        } else {
            assert_refused(&event, field, "must be from 0 to");
        }
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
    let snapshot = |snapshot| event(Payload::StateSnapshot(StateSnapshot { snapshot }));
    assert_ok(&snapshot(None));
    assert_ok(&snapshot(Some(null(0))));
    assert_refused(
        &snapshot(Some(Value::default())),
        "state_snapshot.snapshot",
        "no kind",
    );
    let nan = Some(Value::from(f64::NAN));
    let completed = AgentCompleted {
        output: nan.clone().map(agent_completed::Output::Result),
        ..Default::default()
    };
    assert_refused(
        &event(Payload::AgentCompleted(completed)),
        "agent_completed.result",
        "finite",
    );
    let completed = ToolCompleted {
        output: nan.map(tool_completed::Output::Result),
        ..Default::default()
    };
    assert_refused(
        &event(Payload::ToolCompleted(completed)),
        "tool_completed.result",
        "finite",
    );
    let data = Some(prost_types::Struct {
        fields: [("k".into(), Value::default())].into(),
    });
    let custom = Custom {
        name: "x".into(),
        data,
    };
    assert_refused(&event(Payload::Custom(custom)), "custom.data.k", "no kind");
}

#[test]
fn values_nest_up_to_32_deep() {
    let with_struct = |depth| {
        tool(|tool| tool.input = Some(tool_executing::Input::Parameters(nested_struct(depth))))
    };
    assert_ok(&with_struct(32));
    let path = "tool_executing.parameters".to_owned() + &".a".repeat(32);
    assert_refused(&with_struct(33), &path, "nests deeper than 32");

    let with_list = |depth| {
        let snapshot = Some(nested_list(depth));
        event(Payload::StateSnapshot(StateSnapshot { snapshot }))
    };
    assert_ok(&with_list(32));
    let path = "state_snapshot.snapshot".to_owned() + &"[0]".repeat(32);
    assert_refused(&with_list(33), &path, "nests deeper than 32");

    // The operation that it stands in counts as a level.
    let operand = |depth| {
        let operation = PatchOperation {
            op: PatchOp::Add.into(),
            value: Some(nested_list(depth)),
            ..PatchOperation::default()
        };
        event(Payload::StateDelta(StateDelta {
            operations: vec![operation],
        }))
    };
    assert_ok(&operand(31));
    let path = "state_delta.operations[0].value".to_owned() + &"[0]".repeat(31);
    assert_refused(&operand(32), &path, "nests deeper than 32");

    // So deep that protobuf's own limit comes first.
    assert_refused(&with_struct(60), "", "cannot be decoded");
    assert_refused(&with_list(90), "", "cannot be decoded");
}

#[test]
fn json_twins() {
    assert_ok(&parameters_json(r#" {"id":12345678901234567890} "#));
    for (text, rule) in [
        ("", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("{\"a\":1,}", "is not JSON"),
        ("{\"a\":NaN}", "is not JSON"),
        (r#"{"a":"\ud800"}"#, "surrogate"),
    ] {
        assert_refused(
            &parameters_json(text),
            "tool_executing.parameters_json",
            rule,
        );
    }
    let result = |text: &str| {
        let output = Some(tool_completed::Output::ResultJson(text.into()));
        event(Payload::ToolCompleted(ToolCompleted {
            output,
            ..Default::default()
        }))
    };
    assert_ok(&result("[1]"));
    assert_ok(&result("1e999"));
    assert_refused(&result("[1"), "tool_completed.result_json", "is not JSON");
    let result = |text: &str| {
        let output = Some(agent_completed::Output::ResultJson(text.into()));
        event(Payload::AgentCompleted(AgentCompleted {
            output,
            ..Default::default()
        }))
    };
    assert_ok(&result("null"));
    assert_refused(&result("nul"), "agent_completed.result_json", "is not JSON");
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_ok(&result(&deep(32)));
    assert_refused(
        &result(&deep(33)),
        "agent_completed.result_json",
        "deeper than 32",
    );
}

#[test]
fn unknown_enum_values() {
    let status = |status| {
        event(Payload::ToolCompleted(ToolCompleted {
            status,
            ..Default::default()
        }))
    };
    assert_ok(&status(2));
    assert_refused(&status(3), "tool_completed.status", "unknown");
    assert_refused(&status(-1), "tool_completed.status", "unknown");
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
