//! Looking into a directory, and giving one that was restored its new epoch.

use std::{path::Path, sync::Arc};

use super::{
    OpenError, format, group::SAFEST, open_store, recover, space, store::Store, witness::Witness,
};
use crate::{
    clock::{Clock, Entropy, Timestamp},
    engine::local::{self, Local},
    event::{Epoch, Offset},
    telemetry::Metrics,
};

/// What is in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The epoch of its streams.
    pub epoch: Epoch,
    /// When it began, if there was another before it.
    pub epoch_since: Option<Timestamp>,
    /// The newest offset.
    pub newest: Offset,
    /// Streams.
    pub streams: usize,
    /// Records that can be read.
    pub records: u64,
    /// Records that the directory should have.
    pub records_counted: u64,
    /// Open runs.
    pub open_runs: usize,
    /// Streams that end before their last records, because some between are missing.
    pub holes: usize,
    /// Bytes on disk.
    pub disk_space: u64,
    /// Why the next start begins a new epoch, if it does.
    pub new_epoch: Option<&'static str>,
}

/// Looks into `directory`, which no process may have open. What the store cannot read at its end, it cuts off.
///
/// # Errors
/// When it cannot be used, as a start would say.
pub fn inspect(directory: &Path, clock: &Clock) -> Result<Inspection, OpenError> {
    if !format::is_there(directory) {
        return Err(std::io::Error::from(std::io::ErrorKind::NotFound).into());
    }
    format::prepare(directory)?;
    let store = open_store(directory)?;
    let witness = Witness::read(directory);
    let Some(totals) = recover::Totals::read(&store)? else {
        return Err(recover::damaged("it says nothing of itself"));
    };
    let local = empty(clock, totals.epoch);
    let found = recover::take_in(&store, &local, &totals)?;
    Ok(Inspection {
        epoch: totals.epoch,
        epoch_since: totals.epoch_since,
        newest: totals.newest.max(found.newest),
        streams: found.streams.len(),
        records: found.records,
        records_counted: totals.records,
        open_runs: local.open_runs_in_all(),
        holes: found.holes.len(),
        disk_space: space::taken(directory),
        new_epoch: totals.why_new(&found, witness),
    })
}

/// Gives `directory` a new epoch, so that no reader takes what is in it for what it has read before.
///
/// # Errors
/// When it cannot be used, as a start would say.
pub fn renew_epoch(directory: &Path, clock: &Clock, entropy: &Entropy) -> Result<Epoch, OpenError> {
    let found = inspect(directory, clock)?;
    let store: Store = open_store(directory)?;
    let Some(totals) = recover::Totals::read(&store)? else {
        return Err(recover::damaged("it says nothing of itself"));
    };
    debug_assert_eq!(totals.epoch, found.epoch);
    let renewed = recover::Totals {
        epoch: Epoch::new(entropy.bits()),
        epoch_since: Some(clock.now()),
        group: totals.group + 1,
        ..totals
    };
    let mut batch = store.batch();
    renewed.write(&mut batch);
    batch.commit(SAFEST)?;
    // So that the next start takes it for whole, and begins no other.
    Witness::begin(directory, renewed.group)?.close(renewed.group)?;
    Ok(renewed.epoch)
}

fn empty(clock: &Clock, epoch: Epoch) -> Arc<Local> {
    let bounds = local::Config {
        total_bytes: usize::MAX,
        ..local::Config::default()
    };
    let metrics = Arc::new(Metrics::new().0);
    Local::new(bounds, clock.clone(), metrics, epoch, None, false)
}
