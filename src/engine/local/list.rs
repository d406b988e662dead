//! Runs of all streams in one order.

use super::{Local, stream::Stream};
use crate::{
    engine::{KnownRun, RunList, RunQuery},
    event::StreamKey,
};

impl Local {
    /// The first runs that answer `query`. One bucket is held at a time, and nothing of it but what the list takes.
    pub(in crate::engine) async fn list(&self, query: &RunQuery) -> Vec<KnownRun> {
        let mut list = RunList::new(query);
        if let Some(only) = query.stream() {
            if let Some(stream) = self.bucket(&only).lock().streams.get(&only) {
                offer(&only, stream, &mut list);
            }
            return list.into_runs();
        }
        for bucket in &self.buckets {
            for (key, stream) in &bucket.lock().streams {
                if query.admits_stream(key) {
                    offer(key, stream, &mut list);
                }
            }
            // A look at everything at once would hold up a single-threaded runtime.
            tokio::task::consume_budget().await;
        }
        list.into_runs()
    }
}

fn offer(key: &StreamKey, stream: &Stream, list: &mut RunList<'_>) {
    for (run_id, run) in stream.state.runs() {
        list.offer(key, run_id, run);
    }
}
