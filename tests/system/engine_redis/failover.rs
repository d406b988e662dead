//! Another server has the data: a replica takes the master's place, a slot moves.

use std::{
    fs,
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use emitter::{
    engine::{
        AppendError, Commit, Engine,
        redis::{Mode, RedisEngine, Url},
    },
    event::{BUCKETS, Kind, StreamKey},
};
use tempfile::TempDir;

use super::{Told, admit, loaded, node_on, tried, urls};
use crate::{
    processes::{
        ports,
        tools::{tool, until},
    },
    redis::{AOF_EVERYSEC, Redis, cli},
    support::events::{START, all, append, draft, event, ids, notes, stream},
};

/// A sentinel of a master named `main`, which it alone decides about. Killed when dropped.
struct Sentinel {
    port: u16,
    /// What `redis-cli` needs to get in.
    access: Vec<String>,
    child: Child,
    _directory: TempDir,
}

impl Sentinel {
    async fn of(master: &Redis) -> Self {
        let port = ports::free();
        let settings = format!("port {port}\n");
        let sentinel = Self::start(port, Vec::new(), master, (&settings, ""));
        until("the sentinel knows the replica", async || {
            let replica = sentinel.cli(&["sentinel", "replicas", "main"]);
            replica.contains("\nmaster-link-status\nok\n")
        })
        .await;
        sentinel
    }

    /// One that is reached only over TLS, with the certificate of its master, which it reaches over TLS, too, as it does
    /// the replica.
    async fn over_tls(master: &Redis) -> Self {
        let port = ports::free();
        let (ca, key, certificate) = (
            master.ca_file(),
            master.file("server.key"),
            master.file("server.crt"),
        );
        let access = vec!["--tls".to_owned(), "--cacert".to_owned(), ca.clone()];
        let settings = format!(
            "port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\n\
             tls-ca-cert-file {ca}\ntls-key-file {key}\ntls-cert-file {certificate}\n"
        );
        let more = "sentinel auth-user main emitter\nsentinel auth-pass main secret\n";
        let sentinel = Self::start(port, access, master, (&settings, more));
        until("the sentinel reaches both", async || {
            let master = sentinel.cli(&["sentinel", "master", "main"]);
            let replica = sentinel.cli(&["sentinel", "replicas", "main"]);
            let reached =
                |known: &str, role: &str| known.contains(role) && !known.contains("disconnected");
            reached(&master, "\nmaster\n") && reached(&replica, "\nmaster-link-status\nok\n")
        })
        .await;
        sentinel
    }

    /// From now on the replica takes the place of the master when it has not answered for two seconds.
    fn may_fail_over(&self) {
        let set = ["sentinel", "set", "main", "down-after-milliseconds", "2000"];
        assert_eq!(self.cli(&set).trim(), "OK");
    }

    /// One with these settings, before and behind those that name the master. It has patience with that.
    fn start(
        port: u16,
        access: Vec<String>,
        master: &Redis,
        (before, behind): (&str, &str),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentinel.conf");
        let master = master.port;
        let text = format!(
            "{before}bind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 60000\nsentinel failover-timeout main 5000\n{behind}"
        );
        fs::write(&file, text).unwrap();
        let child = tool("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            port,
            access,
            child,
            _directory: directory,
        }
    }

    fn cli(&self, command: &[&str]) -> String {
        let answer = cli(self.port, &self.access, command).output().unwrap();
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
    replica.has_all_of(&primary).await;
    let since = Instant::now();
    primary.kill().await;
    sentinel.may_fail_over();
    let head = loaded(&*engine, &user).await.head;
    println!("found the new master after {:?}", since.elapsed());
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
async fn sentinels_are_asked_over_tls_and_the_new_master_is_reached_so_too() {
    let mut primary = Redis::over_tls(AOF_EVERYSEC).await;
    let replica = Redis::replica_over_tls(&primary, AOF_EVERYSEC).await;
    let sentinel = Sentinel::over_tls(&primary).await;
    for server in [&primary, &replica] {
        admit(server, "node", "+role");
    }
    let password = tempfile::NamedTempFile::new().unwrap();
    fs::write(&password, "secret\n").unwrap();
    let through = |scheme: &str, ca_file: String| {
        node_on("", |config| {
            config.mode = Mode::Sentinel;
            config.master_name = "main".into();
            config.urls = vec![Url::new(&format!("{scheme}://127.0.0.1:{}", sentinel.port))];
            config.username = "node".into();
            config.password_file = password.path().to_owned();
            config.ca_file = ca_file.into();
            config.timeout = Duration::from_secs(3);
        })
    };
    let user = stream("u");
    let engine = through("rediss", primary.ca_file());
    loaded(&*engine, &user).await;
    let before = append(&*engine, &user, notes(&user, &["a"], START)).await;
    assert_eq!(ids(&all(&*engine, &user).await), ["a"]);
    for (scheme, ca_file) in [("redis", primary.ca_file()), ("rediss", String::new())] {
        let answer = through(scheme, ca_file).load(&user).await;
        assert!(answer.is_err(), "{scheme}: {answer:?}");
    }
    replica.has_all_of(&primary).await;
    primary.kill().await;
    sentinel.may_fail_over();
    let after = loaded(&*engine, &user).await.head;
    let before = before.records[0].position;
    assert_eq!(after.offset, before.offset);
    assert_ne!(after.epoch, before.epoch);
    append(&*engine, &user, notes(&user, &["b"], START)).await;
    assert_eq!(ids(&all(&*engine, &user).await), ["a", "b"]);
}

/// A user whose stream is on another master than `node`.
fn not_on(node: &Redis) -> StreamKey {
    let mut users = (0..).map(|n| stream(&format!("v{n}")));
    users.find(|user| !node.is_master_of(&tag(user))).unwrap()
}

/// An engine on a cluster whose masters serve their users also while another one is away.
fn without_full_coverage(nodes: &[Redis]) -> Arc<RedisEngine> {
    for node in nodes {
        node.cli(&["config", "set", "cluster-require-full-coverage", "no"]);
    }
    node_on("", |config| {
        config.mode = Mode::Cluster;
        config.urls = urls(nodes);
        config.timeout = Duration::from_secs(3);
    })
}

/// The key that says in which slot a user's stream is.
fn tag(user: &StreamKey) -> String {
    format!("{{emitter:{}}}", user.bucket())
}

#[tokio::test]
async fn a_master_of_a_cluster_that_dies_ends_the_epochs_of_its_users_only() {
    let mut nodes = Redis::cluster_with_replicas().await;
    let as_node = |node: &Redis| {
        admit(node, "node", "+cluster|slots +cluster|myid +cluster|info");
        Url::new(&format!("redis://node:secret@{}", node.address()))
    };
    let urls: Vec<Url> = nodes.iter().map(as_node).collect();
    let in_cluster = |replicas: usize| {
        node_on("", |config| {
            config.mode = Mode::Cluster;
            config.urls = urls.clone();
            config.wait_replicas = replicas;
            config.wait_timeout = Duration::from_secs(20);
        })
    };
    // What is acknowledged is with the replica.
    let (engine, acknowledging) = (in_cluster(0), in_cluster(1));
    let user = stream("u");
    let dies = nodes.iter().position(|node| node.is_master_of(&tag(&user)));
    let dies = dies.expect("a master");
    let other = not_on(&nodes[dies]);
    let mut before = Vec::new();
    let mut watched = Vec::new();
    for user in [&user, &other] {
        let told = Arc::new(Told::default());
        let watch = engine.watch(user, told.clone()).await.unwrap();
        let appended = append(&*acknowledging, user, notes(user, &["a"], START)).await;
        before.push(appended.records[0].position);
        until("the hint comes", async || told.ids() == ["a"]).await;
        watched.push((told, watch));
    }
    nodes[dies].may_be_replaced(&nodes);
    let since = Instant::now();
    nodes[dies].kill().await;
    let mut after = Vec::new();
    for user in [&user, &other] {
        after.push(loaded(&*engine, user).await.head);
        println!("{user:?} is back after {:?}", since.elapsed());
        assert_eq!(ids(&all(&*engine, user).await), ["a"]);
    }
    assert_ne!(after[0].epoch, before[0].epoch);
    assert_eq!(after[0].offset, before[0].offset);
    assert_eq!(after[1], before[1], "it was on another master");
    until("the watcher is told", async || {
        watched[0].0.heads().last() == Some(&after[0])
    })
    .await;
    for (user, (told, _)) in [&user, &other].into_iter().zip(&watched) {
        let head = append(&*engine, user, notes(user, &["b"], START))
            .await
            .records[0]
            .position;
        // By a hint, or by the comparison of heads where the subscription came later.
        until("the watcher is told of more", async || told.knows(head)).await;
        assert_eq!(ids(&all(&*engine, user).await), ["a", "b"]);
    }
    let told = watched[1].0.heads();
    assert!(
        told.iter().all(|head| head.epoch == before[1].epoch),
        "{told:?}"
    );
}

/// What is due elsewhere is found all the same.
#[tokio::test]
async fn a_master_of_a_cluster_that_does_not_answer_hides_no_runs_but_its_own() {
    let nodes = Redis::cluster().await;
    let engine = without_full_coverage(&nodes);
    let there = stream("u");
    let stalls = nodes.iter().find(|node| node.is_master_of(&tag(&there)));
    let stalls = stalls.expect("a master");
    let other = not_on(stalls);
    for user in [&there, &other] {
        loaded(&*engine, user).await;
        let started = event(user, "s", Some("r"), Kind::AgentStarted);
        let drafts = vec![draft(started, 1, START)];
        append(&*engine, user, Commit { drafts }).await;
    }
    let late = START + Duration::from_secs(60 * 60);
    let due = async |now| {
        let found = engine.due_in_reach(0..BUCKETS, now, 10).await;
        let mut users: Vec<_> = found.due.into_iter().map(|due| due.stream).collect();
        users.sort();
        (users, found.out_of_reach)
    };
    let mut both = vec![there.clone(), other.clone()];
    both.sort();
    let is_whole = async |now| due(now).await == (both.clone(), vec![]);
    until("both are due", async || is_whole(late).await).await;
    stalls.stall();
    // Once where it is known which runs are due, and once where that is to be looked up.
    for now in [late, late + Duration::from_secs(60)] {
        until("what is due elsewhere is found", async || {
            let (users, away) = due(now).await;
            let (is_away, is_there) = (
                away.contains(&there.bucket()),
                !away.contains(&other.bucket()),
            );
            users == std::slice::from_ref(&other) && is_away && is_there
        })
        .await;
    }
    stalls.go_on();
    let later = late + Duration::from_secs(120);
    until("the master answers again", async || is_whole(later).await).await;
}

#[tokio::test]
async fn a_slot_that_moves_stores_nothing_by_half_and_goes_on_where_it_arrives() {
    let nodes = Redis::cluster().await;
    let engine = node_on("", |config| {
        config.mode = Mode::Cluster;
        config.urls = vec![Url::new(&format!("redis://{}", nodes[0].address()))];
        config.timeout = Duration::from_secs(2);
    });
    let user = stream("u");
    loaded(&*engine, &user).await;
    let before = append(&*engine, &user, notes(&user, &["a"], START))
        .await
        .records[0]
        .position;
    let state = engine.load(&user).await.unwrap();
    let slot = nodes[0]
        .cli(&["cluster", "keyslot", &tag(&user)])
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
        until("it is refused while the slot moves", async || {
            let append = engine.append(&user, &state, notes(&user, &["b"], START));
            let answer = append.await;
            let is_refused = matches!(answer, Err(AppendError::Unavailable(_)));
            let is_late = matches!(answer, Err(AppendError::Unknown(_)));
            assert!(is_refused || is_late, "before {key} moves: {answer:?}");
            is_refused
        })
        .await;
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
    let head = loaded(&*engine, &user).await.head;
    assert_eq!(
        (head.offset, head.epoch != before.epoch),
        (before.offset, true)
    );
    append(&*engine, &user, notes(&user, &["c"], START)).await;
    assert_eq!(ids(&all(&*engine, &user).await), ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_a_cluster_that_only_stalls_is_left_for_its_replica() {
    let nodes = Redis::cluster_with_replicas().await;
    let engine = without_full_coverage(&nodes);
    let user = stream("u");
    let stalls = nodes.iter().position(|node| node.is_master_of(&tag(&user)));
    let stalls = stalls.expect("a master");
    let other = not_on(&nodes[stalls]);
    for user in [&user, &other] {
        loaded(&*engine, user).await;
    }
    let told = Arc::new(Told::default());
    let _watch = engine.watch(&user, told.clone()).await.unwrap();
    append(&*engine, &user, notes(&user, &["a"], START)).await;
    nodes[stalls].may_be_replaced(&nodes);
    nodes[stalls].stall();
    let since = Instant::now();
    until("emits go on, and those of the others do", async || {
        engine.load(&other).await.is_ok() && tried(&*engine, &user, "b").await.is_some()
    })
    .await;
    println!("emits go on after {:?}", since.elapsed());
    let last = all(&*engine, &user).await.last().unwrap().position;
    // By a hint, or by the comparison of heads where the subscription came later.
    until("the watcher knows", async || told.knows(last)).await;
    until("hints come", async || {
        tried(&*engine, &user, "c").await.is_some() && told.ids().contains(&"c".into())
    })
    .await;
    // The old master is a replica now, and nobody goes back to it.
    nodes[stalls].go_on();
    until("it knows", async || {
        nodes[stalls].cli(&["role"]).starts_with("slave")
    })
    .await;
    let mut after = None;
    until("hints come", async || {
        after = tried(&*engine, &user, "d").await;
        after.is_some() && told.ids().contains(&"d".into())
    })
    .await;
    assert_eq!(after.unwrap().epoch, last.epoch);
}
