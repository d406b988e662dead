//! Plays a sample run to whoever asks for one, as an agent service would: through the gRPC listener.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::script::{self, Step};
use crate::{
    access::{self, Grant, Scope},
    client::{Credential, Producer, ProducerConfig},
    clock::{Clock, Entropy},
    event::StreamKey,
    proto::v1::Event,
    reason::{Reason, Refusal},
};

/// How many sample runs may play at once.
const AT_ONCE: usize = 4;

/// How long a run's token is good for: longer than the run takes.
const TERM: Duration = Duration::from_secs(10 * 60);

/// Plays sample runs.
pub(super) struct Player {
    grpc: String,
    access: access::Config,
    clock: Clock,
    entropy: Entropy,
    places: Arc<Semaphore>,
}

impl Player {
    /// Plays to the gRPC port at `grpc`, with tokens by `access`.
    pub(super) fn new(grpc: &str, access: access::Config, clock: Clock, entropy: Entropy) -> Self {
        Self {
            grpc: grpc.to_owned(),
            access,
            clock,
            entropy,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Begins a run for the reader of `stream`, and returns its id.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED` while too many play.
    pub(super) fn play(&self, stream: &StreamKey) -> Result<String, Refusal> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{AT_ONCE} sample runs are playing");
            Refusal::new(Reason::LimitExceeded, message)
        })?;
        let run_id = format!("sample-{}", self.entropy.uuid(self.clock.now()));
        let producer = self.producer(stream)?;
        let steps = script::sample(stream.user().as_str(), &run_id);
        tokio::spawn(emit(producer, steps, place));
        Ok(run_id)
    }

    fn producer(&self, stream: &StreamKey) -> Result<Producer, Refusal> {
        let broken = |problem: String| Refusal::new(Reason::EngineUnavailable, problem);
        let grant = Grant {
            tenant: Some(stream.tenant().as_str().to_owned()),
            users: Some(vec![stream.user().as_str().to_owned()]),
            ..Grant::new("sample", [Scope::Emit], self.clock.now() + TERM)
        };
        let token =
            access::mint(&self.access, &grant).map_err(|error| broken(error.to_string()))?;
        let config = ProducerConfig {
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            ..ProducerConfig::default()
        };
        Producer::new(&self.grpc, Credential::fixed(&token), config)
            .map_err(|error| broken(error.to_string()))
    }
}

/// Emits the steps in their time. A refusal ends the run where it stands: the service will tell.
async fn emit(producer: Producer, steps: Vec<Step>, _place: OwnedSemaphorePermit) {
    for Step { pause, event } in steps {
        tokio::time::sleep(pause).await;
        let event: Event = *event;
        if let Err(refusal) = producer.emit(event).await {
            tracing::warn!(?refusal, "a sample run is cut short");
            return;
        }
    }
}
