//! The directory's store: which rows there are, and under which keys.
//!
//! Records lie by shelf and offset, everything else in rows that begin with a tag. Numbers in keys are big-endian, so
//! that keys are in their order.

mod pressure;

use std::{ops::RangeInclusive, path::Path, sync::Arc};

use bytes::Bytes;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch as WriteBatch, PersistMode,
};
use prost::Message;

use super::journal::MOST_BATCHES;
use crate::{
    engine::{Key, local::Shelf, stored::Corrupt},
    event::{Offset, RunId, StreamKey, Tenant, ThreadId, UserId},
    proto::stored as proto,
    usage::{Model, Series},
};

/// The store of an open directory. Clones share it; it is closed with the last one.
#[derive(Clone)]
pub(super) struct Store {
    directory: Arc<Path>,
    database: Database,
    records: Keyspace,
    rows: Keyspace,
}

/// A read or write that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The store itself.
    #[error("{0:?}")]
    Fjall(#[from] fjall::Error),
    /// What it holds is not what was once written.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Rows and records that are written together, or not at all.
pub(super) struct Batch<'a> {
    store: &'a Store,
    batch: WriteBatch,
}

/// What kinds of rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    /// The directory itself.
    Directory = b'd',
    /// A bucket: the highest offset of any record that an evicted stream of it held.
    Evicted = b'e',
    /// A stream, by shelf.
    Stream = b's',
    /// A run, by shelf and id.
    Run = b'r',
    /// An id whose record was trimmed, by shelf and offset.
    Id = b'i',
    /// An entry of the key store.
    Key = b'k',
    /// A sum of usage, by day and series.
    Usage = b'u',
}

/// Memory for writes before they go to files of their own, for each of records and rows.
const MEMTABLE: u64 = 16 << 20;

/// The tables that are kept open. Fjall's own number would be most of a soft limit of 1,024.
const CACHED_FILES: usize = 256;

/// The most files that the store opens at a time: tables, journals, and those of a compaction.
pub const FILES: usize = CACHED_FILES + 128;

/// How much of the journal may lie in files that are full. Fjall does not count the one that is written: it is full at
/// about as much, and what waits in memory comes on top. So this makes 128 MiB in all.
const JOURNAL: u64 = 64 << 20;

impl Store {
    /// Opens the store in `directory`, and makes it if there is none.
    pub(super) fn open(directory: &Path) -> Result<Self, fjall::Error> {
        let database = Database::builder(directory)
            .manual_journal_persist(true)
            .max_journaling_size(JOURNAL)
            .max_cached_files(Some(CACHED_FILES))
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE)
                .manual_journal_persist(true)
        };
        Ok(Self {
            directory: directory.into(),
            records: database.keyspace("records", options)?,
            rows: database.keyspace("rows", options)?,
            database,
        })
    }

    /// Whether a flipped bit made it number batches beyond all reason: it will fail sooner or later, or compare them
    /// wrongly.
    pub(super) fn is_beyond_reason(&self) -> bool {
        self.database.seqno() >= MOST_BATCHES
    }

    /// An empty batch.
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch {
            store: self,
            batch: self.database.batch(),
        }
    }

    /// Hands everything that was written to the system, or beyond, to the disk.
    pub(super) fn persist(&self, mode: PersistMode) -> Result<(), fjall::Error> {
        self.database.persist(mode)
    }

    /// The records of `shelf` at `offsets`, oldest first.
    pub(super) fn records(
        &self,
        shelf: Shelf,
        offsets: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = Result<(Offset, Bytes), StoreError>> + use<> {
        let (first, last) = offsets.into_inner();
        let range = self.records.range(place(shelf, first)..=place(shelf, last));
        range.map(|guard| {
            let (key, value) = guard.into_inner()?;
            let (_, offset) = read_place(&key)?;
            Ok((offset, Bytes::from(value)))
        })
    }

    /// All records, shelf by shelf, oldest first.
    pub(super) fn all_records(
        &self,
    ) -> impl Iterator<Item = Result<(Shelf, Offset, Bytes), StoreError>> + use<> {
        self.records.iter().map(|guard| {
            let (key, value) = guard.into_inner()?;
            let (shelf, offset) = read_place(&key)?;
            Ok((shelf, offset, Bytes::from(value)))
        })
    }

    /// The row under `tag` and `key`.
    pub(super) fn row(&self, tag: Tag, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.get(tagged(tag, key))?.map(Bytes::from))
    }

    /// The rows under `tag` whose keys begin with `prefix`, in their order, without tag.
    pub(super) fn rows(
        &self,
        tag: Tag,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> + use<> {
        self.rows.prefix(tagged(tag, prefix)).map(|guard| {
            let (key, value) = guard.into_inner()?;
            Ok((Bytes::from(key).slice(1..), Bytes::from(value)))
        })
    }

    /// The ids of `shelf` from the offset `from` on, oldest first.
    pub(super) fn ids(
        &self,
        shelf: Shelf,
        from: Offset,
    ) -> impl Iterator<Item = Result<(Offset, Bytes), StoreError>> + use<> {
        let key = |offset| tagged(Tag::Id, &place(shelf, offset));
        let range = self.rows.range(key(from.0)..=key(u64::MAX));
        range.map(|guard| {
            let (key, value) = guard.into_inner()?;
            let (_, offset) = read_place(key.get(1..).unwrap_or_default())?;
            Ok((offset, Bytes::from(value)))
        })
    }
}

