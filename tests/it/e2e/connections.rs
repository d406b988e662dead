//! One connection per client, and what operators see and do of connections.

use std::time::Duration;

use emitter::proto::v1::{self, SubscribeRequest, emitter_operator_client::EmitterOperatorClient};
use tonic::{Code, Request, transport::Channel};

use super::{
    server::Server,
    wire::{self, Grpc, PATIENCE, Socket},
};

fn named(client_id: &str) -> SubscribeRequest {
    SubscribeRequest {
        client_id: client_id.into(),
        ..Default::default()
    }
}

async fn operator(server: &Server) -> EmitterOperatorClient<Channel> {
    let url = format!("http://{}", server.grpc);
    EmitterOperatorClient::connect(url).await.unwrap()
}

/// Asks as the operator of a tenant.
struct Operator<'a> {
    server: &'a Server,
    tenant: &'a str,
}

impl Operator<'_> {
    fn asks<T>(&self, message: T) -> Request<T> {
        let token = self.server.token_in(self.tenant, "ops", "operate");
        wire::with_token(&token, message)
    }

    async fn list(&self, asked: v1::ListConnectionsRequest) -> v1::ListConnectionsResponse {
        let mut client = operator(self.server).await;
        let answer = client.list_connections(self.asks(asked)).await;
        answer.unwrap().into_inner()
    }

    async fn disconnect(&self, asked: v1::DisconnectRequest) -> Result<u32, Code> {
        let mut client = operator(self.server).await;
        let answer = client.disconnect(self.asks(asked)).await;
        let answer = answer.map_err(|status| status.code())?;
        Ok(answer.into_inner().disconnected_count)
    }
}

