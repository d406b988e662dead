//! The settings. Their bounds are in `bounds`.

use std::{fmt, fs, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de};

use super::{address::ListenAddress, prices::Price, redis::Redis};
use crate::{
    access::{SECRET_BYTES, trim_newline},
    engine::durable::Sync,
};

/// Everything that can be set. What each means stands in the reference.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Settings {
    pub grpc_listen: ListenAddress,
    pub http_listen: ListenAddress,
    pub admin_listen: ListenAddress,
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    pub origins: Vec<String>,
    pub prices: Vec<Price>,
    pub(super) auth: Auth,
    pub engine: Engine,
    pub limits: Limits,
    pub redis: Redis,
    pub retention: Retention,
    pub dedupe: Dedupe,
    pub runs: Runs,
    pub usage: Usage,
    pub redaction: Redaction,
    pub log: Log,
}

/// Where events are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Engine {
    pub kind: EngineKind,
    pub data_dir: PathBuf,
    pub sync: Sync,
}

/// What keeps events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// The process's memory.
    Memory,
    /// A directory of this machine.
    Durable,
    /// Redis, which any number of nodes share.
    Redis,
}

/// How tokens are verified.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) issuer: String,
    secret: Secret,
    secret_file: PathBuf,
    #[serde(with = "humantime_serde")]
    pub(super) leeway: Duration,
}

/// A text that is not printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Secret(String);

/// Bounds, sizes in bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Limits {
    #[serde(deserialize_with = "size")]
    pub event_bytes: usize,
    pub depth: usize,
    pub batch_events: usize,
    #[serde(deserialize_with = "size")]
    pub batch_bytes: usize,
    pub queue_events: usize,
    #[serde(deserialize_with = "size")]
    pub queue_bytes: usize,
    #[serde(with = "humantime_serde")]
    pub engine_timeout: Duration,
    pub lanes: usize,
    pub open_runs: usize,
    pub open_tool_calls: usize,
    pub descendants: usize,
    pub run_depth: usize,
    pub grpc_calls: usize,
    pub grpc_streams: u32,
    #[serde(deserialize_with = "size")]
    pub body_bytes: usize,
    #[serde(deserialize_with = "size")]
    pub body_bytes_per_credential: usize,
    pub connections: usize,
    pub connections_per_address: usize,
    pub connections_per_user: usize,
    #[serde(deserialize_with = "size")]
    pub head_bytes: usize,
    #[serde(with = "humantime_serde")]
    pub handshake: Duration,
    #[serde(with = "humantime_serde")]
    pub request_body: Duration,
    #[serde(deserialize_with = "size")]
    pub send_buffer: usize,
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    #[serde(with = "humantime_serde")]
    pub write_stall: Duration,
    #[serde(deserialize_with = "size")]
    pub client_frame_bytes: usize,
    pub client_frames_per_second: u32,
    #[serde(with = "humantime_serde")]
    pub expiring_notice: Duration,
    #[serde(with = "humantime_serde")]
    pub close_grace: Duration,
    #[serde(with = "humantime_serde")]
    pub reconnect_least: Duration,
    #[serde(with = "humantime_serde")]
    pub reconnect_most: Duration,
    pub tail_records: usize,
    #[serde(deserialize_with = "size")]
    pub tail_bytes: usize,
    #[serde(deserialize_with = "size")]
    pub tail_total_bytes: usize,
    #[serde(with = "humantime_serde")]
    pub tail_age: Duration,
    pub page_records: usize,
}

/// How long and how much is kept, sizes in bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Retention {
    #[serde(with = "humantime_serde")]
    pub age: Duration,
    pub events: usize,
    #[serde(deserialize_with = "size")]
    pub bytes: usize,
    #[serde(deserialize_with = "size")]
    pub total_bytes: usize,
}

/// How long and how many event ids are remembered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Dedupe {
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    pub ids_per_user: usize,
    pub ids_per_node: usize,
}

/// The life of runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Runs {
    pub mode: Mode,
    #[serde(with = "humantime_serde")]
    pub silence_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    #[serde(with = "humantime_serde")]
    pub recovery_grace: Duration,
}

/// What becomes of an event that breaks a rule of its run's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub enum Mode {
    Enforce,
    Observe,
    #[cfg(feature = "bench")]
    Bare,
}

/// How long usage is kept, and how much of it is told apart.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Usage {
    #[serde(with = "humantime_serde")]
    pub age: Duration,
    pub series: usize,
}

/// What is not stored.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Redaction {
    pub enabled: bool,
    pub words: Vec<String>,
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Log {
    pub level: String,
    pub json: bool,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "[not set]"
        } else {
            "[set]"
        })
    }
}

impl Auth {
    /// The secret, from wherever it is; else the key that is wrong, and why.
    pub(super) fn load_secret(&self) -> Result<Vec<u8>, (&'static str, String)> {
        let from_file = !self.secret_file.as_os_str().is_empty();
        let (key, secret) = match (self.secret.0.is_empty(), from_file) {
            (false, true) => {
                return Err(("auth.secret_file", "is set besides auth.secret".into()));
            }
            (true, true) => ("auth.secret_file", self.read_secret_file()?),
            (false, false) => ("auth.secret", self.secret.0.clone().into_bytes()),
            (true, false) => {
                let problem = "is required: this or auth.secret_file".to_owned();
                return Err(("auth.secret", problem));
            }
        };
        if secret.len() < SECRET_BYTES {
            let problem = format!(
                "the secret has {} bytes; it needs {SECRET_BYTES} or more",
                secret.len()
            );
            return Err((key, problem));
        }
        Ok(secret)
    }

    fn read_secret_file(&self) -> Result<Vec<u8>, (&'static str, String)> {
        let secret = fs::read(&self.secret_file).map_err(|error| {
            let path = self.secret_file.display();
            ("auth.secret_file", format!("cannot read {path}: {error}"))
        })?;
        Ok(trim_newline(&secret).to_vec())
    }
}

/// A size: a number of bytes, or a text such as "64KiB".
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size such as \"64KiB\" or a number of bytes")
        }

        fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<usize, E> {
            usize::try_from(bytes)
                .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(bytes), &self))
        }

        fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<usize, E> {
            usize::try_from(bytes)
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
            let size: Option<ByteSize> = text.parse().ok();
            size.and_then(|size| usize::try_from(size.as_u64()).ok())
                .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_any(Visitor)
}
