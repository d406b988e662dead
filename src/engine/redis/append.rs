//! Storing a commit: all that follows from it is worked out here and stored by one call.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use redis::Value;

use super::{
    Inner, call,
    call::{Call, CallError},
    changes::{Changes, Deadline},
    names,
};
use crate::{
    clock::Timestamp,
    engine::{
        AppendError, Appended, Commit, DedupeEntry, StreamState,
        state::{ENDED_RUNS, ENDED_RUNS_SLACK},
        stored,
    },
    event::{Offset, Position, Record, StreamKey, UsageTotals},
    usage::{Day, Model, Series},
};

/// The most bytes of records that a hint carries; beyond that it only names the head.
const HINT_BYTES: usize = 64 << 10;

/// How many parts `usage_series` is shared out in: more room than an even share, since users are not even.
const SERIES_SHARE: usize = 64;

impl Inner {
    pub(super) async fn append(
        &self,
        stream: &StreamKey,
        decided_on: &StreamState,
        commit: Commit,
    ) -> Result<Appended, AppendError> {
        self.await_clock().await?;
        let records = placed(decided_on.head, commit);
        let mut changes = Changes::new(decided_on);
        for record in &records {
            changes.record(record);
        }
        let deadlines = changes.deadlines();
        let call = self.append_call(stream, decided_on.head, &records, &changes, &deadlines);
        let answer = self.send_append(&call).await;
        let mut answer = answer.map_err(|error| self.count(error))?.into_iter();
        let outcome = call::text(call::next(&mut answer)?)?;
        self.note_replicas(outcome != "replicas");
        match outcome.as_str() {
            "ok" => {
                self.note_counts(&mut answer)?;
                for deadline in &deadlines {
                    if let Deadline::Arm(_, at) | Deadline::Lower(_, at) = deadline {
                        self.due.lower(stream.bucket(), *at);
                    }
                }
                Ok(Appended { records })
            }
            "conflict" => {
                let missed = self.records(stream, decided_on.head, answer);
                Err(missed.map_or_else(AppendError::from, AppendError::Conflict))
            }
            "reload" => Err(AppendError::Reload),
            "stale" => {
                self.adopt(stream.bucket()).await?;
                Err(AppendError::Reload)
            }
            "replicas" => Err(AppendError::Unavailable("too few replicas".into())),
            _ => Err(call::odd("an outcome").into()),
        }
    }

    /// Waits until the replicas that an append waits for have what `stream` holds.
    pub(super) async fn confirm(
        &self,
        stream: &StreamKey,
        head: Position,
    ) -> Result<(), CallError> {
        if self.config.wait_replicas == 0 {
            return Ok(());
        }
        let mut call = self.call("confirm", stream.bucket());
        call.arg(head.epoch.to_string());
        let answer = self.send_append(&call).await;
        let mut answer = answer.map_err(|error| self.count(error))?.into_iter();
        match call::text(call::next(&mut answer)?)?.as_str() {
            "ok" => Ok(()),
            _ => Err(CallError::Refused("the epoch has changed".into())),
        }
    }

    /// Sends the call; with `wait_replicas`, waits for them.
    async fn send_append(&self, call: &Call) -> Result<Vec<Value>, CallError> {
        let config = &self.config;
        if config.wait_replicas == 0 {
            return call.on(&self.shards).await;
        }
        let wait = config.wait_timeout.as_millis();
        let needed = config.wait_replicas;
        let (answer, have) = call.on_and_wait(&self.shards, needed, wait).await?;
        let stored = matches!(answer.first(), Some(Value::BulkString(outcome)) if outcome == b"ok");
        if stored && have < needed {
            let why = format!("{have} of {needed} replicas have it");
            return Err(CallError::Unknown(why));
        }
        Ok(answer)
    }

