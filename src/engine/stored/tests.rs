use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::*;
use crate::{
    engine::DedupeEntry,
    event::{
        Action, Adjustment, Adjustments, AgentName, ContentHash, Cost, CostBasis, Draft, Epoch,
        Event, EventId, Kind, Offset, OpenWait, Position, Record, RunId, RunSequence, Step,
        StreamKey, Summary, Tenant, ThreadId, Usage, UsageTotals, UserId,
    },
    reason::Reason,
    run::{Run, RunState},
    usage::UsageByModel,
};

const AT: Timestamp = Timestamp::from_millis(1_800_000_000_123);

fn stream() -> StreamKey {
    StreamKey::new(Tenant::new("t").unwrap(), UserId::new("ü 1").unwrap())
}

fn position() -> Position {
    Position::new(Epoch::new(7), Offset(42))
}

fn call(id: &str) -> OpenToolCall {
    OpenToolCall {
        call_sequence: RunSequence(3),
        arguments: Some(ContentHash::of(b"{}")),
        id: ToolCallId::new(id).unwrap(),
        name: ToolName::new("search").unwrap(),
        started_at: AT,
    }
}

fn wait() -> Wait {
    Wait {
        max_wait: Some(Duration::from_millis(1_500)),
        id: WaitId::new("w1").ok(),
        tool_call_id: ToolCallId::new("c1").ok(),
        call: Some(RunSequence(2)),
        kind: Some("approval".into()),
    }
}

fn tokens() -> Tokens {
    Tokens {
        input: 1,
        output: u64::MAX,
        cached_input: 3,
        cache_write: 5,
        cache_write_1h: 6,
        reasoning: 4,
    }
}

fn source() -> Source {
    Source {
        producer_id: ProducerId::new("p").unwrap(),
        term: 9,
    }
}

fn adjustments() -> Adjustments {
    let adjustment = |action: Action| Adjustment {
        field: format!("labels.{}", action.name()).into(),
        action,
        reason: "is too odd".into(),
    };
    Action::ALL.map(adjustment).to_vec().into()
}

fn event(kind: Kind) -> Event {
    Event::new(
        EventId::new("e1").unwrap(),
        stream(),
        RunId::new("r1").ok(),
        kind,
        source(),
        Bytes::from_static(b"\x00body\xff"),
    )
}

/// Everything that a record can hold, but that it may be a start and an end in one.
fn full(kind: Kind, step: Step) -> Record {
    let event = Event {
        thread_id: ThreadId::new("t1").ok(),
        usage: Some(Box::new(Usage {
            provider: "p".into(),
            model: "m".into(),
            tokens: tokens(),
            cost_nano_usd: None,
        })),
        adjustments: adjustments(),
        joinable: true,
        step: step.clone(),
        ..event(kind)
    };
    let draft = Draft {
        run_sequence: RunSequence(3),
        agent_name: AgentName::new("inherited").ok(),
        parent_run_id: RunId::new("r0").ok(),
        step,
        cost: Some(Cost {
            nano_usd: 8,
            basis: CostBasis::Priced,
        }),
        summary: Some(Box::new(Summary {
            open_tool_calls: vec![call("c1")],
            usage: Some(UsageTotals {
                events: 1,
                tokens: tokens(),
                cost_nano_usd: 5,
                unpriced_events: 6,
            }),
        })),
        violation: Some(Reason::RunEnded),
        recovered: Some(Duration::from_millis(60_000)),
        state: Some(RunState::Running),
        ..Draft::new(Arc::new(event), AT)
    };
    Record {
        position: position(),
        prev: Offset(41),
        draft,
    }
}

fn read_back(record: &Record) -> Record {
    decode_record(&stream(), position(), encode_record(record)).unwrap()
}

