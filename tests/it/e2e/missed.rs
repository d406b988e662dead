//! A node tells the others what it could not store, whatever else it is at.

use std::{sync::Arc, time::Duration};

use emitter::{
    engine::{Engine, Key, memory::MemoryEngine},
    event::{StreamKey, Tenant, UserId},
    proto::v1,
};

use super::{server::Server, wire};
use crate::{processes::tools::until, support::faulty_engine::FaultyEngine};

struct Node {
    server: Server,
    engine: Arc<FaultyEngine>,
    memory: Arc<MemoryEngine>,
    alice: StreamKey,
}

impl Node {
    /// With an open run of alice's.
    async fn start() -> Self {
        let (server, engine, memory) = Server::start_held(Duration::from_secs(300)).await;
        server.start_runs("alice", &["run-1"]).await;
        let (tenant, user) = (Tenant::new("default"), UserId::new("alice"));
        Self {
            server,
            engine,
            memory,
            alice: StreamKey::new(tenant.unwrap(), user.unwrap()),
        }
    }

    async fn has_told(&self) -> bool {
        has_told(&self.memory, &self.alice).await
    }
}

async fn has_told(memory: &MemoryEngine, user: &StreamKey) -> bool {
    let key = Key::Missed(user.bucket() / 64 * 64);
    memory.get(&key).await.unwrap().is_some()
}

fn thinks() -> v1::Event {
    wire::event("alice", "run-1", "late", wire::thinking("x"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_wait_for_a_watchdog_that_hangs() {
    let node = Node::start().await;
    until("the node holds its leases", async || {
        let lease = node.memory.get(&Key::Lease(15)).await;
        lease.unwrap().is_some() && node.engine.looks() >= 16
    })
    .await;
    node.engine.places.hang(0..0, 0..16);
    let looks = node.engine.looks();
    // They are to be renewed.
    node.server.clock.advance(Duration::from_secs(6));
    until("the watchdog asks for its leases", async || {
        node.engine.looks() >= looks + 16
    })
    .await;
    node.engine.break_stream(&node.alice);
    assert!(!node.has_told().await);
    node.server.try_emit("agents", vec![thinks()]).await;
    until("it is told", async || node.has_told().await).await;
    node.engine.places.hang(0..0, 0..0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_while_it_drains_is_told_before_it_goes() {
    let node = Node::start().await;
    node.engine.hold();
    let token = node.server.token("agents", "emit");
    let mut client = wire::emitter(node.server.grpc).await;
    let emitting = tokio::spawn(async move {
        let request = v1::EmitRequest {
            event: Some(thinks()),
        };
        client.emit(wire::with_token(&token, request)).await
    });
    until("the append", async || node.engine.waiting() == 1).await;
    let Node {
        server,
        engine,
        memory,
        alice,
    } = node;
    let admin = server.admin;
    let stopping = tokio::spawn(server.stop());
    until("it drains", async || {
        super::http::get(admin, "/readyz").await.0 == 503
    })
    .await;
    engine.break_stream(&alice);
    engine.release();
    stopping.await.unwrap();
    let refused = emitting.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    assert!(has_told(&memory, &alice).await);
}
