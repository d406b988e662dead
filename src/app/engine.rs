//! Opens the engine that the settings ask for.

use std::sync::Arc;

use super::BindError;
#[cfg(feature = "redis")]
use crate::engine::redis::RedisEngine;
use crate::{
    clock::{Clock, Entropy},
    config::{Config, EngineKind},
    engine::{
        Engine,
        durable::{DurableEngine, OpenError},
        memory::MemoryEngine,
    },
    telemetry::Metrics,
};

/// Opens the engine that `config` asks for.
pub(super) async fn open(
    config: &Config,
    clock: &Clock,
    entropy: &Entropy,
    metrics: &Arc<Metrics>,
) -> Result<Arc<dyn Engine>, BindError> {
    match config.settings.engine.kind {
        EngineKind::Memory => {
            let bounds = config.memory();
            Ok(MemoryEngine::new(
                bounds,
                clock.clone(),
                entropy,
                metrics.clone(),
            ))
        }
        #[cfg(feature = "redis")]
        EngineKind::Redis => {
            let (clock, entropy) = (clock.clone(), entropy.clone());
            let redis = config.redis();
            Ok(RedisEngine::new(redis, clock, entropy, metrics.clone()))
        }
        // The settings are not valid without it.
        #[cfg(not(feature = "redis"))]
        EngineKind::Redis => Err(BindError::NoRedis),
        EngineKind::Durable => {
            let durable = config.durable();
            let directory = durable.directory.clone();
            let (clock, entropy, metrics) = (clock.clone(), entropy.clone(), metrics.clone());
            // It reads everything that is there.
            let opening = tokio::task::spawn_blocking(move || {
                DurableEngine::open(durable, clock, &entropy, metrics)
            });
            let opened = opening.await.unwrap_or_else(|error| {
                Err(OpenError::Fault(format!("opening it failed: {error}")))
            });
            match opened {
                Ok(engine) => Ok(engine),
                Err(error) => Err(BindError::Directory { directory, error }),
            }
        }
    }
}
