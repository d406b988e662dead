use prost_types::{Duration as Span, Struct};

use super::*;
use crate::{
    clock::{Clock, Entropy},
    engine::{Commit, memory::MemoryEngine},
    event::{
        ContentHash, Event, EventId, Kind, ProducerId, RunId, RunSequence, StreamKey, Tenant,
        ToolName, UserId,
    },
    reason::Reason,
    run::Run,
    telemetry::Metrics,
};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn stream() -> StreamKey {
    StreamKey::new(Tenant::new("t").unwrap(), UserId::new("u").unwrap())
}

fn run_id(id: &str) -> RunId {
    RunId::new(id).unwrap()
}

/// The `number`th event of `run`, so many milliseconds after the start.
fn draft(run: &str, number: u64, payload: Payload, (kind, step): (Kind, Step)) -> Draft {
    let body = v1::Event {
        payload: Some(payload),
        ..Default::default()
    };
    let event = Event {
        event_id: EventId::new(&format!("{run}-{number}")).unwrap(),
        stream: stream(),
        run_id: Some(run_id(run)),
        thread_id: None,
        parent_run_id: None,
        agent_name: None,
        kind,
        step: step.clone(),
        source: Source {
            producer_id: ProducerId::new("svc").unwrap(),
            term: 1,
        },
        usage: None,
        adjustments: Default::default(),
        content: ContentHash::of(b""),
        joinable: false,
        body: body.encode_to_vec().into(),
    };
    Draft {
        run_sequence: RunSequence(number),
        step,
        ..Draft::new(Arc::new(event), START + Duration::from_millis(number))
    }
}

fn started(run: &str) -> Draft {
    let step = Step::Start {
        silence_timeout: None,
    };
    let payload = Payload::AgentStarted(v1::AgentStarted::default());
    draft(run, 1, payload, (Kind::AgentStarted, step))
}

fn said(run: &str, number: u64, text: &str) -> Draft {
    let payload = Payload::TextDelta(v1::TextDelta {
        text: text.into(),
        ..Default::default()
    });
    draft(run, number, payload, (Kind::TextDelta, Step::Other))
}

fn begins(run: &str, number: u64, call: &str) -> Draft {
    let step = Step::ToolBegins {
        id: ToolCallId::new(call).unwrap(),
        name: ToolName::new("search").unwrap(),
        arguments: None,
        call: Some(RunSequence(number)),
    };
    let payload = Payload::ToolExecuting(v1::ToolExecuting {
        tool_call_id: call.into(),
        tool_name: "search".into(),
        ..Default::default()
    });
    draft(run, number, payload, (Kind::ToolExecuting, step))
}

/// Ends a call, the `begun`th event, that its producer did not name.
fn ends(run: &str, number: u64, (call, begun): (&str, u64)) -> Draft {
    let step = Step::ToolEnds {
        id: ToolCallId::new(call).ok(),
        name: ToolName::new("search").ok(),
        call: Some(RunSequence(begun)),
    };
    let payload = Payload::ToolCompleted(v1::ToolCompleted::default());
    draft(run, number, payload, (Kind::ToolCompleted, step))
}

/// What the timeline of `run` is once `drafts` are stored, and the run as it is known then.
async fn timeline_of(run: &str, drafts: Vec<Draft>) -> (Timeline, Run) {
    let clock = Clock::manual(START);
    let metrics = Arc::new(Metrics::new().0);
    let entropy = Entropy::seeded(1);
    let engine = MemoryEngine::new(Default::default(), clock, &entropy, metrics);
    let state = engine.load(&stream()).await.unwrap();
    engine
        .append(&stream(), &state, Commit { drafts })
        .await
        .unwrap();
    let known = KnownRun {
        stream: stream(),
        run_id: run_id(run),
        run: engine.run(&stream(), &run_id(run)).await.unwrap().unwrap(),
    };
    let timeline = Timeline::of(&*engine, &known).await.unwrap();
    (timeline, known.run)
}

#[tokio::test]
async fn only_the_last_thousand_are_shown_and_calls_that_began_before_have_their_time() {
    let mut drafts = vec![started("r1"), begins("r1", 2, "c1")];
    drafts.extend((3..=1_500).map(|number| said("r1", number, "x")));
    drafts.push(ends("r1", 1_501, ("c1", 2)));
    let (timeline, _) = timeline_of("r1", drafts).await;
    let numbers: Vec<u64> = timeline
        .items
        .iter()
        .map(|item| item.run_sequence)
        .collect();
    assert!(numbers.iter().copied().eq(502..=1_501), "{numbers:?}");
    assert!(timeline.truncated);
    let last = timeline.items.last().unwrap();
    let took = Span {
        seconds: 1,
        nanos: 499_000_000,
    };
    assert_eq!(last.duration, Some(took));
    let call = (last.tool_call_id.as_str(), last.tool_name.as_str());
    assert_eq!(call, ("c1", "search"));
    // The first that is shown says who wrote it, whoever wrote the one before.
    assert_eq!(timeline.items[0].source.as_ref().unwrap().term, 1);
    assert_eq!(timeline.items[1].source, None);
}

