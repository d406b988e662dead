//! A gate that wakes those who wait in the order in which they came, so that simulations replay.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Gate {
    shut: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub(crate) fn shut() -> Self {
        let gate = Self::default();
        gate.set_shut(true);
        gate
    }

    pub(crate) fn set_shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::Release);
        if !shut {
            self.opened.notify_waiters();
        }
    }

    /// Waits until it is open.
    pub(crate) async fn pass(&self) {
        loop {
            // Made before looking, so that what comes after the look wakes it.
            let opened = self.opened.notified();
            if !self.shut.load(Ordering::Acquire) {
                return;
            }
            opened.await;
        }
    }
}

/// Counts one that waits.
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
