use super::*;
use crate::proto::v1::{
    Acknowledgement, Adjustment, AdjustmentAction, Connection, ModelUsage, OpenToolCall, RunState,
    Source, Transport, Usage, UsageTotals,
};

const START: u64 = 1_800_000_000_000;
const NOW: Timestamp = Timestamp::from_millis(START + 60_000);

fn at(millis: u64) -> Option<prost_types::Timestamp> {
    Some(Timestamp::from_millis(START + millis).into())
}

fn source(producer: &str, term: u64) -> Option<Source> {
    Some(Source {
        producer_id: producer.into(),
        term,
    })
}

fn item(number: u64, millis: u64, kind: &str, text: &str) -> TimelineItem {
    TimelineItem {
        run_sequence: number,
        recorded_at: at(millis),
        r#type: kind.into(),
        text: text.into(),
        ..TimelineItem::default()
    }
}

fn tool(item: TimelineItem, call: &str, name: &str) -> TimelineItem {
    TimelineItem {
        tool_call_id: call.into(),
        tool_name: name.into(),
        ..item
    }
}

fn shown() -> GetRunResponse {
    let totals = UsageTotals {
        events: 1,
        input_tokens: 120,
        output_tokens: 30,
        cached_input_tokens: 20,
        cost_nano_usd: 450_000,
        ..UsageTotals::default()
    };
    GetRunResponse {
        run: Some(Run {
            tenant_id: "default".into(),
            user_id: "u1".into(),
            run_id: "r1".into(),
            agent_name: "researcher".into(),
            state: RunState::Running.into(),
            started_at: at(0),
            last_event_at: at(1_318),
            run_sequence: 6,
            source: source("svc-2", 2),
            open_tool_calls: vec![OpenToolCall {
                tool_call_id: "c2".into(),
                tool_name: "fetch".into(),
                started_at: at(120),
                ..Default::default()
            }],
            usage: Some(totals),
            silent_until: at(360_000),
            recovered: true,
            ..Run::default()
        }),
        timeline: vec![
            TimelineItem {
                source: source("svc-1", 1),
                ..item(1, 0, "agent_started", "On it")
            },
            TimelineItem {
                step_number: Some(1),
                usage: Some(Usage {
                    provider: "acme".into(),
                    model: "m1".into(),
                    input_tokens: 120,
                    output_tokens: 30,
                    ..Usage::default()
                }),
                ..item(2, 100, "agent_thinking", "Which \u{202e}one?")
            },
            tool(item(3, 118, "tool_executing", "look"), "c1", "search"),
            tool(item(4, 120, "tool_executing", ""), "c2", "fetch"),
            TimelineItem {
                duration: Some(prost_types::Duration {
                    seconds: 1,
                    nanos: 0,
                }),
                source: source("svc-2", 2),
                ..tool(item(5, 1_118, "tool_completed", "no"), "c1", "search")
            },
            TimelineItem {
                violation: "RUN_ENDED".into(),
                adjustments: vec![Adjustment {
                    field: "labels.k".into(),
                    action: AdjustmentAction::Dropped.into(),
                    reason: "has a control character".into(),
                }],
                ..item(6, 1_318, "message", "late")
            },
        ],
        usage: vec![ModelUsage {
            provider: "acme".into(),
            model: "m1".into(),
            totals: Some(totals),
        }],
        source_refusals: vec![SourceRefusal {
            owner: source("svc-2", 2),
            refused: source("svc-3", 2),
            reason: "COMPETING_SOURCE".into(),
            count: 3,
            last_at: at(0),
            ..SourceRefusal::default()
        }],
        delivery: Some(Delivery {
            stored_up_to: Some(Position {
                epoch: "00000000000000ab".into(),
                offset: 6,
            }),
            connections: vec![Connection {
                connection_id: "k1".into(),
                client_id: "web".into(),
                transport: Transport::Websocket.into(),
                connected_at: at(0),
                ..Connection::default()
            }],
            acknowledgements: vec![Acknowledgement {
                client_id: "web".into(),
                acknowledged_at: at(30_000),
                covers_run: true,
                ..Acknowledgement::default()
            }],
        }),
        open_children: vec!["r2".into()],
        ..GetRunResponse::default()
    }
}

