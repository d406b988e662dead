//! Redis servers, each a process with a directory of its own that outlives a restart.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::processes::{
    ports,
    tools::{PATIENCE, bounded, ended, output, signal, tail, tool, until},
};

/// A Redis process, killed when dropped. If its test fails, the end of its log is printed.
pub(crate) struct Redis {
    pub(crate) port: u16,
    directory: TempDir,
    options: Vec<String>,
    /// What `redis-cli` needs to get in.
    access: Vec<String>,
    child: Option<Child>,
}

/// A synced log of everything, as a store should have it.
pub(crate) const AOF_ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
/// Nothing on a disk, for a server that is not started again: no disk is waited for.
pub(crate) const IN_MEMORY: &[&str] = &["--appendonly", "no"];
/// A log of everything, synced once a second.
pub(crate) const AOF_EVERYSEC: &[&str] = &["--appendonly", "yes", "--appendfsync", "everysec"];

impl Redis {
    /// A server with these command line options.
    pub(crate) async fn start(options: &[&str]) -> Self {
        let mut redis = Self::prepared(options);
        redis.restart().await;
        redis
    }

    fn prepared(options: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("redis-").tempdir().unwrap();
        Self {
            port: ports::free(),
            directory,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            access: Vec::new(),
            child: None,
        }
    }

    /// A replica of `primary`, in step with it.
    pub(crate) async fn replica_of(primary: &Self, options: &[&str]) -> Self {
        Self::replica_at(&primary.address(), options).await
    }

    /// The same, that reaches its primary by this address.
    pub(crate) async fn replica_at(primary: &str, options: &[&str]) -> Self {
        let of = primary.replace(':', " ");
        let replica = Self::start(&[options, &["--replicaof", &of]].concat()).await;
        replica.is_in_step().await;
        replica
    }

    /// A cluster of three that takes calls.
    pub(crate) async fn cluster() -> [Self; 3] {
        let nodes = [
            Self::cluster_node().await,
            Self::cluster_node().await,
            Self::cluster_node().await,
        ];
        Self::join(&nodes, 0).await;
        nodes
    }

