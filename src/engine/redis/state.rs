//! Reading what is known of one stream.

use redis::Value;

use super::{
    Inner, call,
    call::{Call, CallError},
    names,
};
use crate::{
    clock::Timestamp,
    engine::{DedupeEntry, EngineError, OpenRuns, Page, ReadLimit, StreamState, stored},
    event::{Epoch, EventId, Offset, Position, RunId, StreamKey},
    run::Run,
};

/// How many ids are read at once.
const IDS: usize = 10_000;

/// How often a bucket is given a new epoch before giving up: each time, its server's history changed in between.
const ADOPTIONS: usize = 4;

impl Inner {
    /// A call of a function on a bucket.
    pub(super) fn call(&self, function: &str, bucket: usize) -> Call {
        Call::new(function, self.names.bucket(bucket))
    }

    /// Calls `call`, a function on `bucket`, and returns what comes after its `ok`. A bucket that has no epoch of its
    /// server's history gets one first.
    pub(super) async fn ask(
        &self,
        bucket: usize,
        call: &Call,
    ) -> Result<std::vec::IntoIter<Value>, CallError> {
        for _ in 0..ADOPTIONS {
            let answer = call.on(&self.shards).await;
            let mut answer = answer.map_err(|error| self.count(error))?.into_iter();
            match call::text(call::next(&mut answer)?)?.as_str() {
                "ok" => return Ok(answer),
                "stale" => self.adopt(bucket).await?,
                _ => return Err(call::odd("an outcome")),
            }
        }
        Err(CallError::Refused(
            "the bucket's epoch keeps changing".into(),
        ))
    }

    /// Gives a bucket a new epoch, if its own is not of its server's history.
    pub(super) async fn adopt(&self, bucket: usize) -> Result<(), CallError> {
        let epoch = Epoch::new(self.entropy.bits());
        let mut call = self.call("adopt", bucket);
        call.arg(epoch.to_string())
            .arg(self.clock.now().as_millis())
            // A bucket that was known and is empty now has lost everything.
            .arg(if self.known(bucket).is_some() {
                "lost"
            } else {
                ""
            });
        let mut answer = call.on(&self.shards).await?.into_iter();
        let _ok = call::next(&mut answer)?;
        if call::text(call::next(&mut answer)?)? == "new" && self.known(bucket).is_some() {
            tracing::warn!(bucket, %epoch, "Redis has another history now: the bucket's streams begin a new epoch");
            self.note_known(bucket, epoch);
        }
        Ok(())
    }

    /// Since when the bucket's `epoch` is, of which the store says `since`. Where another node has begun it, which did
    /// not know that there was one before, this one may.
    async fn since(&self, bucket: usize, epoch: Epoch, since: String) -> Result<String, CallError> {
        let known = self.known(bucket);
        let since = match known {
            Some(known) if known != epoch && since.is_empty() => {
                let mut call = self.call("lost", bucket);
                call.arg(self.clock.now().as_millis());
                let mut answer = self.ask(bucket, &call).await?;
                call::text(call::next(&mut answer)?)?
            }
            _ => since,
        };
        self.note_known(bucket, epoch);
        Ok(since)
    }

    pub(super) async fn load(&self, stream: &StreamKey) -> Result<StreamState, CallError> {
        let mut call = self.call("load", stream.bucket());
        call.arg(names::sid(stream)).arg(IDS);
        let mut answer = self.ask(stream.bucket(), &call).await?;
        let head = call::position(call::next(&mut answer)?, call::next(&mut answer)?)?;
        let since = call::text(call::next(&mut answer)?)?;
        let mut runs = runs_of(call::next(&mut answer)?)?;
        runs.extend(runs_of(call::next(&mut answer)?)?);
        let mut ids = Vec::new();
        let mut page = call::array(call::next(&mut answer)?)?;
        loop {
            let full = page.len() == IDS;
            for item in page {
                ids.push(id_of(head, item)?);
            }
            let Some((_, last)) = ids.last().filter(|_| full) else {
                break;
            };
            // What comes after the head is not of this state.
            page = self.ids(stream, last.position.offset, head.offset).await?;
        }
        let since = self.since(stream.bucket(), head.epoch, since).await?;
        let mut state = StreamState::restored(head, runs, ids);
        state.epoch_since = since.parse().ok().map(Timestamp::from_millis);
        Ok(state)
    }

