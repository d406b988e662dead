//! Which runs there are.

use std::time::Duration;

use super::*;
use emitter::proto::v1::RunState;

const SECOND: Duration = Duration::from_secs(1);

async fn start(server: &Server, user: &str, run: &str) {
    server
        .emit_all("agents", vec![wire::started(user, run)])
        .await;
    server.clock.advance(SECOND);
}

async fn end(server: &Server, user: &str, run: &str, payload: Payload) {
    let ended = event(user, run, "ended", payload);
    server.emit_all("agents", vec![ended]).await;
}

/// A request for what any run answers.
fn any() -> ListRunsRequest {
    ListRunsRequest::default()
}

#[tokio::test]
async fn runs_are_found_by_what_is_known_of_them() {
    let server = Server::start().await;
    let began = server.clock.now();
    start(&server, "alice", "r1").await;
    start(&server, "alice", "r2").await;
    let of_thread = v1::Event {
        thread_id: "t1".into(),
        agent_name: "writer".into(),
        ..wire::started("bob", "r3")
    };
    server.emit_all("agents", vec![of_thread]).await;
    server.clock.advance(SECOND);
    start(&server, "bob", "r4").await;
    let failed = Payload::AgentFailed(v1::AgentFailed::default());
    let waiting = Payload::AgentWaiting(v1::AgentWaiting::default());
    end(&server, "alice", "r1", completed()).await;
    end(&server, "alice", "r2", failed).await;
    end(&server, "bob", "r4", waiting).await;
    let operator = Operator::of(&server).await;
    let of_states = |states: &[RunState]| ListRunsRequest {
        states: states.iter().map(|state| i32::from(*state)).collect(),
        ..any()
    };
    let cases: Vec<(ListRunsRequest, &[&str])> = vec![
        (any(), &["r4", "r3", "r2", "r1"]),
        (
            ListRunsRequest {
                tenant_id: "default".into(),
                user_id: "bob".into(),
                ..any()
            },
            &["r4", "r3"],
        ),
        (
            ListRunsRequest {
                thread_id: "t1".into(),
                ..any()
            },
            &["r3"],
        ),
        (
            ListRunsRequest {
                agent_name: "researcher".into(),
                ..any()
            },
            &["r4", "r2", "r1"],
        ),
        (of_states(&[RunState::Running]), &["r3"]),
        (of_states(&[RunState::Waiting]), &["r4"]),
        (
            of_states(&[RunState::Completed, RunState::Failed]),
            &["r2", "r1"],
        ),
        (of_states(&[RunState::Cancelled]), &[]),
        (
            ListRunsRequest {
                started_after: at(began + SECOND),
                started_before: at(began + 3 * SECOND),
                ..any()
            },
            &["r3", "r2"],
        ),
        (
            ListRunsRequest {
                user_id: "alice".into(),
                agent_name: "writer".into(),
                ..any()
            },
            &[],
        ),
    ];
    for (request, want) in cases {
        assert_eq!(operator.ids(request.clone()).await, want, "{request:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_listed_run_says_how_it_stands() {
    let server = Server::start().await;
    let began = server.clock.now();
    let timeout = prost_types::Duration {
        seconds: 600,
        nanos: 0,
    };
    let started = Payload::AgentStarted(v1::AgentStarted {
        silence_timeout: Some(timeout),
        ..Default::default()
    });
    let calls = Payload::ToolExecuting(v1::ToolExecuting {
        tool_call_id: "c1".into(),
        tool_name: "search".into(),
        ..Default::default()
    });
    let events = vec![
        v1::Event {
            thread_id: "t1".into(),
            ..event("alice", "r1", "1", started)
        },
        event("alice", "r1", "2", calls),
    ];
    server.emit_all("agents", events).await;
    let operator = Operator::of(&server).await;
    let page = operator.list(any()).await.unwrap();
    let want = v1::Run {
        tenant_id: "default".into(),
        user_id: "alice".into(),
        run_id: "r1".into(),
        thread_id: "t1".into(),
        agent_name: "researcher".into(),
        parent_run_id: String::new(),
        state: RunState::Running.into(),
        started_at: at(began),
        last_event_at: at(began),
        run_sequence: 2,
        source: Some(v1::Source {
            producer_id: "agents".into(),
            term: 0,
        }),
        open_tool_calls: vec![v1::OpenToolCall {
            tool_call_id: "c1".into(),
            tool_name: "search".into(),
            started_at: at(began),
            call_sequence: 2,
        }],
        usage: None,
        silent_until: at(began + 600 * SECOND),
        recovered: false,
        ..Default::default()
    };
    assert_eq!(page.runs, [want]);
    assert_eq!(page.next_page_token, "");
    server.stop().await;
}

#[tokio::test]
async fn pages_hold_every_run_once_whatever_starts_and_ends_between_them() {
    let server = Server::start().await;
    for number in 1..=7 {
        start(&server, ["alice", "bob"][number % 2], &format!("r{number}")).await;
    }
    let operator = Operator::of(&server).await;
    let mut request = ListRunsRequest {
        page_size: 3,
        ..any()
    };
    let first = operator.list(request.clone()).await.unwrap();
    assert_eq!(ids(&first), ["r7", "r6", "r5"]);
    for number in 1..=7 {
        let user = ["alice", "bob"][number % 2];
        end(&server, user, &format!("r{number}"), completed()).await;
        start(&server, user, &format!("new{number}")).await;
    }
    request.page_token = first.next_page_token;
    let second = operator.list(request.clone()).await.unwrap();
    assert_eq!(ids(&second), ["r4", "r3", "r2"]);
    // The size of a page may change, the filters may not.
    request.page_size = 1;
    request.page_token = second.next_page_token;
    let last = operator.list(request.clone()).await.unwrap();
    assert_eq!(
        (ids(&last), last.next_page_token),
        (vec!["r1".into()], String::new())
    );
    server.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_field() {
    let server = Server::start().await;
    for run in ["r1", "r2"] {
        start(&server, "alice", run).await;
    }
    let operator = Operator::of(&server).await;
    let one = ListRunsRequest {
        page_size: 1,
        ..any()
    };
    let token = operator.list(one).await.unwrap().next_page_token;
    assert_ne!(token, "");
    let cases = [
        (
            ListRunsRequest {
                page_token: token.clone(),
                user_id: "alice".into(),
                ..any()
            },
            "page_token",
        ),
        (
            ListRunsRequest {
                page_token: "no token".into(),
                ..any()
            },
            "page_token",
        ),
        (
            ListRunsRequest {
                states: vec![1, 0],
                ..any()
            },
            "states[1]",
        ),
        (
            ListRunsRequest {
                page_size: 1_001,
                ..any()
            },
            "page_size",
        ),
        (
            ListRunsRequest {
                tenant_id: "\n".into(),
                ..any()
            },
            "tenant_id",
        ),
    ];
    for (request, field) in cases {
        let status = operator.list(request).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID_REQUEST", "{field}");
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("BadRequest").field_violations;
        let fields: Vec<&str> = violations.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(fields, [field]);
    }
    server.stop().await;
}
