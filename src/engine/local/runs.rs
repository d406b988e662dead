//! Open runs, and when the watchdog is to look at them.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Bucket, Effects, Local, deadlines::Deadlines};
use crate::{
    clock::Timestamp,
    engine::{Due, OpenRuns},
    event::{Position, RunId, StreamKey},
    run::{self, Book},
};

impl Local {
    /// Arms the deadlines of runs that opened, disarms those of runs that ended, and lowers those that an event may
    /// have brought nearer.
    pub(in crate::engine) fn watch_over(
        &self,
        bucket: &mut Bucket,
        key: &StreamKey,
        effects: &Effects,
    ) {
        let Bucket {
            streams, deadlines, ..
        } = bucket;
        let Some(stream) = streams.get(key).filter(|_| !effects.is_empty()) else {
            return;
        };
        for (run_id, effect) in effects {
            let Some(run) = stream.state.run(run_id) else {
                continue;
            };
            if effect.ended && deadlines.disarm(key, run_id) {
                self.open_runs.fetch_sub(1, Ordering::Relaxed);
                self.grow(0, Deadlines::WEIGHT);
            }
            if effect.opened
                && run.state.is_open()
                && deadlines.arm(key, run_id, run.own_deadline())
            {
                self.open_runs.fetch_add(1, Ordering::Relaxed);
                self.grow(Deadlines::WEIGHT, 0);
            }
            if effect.sooner {
                deadlines.lower(key, run_id, run.own_deadline());
            }
            if effect.ended || effect.sooner {
                for above in run::open_ancestors(&stream.state, run_id) {
                    if let Some(run) = stream.state.run(&above) {
                        deadlines.lower(key, &above, run.own_deadline());
                    }
                }
            }
        }
        self.note_earliest(key.bucket(), deadlines);
    }

    pub(in crate::engine) fn note_earliest(&self, bucket: usize, deadlines: &Deadlines) {
        let at = deadlines.earliest().map_or(u64::MAX, Timestamp::as_millis);
        self.earliest[bucket].store(at, Ordering::Release);
    }

    pub(in crate::engine) fn open_runs(&self, stream: &StreamKey) -> OpenRuns {
        let bucket = self.bucket(stream).lock();
        let Some(stream) = bucket.streams.get(stream) else {
            return OpenRuns {
                head: self.absent_head(),
                runs: Vec::new(),
            };
        };
        let open = stream.state.runs().filter(|(_, run)| run.state.is_open());
        OpenRuns {
            head: stream.state.head,
            runs: open.map(|(id, run)| (id.clone(), run.clone())).collect(),
        }
    }

    pub(in crate::engine) fn due(
        &self,
        buckets: Range<usize>,
        now: Timestamp,
        limit: usize,
    ) -> Vec<Due> {
        let mut due = Vec::new();
        for bucket in buckets {
            let earliest = self.earliest.get(bucket);
            let is_due = |at: &AtomicU64| at.load(Ordering::Acquire) <= now.as_millis();
            if due.len() < limit && earliest.is_some_and(is_due) {
                let room = limit - due.len();
                due.extend(self.buckets[bucket].lock().deadlines.due(now, room));
            }
        }
        due
    }

    pub(in crate::engine) fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) {
        let mut bucket = self.bucket(stream).lock();
        let Bucket {
            streams, deadlines, ..
        } = &mut *bucket;
        let Some(known) = streams.get(stream) else {
            return;
        };
        if known.state.head == head {
            for (run_id, at) in runs {
                if known
                    .state
                    .run(run_id)
                    .is_some_and(|run| run.state.is_open())
                {
                    deadlines.arm(stream, run_id, *at);
                }
            }
            self.note_earliest(stream.bucket(), deadlines);
        }
    }
}
