//! Which call an event is about.

use super::*;

/// Of all open calls, their numbers.
fn open_calls(runs: &Runs) -> Vec<u64> {
    let open = &runs.0.run(&id("r")).unwrap().open_tool_calls;
    open.iter().map(|call| call.call_sequence.0).collect()
}

#[test]
fn calls_of_one_id_are_told_apart() {
    let begun = |tool: &str, arguments: &[u8]| Step::ToolBegins {
        id: ToolCallId::new("create").unwrap(),
        name: ToolName::new(tool).unwrap(),
        arguments: Some(ContentHash::of(arguments)),
        call: None,
    };
    let exactly = |call| Step::ToolEnds {
        id: None,
        name: None,
        call: Some(RunSequence(call)),
    };
    let mut runs = Runs::default();
    runs.next("r", Kind::AgentStarted, start(), Duration::ZERO);
    for (tool, arguments) in [
        ("create", b"1"),
        ("create", b"2"),
        ("create", b"3"),
        ("delete", b"1"),
        // It repeats the first.
        ("create", b"1"),
    ] {
        runs.next("r", Kind::ToolExecuting, begun(tool, arguments), MINUTE);
    }
    assert_eq!(open_calls(&runs), [2, 3, 4, 5]);
    let ended = |runs: &mut Runs, step: Step| {
        let run = runs.0.run(&id("r"));
        let event = event("r", Kind::ToolCompleted, step.clone());
        let settled = settle(run, &event, &Defaults::default());
        if let Ok(settled) = settled {
            runs.next("r", Kind::ToolCompleted, step, MINUTE);
            return Ok(settled.call().map(|call| call.0));
        }
        Err(settled.unwrap_err())
    };
    let unknown = Err(Violation::ToolCallUnknown);
    for (step, want, open) in [
        (exactly(4), Ok(Some(4)), &[2, 3, 5][..]),
        (exactly(4), unknown, &[2, 3, 5]),
        (exactly(6), unknown, &[2, 3, 5]),
        (exactly(0), unknown, &[2, 3, 5]),
        (ends("create", "delete"), Ok(Some(5)), &[2, 3]),
        (ends("create", "delete"), unknown, &[2, 3]),
        (ends("create", ""), Ok(Some(2)), &[3]),
        (ends("create", "create"), Ok(Some(3)), &[]),
        (ends("create", ""), unknown, &[]),
    ] {
        assert_eq!(ended(&mut runs, step.clone()), want, "{step:?}");
        assert_eq!(open_calls(&runs), open, "{step:?}");
    }
}

#[test]
fn progress_is_of_the_oldest_open_call_of_its_id_or_of_none() {
    let mut runs = Runs::default();
    runs.next("r", Kind::AgentStarted, start(), Duration::ZERO);
    runs.next("r", Kind::ToolExecuting, begins("c1"), MINUTE);
    runs.next("r", Kind::ToolExecuting, begins("c2"), MINUTE);
    let run = runs.0.run(&id("r"));
    for (call_id, call, want) in [
        ("c2", None, "advances Some(3)"),
        ("c2", Some(2), "advances Some(2)"),
        ("c2", Some(9), "advances None"),
        ("c9", None, "advances None"),
        ("", None, "advances None"),
    ] {
        let step = Step::ToolAdvances {
            id: ToolCallId::new(call_id).ok(),
            call: call.map(RunSequence),
        };
        assert_eq!(word(run, &step), want, "{call_id} {call:?}");
    }
}

#[test]
fn calls_that_an_earlier_version_stored_go_by_their_ids() {
    let mut runs = Runs::default();
    runs.next("r", Kind::AgentStarted, start(), Duration::ZERO);
    runs.next("r", Kind::ToolExecuting, begins("c1"), MINUTE);
    let run = runs.0.get_mut(&id("r")).unwrap();
    run.open_tool_calls[0].call_sequence = RunSequence(0);
    run.open_tool_calls[0].arguments = None;
    runs.next("r", Kind::ToolExecuting, begins("c1"), MINUTE);
    assert_eq!(open_calls(&runs), [0]);
    runs.next("r", Kind::ToolCompleted, ends("c1", ""), MINUTE);
    assert_eq!(open_calls(&runs), [] as [u64; 0]);
}
