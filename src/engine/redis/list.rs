//! Runs of all streams in one order.

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;

use super::{Inner, call, call::CallError, names, state::runs_of};
use crate::{
    engine::{KnownRun, RunList, RunQuery},
    event::{BUCKETS, RunId, StreamKey},
    run::Run,
};

/// How many buckets are looked into at once; of each, one page of one stream is held.
const BUCKETS_AT_ONCE: usize = 16;

/// How many runs, and how many streams, a page has, about.
const PAGE: usize = 200;

impl Inner {
    /// The first runs that answer `query`.
    pub(super) async fn list(&self, query: &RunQuery) -> Result<Vec<KnownRun>, CallError> {
        let mut list = RunList::new(query);
        if let Some(only) = query.stream() {
            for kind in ['o', 'x'] {
                let mut cursor = Some(0);
                while let Some(from) = cursor {
                    let (next, runs) = self.page_of_runs(kind, &only, from).await?;
                    offer(&mut list, &only, &runs);
                    cursor = next;
                }
            }
            return Ok(list.into_runs());
        }
        let buckets = stream::iter(0..BUCKETS).map(|bucket| self.list_bucket(bucket, query));
        let mut buckets = buckets.buffer_unordered(BUCKETS_AT_ONCE);
        while let Some(runs) = buckets.try_next().await? {
            for known in runs {
                list.offer(&known.stream, &known.run_id, &known.run);
            }
        }
        Ok(list.into_runs())
    }

    /// The first runs of one bucket that answer `query`.
    async fn list_bucket(
        &self,
        bucket: usize,
        query: &RunQuery,
    ) -> Result<Vec<KnownRun>, CallError> {
        let mut list = RunList::new(query);
        let mut streams = Some(0);
        while let Some(from) = streams {
            let index = self.names.streams(bucket);
            let (next, members) = self.scan("ZSCAN", &index, from).await?;
            streams = next;
            // Members and scores in turn.
            for sid in call::array(members)?.into_iter().step_by(2) {
                let sid = call::text(sid)?;
                let Some(stream) = names::stream_of(&sid).filter(|key| query.admits_stream(key))
                else {
                    continue;
                };
                // Open ones first: a run that ends meanwhile is among those that have ended.
                for kind in ['o', 'x'] {
                    let mut cursor = Some(0);
                    while let Some(from) = cursor {
                        let (next, runs) = self.page_of_runs(kind, &stream, from).await?;
                        offer(&mut list, &stream, &runs);
                        cursor = next;
                    }
                }
            }
        }
        Ok(list.into_runs())
    }

    async fn page_of_runs(
        &self,
        kind: char,
        stream: &StreamKey,
        from: u64,
    ) -> Result<(Option<u64>, Vec<(RunId, Run)>), CallError> {
        let key = self.names.of(kind, stream);
        let (next, runs) = self.scan("HSCAN", &key, from).await?;
        Ok((next, runs_of(runs)?))
    }

    /// A page of what is under `key`, and where the next one begins.
    async fn scan(
        &self,
        command: &str,
        key: &str,
        from: u64,
    ) -> Result<(Option<u64>, Value), CallError> {
        let mut scan = redis::cmd(command);
        scan.arg(key).arg(from).arg("COUNT").arg(PAGE);
        let mut answer = call::array(self.shards.run(key, &scan).await?)?.into_iter();
        let next = call::number(call::next(&mut answer)?)?;
        let page = call::next(&mut answer)?;
        Ok(((next != 0).then_some(next), page))
    }
}

fn offer(list: &mut RunList<'_>, stream: &StreamKey, runs: &[(RunId, Run)]) {
    for (run_id, run) in runs {
        list.offer(stream, run_id, run);
    }
}
