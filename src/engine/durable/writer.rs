//! The one thread that writes: it takes what waits and makes one group of it.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fjall::PersistMode;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use super::{
    Config, Slot, Sync,
    group::Group,
    health::{Health, Told},
    housekeeping::Chores,
    recover::Opened,
    store::StoreError,
    totals::Totals,
    witness::Witness,
};
use crate::{
    engine::{
        AppendError, Appended, Commit, Condition, EngineError, Key, KeyEntry,
        local::{Local, Sums, Swept},
    },
    event::{Position, StreamKey},
};

/// What the writer is asked for.
pub(super) enum Request {
    /// Store `commit` at the head `expected`.
    Append {
        key: StreamKey,
        expected: Position,
        commit: Commit,
        answer: oneshot::Sender<Result<Appended, AppendError>>,
    },
    /// Change an entry of the key store.
    Key {
        change: Change,
        answer: oneshot::Sender<Result<Changed, EngineError>>,
    },
    /// Remove from the directory what memory no longer has.
    Swept(Swept),
    /// Make everything safe and end.
    Close(oneshot::Sender<()>),
}

/// A change of an entry of the key store.
pub(super) struct Change {
    pub(super) key: Key,
    /// The value that must be there; `None`: nothing may be there.
    pub(super) expected: Option<Bytes>,
    pub(super) value: Bytes,
    pub(super) ttl: Duration,
}

/// What became of a change.
pub(super) enum Changed {
    /// It was made.
    Done,
    /// It was not, since this is there.
    Not(Option<KeyEntry>),
}

/// The most requests in one group.
const GROUP_REQUESTS: usize = 4_096;

/// About the most bytes of records in one group.
const GROUP_BYTES: usize = 8 << 20;

