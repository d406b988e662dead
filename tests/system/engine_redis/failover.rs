//! Sentinels put a replica in the master's place.

use std::{
    fs,
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use emitter::engine::{
    Engine,
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
