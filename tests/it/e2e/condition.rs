//! An engine that stores nothing until the service is started again, or nothing from here: every door says so.

use std::sync::Arc;

use emitter::{
    app::Environment,
    clock::{Clock, Entropy},
    engine::{
        Engine, Watcher,
        durable::{self, DurableEngine},
        memory,
    },
    event::{Position, Record},
    telemetry::Metrics,
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::server::Server;
use crate::{
    processes::tools::until,
    support::{
        events::{self, START, all, append, ids, notes, stream},
        faulty_engine::FaultyEngine,
    },
};

/// The writer calls it.
struct Panics;

impl Watcher for Panics {
    fn appended(&self, _: &[Arc<Record>]) {
        panic!("on purpose");
    }

    fn stands_at(&self, _: Position) {}
}

async fn health(server: &Server) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

async fn status(health: &mut HealthClient<Channel>) -> ServingStatus {
    let request = HealthCheckRequest {
        service: "emitter.v1.EventEmitter".into(),
    };
    health.check(request).await.unwrap().into_inner().status()
}

async fn ready(server: &Server) -> (u16, serde_json::Value) {
    let (status, body) = server.admin("/readyz").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn a_writer_that_failed_is_told_at_every_door() {
    let directory = tempfile::tempdir().unwrap();
    let (metrics, rendered) = Metrics::new();
    let config = durable::Config {
        directory: directory.path().to_owned(),
        sync: durable::Sync::Group,
        bounds: memory::Config::default(),
    };
    let (clock, metrics) = (Clock::manual(START), Arc::new(metrics));
    let engine = DurableEngine::open(config, clock.clone(), &Entropy::seeded(1), metrics).unwrap();
    let environment = Environment {
        clock,
        entropy: Entropy::seeded(1),
        engine: Some(engine.clone()),
    };
    let server = Server::start_in(environment, |_| {}).await;
    let mut health = health(&server).await;
    let user = stream("u");
    append(&*engine, &user, notes(&user, &["a"], START)).await;
    let (code, said) = ready(&server).await;
    assert_eq!((code, &said["status"]), (200, &"ready".into()), "{said}");
    assert!(said["engine"]["refuses"].is_null(), "{said}");
    assert_eq!(server.admin("/healthz").await.0, 200);
    assert_eq!(status(&mut health).await, ServingStatus::Serving);
    assert!(rendered.render().contains("emitter_engine_failed 0"));

    let _watch = engine.watch(&user, Arc::new(Panics)).await.unwrap();
    let state = engine.load(&user).await.unwrap();
    let commit = notes(&user, &["b"], START);
    let failed = engine.append(&user, &state, commit).await;
    assert!(failed.is_err(), "{failed:?}");
    // The answer is gone a moment before the thread is.
    until("it is not ready", async || ready(&server).await.0 == 503).await;
    let (_, said) = ready(&server).await;
    assert_eq!(said["status"], "failed", "{said}");
    assert_eq!(said["engine"]["refuses"], "the writer failed", "{said}");
    let (code, said) = server.admin("/healthz").await;
    assert_eq!((code, said.as_str()), (503, "the writer failed\n"));
    until("nothing is served", async || {
        status(&mut health).await == ServingStatus::NotServing
    })
    .await;
    let rendered = rendered.render();
    for gauge in ["emitter_engine_failed 1", "emitter_engine_refusing 1"] {
        assert!(rendered.contains(gauge), "{rendered}");
    }
    // What is stored can be read.
    let read = ids(&all(&*engine, &user).await);
    assert_eq!(read.first().map(String::as_str), Some("a"), "{read:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_node_that_can_store_nothing_is_told_at_every_door_until_it_can() {
    let (memory, clock) = events::memory(memory::Config::default());
    let engine = FaultyEngine::new(memory, 1);
    let environment = Environment {
        clock,
        entropy: Entropy::seeded(1),
        engine: Some(engine.clone()),
    };
    let server = Server::start_in(environment, |_| {}).await;
    let mut health = health(&server).await;
    for (unfit, code, word, serving) in [
        (false, 200, "ready", ServingStatus::Serving),
        (true, 503, "unfit", ServingStatus::NotServing),
        (false, 200, "ready", ServingStatus::Serving),
    ] {
        engine.set_unfit(unfit);
        let (found, said) = ready(&server).await;
        assert_eq!((found, &said["status"]), (code, &word.into()), "{said}");
        // Only a restart would help where this fails.
        assert_eq!(server.admin("/healthz").await.0, 200);
        until("health follows", async || {
            status(&mut health).await == serving
        })
        .await;
    }
    server.stop().await;
}
