//! Which master of a cluster serves which slots, as its nodes tell.

use std::fmt;

use redis::Value;

/// The last slot of a cluster; the first is 0.
const LAST: u16 = 16_383;

/// Where a node is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What serves each slot: ranges in order, their first and last slots and what serves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slots<T>(Vec<(u16, u16, T)>);

impl<T> Slots<T> {
    /// Nothing serves any.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// One serves all of them.
    pub(super) fn all(one: T) -> Self {
        Self(vec![(0, LAST, one)])
    }

    /// What serves the slot of `key`.
    pub(super) fn of(&self, key: &str) -> Option<&T> {
        let slot = slot(key);
        let place = self.0.partition_point(|(_, last, _)| *last < slot);
        let (first, _, serves) = self.0.get(place)?;
        (*first <= slot).then_some(serves)
    }

    /// What serves any slot; more than once what serves several ranges.
    pub(super) fn each(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, _, serves)| serves)
    }

    /// The same slots, served by what `change` makes of what serves them.
    pub(super) fn map<U>(&self, mut change: impl FnMut(&T) -> U) -> Slots<U> {
        let ranges = self.0.iter();
        Slots(
            ranges
                .map(|(first, last, serves)| (*first, *last, change(serves)))
                .collect(),
        )
    }
}

impl Slots<Address> {
    /// Reads what a node answers to `CLUSTER SLOTS` that was reached as `host`: a node that does not know its own name
    /// tells none. `None` if nothing is served, or the answer is none.
    pub(super) fn read(answer: Value, host: &str) -> Option<Self> {
        let Value::Array(ranges) = answer else {
            return None;
        };
        let ranges = ranges.into_iter().take(usize::from(LAST) + 1);
        let ranges = ranges.filter_map(|range| range_of(range, host));
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort();
        (!ranges.is_empty()).then_some(Self(ranges))
    }
}

/// What the nodes of a cluster tell of its slots: one that was away may tell what was before.
#[derive(Default)]
pub(super) struct Votes(Vec<(usize, Slots<Address>)>);

impl Votes {
    /// Counts what one node told. Returns how many told the same.
    pub(super) fn count(&mut self, told: Slots<Address>) -> usize {
        if let Some((count, _)) = self.0.iter_mut().find(|(_, slots)| *slots == told) {
            *count += 1;
            return *count;
        }
        self.0.push((1, told));
        1
    }

    /// What most told; of what as many told, rather `present`.
    pub(super) fn most(self, present: &Slots<Address>) -> Option<Slots<Address>> {
        let votes = self.0.into_iter();
        let most = votes.max_by_key(|(count, slots)| (*count, slots == present));
        most.map(|(_, slots)| slots)
    }
}

/// The first and the last slot, the master, and replicas that are of no interest.
fn range_of(range: Value, host: &str) -> Option<(u16, u16, Address)> {
    let Value::Array(range) = range else {
        return None;
    };
    let [
        Value::Int(first),
        Value::Int(last),
        Value::Array(master),
        ..,
    ] = &range[..]
    else {
        return None;
    };
    let [name, Value::Int(port), ..] = &master[..] else {
        return None;
    };
    let named = match name {
        Value::BulkString(name) => String::from_utf8(name.clone()).ok()?,
        _ => String::new(),
    };
    let host = match named.as_str() {
        "" => host.to_owned(),
        // It does not know where that one is.
        "?" => return None,
        _ => named,
    };
    let port = u16::try_from(*port).ok()?;
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    Some((first, last, Address { host, port }))
}

/// The slot of a key: that of what stands in its first braces.
fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let tag = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) & LAST
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    let shifted = |crc: u16, _| match crc & 0x8000 {
        0 => crc << 1,
        _ => (crc << 1) ^ 0x1021,
    };
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), shifted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Value {
        redis::parse_redis_value(text.replace(' ', "\r\n").as_bytes()).unwrap()
    }

    fn shown(slots: &Slots<Address>) -> Vec<String> {
        let range = |(first, last, at): &(u16, u16, Address)| format!("{first}-{last} {at}");
        slots.0.iter().map(range).collect()
    }

    #[test]
    fn a_key_is_in_the_slot_that_redis_has_it_in() {
        // By `CLUSTER KEYSLOT`.
        for (key, expected) in [
            ("foo", 12_182),
            ("bar", 5_061),
            ("{foo}bar", 12_182),
            ("a{bar}{foo}", 5_061),
            ("{}foo", 9_500),
            ("", 0),
            ("123456789", 12_739),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    #[test]
    fn what_most_nodes_tell_counts_and_what_was_before_where_as_many_tell_it() {
        let by = |host: &str| {
            let host = host.to_owned();
            Slots::all(Address { host, port: 1 })
        };
        for (told, expected) in [
            (&["a"][..], "a"),
            (&["before", "a", "a"], "a"),
            (&["a", "before", "before"], "before"),
            (&["a", "before"], "before"),
            (&["before", "a"], "before"),
        ] {
            let mut votes = Votes::default();
            let counts: Vec<usize> = told.iter().map(|host| votes.count(by(host))).collect();
            let same = |n: usize| told[..=n].iter().filter(|host| **host == told[n]).count();
            assert_eq!(counts, (0..told.len()).map(same).collect::<Vec<_>>());
            let most = votes.most(&by("before"));
            assert_eq!(most, Some(by(expected)), "{told:?}");
        }
        assert_eq!(Votes::default().most(&by("before")), None);
    }

    #[test]
    fn what_nodes_tell_of_slots_is_read() {
        let two =
            "*3 *4 :10 :16383 *2 $1 b :2 *2 $1 r :9 *3 :0 :4 *3 $0  :1 $2 id *3 :6 :9 *2 $1 ? :3 ";
        let slots = Slots::read(answer(two), "asked").unwrap();
        assert_eq!(shown(&slots), ["0-4 asked:1", "10-16383 b:2"]);
        let served = slots.map(|address| address.port);
        assert_eq!(served.of("foo"), Some(&2));
        assert_eq!(served.of(""), Some(&1));
        assert_eq!(Slots::all(7).of("foo"), Some(&7));
        assert_eq!(Slots::<u8>::none().of("foo"), None);
        // Slot 5, served by nobody.
        let own = (0..).map(|n| n.to_string()).find(|key| slot(key) == 5);
        assert_eq!(served.of(&own.unwrap()), None);
        for nothing in ["*0 ", "+OK ", "*1 *2 :0 :1 "] {
            assert_eq!(Slots::read(answer(nothing), "asked"), None, "{nothing}");
        }
    }
}
