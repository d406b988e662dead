//! What breaks a rule and does not refuse its event: each with the value that is stored instead.

use prost_types::{Duration, Timestamp, Value, value::Kind};

use super::*;
use crate::{
    event::Action::{self, Clamped, Corrected, Dropped, Nulled, Truncated},
    proto::v1::{
        AgentCompleted, AgentFailed, AgentStarted, AgentThinking, AgentWaiting, Custom, Message,
        PatchOp, PatchOperation, StateDelta, StateSnapshot, TextDelta, ToolCompleted, ToolProgress,
        ToolStatus, Usage, agent_completed, tool_completed,
    },
};

/// What was changed in an event: the fields and what was done.
type Changes = Vec<(String, Action)>;

/// What is stored of `event`, and what was changed in it.
#[track_caller]
fn stored(event: &v1::Event) -> (v1::Event, Changes) {
    let accepted = accept(event).unwrap_or_else(|refusal| panic!("{event:?}: {refusal}"));
    let change = |a: &crate::event::Adjustment| {
        assert!(!a.reason.is_empty(), "{a:?}");
        (a.field.to_string(), a.action)
    };
    let changes = accepted.adjustments.iter().map(change).collect();
    (body(&accepted), changes)
}

fn change(field: &str, action: Action) -> Changes {
    vec![(field.to_owned(), action)]
}

#[track_caller]
fn assert_untouched(event: &v1::Event) {
    assert_eq!(stored(event).1, [], "{event:?}");
}

/// A terminal event with a change.
fn with(change: impl FnOnce(&mut v1::Event)) -> v1::Event {
    let mut event = event(Payload::AgentCompleted(AgentCompleted::default()));
    change(&mut event);
    event
}

#[test]
fn a_time_out_of_range_is_dropped() {
    for (seconds, nanos, valid) in [
        (0, 0, true),
        (-62_135_596_800, 0, true),
        (-62_135_596_801, 999_999_999, false),
        (253_402_300_799, 999_999_999, true),
        (253_402_300_800, 0, false),
        (0, 1_000_000_000, false),
        (0, -1, false),
        (i64::MIN, i32::MIN, false),
    ] {
        let sent = with(|e| e.occurred_at = Some(Timestamp { seconds, nanos }));
        if valid {
            assert_untouched(&sent);
        } else {
            let (event, changes) = stored(&sent);
            assert_eq!(event.occurred_at, None);
            assert_eq!(changes, change("occurred_at", Dropped));
        }
    }
}

#[test]
fn durations_are_moved_into_their_range() {
    type Make = fn(Duration) -> Payload;
    type Read = fn(Payload) -> Option<Duration>;
    let completed: (Make, Read) = (
        |span| {
            Payload::AgentCompleted(AgentCompleted {
                execution_time: Some(span),
                ..Default::default()
            })
        },
        |payload| match payload {
            Payload::AgentCompleted(p) => p.execution_time,
            _ => None,
        },
    );
    let tool: (Make, Read) = (
        |span| {
            Payload::ToolCompleted(ToolCompleted {
                execution_time: Some(span),
                ..Default::default()
            })
        },
        |payload| match payload {
            Payload::ToolCompleted(p) => p.execution_time,
            _ => None,
        },
    );
    let silence: (Make, Read) = (
        |span| {
            Payload::AgentStarted(AgentStarted {
                silence_timeout: Some(span),
                ..Default::default()
            })
        },
        |payload| match payload {
            Payload::AgentStarted(p) => p.silence_timeout,
            _ => None,
        },
    );
    let wait: (Make, Read) = (
        |span| {
            Payload::AgentWaiting(AgentWaiting {
                max_wait: Some(span),
                ..Default::default()
            })
        },
        |payload| match payload {
            Payload::AgentWaiting(p) => p.max_wait,
            _ => None,
        },
    );
    let (day, longest) = (86_400, (315_576_000_000, 999_999_999));
    let agent_field = "agent_completed.execution_time";
    let tool_field = "tool_completed.execution_time";
    let silence_field = "agent_started.silence_timeout";
    let wait_field = "agent_waiting.max_wait";
    for (arm, field, (seconds, nanos), want) in [
        (completed, agent_field, (0, 0), (0, 0)),
        (completed, agent_field, longest, longest),
        (completed, agent_field, (315_576_000_001, 0), longest),
        (completed, agent_field, (0, -3_000_000), (0, 0)),
        (completed, agent_field, (-1, 0), (0, 0)),
        (completed, agent_field, (1, -1), (0, 999_999_999)),
        (tool, tool_field, (0, 1_000_000_000), (1, 0)),
        (tool, tool_field, (i64::MIN, i32::MIN), (0, 0)),
        (tool, tool_field, (i64::MAX, i32::MAX), longest),
        (silence, silence_field, (0, 999_999_999), (1, 0)),
        (silence, silence_field, (1, 0), (1, 0)),
        (silence, silence_field, (day, 0), (day, 0)),
        (silence, silence_field, (day, 1), (day, 0)),
        (silence, silence_field, (-5, 0), (1, 0)),
        (wait, wait_field, (0, 0), (0, 1)),
        (wait, wait_field, (0, 1), (0, 1)),
        (wait, wait_field, (7 * day, 0), (7 * day, 0)),
        (wait, wait_field, (7 * day, 1), (7 * day, 0)),
    ] {
        let (make, read) = arm;
        let sent = event(make(Duration { seconds, nanos }));
        let (kept, changes) = stored(&sent);
        let span = read(kept.payload.unwrap()).unwrap();
        assert_eq!((span.seconds, span.nanos), want, "{field}");
        let valid = (seconds, nanos) == want;
        let expected = if valid {
            vec![]
        } else {
            change(field, Clamped)
        };
        assert_eq!(changes, expected, "{field} {seconds} {nanos}");
    }
}

