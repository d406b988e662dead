//! What clients say that they have: a cursor for each, kept in the engine's key store.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    clock::{Clock, Timestamp},
    engine::{Engine, EngineError, Key},
    event::{ClientId, Offset, Position, StreamKey},
    telemetry::Metrics,
};

/// How many clients of one user are remembered; beyond that the one that acknowledged longest ago is forgotten.
pub const CLIENTS: usize = 16;

/// How long they are remembered after the last acknowledgement of any of them.
const MEMORY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The least time between two stores of what one user's clients acknowledge.
const PACE: Duration = Duration::from_secs(1);

/// How many stores in a row may fail before what they were to store is given up.
const FAILURES: u32 = 10;

/// How often a store is tried again at once because another came first.
const CONTENTION: usize = 8;

/// What one client acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The client.
    pub client_id: ClientId,
    /// It has everything up to here.
    pub position: Position,
    /// When it said so.
    pub at: Timestamp,
}

/// What the clients of every user acknowledged. An acknowledgement counts at once on this node, and is stored soon.
pub struct Acks {
    engine: Arc<dyn Engine>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// By user, for as long as a task stores them: a user stands here until `PACE` after its last acknowledgement.
    fresh: Mutex<HashMap<StreamKey, Vec<Ack>>>,
}

impl Acks {
    /// What `engine` keeps.
    pub(super) fn new(engine: Arc<dyn Engine>, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            clock,
            metrics,
            fresh: Mutex::default(),
        })
    }

    /// `client_id` has everything of `stream` up to `position`. Returns at once: a task of the user stores it, now and
    /// then as often as `PACE` allows.
    pub fn acknowledge(
        self: &Arc<Self>,
        stream: &StreamKey,
        client_id: ClientId,
        position: Position,
    ) {
        let ack = Ack {
            client_id,
            position,
            at: self.clock.now(),
        };
        let mut fresh = self.fresh.lock();
        match fresh.entry(stream.clone()) {
            Entry::Occupied(mut of_user) => take(of_user.get_mut(), ack),
            Entry::Vacant(of_user) => {
                of_user.insert(vec![ack]);
                tokio::spawn(keep(self.clone(), stream.clone()));
            }
        }
        self.metrics.acks_fresh.set(fresh.len() as f64);
    }

    /// What the clients of `stream` acknowledged, those that did so last at the end.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn of(&self, stream: &StreamKey) -> Result<Vec<Ack>, EngineError> {
        // Looked at first: what a task stores meanwhile is in one of the two.
        let fresh = self.fresh_of(stream);
        let stored = self.engine.get(&Key::Acks(stream.clone())).await?;
        let mut acks = stored.map_or_else(Vec::new, |stored| decode(&stored.value));
        for ack in fresh {
            take(&mut acks, ack);
        }
        Ok(acks)
    }

    /// What `client_id` acknowledged last.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn of_client(
        &self,
        stream: &StreamKey,
        client_id: &ClientId,
    ) -> Result<Option<Position>, EngineError> {
        let acks = self.of(stream).await?;
        let ack = acks.iter().find(|ack| ack.client_id == *client_id);
        Ok(ack.map(|ack| ack.position))
    }

    /// Whether everything that was acknowledged is stored, or given up.
    pub fn is_settled(&self) -> bool {
        self.fresh.lock().values().all(Vec::is_empty)
    }

    fn fresh_of(&self, stream: &StreamKey) -> Vec<Ack> {
        self.fresh.lock().get(stream).cloned().unwrap_or_default()
    }

    /// Adds `fresh` to what is stored.
    async fn store(&self, stream: &StreamKey, fresh: &[Ack]) -> Result<(), EngineError> {
        let key = Key::Acks(stream.clone());
        for _ in 0..CONTENTION {
            let there = self.engine.get(&key).await?;
            let mut acks = there
                .as_ref()
                .map_or_else(Vec::new, |there| decode(&there.value));
            for ack in fresh {
                take(&mut acks, ack.clone());
            }
            let value = encode(&acks);
            let stored = match there {
                None => {
                    let put = self.engine.put_if_absent(&key, value, MEMORY).await?;
                    put.is_none()
                }
                Some(there) => {
                    let expected = &there.value;
                    let set = self.engine.compare_and_set(&key, expected, value, MEMORY);
                    set.await?
                }
            };
            if stored {
                return Ok(());
            }
        }
        Err(EngineError::Unavailable("others came first".into()))
    }

    /// Takes out what was stored or given up, unless it was acknowledged again since.
    fn settle(&self, stream: &StreamKey, settled: &[Ack]) {
        if let Some(fresh) = self.fresh.lock().get_mut(stream) {
            fresh.retain(|ack| !settled.contains(ack));
        }
    }

    /// Whether nothing was acknowledged since what was settled; then nobody stores for this user any more.
    fn rest(&self, stream: &StreamKey) -> bool {
        let mut fresh = self.fresh.lock();
        let rests = fresh.get(stream).is_none_or(Vec::is_empty);
        if rests {
            fresh.remove(stream);
            if fresh.capacity() > 64 && fresh.len() < fresh.capacity() / 4 {
                fresh.shrink_to_fit();
            }
            self.metrics.acks_fresh.set(fresh.len() as f64);
        }
        rests
    }
}

