//! A directory that cannot be written: emits are refused, reads go on, and it is opened anew once there is room.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Instant,
};

use super::{
    group::{Placed, SAFEST},
    open_store,
    recover::Totals,
    store::StoreError,
    writer::{Request, Writer},
};

/// How the writer fares.
pub(super) enum Health {
    /// It writes.
    Well,
    /// It cannot.
    Broken(Broken),
}

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
}

/// How much must fit before the directory is opened anew.
const ROOM: usize = 512 << 10;

/// Whether something can be written to `directory`, and made safe.
fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0x5a; ROOM])?;
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
        let is_full = match (error, probe(directory)) {
            (StoreError::Fjall(fjall::Error::Io(error)), _) if is_full(error) => true,
            (_, Err(error)) => is_full(&error),
            _ => false,
        };
        tracing::error!(%error, is_full, directory = %directory.display(), "emits are refused");
        self.metrics.engine_refusing.set(1.0);
        self.health = Health::Broken(Broken {
            is_full,
            is_lost: false,
            in_doubt: placed.into_iter().map(Placed::in_doubt).collect(),
            tried_at: Instant::now(),
        });
    }

    /// Opens the directory anew, if it can be written.
    pub(super) fn heal(&mut self) {
        let Health::Broken(broken) = &mut self.health else {
            return;
        };
        broken.tried_at = Instant::now();
        if broken.is_lost {
            return;
        }
        if let Err(error) = probe(&self.config.directory) {
            broken.is_full = is_full(&error);
            return;
        }
        self.chores.finish_compacting();
        match self.reopen() {
            Ok(stored) => self.recover(stored),
            Err(error) => tracing::warn!(%error, "the directory cannot be opened anew"),
        }
    }

    /// Closes the store and opens it again. Returns the totals that it has.
    fn reopen(&mut self) -> Result<Totals, super::OpenError> {
        let slot = self.slot.clone();
        let mut slot = slot.write();
        // The directory is locked until the old one is gone.
        slot.take();
        let store = open_store(&self.config.directory)?;
        let totals = Totals::read(&store)?;
        // What a failed sync has left in the system's memory only goes to files of its own.
        store.flush()?;
        store.persist(SAFEST)?;
        self.chores.opened_anew(&store);
        *slot = Some(store);
        totals.ok_or_else(|| super::recover::damaged("the directory says nothing of itself"))
    }

    /// Goes on from what is `stored`: shows what was in doubt and is there.
    fn recover(&mut self, stored: Totals) {
        let Health::Broken(broken) = &mut self.health else {
            return;
        };
        if stored.group < self.totals.group {
            broken.is_lost = true;
            tracing::error!(
                acknowledged = self.totals.group,
                stored = stored.group,
                "what was acknowledged is missing: emits are refused until the service is started again"
            );
            return;
        }
        let in_doubt = std::mem::take(&mut broken.in_doubt);
        let is_there = stored.group > self.totals.group;
        let newest = self.totals.newest.max(stored.newest);
        self.totals = stored;
        for append in in_doubt {
            if is_there {
                self.show_one(&append);
            } else {
                self.let_go(&append.key);
            }
        }
        // Offsets that were in doubt are not given out again.
        self.totals.newest = newest;
        if let Err(error) = self.witness.acknowledged(self.totals.group) {
            tracing::warn!(%error, "the witness cannot be written");
            return;
        }
        tracing::info!(is_there, "emits are taken again");
        self.metrics.engine_refusing.set(0.0);
        self.health = Health::Well;
    }
}
