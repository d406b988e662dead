//! The balancer of `deploy/haproxy.cfg`, between clients and three nodes.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use emitter::{
    client::{Producer, ProducerConfig},
    proto::v1::Event,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::Code;

use crate::{
    processes::{
        load::{Load, LoadConfig},
        ports,
        reading::Reading,
        server::{Server, credential},
        tools::{tail, tool, until},
        verdict::{Allowed, judge},
    },
    seed::seed,
};

/// A running balancer, killed when dropped. If its test fails, the end of its log is printed.
pub(crate) struct Balancer {
    /// Where agent services connect, such as `http://127.0.0.1:1`.
    pub(crate) grpc: String,
    /// Where browsers connect.
    pub(crate) http: String,
    directory: TempDir,
    child: Child,
}

impl Balancer {
    /// In front of `nodes`, with nothing changed but addresses and the number of descriptors.
    pub(crate) async fn of(nodes: &[Server; 3]) -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy.cfg");
        let mut config = fs::read_to_string(file).unwrap();
        let mut replace = |from: &str, to: &str| {
            assert!(config.contains(from), "{from} is not in {file}");
            config = config.replace(from, to);
        };
        let [grpc, http] = [(); 2].map(|()| format!("127.0.0.1:{}", ports::free()));
        replace("maxconn 200000", "maxconn 4000");
        replace("bind :50051", &format!("bind {grpc}"));
        replace("bind :8080", &format!("bind {http}"));
        for (n, node) in nodes.iter().enumerate() {
            let n = n + 1;
            let (_, admin) = node.admin.split_once(':').unwrap();
            let address =
                |url: &str| format!(" {} port {admin}", url.trim_start_matches("http://"));
            replace(&format!(" emitter-{n}:50051"), &address(&node.grpc));
            replace(&format!(" emitter-{n}:8080"), &address(&node.http));
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = tool("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("haproxy: install it with `make tools`");
        let balancer = Self {
            grpc: format!("http://{grpc}"),
            http: format!("http://{http}"),
            directory,
            child,
        };
        until("the balancer listens", async || {
            TcpStream::connect(&grpc).await.is_ok() && TcpStream::connect(&http).await.is_ok()
        })
        .await;
        balancer
    }

    /// Two readers of each user, who know nothing but the balancer.
    pub(crate) fn readings(&self, config: &LoadConfig) -> Vec<Reading> {
        let both = config.users.iter().flat_map(|user| {
            [
                Reading::grpc(user, std::slice::from_ref(&self.grpc), config.seed),
                Reading::websocket(user, &self.http),
            ]
        });
        both.collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _gone_by_itself = self.child.kill();
        let _gone_by_now = self.child.wait();
        if std::thread::panicking() {
            let log = tail(&self.directory.path().join("log"), 15);
            eprintln!("-- log of the balancer:\n{log}");
        }
    }
}

/// Two of three are gone: what the balancer is for, with each protocol.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_gone_get_nothing() {
    let mut nodes = [
        Server::start("node 1", "").await,
        Server::start("node 2", "").await,
        Server::start("node 3", "").await,
    ];
    let balancer = Balancer::of(&nodes).await;
    for node in &mut nodes[1..] {
        assert!(node.terminate().await.success());
    }
    let front = [balancer.grpc.clone()];
    let config = LoadConfig {
        pause: Duration::from_millis(20),
        ..LoadConfig::new(front.to_vec(), seed())
    };
    let readings = balancer.readings(&config);
    let load = Load::start(&config);
    load.acknowledged(300).await;
    // Longer than a node may take to answer a check: the last one is there all the time.
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.acknowledged(300).await;
    let ledger = load.finish().await;
    let last = [nodes[0].grpc.clone()];
    judge(&ledger, readings, &last, Allowed::NOTHING).await;

    // None is left: a producer is told so in its own terms.
    assert!(nodes[0].terminate().await.success());
    let once = ProducerConfig {
        deadline: Duration::from_secs(1),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&balancer.grpc, credential("late", "emit"), once).unwrap();
    until("the balancer says that no node is ready", async || {
        let refusal = producer
            .emit(Event::default())
            .await
            .expect_err("to nobody");
        let code = Code::from(refusal.code);
        (code, refusal.message.as_str()) == (Code::Unavailable, "no node is ready")
    })
    .await;
}
