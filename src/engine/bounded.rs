//! An engine that answers in time, or is taken for one that cannot be reached.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time;

use super::{
    AppendError, Appended, Commit, Condition, Description, Due, DueInReach, Engine, EngineError,
    Key, KeyEntry, KnownRun, OpenRuns, Page, ReadLimit, RunQuery, StreamState, Watch, Watcher,
};
use crate::{
    clock::Timestamp,
    event::{Offset, Position, RunId, StreamKey, UsageTotals},
    run::Run,
    usage::{Series, UsageQuery},
};

/// An engine whose calls each take at most `timeout`; beyond that it counts as unavailable, and what becomes of an
/// append as unknown.
///
/// `runs` and `usage` may look at everything there is, for an operator who has a deadline: they take as long as they
/// take, and so do `maintain` and `close`.
pub struct Bounded {
    engine: Arc<dyn Engine>,
    timeout: Duration,
}

const LATE: &str = "no answer in time";

impl Bounded {
    /// `engine`, but never for longer than `timeout`.
    pub fn new(engine: Arc<dyn Engine>, timeout: Duration) -> Arc<Self> {
        Arc::new(Self { engine, timeout })
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let answer = time::timeout(self.timeout, call).await;
        answer.unwrap_or_else(|_| Err(EngineError::Unavailable(LATE.into())))
    }
}

#[async_trait]
impl Engine for Bounded {
    fn describe(&self) -> Description {
        self.engine.describe()
    }

    fn condition(&self) -> Condition {
        self.engine.condition()
    }

    fn problems(&self) -> Vec<String> {
        self.engine.problems()
    }

    async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError> {
        self.within(self.engine.load(stream)).await
    }

    async fn run(&self, stream: &StreamKey, run_id: &RunId) -> Result<Option<Run>, EngineError> {
        self.within(self.engine.run(stream, run_id)).await
    }

    async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError> {
        self.within(self.engine.open_runs(stream)).await
    }

    async fn runs(&self, query: &RunQuery) -> Result<Vec<KnownRun>, EngineError> {
        self.engine.runs(query).await
    }

    async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        self.within(self.engine.due(buckets, now, limit)).await
    }

    async fn due_in_reach(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> DueInReach {
        let due = self.engine.due_in_reach(buckets.clone(), now, limit);
        let answer = time::timeout(self.timeout, due).await;
        answer.unwrap_or_else(|_| DueInReach::none(buckets))
    }

    async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        self.within(self.engine.look_again(stream, head, runs))
            .await
    }

    /// What does not answer in time may be stored all the same, now or later.
    async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        let append = self.engine.append(stream, decided_on, commit);
        let answer = time::timeout(self.timeout, append).await;
        answer.unwrap_or_else(|_| Err(AppendError::Unknown(LATE.into())))
    }

    async fn confirm(&self, stream: &StreamKey, head: Position) -> Result<(), EngineError> {
        self.within(self.engine.confirm(stream, head)).await
    }

    async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError> {
        self.within(self.engine.read(stream, after, limit)).await
    }

    async fn watch(
        &self,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError> {
        self.within(self.engine.watch(stream, watcher)).await
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<(Series, UsageTotals)>, EngineError> {
        self.engine.usage(query).await
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError> {
        self.within(self.engine.get(key)).await
    }

    async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        self.within(self.engine.put_if_absent(key, value, ttl))
            .await
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError> {
        let set = self.engine.compare_and_set(key, expected, value, ttl);
        self.within(set).await
    }

    async fn maintain(&self) {
        self.engine.maintain().await;
    }

    async fn close(&self) {
        self.engine.close().await;
    }
}
