//! What waits in memory to be written to files of its own, what lies in the journal until then, and writes that wait for
//! both.

use std::{
    io,
    time::{Duration, Instant},
};

use fjall::{AbstractTree, PersistMode};

use super::{MEMTABLE, Store, place};
use crate::engine::{durable::journal, local::Shelf};

/// After how many of its readers fjall 3.1 looks which are gone.
const READERS_UNTIL_NOTICED: usize = 10_000;

/// How many full memories of records or rows may wait for files before a write waits, and how many files for compaction.
/// Fjall waits for the same within a write, at 4 and 30, but for ever if its threads have failed meanwhile. A write fills
/// one more at most, beside one that was about to be full.
const MOST_WAITING: (usize, usize) = (1, 28);

/// How much of records or rows may wait in a memory that the store's threads have been asked to replace. A write replaces
/// it where they are late: nothing else bounds it.
const MOST_ACTIVE: u64 = MEMTABLE + MEMTABLE / 2;

/// With how much in the journal writes wait for whatever memory is full: until that has a file, the journal keeps it.
const LONG_JOURNAL: u64 = 100 << 20;

/// How often it is looked whether they still wait.
const LOOK: Duration = Duration::from_millis(10);

/// How long writing what waits in memory may take.
pub(super) const FLUSH: Duration = Duration::from_secs(60);

impl Store {
    /// Writes everything that waits in memory to files of its own. Where that does not get on, such as on a full disk, it
    /// is given up after a while.
    pub(in crate::engine::durable) fn flush(&self) -> Result<(), fjall::Error> {
        let until = Instant::now() + FLUSH;
        for keyspace in [&self.records, &self.rows] {
            keyspace.rotate_memtable()?;
            while keyspace.sealed_memtable_count() > 0 {
                if Instant::now() > until {
                    return Err(fjall::Error::Io(io::ErrorKind::TimedOut.into()));
                }
                self.pause()?;
            }
        }
        Ok(())
    }

    /// Waits until a write would not have to, and the journal has room for it.
    pub(super) fn wait_for_room(&self) -> Result<(), fjall::Error> {
        let (memories, files) = MOST_WAITING;
        for keyspace in [&self.records, &self.rows] {
            if keyspace.tree.active_memtable().size() > MOST_ACTIVE {
                keyspace.rotate_memtable()?;
            }
            while keyspace.sealed_memtable_count() > memories || keyspace.l0_table_count() > files {
                self.pause()?;
            }
        }
        while self.is_flushing() && journal::taken(&self.directory) > LONG_JOURNAL {
            self.pause()?;
        }
        Ok(())
    }

    fn is_flushing(&self) -> bool {
        let keyspaces = [&self.records, &self.rows];
        keyspaces
            .iter()
            .any(|keyspace| keyspace.sealed_memtable_count() > 0)
    }

    /// Lets the store's threads work for a moment. Fails if one of them has failed.
    fn pause(&self) -> Result<(), fjall::Error> {
        std::thread::park_timeout(LOOK);
        self.database.persist(PersistMode::Buffer)
    }

    /// Bytes that wait in memory to be written to files of their own.
    pub(in crate::engine::durable) fn unflushed(&self) -> u64 {
        self.database.write_buffer_size()
    }

    /// Gives back the space of what was removed. Takes a while.
    pub(in crate::engine::durable) fn compact(&self) -> Result<(), fjall::Error> {
        self.flush()?;
        self.notice_readers_gone();
        self.records.major_compact()?;
        self.rows.major_compact()?;
        // The files that this replaced go with the next flush: one of nothing.
        for keyspace in [&self.records, &self.rows] {
            keyspace.remove(place(Shelf(0), 0))?;
        }
        self.notice_readers_gone();
        self.flush()
    }

    /// The store keeps what any reader may still look at, and notices only every so many readers that old ones are
    /// gone.
    fn notice_readers_gone(&self) {
        for _ in 0..READERS_UNTIL_NOTICED {
            drop(self.database.snapshot());
        }
    }
}
