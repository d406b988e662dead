//! The key of content hashes. It follows from a secret that the store keeps, so that all nodes of a store have the same
//! one, also after a restart.

use std::time::Duration;

use bytes::Bytes;

use super::{Sequencer, drive};
use crate::{
    engine::{EngineError, Key},
    event::{ContentKey, StreamKey},
    reason::Refusal,
};

/// How many bytes a secret has.
const BYTES: usize = 32;

/// How long the store keeps the secret after it was put. A node that knows it puts it again when it is gone.
const KEPT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How often a node looks whether the store has another secret than it knows: one store that lost everything may have
/// got a new one from another node.
const LOOK: Duration = Duration::from_secs(10);

/// The secret as this node knows it, and the key that follows from it.
pub(super) struct Known {
    secret: Bytes,
    key: ContentKey,
}

impl Known {
    fn of(secret: Bytes) -> Self {
        let key = ContentKey::of(&secret);
        Self { secret, key }
    }
}

impl Sequencer {
    /// The key of the store's content hashes, for events of `stream`.
    ///
    /// # Errors
    /// `ENGINE_UNAVAILABLE`, `STREAM_FULL`: this node does not know the key yet, and the store does not answer, or has
    /// no room for a new secret. That is no silence of the stream's runs.
    pub async fn content_key(&self, stream: &StreamKey) -> Result<ContentKey, Refusal> {
        if let Some(known) = &*self.content_key.lock() {
            return Ok(known.key);
        }
        self.look_up_content_key().await.map_err(|error| {
            self.note_not_stored(stream);
            drive::unavailable(&error)
        })
    }

    /// Keeps the key that of the store, for as long as it is polled.
    pub async fn keep_content_key(&self) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            // While the store is away, what is known stays.
            let _later = self.look_up_content_key().await;
        }
    }

    /// Takes the secret that the store has, or puts one there.
    async fn look_up_content_key(&self) -> Result<ContentKey, EngineError> {
        let stored = match self.engine.get(&Key::ContentSecret).await? {
            Some(entry) => entry.value,
            None => self.put_content_secret().await?,
        };
        let mut known = self.content_key.lock();
        match &*known {
            Some(known) if known.secret == stored => Ok(known.key),
            _ => Ok(known.insert(Known::of(stored)).key),
        }
    }

    /// Puts the secret that this node knows, else a new one; another node's stays. Returns the one that is there.
    async fn put_content_secret(&self) -> Result<Bytes, EngineError> {
        let known = self
            .content_key
            .lock()
            .as_ref()
            .map(|known| known.secret.clone());
        let secret = known.unwrap_or_else(|| {
            let mut bytes = [0; BYTES];
            self.entropy.fill(&mut bytes);
            Bytes::copy_from_slice(&bytes)
        });
        let there = self
            .engine
            .put_if_absent(&Key::ContentSecret, secret.clone(), KEPT)
            .await?;
        Ok(there.map_or(secret, |entry| entry.value))
    }
}
