//! Servers that are measured: processes of their own, of which only their own CPU counts.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use emitter::{
    access::{self, Grant, Scope, mint},
    clock::Clock,
};

/// How long a token is good for: longer than everything may take.
const TOKEN: Duration = Duration::from_secs(24 * 60 * 60);

/// Ticks of the CPU times in `/proc` per second.
const TICKS: f64 = 100.0;

const ISSUER: &str = "benches";
const SECRET: &str = "a secret of the benches, and of nothing else";

/// A process that listens.
pub(crate) struct Measured {
    process: Child,
    /// What it printed of where it listens.
    pub(crate) listening: serde_json::Value,
}

impl Measured {
    /// `emitter serve` with the defaults but for `variables`.
    pub(crate) fn emitter<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emitter"));
        let mode = [
            ("EMITTER_GRPC_LISTEN", "127.0.0.1:0"),
            ("EMITTER_HTTP_LISTEN", "127.0.0.1:0"),
            ("EMITTER_ADMIN_LISTEN", "127.0.0.1:0"),
            ("EMITTER_AUTH__ISSUER", ISSUER),
            ("EMITTER_AUTH__SECRET", SECRET),
        ];
        command.args(["serve", "--json"]).envs(mode);
        Self::start(command.envs(variables))
    }

    /// `command`, whose first line of output is one of JSON that says where it listens.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command
            .env_remove(OsStr::new("EMITTER_CONFIG"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut listening = String::new();
        let mut told = BufReader::new(process.stdout.take().unwrap());
        told.read_line(&mut listening).unwrap();
        Self {
            process,
            listening: serde_json::from_str(&listening).unwrap(),
        }
    }

    /// Host and port of one of its listeners.
    pub(crate) fn address(&self, listener: &str) -> &str {
        self.listening[listener].as_str().unwrap()
    }

    /// The CPU that the process has used, in user and in kernel mode.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.process.id())
    }

    /// The memory that the process takes at present.
    #[allow(dead_code, reason = "only one of the benches asks for it")]
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes(self.process.id())
    }
}

/// The memory that a process takes at present.
#[allow(dead_code, reason = "only one of the benches asks for it")]
pub(crate) fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

/// The CPU that a process has used, in user and in kernel mode.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The second field is a name in brackets, which may hold anything; utime and stime are the 14th and 15th.
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / TICKS
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _ended_already = self.process.wait();
    }
}

/// A token for `emitter` processes.
pub(crate) fn token(subject: &str, scope: Scope) -> String {
    let config = access::Config {
        issuer: ISSUER.into(),
        secret: SECRET.into(),
    };
    let until = Clock::system().now() + TOKEN;
    mint(&config, &Grant::new(subject, [scope], until)).unwrap()
}