/// How often a directory that cannot be written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The thread's own.
pub(super) struct Writer {
    pub(super) config: Config,
    pub(super) local: Arc<Local>,
    pub(super) slot: Slot,
    pub(super) witness: Witness,
    pub(super) told: Arc<Told>,
    /// As of the last group that is known to be stored.
    pub(super) totals: Totals,
    pub(super) chores: Chores,
    /// Sums of usage that their rows do not have yet.
    pub(super) sums: Sums,
    pub(super) health: Health,
    /// Requests that have to wait for the group that is under way.
    deferred: VecDeque<Request>,
    /// Since when something is written that is not synced.
    unsynced: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        config: Config,
        slot: Slot,
        opened: Opened,
        told: Arc<Told>,
    ) -> io::Result<Self> {
        let witness = Witness::begin(&config.directory, opened.totals.group)?;
        Ok(Self {
            chores: Chores::new(
                opened.local.clone(),
                opened.streams,
                opened.trims,
                opened.left,
            ),
            local: opened.local,
            totals: opened.totals,
            sums: opened.sums,
            health: Health::Well,
            deferred: VecDeque::new(),
            unsynced: None,
            config,
            slot,
            witness,
            told,
        })
    }

    /// Writes until it is closed, or nobody is left to ask.
    pub(super) fn run(mut self, runtime: &Runtime, mut waiting: mpsc::Receiver<Request>) {
        let _ending = Ending(self.told.clone());
        loop {
            let first = match self.deferred.pop_front() {
                Some(first) => first,
                None => match runtime.block_on(self.next(&mut waiting)) {
                    Next::Request(request) => request,
                    Next::Wake => {
                        self.wake();
                        continue;
                    }
                    Next::Ended => return self.close(),
                },
            };
            if let Some(closed) = self.take(first, &mut waiting) {
                self.close();
                // Whoever asked may be gone.
                let _gone = closed.send(());
                return;
            }
        }
    }

    /// Waits for a request, or for the time of something else.
    async fn next(&self, waiting: &mut mpsc::Receiver<Request>) -> Next {
        let wake = match (&self.health, self.config.sync, self.unsynced) {
            (Health::Broken(_), ..) => Some(TRY_AGAIN),
            (Health::Well, Sync::Interval(every), Some(since)) => {
                Some(every.saturating_sub(since.elapsed()))
            }
            _ => None,
        };
        let received = match wake {
            Some(wake) => tokio::time::timeout(wake, waiting.recv()).await,
            None => Ok(waiting.recv().await),
        };
        match received {
            Ok(Some(request)) => Next::Request(request),
            Ok(None) => Next::Ended,
            Err(_) => Next::Wake,
        }
    }

    /// Makes a group of `first` and what else waits. Returns whom to tell if it is to end.
    fn take(
        &mut self,
        first: Request,
        waiting: &mut mpsc::Receiver<Request>,
    ) -> Option<oneshot::Sender<()>> {
        let mut group = Group::new();
        let mut next = Some(first);
        let mut closed = None;
        // What was deferred comes before what waits, so that nobody is overtaken for ever.
        let mut deferred = std::mem::take(&mut self.deferred);
        while let Some(request) = next.take() {
            match request {
                Request::Close(asked) => {
                    closed = Some(asked);
                    break;
                }
                Request::Swept(swept) => self.chores.note(swept),
                request => {
                    if let Some(request) = group.admit(request) {
                        self.deferred.push_back(request);
                    }
                }
            }
            if group.len() >= GROUP_REQUESTS || group.bytes() >= GROUP_BYTES {
                break;
            }
            next = deferred.pop_front().or_else(|| waiting.try_recv().ok());
        }
        self.deferred.append(&mut deferred);
        self.settle(group);
        if self.is_due() {
            self.wake();
        }
        closed
    }

    /// Whether something is to be done that no request asks for.
    fn is_due(&self) -> bool {
        match (&self.health, self.config.sync, self.unsynced) {
            (Health::Broken(broken), ..) => broken.tried_at.elapsed() >= TRY_AGAIN,
            (Health::Well, Sync::Interval(every), Some(since)) => since.elapsed() >= every,
            _ => false,
        }
    }

    /// Syncs what has waited for that, or tries a directory again that could not be written.
    fn wake(&mut self) {
        match &self.health {
            Health::Well => {
                if let Err(error) = self.persist(PersistMode::SyncData) {
                    self.fail(&error, Vec::new());
                }
            }
            Health::Broken(_) => self.heal(),
        }
    }

    pub(super) fn persist(&mut self, mode: PersistMode) -> Result<(), StoreError> {
        let slot = self.slot.read();
        let store = slot.as_ref().ok_or(fjall::Error::Poisoned)?;
        self.told.at_the_disk(|| store.persist(mode))?;
        drop(slot);
        if mode != PersistMode::Buffer {
            self.unsynced = None;
        }
        Ok(())
    }

    /// How a group is written before it is acknowledged.
    pub(super) fn mode(&self) -> PersistMode {
        match self.config.sync {
            Sync::Group => PersistMode::SyncData,
            Sync::Interval(_) | Sync::Os => PersistMode::Buffer,
        }
    }

    /// Something was written that is not synced yet.
    pub(super) fn wrote(&mut self) {
        if self.mode() == PersistMode::Buffer {
            self.unsynced.get_or_insert_with(Instant::now);
        }
    }

    /// Makes everything safe and says that it is, and then does what else there is time for.
    fn close(&mut self) {
        for request in std::mem::take(&mut self.deferred) {
            request.refuse("the directory is closed");
        }
        if matches!(self.health, Health::Well) {
            self.seal();
            self.settle_all_chores();
        }
        if matches!(self.health, Health::Well) {
            self.seal();
        }
        // What gives space back has the directory open too.
        self.chores.end_compacting();
        self.slot.write().take();
    }

    fn seal(&mut self) {
        let safe = self.persist(PersistMode::SyncAll);
        let sealed = safe.map_err(|error| error.to_string()).and_then(|()| {
            let closed = self.witness.close(self.totals.group);
            closed.map_err(|error| error.to_string())
        });
        if let Err(error) = sealed {
            tracing::error!(error, "the directory was not closed well");
        }
    }
}

/// Says so when the writer ends as it should not.
struct Ending(Arc<Told>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.tell(Condition::Failed("the writer failed"));
            tracing::error!(
                "the writer failed: nothing is stored until the service is started again"
            );
        }
    }
}

enum Next {
    Request(Request),
    Wake,
    Ended,
}

impl Request {
    /// Answers that nothing was done.
    pub(super) fn refuse(self, why: &str) {
        match self {
            Self::Append { answer, .. } => {
                let _gone = answer.send(Err(AppendError::Unavailable(why.to_owned())));
            }
            Self::Key { answer, .. } => {
                let _gone = answer.send(Err(EngineError::Unavailable(why.to_owned())));
            }
            Self::Swept(_) => {}
            Self::Close(asked) => {
                let _gone = asked.send(());
            }
        }
    }

    /// Answers that there is no room.
    pub(super) fn refuse_as_full(self) {
        match self {
            Self::Append { answer, .. } => {
                let _gone = answer.send(Err(AppendError::Full));
            }
            Self::Key { answer, .. } => {
                let _gone = answer.send(Err(EngineError::Full));
            }
            other => other.refuse("there is no room"),
        }
    }
}