#[test]
fn trace_context_follows_w3c() {
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let valid = format!("00-{id}-00f067aa0ba902b7-01");
    assert_untouched(&with(|e| {
        e.traceparent = valid.clone();
        e.tracestate = "v".repeat(512);
    }));
    for later in [
        valid.replacen("00", "01", 1),
        valid.replacen("00", "fe", 1) + "-and-more",
    ] {
        let (event, changes) = stored(&with(|e| {
            e.traceparent = later;
            e.tracestate = "a=b".into();
        }));
        assert_eq!(event.traceparent, valid);
        assert_eq!(event.tracestate, "a=b");
        assert_eq!(changes, change("traceparent", Corrected));
    }
    let zero = "0".repeat(32);
    for text in [
        valid.to_uppercase(),
        valid.replacen("00", "ff", 1),
        valid.replacen("00", "01", 1) + "more",
        format!("{valid}-"),
        format!("{valid}-00"),
        valid[..54].to_owned(),
        format!("00-{zero}-00f067aa0ba902b7-01"),
        format!("00-{id}-0000000000000000-01"),
        format!("00-{id}-00f067aa0ba902b7-0g"),
        "é".repeat(27) + "a",
        "-".repeat(55),
    ] {
        let (event, changes) = stored(&with(|e| e.traceparent = text.clone()));
        assert_eq!(event.traceparent, "", "{text}");
        assert_eq!(changes, change("traceparent", Dropped), "{text}");
        let (event, changes) = stored(&with(|e| {
            e.traceparent = text.clone();
            e.tracestate = "a=b".into();
        }));
        assert_eq!(event.tracestate, "", "{text}");
        assert_eq!(changes[1..], change("tracestate", Dropped), "{text}");
    }
    let members = "k=v,".repeat(150);
    for (text, want, action) in [
        (members.as_str(), &members[..511], Truncated),
        (&"v".repeat(513), "", Dropped),
        ("a=é", "", Dropped),
        ("a=\n", "", Dropped),
    ] {
        let (event, changes) = stored(&with(|e| e.tracestate = text.into()));
        assert_eq!(event.tracestate, want, "{text}");
        assert_eq!(changes, change("tracestate", action), "{text}");
    }
}

