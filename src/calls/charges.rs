//! Counts what unfinished bodies hold, by credential and in all.

use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
};

use metrics::Gauge;
use parking_lot::Mutex;

use super::NotArrived;
use crate::event::StreamKey;

/// The bytes of unfinished bodies.
pub(super) struct Charges {
    most: usize,
    most_of_one: usize,
    held: Mutex<Held>,
    gauge: Gauge,
}

/// No payer stands with zero bytes, so the map is no larger than `total`.
#[derive(Default)]
struct Held {
    total: usize,
    by_payer: HashMap<StreamKey, usize>,
}

/// What one body holds. Dropping it gives the bytes back.
pub(super) struct Charge {
    charges: Arc<Charges>,
    /// The tenant and the subject of the credential: a new token of the same subject pays together with the old one.
    payer: StreamKey,
    bytes: usize,
}

impl Charges {
    /// At most `most` bytes in all, and `most_of_one` of one payer.
    pub(super) fn new(most: usize, most_of_one: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_one,
            held: Mutex::default(),
            gauge,
        })
    }

    /// A charge of nothing yet.
    pub(super) fn of(self: &Arc<Self>, payer: StreamKey) -> Charge {
        Charge {
            charges: self.clone(),
            payer,
            bytes: 0,
        }
    }
}

impl Charge {
    /// Raises the charge to `bytes`.
    ///
    /// # Errors
    /// `NoRoom`; the charge stays as it was.
    pub(super) fn raise_to(&mut self, bytes: usize) -> Result<(), NotArrived> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let mut held = self.charges.held.lock();
        let of_payer = held.by_payer.get(&self.payer).copied().unwrap_or(0);
        if of_payer + more > self.charges.most_of_one {
            return Err(NotArrived::NoRoom("this credential"));
        }
        if held.total + more > self.charges.most {
            return Err(NotArrived::NoRoom("all credentials"));
        }
        held.total += more;
        held.by_payer.insert(self.payer.clone(), of_payer + more);
        self.bytes = bytes;
        self.charges.gauge.increment(more as f64);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.charges.held.lock();
        held.total = held.total.saturating_sub(self.bytes);
        if let hash_map::Entry::Occupied(mut of_payer) = held.by_payer.entry(self.payer.clone()) {
            *of_payer.get_mut() = of_payer.get().saturating_sub(self.bytes);
            if *of_payer.get() == 0 {
                of_payer.remove();
            }
        }
        self.charges.gauge.decrement(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Tenant, UserId};

    #[test]
    fn one_payer_cannot_take_what_is_left_for_others() {
        let charges = Charges::new(100, 60, Gauge::noop());
        let of = |user| {
            let tenant = Tenant::new("t").unwrap();
            charges.of(StreamKey::new(tenant, UserId::new(user).unwrap()))
        };
        let (mut first, mut second, mut other) = (of("a"), of("a"), of("b"));
        assert_eq!(first.raise_to(40), Ok(()));
        assert_eq!(first.raise_to(40), Ok(()));
        let refused = Err(NotArrived::NoRoom("this credential"));
        assert_eq!(second.raise_to(21), refused);
        assert_eq!(second.raise_to(20), Ok(()));
        assert_eq!(other.raise_to(40), Ok(()));
        let refused = Err(NotArrived::NoRoom("all credentials"));
        assert_eq!(other.raise_to(41), refused);
        drop((first, second));
        assert_eq!(other.raise_to(60), Ok(()));
        drop(other);
        let held = charges.held.lock();
        assert_eq!((held.total, held.by_payer.len()), (0, 0));
    }
}
