//! Which master of a cluster serves which slots, as its nodes tell.

use std::{collections::BTreeSet, fmt};

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

/// What one node of a cluster tells.
pub(super) struct Told {
    /// The node's own id: it may be known by several names.
    pub(super) node: String,
    /// Whether the cluster is well, as it sees it. One that lost sight of most masters says that it is not.
    pub(super) is_well: bool,
    pub(super) slots: Slots<Address>,
}

/// What the nodes of a cluster tell of its slots: one that was away may tell what was before.
pub(super) struct Votes {
    nodes: usize,
    told_by: BTreeSet<String>,
    /// By how many that see the cluster well, and by how many others.
    told: Vec<([usize; 2], Slots<Address>)>,
}

impl Votes {
    /// None yet, of so many nodes.
    pub(super) fn of(nodes: usize) -> Self {
        Self {
            nodes,
            told_by: BTreeSet::new(),
            told: Vec::new(),
        }
    }

    /// Counts what a node told, once. Whether most told the same by now.
    pub(super) fn count(&mut self, told: Told) -> bool {
        if !self.told_by.insert(told.node) {
            // It was asked by another name, too.
            self.nodes -= 1;
        } else {
            let known = self.told.iter().position(|(_, slots)| *slots == told.slots);
            let place = known.unwrap_or(self.told.len());
            if known.is_none() {
                self.told.push(([0, 0], told.slots));
            }
            if let Some((counts, _)) = self.told.get_mut(place) {
                counts[usize::from(!told.is_well)] += 1;
            }
        }
        let most = self.told.iter().map(|([well, _], _)| *well).max();
        most.is_some_and(|most| most > self.nodes / 2)
    }

    /// What most told, of those that see the cluster well if there are any; of what as many told, rather `present`. And
    /// whether that is more than half of all nodes.
    pub(super) fn most(self, present: &Slots<Address>) -> Option<(Slots<Address>, bool)> {
        let are_ill = self.told.iter().all(|([well, _], _)| *well == 0);
        let votes = self.told.into_iter();
        let votes = votes.map(|(counts, slots)| (counts[usize::from(are_ill)], slots));
        let (count, slots) = votes.max_by_key(|(count, slots)| (*count, slots == present))?;
        Some((slots, count > self.nodes / 2))
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

    /// What each of `told` comes to: a node, `~` if the cluster is not well to it, and who it says is the master.
    fn elected(nodes: usize, told: &str) -> (bool, Option<(String, bool)>) {
        let by = |host: &str| {
            let host = host.to_owned();
            Slots::all(Address { host, port: 1 })
        };
        let (mut votes, mut is_certain) = (Votes::of(nodes), false);
        for told in told.split_whitespace() {
            let (node, host) = told.split_once(':').unwrap();
            is_certain = votes.count(Told {
                node: node.trim_end_matches('~').into(),
                is_well: !node.ends_with('~'),
                slots: by(host),
            });
        }
        let most = votes.most(&by("before"));
        let host = |slots: Slots<Address>| slots.each().next().unwrap().host.clone();
        (
            is_certain,
            most.map(|(slots, is_most)| (host(slots), is_most)),
        )
    }

    #[test]
    fn what_most_nodes_tell_counts_and_what_was_before_where_as_many_tell_it() {
        for (told, certain, host, is_most) in [
            ("1:a", false, "a", false),
            ("1:a 2:a", true, "a", true),
            ("1:before 2:a 3:a", true, "a", true),
            ("1:a 2:before", false, "before", false),
            ("1:before 2:a", false, "before", false),
            ("1:a 2:b 3:c", false, "c", false),
        ] {
            let expected = (certain, Some((host.to_owned(), is_most)));
            assert_eq!(elected(3, told), expected, "{told}");
        }
        assert_eq!(elected(3, ""), (false, None));
    }

    #[test]
    fn a_node_counts_once_and_one_to_which_the_cluster_is_not_well_only_if_no_other_tells() {
        for (nodes, told, certain, host, is_most) in [
            // By two names, of five and of two.
            (5, "1:a 1:a 2:before", false, "before", false),
            (2, "1:a 1:a", true, "a", true),
            (3, "1~:a 2~:a 3:b", false, "b", false),
            (3, "1~:a 2~:a", false, "a", true),
            (3, "1~:a 2:before 3:before", true, "before", true),
        ] {
            let expected = (certain, Some((host.to_owned(), is_most)));
            assert_eq!(elected(nodes, told), expected, "{told}");
        }
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