    async fn ids(
        &self,
        stream: &StreamKey,
        after: Offset,
        upto: Offset,
    ) -> Result<Vec<Value>, CallError> {
        let key = self.names.of('q', stream);
        let mut range = redis::cmd("XRANGE");
        range
            .arg(&key)
            .arg(after.0 + 1)
            .arg(upto.0)
            .arg("COUNT")
            .arg(IDS);
        call::array(self.shards.run(&key, &range).await?)
    }

    pub(super) async fn run(
        &self,
        stream: &StreamKey,
        run_id: &RunId,
    ) -> Result<Option<Run>, CallError> {
        for kind in ['o', 'x'] {
            let key = self.names.of(kind, stream);
            let mut get = redis::cmd("HGET");
            get.arg(&key).arg(run_id.as_str());
            match self.shards.run(&key, &get).await? {
                Value::Nil => {}
                row => return Ok(Some(stored::decode_run(call::bytes(row)?)?)),
            }
        }
        Ok(None)
    }

    pub(super) async fn open_runs(&self, stream: &StreamKey) -> Result<OpenRuns, EngineError> {
        let mut call = self.call("open_runs", stream.bucket());
        call.arg(names::sid(stream));
        let mut answer = self.ask(stream.bucket(), &call).await?;
        let head = call::position(call::next(&mut answer)?, call::next(&mut answer)?)?;
        let runs = runs_of(call::next(&mut answer)?)?;
        Ok(OpenRuns { head, runs })
    }

    pub(super) async fn read(
        &self,
        stream: &StreamKey,
        after: Offset,
        limit: ReadLimit,
    ) -> Result<Page, EngineError> {
        const MOST: usize = 1 << 50; // the functions count exactly up to there
        let mut call = self.call("read", stream.bucket());
        call.arg(names::sid(stream))
            .arg(after.0)
            .arg(limit.records.clamp(1, MOST))
            .arg(limit.bytes.min(MOST));
        let mut answer = self.ask(stream.bucket(), &call).await?;
        let head = call::position(call::next(&mut answer)?, call::next(&mut answer)?)?;
        let trimmed = Offset(call::number(call::next(&mut answer)?)?);
        let first = call::number(call::next(&mut answer)?)?;
        let before = Position::new(head.epoch, Offset(first.saturating_sub(1)));
        let records = call::array(call::next(&mut answer)?)?;
        Ok(Page {
            records: self.records(stream, before, records)?,
            head,
            trimmed,
        })
    }

    pub(super) async fn look_again(
        &self,
        stream: &StreamKey,
        head: Position,
        runs: &[(RunId, Timestamp)],
    ) -> Result<(), EngineError> {
        let sid = names::sid(stream);
        let mut call = self.call("look_again", stream.bucket());
        call.arg(&sid)
            .arg(head.epoch.to_string())
            .arg(head.offset.0);
        for (run_id, at) in runs {
            call.arg(run_id.as_str())
                .arg(names::member(&sid, run_id))
                .arg(at.as_millis());
            self.due.lower(stream.bucket(), *at);
        }
        self.ask(stream.bucket(), &call).await?;
        Ok(())
    }
}

/// The runs of a hash: ids and rows in turn.
pub(super) fn runs_of(hash: Value) -> Result<Vec<(RunId, Run)>, CallError> {
    let mut items = call::array(hash)?.into_iter();
    let mut runs = Vec::with_capacity(items.len() / 2);
    while let (Some(run_id), Some(row)) = (items.next(), items.next()) {
        let run_id = RunId::new(&call::text(run_id)?).map_err(|_| call::odd("no run id"))?;
        runs.push((run_id, stored::decode_run(call::bytes(row)?)?));
    }
    Ok(runs)
}

/// What is remembered of an id: an entry `offset-0` with the fields `a` and `i`.
fn id_of(head: Position, entry: Value) -> Result<(EventId, DedupeEntry), CallError> {
    let mut entry = call::array(entry)?.into_iter();
    let name = call::text(call::next(&mut entry)?)?;
    let offset = name
        .split('-')
        .next()
        .and_then(|offset| offset.parse().ok());
    let offset = offset.ok_or_else(|| call::odd("no offset"))?;
    let mut fields = call::array(call::next(&mut entry)?)?.into_iter().skip(3);
    let position = Position::new(head.epoch, Offset(offset));
    let id = call::bytes(call::next(&mut fields)?)?;
    Ok(stored::decode_id(position, id)?)
}
