//! An operator ends runs.

use emitter::proto::v1::{CancelRunRequest, CancelRunResponse, RunState, emit_result::Outcome};

use super::*;
use crate::e2e::wire::Socket;

async fn cancel(
    operator: &Operator,
    run: &str,
    because: &str,
) -> Result<CancelRunResponse, Status> {
    let request = CancelRunRequest {
        run_id: run.into(),
        reason: because.into(),
        ..CancelRunRequest::default()
    };
    let request = wire::with_token(&operator.token, request);
    let answer = operator.client.clone().cancel_run(request).await;
    answer.map(tonic::Response::into_inner)
}

fn started_below(parent: &str, run: &str) -> v1::Event {
    v1::Event {
        parent_run_id: parent.into(),
        ..wire::started("alice", run)
    }
}

#[tokio::test]
async fn an_operator_ends_a_run_of_any_source_and_those_below_it() {
    let server = Server::start().await;
    let by_svc = |event| v1::Event {
        source: Some(v1::Source {
            producer_id: "svc-1".into(),
            term: 7,
        }),
        ..event
    };
    let events = vec![
        by_svc(wire::started("alice", "r1")),
        started_below("r1", "r2"),
    ];
    server.emit_all("agents", events).await;
    let token = server.token("alice", "subscribe");
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    let operator = Operator::of(&server).await;

    let ended = cancel(&operator, "r1", "stuck").await.unwrap();
    assert_eq!(ended.state(), RunState::Cancelled);
    let receipt = ended.receipt.expect("it was open");
    assert_eq!((receipt.run_sequence, receipt.duplicate), (2, false));

    for started in ["r1", "r2"] {
        assert_eq!(socket.event().await["run_id"], started);
    }
    let below = socket.event().await;
    assert_eq!(
        (&below["run_id"], &below["type"]),
        (&"r2".into(), &"agent_cancelled".into())
    );
    assert_eq!(below["payload"]["reason"], "parent_ended");
    let last = socket.event().await;
    assert_eq!(
        (&last["run_id"], &last["type"]),
        (&"r1".into(), &"agent_cancelled".into())
    );
    assert_eq!(last["payload"]["reason"], "stuck");
    assert_eq!(last["labels"]["cancelled_by"], "ops");
    assert!(
        last["event_id"].as_str().unwrap().starts_with("emitter:"),
        "{last}"
    );

    // Its producer learns of it by the next event.
    let thought = by_svc(event("alice", "r1", "late", completed()));
    let refused = server.try_emit("agents", vec![thought]).await.remove(0);
    let Some(Outcome::Refusal(refused)) = refused.outcome else {
        panic!("stored: {refused:?}");
    };
    assert_eq!(refused.reason, "RUN_ENDED");
    // Again, also by somebody else for another reason, changes nothing.
    let again = cancel(&operator, "r1", "again").await.unwrap();
    assert_eq!((again.state(), again.receipt), (RunState::Cancelled, None));
    server.stop().await;
}

#[tokio::test]
async fn a_run_that_has_ended_or_is_not_the_tenants_stays_as_it_is() {
    let server = Server::start().await;
    let events = vec![
        wire::started("alice", "r1"),
        event("alice", "r1", "end", completed()),
        wire::started("alice", "r2"),
    ];
    server.emit_all("agents", events).await;
    let operator = Operator::of(&server).await;
    let ended = cancel(&operator, "r1", "").await.unwrap();
    assert_eq!((ended.state(), ended.receipt), (RunState::Completed, None));

    let elsewhere = Operator::of_tenant(&server, "acme").await;
    let emitter = Operator::with(&server, server.token("agents", "emit")).await;
    for (operator, run, because, want) in [
        (&operator, "r9", String::new(), "NOT_FOUND"),
        (&operator, "", String::new(), "INVALID_REQUEST"),
        (&operator, "r2", "x".repeat(1_025), "INVALID_REQUEST"),
        (&elsewhere, "r2", String::new(), "NOT_FOUND"),
        (&emitter, "r2", String::new(), "SCOPE_MISSING"),
    ] {
        let refused = cancel(operator, run, &because).await.unwrap_err();
        assert_eq!(reason(&refused), want, "{run:?} {because:.10}");
    }
    let open = operator.get("", "r2").await.unwrap().run.unwrap();
    assert_eq!(open.state(), RunState::Running);
    server.stop().await;
}
