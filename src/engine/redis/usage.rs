//! What was consumed: sums in the bucket of their user, one hash for each day.
//!
//! Each number of a sum is a field of its own, so that it can be added to where it lies.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Inner, call, call::CallError, names};
use crate::{
    clock::Timestamp,
    event::{BUCKETS, StreamKey, UsageTotals},
    usage::{Day, Series, UsageQuery},
};

/// How many buckets are read at once.
const BUCKETS_AT_ONCE: usize = 16;

/// The numbers of `sum` that are not zero, by the first letters of their fields. Redis counts up to `i64::MAX`, where a
/// number stops.
pub(super) fn stats(sum: &UsageTotals) -> Vec<(char, i64)> {
    let all = [
        ('n', sum.events),
        ('N', sum.unpriced_events),
        ('s', sum.cost_nano_usd),
        ('i', sum.tokens.input),
        ('o', sum.tokens.output),
        ('c', sum.tokens.cached_input),
        ('w', sum.tokens.cache_write),
        ('W', sum.tokens.cache_write_1h),
        ('r', sum.tokens.reasoning),
    ];
    let held = all.into_iter().filter(|(_, number)| *number > 0);
    held.map(|(name, number)| (name, i64::try_from(number).unwrap_or(i64::MAX)))
        .collect()
}

/// Takes the number of one field into the sum of its series.
fn take(sum: &mut UsageTotals, name: char, number: u64) {
    let add = |total: &mut u64| *total = total.saturating_add(number);
    match name {
        'n' => add(&mut sum.events),
        'N' => add(&mut sum.unpriced_events),
        's' => add(&mut sum.cost_nano_usd),
        // An earlier version had the tokens of events that stated no cost under the capital letter.
        'i' | 'I' => add(&mut sum.tokens.input),
        'o' | 'O' => add(&mut sum.tokens.output),
        'c' | 'C' => add(&mut sum.tokens.cached_input),
        'r' | 'R' => add(&mut sum.tokens.reasoning),
        'w' => add(&mut sum.tokens.cache_write),
        'W' => add(&mut sum.tokens.cache_write_1h),
        _ => {}
    }
}

impl Inner {
    /// What `query` asks for, bucket by bucket.
    pub(super) async fn usage(
        &self,
        query: &UsageQuery,
    ) -> Result<Vec<(Series, UsageTotals)>, CallError> {
        let only = query.tenant.clone().zip(query.user.clone());
        let buckets = match only.map(|(tenant, user)| StreamKey::new(tenant, user).bucket()) {
            Some(bucket) => bucket..bucket + 1,
            None => 0..BUCKETS,
        };
        let parts = stream::iter(buckets).map(|bucket| self.usage_of(bucket, query));
        let parts = parts.buffer_unordered(BUCKETS_AT_ONCE);
        parts.try_concat().await
    }

    async fn usage_of(
        &self,
        bucket: usize,
        query: &UsageQuery,
    ) -> Result<Vec<(Series, UsageTotals)>, CallError> {
        let key = self.names.days(bucket);
        let mut days = redis::cmd("SMEMBERS");
        days.arg(&key);
        let mut found = Vec::new();
        for name in call::array(self.shards.run(&key, &days).await?)? {
            let name = call::text(name)?;
            let end: u64 = name.parse().map_err(|_| call::odd("no day"))?;
            let end = Timestamp::from_millis(end);
            let day = Day::of(Timestamp::from_millis(end.as_millis().saturating_sub(1)));
            let over = end + self.config.bounds.usage_age <= self.clock.now();
            if over || !query.days.contains(&day) {
                continue;
            }
            let key = self.names.sums(bucket, &name);
            let mut sums = redis::cmd("HGETALL");
            sums.arg(&key);
            let fields = call::array(self.shards.run(&key, &sums).await?)?;
            found.extend(sums_of(day, fields, query)?);
        }
        Ok(found)
    }
}

/// The sums that `fields` are, names and numbers in turn, where `query` asks for them.
fn sums_of(
    day: Day,
    fields: Vec<redis::Value>,
    query: &UsageQuery,
) -> Result<Vec<(Series, UsageTotals)>, CallError> {
    let mut sums: HashMap<String, UsageTotals> = HashMap::new();
    let mut fields = fields.into_iter();
    while let (Some(name), Some(number)) = (fields.next(), fields.next()) {
        let (name, number) = (call::text(name)?, call::number(number)?);
        let mut letters = name.chars();
        if let Some(letter) = letters.next() {
            take(
                sums.entry(letters.as_str().to_owned()).or_default(),
                letter,
                number,
            );
        }
    }
    let named = sums.into_iter().map(|(name, sum)| {
        let series = names::series_of(day, &name);
        series
            .map(|series| (series, sum))
            .ok_or_else(|| call::odd("no series"))
    });
    let mut sums: Vec<_> = named.collect::<Result<_, _>>()?;
    sums.retain(|(series, _)| query.admits(series));
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cost, Tokens, Usage};

    #[test]
    fn a_sum_is_what_its_numbers_come_to() {
        let usage = |tokens: u64, cost_nano_usd| Usage {
            provider: "p".into(),
            model: "m".into(),
            tokens: Tokens {
                input: tokens,
                output: 2,
                cache_write: 4,
                cache_write_1h: 3,
                reasoning: 1,
                ..Tokens::default()
            },
            cost_nano_usd,
        };
        let mut sum = UsageTotals::default();
        for usage in [usage(1, None), usage(10, Some(7)), usage(100, None)] {
            sum.add(&usage, Cost::without_price(&usage));
        }
        let mut again = UsageTotals::default();
        for (name, number) in stats(&sum) {
            take(&mut again, name, u64::try_from(number).unwrap());
        }
        assert_eq!(again, sum);
        assert!(stats(&UsageTotals::default()).is_empty());
    }

    /// It kept the tokens of events without a stated cost apart, to price them when asked. They are unpriced.
    #[test]
    fn sums_of_an_earlier_version_are_read() {
        let mut sum = UsageTotals::default();
        let fields = [
            ('n', 3),
            ('N', 2),
            ('s', 7),
            ('i', 10),
            ('I', 101),
            ('O', 4),
            ('C', 5),
            ('R', 6),
        ];
        for (name, number) in fields {
            take(&mut sum, name, number);
        }
        let want = UsageTotals {
            events: 3,
            tokens: Tokens {
                input: 111,
                output: 4,
                cached_input: 5,
                reasoning: 6,
                ..Tokens::default()
            },
            cost_nano_usd: 7,
            unpriced_events: 2,
        };
        assert_eq!(sum, want);
    }
}