impl Batch<'_> {
    /// Writes the record of `shelf` at `offset`.
    pub(super) fn put_record(&mut self, shelf: Shelf, offset: Offset, bytes: &[u8]) {
        let key = place(shelf, offset.0);
        self.batch.insert(&self.store.records, key, bytes);
    }

    /// Removes the record of `shelf` at `offset`.
    pub(super) fn remove_record(&mut self, shelf: Shelf, offset: Offset) {
        self.batch
            .remove(&self.store.records, place(shelf, offset.0));
    }

    /// Writes a row.
    pub(super) fn put(&mut self, tag: Tag, key: &[u8], bytes: &[u8]) {
        self.batch.insert(&self.store.rows, tagged(tag, key), bytes);
    }

    /// Removes a row.
    pub(super) fn remove(&mut self, tag: Tag, key: &[u8]) {
        self.batch.remove(&self.store.rows, tagged(tag, key));
    }

    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.batch.len()
    }

    /// Writes all of it and hands it to `mode`, once the store keeps up.
    pub(super) fn commit(self, mode: PersistMode) -> Result<(), fjall::Error> {
        self.store.wait_for_room()?;
        self.batch.durability(Some(mode)).commit()
    }
}

/// The key of a record, of a stream's row, or of what belongs to it.
pub(super) fn place(shelf: Shelf, offset: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&shelf.0.to_be_bytes());
    key[8..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The reverse of `place`.
pub(super) fn read_place(key: &[u8]) -> Result<(Shelf, Offset), Corrupt> {
    let number = |at: usize| key.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
    match (number(0), number(8), key.len()) {
        (Some(shelf), Some(offset), 16) => Ok((Shelf(shelf), Offset(offset))),
        _ => Err(Corrupt::new("a key of another length")),
    }
}

/// The shelf that a key begins with, and what follows.
pub(super) fn read_shelf(key: &[u8]) -> Result<(Shelf, &[u8]), Corrupt> {
    match key.split_first_chunk() {
        Some((shelf, rest)) => Ok((Shelf(u64::from_be_bytes(*shelf)), rest)),
        None => Err(Corrupt::new("a key of another length")),
    }
}

/// The key of a run's row.
pub(super) fn run_key(shelf: Shelf, run_id: &RunId) -> Vec<u8> {
    [&shelf.0.to_be_bytes(), run_id.as_str().as_bytes()].concat()
}

fn tagged(tag: Tag, key: &[u8]) -> Vec<u8> {
    [&[tag as u8], key].concat()
}

/// The key of an entry of the key store.
pub(super) fn key_name(key: &Key) -> Vec<u8> {
    let pair = |kind: u8, tenant: &Tenant, id: &str| {
        let tenant = tenant.as_str().as_bytes();
        // The length says where the tenant ends; ids have at most 512 bytes.
        let length = u16::try_from(tenant.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        [&[kind], &length[..], tenant, id.as_bytes()].concat()
    };
    let numbered = |kind: u8, number: usize| [&[kind], &(number as u64).to_be_bytes()[..]].concat();
    match key {
        Key::RunClaim(tenant, run_id) => pair(b'c', tenant, run_id.as_str()),
        Key::Acks(stream) => pair(b'a', stream.tenant(), stream.user().as_str()),
        Key::Lease(range) => numbered(b'l', *range),
        Key::Missed(bucket) => numbered(b'm', *bucket),
        Key::ContentSecret => vec![b's'],
    }
}

/// The reverse of `key_name`.
pub(super) fn read_key_name(name: &[u8]) -> Result<Key, Corrupt> {
    let wrong = || Corrupt::new("no such key");
    let (kind, rest) = name.split_first().ok_or_else(wrong)?;
    if let (b's', []) = (*kind, rest) {
        return Ok(Key::ContentSecret);
    }
    if let b'l' | b'm' = *kind {
        let number = rest.try_into().map_err(|_| wrong())?;
        let number = usize::try_from(u64::from_be_bytes(number)).map_err(|_| wrong())?;
        return Ok(match kind {
            b'l' => Key::Lease(number),
            _ => Key::Missed(number),
        });
    }
    let (length, rest) = rest.split_first_chunk().ok_or_else(wrong)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (tenant, id) = rest.split_at_checked(length).ok_or_else(wrong)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| wrong());
    let (tenant, id) = (Tenant::new(text(tenant)?)?, text(id)?);
    match kind {
        b'c' => Ok(Key::RunClaim(tenant, RunId::new(id)?)),
        b'a' => Ok(Key::Acks(StreamKey::new(tenant, UserId::new(id)?))),
        _ => Err(wrong()),
    }
}

/// The key of the row of a sum that lies in `bucket`: its day comes first.
pub(super) fn series_key(bucket: usize, series: &Series) -> Vec<u8> {
    let day = series.day.to_string();
    let message = proto::Series {
        tenant: series.tenant.as_str().to_owned(),
        day: day.clone(),
        user_id: series.user.as_ref().map(|id| id.as_str().to_owned()),
        thread_id: series.thread_id.as_ref().map(|id| id.as_str().to_owned()),
        provider: series.model.provider.to_string(),
        model: series.model.model.to_string(),
    };
    let bucket = (bucket as u64).to_be_bytes();
    [day.as_bytes(), &bucket, &message.encode_to_vec()].concat()
}

/// The reverse of `series_key`.
pub(super) fn read_series(key: &[u8]) -> Result<(usize, Series), Corrupt> {
    const DAY: usize = 10;
    let (bucket, series) = read_shelf(key.get(DAY..).unwrap_or_default())?;
    let bucket = usize::try_from(bucket.0).map_err(|_| Corrupt::new("no such bucket"))?;
    let message = proto::Series::decode(series)?;
    let user = message.user_id.as_deref().map(UserId::new).transpose()?;
    let thread = message
        .thread_id
        .as_deref()
        .map(ThreadId::new)
        .transpose()?;
    let day = message.day.parse();
    let series = Series {
        tenant: Tenant::new(&message.tenant)?,
        day: day.map_err(|_| Corrupt::new("no such day"))?,
        user,
        thread_id: thread,
        model: Model {
            provider: message.provider.into(),
            model: message.model.into(),
        },
    };
    Ok((bucket, series))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{pressure::FLUSH, *};

    #[test]
    fn keys_read_back_and_keep_their_order() {
        let tenant = |name: &str| Tenant::new(name).unwrap();
        let keys = [
            Key::RunClaim(tenant("t"), RunId::new("r\u{1F600}").unwrap()),
            Key::RunClaim(tenant("tr"), RunId::new("x").unwrap()),
            Key::Acks(StreamKey::new(tenant("t"), UserId::new("u").unwrap())),
            Key::Lease(15),
            Key::Missed(960),
            Key::ContentSecret,
        ];
        for key in keys {
            assert_eq!(read_key_name(&key_name(&key)), Ok(key));
        }
        let places = [(1, 2), (1, 256), (2, 0), (256, 1)];
        let keys = places.map(|(shelf, offset)| place(Shelf(shelf), offset));
        assert!(keys.is_sorted(), "{keys:?}");
        for ((shelf, offset), key) in places.into_iter().zip(keys) {
            assert_eq!(read_place(&key), Ok((Shelf(shelf), Offset(offset))));
        }
    }

    /// Where files cannot be written any more, writing fails: it does not wait for a thread that is no more.
    #[test]
    fn a_store_whose_threads_failed_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let put = |offset| {
            let mut batch = store.batch();
            batch.put_record(Shelf(1), Offset(offset), b"record");
            batch.commit(PersistMode::Buffer)
        };
        put(1).unwrap();
        std::fs::remove_dir_all(directory.path().join("keyspaces")).unwrap();
        let since = Instant::now();
        let flushed = store.flush();
        assert!(flushed.is_err(), "{flushed:?}");
        assert!(since.elapsed() < FLUSH / 2, "{:?}", since.elapsed());
        let stored = put(2);
        assert!(matches!(stored, Err(fjall::Error::Poisoned)), "{stored:?}");
    }

    #[test]
    fn ids_are_found_from_an_offset_on() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut batch = store.batch();
        for (shelf, offset) in [(1, 9), (2, 3), (2, 5), (2, 7), (3, 1)] {
            batch.put(Tag::Id, &place(Shelf(shelf), offset), b"id");
        }
        batch.commit(PersistMode::Buffer).unwrap();
        for (from, want) in [
            (0, vec![3, 5, 7]),
            (4, vec![5, 7]),
            (7, vec![7]),
            (8, vec![]),
        ] {
            let ids = store.ids(Shelf(2), Offset(from));
            let ids: Vec<u64> = ids.map(|id| id.unwrap().0.0).collect();
            assert_eq!(ids, want, "from {from}");
        }
    }

    #[test]
    fn a_series_reads_back() {
        let series = Series {
            tenant: Tenant::new("t").unwrap(),
            day: "2026-11-22".parse().unwrap(),
            user: None,
            thread_id: ThreadId::new("x").ok(),
            model: Model::other(),
        };
        assert_eq!(read_series(&series_key(7, &series)), Ok((7, series)));
    }
}
