//! The state machine, whole: what each step comes to in each state.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::event::{
    ContentHash, Draft, Event, EventId, Kind, Offset, ProducerId, RunId, RunSequence, Source, Step,
    StreamKey, Tenant, ToolCallId, ToolName, UserId, Wait, WaitId,
};

mod calls;
mod waits;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// The runs of one user, as records make them.
#[derive(Default)]
struct Runs(HashMap<RunId, Run>);

impl Runs {
    /// Settles and records an event `after` the start of the test.
    fn next(&mut self, run: &str, kind: Kind, step: Step, after: Duration) -> Effect {
        self.next_of(run, None, kind, step, after)
    }

    fn next_of(
        &mut self,
        run: &str,
        parent: Option<&str>,
        kind: Kind,
        step: Step,
        after: Duration,
    ) -> Effect {
        let run_id = id(run);
        let known = self.0.run(&run_id);
        let sequence = known.map_or(0, |run| run.last_sequence.0) + 1;
        let event = Event {
            parent_run_id: parent.map(id),
            ..event(run, kind, step)
        };
        let step = settle(known, &event, &Defaults::default()).unwrap();
        let draft = Draft {
            step,
            run_sequence: RunSequence(sequence),
            ..Draft::new(Arc::new(event), NOW + after)
        };
        record(&mut self.0, &draft, Offset(sequence))
    }
}

fn id(run: &str) -> RunId {
    RunId::new(run).unwrap()
}

fn event(run: &str, kind: Kind, step: Step) -> Event {
    Event {
        step,
        ..Event::new(
            EventId::new("e").unwrap(),
            StreamKey::new(Tenant::new("t").unwrap(), UserId::new("u").unwrap()),
            Some(id(run)),
            kind,
            Source::new(ProducerId::new("p").unwrap()),
            Bytes::new(),
        )
    }
}

fn start() -> Step {
    Step::of(&Kind::AgentStarted)
}

fn begins(call: &str) -> Step {
    Step::ToolBegins {
        id: ToolCallId::new(call).unwrap(),
        name: ToolName::new("search").unwrap(),
        arguments: Some(ContentHash::of(b"{}")),
        call: None,
    }
}

fn ends(call: &str, tool: &str) -> Step {
    Step::ToolEnds {
        id: ToolCallId::new(call).ok(),
        name: ToolName::new(tool).ok(),
        call: None,
    }
}

fn wait(minutes: u32) -> Step {
    Step::wait(Some(minutes * MINUTE))
}

/// What an event comes to, in a few letters.
fn word(run: Option<&Run>, step: &Step) -> String {
    let event = event("r", Kind::AgentThinking, step.clone());
    match settle(run, &event, &Defaults::default()) {
        Ok(Step::Start { silence_timeout }) => format!("start {:?}", silence_timeout.unwrap()),
        Ok(Step::ToolBegins { id, .. }) => format!("begins {}", id.as_str()),
        Ok(Step::ToolEnds { id, .. }) => format!("ends {}", id.unwrap().as_str()),
        Ok(Step::ToolAdvances { call, .. }) => format!("advances {:?}", call.map(|call| call.0)),
        Ok(Step::Wait(wait)) => format!("wait {:?}", wait.max_wait.unwrap()),
        Ok(Step::Resume { .. }) => "resume".into(),
        Ok(Step::End) => "end".into(),
        Ok(Step::Other) => "other".into(),
        Err(violation) => violation.reason().name().into(),
    }
}

#[test]
fn each_step_in_each_state() {
    let steps = [
        start(),
        Step::Start {
            silence_timeout: Some(MINUTE),
        },
        begins("c1"),
        begins("c9"),
        ends("c2", ""),
        ends("c9", "search"),
        ends("", "search"),
        ends("", "buy"),
        ends("", ""),
        wait(5),
        Step::wait(None),
        Step::End,
        Step::Other,
    ];
    let not_started = [&["start 900s", "start 60s"][..], &["RUN_NOT_STARTED"; 11]].concat();
    let open = [
        "RUN_ALREADY_STARTED",
        "RUN_ALREADY_STARTED",
        "begins c1",
        "begins c9",
        "ends c2",
        "TOOL_CALL_UNKNOWN",
        "ends c1",
        "TOOL_CALL_UNKNOWN",
        "TOOL_CALL_UNKNOWN",
        "wait 300s",
        "wait 86400s",
        "end",
        "other",
    ];
    let ended = ["RUN_ENDED"; 13];
    let states = [
        ("running", None, RunState::Running, &open),
        (
            "waiting",
            Some((Kind::AgentWaiting, wait(1))),
            RunState::Waiting,
            &open,
        ),
        (
            "completed",
            Some((Kind::AgentCompleted, Step::End)),
            RunState::Completed,
            &ended,
        ),
        (
            "failed",
            Some((Kind::AgentFailed, Step::End)),
            RunState::Failed,
            &ended,
        ),
        (
            "cancelled",
            Some((Kind::AgentCancelled, Step::End)),
            RunState::Cancelled,
            &ended,
        ),
    ];
    let came = |run: Option<&Run>| steps.iter().map(|step| word(run, step)).collect::<Vec<_>>();
    assert_eq!(came(None), not_started);
    for (name, last, state, want) in states {
        let mut runs = Runs::default();
        runs.next("r", Kind::AgentStarted, start(), Duration::ZERO);
        runs.next("r", Kind::ToolExecuting, begins("c1"), MINUTE);
        runs.next("r", Kind::ToolExecuting, begins("c2"), MINUTE);
        if let Some((kind, step)) = last {
            runs.next("r", kind, step, MINUTE);
        }
        let run = runs.0.run(&id("r")).unwrap();
        assert_eq!((run.state, run.state.name()), (state, name));
        assert_eq!(came(Some(run)), want, "{name}");
        assert_eq!(run.open_tool_calls.len(), 2, "{name}: they stay listed");
    }
}

