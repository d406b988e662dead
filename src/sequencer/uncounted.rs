//! Time that is not held against silent runs, as nodes write it into the key store that they share.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    clock::{Spans, Timestamp},
    event::{BUCKETS, StreamKey},
};

/// Whose silent runs a time is not held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// Those of all users in it.
    Bucket(usize),
    /// Those of one user, by its number.
    User(u64),
    /// Everybody's.
    Everybody,
}

/// Stands for everybody where a bucket or a user stands else.
const EVERYBODY: u64 = u64::MAX;

impl Whose {
    pub(super) fn of(stream: &StreamKey) -> Self {
        Self::read(stream.number())
    }

    /// The bucket that all of them are in, if there is one.
    pub(super) fn bucket(self) -> Option<usize> {
        match self {
            Self::Bucket(bucket) => Some(bucket),
            Self::User(number) => Some((number % BUCKETS as u64) as usize),
            Self::Everybody => None,
        }
    }

    fn write(self) -> u64 {
        match self {
            Self::Bucket(bucket) => bucket as u64,
            Self::User(number) => number,
            Self::Everybody => EVERYBODY,
        }
    }

    /// A user whose number is that of a bucket, which hardly ever is, is told for it: the bucket is its own.
    fn read(number: u64) -> Self {
        match number {
            EVERYBODY => Self::Everybody,
            number if number < BUCKETS as u64 => Self::Bucket(number as usize),
            number => Self::User(number),
        }
    }
}

/// Time that is not held against silent runs.
pub(super) type Uncounted = BTreeMap<Whose, Spans>;

/// `head`, then whose, begin and end of each span: numbers of eight bytes, the lowest first.
pub(super) fn encode(head: &[u64], uncounted: &Uncounted) -> Bytes {
    let mut numbers = head.to_vec();
    for (whose, spans) in uncounted {
        for (begin, end) in spans.iter() {
            numbers.extend([whose.write(), begin.as_millis(), end.as_millis()]);
        }
    }
    let bytes = numbers.into_iter().flat_map(u64::to_le_bytes);
    bytes.collect::<Vec<_>>().into()
}

/// The `HEAD` numbers and the spans of which `bytes` were made; none, if they are something else.
pub(super) fn decode<const HEAD: usize>(bytes: &[u8]) -> Option<([u64; HEAD], Uncounted)> {
    let (numbers, []) = bytes.as_chunks::<8>() else {
        return None;
    };
    let numbers: Vec<u64> = numbers.iter().map(|n| u64::from_le_bytes(*n)).collect();
    let (head, spans) = numbers.split_first_chunk::<HEAD>()?;
    let mut uncounted = Uncounted::new();
    for [whose, begin, end] in spans.as_chunks::<3>().0 {
        let [begin, end] = [*begin, *end].map(Timestamp::from_millis);
        if begin < end {
            let spans = uncounted.entry(Whose::read(*whose)).or_default();
            spans.add(begin, end);
        }
    }
    Some((*head, uncounted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Tenant, UserId};

    #[test]
    fn a_user_is_known_by_a_number_that_stays() {
        let user = StreamKey::new(Tenant::new("default").unwrap(), UserId::new("u1").unwrap());
        assert_eq!(Whose::of(&user), Whose::User(6_368_760_142_695_977_142));
        assert_eq!(Whose::of(&user).bucket(), Some(user.bucket()));
    }

    #[test]
    fn what_is_no_such_value_says_nothing() {
        let numbers = |numbers: &[u64]| {
            let bytes = numbers.iter().flat_map(|n| n.to_le_bytes());
            bytes.collect::<Vec<u8>>()
        };
        assert_eq!(decode::<2>(b""), None);
        assert_eq!(decode::<2>(b"1234567"), None);
        assert_eq!(decode::<2>(&numbers(&[1])), None);
        for odd in [
            // No end, no time, and time that goes back.
            &[1, 2, 3, 4][..],
            &[1, 2, 3, 5, 5],
            &[1, 2, 3, 5, 4],
        ] {
            let read = decode::<2>(&numbers(odd));
            assert_eq!(read, Some(([1, 2], Uncounted::new())), "{odd:?}");
        }
    }
}
