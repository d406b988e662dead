//! A directory that cannot be written: emits are refused, reads go on, and it is opened anew once there is room.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    OpenError,
    group::{Placed, SAFEST},
    recover::damaged,
    store::{Store, StoreError},
    totals::Totals,
    writer::{Request, Writer},
};
use crate::{engine::Condition, telemetry::Metrics};

/// How the writer fares.
pub(super) enum Health {
    /// It writes.
    Well,
    /// It cannot.
    Broken(Broken),
}

/// How the writer fares, where others see it: `/readyz`, and the gauges `emitter_engine_refusing` and
/// `emitter_engine_failed`.
pub(super) struct Told {
    condition: Mutex<Condition>,
    /// Since when it waits for the disk, if it does.
    waiting: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

impl Told {
    /// It writes.
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        let told = Self {
            condition: Mutex::new(Condition::Well),
            waiting: Mutex::new(None),
            metrics,
        };
        told.tell(Condition::Well);
        Arc::new(told)
    }

    /// How it fares: what was told last, but that it refuses while it waits for the disk for long.
    pub(super) fn condition(&self) -> Condition {
        let told = *self.condition.lock();
        let is_hung = (*self.waiting.lock()).is_some_and(|since| since.elapsed() >= HUNG);
        let condition = match told {
            Condition::Well if is_hung => Condition::Refusing("the disk does not answer"),
            told => told,
        };
        self.show(condition);
        condition
    }

    /// Tells how it fares from now on.
    pub(super) fn tell(&self, condition: Condition) {
        *self.condition.lock() = condition;
        self.show(condition);
    }

    /// Does `work`, which may wait for the disk.
    pub(super) fn at_the_disk<T>(&self, work: impl FnOnce() -> T) -> T {
        *self.waiting.lock() = Some(Instant::now());
        let done = work();
        *self.waiting.lock() = None;
        done
    }

    fn show(&self, condition: Condition) {
        let gauge = |holds| if holds { 1.0 } else { 0.0 };
        let failed = matches!(condition, Condition::Failed(_));
        self.metrics.engine_failed.set(gauge(failed));
        let refuses = condition != Condition::Well;
        self.metrics.engine_refusing.set(gauge(refuses));
    }
}

/// How long the writer may wait for the disk before it is said that it refuses: less than callers wait for it.
const HUNG: Duration = Duration::from_secs(5);

/// Since a write failed.
pub(super) struct Broken {
    /// There is no room: not an error, but a bound that was met.
    is_full: bool,
    /// It was lost what was acknowledged: only a start sets that right.
    is_lost: bool,
    /// Appends of which nobody knows whether they are stored.
    in_doubt: Vec<Placed>,
    /// When it was last tried again.
    pub(super) tried_at: Instant,
}

impl Broken {
    /// Answers a request: nothing is stored.
    pub(super) fn refuse(&self, request: Request) {
        if self.is_full {
            request.refuse_as_full();
        } else {
            request.refuse("the directory cannot be written");
        }
    }

    fn condition(&self) -> Condition {
        match self {
            Self { is_lost: true, .. } => Condition::Failed("what was acknowledged is missing"),
            Self { is_full: true, .. } => Condition::Refusing("the disk is full or read-only"),
            _ => Condition::Refusing("the directory cannot be written"),
        }
    }
}

/// How much must fit before the directory is opened anew, beside what waits in memory; and how much is tried at most.
const ROOM: u64 = 512 << 10;
const MOST_ROOM: u64 = 64 << 20;

/// How long closing and opening the store may take.
const REOPEN: Duration = Duration::from_secs(60);

/// Whether `room` bytes can be written to `directory`, and made safe.
fn probe(directory: &Path, room: u64) -> io::Result<()> {
    let path = directory.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        let block = [0x5a; 64 << 10];
        for _ in 0..room.div_ceil(block.len() as u64) {
            file.write_all(&block)?;
        }
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | ReadOnlyFilesystem
    )
}

