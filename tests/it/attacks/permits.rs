//! Attack 2: emits whose bodies do not end.

use std::time::Duration;

use bytes::Bytes;
use tonic::Status;
use tonic_types::StatusExt;

use super::{bystander::Bystander, raw::Raw};
use crate::processes::server::{Server, token};

/// As many as `limits.grpc_calls`.
const CALLS: usize = 1024;

const BYTES: usize = 730;

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_emits_delay_no_other_producer() {
    // Longer than the test: what they hold is not given back by a timeout.
    let server = Server::start("attacked", "[limits]\nrequest_body = \"10m\"\n").await;
    let mut bystander = Bystander::start(&server).await;
    let mut body = vec![0; BYTES];
    body[3..5].copy_from_slice(&1000_u16.to_be_bytes());
    let body = Bytes::from(body);
    let token = token("attacker", "emit");
    let mut connections = [Raw::connect(&server).await, Raw::connect(&server).await];
    let mut held = Vec::new();
    for n in 0..CALLS {
        let raw = &mut connections[n % 2];
        let path = "/emitter.v1.EventEmitter/Emit";
        held.push(raw.call(path, Some(&token), body.clone()).await);
    }
    let all = (CALLS * BYTES) as f64;
    while server.metric("emitter_grpc_body_bytes").await < all {
        bystander.more(1).await;
    }
    bystander.more(50).await;
    let seen = bystander.finish().await;
    println!("attack 2, {CALLS} unfinished emits of {BYTES} bytes: bystander {seen:?}");
    assert!(seen.slowest < Duration::from_secs(10), "{seen:?}");
    drop((held, connections));
    while server.metric("emitter_grpc_body_bytes").await > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_bodies_of_one_credential_are_bounded() {
    const LENGTH: u32 = 100 * 1024;
    let toml = "[limits]\nrequest_body = \"10m\"\nbatch_bytes = \"64KiB\"\n\
                body_bytes_per_credential = \"128KiB\"\n";
    let server = Server::start("attacked", toml).await;
    let mut body = vec![0; LENGTH as usize + 4];
    body[1..5].copy_from_slice(&LENGTH.to_be_bytes());
    let body = Bytes::from(body);
    let path = "/emitter.v1.EventEmitter/EmitBatch";
    let mut raw = Raw::connect(&server).await;
    let attacker = token("attacker", "emit");
    let _first = raw.call(path, Some(&attacker), body.clone()).await;
    let length = body.len() as f64;
    while server.metric("emitter_grpc_body_bytes").await < length {
        assert!(
            raw.read_by_server().await,
            "the server closed the connection"
        );
    }
    let (answer, _body) = raw.call(path, Some(&attacker), body.clone()).await;
    let answer = answer.await.unwrap();
    let status = Status::from_header_map(answer.headers()).expect("a refusal");
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    assert_eq!(reason, Some("LIMIT_EXCEEDED"), "{status:?}");
    assert!(details.retry_info().is_some(), "{status:?}");

    let other = token("other", "emit");
    let _third = raw.call(path, Some(&other), body).await;
    while server.metric("emitter_grpc_body_bytes").await < 2.0 * length {
        assert!(
            raw.read_by_server().await,
            "the server closed the connection"
        );
    }
}
