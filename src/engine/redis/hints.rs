//! Who on this node watches which stream, and what Redis publishes of it.
//!
//! Hints come from one source only, so that they come in the order of the appends: what this node appends comes back to
//! it like everything else.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::watch;

use super::channel::{Channel, Hint, Listener};
use crate::{
    engine::Watcher,
    event::{Position, StreamKey},
    telemetry::Metrics,
};

/// The streams that are watched here, by their channels.
pub(super) struct Registry {
    inner: Mutex<Watched>,
    /// There is something to subscribe to or to unsubscribe from.
    pub(super) work: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Watched {
    channels: HashMap<Arc<str>, Channel>,
    /// Channels of those whose subscription is not as it should be.
    dirty: HashSet<Arc<str>>,
    /// The shards that can be subscribed at now.
    connected: BTreeSet<u64>,
    next_id: u64,
}

/// Ends a watch when dropped.
pub(super) struct Guard {
    registry: Arc<Registry>,
    channel: Arc<str>,
    id: u64,
}

/// While this lives, a shard can be subscribed at.
pub(super) struct Connected {
    registry: Arc<Registry>,
    shard: u64,
}

/// What is to be done at the server.
#[derive(Default)]
pub(super) struct Work {
    pub(super) subscribe: Vec<Arc<str>>,
    pub(super) unsubscribe: Vec<Arc<str>>,
}

impl Registry {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            work: watch::Sender::new(()),
            metrics,
        })
    }

    /// A watch that begins once `goes` says where; and what tells whether its channel is subscribed to.
    pub(super) fn add(
        self: &Arc<Self>,
        channel: &str,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> (Guard, watch::Receiver<bool>) {
        let channel: Arc<str> = channel.into();
        let mut inner = self.inner.lock();
        inner.next_id += 1;
        let id = inner.next_id;
        let place = inner.channels.entry(channel.clone());
        let known = place.or_insert_with(|| Channel::of(stream.clone()));
        known.listeners.push(Listener::new(id, watcher));
        let subscribed = known.subscribed.subscribe();
        let is_subscribed = *subscribed.borrow();
        if !is_subscribed {
            inner.soil(&channel);
            self.work.send_replace(());
        }
        self.metrics.redis_watched.set(inner.channels.len() as f64);
        drop(inner);
        let registry = self.clone();
        (
            Guard {
                registry,
                channel,
                id,
            },
            subscribed,
        )
    }

    /// Lets the watch begin at `head`: it is told of what came after that. Whether it could; else the head is too old.
    pub(super) fn goes(&self, guard: &Guard, head: Position) -> bool {
        let mut inner = self.inner.lock();
        let Some(known) = inner.channels.get_mut(&guard.channel) else {
            return true;
        };
        let told = known.told.get_or_insert(head);
        if told.epoch == head.epoch {
            told.offset = told.offset.max(head.offset);
        }
        let mut listeners = known.listeners.iter_mut();
        let listener = listeners.find(|one| one.id == guard.id);
        listener.is_none_or(|listener| listener.begin(head))
    }

    /// The streams that are watched and whose channels are `wanted`, with these.
    pub(super) fn watched(&self, wanted: impl Fn(&str) -> bool) -> Vec<(Arc<str>, StreamKey)> {
        let inner = self.inner.lock();
        let watched = inner.channels.iter();
        let watched = watched.filter(|(_, known)| !known.listeners.is_empty());
        let watched = watched.filter(|(channel, _)| wanted(channel));
        watched
            .map(|(channel, known)| (channel.clone(), known.stream.clone()))
            .collect()
    }

    /// Whether the listeners of a channel have not heard of everything up to `head`.
    pub(super) fn is_behind(&self, channel: &str, head: Position) -> bool {
        let inner = self.inner.lock();
        let known = inner.channels.get(channel);
        known.is_some_and(|known| known.is_behind(head))
    }

    /// Tells the listeners of a channel where the stream stands, if they are behind.
    pub(super) fn stands_at(&self, channel: &str, head: Position) {
        let mut inner = self.inner.lock();
        if let Some(known) = inner.channels.get_mut(channel)
            && known.is_behind(head)
        {
            self.metrics.redis_heads_differed.increment(1);
            known.stand_at(head);
        }
    }

    /// What is to be done at `shard` for the subscriptions to channels that are its `own` to be as they should be.
    pub(super) fn work(&self, shard: u64, own: impl Fn(&str) -> bool) -> Work {
        let mut inner = self.inner.lock();
        let mut work = Work::default();
        let own: Vec<_> = inner.dirty.extract_if(|channel| own(channel)).collect();
        for channel in own {
            let Some(known) = inner.channels.get_mut(&channel) else {
                continue;
            };
            known.shard = shard;
            if !known.listeners.is_empty() {
                work.subscribe.push(channel);
            } else {
                inner.channels.remove(&channel);
                work.unsubscribe.push(channel);
            }
        }
        if inner.channels.capacity() > 64 && inner.channels.len() < inner.channels.capacity() / 4 {
            inner.channels.shrink_to_fit();
        }
        self.metrics.redis_watched.set(inner.channels.len() as f64);
        work
    }

    /// There is a connection to `shard` that can be subscribed by, and nothing is yet.
    pub(super) fn connected(self: &Arc<Self>, shard: u64) -> Connected {
        self.inner.lock().connected.insert(shard);
        Connected {
            registry: self.clone(),
            shard,
        }
    }

    /// Those of `channels` that `shard` was asked for and has not confirmed.
    pub(super) fn unconfirmed(&self, shard: u64, channels: &[Arc<str>]) -> Vec<Arc<str>> {
        let inner = self.inner.lock();
        let is_one = |channel: &&Arc<str>| {
            let known = inner.channels.get(*channel);
            let asked = known.is_some_and(|known| known.shard == shard && !known.is_subscribed());
            asked && !inner.dirty.contains(*channel)
        };
        channels.iter().filter(is_one).cloned().collect()
    }

    /// Asks `shard` again for those of `channels` that it has still not confirmed.
    pub(super) fn ask_again(&self, shard: u64, channels: &[Arc<str>]) {
        for channel in self.unconfirmed(shard, channels) {
            self.inner.lock().soil(&channel);
        }
        self.work.send_replace(());
    }

    /// Those of `channels` that are subscribed to, and whose listeners were told of heads before.
    pub(super) fn resumed(&self, channels: &[Arc<str>]) -> Vec<(Arc<str>, StreamKey)> {
        let inner = self.inner.lock();
        let resumed = channels.iter().filter_map(|channel| {
            let known = inner.channels.get(channel);
            let known = known.filter(|known| known.is_subscribed() && known.told.is_some())?;
            Some((channel.clone(), known.stream.clone()))
        });
        resumed.collect()
    }

    /// These channels have to be subscribed to at another shard. Until that has confirmed, nobody is heard.
    pub(super) fn moved(&self, is_one: impl Fn(&str) -> bool) {
        let mut inner = self.inner.lock();
        for channel in inner.which(|channel, _| is_one(channel)) {
            if let Some(known) = inner.channels.get_mut(&channel) {
                known.shard = 0;
            }
            inner.soil(&channel);
        }
        self.work.send_replace(());
    }

    /// The answers of commands do not tell which channel is meant: the library takes what the server pushes by itself
    /// for one, too.
    pub(super) fn subscribed(&self, shard: u64, data: Vec<Value>) {
        let Some(channel) = channel_in(data) else {
            return;
        };
        let inner = self.inner.lock();
        let known = inner.channels.get(channel.as_str());
        let known = known.filter(|known| known.shard == shard);
        if let Some(known) = known
            && !inner.dirty.contains(channel.as_str())
        {
            known.subscribed.send_replace(true);
        }
    }

    /// That was asked for, or the slot went elsewhere.
    pub(super) fn unsubscribed(&self, shard: u64, data: Vec<Value>) {
        let Some(channel) = channel_in(data) else {
            return;
        };
        let mut inner = self.inner.lock();
        let known = inner.channels.get(channel.as_str());
        if known.is_some_and(|known| known.shard == shard) {
            inner.soil(&channel.into());
            self.work.send_replace(());
        }
    }

    pub(super) fn message(&self, shard: u64, data: Vec<Value>) {
        self.metrics.redis_hints.increment(1);
        let mut data = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
            (data.next(), data.next())
        else {
            return self.metrics.redis_hints_dropped.increment(1);
        };
        let Ok(channel) = String::from_utf8(channel) else {
            return self.metrics.redis_hints_dropped.increment(1);
        };
        let stream = {
            let inner = self.inner.lock();
            let known = inner.channels.get(channel.as_str());
            known
                .filter(|known| known.shard == shard && !known.listeners.is_empty())
                .map(|known| known.stream.clone())
        };
        let Some(stream) = stream else { return };
        // What cannot be read is not lost: the heads are compared.
        let Some(hint) = Hint::read(&stream, payload.into()) else {
            return self.metrics.redis_hints_dropped.increment(1);
        };
        let mut inner = self.inner.lock();
        if let Some(known) = inner.channels.get_mut(channel.as_str())
            && known.shard == shard
        {
            known.hear(&hint);
        }
    }
}

