//! Ends runs that were silent for too long.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream};

use super::Sequencer;
use crate::event::{BUCKETS, RunId, StreamKey};

/// How many runs are looked at between two questions to the engine.
const PAGE: usize = 4_096;

/// How many pages one sweep looks at; the rest has a second to wait.
const PAGES: usize = 64;

/// How many users' runs are looked at at once.
const USERS: usize = 64;

impl Sequencer {
    /// Looks at the runs whose deadline has come, and ends those that were silent for too long, each by an ordinary
    /// append in its user's order. Called about once a second; returns how many runs it looked at.
    pub async fn sweep(self: &Arc<Self>) -> usize {
        let mut looked_at = 0;
        for _ in 0..PAGES {
            let now = self.clock.now();
            let due = match self.engine.due(0..BUCKETS, now, PAGE).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::debug!(%error, "the watchdog cannot see");
                    self.outages.lock().failed(now);
                    return looked_at;
                }
            };
            let last = due.len() < PAGE;
            looked_at += due.len();
            let mut by_user: HashMap<StreamKey, Vec<RunId>> = HashMap::new();
            for due in due {
                by_user.entry(due.stream).or_default().push(due.run_id);
            }
            let looks = stream::iter(by_user).map(|(stream, runs)| {
                // Nobody waits for an answer: a run that could not be ended stays due.
                let looked = self.enqueue_new(stream, Vec::new(), runs, None);
                async { looked.await.is_ok() }
            });
            let looked = looks.buffer_unordered(USERS);
            // One user who cannot be helped keeps nobody else of the page from being looked at.
            let all = looked.fold(true, async |all, looked| all && looked).await;
            if last || !all {
                break;
            }
        }
        looked_at
    }
}
