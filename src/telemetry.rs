//! Metrics and logs.

mod callsites;
mod log_limit;

pub use callsites::CallsiteLimits;
pub use log_limit::LogLimit;

use metrics::{Counter, Gauge, Histogram, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::reason::Reason;

/// Every metric of the service, registered once: updating one is an atomic operation. Labels hold only names from
/// this code, never text from outside.
pub struct Metrics {
    /// Events stored.
    pub emitted: Counter,
    /// Events answered with the receipt of an earlier call.
    pub duplicates: Counter,
    /// From a lane's taking up an event to its being stored, in seconds, per append.
    pub append_seconds: Histogram,
    /// Drafts per append.
    pub append_events: Histogram,
    /// Events waiting in lanes.
    pub queued: Gauge,
    /// Users whose state is at hand.
    pub lanes: Gauge,
    /// States dropped because there were too many.
    pub lanes_evicted: Counter,
    /// Appends decided again because other records came first.
    pub conflicts: Counter,
    /// Ended runs forgotten before their time because a user had too many.
    pub runs_forgotten_early: Counter,
    /// Events accepted though the store has lost what came before them.
    pub events_recovered: Counter,
    /// Claims of open runs that were to be renewed and named another user.
    pub run_claims_lost: Counter,
    /// Runs ended by the watchdog.
    pub runs_stalled: Counter,
    /// Ranges of buckets whose runs this node watches over, of 16.
    pub watchdog_ranges: Gauge,
    /// Runs that have not ended, in the memory engine.
    pub open_runs: Gauge,
    /// Bytes held by the memory engine.
    pub engine_bytes: Gauge,
    /// Streams held by the memory engine.
    pub engine_streams: Gauge,
    /// 1 while the directory cannot be written and emits are refused.
    pub engine_refusing: Gauge,
    /// 1 once nothing is stored until the service is started again.
    pub engine_failed: Gauge,
    /// Records trimmed by retention.
    pub trimmed: Counter,
    /// Event ids forgotten before the window was over, because there were too many.
    pub dedupe_evicted: Counter,
    /// Event ids remembered on this node.
    pub dedupe_ids: Gauge,
    /// Series of usage kept by the memory engine.
    pub usage_series: Gauge,
    /// Events whose usage was added to a folded series, because there were too many.
    pub usage_folded: Counter,
    /// Connections to Redis that were lost and made anew.
    pub redis_reconnects: Counter,
    /// Masters of Redis that are not connected to.
    pub redis_masters_away: Gauge,
    /// Calls of Redis that failed.
    pub redis_errors: Counter,
    /// Seconds by which this node's clock is ahead of that of Redis.
    pub redis_clock_ahead: Gauge,
    /// Streams that are watched in Redis from here.
    pub redis_watched: Gauge,
    /// Hints of appends that came from Redis.
    pub redis_hints: Counter,
    /// Of these, those that could not be read.
    pub redis_hints_dropped: Counter,
    /// Watched streams whose head was not the one that was heard of: a hint was lost, or the epoch changed.
    pub redis_heads_differed: Counter,
    /// Users with readers here.
    pub tails: Gauge,
    /// Bytes held in tails.
    pub tail_bytes: Gauge,
    /// Records encoded, cached or not.
    pub encoded: Counter,
    /// Events sent to readers, a joined one counted once.
    pub sent: Counter,
    /// Frames that stand for more than one event.
    pub joined: Counter,
    /// Gaps told to readers.
    pub gaps: Counter,
    /// Users whose clients' acknowledgements are being stored.
    pub acks_fresh: Gauge,
    /// Acknowledgements that could not be stored.
    pub acks_given_up: Counter,
    /// From recording to handing over to the socket, in seconds, for live events.
    pub delivery_seconds: Histogram,
    /// How many records a reader was behind when it read, where it was behind.
    pub lag_records: Histogram,
    /// WebSocket connections.
    pub websockets: Gauge,
    /// SSE connections.
    pub event_streams: Gauge,
    /// gRPC subscriptions.
    pub subscriptions: Gauge,
    /// Bytes of gRPC bodies that have not arrived completely, or wait for a permit.
    pub body_bytes: Gauge,
    /// Connections accepted but refused at the door, because there were too many.
    pub connections_refused: Counter,
    refused: Vec<Counter>,
    violations: Vec<Counter>,
    closed: Vec<Counter>,
    peer_closed: Counter,
    adjusted: Vec<Counter>,
}

/// The root fields by which adjustments are counted. An arm stands for all fields of its payload.
const ADJUSTED: [&str; 21] = [
    "occurred_at",
    "traceparent",
    "tracestate",
    "labels",
    "usage",
    "agent_started",
    "agent_thinking",
    "thinking_delta",
    "tool_executing",
    "tool_completed",
    "tool_progress",
    "agent_completed",
    "agent_failed",
    "agent_cancelled",
    "agent_waiting",
    "agent_resumed",
    "text_delta",
    "message",
    "state_snapshot",
    "state_delta",
    "custom",
];

const SECONDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
const COUNTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

impl Metrics {
    /// Metrics of their own, and the handle that renders them for Prometheus.
    pub fn new() -> (Self, PrometheusHandle) {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_events".into()), &COUNTS)
            })
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_records".into()), &COUNTS)
            })
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        let handle = recorder.handle();
        (Self::register(&Registry(recorder)), handle)
    }

    fn register(r: &Registry) -> Self {
        let per_reason = |name: &'static str, help: &'static str| {
            Reason::ALL
                .iter()
                .map(|reason| {
                    let label = Label::from_static_parts("reason", reason.name());
                    r.counter(name, vec![label], help)
                })
                .collect()
        };
        Self {
            emitted: r.counter("emitter_events_emitted_total", vec![], "Events stored."),
            duplicates: r.counter(
                "emitter_events_duplicate_total",
                vec![],
                "Events answered with the receipt of an earlier call.",
            ),
            append_seconds: r.histogram(
                "emitter_append_seconds",
                "From a lane's taking up events to their being stored.",
            ),
            append_events: r.histogram("emitter_append_events", "Events per append."),
            queued: r.gauge("emitter_lane_queued_events", "Events waiting in lanes."),
            lanes: r.gauge("emitter_lanes", "Users whose state is at hand."),
            lanes_evicted: r.counter(
                "emitter_lanes_evicted_total",
                vec![],
                "States dropped because there were too many.",
            ),
            conflicts: r.counter(
                "emitter_append_conflicts_total",
                vec![],
                "Appends decided again because other records came first.",
            ),
            runs_forgotten_early: r.counter(
                "emitter_runs_forgotten_early_total",
                vec![],
                "Ended runs forgotten before their time because a user had too many.",
            ),
            events_recovered: r.counter(
                "emitter_events_recovered_total",
                vec![],
                "Events accepted though the store has lost what came before them.",
            ),
            run_claims_lost: r.counter(
                "emitter_run_claims_lost_total",
                vec![],
                "Claims of open runs that were to be renewed and named another user.",
            ),
            runs_stalled: r.counter(
                "emitter_runs_stalled_total",
                vec![],
                "Runs ended by the watchdog.",
            ),
            watchdog_ranges: r.gauge(
                "emitter_watchdog_ranges",
                "Ranges of buckets, of 16, whose runs this node watches over.",
            ),
            open_runs: r.gauge(
                "emitter_open_runs",
                "Runs that have not ended, in the memory engine.",
            ),
            engine_bytes: r.gauge("emitter_engine_bytes", "Bytes held by the engine, as it counts them."),
            engine_streams: r.gauge(
                "emitter_engine_streams",
                "Streams held by the engine.",
            ),
            engine_refusing: r.gauge(
                "emitter_engine_refusing",
                "1 while the directory cannot be written and emits are refused.",
            ),
            engine_failed: r.gauge(
                "emitter_engine_failed",
                "1 once nothing is stored until the service is started again.",
            ),
            trimmed: r.counter(
                "emitter_records_trimmed_total",
                vec![],
                "Records trimmed by retention.",
            ),
            dedupe_evicted: r.counter(
                "emitter_dedupe_evicted_total",
                vec![],
                "Event ids forgotten before their window was over.",
            ),
            dedupe_ids: r.gauge("emitter_dedupe_ids", "Event ids remembered."),
            usage_series: r.gauge(
                "emitter_usage_series",
                "Series of usage kept by the memory engine.",
            ),
            usage_folded: r.counter(
                "emitter_usage_folded_total",
                vec![],
                "Events whose usage is not told apart by user, thread or model: there were too many series.",
            ),
            redis_reconnects: r.counter(
                "emitter_redis_reconnects_total",
                vec![],
                "Connections to Redis that were lost and made anew.",
            ),
            redis_masters_away: r.gauge(
                "emitter_redis_masters_away",
                "Masters of Redis that are not connected to: their users are refused. 1 while it is not known who is one.",
            ),
            redis_errors: r.counter(
                "emitter_redis_errors_total",
                vec![],
                "Calls of Redis that failed.",
            ),
            redis_clock_ahead: r.gauge(
                "emitter_redis_clock_ahead_seconds",
                "How far this node's clock is ahead of that of Redis.",
            ),
            redis_watched: r.gauge(
                "emitter_redis_watched_streams",
                "Streams that are watched in Redis from here.",
            ),
            redis_hints: r.counter(
                "emitter_redis_hints_total",
                vec![],
                "Hints of appends that came from Redis.",
            ),
            redis_hints_dropped: r.counter(
                "emitter_redis_hints_dropped_total",
                vec![],
                "Hints of appends that could not be read.",
            ),
            redis_heads_differed: r.counter(
                "emitter_redis_heads_differed_total",
                vec![],
                "Watched streams that had moved on without a hint.",
            ),
            tails: r.gauge("emitter_tails", "Users with readers here."),
            tail_bytes: r.gauge("emitter_tail_bytes", "Bytes held in tails."),
            encoded: r.counter(
                "emitter_records_encoded_total",
                vec![],
                "Records encoded for readers.",
            ),
            sent: r.counter(
                "emitter_events_sent_total",
                vec![],
                "Events sent to readers, a joined one counted once.",
            ),
            joined: r.counter(
                "emitter_events_joined_total",
                vec![],
                "Frames that stand for more than one event.",
            ),
            gaps: r.counter("emitter_gaps_total", vec![], "Gaps told to readers."),
            acks_fresh: r.gauge(
                "emitter_acks_fresh_users",
                "Users whose clients' acknowledgements are being stored.",
            ),
            acks_given_up: r.counter(
                "emitter_acks_given_up_total",
                vec![],
                "Acknowledgements that could not be stored.",
            ),
            delivery_seconds: r.histogram(
                "emitter_delivery_seconds",
                "From recording an event to handing it to a live reader's socket.",
            ),
            lag_records: r.histogram(
                "emitter_reader_lag_records",
                "How many records a reader was behind when it read.",
            ),
            websockets: r.gauge("emitter_websocket_connections", "WebSocket connections."),
            event_streams: r.gauge("emitter_sse_connections", "SSE connections."),
            subscriptions: r.gauge("emitter_grpc_subscriptions", "gRPC subscriptions."),
            body_bytes: r.gauge(
                "emitter_grpc_body_bytes",
                "Bytes of gRPC bodies that have not arrived completely, or wait for a permit.",
            ),
            connections_refused: r.counter(
                "emitter_connections_refused_total",
                vec![],
                "Connections closed at once because there were too many.",
            ),
            refused: per_reason("emitter_events_refused_total", "Events refused, by reason."),
            violations: per_reason(
                "emitter_run_violations_total",
                "Events stored that broke a rule of their run, by reason.",
            ),
            closed: per_reason(
                "emitter_connections_closed_total",
                "Readers closed by the server, or refused, by reason.",
            ),
            peer_closed: r.counter(
                "emitter_connections_ended_total",
                vec![],
                "Readers that went away themselves.",
            ),
            adjusted: ADJUSTED
                .iter()
                .map(|field| {
                    let label = Label::from_static_parts("field", field);
                    r.counter(
                        "emitter_events_adjusted_total",
                        vec![label],
                        "Values of events changed so that the event could be stored, by field.",
                    )
                })
                .collect(),
        }
    }

    /// Counts an event refused for `reason`.
    pub fn refused(&self, reason: Reason) {
        if let Some(counter) = self.refused.get(reason.index()) {
            counter.increment(1);
        }
    }

    /// Counts a value below the root field `field` of an event, such as `labels`, that was changed.
    pub fn adjusted(&self, field: &str) {
        let index = ADJUSTED.iter().position(|known| *known == field);
        if let Some(counter) = index.and_then(|index| self.adjusted.get(index)) {
            counter.increment(1);
        }
    }

    /// Counts an event stored although it broke a rule of its run, for `reason`.
    pub fn violation(&self, reason: Reason) {
        if let Some(counter) = self.violations.get(reason.index()) {
            counter.increment(1);
        }
    }

    /// Counts a reader closed or refused for `reason`; `None`: it went away itself.
    pub fn closed(&self, reason: Option<Reason>) {
        match reason.and_then(|reason| self.closed.get(reason.index())) {
            Some(counter) => counter.increment(1),
            None => self.peer_closed.increment(1),
        }
    }
}