#[test]
fn what_is_only_observed_begins_a_run_or_changes_nothing() {
    let observed_as = |run: Option<&Run>, step: Step| {
        observed(
            run,
            &event("r", Kind::AgentThinking, step),
            &Defaults::default(),
        )
    };
    let begins_it = Step::Start {
        silence_timeout: Some(SILENCE_TIMEOUT),
    };
    assert_eq!(observed_as(None, Step::Other), begins_it);
    assert_eq!(observed_as(None, begins("c1")), begins_it);
    assert_eq!(observed_as(None, Step::End), Step::End);
    let mut runs = Runs::default();
    runs.next("r", Kind::AgentStarted, start(), Duration::ZERO);
    let run = runs.0.run(&id("r"));
    for step in [start(), ends("c9", ""), Step::End] {
        assert_eq!(observed_as(run, step), Step::Other);
    }
}

#[test]
fn a_tool_call_is_open_from_its_first_begin_to_its_end() {
    let mut runs = Runs::default();
    runs.next("r", Kind::AgentStarted, start(), Duration::ZERO);
    for minutes in 1..=2 {
        runs.next("r", Kind::ToolExecuting, begins("c1"), minutes * MINUTE);
    }
    let open = &runs.0.run(&id("r")).unwrap().open_tool_calls;
    assert_eq!((open.len(), open[0].started_at), (1, NOW + MINUTE));
    runs.next("r", Kind::ToolCompleted, ends("", "search"), 3 * MINUTE);
    assert!(runs.0.run(&id("r")).unwrap().open_tool_calls.is_empty());
}

#[test]
fn a_source_writes_until_a_higher_term_takes_over() {
    let of = |producer: &str, term| Source {
        producer_id: ProducerId::new(producer).unwrap(),
        term,
    };
    let mut runs = Runs::default();
    runs.next("r", Kind::AgentStarted, start(), Duration::ZERO);
    let run = runs.0.get_mut(&id("r")).unwrap();
    run.source = of("a", 3);
    for (source, want) in [
        (of("a", 3), Ok(())),
        (of("a", 4), Ok(())),
        (of("b", 4), Ok(())),
        (of("a", 2), Err(SourceRefusal::Fenced)),
        (of("b", 2), Err(SourceRefusal::Fenced)),
        (of("b", 3), Err(SourceRefusal::Competing)),
    ] {
        assert_eq!(run.admits(&source), want, "{source:?}");
    }
}

#[test]
fn a_deadline_follows_the_last_sign_of_life_of_the_family() {
    let mut runs = Runs::default();
    let until = |runs: &Runs, run: &str| {
        let minutes = deadline(&runs.0, runs.0.run(&id(run)).unwrap())
            .since(NOW)
            .as_secs()
            / 60;
        (run.to_owned(), minutes)
    };
    let both = |runs: &Runs| [until(runs, "p").1, until(runs, "c").1];
    let other = Kind::AgentThinking;
    runs.next("p", Kind::AgentStarted, start(), Duration::ZERO);
    runs.next_of("c", Some("p"), Kind::AgentStarted, start(), 2 * MINUTE);
    assert_eq!(both(&runs), [17, 17]);
    runs.next("c", other.clone(), Step::Other, 5 * MINUTE);
    assert_eq!(both(&runs), [20, 20]);
    runs.next("p", other.clone(), Step::Other, 6 * MINUTE);
    assert_eq!(both(&runs), [21, 20]);
    // A wait is as long as it says, but no shorter than silence may be.
    runs.next("c", Kind::AgentWaiting, wait(60), 7 * MINUTE);
    assert_eq!(both(&runs), [67, 67]);
    runs.next("p", other, Step::Other, 8 * MINUTE);
    assert_eq!(both(&runs), [67, 67]);
    let resumed = Step::Resume { id: None };
    runs.next("c", Kind::AgentResumed, resumed, 9 * MINUTE);
    runs.next("c", Kind::AgentWaiting, wait(1), 9 * MINUTE);
    assert_eq!(both(&runs), [24, 24]);
    // What ended keeps nobody alive, but its last sign counts.
    runs.next("c", Kind::AgentCompleted, Step::End, 12 * MINUTE);
    assert_eq!(until(&runs, "p").1, 27);
    assert!(runs.0.run(&id("p")).unwrap().open_children.is_empty());
}

#[test]
fn descendants_come_before_what_started_them() {
    let mut runs = Runs::default();
    runs.next("a", Kind::AgentStarted, start(), Duration::ZERO);
    for (run, parent) in [("b", "a"), ("c", "a"), ("d", "b"), ("e", "d")] {
        runs.next_of(run, Some(parent), Kind::AgentStarted, start(), MINUTE);
    }
    let names = |ids: Vec<RunId>| {
        ids.iter()
            .map(|id| id.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(open_descendants(&runs.0, &id("a"))),
        ["e", "d", "c", "b"]
    );
    assert_eq!(names(open_ancestors(&runs.0, &id("e"))), ["d", "b", "a"]);
    // Where runs are only observed, they may name each other: that ends too.
    runs.0.get_mut(&id("a")).unwrap().parent_run_id = Some(id("e"));
    assert_eq!(open_ancestors(&runs.0, &id("e")).len(), 64);
}
