//! What goes wrong by chance.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use emitter::{
    engine::{Commit, Watcher},
    event::{Position, Record},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// How often things go wrong, from 0 to 1.
#[derive(Clone, Copy, Default)]
pub(crate) struct Odds {
    /// An append has a fault.
    pub(crate) append: f64,
    /// Another call is answered with `Unavailable`.
    pub(crate) call: f64,
    /// A call takes some milliseconds.
    pub(crate) delay: f64,
    /// A watcher does not hear of an append.
    pub(crate) lost_hint: f64,
}

/// What becomes of an append.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing out of the ordinary.
    None,
    /// A conflict is told that was none.
    Conflict,
    /// The stream must be loaded again.
    Reload,
    /// Nothing is stored.
    Unavailable,
    /// Nothing is stored.
    Full,
    /// Nothing is stored, but nobody says so.
    UnknownBefore,
    /// All is stored, but nobody says so.
    UnknownAfter,
    /// Nobody says whether anything is stored; so much later all is, if it still can be.
    Late(Duration),
    /// Another writer comes first.
    Rival(Commit),
    /// The engine has a bug.
    Panic,
}

/// What goes wrong by chance, from a seed.
pub(super) struct Chance {
    rng: Mutex<StdRng>,
    odds: Mutex<Odds>,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            odds: Mutex::default(),
        })
    }

    pub(super) fn set_odds(&self, odds: Odds) {
        *self.odds.lock().unwrap() = odds;
    }

    pub(super) fn odds(&self) -> Odds {
        *self.odds.lock().unwrap()
    }

    pub(super) fn happens(&self, odds: f64) -> bool {
        odds > 0.0 && self.rng.lock().unwrap().random_bool(odds)
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.rng.lock().unwrap().random_range(0..bound)
    }

    /// What becomes of the next append.
    pub(super) fn fault(&self) -> Fault {
        if !self.happens(self.odds().append) {
            return Fault::None;
        }
        match self.below(7) {
            0 => Fault::Conflict,
            1 => Fault::Reload,
            2 => Fault::Unavailable,
            3 => Fault::Full,
            4 => Fault::UnknownBefore,
            5 => Fault::Late(Duration::from_millis(self.below(2_000))),
            _ => Fault::UnknownAfter,
        }
    }
}

/// Does not pass every hint on.
pub(super) struct Forgetful {
    chance: Arc<Chance>,
    watcher: Arc<dyn Watcher>,
}

impl Forgetful {
    pub(super) fn new(chance: Arc<Chance>, watcher: Arc<dyn Watcher>) -> Arc<Self> {
        Arc::new(Self { chance, watcher })
    }
}

impl Watcher for Forgetful {
    fn stands_at(&self, head: Position) {
        self.watcher.stands_at(head);
    }

    fn appended(&self, records: &[Arc<Record>]) {
        if !self.chance.happens(self.chance.odds().lost_hint) {
            self.watcher.appended(records);
        }
    }
}