    /// A cluster of three masters that takes calls, each with a replica in step with it.
    pub(crate) async fn cluster_with_replicas() -> Vec<Self> {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(Self::cluster_node().await);
        }
        Self::join(&nodes, 1).await;
        let in_step = |node: &Self| {
            let replication = node.cli(&["info", "replication"]);
            let is = |line: &str| replication.lines().any(|held| held == line);
            is("master_link_status:up") || is("role:master") && is("connected_slaves:1")
        };
        until("the replicas are in step", async || {
            nodes.iter().all(in_step)
        })
        .await;
        nodes
    }

    /// From now on the replica of this master, one of `nodes`, takes its place when it has not answered for about two
    /// seconds. No other does: on a loaded machine those may be slow too.
    pub(crate) fn may_be_replaced(&self, nodes: &[Self]) {
        let id = self.cli(&["cluster", "myid"]);
        for node in nodes {
            let known = node.cli(&["cluster", "nodes"]);
            let own = known.lines().find(|line| line.contains("myself,"));
            // After an id, an address and flags comes the master.
            let master = own.and_then(|own| own.split(' ').nth(3));
            let stays = if master == Some(id.trim()) {
                "no"
            } else {
                "yes"
            };
            node.cli(&["config", "set", "cluster-replica-no-failover", stays]);
            node.cli(&["config", "set", "cluster-node-timeout", "2000"]);
        }
    }

    /// One that is to be in a cluster.
    async fn cluster_node() -> Self {
        Self::start(&[AOF_EVERYSEC, &["--cluster-enabled", "yes"]].concat()).await
    }

    /// Makes a cluster of `nodes`, in which each master has so many replicas.
    async fn join(nodes: &[Self], replicas: usize) {
        let mut create = bounded("redis-cli");
        create
            .args(["--cluster", "create"])
            .args(nodes.iter().map(Self::address))
            .args(["--cluster-replicas", &replicas.to_string()])
            .arg("--cluster-yes");
        output(&mut create);
        for node in nodes {
            until("the cluster is ok", async || {
                node.cli(&["cluster", "info"]).contains("cluster_state:ok")
            })
            .await;
        }
    }

    /// Whether it is the master of a cluster that has `key`'s slot, by what it knows itself.
    pub(crate) fn is_master_of(&self, key: &str) -> bool {
        let slot: u16 = self
            .cli(&["cluster", "keyslot", key])
            .trim()
            .parse()
            .unwrap();
        let nodes = self.cli(&["cluster", "nodes"]);
        let own = nodes.lines().find(|line| line.contains("myself,master"));
        // After eight fields come the slots: `5`, or `0-5460`.
        let slots = own.into_iter().flat_map(|own| own.split(' ').skip(8));
        slots.filter(|slots| !slots.starts_with('[')).any(|slots| {
            let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
            (first.parse().unwrap()..=last.parse().unwrap()).contains(&slot)
        })
    }

    /// One that is reached only over TLS, by the user `emitter` with the password `secret`.
    pub(crate) async fn over_tls(options: &[&str]) -> Self {
        let mut redis = Self::prepared(options);
        let files = redis.directory.path().to_owned();
        certificate(&files);
        redis.secure(&files);
        redis.restart().await;
        redis
    }

    /// A replica of `primary`, which is over TLS, with its certificate, in step with it.
    pub(crate) async fn replica_over_tls(primary: &Self, options: &[&str]) -> Self {
        let of = format!("127.0.0.1 {}", primary.port);
        let replication = ["--tls-replication", "yes", "--replicaof", &of];
        let access = ["--masteruser", "emitter", "--masterauth", "secret"];
        let mut replica = Self::prepared(&[options, &replication, &access].concat());
        replica.secure(primary.directory.path());
        replica.restart().await;
        replica.is_in_step().await;
        replica
    }

    /// Waits until it has everything that `primary` has.
    pub(crate) async fn has_all_of(&self, primary: &Self) {
        let offset = |server: &Self, name: &str| -> Option<u64> {
            let replication = server.cli(&["info", "replication"]);
            let mut lines = replication.lines();
            lines.find_map(|line| line.strip_prefix(name)?.parse().ok())
        };
        let written = offset(primary, "master_repl_offset:").expect("an offset");
        until("the replica has it", async || {
            offset(self, "slave_repl_offset:").is_some_and(|had| had >= written)
        })
        .await;
    }

    async fn is_in_step(&self) {
        until("the replica is in step", async || {
            self.cli(&["info", "replication"])
                .contains("master_link_status:up")
        })
        .await;
    }

    /// Lets it be reached only over TLS, with the certificate below `files`.
    fn secure(&mut self, files: &std::path::Path) {
        let at = |name: &str| files.join(name).display().to_string();
        let port = self.port.to_string();
        let (key, certificate, ca) = (at("server.key"), at("server.crt"), at("ca.crt"));
        let options = [
            &["--tls-port", &port, "--tls-key-file", &key][..],
            &["--tls-cert-file", &certificate, "--tls-ca-cert-file", &ca],
            &["--tls-auth-clients", "no", "--user", "default", "off"],
            &["--user", "emitter", "on", ">secret", "~*", "&*", "+@all"],
        ];
        let options = options.concat().into_iter().map(str::to_owned);
        self.options.extend(options);
        let access = [
            &["--tls", "--cacert", &ca, "--user", "emitter"][..],
            &["--pass", "secret", "--no-auth-warning"],
        ];
        let access = access.concat().into_iter().map(str::to_owned);
        self.access = access.collect();
    }

    /// The file with the certificate that its own is signed with.
    pub(crate) fn ca_file(&self) -> String {
        self.file("ca.crt")
    }

    /// A file of its directory, such as `server.key` and `server.crt` of one over TLS.
    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Such as `127.0.0.1:6379`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, for the first time or again on what it kept, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let plain = if self.access.is_empty() { self.port } else { 0 };
        let log = self.directory.path().join("log");
        let log = fs::File::options().create(true).append(true).open(log);
        let mut command = tool("redis-server");
        command
            .args([
                "--port",
                &plain.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--dir", &self.directory.path().display().to_string()])
            .args([
                "--repl-diskless-sync-delay",
                "0",
                "--enable-debug-command",
                "local",
            ])
            .args(&self.options)
            .stdin(Stdio::null())
            .stderr(log.as_ref().unwrap().try_clone().unwrap())
            .stdout(log.unwrap());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server: {error}: install it with `make tools`"));
        self.child = Some(child);
        until("Redis answers", async || {
            let child = self.child.as_mut().unwrap();
            assert_eq!(child.try_wait().unwrap(), None, "Redis ended");
            self.try_cli(&["ping"])
                .is_some_and(|answer| answer.contains("PONG"))
        })
        .await;
    }

    /// What it answers to a command.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        output(&mut cli(self.port, &self.access, command))
    }

    fn try_cli(&self, command: &[&str]) -> Option<String> {
        let output = cli(self.port, &self.access, command).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        let gone = ended(&mut child, PATIENCE).await;
        assert!(gone.is_some(), "Redis did not end");
    }

    /// It answers nothing from now on, and does not notice.
    pub(crate) fn stall(&self) {
        signal(self.child.as_ref().expect("it runs").id(), "STOP");
    }

    /// It goes on where it was stalled.
    pub(crate) fn go_on(&self) {
        signal(self.child.as_ref().expect("it runs").id(), "CONT");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone_by_itself = child.kill();
            let _gone_by_now = child.wait();
        }
        if std::thread::panicking() {
            let log = tail(&self.directory.path().join("log"), 15);
            eprintln!("-- log of Redis on {}:\n{log}", self.port);
        }
    }
}

/// A command to the server at `port`, reached by `access`.
pub(crate) fn cli(port: u16, access: &[String], command: &[&str]) -> Command {
    let mut cli = bounded("redis-cli");
    cli.args(["-p", &port.to_string()])
        .args(access)
        .args(command);
    cli
}

/// A certificate authority and a certificate of it for 127.0.0.1, below `directory`.
fn certificate(directory: &std::path::Path) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=tests
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=redis
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\nbasicConstraints=CA:FALSE\\n' >extensions
        openssl x509 -req -days 2 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt \
            -extfile extensions";
    let mut shell = std::process::Command::new("sh");
    output(shell.args(["-ec", script]).current_dir(directory));
}

#[tokio::test]
async fn redis_comes_in_every_shape_that_the_tests_ask_for() {
    let mut primary = Redis::start(AOF_ALWAYS).await;
    let replica = Redis::replica_of(&primary, AOF_EVERYSEC).await;
    primary.cli(&["set", "key", "value"]);
    primary.kill().await;
    primary.restart().await;
    assert_eq!(primary.cli(&["get", "key"]).trim(), "value");
    until("the replica has it", async || {
        replica.cli(&["get", "key"]).trim() == "value"
    })
    .await;
    replica.stall();
    primary.cli(&["set", "key", "later"]);
    replica.go_on();
    until("the replica catches up", async || {
        replica.cli(&["get", "key"]).trim() == "later"
    })
    .await;
    let nodes = Redis::cluster().await;
    assert_eq!(nodes[0].cli(&["-c", "set", "key", "value"]).trim(), "OK");
    let tls = Redis::over_tls(&[]).await;
    assert_eq!(tls.cli(&["acl", "whoami"]).trim(), "emitter");
}
