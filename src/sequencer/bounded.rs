//! An engine that answers in time, or is taken for one that cannot be reached.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time;

use crate::{
    clock::Timestamp,
    engine::{
        AppendError, Appended, Commit, Due, Engine, EngineError, Key, KeyEntry, ReadLimit,
        StreamState,
    },
    event::{Position, RunId, StreamKey},
    run::Run,
};

/// What the sequencer asks of an engine, each call for at most `timeout`. See [`Engine`] for the calls.
pub(super) struct Bounded {
    engine: Arc<dyn Engine>,
    timeout: Duration,
}

const LATE: &str = "no answer in time";

impl Bounded {
    pub(super) fn new(engine: Arc<dyn Engine>, timeout: Duration) -> Self {
        Self { engine, timeout }
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let answer = time::timeout(self.timeout, call).await;
        answer.unwrap_or_else(|_| Err(EngineError::Unavailable(LATE.into())))
    }

    pub(super) async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError> {
        self.within(self.engine.load(stream)).await
    }

    /// Whether nothing has come after `state`.
    pub(super) async fn is_current(
        &self,
        stream: &StreamKey,
        state: &StreamState,
    ) -> Result<bool, EngineError> {
        let limit = ReadLimit {
            records: 1,
            bytes: 1,
        };
        let head = state.head;
        let page = self.within(self.engine.read(stream, head.offset, limit));
        let page = page.await?;
        let epoch = page.head.epoch;
        Ok(page.records.is_empty() && epoch == head.epoch && page.trimmed <= head.offset)
    }

    /// What does not answer in time may be stored all the same, now or later.
    pub(super) async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        let append = self.engine.append(stream, decided_on, commit);
        let answer = time::timeout(self.timeout, append).await;
        answer.unwrap_or_else(|_| Err(AppendError::Unknown(LATE.into())))
    }

    pub(super) async fn run(
        &self,
        stream: &StreamKey,
        run_id: &RunId,
    ) -> Result<Option<Run>, EngineError> {
        self.within(self.engine.run(stream, run_id)).await
    }

    pub(super) async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        self.within(self.engine.due(buckets, now, limit)).await
    }

    pub(super) async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        self.within(self.engine.look_again(stream, head, runs))
            .await
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError> {
        self.within(self.engine.get(key)).await
    }

    pub(super) async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        self.within(self.engine.put_if_absent(key, value, ttl))
            .await
    }

    pub(super) async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError> {
        let set = self.engine.compare_and_set(key, expected, value, ttl);
        self.within(set).await
    }
}