#[test]
fn invalid_labels_are_dropped_and_the_first_32_stay() {
    let numbered = |count: usize| (0..count).map(|n| (format!("k{n:02}"), String::new()));
    assert_untouched(&with(|e| e.labels = numbered(32).collect()));
    let (event, changes) = stored(&with(|e| e.labels = numbered(40).collect()));
    assert_eq!(event.labels, numbered(32).collect());
    assert_eq!(changes, change("labels", Dropped));

    let fine = || ("fine".to_owned(), "v".to_owned());
    let label = |key: &str, value: &str| {
        let odd = (key.to_owned(), value.to_owned());
        with(|e| e.labels = [odd, fine()].into())
    };
    assert_untouched(&label(&"é".repeat(63), &"é".repeat(256)));
    assert_untouched(&label("k", ""));
    let cut = format!("labels[\"{}...\"]", "k".repeat(48));
    for (sent, field) in [
        (label("", "v"), "labels[\"\"]"),
        (label(&"k".repeat(64), "v"), &cut),
        (label("k", &"v".repeat(257)), "labels.k"),
        (label("k", "a\tb"), "labels.k"),
        (label("a\tb", "v"), "labels[\"a\\tb\"]"),
    ] {
        let (event, changes) = stored(&sent);
        assert_eq!(event.labels, [fine()].into());
        assert_eq!(changes, change(field, Dropped));
    }
}

#[test]
fn usage_is_clamped_and_its_names_are_cut() {
    let most = (1 << 53) - 1;
    let sent = with(|e| {
        e.usage = Some(Usage {
            provider: "a\rb".into(),
            model: "é".repeat(129),
            input_tokens: most + 1,
            output_tokens: u64::MAX,
            cost_nano_usd: Some(1 << 60),
            ..Usage::default()
        });
    });
    let want = Usage {
        provider: "a b".into(),
        model: "é".repeat(128),
        input_tokens: most,
        output_tokens: most,
        cost_nano_usd: Some(most),
        ..Usage::default()
    };
    let (event, changes) = stored(&sent);
    assert_eq!(event.usage, Some(want));
    let want = [
        ("usage.provider", Corrected),
        ("usage.model", Truncated),
        ("usage.input_tokens", Clamped),
        ("usage.output_tokens", Clamped),
        ("usage.cost_nano_usd", Clamped),
    ];
    assert_eq!(
        changes,
        want.map(|(field, action)| (field.to_owned(), action))
    );
    // Sums are sums of stored values.
    let consumed = accept(&sent).unwrap().usage.unwrap();
    assert_eq!((consumed.tokens.input, &*consumed.provider), (most, "a b"));
}

#[test]
fn short_texts_are_cut() {
    let code = |code: String| {
        Payload::AgentFailed(AgentFailed {
            code,
            ..Default::default()
        })
    };
    let delta_role = |role: String| {
        Payload::TextDelta(TextDelta {
            role,
            ..Default::default()
        })
    };
    let role = |role: String| {
        Payload::Message(Message {
            role,
            ..Default::default()
        })
    };
    let makes: [(&str, &dyn Fn(String) -> Payload); 3] = [
        ("agent_failed.code", &code),
        ("text_delta.role", &delta_role),
        ("message.role", &role),
    ];
    for (field, make) in makes {
        assert_untouched(&event(make("é".repeat(128))));
        let (cut, changes) = stored(&event(make("é".repeat(129))));
        assert_eq!(cut.payload, Some(make("é".repeat(128))));
        assert_eq!(changes, change(field, Truncated));
        let (mended, changes) = stored(&event(make("\u{1b}[31mred\n".into())));
        assert_eq!(mended.payload, Some(make(" [31mred ".into())));
        assert_eq!(changes, change(field, Corrected));
    }
}

