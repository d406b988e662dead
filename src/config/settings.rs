//! The settings, and their bounds.

use std::{collections::HashSet, fmt, fs, net::SocketAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de};
use tracing_subscriber::EnvFilter;

use super::{prices::Price, redis::Redis};
use crate::{
    access::{SECRET_BYTES, trim_newline},
    engine::durable::Sync,
    usage::Model,
};

/// Everything that can be set. What each means stands in the reference.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented once, in the reference")]
pub struct Settings {
    pub grpc_listen: SocketAddr,
    pub http_listen: SocketAddr,
    pub admin_listen: SocketAddr,
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

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A count beyond which nothing sensible lies; it keeps arithmetic from overflowing.
const MANY: usize = 1 << 32;

/// A size beyond which nothing sensible lies.
const HUGE: usize = 1 << 44;

impl Settings {
    /// Tells `report` of every value outside its bounds: key, problem.
    pub(super) fn check(&self, report: &mut dyn FnMut(&str, String)) {
        self.check_counts(report);
        self.check_spans(report);
        self.check_texts(report);
        self.check_prices(report);
        self.redis.check(report);
        if self.engine.kind == EngineKind::Redis {
            self.redis.check_within(self.limits.engine_timeout, report);
        }
        if self.engine.kind == EngineKind::Redis && cfg!(not(feature = "redis")) {
            report("engine.kind", "this build has no engine on Redis".into());
        }
    }

    fn check_counts(&self, report: &mut dyn FnMut(&str, String)) {
        let l = &self.limits;
        let r = &self.retention;
        let d = &self.dedupe;
        let counts = [
            ("limits.event_bytes", l.event_bytes, KIB..=MIB),
            ("limits.depth", l.depth, 1..=32),
            ("limits.batch_events", l.batch_events, 1..=1000),
            (
                "limits.batch_bytes",
                l.batch_bytes,
                l.event_bytes..=16 * MIB,
            ),
            ("limits.queue_events", l.queue_events, l.batch_events..=MANY),
            ("limits.queue_bytes", l.queue_bytes, l.batch_bytes..=HUGE),
            ("limits.lanes", l.lanes, 1..=MANY),
            ("limits.open_runs", l.open_runs, 1..=100_000),
            ("limits.open_tool_calls", l.open_tool_calls, 1..=10_000),
            ("limits.descendants", l.descendants, 1..=500),
            ("limits.run_depth", l.run_depth, 1..=64),
            ("limits.grpc_calls", l.grpc_calls, 1..=1_000_000),
            (
                "limits.grpc_streams",
                l.grpc_streams as usize,
                1..=1_000_000,
            ),
            ("limits.connections", l.connections, 1..=MANY),
            (
                "limits.connections_per_address",
                l.connections_per_address,
                1..=MANY,
            ),
            (
                "limits.connections_per_user",
                l.connections_per_user,
                1..=MANY,
            ),
            ("limits.head_bytes", l.head_bytes, 8 * KIB..=MIB),
            ("limits.send_buffer", l.send_buffer, 4 * KIB..=64 * MIB),
            ("limits.client_frame_bytes", l.client_frame_bytes, KIB..=MIB),
            (
                "limits.client_frames_per_second",
                l.client_frames_per_second as usize,
                1..=1_000_000,
            ),
            ("limits.tail_records", l.tail_records, 1..=1_000_000),
            ("limits.tail_bytes", l.tail_bytes, KIB..=HUGE),
            (
                "limits.tail_total_bytes",
                l.tail_total_bytes,
                l.tail_bytes..=HUGE,
            ),
            ("limits.page_records", l.page_records, 1..=100_000),
            ("retention.events", r.events, 1..=MANY),
            ("retention.bytes", r.bytes, l.event_bytes..=HUGE),
            ("retention.total_bytes", r.total_bytes, r.bytes..=HUGE),
            ("dedupe.ids_per_user", d.ids_per_user, 1..=MANY),
            ("dedupe.ids_per_node", d.ids_per_node, 1..=MANY),
            ("usage.series", self.usage.series, 1..=MANY),
            ("prices", self.prices.len(), 0..=10_000),
            ("redaction.words", self.redaction.words.len(), 0..=1000),
        ];
        for (key, value, range) in counts {
            if !range.contains(&value) {
                let (least, most) = range.into_inner();
                report(key, format!("{value} is not within {least} and {most}"));
            }
        }
    }

