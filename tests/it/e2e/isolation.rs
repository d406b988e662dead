//! Who sees an event is decided by the event's user and the reader's credential, and by nothing else.

use emitter::proto::v1::{self, SubscribeRequest, emit_result::Outcome};
use tonic::Code;
use tonic_types::StatusExt;

use super::{
    server::Server,
    wire::{self, Socket},
};

pub(super) fn reason(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    details.error_info().expect("ErrorInfo").reason.clone()
}

#[tokio::test]
async fn filters_that_name_another_users_run_show_nothing_of_it() {
    let server = Server::start().await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-a"))
        .await;
    server
        .emit_all("agents", wire::whole_run("bob", "run-b"))
        .await;
    let token = server.token("bob", "subscribe");
    for query in [
        "from=oldest&run_id=run-a",
        "from=oldest&thread_id=run-a&user_id=alice",
        "from=oldest&run_id=run-a&tenant_id=default&user=alice&sub=alice",
    ] {
        let mut socket = Socket::connect(server.http, &token, query).await;
        let established = socket.frame().await;
        assert_eq!(established["user_id"], "bob", "?{query}");
        let next = socket.frame().await;
        assert_eq!(next["type"], "connection_caught_up", "?{query}: {next}");
    }
    let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
    for n in 1..=5 {
        let frame = socket.event().await;
        assert_eq!(frame["event_id"], format!("run-b-{n}"));
        assert_eq!(frame["user_id"], "bob");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_same_user_id_in_two_tenants_is_two_streams() {
    let server = Server::start().await;
    for tenant in ["one", "two"] {
        let token = server.token_in(tenant, "agents", "emit");
        let run = format!("run-{tenant}");
        server
            .emit_with(&token, wire::whole_run("alice", &run))
            .await;
    }
    for tenant in ["one", "two"] {
        let token = server.token_in(tenant, "alice", "subscribe");
        let mut socket = Socket::connect(server.http, &token, "from=oldest").await;
        for n in 1..=5 {
            let frame = socket.event().await;
            assert_eq!(frame["event_id"], format!("run-{tenant}-{n}"));
        }
        assert_eq!(socket.frame().await["type"], "connection_caught_up");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reader_over_grpc_names_another_user_only_as_an_operator() {
    let server = Server::start().await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-a"))
        .await;
    let mut client = server.subscriber().await;
    let request = SubscribeRequest {
        user_id: "alice".into(),
        ..Default::default()
    };
    let token = server.token("bob", "subscribe");
    let refused = client
        .subscribe(wire::with_token(&token, request.clone()))
        .await;
    let status = refused.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::PermissionDenied, "USER_FORBIDDEN".into())
    );
    let token = server.token("ops", "operate");
    let response = client
        .subscribe(wire::with_token(&token, request))
        .await
        .unwrap();
    let first = response.into_inner().message().await.unwrap().unwrap();
    match first.item.unwrap() {
        v1::subscribe_response::Item::Established(established) => {
            assert_eq!(established.user_id, "alice");
        }
        other => panic!("{other:?}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn a_run_takes_no_events_of_another_user() {
    let server = Server::start().await;
    server
        .emit_all("agents", wire::whole_run("alice", "run-a"))
        .await;
    server.start_runs("mallory", &["run-m"]).await;
    let leak = wire::event(
        "mallory",
        "run-a",
        "leak",
        wire::thinking("to the wrong person"),
    );
    let own = wire::event(
        "mallory",
        "run-m",
        "own",
        wire::thinking("to the right one"),
    );
    let results = server.try_emit("agents", vec![leak.clone(), own]).await;
    match results[0].outcome.as_ref().unwrap() {
        Outcome::Refusal(refusal) => {
            assert_eq!(refusal.reason, "RUN_OWNED_BY_OTHER_USER");
            assert_eq!(refusal.code, i32::from(Code::PermissionDenied));
        }
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(results[1].outcome, Some(Outcome::Receipt(_))),
        "{results:?}"
    );
    let mut client = wire::emitter(server.grpc).await;
    let token = server.token("agents", "emit");
    let request = v1::EmitRequest { event: Some(leak) };
    let status = client
        .emit(wire::with_token(&token, request))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), "RUN_OWNED_BY_OTHER_USER");
    server.stop().await;
}

#[tokio::test]
async fn an_emitter_keeps_to_its_tenant_and_its_users() {
    let server = Server::start().await;
    let mut foreign = wire::event("alice", "run-1", "e1", wire::thinking("x"));
    foreign.tenant_id = "other".into();
    let results = server.try_emit("agents", vec![foreign]).await;
    assert_eq!(refusal_reason(&results[0]), "TENANT_FORBIDDEN");

    server.start_runs("alice", &["run-of-alice"]).await;
    let token = server.token_for_users("agents", &["alice"]);
    let to = |user: &str| wire::event(user, &format!("run-of-{user}"), user, wire::thinking("x"));
    let results = server
        .try_emit_with(&token, vec![to("alice"), to("bob")])
        .await;
    assert!(
        matches!(results[0].outcome, Some(Outcome::Receipt(_))),
        "{results:?}"
    );
    assert_eq!(refusal_reason(&results[1]), "USER_FORBIDDEN");
    server.stop().await;
}

fn refusal_reason(result: &v1::EmitResult) -> &str {
    match result.outcome.as_ref().unwrap() {
        Outcome::Refusal(refusal) => &refusal.reason,
        Outcome::Receipt(receipt) => panic!("stored: {receipt:?}"),
    }
}

#[tokio::test]
async fn each_credential_is_good_only_for_its_scope() {
    let server = Server::start().await;
    let mut client = wire::emitter(server.grpc).await;
    let request = v1::EmitRequest {
        event: Some(wire::event("alice", "run-1", "e1", wire::thinking("x"))),
    };
    let cases = [
        (
            Some(server.token("alice", "subscribe")),
            Code::PermissionDenied,
            "SCOPE_MISSING",
        ),
        (
            Some("garbage".into()),
            Code::Unauthenticated,
            "UNAUTHENTICATED",
        ),
        (None, Code::Unauthenticated, "UNAUTHENTICATED"),
    ];
    for (token, code, want) in cases {
        let request = match &token {
            Some(token) => wire::with_token(token, request.clone()),
            None => tonic::Request::new(request.clone()),
        };
        let status = client.emit(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (code, want));
    }
    for (token, want) in [
        (server.token("agents", "emit"), 403),
        ("garbage".into(), 401),
    ] {
        let headers = [("authorization", format!("Bearer {token}"))];
        match Socket::open(server.http, "", &headers).await {
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                assert_eq!(response.status().as_u16(), want);
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("connected with {token}"),
        }
    }
    server.stop().await;
}
