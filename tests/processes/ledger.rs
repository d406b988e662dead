//! What was sent, and what became of it according to the service's own answers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use emitter::{
    client::Fate,
    proto::v1::{Event, Position, event::Payload},
};

/// Everything that producers sent and were told. They share one.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

/// The ledger's content.
#[derive(Default)]
pub(crate) struct Book {
    /// By event id.
    pub(crate) events: BTreeMap<String, Entry>,
    /// By run id.
    pub(crate) runs: BTreeMap<String, Run>,
    /// Why attempts failed that were made again, and how often.
    pub(crate) attempts: BTreeMap<String, u64>,
    /// Receipts that contradict each other.
    pub(crate) contradictions: Vec<String>,
    /// Events that were acknowledged, and refused when they were sent once more.
    pub(crate) forgotten: Vec<String>,
}

/// One event.
pub(crate) struct Entry {
    pub(crate) user: String,
    pub(crate) run: String,
    /// Who sent it. A writer sends the next event of a user when it knows what became of the one before.
    pub(crate) writer: String,
    /// Counts what is sent, by all writers.
    pub(crate) sent: usize,
    pub(crate) outcome: Outcome,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Stored or not: nobody has said yet, or the writer gave up asking.
    Unknown,
    Acknowledged {
        epoch: String,
        offset: u64,
        run_sequence: u64,
    },
    /// Refused for good, with this reason.
    Refused(String),
}

/// One run.
pub(crate) struct Run {
    pub(crate) user: String,
    /// How its writer left it.
    pub(crate) left: Left,
}

/// How a writer left a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It still writes, or had to give up.
    Open,
    /// Its end is acknowledged.
    Ended,
    /// It went silent on purpose, its start acknowledged: the service is to end it.
    Abandoned,
}

impl Ledger {
    /// The content, for as long as the guard lives.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    /// How many events are acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let book = self.book();
        let is_acknowledged = |entry: &&Entry| entry.is_acknowledged();
        book.events.values().filter(is_acknowledged).count()
    }
}

impl Entry {
    pub(crate) fn is_acknowledged(&self) -> bool {
        matches!(self.outcome, Outcome::Acknowledged { .. })
    }
}

impl Book {
    /// `event` is sent by `writer` for the first time.
    pub(crate) fn sending(&mut self, writer: &str, event: &Event) {
        let sent = self.events.len();
        self.runs
            .entry(event.run_id.clone())
            .or_insert_with(|| Run {
                user: event.user_id.clone(),
                left: Left::Open,
            });
        let entry = Entry {
            user: event.user_id.clone(),
            run: event.run_id.clone(),
            writer: writer.to_owned(),
            sent,
            outcome: Outcome::Unknown,
        };
        let before = self.events.insert(event.event_id.clone(), entry);
        assert!(before.is_none(), "{} is sent twice", event.event_id);
    }

    /// What the service said of an event; `true`: it is settled.
    pub(crate) fn answered(&mut self, event: &Event, fate: &Fate) -> bool {
        let outcome = match fate {
            Ok(receipt) => {
                let Position { epoch, offset } = receipt.position.clone().unwrap_or_default();
                Outcome::Acknowledged {
                    epoch,
                    offset,
                    run_sequence: receipt.run_sequence,
                }
            }
            Err(refusal) if is_passing(refusal) => {
                let why = match refusal.reason.as_str() {
                    "" => format!("on the way: {}", refusal.message),
                    reason => reason.to_owned(),
                };
                *self.attempts.entry(why).or_default() += 1;
                return false;
            }
            Err(refusal) => Outcome::Refused(format!("{}: {}", refusal.reason, refusal.message)),
        };
        let sent = self.events.len();
        let entry = self.events.get_mut(&event.event_id).expect("it was sent");
        let (id, first) = (&event.event_id, &entry.outcome);
        match (first, &outcome) {
            (Outcome::Acknowledged { .. }, Outcome::Refused(why)) => {
                self.forgotten
                    .push(format!("{id} was {first:?}, then {why}"));
                return true;
            }
            // The first receipt again, but for an epoch that has changed meanwhile.
            (Outcome::Acknowledged { epoch, .. }, Outcome::Acknowledged { epoch: now, .. }) => {
                if epoch != now {
                    // Where it was lost it is stored anew, and stands later.
                    let is_duplicate = fate.as_ref().is_ok_and(|receipt| receipt.duplicate);
                    if !is_duplicate {
                        entry.sent = sent;
                    }
                } else if *first != outcome {
                    let contradiction = format!("{id} was {first:?}, then {outcome:?}");
                    self.contradictions.push(contradiction);
                }
            }
            _ => {}
        }
        entry.outcome = outcome;
        true
    }

    /// How `run` was left.
    pub(crate) fn left(&mut self, run: &str, left: Left) {
        self.runs.get_mut(run).expect("it was begun").left = left;
    }

    /// The ids of the events of `user` that are acknowledged.
    pub(crate) fn acknowledged_of(&self, user: &str) -> Vec<String> {
        let of_user =
            |(_, entry): &(&String, &Entry)| entry.user == user && entry.is_acknowledged();
        let id = |(id, _): (&String, &Entry)| id.clone();
        self.events.iter().filter(of_user).map(id).collect()
    }
}

/// Whether the event is worth sending again. Room may come back, so a full store passes too.
pub(crate) fn is_passing(refusal: &emitter::proto::v1::Refusal) -> bool {
    refusal.reason.is_empty()
        || refusal.retry_after.is_some()
        || refusal.reason == "STREAM_FULL"
        || tonic::Code::from(refusal.code) == tonic::Code::Unavailable
}

/// Whether the event ends its run.
pub(crate) fn is_end(event: &Event) -> bool {
    matches!(
        event.payload,
        Some(Payload::AgentCompleted(_) | Payload::AgentFailed(_) | Payload::AgentCancelled(_))
    )
}
