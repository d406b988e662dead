//! The way between clients and the service goes away again and again.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    processes::{
        load::{Load, LoadConfig},
        reading::{Reading, subscribe},
        server::Server,
        tools::PATIENCE,
        verdict::{Allowed, judge},
    },
    proxy::{Proxy, Way},
    seed::seed,
};

#[tokio::test(flavor = "multi_thread")]
async fn cut_and_stalled_connections_lose_and_double_nothing() {
    let server = Server::start("memory", "").await;
    let direct = [server.grpc.clone()];
    let grpc = Proxy::to(server.grpc.trim_start_matches("http://")).await;
    let http = Proxy::to(server.http.trim_start_matches("http://")).await;
    let nodes = [format!("http://{}", grpc.address)];
    let seed = seed();
    let config = LoadConfig {
        pause: Duration::from_millis(2),
        ..LoadConfig::new(nodes.to_vec(), seed)
    };
    let readings = config.users.iter().flat_map(|user| {
        [
            Reading::grpc(user, &nodes, seed),
            Reading::websocket(user, &format!("http://{}", http.address)),
        ]
    });
    let readings = readings.collect();
    let load = Load::start(&config);
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..10 {
        load.acknowledged(100).await;
        let way = if rng.random() { Way::Cut } else { Way::Stalled };
        grpc.set(way);
        http.set(way);
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..300))).await;
        grpc.set(Way::Open);
        http.set(Way::Open);
    }
    let ledger = load.finish().await;
    assert!(grpc.passed() > 0 && http.passed() > 0);
    judge(&ledger, readings, &direct, Allowed::NOTHING).await;
}

/// Readers that are sent away come back one after the other, not all at once.
#[tokio::test(flavor = "multi_thread")]
async fn drained_readers_are_spread_out() {
    use emitter::proto::v1::subscribe_response::Item;

    let mut node = Server::start("memory", "[limits]\nconnections_per_user = 16\n").await;
    let mut streams = Vec::new();
    for n in 0..100 {
        streams.push(subscribe(&node.grpc, &format!("u{n}"), None).await.unwrap());
    }
    node.ask_to_end();
    let mut waits = Vec::new();
    for mut stream in streams {
        let mut next = async || tokio::time::timeout(PATIENCE, stream.message()).await;
        while let Ok(Some(message)) = next().await.expect("the stream ends") {
            if let Some(Item::Closing(closing)) = message.item {
                assert_eq!(closing.reason, "DRAINING");
                let wait = closing.reconnect_after.expect("when to come back");
                waits.push(Duration::try_from(wait).unwrap());
            }
        }
    }
    assert!(node.wait().await.success());
    // Between 100 ms and 5 s, evenly: of 100, no second has 45, and every one has some.
    let mut seconds = [0; 5];
    for wait in &waits {
        let index = usize::try_from(wait.as_secs()).unwrap();
        seconds[index.min(4)] += 1;
    }
    let spread = seconds.iter().all(|count| (3..45).contains(count));
    assert!(waits.len() == 100 && spread, "{seconds:?} of {waits:?}");
}