/// Stores what the clients of `stream` acknowledge until they have been quiet for `PACE`.
async fn keep(acks: Arc<Acks>, stream: StreamKey) {
    let mut failures = 0;
    loop {
        let fresh = acks.fresh_of(&stream);
        match acks.store(&stream, &fresh).await {
            Ok(()) => {
                failures = 0;
                acks.settle(&stream, &fresh);
            }
            Err(error) => {
                failures += 1;
                if failures >= FAILURES {
                    tracing::warn!(?stream, %error, "acknowledgements are given up: their clients may get events again");
                    acks.metrics.acks_given_up.increment(fresh.len() as u64);
                    acks.settle(&stream, &fresh);
                    failures = 0;
                }
            }
        }
        tokio::time::sleep(PACE).await;
        if acks.rest(&stream) {
            return;
        }
    }
}

/// Takes `ack` into a user's acknowledgements, which stand in the order in which they were last made. Within an epoch
/// a client's never moves back.
fn take(acks: &mut Vec<Ack>, ack: Ack) {
    let known = acks
        .iter()
        .position(|known| known.client_id == ack.client_id);
    if let Some(index) = known {
        let Position { epoch, offset } = acks[index].position;
        if epoch == ack.position.epoch && offset > ack.position.offset {
            return;
        }
        acks.remove(index);
    } else if acks.len() >= CLIENTS {
        acks.remove(0);
    }
    acks.push(ack);
}

/// One acknowledgement as it is stored: client, epoch, offset, milliseconds.
#[derive(Serialize, Deserialize)]
struct Stored(String, String, u64, u64);

fn encode(acks: &[Ack]) -> Bytes {
    let stored = acks.iter().map(|ack| {
        let Position { epoch, offset } = ack.position;
        let client_id = ack.client_id.as_str().to_owned();
        Stored(client_id, epoch.to_string(), offset.0, ack.at.as_millis())
    });
    let stored: Vec<_> = stored.collect();
    // Texts and numbers always encode.
    serde_json::to_vec(&stored).unwrap_or_default().into()
}

/// What `value` says; what it does not say in our way is left out.
fn decode(value: &Bytes) -> Vec<Ack> {
    let stored: Vec<Stored> = serde_json::from_slice(value).unwrap_or_default();
    let ack = |Stored(client_id, epoch, offset, at): Stored| {
        Some(Ack {
            client_id: ClientId::new(&client_id).ok()?,
            position: Position::new(epoch.parse().ok()?, Offset(offset)),
            at: Timestamp::from_millis(at),
        })
    };
    stored.into_iter().filter_map(ack).collect()
}