impl Writer {
    /// A write failed: what was to be stored is in doubt, and what comes is refused until the directory can be written.
    pub(super) fn fail(&mut self, error: &StoreError, placed: Vec<Placed>) {
        let directory = &self.config.directory;
        let is_full = match (error, probe(directory, ROOM)) {
            (StoreError::Fjall(fjall::Error::Io(error)), _) if is_full(error) => true,
            (_, Err(error)) => is_full(&error),
            _ => false,
        };
        tracing::error!(%error, is_full, directory = %directory.display(), "emits are refused");
        let broken = Broken {
            is_full,
            is_lost: false,
            in_doubt: placed.into_iter().map(Placed::in_doubt).collect(),
            tried_at: Instant::now(),
        };
        self.told.tell(broken.condition());
        self.health = Health::Broken(broken);
    }

    /// Opens the directory anew, if it can be written.
    pub(super) fn heal(&mut self) {
        // What gives space back has the store open too.
        let is_busy = self.chores.is_compacting();
        let Health::Broken(broken) = &mut self.health else {
            return;
        };
        broken.tried_at = Instant::now();
        if broken.is_lost || is_busy {
            return;
        }
        // What waits in memory is written next, and again when it is sorted.
        let unflushed = self.slot.read().as_ref().map_or(0, Store::unflushed);
        let room = (ROOM + 2 * unflushed).min(MOST_ROOM);
        let probed = probe(&self.config.directory, room);
        if let Err(error) = probed.and_then(|()| self.witness.acknowledged(self.totals.group)) {
            broken.is_full = is_full(&error);
            return self.told.tell(broken.condition());
        }
        let was_full = broken.is_full;
        match self.reopen(!was_full) {
            Ok(stored) => self.recover(stored),
            Err(error) => tracing::warn!(%error, "the directory cannot be opened anew"),
        }
    }

    /// Closes the store and opens it again. Returns the totals that it has. Readers wait a moment meanwhile, and are then
    /// told that it is being opened.
    fn reopen(&mut self, flush: bool) -> Result<Totals, OpenError> {
        // The directory is locked until the old one is gone, which may take as long as its threads.
        let old = self.slot.write().take();
        let directory = self.config.directory.clone();
        let (tell, told) = mpsc::channel();
        std::thread::Builder::new().spawn(move || {
            drop(old);
            let _given_up = tell.send(Store::open(&directory));
        })?;
        let opened = told.recv_timeout(REOPEN);
        let store = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        // It can be read, even if it cannot be written.
        *self.slot.write() = Some(store.clone());
        if flush {
            // What a failed sync has left in the system's memory only goes to files of its own.
            store.flush()?;
        }
        store.persist(SAFEST)?;
        let totals = Totals::read(&store)?;
        let totals = totals.ok_or_else(|| damaged("the directory says nothing of itself"))?;
        if totals.group > self.totals.group {
            self.chores.written();
        } else {
            for (place, sum) in self.chores.take_back(&store)? {
                self.sums.entry(place).or_insert(sum);
            }
        }
        Ok(totals)
    }

    /// Goes on from what is `stored`: shows what was in doubt and is there.
    fn recover(&mut self, stored: Totals) {
        let Health::Broken(broken) = &mut self.health else {
            return;
        };
        if stored.group < self.totals.group {
            (broken.is_lost, broken.is_full) = (true, false);
            self.told.tell(broken.condition());
            tracing::error!(
                acknowledged = self.totals.group,
                stored = stored.group,
                "what was acknowledged is missing: emits are refused until the service is started again"
            );
            return;
        }
        let in_doubt = std::mem::take(&mut broken.in_doubt);
        let is_there = stored.group > self.totals.group;
        self.totals = stored;
        for append in in_doubt {
            if is_there {
                self.show_one(&append);
            } else {
                self.let_go(&append.key);
            }
        }
        if let Err(error) = self.witness.acknowledged(self.totals.group) {
            tracing::warn!(%error, "the witness cannot be written");
            return;
        }
        tracing::info!(is_there, "emits are taken again");
        self.told.tell(Condition::Well);
        self.health = Health::Well;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_told_until_it_does() {
        let told = Told::new(Arc::new(Metrics::new().0));
        told.at_the_disk(|| {
            assert_eq!(told.condition(), Condition::Well, "it may take a moment");
            *told.waiting.lock() = Instant::now().checked_sub(HUNG);
            let refusing = Condition::Refusing("the disk does not answer");
            assert_eq!(told.condition(), refusing);
        });
        assert_eq!(told.condition(), Condition::Well);
    }
}
