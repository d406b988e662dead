//! What an operator has to mend at Redis, as `/readyz` shows it.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::telemetry::LogLimit;

/// How many problems of calls are shown; further ones are only logged.
const MOST: usize = 16;

/// How long a problem is shown after a call last met it.
const SHOWN: Duration = Duration::from_secs(60);

/// Problems that are known at this moment.
#[derive(Default)]
pub(super) struct Problems {
    /// By their text, with the last time that each was met.
    met: Mutex<BTreeMap<String, Instant>>,
    /// Why each link is not connected, by what it leads to.
    unreached: Mutex<BTreeMap<String, String>>,
}

impl Problems {
    /// A call met this problem, such as a key that another program has written.
    pub(super) fn note(&self, problem: &str) {
        static LOGGED: LogLimit = LogLimit::new();
        if let Some(left_out) = LOGGED.admit() {
            tracing::error!(
                problem,
                left_out,
                "Redis refuses a call until this is mended"
            );
        }
        let mut met = self.met.lock();
        met.retain(|_, at| at.elapsed() < SHOWN);
        if met.len() < MOST || met.contains_key(problem) {
            met.insert(problem.to_owned(), Instant::now());
        }
    }

    /// The link `to` cannot connect, for this reason.
    pub(super) fn note_unreached(&self, to: &str, why: String) {
        let mut unreached = self.unreached.lock();
        if unreached.len() < MOST || unreached.contains_key(to) {
            unreached.insert(to.to_owned(), why);
        }
    }

    /// The link `to` is connected, or not needed any more.
    pub(super) fn note_reached(&self, to: &str) {
        self.unreached.lock().remove(to);
    }

    /// All of them, each once.
    pub(super) fn all(&self) -> Vec<String> {
        let mut all: Vec<String> = self.unreached.lock().values().cloned().collect();
        let mut met = self.met.lock();
        met.retain(|_, at| at.elapsed() < SHOWN);
        all.extend(met.keys().cloned());
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn problems_are_bounded_and_end() {
        let problems = Problems::default();
        for n in 0..100 {
            problems.note(&format!("key {n:02}"));
            problems.note_unreached(&format!("server {n:02}"), "it wants a password".into());
        }
        let all = problems.all();
        assert_eq!(all.len(), MOST + 1, "{all:?}");
        for n in 0..100 {
            problems.note_reached(&format!("server {n:02}"));
        }
        assert_eq!(problems.all().len(), MOST);
        tokio::time::advance(SHOWN / 2).await;
        problems.note("key 03");
        tokio::time::advance(SHOWN / 2).await;
        assert_eq!(problems.all(), ["key 03"]);
    }
}