#[tokio::test]
async fn calls_of_one_id_have_their_own_times() {
    let drafts = vec![
        started("r1"),
        begins("r1", 2, "c1"),
        begins("r1", 3, "c1"),
        ends("r1", 10, ("c1", 3)),
        ends("r1", 20, ("c1", 2)),
    ];
    let (timeline, _) = timeline_of("r1", drafts).await;
    let calls = timeline.items.iter().map(|item| {
        let millis = item.duration.as_ref().map(|took| took.nanos / 1_000_000);
        (item.call_sequence, millis)
    });
    let want = [
        (None, None),
        (Some(2), None),
        (Some(3), None),
        (Some(3), Some(7)),
        (Some(2), Some(18)),
    ];
    assert_eq!(calls.collect::<Vec<_>>(), want);
}

#[tokio::test]
async fn a_thousand_events_are_a_whole_timeline() {
    let mut drafts = vec![started("r1")];
    drafts.extend((2..=1_000).map(|number| said("r1", number, "x")));
    let (timeline, run) = timeline_of("r1", drafts).await;
    assert_eq!((timeline.items.len(), timeline.truncated), (1_000, false));
    let last = timeline.items.last().unwrap().position.as_ref().unwrap();
    assert_eq!(last.offset, run.last.0);
}

#[tokio::test]
async fn other_runs_of_the_user_are_left_out() {
    let drafts = vec![
        started("r0"),
        started("r1"),
        said("r0", 2, "no"),
        said("r1", 2, "yes"),
        said("r0", 3, "no"),
    ];
    let (timeline, _) = timeline_of("r1", drafts).await;
    let texts: Vec<&str> = timeline.items.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(texts, ["", "yes"]);
}

/// What the payload comes to in the timeline.
fn shown(payload: Payload) -> v1::TimelineItem {
    let draft = draft("r1", 1, payload, (Kind::Message, Step::Other));
    let record = Record {
        position: crate::event::Position::new(Epoch::new(1), Offset(1)),
        prev: Offset(0),
        draft,
    };
    item(&record, None, None)
}

#[test]
fn texts_name_their_message_and_their_role() {
    let (message_id, role, text) = ("m1".to_owned(), "user".to_owned(), "a".to_owned());
    let delta = shown(Payload::TextDelta(v1::TextDelta {
        message_id: message_id.clone(),
        role: role.clone(),
        text: text.clone(),
    }));
    let message = shown(Payload::Message(v1::Message {
        message_id: message_id.clone(),
        role,
        text: text.clone(),
    }));
    let thought = shown(Payload::ThinkingDelta(v1::ThinkingDelta {
        message_id,
        text,
    }));
    let named = [delta, message, thought].map(|item| (item.message_id, item.role));
    let want = [("m1", "user"), ("m1", "user"), ("m1", "")];
    assert_eq!(named, want.map(|(id, role)| (id.into(), role.into())));
}

#[test]
fn payloads_say_what_they_are_about_in_a_line() {
    let failed = |error: &str, status: ToolStatus| {
        Payload::ToolCompleted(v1::ToolCompleted {
            error: error.into(),
            status: status.into(),
            ..Default::default()
        })
    };
    let cases = [
        (
            Payload::Message(v1::Message {
                text: "a\nb\u{1b}[2J".into(),
                ..Default::default()
            }),
            "a b [2J",
        ),
        (
            Payload::AgentFailed(v1::AgentFailed {
                code: "E1".into(),
                message: "no".into(),
                retryable: None,
            }),
            "E1: no",
        ),
        (
            Payload::AgentFailed(v1::AgentFailed {
                message: "no".into(),
                ..Default::default()
            }),
            "no",
        ),
        (
            Payload::AgentWaiting(v1::AgentWaiting {
                prompt: "Go on?".into(),
                ..Default::default()
            }),
            "Go on?",
        ),
        (
            Payload::ToolProgress(v1::ToolProgress {
                fraction: Some(0.5),
                message: "halfway".into(),
                ..Default::default()
            }),
            "50% halfway",
        ),
        (failed("", ToolStatus::Succeeded), ""),
        (failed("", ToolStatus::Failed), "failed"),
        (failed("no", ToolStatus::Unspecified), "no"),
        (
            Payload::Custom(v1::Custom {
                name: "x".into(),
                data: Some(Struct::default()),
            }),
            "",
        ),
        (
            Payload::StateDelta(v1::StateDelta {
                operations: vec![v1::PatchOperation::default(); 2],
            }),
            "2 operations",
        ),
    ];
    for (payload, want) in cases {
        let debug = format!("{payload:?}");
        assert_eq!(shown(payload).text, want, "{debug}");
    }
    let thinking = shown(Payload::AgentThinking(v1::AgentThinking {
        step_number: Some(0),
        ..Default::default()
    }));
    assert_eq!(thinking.step_number, Some(0));
}

#[test]
fn texts_are_cut_at_200_characters() {
    let message = |text: &str| {
        let text = text.to_owned();
        shown(Payload::Message(v1::Message {
            text,
            ..Default::default()
        }))
        .text
    };
    let fits = "é".repeat(200);
    assert_eq!(message(&fits), fits);
    assert_eq!(message(&"é".repeat(201)), "é".repeat(199) + "…");
}

#[test]
fn what_was_only_observed_says_what_it_broke() {
    let draft = Draft {
        violation: Some(Reason::RunEnded),
        ..said("r1", 2, "late")
    };
    let record = Record {
        position: crate::event::Position::new(Epoch::new(1), Offset(1)),
        prev: Offset(0),
        draft,
    };
    assert_eq!(item(&record, None, None).violation, "RUN_ENDED");
}
