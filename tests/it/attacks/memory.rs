//! Attack 1: memory before the credential.

use bytes::Bytes;

use super::{bystander::Bystander, raw::Raw, status_kib};
use crate::processes::server::Server;

/// A method of every service that the port has.
const METHODS: [&str; 8] = [
    "/emitter.v1.EventEmitter/Emit",
    "/emitter.v1.EventEmitter/EmitBatch",
    "/emitter.v1.EventSubscriber/Subscribe",
    "/emitter.v1.EmitterOperator/ListRuns",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

const STREAMS: usize = 1000;

/// What may be held for all of them, in KiB.
const GROWTH: u64 = 8 * 1024;

/// By how many KiB the most that the process ever held is above `before`.
fn growth(server: &Server, before: u64) -> u64 {
    status_kib(server, "VmHWM:").saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_credential_hold_next_to_nothing() {
    const LENGTH: u32 = 4 * 1024 * 1024;
    let mut large = vec![0; LENGTH as usize + 4];
    large[1..5].copy_from_slice(&LENGTH.to_be_bytes());
    let large = Bytes::from(large);
    let announced = large.slice(..5);
    let small = Bytes::from_static(b"\0\0\0\x04\0");
    let mut nearly = vec![0; 1028];
    nearly[3] = 4;
    let nearly = Bytes::from(nearly);
    for (what, body) in [
        ("4 MiB without the last byte", large),
        ("4 MiB announced", announced),
        ("1 KiB announced", small),
        ("1 KiB without the last byte", nearly),
    ] {
        let server = Server::start("attacked", "").await;
        let mut bystander = Bystander::start(&server).await;
        bystander.more(20).await;
        let before = status_kib(&server, "VmHWM:");
        let mut raw = Raw::connect(&server).await;
        let mut held = Vec::new();
        let mut connections = 1;
        for n in 0..STREAMS {
            // The server closes a connection that goes on sending on calls that were refused.
            if !raw.is_open().await {
                raw = Raw::connect(&server).await;
                connections += 1;
            }
            let method = METHODS[n % METHODS.len()];
            held.push(raw.call(method, None, body.clone()).await);
        }
        let _closed = raw.read_by_server().await;
        bystander.more(20).await;
        let growth = growth(&server, before);
        let seen = bystander.finish().await;
        println!(
            "attack 1, {STREAMS} streams, {what}: +{growth} KiB, {connections} connections; bystander {seen:?}"
        );
        assert!(growth < GROWTH, "{what}: +{growth} KiB");
    }
}
