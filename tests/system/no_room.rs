//! A disk that is full, or refuses to be written to, and gets well again while the service runs.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use crate::{
    processes::{
        load::{Load, LoadConfig},
        reading::{Reading, replay},
        server::Server,
        tools::{PATIENCE, ended, files, output, signal, tool, until},
        verdict::{Allowed, judge},
    },
    seed::seed,
};

const DURABLE: &str = "[engine]\nkind = \"durable\"\ndata_dir = \"{data}\"\n";

/// Why an emit may fail where the disk does, all of them passing.
const REASONS: [&str; 5] = [
    "STREAM_FULL",
    "OUTCOME_UNKNOWN",
    "ENGINE_UNAVAILABLE",
    "PRECEDING_FAILED",
    "DEADLINE_EXCEEDED",
];

/// A load with readers.
struct Busy {
    server: Server,
    load: Load,
    readings: Vec<Reading>,
}

async fn busy(wrapper: &[&str]) -> Busy {
    let server = Server::start_under("durable", DURABLE, wrapper).await;
    let seed = seed();
    let config = LoadConfig {
        text: 8_000,
        ..LoadConfig::new(vec![server.grpc.clone()], seed)
    };
    let readings = config.users.iter().flat_map(|user| {
        [
            Reading::grpc(user, std::slice::from_ref(&server.grpc), seed),
            Reading::websocket(user, &server.http),
        ]
    });
    Busy {
        readings: readings.collect(),
        load: Load::start(&config),
        server,
    }
}

impl Busy {
    /// Waits until emits are refused, and looks at what is refused how and at what is still read.
    async fn refused(&self) {
        let reasons = || -> BTreeSet<String> {
            let book = self.load.ledger.book();
            book.attempts.keys().cloned().collect()
        };
        until("emits are refused", async || {
            self.server.metric("emitter_engine_refusing").await > 0.5
        })
        .await;
        // Every writer gets to know it.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let others: Vec<String> = reasons()
            .into_iter()
            .filter(|reason| !REASONS.contains(&reason.as_str()))
            .filter(|reason| !reason.starts_with("on the way: "))
            .collect();
        assert!(others.is_empty(), "{others:?}");
        for user in 0..4 {
            let user = format!("u{user}");
            let acknowledged = self.load.ledger.book().acknowledged_of(&user);
            let read: BTreeSet<String> = replay(&self.server.grpc, &user)
                .await
                .into_iter()
                .map(|seen| seen.event_id)
                .collect();
            let missing: Vec<_> = acknowledged
                .iter()
                .filter(|id| !read.contains(*id))
                .collect();
            assert!(missing.is_empty(), "{user}: {missing:?}");
        }
    }

    /// Emits are taken again by the same process, and nothing is missing, there or after a crash.
    async fn well_again(mut self) {
        self.load.acknowledged(200).await;
        let ledger = self.load.finish().await;
        let nodes = [self.server.grpc.clone()];
        judge(&ledger, self.readings, &nodes, Allowed::GAPS).await;
        self.server.ask_to_end();
        assert!(self.server.wait().await.success());
    }
}

/// A mount of the server's own, in namespaces of its own: no rights are needed.
const FULL: [&str; 5] = [
    "unshare",
    "-rm",
    "sh",
    "-ec",
    "mkdir {data}; mount -t tmpfs -o size=4m tmpfs {data}; exec \"$0\" \"$@\"",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_until_there_is_room() {
    let busy = busy(&FULL).await;
    busy.refused().await;
    let (pid, data) = (busy.server.pid().to_string(), busy.server.data());
    let mut make_room = tool("nsenter");
    make_room
        .args([
            "--user",
            "--mount",
            "--preserve-credentials",
            "--target",
            &pid,
        ])
        .args(["mount", "-o", "remount,size=256m"])
        .arg(data);
    output(&mut make_room);
    busy.well_again().await;
}

/// Every call that changes a file, or opens one.
const CHANGES: &str = "write,writev,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync,openat";

/// A tracer that lets calls on files fail.
struct Failing(Child);

impl Failing {
    /// These `calls` of `server` on these `files` fail with `error` from now on.
    fn make(server: &Server, calls: &str, error: &str, files: &[PathBuf]) -> Self {
        let mut strace = tool("strace");
        strace.args([
            "-f",
            "-q",
            "-o",
            "/dev/null",
            "-p",
            &server.pid().to_string(),
        ]);
        for file in files {
            strace.arg("-P").arg(file);
        }
        strace
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error={error}")])
            .stdin(Stdio::null());
        Self(
            strace
                .spawn()
                .expect("strace: install it with `make tools`"),
        )
    }

    async fn end(mut self) {
        signal(self.0.id(), "TERM");
        let ended = ended(&mut self.0, PATIENCE).await;
        assert!(ended.is_some(), "the tracer did not end");
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _gone_by_now = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_turn_read_only_refuse_until_they_are_writable() {
    let busy = busy(&[]).await;
    busy.load.acknowledged(200).await;
    let files = files(&busy.server.data());
    let read_only = Failing::make(&busy.server, CHANGES, "EROFS", &files);
    busy.refused().await;
    read_only.end().await;
    busy.well_again().await;
}

/// What was written and not synced is unknown, and whether it is there is found out: nothing is acknowledged on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_refuses_until_it_works() {
    let busy = busy(&[]).await;
    busy.load.acknowledged(200).await;
    let files = files(&busy.server.data());
    let failing = Failing::make(&busy.server, "fsync,fdatasync", "EIO", &files);
    busy.refused().await;
    failing.end().await;
    busy.well_again().await;
}

/// What is stored and not witnessed is not acknowledged: it is shown once the witness can be written.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_cannot_be_written_refuses_until_it_can() {
    let busy = busy(&[]).await;
    busy.load.acknowledged(200).await;
    let witness = [busy.server.data().join("witness")];
    let failing = Failing::make(&busy.server, "pwrite64", "EIO", &witness);
    busy.refused().await;
    failing.end().await;
    busy.well_again().await;
}