#[test]
fn a_record_reads_back_as_it_was_written_whatever_its_step() {
    let (id, name) = (ToolCallId::new("c1").ok(), ToolName::new("search").ok());
    let some = Some(Duration::from_millis(1_500));
    let begins = Step::ToolBegins {
        id: id.clone().unwrap(),
        name: name.clone().unwrap(),
        arguments: Some(ContentHash::of(b"{}")),
        call: Some(RunSequence(2)),
    };
    let advances = Step::ToolAdvances {
        id: id.clone(),
        call: Some(RunSequence(2)),
    };
    let unknown = Step::ToolAdvances {
        id: None,
        call: None,
    };
    let steps = [
        (
            Kind::AgentStarted,
            Step::Start {
                silence_timeout: some,
            },
        ),
        (
            Kind::AgentStarted,
            Step::Start {
                silence_timeout: None,
            },
        ),
        (Kind::ToolExecuting, begins),
        (Kind::ToolProgress, advances),
        (Kind::ToolProgress, unknown),
        (
            Kind::ToolCompleted,
            Step::ToolEnds {
                id,
                name,
                call: Some(RunSequence(2)),
            },
        ),
        (Kind::AgentWaiting, Step::wait(some)),
        (Kind::AgentWaiting, Step::wait(None)),
        (Kind::AgentWaiting, Step::Wait(Box::new(wait()))),
        (
            Kind::AgentResumed,
            Step::Resume {
                id: WaitId::new("w1").ok(),
            },
        ),
        (Kind::AgentResumed, Step::Resume { id: None }),
        (Kind::AgentFailed, Step::End),
        (Kind::Custom("agent.note".into()), Step::Other),
    ];
    for (kind, step) in steps {
        let record = full(kind, step);
        assert_eq!(format!("{:?}", read_back(&record)), format!("{record:?}"));
    }
    for (kind, _) in Kind::typed() {
        let record = full(kind, Step::Other);
        assert_eq!(format!("{:?}", read_back(&record)), format!("{record:?}"));
    }
}

#[test]
fn a_record_without_anything_reads_back_too() {
    let record = Record {
        position: position(),
        prev: Offset(0),
        draft: Draft::new(
            Arc::new(Event {
                run_id: None,
                ..event(Kind::Custom("n".into()))
            }),
            AT,
        ),
    };
    assert_eq!(format!("{:?}", read_back(&record)), format!("{record:?}"));
}

#[test]
fn calls_of_an_earlier_version_have_no_numbers() {
    use prost::Message;
    let stored = proto::OpenToolCall {
        id: "c1".into(),
        name: "search".into(),
        started_at: AT.as_millis(),
        ..Default::default()
    };
    let run = proto::Run {
        source: Some(source_out(&source())),
        open_tool_calls: vec![stored],
        ..Default::default()
    };
    let run = decode_run(run.encode_to_vec().into()).unwrap();
    let call = &run.open_tool_calls[0];
    assert_eq!((call.sequence(), call.arguments), (None, None));
}

#[test]
fn a_wait_of_an_earlier_version_is_of_the_last_event() {
    use prost::Message;
    let run = |state: proto::RunState| proto::Run {
        state: state.into(),
        source: Some(source_out(&source())),
        last_sequence: 4,
        last_event_at: AT.as_millis(),
        waits_until: (AT + Duration::from_secs(60)).as_millis(),
        ..Default::default()
    };
    let read = |state| decode_run(run(state).encode_to_vec().into()).unwrap();
    let waiting = read(proto::RunState::Waiting);
    assert_eq!(waiting.own_deadline(), AT + Duration::from_secs(60));
    let minute = Wait {
        max_wait: Some(Duration::from_secs(60)),
        ..Wait::default()
    };
    let want = OpenWait {
        wait: Wait::default(),
        ..OpenWait::begun(&minute, RunSequence(4), AT)
    };
    assert_eq!(waiting.open_waits, [want]);
    // The wait was over.
    assert_eq!(read(proto::RunState::Unspecified).open_waits, []);
}

