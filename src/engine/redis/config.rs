//! Where Redis is, and what an engine on it may hold.

use std::{fmt, path::PathBuf, time::Duration};

use crate::run::RUN_MEMORY;

/// Where Redis is, how far it is waited for, and how much of what is kept there.
#[derive(Clone, Debug)]
pub struct Config {
    /// How it is deployed.
    pub mode: Mode,
    /// Its address; the sentinels; or some nodes of the cluster.
    pub urls: Vec<Url>,
    /// The master's name among the sentinels.
    pub master_name: String,
    /// Who the service is to the servers, where no URL says so.
    pub username: String,
    /// A file that holds the password to the servers, where no URL has it.
    pub password_file: PathBuf,
    /// A file of certificates in PEM that servers are verified by; empty: the system's.
    pub ca_file: PathBuf,
    /// What every key begins with.
    pub prefix: String,
    /// How many replicas must have an append before it is acknowledged.
    pub wait_replicas: usize,
    /// How long they are waited for.
    pub wait_timeout: Duration,
    /// With fewer replicas connected, appends are refused.
    pub min_replicas: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How far this node's clock may be from that of Redis. Beyond that, appends are refused: by the clock of one node,
    /// things are forgotten for all.
    pub clock_tolerance: Duration,
    /// How much is kept.
    pub bounds: Bounds,
}

/// How Redis is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One server, or an address behind which the master always is.
    Single,
    /// Sentinels know the master.
    Sentinel,
    /// A cluster.
    Cluster,
}

/// A `redis://` or `rediss://` URL, printed without its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

/// How much is kept of what, and for how long.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How long a record is retained.
    pub retention_age: Duration,
    /// How many records of one user are retained.
    pub retention_records: usize,
    /// How many bytes of records of one user are retained.
    pub retention_bytes: usize,
    /// How long a run is remembered after its end.
    pub run_memory: Duration,
    /// How long an event id is remembered.
    pub dedupe_window: Duration,
    /// How many ids of one user are remembered.
    pub dedupe_ids_per_user: usize,
    /// How long the usage of a day is kept after its end.
    pub usage_age: Duration,
    /// About how many series of usage are told apart by user and thread; each bucket has room for a 64th of them.
    pub usage_series: usize,
}

impl Url {
    /// Takes `text` as it is; it is looked at when a connection is made.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// All of it.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://[set]@{host}"),
            _ => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Single,
            urls: vec![Url::new("redis://127.0.0.1:6379")],
            master_name: String::new(),
            username: String::new(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            prefix: "emitter".into(),
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
            min_replicas: 0,
            timeout: Duration::from_secs(2),
            clock_tolerance: Duration::from_secs(30),
            bounds: Bounds::default(),
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            retention_age: Duration::from_secs(24 * 60 * 60),
            retention_records: 10_000,
            retention_bytes: 16 << 20,
            run_memory: RUN_MEMORY,
            dedupe_window: Duration::from_secs(600),
            dedupe_ids_per_user: 100_000,
            usage_age: Duration::from_secs(31 * 24 * 60 * 60),
            usage_series: 100_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_printed_without_its_credentials() {
        for (text, shown) in [
            ("redis://h:1", "redis://h:1"),
            ("redis://u:p@h:1", "redis://[set]@h:1"),
            ("rediss://:p@ss@h:1/2", "rediss://[set]@h:1/2"),
        ] {
            let url = Url::new(text);
            assert_eq!(
                (url.to_string(), format!("{url:?}")),
                (shown.into(), shown.into())
            );
        }
    }
}
