//! Emits events over gRPC, and again until it is known what became of them.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Code, Request, Status, transport::Channel};

use super::{Address, Credential, UrlError, backoff::Backoff, grpc};
use crate::{
    clock::{Clock, Entropy},
    proto::v1::{
        EmitBatchRequest, EmitRequest, EmitResult, Event, Receipt, Refusal, emit_result::Outcome,
        event_emitter_client::EventEmitterClient,
    },
    reason::Reason,
};

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// How long one call to `emit` or `emit_batch` may take, retries included.
    pub deadline: Duration,
    /// How long one attempt may take before it is made again.
    pub attempt: Duration,
    /// The wall clock, for the ids of events.
    pub clock: Clock,
    /// Randomness, for the ids of events and the waits between attempts.
    pub entropy: Entropy,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            attempt: Duration::from_secs(10),
            clock: Clock::system(),
            entropy: Entropy::system(),
        }
    }
}

/// Emits events. Clones share one connection.
#[derive(Clone)]
pub struct Producer {
    client: EventEmitterClient<Channel>,
    credential: Credential,
    token: Arc<Mutex<String>>,
    config: ProducerConfig,
}

/// What became of an event: stored, or why not. A refusal without a reason comes from the way to the service, and leaves
/// open whether the event was stored.
pub type Fate = Result<Receipt, Box<Refusal>>;

impl Producer {
    /// A producer that emits to the gRPC port at `address`, such as `http://127.0.0.1:50051`. It connects when it is first
    /// used, inside a tokio runtime.
    ///
    /// # Errors
    /// When `address` is no such address.
    pub fn new(
        address: impl Into<Address>,
        credential: Credential,
        config: ProducerConfig,
    ) -> Result<Self, UrlError> {
        Ok(Self {
            client: EventEmitterClient::new(grpc::channel(&address.into())?),
            token: Arc::new(Mutex::new(credential.token())),
            credential,
            config,
        })
    }

    /// Stores `event`. An event without an id gets one, so that it is stored once however often it is sent.
    ///
    /// # Errors
    /// Why it was not stored.
    pub async fn emit(&self, mut event: Event) -> Fate {
        self.name(&mut event);
        let mut retry = self.retry();
        loop {
            let request = EmitRequest {
                event: Some(event.clone()),
            };
            let call = async {
                let request = self.request(request, &retry)?;
                self.client.clone().emit(request).await
            };
            let fate = match call.await {
                Ok(response) => response.into_inner().receipt.ok_or_else(incomplete),
                Err(status) => Err(self.refusal(&status)),
            };
            match fate {
                Err(refusal) if retry.after(&refusal).await => {}
                fate => return fate,
            }
        }
    }

    /// Stores `events`, at most 1,000, in their order per user. The answers are aligned with `events`. Events without
    /// an id get one. What was refused for a passing reason is sent again, in the same order.
    pub async fn emit_batch(&self, mut events: Vec<Event>) -> Vec<Fate> {
        for event in &mut events {
            self.name(event);
        }
        let mut fates: Vec<Fate> = events.iter().map(|_| Err(incomplete())).collect();
        let mut open: Vec<usize> = (0..events.len()).collect();
        let mut retry = self.retry();
        while !open.is_empty() {
            let batch = open.iter().filter_map(|&index| events.get(index).cloned());
            let answers = self.attempt_batch(batch.collect(), &retry).await;
            for (&index, fate) in open.iter().zip(answers) {
                if let Some(slot) = fates.get_mut(index) {
                    *slot = fate;
                }
            }
            let passing = |index: &usize| {
                let fate = fates.get(*index);
                fate.and_then(|fate| fate.as_ref().err())
                    .is_some_and(|refusal| is_passing(refusal))
            };
            open.retain(passing);
            // One wait for all: the first refusal is the one that the others follow.
            let first = open
                .first()
                .and_then(|&index| fates.get(index)?.as_ref().err());
            match first {
                Some(refusal) if retry.after(refusal).await => {}
                _ => break,
            }
        }
        fates
    }

    async fn attempt_batch(&self, events: Vec<Event>, retry: &Retry) -> Vec<Fate> {
        let count = events.len();
        let call = async {
            let request = self.request(EmitBatchRequest { events }, retry)?;
            self.client.clone().emit_batch(request).await
        };
        match call.await {
            Ok(response) => {
                let results = response.into_inner().results.into_iter().map(fate);
                let missing = std::iter::repeat_with(|| Err(incomplete()));
                results.chain(missing).take(count).collect()
            }
            Err(status) => vec![Err(self.refusal(&status)); count],
        }
    }

    fn name(&self, event: &mut Event) {
        if event.event_id.is_empty() {
            event.event_id = self.config.entropy.uuid(self.config.clock.now());
        }
    }

    fn request<T>(&self, message: T, retry: &Retry) -> Result<Request<T>, Status> {
        let left = retry.deadline.saturating_duration_since(Instant::now());
        grpc::request(message, &self.token.lock(), left.min(self.config.attempt))
    }

    fn retry(&self) -> Retry {
        Retry {
            deadline: Instant::now() + self.config.deadline,
            backoff: Backoff::new(
                self.config.entropy.clone(),
                Duration::from_millis(100),
                Duration::from_secs(5),
            ),
        }
    }

    /// The content of `status`. An expired credential is renewed on the way, and then worth another attempt.
    fn refusal(&self, status: &Status) -> Box<Refusal> {
        let mut refusal = Box::new(grpc::refusal(status));
        if refusal.reason == Reason::CredentialExpired.name() && self.credential.renews() {
            let fresh = self.credential.token();
            let mut token = self.token.lock();
            if *token != fresh {
                *token = fresh;
                refusal.retry_after = Some(prost_types::Duration::default());
            }
        }
        refusal
    }
}

/// The attempts at one call.
struct Retry {
    deadline: Instant,
    backoff: Backoff,
}

impl Retry {
    /// Waits until another attempt is due; `false`: it is not worth while, or there is no time for it.
    async fn after(&mut self, refusal: &Refusal) -> bool {
        if !is_passing(refusal) {
            return false;
        }
        let asked = refusal.retry_after;
        let asked = asked.and_then(|asked| Duration::try_from(asked).ok());
        let due = Instant::now() + self.backoff.next(asked);
        if due >= self.deadline {
            return false;
        }
        tokio::time::sleep_until(due).await;
        true
    }
}

/// Whether the same event is worth sending again. Where nothing says otherwise it is, since it carries an id.
fn is_passing(refusal: &Refusal) -> bool {
    let by_the_service = !refusal.reason.is_empty();
    let code = Code::from_i32(refusal.code);
    let on_the_way = matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
    );
    refusal.retry_after.is_some() || code == Code::Unavailable || (!by_the_service && on_the_way)
}

fn fate(result: EmitResult) -> Fate {
    match result.outcome {
        Some(Outcome::Receipt(receipt)) => Ok(receipt),
        Some(Outcome::Refusal(refusal)) => Err(Box::new(refusal)),
        None => Err(incomplete()),
    }
}

/// The service, or something on the way to it, left an answer out.
fn incomplete() -> Box<Refusal> {
    Box::new(Refusal {
        code: Code::Unknown.into(),
        message: "the answer is incomplete".into(),
        ..Refusal::default()
    })
}

#[cfg(test)]
mod tests;