#[test]
fn numbers_are_moved_into_their_range() {
    let fraction = |fraction| {
        Payload::ToolProgress(ToolProgress {
            fraction,
            ..Default::default()
        })
    };
    let progress = |progress_percentage| {
        Payload::AgentThinking(AgentThinking {
            progress_percentage,
            ..Default::default()
        })
    };
    for number in [0.0, -0.0, 1.0] {
        assert_untouched(&event(fraction(Some(number))));
        assert_untouched(&event(progress(Some(number * 100.0))));
    }
    let fraction_field = "tool_progress.fraction";
    let progress_field = "agent_thinking.progress_percentage";
    let (over, under) = (1.0 + f64::EPSILON, -f64::MIN_POSITIVE);
    for (sent, kept, field, action) in [
        (
            fraction(Some(over)),
            fraction(Some(1.0)),
            fraction_field,
            Clamped,
        ),
        (
            fraction(Some(under)),
            fraction(Some(0.0)),
            fraction_field,
            Clamped,
        ),
        (
            fraction(Some(f64::NAN)),
            fraction(None),
            fraction_field,
            Dropped,
        ),
        (
            progress(Some(100.1)),
            progress(Some(100.0)),
            progress_field,
            Clamped,
        ),
        (
            progress(Some(f64::INFINITY)),
            progress(Some(100.0)),
            progress_field,
            Clamped,
        ),
    ] {
        let (event, changes) = stored(&event(sent));
        assert_eq!(event.payload, Some(kept));
        assert_eq!(changes, change(field, action));
    }
}

fn null() -> Value {
    Value {
        kind: Some(Kind::NullValue(0)),
    }
}

fn object(key: &str, value: Value) -> Value {
    Value::from(std::collections::BTreeMap::from([(key.to_owned(), value)]))
}