#[test]
fn a_run_reads_back_as_it_was_written() {
    let mut usage = UsageByModel::default();
    for (model, nano_usd) in [("a", 1), ("b", 2)] {
        let used = Usage {
            provider: "p".into(),
            model: model.into(),
            tokens: tokens(),
            cost_nano_usd: None,
        };
        let basis = CostBasis::Priced;
        usage.add(&used, Cost { nano_usd, basis });
    }
    for state in [
        RunState::Running,
        RunState::Waiting,
        RunState::Completed,
        RunState::Failed,
        RunState::Cancelled,
    ] {
        let run = Run {
            recovered: true,
            state,
            last_sequence: RunSequence(4),
            started_at: AT,
            start: Offset(5),
            last: Offset(8),
            last_event_at: AT + Duration::from_millis(1),
            last_sign_at: AT + Duration::from_millis(2),
            open_waits: vec![
                OpenWait::begun(&wait(), RunSequence(3), AT),
                OpenWait::begun(&Wait::default(), RunSequence(4), AT),
            ],
            silence_timeout: Duration::from_millis(900_001),
            source: source(),
            thread_id: ThreadId::new("t1").ok(),
            agent_name: AgentName::new("a").ok(),
            parent_run_id: RunId::new("r0").ok(),
            open_tool_calls: vec![call("c1"), call("c2")],
            open_children: vec![RunId::new("r2").unwrap()],
            usage: usage.clone(),
        };
        assert_eq!(decode_run(encode_run(&run)), Ok(run));
    }
}

#[test]
fn an_id_and_a_sum_read_back_as_they_were_written() {
    let entry = DedupeEntry {
        content: ContentHash::of(b"x"),
        position: position(),
        run_sequence: RunSequence(3),
        recorded_at: AT,
        adjustments: adjustments(),
    };
    let id = EventId::new("e1").unwrap();
    assert_eq!(
        decode_id(position(), encode_id(&id, &entry)),
        Ok((id, entry))
    );
    let sum = UsageTotals {
        events: 1,
        tokens: tokens(),
        cost_nano_usd: 2,
        unpriced_events: 3,
    };
    assert_eq!(decode_sum(encode_sum(&sum)), Ok(sum));
}

/// It stored no costs but those that events stated.
#[test]
fn usage_of_an_earlier_version_has_its_stated_cost_or_is_unpriced() {
    use prost::Message as _;
    let stored = proto::Sum {
        events: 4,
        tokens: tokens_out(&tokens()),
        stated_cost_nano_usd: 7,
        uncosted_events: 3,
        ..proto::Sum::default()
    };
    let want = UsageTotals {
        events: 4,
        tokens: tokens(),
        cost_nano_usd: 7,
        unpriced_events: 3,
    };
    assert_eq!(decode_sum(stored.encode_to_vec().into()), Ok(want));

    let record = full(Kind::AgentThinking, Step::Other);
    for (stated, tokens, basis) in [
        (Some(7), tokens(), CostBasis::Stated),
        (None, tokens(), CostBasis::Unpriced),
        (None, Tokens::default(), CostBasis::Priced),
    ] {
        let mut stored = proto::Record::decode(encode_record(&record)).unwrap();
        stored.cost = None;
        let usage = stored.usage.as_mut().unwrap();
        (usage.cost_nano_usd, usage.tokens) = (stated, tokens_out(&tokens));
        let bytes = stored.encode_to_vec().into();
        let read = decode_record(&stream(), position(), bytes).unwrap();
        let nano_usd = stated.unwrap_or(0);
        assert_eq!(read.draft.cost, Some(Cost { nano_usd, basis }));
    }
}

#[test]
fn what_was_cut_short_or_is_no_id_is_refused() {
    let bytes = encode_record(&full(Kind::AgentFailed, Step::End));
    for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        let cut = decode_record(&stream(), position(), bytes.slice(..end));
        assert!(cut.is_err(), "the first {end} bytes: {cut:?}");
    }
    assert!(decode_run(Bytes::from_static(b"\xff\xff")).is_err());
    assert!(decode_id(position(), Bytes::new()).is_err());
}