    fn check_spans(&self, report: &mut dyn FnMut(&str, String)) {
        let second = Duration::from_secs(1);
        let hour = 3600 * second;
        let l = &self.limits;
        let tenth = second / 10;
        let spans = [
            ("drain", self.drain, second, hour),
            ("limits.handshake", l.handshake, tenth, hour),
            ("limits.request_body", l.request_body, tenth, hour),
            ("limits.heartbeat", l.heartbeat, tenth, hour),
            ("limits.write_stall", l.write_stall, tenth, hour),
            (
                "limits.expiring_notice",
                l.expiring_notice,
                Duration::ZERO,
                hour,
            ),
            ("limits.close_grace", l.close_grace, tenth, hour),
            (
                "limits.reconnect_least",
                l.reconnect_least,
                Duration::ZERO,
                hour,
            ),
            (
                "limits.reconnect_most",
                l.reconnect_most,
                l.reconnect_least,
                hour,
            ),
            (
                "limits.engine_timeout",
                l.engine_timeout,
                second,
                300 * second,
            ),
            ("limits.tail_age", l.tail_age, tenth, DAY),
            ("retention.age", self.retention.age, second, 3650 * DAY),
            ("dedupe.window", self.dedupe.window, second, 30 * DAY),
            (
                "runs.silence_timeout",
                self.runs.silence_timeout,
                second,
                DAY,
            ),
            ("runs.max_wait", self.runs.max_wait, second, 7 * DAY),
            (
                "runs.recovery_grace",
                self.runs.recovery_grace,
                Duration::ZERO,
                DAY,
            ),
            ("usage.age", self.usage.age, DAY, 3650 * DAY),
        ];
        for (key, value, least, most) in spans {
            if value < least || value > most {
                let text = humantime::format_duration;
                let (value, least, most) = (text(value), text(least), text(most));
                report(key, format!("{value} is not within {least} and {most}"));
            }
        }
    }

    fn check_texts(&self, report: &mut dyn FnMut(&str, String)) {
        let has_directory = !self.engine.data_dir.as_os_str().is_empty();
        if self.engine.kind != EngineKind::Durable && has_directory {
            let problem = "is set, but engine.kind is not \"durable\"";
            report("engine.data_dir", problem.into());
        }
        if self.engine.kind == EngineKind::Durable && !has_directory {
            report(
                "engine.data_dir",
                "is required where `engine.kind` is durable".into(),
            );
        }
        if self.auth.issuer.is_empty() {
            report("auth.issuer", "is required".into());
        }
        for origin in &self.origins {
            if origin != "*" && !is_origin(origin) {
                let problem =
                    format!("{origin:?} is not an origin, such as https://app.example.com");
                report("origins", problem);
            }
        }
        if self
            .redaction
            .words
            .iter()
            .any(|word| word.trim().is_empty())
        {
            report("redaction.words", "has an empty word".into());
        }
        if let Err(error) = EnvFilter::try_new(&self.log.level) {
            report("log.level", error.to_string());
        }
    }

    fn check_prices(&self, report: &mut dyn FnMut(&str, String)) {
        let mut seen = HashSet::new();
        let other = Model::other();
        for Price {
            provider, model, ..
        } in &self.prices
        {
            if !seen.insert((provider, model)) {
                let problem = format!("provider {provider:?}, model {model:?} is there twice");
                report("prices", problem);
            }
            if provider.as_str() == &*other.provider && model.as_str() == &*other.model {
                let problem = format!("model {model:?} stands for models that are not told apart");
                report("prices", problem);
            }
        }
    }
}

/// Whether `text` is an origin as browsers send it: in lower case, a scheme, a host, and a port only if it is not the
/// scheme's own.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let own_port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    // Anything else, such as a capital, a path or a slash at the end, would never match.
    text == format!("{scheme}://{authority}").to_lowercase()
        && !authority.as_str().contains('@')
        && (authority.port_u16().is_none() || authority.port_u16() != own_port)
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
