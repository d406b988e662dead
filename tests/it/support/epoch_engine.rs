//! An engine whose epoch can change under its users: what is retained keeps its offsets.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use emitter::{
    clock::Timestamp,
    engine::{
        AppendError, Appended, Commit, Description, Due, DueInReach, Engine, EngineError, Key,
        KeyEntry, KnownRun, OpenRuns, Page, ReadLimit, RunQuery, StreamState, Watch, Watcher,
    },
    event::{Epoch, Offset, Position, Record, RunId, StreamKey, UsageTotals},
    run::Run,
    usage::{Series, UsageQuery},
};

/// Wraps an engine and names its epoch otherwise, once it has changed.
pub(crate) struct EpochEngine {
    inner: Arc<dyn Engine>,
    epoch: Arc<Mutex<Option<Epoch>>>,
    since: Mutex<Option<Timestamp>>,
}

impl EpochEngine {
    pub(crate) fn new(inner: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            epoch: Arc::default(),
            since: Mutex::default(),
        })
    }

    /// From now on everything is of `epoch`. Nobody is told.
    pub(crate) fn change(&self, epoch: Epoch) {
        *self.epoch.lock().unwrap() = Some(epoch);
    }

    /// The same, as of `now`: a store that persists has lost something.
    pub(crate) fn lose(&self, epoch: Epoch, now: Timestamp) {
        *self.since.lock().unwrap() = Some(now);
        self.change(epoch);
    }

    fn out(&self, position: Position) -> Position {
        named(*self.epoch.lock().unwrap(), position)
    }
}

fn named(epoch: Option<Epoch>, position: Position) -> Position {
    Position::new(epoch.unwrap_or(position.epoch), position.offset)
}

fn under(epoch: &Mutex<Option<Epoch>>, records: &[Arc<Record>]) -> Vec<Arc<Record>> {
    let epoch = *epoch.lock().unwrap();
    if epoch.is_none() {
        return records.to_vec();
    }
    let out = |record: &Arc<Record>| {
        Arc::new(Record {
            position: named(epoch, record.position),
            ..Record::clone(record)
        })
    };
    records.iter().map(out).collect()
}

#[async_trait]
impl Engine for EpochEngine {
    fn describe(&self) -> Description {
        self.inner.describe()
    }

    async fn load(&self, stream: &StreamKey) -> Result<StreamState, EngineError> {
        let mut state = self.inner.load(stream).await?;
        state.head = self.out(state.head);
        state.epoch_since = *self.since.lock().unwrap();
        Ok(state)
    }

    async fn run(&self, stream: &StreamKey, run_id: &RunId) -> Result<Option<Run>, EngineError> {
        self.inner.run(stream, run_id).await
    }

    async fn runs(&self, query: &RunQuery) -> Result<Vec<KnownRun>, EngineError> {
        self.inner.runs(query).await
    }

    async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError> {
        let open = self.inner.open_runs(stream).await?;
        Ok(OpenRuns {
            head: self.out(open.head),
            ..open
        })
    }

    async fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        self.inner.due(buckets, now, limit).await
    }

    async fn due_in_reach(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> DueInReach {
        self.inner.due_in_reach(buckets, now, limit).await
    }

    async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        let within = self.inner.load(stream).await?.head.epoch;
        if self.out(head) != head {
            return Ok(());
        }
        let head = Position::new(within, head.offset);
        self.inner.look_again(stream, head, runs).await
    }

    async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, EngineError> {
        self.inner.get(key).await
    }

    async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        if self.out(decided_on.head) != decided_on.head {
            return Err(AppendError::Reload);
        }
        let within = self.inner.load(stream).await;
        let epoch = within
            .map_err(|error| AppendError::Unavailable(error.to_string()))?
            .head
            .epoch;
        let mut decided_on = decided_on.clone();
        decided_on.head = Position::new(epoch, decided_on.head.offset);
        match self.inner.append(stream, &decided_on, commit).await {
            Ok(appended) => Ok(Appended {
                records: under(&self.epoch, &appended.records),
            }),
            Err(AppendError::Conflict(missed)) => {
                Err(AppendError::Conflict(under(&self.epoch, &missed)))
            }
            Err(error) => Err(error),
        }
    }

    async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError> {
        let page = self.inner.read(stream, after, limit).await?;
        Ok(Page {
            records: under(&self.epoch, &page.records),
            head: self.out(page.head),
            trimmed: page.trimmed,
        })
    }

    async fn watch(
        &self,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError> {
        let watcher = Arc::new(Under {
            epoch: self.epoch.clone(),
            watcher,
        });
        let watch = self.inner.watch(stream, watcher).await?;
        Ok(Watch {
            head: self.out(watch.head),
            ..watch
        })
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<(Series, UsageTotals)>, EngineError> {
        self.inner.usage(query).await
    }

    async fn put_if_absent(
        &self,
        key: &Key,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, EngineError> {
        self.inner.put_if_absent(key, value, ttl).await
    }

    async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, EngineError> {
        self.inner.compare_and_set(key, expected, value, ttl).await
    }

    async fn maintain(&self) {
        self.inner.maintain().await;
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct Under {
    epoch: Arc<Mutex<Option<Epoch>>>,
    watcher: Arc<dyn Watcher>,
}

impl Watcher for Under {
    fn stands_at(&self, head: Position) {
        self.watcher
            .stands_at(named(*self.epoch.lock().unwrap(), head));
    }

    fn appended(&self, records: &[Arc<Record>]) {
        self.watcher.appended(&under(&self.epoch, records));
    }
}
