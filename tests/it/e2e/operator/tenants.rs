//! Who may ask for what.

use super::*;
use crate::e2e::wire::Socket;

/// A server with the run `r-one` in the tenant `one`, and `r-two` in `two`.
async fn two_tenants() -> Server {
    let server = Server::start().await;
    for tenant in ["one", "two"] {
        let token = server.token_in(tenant, "agents", "emit");
        let run = format!("r-{tenant}");
        server
            .emit_with(&token, vec![wire::started("alice", &run)])
            .await;
    }
    server
}

fn of(tenant: &str) -> ListRunsRequest {
    ListRunsRequest {
        tenant_id: tenant.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_operator_sees_its_own_tenant() {
    let server = two_tenants().await;
    let one = Operator::of_tenant(&server, "one").await;
    for tenant in ["", "one"] {
        assert_eq!(one.ids(of(tenant)).await, ["r-one"], "{tenant:?}");
        let shown = one.get(tenant, "r-one").await.unwrap();
        assert_eq!(shown.run.unwrap().tenant_id, "one");
    }
    let foreign = one.list(of("two")).await.unwrap_err();
    assert_eq!(reason(&foreign), "TENANT_FORBIDDEN");
    let foreign = one.get("two", "r-two").await.unwrap_err();
    assert_eq!(reason(&foreign), "TENANT_FORBIDDEN");
    let foreign = one.list(of("*")).await.unwrap_err();
    assert_eq!(reason(&foreign), "TENANT_FORBIDDEN");
    assert_eq!(
        reason(&one.get("", "r-two").await.unwrap_err()),
        "NOT_FOUND"
    );
    let third = Operator::of_tenant(&server, "three").await;
    assert!(third.ids(of("")).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn an_operator_of_every_tenant_sees_all_and_names_one() {
    let server = two_tenants().await;
    let every = Operator::of_tenant(&server, "*").await;
    assert_eq!(every.ids(of("")).await, ["r-one", "r-two"]);
    assert_eq!(every.ids(of("two")).await, ["r-two"]);
    assert_eq!(
        every
            .get("two", "r-two")
            .await
            .unwrap()
            .run
            .unwrap()
            .tenant_id,
        "two"
    );
    let nameless = every.get("", "r-two").await.unwrap_err();
    assert_eq!(reason(&nameless), "INVALID_REQUEST");
    assert_eq!(
        reason(&every.get("one", "r-two").await.unwrap_err()),
        "NOT_FOUND"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_credential_of_every_tenant_neither_emits_nor_reads() {
    let server = Server::start().await;
    let token = server.token_in("*", "ops", "emit subscribe operate");
    let mut emitter = wire::emitter(server.grpc).await;
    let request = v1::EmitRequest {
        event: Some(wire::started("alice", "r1")),
    };
    let request = wire::with_token(&token, request);
    let status = emitter.emit(request).await.unwrap_err();
    assert_eq!(reason(&status), "TENANT_FORBIDDEN");
    for user in ["", "alice", "ops"] {
        let request = v1::SubscribeRequest {
            user_id: user.into(),
            ..Default::default()
        };
        let request = wire::with_token(&token, request);
        let answer = server.subscriber().await.subscribe(request).await;
        let status = answer.expect_err("a stream began");
        assert_eq!(reason(&status), "TENANT_FORBIDDEN", "{user:?}");
    }
    let bearer = format!("Bearer {token}");
    let opened = Socket::open(server.http, "", &[("authorization", bearer)]).await;
    let error = opened.err().expect("a stream began").to_string();
    assert!(error.contains("403"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn operating_needs_its_scope() {
    let server = Server::start().await;
    for (token, want) in [
        (server.token("ops", "emit subscribe"), "SCOPE_MISSING"),
        ("no token".to_owned(), "UNAUTHENTICATED"),
    ] {
        let operator = Operator::with(&server, token).await;
        assert_eq!(reason(&operator.list(of("")).await.unwrap_err()), want);
        assert_eq!(reason(&operator.get("", "r1").await.unwrap_err()), want);
    }
    server.stop().await;
}