#[test]
fn what_json_cannot_hold_is_null() {
    let agent = |value| {
        Payload::AgentCompleted(AgentCompleted {
            output: Some(agent_completed::Output::Result(value)),
            ..Default::default()
        })
    };
    let tool = |value| {
        Payload::ToolCompleted(ToolCompleted {
            status: ToolStatus::Succeeded.into(),
            output: Some(tool_completed::Output::Result(value)),
            ..Default::default()
        })
    };
    let snapshot = |value| {
        Payload::StateSnapshot(StateSnapshot {
            snapshot: Some(value),
        })
    };
    let delta = |value| {
        Payload::StateDelta(StateDelta {
            operations: vec![PatchOperation {
                op: PatchOp::Add.into(),
                value: Some(value),
                ..PatchOperation::default()
            }],
        })
    };
    let custom = |value| {
        let fields = [("k".to_owned(), value)].into();
        Payload::Custom(Custom {
            name: "x".into(),
            data: Some(prost_types::Struct { fields }),
        })
    };
    type Make<'a> = &'a dyn Fn(Value) -> Payload;
    let places: [(&str, Make<'_>); 5] = [
        ("agent_completed.result", &agent),
        ("tool_completed.result", &tool),
        ("state_snapshot.snapshot", &snapshot),
        ("state_delta.operations[0].value", &delta),
        ("custom.data.k", &custom),
    ];
    let unknown = Value {
        kind: Some(Kind::NullValue(5)),
    };
    for (place, make) in places {
        for odd in [
            Value::from(f64::NAN),
            Value::from(f64::INFINITY),
            Value::default(),
            unknown.clone(),
        ] {
            let wrap = |value| object("a b", Value::from(vec![string("fine"), value]));
            let (kept, changes) = stored(&event(make(wrap(odd))));
            assert_eq!(kept.payload, Some(make(wrap(null()))));
            let field = format!(r#"{place}["a b"][1]"#);
            assert_eq!(changes, change(&field, Nulled));
        }
        assert_untouched(&event(make(Value::from(f64::MAX))));
    }
}

#[test]
fn what_nests_too_deep_is_null() {
    let snapshot = |value| {
        Payload::StateSnapshot(StateSnapshot {
            snapshot: Some(value),
        })
    };
    assert_untouched(&event(snapshot(nested_list(32))));
    let (kept, changes) = stored(&event(snapshot(nested_list(33))));
    let want = (0..32).fold(null(), |inner, _| Value::from(vec![inner]));
    assert_eq!(kept.payload, Some(snapshot(want)));
    let field = "state_snapshot.snapshot".to_owned() + &"[0]".repeat(32);
    assert_eq!(changes, change(&field, Nulled));

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
    assert_untouched(&operand(31));
    let field = "state_delta.operations[0].value".to_owned() + &"[0]".repeat(31);
    assert_eq!(stored(&operand(32)).1, change(&field, Nulled));
}

#[test]
fn a_result_that_is_no_json_is_null() {
    let tool = |text: &str| {
        Payload::ToolCompleted(ToolCompleted {
            status: ToolStatus::Succeeded.into(),
            output: Some(tool_completed::Output::ResultJson(text.into())),
            ..Default::default()
        })
    };
    let agent = |text: &str| {
        Payload::AgentCompleted(AgentCompleted {
            output: Some(agent_completed::Output::ResultJson(text.into())),
            ..Default::default()
        })
    };
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    type Make<'a> = &'a dyn Fn(&str) -> Payload;
    let places: [(&str, Make<'_>); 2] = [
        ("tool_completed.result_json", &tool),
        ("agent_completed.result_json", &agent),
    ];
    for (field, make) in places {
        for fine in ["[1]", "1e999", "null", &deep(32)] {
            assert_untouched(&event(make(fine)));
        }
        for odd in ["", "[1", "nul", "{\"a\":NaN}", &deep(33)] {
            let (kept, changes) = stored(&event(make(odd)));
            assert_eq!(kept.payload, Some(make("null")), "{odd}");
            assert_eq!(changes, change(field, Nulled), "{odd}");
        }
    }
}

#[test]
fn the_end_of_a_tool_call_needs_no_valid_status_and_name() {
    let completed = |status, tool_name: &str| {
        event(Payload::ToolCompleted(ToolCompleted {
            tool_call_id: "c1".into(),
            status,
            tool_name: tool_name.into(),
            ..Default::default()
        }))
    };
    assert_untouched(&completed(2, "search"));
    for status in [99, -1] {
        let (kept, changes) = stored(&completed(status, "search"));
        let want = completed(ToolStatus::Succeeded.into(), "search").payload;
        assert_eq!(kept.payload, want);
        assert_eq!(changes, change("tool_completed.status", Dropped));
    }
    for name in ["n".repeat(129), "\n".into()] {
        let (kept, changes) = stored(&completed(1, &name));
        assert_eq!(kept.payload, completed(1, "").payload);
        assert_eq!(changes, change("tool_completed.tool_name", Dropped));
    }
}

/// The largest event.
const LIMIT: usize = 64 * 1024;

fn agent_completed(message: &str, result: Option<Value>) -> v1::Event {
    event(Payload::AgentCompleted(AgentCompleted {
        message: message.into(),
        output: result.map(agent_completed::Output::Result),
        ..Default::default()
    }))
}

#[test]
fn texts_of_an_end_are_cut_to_fit() {
    let long = |bytes: usize| "\u{1F600}".repeat(bytes / 4);
    let tool = |error: String, result: Option<Value>| {
        event(Payload::ToolCompleted(ToolCompleted {
            tool_call_id: "c1".into(),
            status: ToolStatus::Failed.into(),
            error,
            output: result.map(tool_completed::Output::Result),
            ..Default::default()
        }))
    };
    let failed = |message: String| {
        event(Payload::AgentFailed(AgentFailed {
            code: "E".into(),
            message,
            ..Default::default()
        }))
    };
    let cancelled = |reason| event(Payload::AgentCancelled(v1::AgentCancelled { reason }));
    let text = |bytes| string(&long(bytes));
    let (tool_result, tool_error) = ("tool_completed.result", "tool_completed.error");
    for (sent, fields) in [
        (failed(long(LIMIT)), &["agent_failed.message"][..]),
        (failed(long(1 << 20)), &["agent_failed.message"]),
        (cancelled(long(100_000)), &["agent_cancelled.reason"]),
        (
            agent_completed(&long(100_000), None),
            &["agent_completed.message"],
        ),
        (
            agent_completed("done", Some(text(3 << 20))),
            &["agent_completed.result"],
        ),
        (tool(long(100_000), Some(Value::from(1.0))), &[tool_error]),
        (tool("no".into(), Some(text(100_000))), &[tool_result]),
        (
            tool(long(200_000), Some(text(100_000))),
            &[tool_error, tool_result],
        ),
    ] {
        let (kept, changes) = stored(&sent);
        let want: Changes = fields.iter().flat_map(|f| change(f, Truncated)).collect();
        assert_eq!(changes, want);
        let whole = v1::Event {
            event_id: "e1".into(),
            user_id: "u1".into(),
            run_id: "r1".into(),
            agent_name: "researcher".into(),
            ..kept
        };
        // A character is not cut.
        let size = whole.encoded_len();
        assert!((LIMIT - 8..=LIMIT).contains(&size), "{want:?}: {size}");
    }
}

#[test]
fn a_result_that_is_too_large_is_null() {
    let list = |count: usize| Value::from(vec![Value::from(1.0); count]);
    let (kept, changes) = stored(&agent_completed("done", Some(list(10_000))));
    assert_eq!(kept.payload, agent_completed("done", Some(null())).payload);
    assert_eq!(changes, change("agent_completed.result", Nulled));

    // A small one stays, and the message makes room.
    let (kept, changes) = stored(&agent_completed(&"x".repeat(LIMIT), Some(list(100))));
    assert_eq!(changes, change("agent_completed.message", Truncated));
    let Some(Payload::AgentCompleted(kept)) = kept.payload else {
        panic!("{kept:?}");
    };
    assert_eq!(
        kept.output,
        Some(agent_completed::Output::Result(list(100)))
    );

    let json = |text: String| {
        event(Payload::ToolCompleted(ToolCompleted {
            status: ToolStatus::Succeeded.into(),
            output: Some(tool_completed::Output::ResultJson(text)),
            ..Default::default()
        }))
    };
    let (kept, changes) = stored(&json(format!("[{}1]", "1,".repeat(40_000))));
    assert_eq!(kept.payload, json("null".into()).payload);
    assert_eq!(changes, change("tool_completed.result_json", Nulled));

    let many = |e: &mut v1::Event| {
        e.labels = (0..100_000)
            .map(|n| (format!("k{n:06}"), String::new()))
            .collect();
    };
    let (kept, changes) = stored(&with(many));
    let first: std::collections::BTreeMap<_, _> = (0..32)
        .map(|n| (format!("k{n:06}"), String::new()))
        .collect();
    assert_eq!(kept.labels, first);
    assert_eq!(
        changes,
        [change("labels", Dropped), change("labels", Dropped)].concat()
    );
}

#[test]
fn a_result_beyond_protobufs_own_depth_is_null() {
    let deep = Value {
        kind: Some(Kind::StructValue(nested_struct(60))),
    };
    let (kept, changes) = stored(&agent_completed("done", Some(deep.clone())));
    assert_eq!(kept.payload, agent_completed("done", Some(null())).payload);
    assert_eq!(changes, change("agent_completed.result", Nulled));
    // Also where the event is too large.
    let (_, changes) = stored(&agent_completed(&"x".repeat(LIMIT), Some(deep)));
    let want = [
        change("agent_completed.result", Nulled),
        change("agent_completed.message", Truncated),
    ];
    assert_eq!(changes, want.concat());
}

#[test]
fn adjustments_are_bounded() {
    let list = |count| Value::from(vec![Value::from(f64::NAN); count]);
    let completed = |value| {
        event(Payload::AgentCompleted(AgentCompleted {
            output: Some(agent_completed::Output::Result(value)),
            ..Default::default()
        }))
    };
    let all = accept(&completed(list(32))).unwrap().adjustments;
    assert_eq!(all.iter().count(), 32);
    assert_eq!(
        &*all.iter().last().unwrap().reason,
        "must be a finite number"
    );
    let all = accept(&completed(list(1_000))).unwrap().adjustments;
    assert_eq!(all.iter().count(), 32);
    assert_eq!(
        &*all.iter().last().unwrap().reason,
        "must be a finite number; 968 more values were adjusted"
    );
    // Long paths take their bytes.
    let deep = (0..10).fold(list(32), |inner, _| object(&"k".repeat(40), inner));
    let all = accept(&completed(deep)).unwrap().adjustments;
    let bytes: usize = all.iter().map(|a| a.field.len() + a.reason.len()).sum();
    assert!(bytes < 2048 + 400, "{bytes}");
    assert!(
        all.iter()
            .last()
            .unwrap()
            .reason
            .ends_with("more values were adjusted")
    );
}

#[test]
fn an_adjusted_delta_is_not_joined() {
    let delta = |role: String| {
        event(Payload::TextDelta(TextDelta {
            role,
            ..Default::default()
        }))
    };
    assert!(accept(&delta("r".repeat(128))).unwrap().joinable);
    assert!(!accept(&delta("r".repeat(129))).unwrap().joinable);
}
