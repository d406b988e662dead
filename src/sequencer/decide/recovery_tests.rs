use super::*;
use crate::{
    event::{ToolCallId, ToolName},
    run::RunState,
};

const LATER: Timestamp = Timestamp::from_millis(NOW.as_millis() + 60_000);

fn enforcing() -> Rules {
    Rules {
        mode: Mode::Enforce,
        recovery_grace: HOUR,
        ..RULES.clone()
    }
}

fn child(event: Event, parent: &str) -> Event {
    Event {
        parent_run_id: RunId::new(parent).ok(),
        ..event
    }
}

fn tool(id: &str, run: &str, step: Step) -> Event {
    let kind = match step {
        Step::ToolBegins { .. } => Kind::ToolExecuting,
        _ => Kind::ToolCompleted,
    };
    Event {
        step,
        ..e(id, run, kind)
    }
}

fn ends_call(id: &str, run: &str) -> Event {
    let call = Step::ToolEnds {
        id: ToolCallId::new("c").ok(),
        name: None,
        call: None,
    };
    tool(id, run, call)
}

/// A stream with the run `known`, which is open, and `over`, which has ended.
fn known(since: Option<Timestamp>) -> StreamState {
    let starts = ["known", "over"].map(|run| e(run, run, Kind::AgentStarted));
    let ends = e("over-2", "over", Kind::AgentCompleted);
    let mut state = after([starts.to_vec(), vec![ends]].concat());
    state.epoch_since = since;
    state
}

/// What becomes of `event`, and its run afterwards: its state, whether it is recovered, its open calls.
fn decided(state: &StreamState, now: Timestamp, event: Event) -> (String, Option<Run>) {
    let (rules, foreign) = (enforcing(), HashSet::new());
    let mut group = Group::new(&STREAM, state, &rules, now, &foreign);
    let run_id = event.run_id.clone().unwrap();
    let word = word(&group.decide(&Arc::new(event)));
    (word, group.runs.run(&run_id).cloned())
}

#[test]
fn what_a_store_may_have_lost_is_accepted_for_a_while() {
    let waits = Step::wait(None);
    let begins = Step::ToolBegins {
        id: ToolCallId::new("c").unwrap(),
        name: ToolName::new("search").unwrap(),
        arguments: None,
        call: None,
    };
    let not_started = "RUN_NOT_STARTED";
    let not_open = "PARENT_NOT_OPEN";
    use RunState::{Completed, Running, Waiting};
    // An event, what becomes of it by the rules, and how its run stands where it is accepted all the same.
    let lost = [
        (thinks("1", "r"), not_started, Running),
        (e("1", "r", Kind::AgentCompleted), not_started, Completed),
        (
            Event {
                step: waits,
                ..e("1", "r", Kind::AgentWaiting)
            },
            not_started,
            Waiting,
        ),
        (tool("1", "r", begins), not_started, Running),
        (ends_call("1", "r"), not_started, Running),
        (ends_call("1", "known"), "TOOL_CALL_UNKNOWN", Running),
        (
            child(e("1", "r", Kind::AgentStarted), "lost"),
            not_open,
            Running,
        ),
        (child(thinks("1", "r"), "lost"), not_started, Running),
    ];
    for (event, refused, state) in lost {
        for (since, now, recovers) in [
            (None, LATER, false),
            (Some(NOW), LATER, true),
            (Some(NOW), NOW + HOUR, false),
        ] {
            let (word, run) = decided(&known(since), now, event.clone());
            let context = format!("{event:?} since {since:?} at {now}");
            match recovers {
                true => {
                    let run = run.expect("it is known now");
                    assert_eq!(word, "store 0", "{context}");
                    assert_eq!((run.state, run.recovered), (state, true), "{context}");
                    assert_eq!(run.silence_timeout, RULES.defaults.silence_timeout);
                }
                false => assert_eq!(word, refused, "{context}"),
            }
        }
    }
}

#[test]
fn what_is_known_is_not_lost() {
    let state = known(Some(NOW));
    for (event, want) in [
        (e("1", "known", Kind::AgentStarted), "RUN_ALREADY_STARTED"),
        (thinks("1", "over"), "RUN_ENDED"),
        (
            child(e("1", "r", Kind::AgentStarted), "over"),
            "PARENT_NOT_OPEN",
        ),
        (child(thinks("1", "r"), "over"), "RUN_NOT_STARTED"),
        (thinks("1", "known"), "store 0"),
    ] {
        let (word, run) = decided(&state, LATER, event.clone());
        assert_eq!(word, want, "{event:?}");
        assert!(!run.is_some_and(|run| run.recovered), "{event:?}");
    }
}

#[test]
fn a_recovered_run_is_bounded_and_goes_on_by_the_rules() {
    let (rules, foreign, state) = (enforcing(), HashSet::new(), known(Some(NOW)));
    let mut group = Group::new(&STREAM, &state, &rules, LATER, &foreign);
    let mut decide = |event: Event| word(&group.decide(&Arc::new(event)));
    // Three are open at most, `known` among them; one that ends at once takes no place.
    let begun = ["a", "b", "c"].map(|run| decide(thinks(run, run)));
    assert_eq!(begun, ["store 0", "store 1", "LIMIT_EXCEEDED"]);
    assert_eq!(decide(e("c2", "c", Kind::AgentFailed)), "store 2");
    assert_eq!(decide(thinks("c3", "c")), "RUN_ENDED");
    assert_eq!(
        decide(e("a2", "a", Kind::AgentStarted)),
        "RUN_ALREADY_STARTED"
    );
    assert_eq!(decide(e("a3", "a", Kind::AgentCompleted)), "store 3");
    let drafts = group.into_drafts();
    let sequences: Vec<u64> = drafts.iter().map(|draft| draft.run_sequence.0).collect();
    assert_eq!(sequences, [1, 1, 1, 2]);
    let summed: Vec<bool> = drafts.iter().map(|draft| draft.summary.is_some()).collect();
    assert_eq!(summed, [false, false, true, true]);
}

#[test]
fn nothing_begins_a_run_whose_start_was_refused() {
    let state = known(Some(NOW));
    let (rules, foreign) = (enforcing(), HashSet::new());
    let mut group = Group::new(&STREAM, &state, &rules, LATER, &foreign);
    let events = [
        child(e("1", "r", Kind::AgentStarted), "over"),
        thinks("2", "r"),
        e("3", "r", Kind::AgentCompleted),
        thinks("4", "lost"),
    ];
    let words = events.map(|event| word(&group.decide(&Arc::new(event))));
    let not_started = "RUN_NOT_STARTED";
    assert_eq!(
        words,
        ["PARENT_NOT_OPEN", not_started, not_started, "store 0"]
    );
}