/// Waits until `metric` is at least `want`.
pub(super) async fn until(server: &Server, metric: &str, want: f64) {
    let reached = async {
        while server.metric(metric).await < want {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    reached.unwrap_or_else(|_| panic!("{metric} does not come to {want}"));
}

#[tokio::test]
async fn a_newer_connection_of_the_same_client_replaces_the_older_one_on_either_transport() {
    let server = Server::start_with(|settings| settings.limits.connections_per_user = 1).await;
    let token = server.token("alice", "subscribe");
    let mut first = Socket::connect(server.http, &token, "client_id=tab").await;
    first.frame_of("connection_established").await;
    let mut second = Socket::connect(server.http, &token, "client_id=tab").await;
    second.frame_of("connection_established").await;
    let closing = first.frame_of("connection_closing").await;
    assert_eq!(closing["reason"], "REPLACED");
    assert!(closing.get("reconnect_after_ms").is_none(), "{closing}");
    assert_eq!(first.closed().await, 4508);

    let mut third = Grpc::open(&server, &token, named("tab")).await;
    third.established().await;
    assert_eq!(second.closed().await, 4508);
    let mut fourth = Grpc::open(&server, &token, named("tab")).await;
    fourth.established().await;
    let (closing, code) = third.closed().await;
    assert_eq!((&*closing.reason, code), ("REPLACED", Code::Aborted));
    assert_eq!(closing.reconnect_after, None);
    let mut fifth = Socket::connect(server.http, &token, "client_id=tab").await;
    fifth.frame_of("connection_established").await;
    assert_eq!(fourth.closed().await.0.reason, "REPLACED");

    // The newcomer reads on, and the limit still holds for everyone else.
    server.start_runs("alice", &["run-1"]).await;
    assert_eq!(fifth.event().await["run_id"], "run-1");
    for query in ["", "client_id=other"] {
        let bearer = format!("Bearer {token}");
        let refused = Socket::open(server.http, query, &[("authorization", bearer)]).await;
        assert!(refused.is_err(), "?{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn another_client_and_another_users_client_of_that_name_stay() {
    let server = Server::start().await;
    let (alice, bob) = (
        server.token("alice", "subscribe"),
        server.token("bob", "subscribe"),
    );
    let mut others = [
        Socket::connect(server.http, &alice, "client_id=other").await,
        Socket::connect(server.http, &alice, "").await,
        Socket::connect(server.http, &bob, "client_id=tab").await,
    ];
    for _ in 0..2 {
        let mut socket = Socket::connect(server.http, &alice, "client_id=tab").await;
        socket.frame_of("connection_caught_up").await;
    }
    for user in ["alice", "bob"] {
        let run = format!("run-of-{user}");
        server.start_runs(user, &[&run]).await;
    }
    for socket in &mut others {
        assert_eq!(socket.event().await["type"], "agent_started");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_takes_nothing_in_is_replaced_all_the_same() {
    let server = Server::start_with(|settings| {
        settings.limits.write_stall = Duration::from_secs(3600);
        settings.limits.close_grace = Duration::from_secs(60);
        settings.limits.send_buffer = 16 * 1024;
    })
    .await;
    let token = server.token("alice", "subscribe");
    server.start_runs("alice", &["run-1"]).await;
    server.emit_large("alice", "run-1", 200).await;
    let query = "client_id=tab&from=oldest";
    let mut stalled = Socket::connect(server.http, &token, query).await;
    let mut stalled_grpc = Grpc::open(&server, &token, named("process")).await;
    stalled_grpc.established().await;
    let mut newer = Socket::connect(server.http, &token, "client_id=tab").await;
    newer.frame_of("connection_caught_up").await;
    let closed = "emitter_connections_closed_total{reason=\"REPLACED\"}";
    until(&server, closed, 1.0).await;
    assert_eq!(stalled.closed().await, 4508);
    drop(newer);
    drop(stalled_grpc);
    server.stop().await;
}

#[tokio::test]
async fn operators_list_the_connections_of_their_tenant() {
    let server = Server::start().await;
    let receipts = server
        .emit_all("agents", wire::whole_run("alice", "run-1"))
        .await;
    let mut sockets = Vec::new();
    for (tenant, user) in [("default", "alice"), ("default", "bob"), ("other", "alice")] {
        let token = server.token_in(tenant, user, "subscribe");
        let mut socket = Socket::connect(server.http, &token, "from=oldest&client_id=tab").await;
        let established = socket.frame().await;
        socket.frame_of("connection_caught_up").await;
        let id = established["connection_id"].as_str().unwrap().to_owned();
        sockets.push((socket, id));
    }
    let token = server.token("alice", "subscribe");
    let mut grpc = Grpc::open(&server, &token, SubscribeRequest::default()).await;
    let grpc_id = grpc.established().await.connection_id;

    let ours = Operator {
        server: &server,
        tenant: "default",
    };
    let all = ours.list(v1::ListConnectionsRequest::default()).await;
    let mut want = vec![sockets[0].1.clone(), sockets[1].1.clone(), grpc_id.clone()];
    want.sort();
    let ids = |listed: &v1::ListConnectionsResponse| -> Vec<String> {
        let connections = listed.connections.iter();
        connections.map(|one| one.connection_id.clone()).collect()
    };
    assert_eq!((ids(&all), &*all.next_page_token), (want.clone(), ""));
    let first = all.connections.iter();
    let first = first.clone().find(|one| one.connection_id == sockets[0].1);
    let want_first = v1::Connection {
        connection_id: sockets[0].1.clone(),
        tenant_id: "default".into(),
        user_id: "alice".into(),
        client_id: "tab".into(),
        transport: v1::Transport::Websocket.into(),
        connected_at: Some(server.clock.now().into()),
        position: receipts.last().unwrap().position.clone(),
    };
    assert_eq!(first, Some(&want_first));

    // Page by page, and only of one user.
    let mut token = String::new();
    for (n, id) in want.iter().enumerate() {
        let page = ours
            .list(v1::ListConnectionsRequest {
                page_size: 1,
                page_token: token,
                ..Default::default()
            })
            .await;
        assert_eq!(ids(&page).concat(), *id);
        assert_eq!(page.next_page_token.is_empty(), n + 1 == want.len());
        token = page.next_page_token;
    }
    let of_alice = ours
        .list(v1::ListConnectionsRequest {
            user_id: "alice".into(),
            ..Default::default()
        })
        .await;
    let mut want = vec![sockets[0].1.clone(), grpc_id];
    want.sort();
    assert_eq!(ids(&of_alice), want);
    let transports: Vec<_> = of_alice
        .connections
        .iter()
        .map(|one| one.transport())
        .collect();
    assert!(transports.contains(&v1::Transport::Grpc), "{transports:?}");
    let everywhere = Operator {
        server: &server,
        tenant: "*",
    };
    let all = everywhere.list(v1::ListConnectionsRequest::default()).await;
    assert_eq!(all.connections.len(), 4);
    server.stop().await;
}

#[tokio::test]
async fn operators_end_connections_which_may_come_back() {
    let server = Server::start().await;
    let token = server.token("alice", "subscribe");
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut socket = Socket::connect(server.http, &token, "").await;
        let id = socket.frame().await["connection_id"].clone();
        sockets.push((socket, id.as_str().unwrap().to_owned()));
    }
    let mut grpc = Grpc::open(&server, &token, SubscribeRequest::default()).await;
    grpc.established().await;
    let of_bob = server.token("bob", "subscribe");
    let mut of_bob = Socket::connect(server.http, &of_bob, "").await;

    let by = |user_id: &str, connection_id: &str| v1::DisconnectRequest {
        tenant_id: String::new(),
        user_id: user_id.into(),
        connection_id: connection_id.into(),
    };
    let ours = Operator {
        server: &server,
        tenant: "default",
    };
    let theirs = Operator {
        server: &server,
        tenant: "other",
    };
    let (_, first_id) = &sockets[0];
    assert_eq!(
        ours.disconnect(by("", "")).await,
        Err(Code::InvalidArgument)
    );
    assert_eq!(theirs.disconnect(by("alice", "")).await, Ok(0));
    assert_eq!(theirs.disconnect(by("", first_id)).await, Ok(0));
    assert_eq!(ours.disconnect(by("bob", first_id)).await, Ok(0));
    assert_eq!(ours.disconnect(by("", "nobody")).await, Ok(0));

    assert_eq!(ours.disconnect(by("", first_id)).await, Ok(1));
    let closing = sockets[0].0.frame_of("connection_closing").await;
    assert_eq!(closing["reason"], "DISCONNECTED");
    assert!(closing["reconnect_after_ms"].is_number(), "{closing}");
    assert_eq!(sockets[0].0.closed().await, 4008);

    assert_eq!(ours.disconnect(by("alice", "")).await, Ok(2));
    assert_eq!(sockets[1].0.closed().await, 4008);
    let (closing, code) = grpc.closed().await;
    assert_eq!(
        (&*closing.reason, code),
        ("DISCONNECTED", Code::Unavailable)
    );
    assert!(closing.reconnect_after.is_some());
    server.start_runs("bob", &["run-1"]).await;
    assert_eq!(of_bob.event().await["run_id"], "run-1");
    let mut again = Socket::connect(server.http, &token, "").await;
    again.frame_of("connection_caught_up").await;
    server.stop().await;
}