    fn append_call(
        &self,
        stream: &StreamKey,
        head: Position,
        records: &[Arc<Record>],
        changes: &Changes<'_>,
        deadlines: &[Deadline],
    ) -> Call {
        let (config, bounds) = (&self.config, &self.config.bounds);
        let (now, aged) = (self.clock.now(), self.clock.age_now());
        let sid = names::sid(stream);
        let mut call = self.call("append", stream.bucket());
        call.arg(&sid)
            .arg(head.epoch.to_string())
            .arg(head.offset.0)
            .arg(config.min_replicas)
            .arg(now.as_millis())
            .arg(bounds.retention_records)
            .arg(bounds.retention_bytes)
            .arg(before(aged, bounds.retention_age))
            .arg(bounds.dedupe_ids_per_user)
            .arg(before(aged, bounds.dedupe_window))
            .arg(self.look_at(now).as_millis())
            .arg(ENDED_RUNS + ENDED_RUNS_SLACK)
            .arg(ENDED_RUNS)
            .arg(bounds.usage_series.div_ceil(SERIES_SHARE))
            .arg(&hint_head(records)[..])
            .arg(HINT_BYTES);
        add_usage(&mut call, stream, records);
        call.arg(records.len());
        for record in records {
            let event_id = &record.draft.event.event_id;
            call.arg(&stored::encode_record(record)[..])
                .arg(record.draft.weight())
                .arg(record.draft.recorded_at.as_millis())
                .arg(&stored::encode_id(event_id, &DedupeEntry::of(record))[..]);
        }
        let rows = changes.rows();
        call.arg(rows.len());
        for (row, run_id, run) in rows {
            call.arg(row.name())
                .arg(run_id.as_str())
                .arg(run.last_event_at.as_millis())
                .arg(&stored::encode_run(run)[..]);
        }
        call.arg(deadlines.len());
        for deadline in deadlines {
            let (what, run_id, at) = match deadline {
                Deadline::Arm(run_id, at) => ("arm", run_id, *at),
                Deadline::Lower(run_id, at) => ("lower", run_id, *at),
                Deadline::Disarm(run_id) => ("disarm", run_id, Timestamp::default()),
            };
            call.arg(what)
                .arg(names::member(&sid, run_id))
                .arg(at.as_millis());
        }
        call
    }

    /// When a sweep is to look at a stream that was appended to `now`.
    fn look_at(&self, now: Timestamp) -> Timestamp {
        let bounds = &self.config.bounds;
        now + bounds
            .retention_age
            .min(bounds.dedupe_window)
            .min(bounds.run_memory)
    }

    /// Whether enough replicas are connected, or nothing is known of it.
    fn note_replicas(&self, enough: bool) {
        let lacked = self.lacks_replicas.swap(!enough, Ordering::Relaxed);
        if !enough && !lacked {
            tracing::error!("too few replicas of Redis are connected: emits are refused");
        }
    }

    fn note_counts(&self, answer: &mut impl Iterator<Item = Value>) -> Result<(), CallError> {
        let metrics = &self.metrics;
        for counter in [
            &metrics.trimmed,
            &metrics.dedupe_evicted,
            &metrics.runs_forgotten_early,
            &metrics.usage_folded,
        ] {
            counter.increment(call::number(call::next(answer)?)?);
        }
        Ok(())
    }

    /// The records that `items` are, the first of which stands after `after`.
    pub(super) fn records(
        &self,
        stream: &StreamKey,
        after: Position,
        items: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Arc<Record>>, CallError> {
        let first = after.offset.0 + 1;
        let places = (first..).map(|offset| Position::new(after.epoch, Offset(offset)));
        let record = |(item, place)| {
            let record = stored::decode_record(stream, place, call::bytes(item)?)?;
            Ok(Arc::new(record))
        };
        items.into_iter().zip(places).map(record).collect()
    }
}

/// The moment `age` before `now`.
fn before(now: Timestamp, age: Duration) -> u64 {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    now.as_millis().saturating_sub(age)
}

/// The records that the drafts become if they are stored at `head`. Offsets of one stream are dense.
fn placed(head: Position, commit: Commit) -> Vec<Arc<Record>> {
    let drafts = (head.offset.0..).zip(commit.drafts);
    let record = |(prev, draft)| {
        Arc::new(Record {
            position: Position::new(head.epoch, Offset(prev + 1)),
            prev: Offset(prev),
            draft,
        })
    };
    drafts.map(record).collect()
}

/// What a hint begins with: the epoch, and the first and the last offset.
fn hint_head(records: &[Arc<Record>]) -> Bytes {
    let mut head = BytesMut::with_capacity(40);
    let ends = records.first().zip(records.last());
    if let Some((first, last)) = ends {
        head.put_slice(first.position.epoch.to_string().as_bytes());
        head.put_u64(first.position.offset.0);
        head.put_u64(last.position.offset.0);
    }
    head.freeze()
}

fn add_usage(call: &mut Call, stream: &StreamKey, records: &[Arc<Record>]) {
    let mut sums: BTreeMap<Series, UsageTotals> = BTreeMap::new();
    for draft in records.iter().map(|record| &record.draft) {
        #[cfg(feature = "bench")]
        if draft.bare {
            continue;
        }
        let Some((usage, cost)) = draft.consumed() else {
            continue;
        };
        let series = Series {
            tenant: stream.tenant().clone(),
            day: Day::of(draft.recorded_at),
            user: Some(stream.user().clone()),
            thread_id: draft.thread_id.clone(),
            model: Model::of(usage),
        };
        sums.entry(series).or_default().add(usage, cost);
    }
    call.arg(sums.len());
    for (series, sum) in &sums {
        call.arg(names::day(series.day))
            .arg(names::series(series))
            .arg(names::series(&series.folded()))
            .arg(names::series(&series.folded_whole()));
        let stats = super::usage::stats(sum);
        call.arg(stats.len());
        for (name, value) in stats {
            call.arg(name.to_string()).arg(value);
        }
    }
}