#[test]
fn a_run_is_drawn() {
    let want = "\
run r1  running
  tenant default · user u1 · agent researcher
  started 2027-01-15 08:00:00 · took 1.318s · 6 events · the last 58s ago
  ! the store has lost some of its events
  written by svc-2 term 2
  open tool call fetch (c2), begun 59s ago
  open sub-agent r2
  may be silent for another 5m

timeline
    +0.000s      agent_started    On it  ◂ svc-1 term 1
    +0.100s      agent_thinking   [1]  Which \\u{202e}one?  [acme/m1, 120 in, 30 out]
    +0.118s  ┌   tool_executing   search  look
    +0.120s  │┌  tool_executing   fetch
    +1.118s  └│  tool_completed   search  1.000s  no  ◂ svc-2 term 2
    +1.318s   │  message          late  ! RUN_ENDED
                 ! dropped labels.k: has a control character

usage
  acme/m1  120 in (20 cached), 30 out, $0.000450

refused sources
  svc-3 term 2  COMPETING_SOURCE  3 events, the last 1m ago; svc-2 term 2 owned the run

delivery
  stored up to 00000000000000ab-6
  WebSocket k1 of web, connected 1m ago, has nothing
  web acknowledged nothing 30s ago: all of the run
";
    let text = text(&shown(), &[], NOW, false);
    assert_eq!(text, want, "\n{text}");
}

#[test]
fn open_waits_and_calls_of_one_id_are_told_apart() {
    let call = |call_sequence| OpenToolCall {
        tool_call_id: "create".into(),
        tool_name: "create".into(),
        started_at: at(0),
        call_sequence,
    };
    let named = OpenWait {
        wait_id: "w1".into(),
        tool_call_id: "create".into(),
        kind: "approval".into(),
        run_sequence: 5,
        started_at: at(30_000),
        expires_at: at(3_660_000),
    };
    let unnamed = OpenWait {
        wait_id: String::new(),
        tool_call_id: String::new(),
        kind: String::new(),
        run_sequence: 6,
        ..named.clone()
    };
    let response = GetRunResponse {
        run: Some(Run {
            open_tool_calls: vec![call(3), call(4)],
            open_waits: vec![named, unnamed],
            ..Run::default()
        }),
        ..GetRunResponse::default()
    };
    let text = text(&response, &[], NOW, false);
    let lines: Vec<_> = text.lines().filter(|line| line.contains("open ")).collect();
    let want = [
        "  open tool call #3 create (create), begun 1m ago",
        "  open tool call #4 create (create), begun 1m ago",
        "  open wait #5 w1 for approval of tool call create, begun 30s ago, expires in 1h",
        "  open wait #6, begun 30s ago, expires in 1h",
    ];
    assert_eq!(lines, want, "{text}");
}

#[test]
fn without_colours_nothing_acts_on_the_terminal() {
    assert!(!text(&shown(), &[], NOW, false).contains('\u{1b}'));
    let coloured = text(&shown(), &[], NOW, true);
    assert!(coloured.contains("\u{1b}[31mtool_completed\u{1b}[0m"));
    assert!(!coloured.contains('\u{202e}'));
}

#[test]
fn message_id_and_role_separate_joined_texts() {
    let piece = |message_id: &str, role: &str| TimelineItem {
        message_id: message_id.into(),
        role: role.into(),
        ..item(1, 1, "text_delta", "a")
    };
    let pieces = [
        piece("m1", "user"),
        piece("m1", ""),
        piece("m1", "assistant"),
        piece("m2", "assistant"),
        piece("m2", ""),
    ];
    let counts: Vec<usize> = joined(&pieces).iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [2, 1, 2]);
}

#[test]
fn pieces_of_a_text_are_one_line() {
    let mut pieces: Vec<_> = (1..=300).map(|n| item(n, n, "text_delta", "ab")).collect();
    pieces[99].source = source("svc-2", 2);
    pieces.push(item(301, 301, "message", "whole"));
    let lines = joined(&pieces);
    let counts: Vec<usize> = lines.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [99, 201, 1]);
    assert_eq!(lines[0].0.text, "ab".repeat(99));
    assert_eq!(lines[1].0.text.chars().count(), TEXT);
    let response = GetRunResponse {
        timeline: pieces,
        ..GetRunResponse::default()
    };
    assert!(text(&response, &[], NOW, false).contains("(99 joined)"));
}
