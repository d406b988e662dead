//! What becomes of the events of one call.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use futures_util::future::join_all;
use http::HeaderMap;
use tokio::time::Instant;

use crate::{
    access::{Authenticator, Principal, Scope},
    calls::{Calls, Deadline},
    clock::{Clock, Entropy},
    event::{Event, Receipt, StreamKey},
    proto::v1::{EmitBatchResponse, EmitResponse},
    reason::{Reason, Refusal},
    sequencer::Sequencer,
    shutdown::Drain,
    telemetry::{LogLimit, Metrics},
};

use super::{
    Config, EmitterServer, answer,
    validate::{Intake, too_large},
    wire::Split,
};

/// The only way in: takes the calls of `emitter.v1.EventEmitter`.
pub struct EmitterService {
    authenticator: Arc<Authenticator>,
    sequencer: Arc<Sequencer>,
    intake: Intake,
    metrics: Arc<Metrics>,
    drain: Drain,
    config: Config,
}

/// Bounds the lines about adjusted events.
static ADJUSTED: LogLimit = LogLimit::new();

/// Who calls, and how long they wait.
pub(super) struct Caller {
    principal: Arc<Principal>,
    deadline: Option<Instant>,
}

impl Caller {
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }
}

/// What became of each event of a batch, once it is known.
type Outcomes = Vec<Option<Result<Receipt, Refusal>>>;

/// The valid events of one user, with their places in the batch.
struct Group {
    stream: StreamKey,
    places: Vec<usize>,
    events: Vec<Event>,
}

impl EmitterService {
    /// A service that hands what `authenticator` lets in to `sequencer`.
    pub fn new(
        authenticator: Arc<Authenticator>,
        sequencer: Arc<Sequencer>,
        clock: Clock,
        entropy: Entropy,
        metrics: Arc<Metrics>,
        drain: Drain,
        config: Config,
    ) -> Self {
        Self {
            authenticator,
            sequencer,
            intake: Intake::new(clock, entropy, &config),
            metrics,
            drain,
            config,
        }
    }

    /// The service as a tonic server takes it.
    pub fn into_server(self, calls: Arc<Calls>) -> EmitterServer {
        EmitterServer::new(self, calls)
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Counts a refusal on its way out.
    pub(super) fn counted(&self, refusal: Refusal) -> Refusal {
        self.metrics.refused(refusal.reason);
        refusal
    }

    /// Lets a call in by its headers.
    ///
    /// # Errors
    /// `DRAINING`, `UNAUTHENTICATED`, `CREDENTIAL_EXPIRED`, `SCOPE_MISSING`.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        deadline: Option<Deadline>,
    ) -> Result<Caller, Refusal> {
        if self.drain.is_draining() {
            return Err(Refusal::new(
                Reason::Draining,
                "the server is shutting down",
            ));
        }
        let principal = self.authenticator.admit(headers)?;
        principal.require(Scope::Emit)?;
        Ok(Caller {
            principal,
            deadline: deadline.map(|Deadline(at)| at),
        })
    }

