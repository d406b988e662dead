//! Another server has the data: sentinels put a replica in the master's place, a slot moves.

use std::{
    fs,
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use emitter::engine::{
    AppendError, Engine,
    redis::{Mode, Url},
};
use tempfile::TempDir;

use super::{Told, node_on};
use crate::{
    processes::{
        ports,
        tools::{output, tool, until, until_within},
    },
    redis::{AOF_EVERYSEC, Redis},
    support::events::{START, all, append, ids, notes, stream},
};

/// A sentinel of a master named `main`, which it alone decides about. Killed when dropped.
struct Sentinel {
    port: u16,
    child: Child,
    _directory: TempDir,
}

impl Sentinel {
    async fn of(master: &Redis) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (port, settings) = (ports::free(), directory.path().join("sentinel.conf"));
        let master = master.port;
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n"
        );
        fs::write(&settings, text).unwrap();
        let child = tool("redis-server")
            .arg(&settings)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sentinel = Self {
            port,
            child,
            _directory: directory,
        };
        until("the sentinel knows the replica", async || {
            sentinel
                .cli(&["sentinel", "replicas", "main"])
                .contains("online")
                || sentinel
                    .cli(&["sentinel", "replicas", "main"])
                    .contains("ok")
        })
        .await;
        sentinel
    }

    fn cli(&self, command: &[&str]) -> String {
        let mut cli = tool("redis-cli");
        cli.args(["-p", &self.port.to_string()]).args(command);
        let answer = cli.output().unwrap();
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _gone_by_itself = self.child.kill();
        let _gone_by_now = self.child.wait();
    }
}

#[tokio::test]
async fn a_failover_is_followed_and_told_by_a_new_epoch() {
    let mut primary = Redis::start(AOF_EVERYSEC).await;
    let replica = Redis::replica_of(&primary, AOF_EVERYSEC).await;
    let sentinel = Sentinel::of(&primary).await;
    let engine = node_on("", |config| {
        config.mode = Mode::Sentinel;
        config.master_name = "main".into();
        // The first of them is gone.
        config.urls = [ports::free(), sentinel.port]
            .map(|port| Url::new(&format!("redis://127.0.0.1:{port}")))
            .into();
    });
    let user = stream("u");
    let told = Arc::new(Told::default());
    let _watch = engine.watch(&user, told.clone()).await.unwrap();
    let before = append(&*engine, &user, notes(&user, &["a"], START))
        .await
        .records[0]
        .position;
    until("the replica has it", async || {
        replica.cli(&["dbsize"]).trim() != "0"
    })
    .await;
    output(tool("redis-cli").args(["-p", &primary.port.to_string(), "wait", "1", "1000"]));
    let since = Instant::now();
    primary.kill().await;
    let mut after = None;
    until_within(
        Duration::from_secs(20),
        "the new master is found",
        async || {
            after = engine.load(&user).await.ok();
            after.is_some()
        },
    )
    .await;
    println!("found the new master after {:?}", since.elapsed());
    let head = after.unwrap().head;
    assert_ne!(head.epoch, before.epoch);
    assert_eq!(head.offset, before.offset);
    assert_eq!(ids(&all(&*engine, &user).await), ["a"]);
    until("the watcher is told", async || {
        told.heads().last() == Some(&head)
    })
    .await;
    let head = append(&*engine, &user, notes(&user, &["b"], START))
        .await
        .records[0]
        .position;
    // By a hint, or by the comparison of heads where the subscription came later.
    until("the watcher is told of more", async || told.knows(head)).await;
}

#[tokio::test]
async fn a_slot_that_moves_stores_nothing_by_half_and_goes_on_where_it_arrives() {
    let nodes = Redis::cluster().await;
    let engine = node_on("", |config| {
        config.mode = Mode::Cluster;
        config.urls = vec![Url::new(&format!("redis://{}", nodes[0].address()))];
        config.timeout = Duration::from_millis(500);
    });
    let user = stream("u");
    let before = append(&*engine, &user, notes(&user, &["a"], START))
        .await
        .records[0]
        .position;
    let state = engine.load(&user).await.unwrap();
    let tag = format!("{{emitter:{}}}", user.bucket());
    let slot = nodes[0]
        .cli(&["cluster", "keyslot", &tag])
        .trim()
        .to_owned();
    let keys_at = |node: &Redis| -> Vec<String> {
        let keys = node.cli(&["cluster", "getkeysinslot", &slot, "100"]);
        keys.lines()
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let from = nodes
        .iter()
        .position(|node| !keys_at(node).is_empty())
        .unwrap();
    let (from, to) = (&nodes[from], &nodes[(from + 1) % 3]);
    let id = |node: &Redis| node.cli(&["cluster", "myid"]).trim().to_owned();
    to.cli(&["cluster", "setslot", &slot, "importing", &id(from)]);
    from.cli(&["cluster", "setslot", &slot, "migrating", &id(to)]);
    let mut keys = keys_at(from);
    // One key after the other, the bucket's own last.
    keys.sort_by_key(|key| key.ends_with('b'));
    for key in &keys {
        let answer = engine
            .append(&user, &state, notes(&user, &["b"], START))
            .await;
        let refused = matches!(answer, Err(AppendError::Unavailable(_)));
        assert!(refused, "before {key} moves: {answer:?}");
        from.cli(&[
            "migrate",
            "127.0.0.1",
            &to.port.to_string(),
            key,
            "0",
            "5000",
        ]);
    }
    for node in [to, from] {
        node.cli(&["cluster", "setslot", &slot, "node", &id(to)]);
    }
    let mut after = None;
    until("it arrives", async || {
        after = engine.load(&user).await.ok();
        after.is_some()
    })
    .await;
    let head = after.unwrap().head;
    assert_eq!(
        (head.offset, head.epoch != before.epoch),
        (before.offset, true)
    );
    append(&*engine, &user, notes(&user, &["c"], START)).await;
    assert_eq!(ids(&all(&*engine, &user).await), ["a", "c"]);
}
