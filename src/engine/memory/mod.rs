//! The engine that keeps everything in memory: fast, bounded, and empty after a restart, which a new epoch tells.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use super::local::Config;
use super::{
    AppendError, Appended, Commit, Description, Due, Engine, EngineError, Key, KeyEntry, KnownRun,
    OpenRuns, Page, ReadLimit, RunQuery, StreamState, Watch, Watcher,
    local::{Behind, Local},
};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    event::{Epoch, Offset, Position, RunId, StreamKey, UsageTotals},
    run::Run,
    telemetry::Metrics,
    usage::{Series, UsageQuery},
};

/// Everything in memory, in fixed buckets under a lock each.
pub struct MemoryEngine(Arc<Local>);

impl MemoryEngine {
    /// An empty engine with an epoch of its own.
    pub fn new(
        config: Config,
        clock: Clock,
        entropy: &Entropy,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let epoch = Epoch::new(entropy.bits());
        Arc::new(Self(Local::new(config, clock, metrics, epoch, None, true)))
    }

    /// About how many bytes it holds: the gauge `emitter_engine_bytes`.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// How many streams it holds.
    pub fn streams(&self) -> usize {
        self.0.streams()
    }

    /// How many calls of `maintain` visit everything once.
    pub const fn turns() -> usize {
        Local::turns()
    }

    /// Places and shows `commit` under one lock.
    fn append_now(
        &self,
        key: &StreamKey,
        expected: Position,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        let local = &self.0;
        let now = local.clock.age_now();
        let mut bucket = local.bucket(key).lock();
        if let Err(behind) = local.check(&bucket, key, expected, &commit, now) {
            drop(bucket);
            return Err(self.refusal(key, expected, behind));
        }
        let stream = local.stream(&mut bucket, key, expected, now);
        let base = local.take_offsets(commit.drafts.len());
        let records = local.placed(stream, base, commit);
        local.show(&mut bucket, key, &records, None);
        Ok(Appended { records })
    }

    fn refusal(&self, key: &StreamKey, expected: Position, behind: Behind) -> AppendError {
        let missed = match behind {
            Behind::Records(missed) => missed,
            Behind::Reload => return AppendError::Reload,
            Behind::Full => return AppendError::Full,
        };
        let limit = ReadLimit {
            records: missed,
            bytes: usize::MAX,
        };
        // What came in between may be more by now: the first of them are enough to go on.
        let (_, stretch) = self.0.stretch(key, expected.offset, limit);
        match stretch.trimmed <= expected.offset {
            true => AppendError::Conflict(stretch.records),
            false => AppendError::Reload,
        }
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    fn describe(&self) -> Description {
        Description {
            kind: "memory",
            level: "process",
            loses: "everything, when the process ends".into(),
        }
    }

    async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError> {
        Ok(self.0.load(stream))
    }

    async fn run(&self, stream: &StreamKey, run_id: &RunId) -> Result<Option<Run>, EngineError> {
        Ok(self.0.run(stream, run_id))
    }

    async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError> {
        Ok(self.0.open_runs(stream))
    }

    async fn runs(&self, query: &RunQuery) -> Result<Vec<KnownRun>, EngineError> {
        Ok(self.0.list(query).await)
    }

    async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        Ok(self.0.due(buckets, now, limit))
    }

    async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        self.0.look_again(stream, head, runs);
        Ok(())
    }

    async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        self.append_now(stream, decided_on.head, commit)
    }

    async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError> {
        let (_, stretch) = self.0.stretch(stream, after, limit);
        Ok(Page {
            records: stretch.records,
            head: stretch.head,
            trimmed: stretch.trimmed,
        })
    }

    async fn watch(
        &self,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError> {
        Ok(self.0.watch(stream, watcher))
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<(Series, UsageTotals)>, EngineError> {
        Ok(self.0.usage(query).await)
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError> {
        Ok(self.0.get(key))
    }

    async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        self.0.put_if_absent(key, value, ttl)
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError> {
        Ok(self.0.compare_and_set(key, expected, value, ttl))
    }

    async fn maintain(&self) {
        self.0.maintain().await;
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests;