struct Registry(PrometheusRecorder);

const METADATA: Metadata<'static> = Metadata::new("emitter", Level::INFO, Some("emitter"));

impl Registry {
    fn counter(&self, name: &'static str, labels: Vec<Label>, help: &'static str) -> Counter {
        self.0.describe_counter(name.into(), None, help.into());
        let key = metrics::Key::from_parts(name, labels);
        self.0.register_counter(&key, &METADATA)
    }

    fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.0.describe_gauge(name.into(), None, help.into());
        let key = metrics::Key::from_static_name(name);
        self.0.register_gauge(&key, &METADATA)
    }

    fn histogram(&self, name: &'static str, help: &'static str) -> Histogram {
        self.0.describe_histogram(name.into(), None, help.into());
        let key = metrics::Key::from_static_name(name);
        self.0.register_histogram(&key, &METADATA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_render_with_reasons_as_labels() {
        let (metrics, handle) = Metrics::new();
        metrics.emitted.increment(2);
        metrics.refused(Reason::Contended);
        metrics.adjusted("labels");
        metrics.append_seconds.record(0.001);
        let text = handle.render();
        for line in [
            "emitter_events_emitted_total 2",
            "emitter_events_refused_total{reason=\"CONTENDED\"} 1",
            "emitter_events_adjusted_total{field=\"labels\"} 1",
            "emitter_append_seconds_bucket{le=\"0.001\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
