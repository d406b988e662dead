//! What a batch was to do, for as long as it is not known to be stored.

use prost::Message;

use super::{Chores, Sums};
use crate::{
    engine::{
        Key,
        durable::{
            recover::OnDisk,
            store::{Store, StoreError, Tag},
        },
        local::Shelf,
        stored::Corrupt,
    },
    event::{Offset, StreamKey},
    proto::stored as proto,
};

/// What a batch does beside what is asked for.
#[derive(Default)]
pub(super) struct Taken {
    /// Streams that it changes.
    pub(super) touched: Vec<Shelf>,
    /// Streams that it removes.
    pub(super) evictions: Vec<(StreamKey, Shelf, Offset)>,
    /// Keys that it removes.
    pub(super) expired: Vec<Key>,
    /// Sums that it writes.
    pub(super) sums: Sums,
}

impl Chores {
    /// The batch was not stored: what it was to do is to be done, and streams in the directory are as that says. Returns
    /// the sums that it was to write.
    pub(in crate::engine::durable) fn take_back(
        &mut self,
        store: &Store,
    ) -> Result<Sums, StoreError> {
        // All that can fail comes first: what is taken back by half would never be written.
        let mut rows = Vec::with_capacity(self.taken.touched.len());
        for shelf in &self.taken.touched {
            let row = store.row(Tag::Stream, &shelf.0.to_be_bytes())?;
            let row = row.map(proto::Stream::decode).transpose();
            rows.push((*shelf, row.map_err(Corrupt::from)?));
        }
        let taken = std::mem::take(&mut self.taken);
        self.evictions.extend(taken.evictions);
        self.expired.extend(taken.expired);
        for (shelf, row) in rows {
            match row {
                Some(row) => self.as_on_disk(shelf, &row),
                None => self.forget(shelf),
            }
        }
        Ok(taken.sums)
    }

    /// A shelf is as `row` says.
    fn as_on_disk(&mut self, shelf: Shelf, row: &proto::Stream) {
        let local = self.local.clone();
        let Some(shelved) = self.streams.get_mut(&shelf) else {
            return;
        };
        shelved.on_disk = OnDisk {
            trimmed: Offset(row.trimmed),
            checkpoint: Offset(row.checkpoint),
        };
        // Which rows are as their runs is not known: all are written again.
        if let Some(stream) = local.bucket(&shelved.key).lock().streams.get(&shelved.key) {
            let runs = stream.state.runs().map(|(run_id, _)| run_id.clone());
            shelved.changed.extend(runs);
        }
        shelved.ids_from = Offset(0);
        shelved.waits = false;
        self.trim_soon(shelf);
    }
}
