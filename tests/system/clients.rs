//! The way between clients and the service goes away again and again.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    processes::{
        load::{Load, LoadConfig},
        reading::Reading,
        server::Server,
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
