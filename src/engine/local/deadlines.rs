//! When the watchdog is to look at which run.

use std::collections::{BTreeSet, HashMap};

use crate::{
    clock::Timestamp,
    engine::Due,
    event::{RunId, StreamKey},
};

/// The open runs of one bucket, by when they are looked at next.
#[derive(Default)]
pub(in crate::engine) struct Deadlines {
    order: BTreeSet<(Timestamp, StreamKey, RunId)>,
    armed: HashMap<(StreamKey, RunId), Timestamp>,
}

impl Deadlines {
    /// About how many bytes a run takes here.
    pub(in crate::engine) const WEIGHT: usize = 3 * size_of::<(Timestamp, StreamKey, RunId)>();

    /// Looks at the run at `at`, whatever was said before. Whether it is new.
    pub(in crate::engine) fn arm(
        &mut self,
        stream: &StreamKey,
        run_id: &RunId,
        at: Timestamp,
    ) -> bool {
        let key = (stream.clone(), run_id.clone());
        let before = self.armed.insert(key, at);
        if let Some(before) = before {
            self.order.remove(&(before, stream.clone(), run_id.clone()));
        }
        self.order.insert((at, stream.clone(), run_id.clone()));
        before.is_none()
    }

    /// Looks at a known run at `at`, if it would be looked at later.
    pub(in crate::engine) fn lower(&mut self, stream: &StreamKey, run_id: &RunId, at: Timestamp) {
        let armed = self.armed.get(&(stream.clone(), run_id.clone()));
        if armed.is_some_and(|armed| *armed > at) {
            self.arm(stream, run_id, at);
        }
    }

    /// Does not look at the run any more. Whether it was known.
    pub(in crate::engine) fn disarm(&mut self, stream: &StreamKey, run_id: &RunId) -> bool {
        let key = (stream.clone(), run_id.clone());
        let Some(at) = self.armed.remove(&key) else {
            return false;
        };
        self.order.remove(&(at, key.0, key.1));
        if self.armed.capacity() > 64 && self.armed.len() < self.armed.capacity() / 4 {
            self.armed.shrink_to_fit();
        }
        true
    }

    /// At most `limit` runs that are to be looked at by `now`, the earliest first.
    pub(in crate::engine) fn due(&self, now: Timestamp, limit: usize) -> impl Iterator<Item = Due> {
        let due = self.order.iter().take_while(move |(at, ..)| *at <= now);
        due.take(limit).map(|(_, stream, run_id)| Due {
            stream: stream.clone(),
            run_id: run_id.clone(),
        })
    }

    /// When the first one is to be looked at.
    pub(in crate::engine) fn earliest(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, ..)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Tenant, UserId};

    #[test]
    fn runs_come_due_in_order_and_can_be_moved() {
        let at = Timestamp::from_millis;
        let user = StreamKey::new(Tenant::new("t").unwrap(), UserId::new("u").unwrap());
        let run = |id| RunId::new(id).unwrap();
        let mut deadlines = Deadlines::default();
        for (id, when) in [("a", 30), ("b", 10), ("c", 20)] {
            assert!(deadlines.arm(&user, &run(id), at(when)));
        }
        let due = |deadlines: &Deadlines, now| -> Vec<String> {
            let due = deadlines.due(at(now), 2);
            due.map(|due| due.run_id.as_str().to_owned()).collect()
        };
        assert_eq!(due(&deadlines, 9), Vec::<String>::new());
        assert_eq!(due(&deadlines, 40), ["b", "c"]);
        assert!(!deadlines.arm(&user, &run("b"), at(50)));
        deadlines.lower(&user, &run("a"), at(15));
        deadlines.lower(&user, &run("c"), at(25));
        assert_eq!(due(&deadlines, 40), ["a", "c"]);
        assert!(deadlines.disarm(&user, &run("a")));
        assert!(!deadlines.disarm(&user, &run("a")));
        deadlines.lower(&user, &run("a"), at(1));
        assert_eq!(deadlines.earliest(), Some(at(20)));
        assert_eq!((deadlines.armed.len(), deadlines.order.len()), (2, 2));
    }
}
