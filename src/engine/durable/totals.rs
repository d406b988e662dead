//! What a directory says of itself as a whole, by which the next process tells whether anything is missing.

use prost::Message;

use super::{
    recover::Found,
    store::{Batch, Store, StoreError, Tag},
    witness::Testimony,
};
use crate::{
    clock::Timestamp,
    engine::stored::Corrupt,
    event::{Epoch, Offset},
    proto::stored as proto,
};

/// What is known of the directory as a whole, as of a group of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// The epoch of all streams.
    pub(super) epoch: Epoch,
    /// When it began, if there was another before it.
    pub(super) epoch_since: Option<Timestamp>,
    /// The number of the group.
    pub(super) group: u64,
    /// The newest offset given out.
    pub(super) newest: Offset,
    /// How many records there are.
    pub(super) records: u64,
    /// Changes with every record that comes or goes.
    pub(super) fingerprint: u64,
    /// The sums of usage are as the record at this offset left them.
    pub(super) usage_up_to: Offset,
}

/// A number that tells one set of offsets from another by its sum.
pub(super) fn mixed(offset: Offset) -> u64 {
    // SplitMix64's finaliser.
    let mut mixed = offset.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Totals {
    /// Those of a new directory.
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            epoch_since: None,
            group: 0,
            newest: Offset(0),
            records: 0,
            fingerprint: 0,
            usage_up_to: Offset(0),
        }
    }

    /// Those that the directory states; none in a new one.
    pub(super) fn read(store: &Store) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = store.row(Tag::Directory, b"")? else {
            return Ok(None);
        };
        let row = proto::Directory::decode(bytes).map_err(Corrupt::from)?;
        Ok(Some(Self {
            epoch: Epoch::new(row.epoch),
            epoch_since: row.epoch_since.map(Timestamp::from_millis),
            group: row.group,
            newest: Offset(row.newest),
            records: row.records,
            fingerprint: row.fingerprint,
            usage_up_to: Offset(row.usage_up_to),
        }))
    }

    /// Writes them.
    pub(super) fn write(&self, batch: &mut Batch<'_>) {
        let row = proto::Directory {
            epoch: self.epoch.bits(),
            epoch_since: self.epoch_since.map(Timestamp::as_millis),
            group: self.group,
            newest: self.newest.0,
            records: self.records,
            fingerprint: self.fingerprint,
            usage_up_to: self.usage_up_to.0,
        };
        batch.put(Tag::Directory, b"", &row.encode_to_vec());
    }

    /// Counts a record in.
    pub(super) fn add(&mut self, offset: Offset) {
        self.records += 1;
        self.fingerprint = self.fingerprint.wrapping_add(mixed(offset));
    }

    /// Counts a record out.
    pub(super) fn remove(&mut self, offset: Offset) {
        self.records = self.records.saturating_sub(1);
        self.fingerprint = self.fingerprint.wrapping_sub(mixed(offset));
    }

    /// Why the directory begins a new epoch, if it does, where `found` is in it.
    pub(super) fn why_new(
        &self,
        found: &Found,
        witness: Option<Testimony>,
    ) -> Option<&'static str> {
        let missing = (!self.are_proved(found)).then_some("records are missing");
        self.unproved(witness).or(missing)
    }

    /// Why the `witness` does not prove that the last acknowledged group is there, if it does not.
    pub(super) fn unproved(&self, witness: Option<Testimony>) -> Option<&'static str> {
        match witness {
            None => Some("it does not say how its last process ended"),
            Some(told) if !told.holds => {
                Some("it was copied or restored, or the machine was started again")
            }
            Some(told) if told.group > self.group => {
                Some("groups are missing that were acknowledged")
            }
            Some(_) => None,
        }
    }

    /// Whether every record was `found` that the last group counted, and no other.
    pub(super) fn are_proved(&self, found: &Found) -> bool {
        let whole = (self.records, self.fingerprint) == (found.records, found.fingerprint);
        whole && found.holes.is_empty()
    }
}
