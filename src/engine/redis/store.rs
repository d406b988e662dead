//! The key store. What has expired by the caller's clock is not there, whether or not Redis has dropped it.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::{
    Inner, call,
    call::{Call, CallError},
};
use crate::{
    clock::Timestamp,
    engine::{Key, KeyEntry},
};

/// How much longer than asked for Redis keeps a key: clocks differ, and expiry is judged by the callers'.
const MARGIN: Duration = Duration::from_secs(60 * 60);

impl Inner {
    pub(super) async fn get(&self, key: &Key) -> Result<Option<KeyEntry>, CallError> {
        let mut get = Call::new("get", self.names.key(key));
        get.arg(self.clock.now().as_millis());
        entry(get.on(&self.shards).await?)
    }

    pub(super) async fn put_if_absent(
        &self,
        key: &Key,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<Option<KeyEntry>, CallError> {
        let put = self.putting("put", key, value, ttl);
        entry(put.on(&self.shards).await?)
    }

    pub(super) async fn compare_and_set(
        &self,
        key: &Key,
        expected: &Bytes,
        value: &Bytes,
        ttl: Duration,
    ) -> Result<bool, CallError> {
        let mut replace = self.putting("replace", key, value, ttl);
        replace.arg(&expected[..]);
        let answer = replace.on(&self.shards).await?;
        Ok(!answer.is_empty())
    }

    fn putting(&self, function: &str, key: &Key, value: &Bytes, ttl: Duration) -> Call {
        let now = self.clock.now();
        let held = u64::try_from((ttl + MARGIN).as_millis()).unwrap_or(u64::MAX);
        let mut call = Call::new(function, self.names.key(key));
        call.arg(now.as_millis())
            .arg(&value[..])
            .arg((now + ttl).as_millis())
            .arg(held.min(u64::from(u32::MAX) * 1_000));
        call
    }
}

/// The entry that an answer is: value and time, or nothing.
fn entry(answer: Vec<Value>) -> Result<Option<KeyEntry>, CallError> {
    let mut answer = answer.into_iter();
    let Some(value) = answer.next() else {
        return Ok(None);
    };
    let put_at = call::number(call::next(&mut answer)?)?;
    Ok(Some(KeyEntry {
        value: call::bytes(value)?,
        put_at: Timestamp::from_millis(put_at),
    }))
}
