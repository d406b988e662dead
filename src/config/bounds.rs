//! Within which bounds the settings have to be.

use std::{collections::HashSet, time::Duration};

use tracing_subscriber::EnvFilter;

use super::{EngineKind, Price, Problem, Settings};
use crate::egress::is_origin_pattern;

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
            (
                "limits.body_bytes_per_credential",
                l.body_bytes_per_credential,
                2 * l.batch_bytes..=HUGE,
            ),
            (
                "limits.body_bytes",
                l.body_bytes,
                l.body_bytes_per_credential..=HUGE,
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
            (
                "auth.leeway",
                self.auth.leeway,
                Duration::ZERO,
                300 * second,
            ),
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
        for (key, address, example) in [
            ("grpc_listen", &self.grpc_listen, "127.0.0.1:50051"),
            ("http_listen", &self.http_listen, "127.0.0.1:8080"),
            ("admin_listen", &self.admin_listen, "127.0.0.1:9090"),
        ] {
            if let Some(problem) = address.problem(example) {
                report(key, problem);
            }
        }
        if self.auth.issuer.is_empty() {
            report("auth.issuer", "is required".into());
        }
        for origin in &self.origins {
            if !is_origin_pattern(origin) {
                let problem = format!(
                    "{origin:?} is not an origin: expected SCHEME://HOST, such as https://app.example.com, or \
                     https://*.example.com for all subdomains"
                );
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
        for Price {
            provider, model, ..
        } in &self.prices
        {
            if !seen.insert((provider, model)) {
                let problem = format!("provider {provider:?}, model {model:?} is there twice");
                report("prices", problem);
            }
        }
    }
}

/// The keys whose values bound that of another.
const BOUNDED_BY: [(&str, &str); 13] = [
    ("limits.batch_bytes", "limits.event_bytes"),
    ("limits.queue_events", "limits.batch_events"),
    ("limits.queue_bytes", "limits.batch_bytes"),
    ("limits.tail_total_bytes", "limits.tail_bytes"),
    ("limits.reconnect_most", "limits.reconnect_least"),
    ("limits.engine_timeout", "redis.timeout"),
    ("retention.bytes", "limits.event_bytes"),
    ("retention.total_bytes", "retention.bytes"),
    ("engine.data_dir", "engine.kind"),
    ("redis.urls", "redis.mode"),
    ("redis.master_name", "redis.mode"),
    ("auth.secret", "auth.secret_file"),
    ("auth.secret_file", "auth.secret"),
];

/// Whether `problems` has the value of `key`, or one that bounds it.
pub(super) fn depends_on(key: &str, problems: &[Problem]) -> bool {
    let concerns = |key: &str| {
        let is_part = |found: &str| {
            found
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        let mut keys = problems.iter().filter_map(|problem| problem.key.as_deref());
        keys.any(|found| found == key || is_part(found))
    };
    let bounds = BOUNDED_BY.iter().filter(|(bounded, _)| *bounded == key);
    concerns(key) || bounds.into_iter().any(|(_, by)| concerns(by))
}