/// The channel that a push is about.
fn channel_in(data: Vec<Value>) -> Option<String> {
    match data.into_iter().next()? {
        Value::BulkString(channel) => String::from_utf8(channel).ok(),
        _ => None,
    }
}

impl Watched {
    fn which(&self, is_one: impl Fn(&str, &Channel) -> bool) -> Vec<Arc<str>> {
        let all = self.channels.iter();
        let all = all.filter(|(channel, known)| is_one(channel, known));
        all.map(|(channel, _)| channel.clone()).collect()
    }

    /// The subscription to a channel is not as it should be. One that nobody listens to and nobody has to be told of is
    /// forgotten.
    fn soil(&mut self, channel: &Arc<str>) {
        let Some(known) = self.channels.get_mut(channel) else {
            return;
        };
        known.subscribed.send_replace(false);
        if known.listeners.is_empty() && !self.connected.contains(&known.shard) {
            self.channels.remove(channel);
            self.dirty.remove(channel);
        } else {
            self.dirty.insert(channel.clone());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut inner = self.registry.inner.lock();
        if let Some(known) = inner.channels.get_mut(&self.channel) {
            known.listeners.retain(|listener| listener.id != self.id);
            if known.listeners.is_empty() {
                inner.soil(&self.channel);
                self.registry.work.send_replace(());
            }
        }
        let watched = inner.channels.len() as f64;
        self.registry.metrics.redis_watched.set(watched);
    }
}

/// No subscription holds any more.
impl Drop for Connected {
    fn drop(&mut self) {
        let mut inner = self.registry.inner.lock();
        inner.connected.remove(&self.shard);
        for channel in inner.which(|_, known| known.shard == self.shard) {
            inner.soil(&channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::{PushInfo, PushKind, aio::AsyncPushSender};

    use super::{super::push::Push, *};
    use crate::event::{Epoch, Offset, Record, Tenant, UserId};

    #[derive(Default)]
    struct Heads(Mutex<Vec<Position>>);

    impl Watcher for Heads {
        fn appended(&self, _: &[Arc<Record>]) {}

        fn stands_at(&self, head: Position) {
            self.0.lock().push(head);
        }
    }

    /// A hint that the stream of channel `c` stands at `head`, too large to carry records.
    fn hint(head: Position) -> PushInfo {
        let mut payload = head.epoch.to_string().into_bytes();
        payload.extend([0; 8]);
        payload.extend(head.offset.0.to_be_bytes());
        let data = vec![Value::BulkString(b"c".into()), Value::BulkString(payload)];
        PushInfo {
            kind: PushKind::SMessage,
            data,
        }
    }

    fn about(kind: PushKind, channel: &str) -> PushInfo {
        let data = vec![Value::BulkString(channel.into()), Value::Int(1)];
        PushInfo { kind, data }
    }

    fn stream() -> StreamKey {
        StreamKey::new(Tenant::new("t").unwrap(), UserId::new("u").unwrap())
    }

    /// What `shard` pushes is for `registry`.
    fn push(registry: &Arc<Registry>, shard: u64) -> Push {
        Push {
            registry: registry.clone(),
            shard,
            disconnected: Arc::default(),
        }
    }

    #[test]
    fn only_the_shard_that_was_subscribed_at_last_is_heard() {
        let registry = Registry::new(Arc::new(Metrics::new().0));
        let heads = Arc::new(Heads::default());
        let (guard, mut subscribed) = registry.add("c", &stream(), heads.clone());
        let at = |offset| Position::new(Epoch::new(7), Offset(offset));
        registry.goes(&guard, at(0));
        let pushes = |shard, info| push(&registry, shard).send(info).unwrap();
        let says = |shard, offset| {
            pushes(shard, hint(at(offset)));
            heads.0.lock().last().map_or(0, |head| head.offset.0)
        };
        let work = |shard, own: bool| registry.work(shard, |_| own).subscribe.len();
        let first = registry.connected(1);
        let second = registry.connected(2);
        assert_eq!((work(2, false), work(1, true), work(1, true)), (0, 1, 0));
        pushes(1, about(PushKind::SSubscribe, "c"));
        assert!(*subscribed.borrow_and_update());
        assert_eq!((says(2, 1), says(1, 2)), (0, 2));
        // Another takes its place.
        registry.moved(|_| true);
        assert!(!*subscribed.borrow_and_update());
        assert_eq!((work(2, true), work(1, false)), (1, 0));
        pushes(2, about(PushKind::SSubscribe, "c"));
        assert_eq!((says(1, 3), says(2, 4)), (2, 4));
        // What is gone at the one that was left is of no interest.
        drop(first);
        pushes(1, about(PushKind::SUnsubscribe, "c"));
        assert!(*subscribed.borrow());
        pushes(2, about(PushKind::SUnsubscribe, "c"));
        assert!(!*subscribed.borrow());
        assert_eq!(work(2, true), 1);
        pushes(2, about(PushKind::SSubscribe, "c"));
        drop(second);
        assert!(!*subscribed.borrow());
    }

    #[test]
    fn a_subscription_is_confirmed_by_its_name_and_its_shard_only() {
        let registry = Registry::new(Arc::new(Metrics::new().0));
        let heads = Arc::new(Heads::default());
        let (_guard, mut subscribed) = registry.add("c", &stream(), heads);
        let _connected = [registry.connected(1), registry.connected(2)];
        let confirms = |shard, channel: &str| {
            let info = about(PushKind::SSubscribe, channel);
            push(&registry, shard).send(info).unwrap();
        };
        let asked: [Arc<str>; 1] = ["c".into()];
        confirms(1, "c");
        assert!(!*subscribed.borrow_and_update(), "nobody was asked");
        assert_eq!(registry.work(1, |_| true).subscribe.len(), 1);
        confirms(1, "d");
        confirms(2, "c");
        assert!(!*subscribed.borrow_and_update(), "another");
        // It is asked again for what it has not confirmed.
        assert_eq!(registry.unconfirmed(1, &asked).len(), 1);
        registry.ask_again(1, &asked);
        assert_eq!(registry.work(1, |_| true).subscribe.len(), 1);
        confirms(1, "c");
        assert!(*subscribed.borrow_and_update());
        assert_eq!(registry.unconfirmed(1, &asked).len(), 0);
        registry.moved(|_| true);
        confirms(1, "c");
        assert!(!*subscribed.borrow_and_update(), "it went elsewhere");
    }

    /// How many channels are known, and how many subscriptions are not as they should be.
    fn sizes(registry: &Registry) -> (usize, usize) {
        let inner = registry.inner.lock();
        (inner.channels.len(), inner.dirty.len())
    }

    #[test]
    fn channels_without_listeners_do_not_pile_up_at_a_shard_that_is_away() {
        let registry = Registry::new(Arc::new(Metrics::new().0));
        let add = |n: usize| {
            let heads = Arc::new(Heads::default());
            registry.add(&format!("c{n}"), &stream(), heads).0
        };
        // Nobody was asked for them yet.
        for n in 0..10 {
            drop((add(n), add(n)));
        }
        assert_eq!(sizes(&registry), (0, 0));
        // They are unsubscribed from as long as that can be.
        let connected = registry.connected(1);
        let guards: Vec<Guard> = (0..10).map(add).collect();
        assert_eq!(registry.work(1, |_| true).subscribe.len(), 10);
        drop(guards);
        assert_eq!(sizes(&registry), (10, 10));
        let kept = add(0);
        drop(connected);
        assert_eq!(sizes(&registry), (1, 1));
        drop(kept);
        assert_eq!(sizes(&registry), (0, 0));
        // Their slot went to one that is away.
        let _connected = registry.connected(1);
        let guards: Vec<Guard> = (0..10).map(add).collect();
        registry.work(1, |_| true);
        drop(guards);
        registry.moved(|_| true);
        assert_eq!(sizes(&registry), (0, 0));
    }
}
