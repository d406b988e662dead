//! How many readers each user has, on whichever door they came in by.

use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
};

use metrics::Gauge;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    event::StreamKey,
    reason::{Reason, Refusal},
};

/// Counts the readers of each user.
pub(super) struct Readers {
    per_user: usize,
    /// No user stands with zero. The doors bound how many readers there can be in all.
    open: Mutex<HashMap<StreamKey, usize>>,
    total: watch::Sender<usize>,
}

impl Readers {
    pub(super) fn new(per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            per_user,
            open: Mutex::default(),
            total: watch::Sender::new(0),
        })
    }

    /// One more reader of `stream`, shown by `gauge`.
    ///
    /// # Errors
    /// `CONNECTION_LIMIT`.
    pub(super) fn enter(
        self: &Arc<Self>,
        stream: &StreamKey,
        gauge: &Gauge,
    ) -> Result<Reader, Refusal> {
        let mut open = self.open.lock();
        let of_user = open.get(stream).copied().unwrap_or(0);
        if of_user >= self.per_user {
            return Err(Refusal::new(
                Reason::ConnectionLimit,
                format!("the user has {of_user} readers already"),
            ));
        }
        open.insert(stream.clone(), of_user + 1);
        self.total.send_modify(|total| *total += 1);
        gauge.increment(1.0);
        Ok(Reader {
            readers: self.clone(),
            stream: stream.clone(),
            gauge: gauge.clone(),
        })
    }

    /// A stay that counts for no user, and that `gone` waits for all the same: that of a reader that has made room and
    /// is still to be told why.
    pub(super) fn parting(self: &Arc<Self>) -> Parting {
        self.total.send_modify(|total| *total += 1);
        Parting(self.clone())
    }

    /// Waits until there is no reader, and none that is still to be told why it goes.
    pub(super) async fn gone(&self) {
        let mut total = self.total.subscribe();
        let _sender_is_here = total.wait_for(|total| *total == 0).await;
    }
}

/// See [`Readers::parting`]. Dropping it ends the stay.
pub(super) struct Parting(Arc<Readers>);

impl Drop for Parting {
    fn drop(&mut self) {
        let total = &self.0.total;
        total.send_modify(|total| *total = total.saturating_sub(1));
    }
}

/// A counted reader; dropping it takes it out.
pub(super) struct Reader {
    readers: Arc<Readers>,
    stream: StreamKey,
    gauge: Gauge,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut open = self.readers.open.lock();
        if let hash_map::Entry::Occupied(mut of_user) = open.entry(self.stream.clone()) {
            *of_user.get_mut() = of_user.get().saturating_sub(1);
            if *of_user.get() == 0 {
                of_user.remove();
            }
        }
        self.readers
            .total
            .send_modify(|total| *total = total.saturating_sub(1));
        self.gauge.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::event::{Tenant, UserId};

    fn stream(user: &str) -> StreamKey {
        StreamKey::new(Tenant::new("t").unwrap(), UserId::new(user).unwrap())
    }

    #[tokio::test]
    async fn readers_are_bounded_per_user_and_leave_nothing_behind() {
        let readers = Readers::new(2);
        let gauge = Gauge::noop();
        let first = readers.enter(&stream("u"), &gauge).unwrap();
        let _second = readers.enter(&stream("u"), &gauge).unwrap();
        let refused = readers.enter(&stream("u"), &gauge).err().unwrap();
        assert_eq!(refused.reason, Reason::ConnectionLimit);
        let other = readers.enter(&stream("v"), &gauge).unwrap();
        drop(first);
        let third = readers.enter(&stream("u"), &gauge).unwrap();
        drop((_second, third, other));
        assert!(readers.open.lock().is_empty());
        readers.gone().await;
    }

    #[tokio::test]
    async fn who_is_parting_makes_room_but_is_not_gone() {
        let readers = Readers::new(1);
        let gauge = Gauge::noop();
        let parting = readers.parting();
        drop(readers.enter(&stream("u"), &gauge).unwrap());
        assert!(readers.enter(&stream("u"), &gauge).is_ok());
        assert!(readers.gone().now_or_never().is_none());
        drop(parting);
        readers.gone().await;
    }
}
