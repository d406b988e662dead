//! Each module's own configuration, out of the settings.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "redis")]
use super::redis::RedisMode;
use super::{Config, prices, settings::Mode};
#[cfg(feature = "redis")]
use crate::engine::redis;
use crate::{
    calls, egress,
    engine::{durable, memory},
    fanout, ingest, net, run, sequencer,
    usage::PriceTable,
};

impl Config {
    /// For the durable engine.
    pub fn durable(&self) -> durable::Config {
        let engine = &self.settings.engine;
        durable::Config {
            directory: engine.data_dir.clone(),
            sync: engine.sync,
            bounds: self.memory(),
        }
    }

    /// For the memory engine.
    pub fn memory(&self) -> memory::Config {
        let settings = &self.settings;
        memory::Config {
            retention_age: settings.retention.age,
            retention_records: settings.retention.events,
            retention_bytes: settings.retention.bytes,
            run_memory: self.run_memory(),
            total_bytes: settings.retention.total_bytes,
            dedupe_window: settings.dedupe.window,
            dedupe_ids_per_user: settings.dedupe.ids_per_user,
            dedupe_ids_per_node: settings.dedupe.ids_per_node,
            usage_age: settings.usage.age,
            usage_series: settings.usage.series,
        }
    }

    /// For the engine on Redis.
    #[cfg(feature = "redis")]
    pub fn redis(&self) -> redis::Config {
        let settings = &self.settings;
        let from = &settings.redis;
        redis::Config {
            mode: match from.mode {
                RedisMode::Single => redis::Mode::Single,
                RedisMode::Sentinel => redis::Mode::Sentinel,
                RedisMode::Cluster => redis::Mode::Cluster,
            },
            urls: from
                .urls
                .iter()
                .map(|url| redis::Url::new(url.secret()))
                .collect(),
            master_name: from.master_name.clone(),
            username: from.username.clone(),
            password_file: from.password_file.clone(),
            ca_file: from.ca_file.clone(),
            prefix: from.prefix.clone(),
            wait_replicas: from.wait_replicas,
            wait_timeout: from.wait_timeout,
            min_replicas: from.min_replicas,
            timeout: from.timeout,
            clock_tolerance: from.clock_tolerance,
            bounds: redis::Bounds {
                retention_age: settings.retention.age,
                retention_records: settings.retention.events,
                retention_bytes: settings.retention.bytes,
                run_memory: self.run_memory(),
                dedupe_window: settings.dedupe.window,
                dedupe_ids_per_user: settings.dedupe.ids_per_user,
                usage_age: settings.usage.age,
                usage_series: settings.usage.series,
            },
        }
    }

    /// What models cost.
    pub fn prices(&self) -> PriceTable {
        prices::table(&self.settings.prices)
    }

    /// For the sequencer.
    pub fn sequencer(&self) -> sequencer::Config {
        let limits = &self.settings.limits;
        let runs = &self.settings.runs;
        sequencer::Config {
            rules: sequencer::Rules {
                dedupe_window: self.settings.dedupe.window,
                open_runs: limits.open_runs,
                open_tool_calls: limits.open_tool_calls,
                descendants: limits.descendants,
                depth: limits.run_depth,
                run_memory: self.run_memory(),
                recovery_grace: runs.recovery_grace,
                defaults: run::Defaults {
                    silence_timeout: runs.silence_timeout,
                    max_wait: runs.max_wait,
                },
                mode: match runs.mode {
                    Mode::Enforce => sequencer::Mode::Enforce,
                    Mode::Observe => sequencer::Mode::Observe,
                    #[cfg(feature = "bench")]
                    Mode::Bare => sequencer::Mode::Bare,
                },
                prices: Arc::new(self.prices()),
            },
            dedupe_ids_per_user: self.settings.dedupe.ids_per_user,
            queue_events: limits.queue_events,
            queue_bytes: limits.queue_bytes,
            lanes: limits.lanes,
        }
    }

    /// How long a run is remembered after its end: while any of its events may be retained, and a retry recognized.
    fn run_memory(&self) -> Duration {
        let settings = &self.settings;
        settings.retention.age.max(settings.dedupe.window)
    }

    /// For the fan-out.
    pub fn fanout(&self) -> fanout::Config {
        let limits = &self.settings.limits;
        fanout::Config {
            tail_records: limits.tail_records,
            tail_bytes: limits.tail_bytes,
            tail_total_bytes: limits.tail_total_bytes,
            tail_age: limits.tail_age,
            page_records: limits.page_records,
        }
    }

    /// For the way in.
    pub fn ingest(&self) -> ingest::Config {
        let limits = &self.settings.limits;
        let redaction = self.settings.redaction.clone();
        ingest::Config {
            event_bytes: limits.event_bytes,
            depth: limits.depth,
            batch_events: limits.batch_events,
            batch_bytes: limits.batch_bytes,
            redaction: ingest::Redaction {
                enabled: redaction.enabled,
                words: redaction.words,
            },
        }
    }

    /// For calls over gRPC on their way in.
    pub fn calls(&self) -> calls::Config {
        let limits = &self.settings.limits;
        calls::Config {
            calls: limits.grpc_calls,
            body: limits.request_body,
            body_bytes: limits.body_bytes,
            body_bytes_per_credential: limits.body_bytes_per_credential,
        }
    }

    /// For the way out.
    pub fn egress(&self) -> egress::Config {
        let limits = &self.settings.limits;
        egress::Config {
            heartbeat: limits.heartbeat,
            write_stall: limits.write_stall,
            connections_per_user: limits.connections_per_user,
            client_frame_bytes: limits.client_frame_bytes,
            client_frames_per_second: limits.client_frames_per_second,
            origins: self.settings.origins.clone(),
            reconnect_least: limits.reconnect_least,
            reconnect_most: limits.reconnect_most,
            expiring_notice: limits.expiring_notice,
            close_grace: limits.close_grace,
        }
    }

    /// For the listeners.
    pub fn net(&self) -> net::Config {
        let limits = &self.settings.limits;
        net::Config {
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            send_buffer: limits.send_buffer,
            handshake: limits.handshake,
            head_bytes: limits.head_bytes,
            // Two heartbeats missed; but a reader that is too slow is told so before.
            unacknowledged: (limits.heartbeat * 5 / 2).max(limits.write_stall + limits.close_grace),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_reference_states_each_modules_own_defaults() {
        let auth = [
            ("EMITTER_AUTH__ISSUER", "platform"),
            ("EMITTER_AUTH__SECRET", "0123456789abcdef0123456789abcdef"),
        ];
        let config = Config::load(&Sources {
            environment: auth.map(|(name, text)| (name.into(), text.into())).into(),
            ..Sources::default()
        })
        .unwrap();
        same(&config.memory(), &memory::Config::default());
        #[cfg(feature = "redis")]
        same(&config.redis(), &redis::Config::default());
        same(&config.sequencer(), &sequencer::Config::default());
        same(&config.fanout(), &fanout::Config::default());
        same(&config.calls(), &calls::Config::default());
        same(&config.ingest(), &ingest::Config::default());
        same(&config.egress(), &egress::Config::default());
        same(&config.net(), &net::Config::default());
    }

    fn same<T: Debug>(ours: &T, theirs: &T) {
        assert_eq!(format!("{ours:#?}"), format!("{theirs:#?}"));
    }
}
