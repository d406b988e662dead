//! What ends a wait for a person.

use super::*;

fn named_wait(wait: &str, call: &str, minutes: u32) -> Step {
    Step::Wait(Box::new(Wait {
        max_wait: Some(minutes * MINUTE),
        id: WaitId::new(wait).ok(),
        tool_call_id: ToolCallId::new(call).ok(),
        ..Wait::default()
    }))
}

fn resume(wait: &str) -> Step {
    Step::Resume {
        id: WaitId::new(wait).ok(),
    }
}

/// The ids of the open waits, `-` for those without, and how the run stands.
fn waits(runs: &Runs) -> String {
    let run = runs.0.run(&id("r")).unwrap();
    let ids = run.open_waits.iter().map(|open| {
        let id = open.wait.id.as_ref();
        id.map_or("-", |id| id.as_str())
    });
    let ids: Vec<&str> = ids.collect();
    format!("{} {}", run.state.name(), ids.join(","))
        .trim_end()
        .to_owned()
}

/// A run with the open calls `c1` and `c2` and these waits, all within the first minute.
fn waiting(waits: &[Step]) -> Runs {
    let mut runs = Runs::default();
    runs.next("r", Kind::AgentStarted, start(), Duration::ZERO);
    runs.next("r", Kind::ToolExecuting, begins("c1"), Duration::ZERO);
    runs.next("r", Kind::ToolExecuting, begins("c2"), Duration::ZERO);
    for wait in waits {
        runs.next("r", Kind::AgentWaiting, wait.clone(), Duration::ZERO);
    }
    runs
}

#[test]
fn what_ends_a_wait() {
    let advances = Step::ToolAdvances {
        id: ToolCallId::new("c1").ok(),
        call: None,
    };
    let exactly = |call| Step::ToolEnds {
        id: None,
        name: None,
        call: Some(RunSequence(call)),
    };
    let custom = Kind::Custom("note".into());
    let other = Step::Other;
    let both = "waiting w1,-";
    for (kind, step, want) in [
        (Kind::ToolProgress, advances, both),
        (custom, other.clone(), both),
        (Kind::StateDelta, other.clone(), both),
        (Kind::StateSnapshot, other.clone(), both),
        // `c2` stays open, and the wait is of `c1`.
        (Kind::ToolCompleted, exactly(3), both),
        // A begin that is repeated.
        (Kind::ToolExecuting, begins("c1"), both),
        (Kind::AgentResumed, resume("w9"), both),
        (Kind::AgentWaiting, wait(5), "waiting w1,-,-"),
        (
            Kind::AgentWaiting,
            named_wait("w2", "", 5),
            "waiting w1,-,w2",
        ),
        // The wait with this id is open: the new one replaces it.
        (Kind::AgentWaiting, named_wait("w1", "", 5), "waiting -,w1"),
        (Kind::ToolCompleted, exactly(2), "waiting -"),
        (Kind::AgentThinking, other.clone(), "waiting w1"),
        (Kind::ThinkingDelta, other.clone(), "waiting w1"),
        (Kind::TextDelta, other.clone(), "waiting w1"),
        (Kind::Message, other, "waiting w1"),
        (Kind::ToolExecuting, begins("c3"), "waiting w1"),
        (Kind::AgentResumed, resume("w1"), "waiting -"),
        (Kind::AgentResumed, resume(""), "running"),
        (Kind::AgentCompleted, Step::End, "completed"),
    ] {
        let mut runs = waiting(&[named_wait("w1", "c1", 60), wait(60)]);
        assert_eq!(waits(&runs), both);
        runs.next("r", kind.clone(), step.clone(), MINUTE);
        assert_eq!(waits(&runs), want, "{kind:?} {step:?}");
    }
}

#[test]
fn the_end_of_the_last_call_ends_waits_without_an_id() {
    let mut runs = waiting(&[named_wait("w1", "", 60), wait(60)]);
    runs.next("r", Kind::ToolCompleted, ends("c1", ""), MINUTE);
    assert_eq!(waits(&runs), "waiting w1,-");
    runs.next("r", Kind::ToolCompleted, ends("c2", ""), MINUTE);
    assert_eq!(waits(&runs), "waiting w1");
}

#[test]
fn a_wait_of_a_call_that_begins_later_ends_with_it() {
    let mut runs = waiting(&[named_wait("w1", "c9", 60)]);
    runs.next("r", Kind::ToolExecuting, begins("c9"), MINUTE);
    assert_eq!(waits(&runs), "waiting w1");
    runs.next("r", Kind::ToolCompleted, ends("c9", ""), MINUTE);
    assert_eq!(waits(&runs), "running");
}

#[test]
fn a_run_waits_until_its_last_wait_expires() {
    let mut runs = waiting(&[named_wait("w1", "", 60), named_wait("w2", "", 30)]);
    let until = |runs: &Runs| {
        let run = runs.0.run(&id("r")).unwrap();
        deadline(&runs.0, run).since(NOW).as_secs() / 60
    };
    let other = Kind::Custom("note".into());
    assert_eq!(until(&runs), 60);
    // It expires with the first event after its time.
    runs.next("r", other.clone(), Step::Other, 29 * MINUTE);
    assert_eq!(waits(&runs), "waiting w1,w2");
    runs.next("r", other.clone(), Step::Other, 30 * MINUTE);
    assert_eq!((waits(&runs).as_str(), until(&runs)), ("waiting w1", 60));
    runs.next("r", other.clone(), Step::Other, 50 * MINUTE);
    assert_eq!((waits(&runs).as_str(), until(&runs)), ("waiting w1", 65));
    runs.next("r", other, Step::Other, 60 * MINUTE);
    assert_eq!((waits(&runs).as_str(), until(&runs)), ("running", 75));
}

#[test]
fn a_deadline_is_sooner_only_where_a_wait_ends() {
    let mut runs = waiting(&[named_wait("w1", "", 60), named_wait("w2", "", 30)]);
    let note = Kind::Custom("note".into());
    for (kind, step, sooner) in [
        (note.clone(), Step::Other, false),
        (Kind::AgentResumed, resume("w2"), false),
        (Kind::AgentResumed, resume("w1"), true),
        (note, Step::Other, false),
    ] {
        let effect = runs.next("r", kind.clone(), step, MINUTE);
        assert_eq!(effect.sooner, sooner, "{kind:?}");
    }
}

#[test]
fn only_so_many_waits_count_as_open_beside_another() {
    let runs = waiting(&[named_wait("w1", "", 60), named_wait("w2", "", 30), wait(60)]);
    let run = runs.0.run(&id("r")).unwrap();
    let named = |id: &str| WaitId::new(id).ok();
    for (id, minutes, want) in [
        ("w9", 1, 3),
        ("", 1, 3),
        // It replaces its namesake.
        ("w1", 1, 2),
        // `w2` has expired.
        ("w9", 30, 2),
    ] {
        let beside = run.waits_beside(named(id).as_ref(), NOW + minutes * MINUTE);
        assert_eq!(beside, want, "{id} after {minutes} minutes");
    }
}