    /// Stores the one event of an `Emit`.
    ///
    /// # Errors
    /// Every refusal of an event, with paths from the request.
    pub(super) async fn emit(
        &self,
        caller: &Caller,
        split: Split,
    ) -> Result<EmitResponse, Refusal> {
        let below = |refusal: Refusal| refusal.below("event");
        let event = match &split.events[..] {
            [] => return Err(invalid("event", "is required")),
            [event] => event,
            // Protobuf would merge them; no producer means that.
            _ => return Err(invalid("event", "is given more than once")),
        };
        let event = self
            .accept(event, &caller.principal, &mut Vec::new())
            .map_err(below)?;
        let stream = event.stream.clone();
        let results = self.submit(stream, vec![event], caller).await;
        let receipt = results
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(unanswered()))
            .map_err(below)?;
        Ok(EmitResponse {
            receipt: Some((&receipt).into()),
        })
    }

    /// Stores the events of an `EmitBatch`.
    ///
    /// # Errors
    /// `INVALID_EVENT` where the batch itself is invalid; what is refused of it stands in the answer.
    pub(super) async fn emit_batch(
        &self,
        caller: &Caller,
        split: Split,
    ) -> Result<EmitBatchResponse, Refusal> {
        self.check_batch(&split)?;
        let mut outcomes: Outcomes = Vec::new();
        outcomes.resize_with(split.events.len(), || None);
        let groups = self.group(&caller.principal, split, &mut outcomes);
        let submissions = groups.into_iter().map(async |group| {
            let results = self.submit(group.stream, group.events, caller).await;
            (group.places, results)
        });
        for (places, results) in join_all(submissions).await {
            for (place, result) in places.into_iter().zip(results) {
                if let Some(outcome) = outcomes.get_mut(place) {
                    *outcome = Some(result);
                }
            }
        }
        Ok(self.answer_batch(outcomes))
    }

    /// Validates the event in `wire`, and counts and logs what was adjusted.
    fn accept(
        &self,
        wire: &[u8],
        principal: &Principal,
        scratch: &mut Vec<u8>,
    ) -> Result<Event, Refusal> {
        let event = self.intake.accept(wire, principal, scratch)?;
        for adjustment in &event.adjustments {
            self.metrics.adjusted(adjustment.root());
            if let Some(left_out) = ADJUSTED.admit() {
                tracing::warn!(
                    tenant = principal.tenant.as_str(),
                    subject = principal.subject.as_str(),
                    event_type = event.kind.wire_type(),
                    field = &*adjustment.field,
                    action = adjustment.action.name(),
                    rule = &*adjustment.reason,
                    left_out,
                    "a producer's event was adjusted"
                );
            }
        }
        Ok(event)
    }

    /// Stores `events`, all of `stream`, in their order.
    async fn submit(
        &self,
        stream: StreamKey,
        events: Vec<Event>,
        caller: &Caller,
    ) -> Vec<Result<Receipt, Refusal>> {
        let key = match self.sequencer.content_key(&stream).await {
            Ok(key) => key,
            Err(refusal) => return vec![Err(refusal); events.len()],
        };
        let keyed = |event: Event| {
            Arc::new(Event {
                content: event.content.keyed(&key),
                ..event
            })
        };
        let events = events.into_iter().map(keyed).collect();
        self.sequencer.submit(stream, events, caller.deadline).await
    }

    fn check_batch(&self, split: &Split) -> Result<(), Refusal> {
        let Config {
            batch_events,
            batch_bytes,
            ..
        } = self.config;
        if split.events.is_empty() {
            return Err(invalid("events", "is required"));
        }
        if split.events.len() > batch_events {
            return Err(invalid(
                "events",
                format!("has more than {batch_events} events"),
            ));
        }
        if split.bytes > batch_bytes {
            return Err(invalid("events", too_large(batch_bytes)));
        }
        Ok(())
    }

    /// The valid events by user, in the order of the batch; what is invalid gets its outcome at once.
    fn group(
        &self,
        principal: &Principal,
        split: Split,
        outcomes: &mut [Option<Result<Receipt, Refusal>>],
    ) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_stream: HashMap<StreamKey, usize> = HashMap::new();
        let mut scratch = Vec::new();
        for (place, (wire, outcome)) in split.events.iter().zip(outcomes).enumerate() {
            let event = match self.accept(wire, principal, &mut scratch) {
                Ok(event) => event,
                Err(refusal) => {
                    *outcome = Some(Err(refusal));
                    continue;
                }
            };
            let group = match by_stream.entry(event.stream.clone()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    groups.push(Group::new(event.stream.clone()));
                    *new.insert(groups.len() - 1)
                }
            };
            if let Some(group) = groups.get_mut(group) {
                group.places.push(place);
                group.events.push(event);
            }
        }
        groups
    }

    fn answer_batch(&self, outcomes: Outcomes) -> EmitBatchResponse {
        let (mut refused_count, mut adjusted_count) = (0, 0);
        let results = outcomes
            .into_iter()
            .enumerate()
            .map(|(place, outcome)| {
                let result = outcome.unwrap_or_else(|| Err(unanswered()));
                if let Ok(receipt) = &result {
                    adjusted_count += u32::from(!receipt.adjustments.is_empty());
                }
                answer::result(result.map_err(|refusal| {
                    refused_count += 1;
                    self.counted(refusal.below(&format!("events[{place}]")))
                }))
            })
            .collect();
        EmitBatchResponse {
            results,
            refused_count,
            adjusted_count,
        }
    }
}

impl Group {
    fn new(stream: StreamKey) -> Self {
        Self {
            stream,
            places: Vec::new(),
            events: Vec::new(),
        }
    }
}

fn invalid(field: &str, rule: impl Into<String>) -> Refusal {
    Refusal::invalid_field(Reason::InvalidEvent, field, rule)
}

/// For an event that the sequencer gave no answer to: it may have been stored.
fn unanswered() -> Refusal {
    Refusal::new(Reason::OutcomeUnknown, "the event was not answered")
}
