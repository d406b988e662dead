//! Who on this node watches which stream, and what Redis publishes of it.
//!
//! Hints come from one source only, so that they come in the order of the appends: what this node appends comes back to
//! it like everything else.

use std::{collections::HashMap, sync::Arc};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use redis::{
    PushInfo, PushKind, Value,
    aio::{AsyncPushSender, SendError},
};
use tokio::sync::{Notify, watch};

use crate::{
    engine::{Watcher, stored},
    event::{Offset, Position, Record, StreamKey},
    telemetry::Metrics,
};

/// The most records that wait for a watch to begin; beyond that the head is read again.
const WAITING: usize = 1_024;

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
    /// Channels whose subscription is not as it should be.
    dirty: Vec<Arc<str>>,
    next: u64,
}

struct Channel {
    stream: StreamKey,
    listeners: Vec<Listener>,
    /// The shard that was asked last to publish it here: the only one that is heard.
    shard: u64,
    subscribed: watch::Sender<bool>,
    /// The newest head that the listeners were told of.
    told: Option<Position>,
    dirty: bool,
}

struct Listener {
    id: u64,
    watcher: Arc<dyn Watcher>,
    stage: Stage,
}

/// How far a watch is.
enum Stage {
    /// Its head is not known yet: what came in since, and whether that was too much.
    Begins(Vec<Arc<Record>>, bool),
    /// It hears of everything after this.
    Goes(Position),
}

/// Ends a watch when dropped.
pub(super) struct Guard {
    registry: Arc<Registry>,
    channel: Arc<str>,
    id: u64,
}

/// What is to be done at the server.
#[derive(Default)]
pub(super) struct Work {
    pub(super) subscribe: Vec<Arc<str>>,
    pub(super) unsubscribe: Vec<Arc<str>>,
}

/// Takes what one master pushes.
#[derive(Clone)]
pub(super) struct Push {
    pub(super) registry: Arc<Registry>,
    pub(super) shard: u64,
    /// The connection broke.
    pub(super) disconnected: Arc<Notify>,
}

impl AsyncPushSender for Push {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        match info.kind {
            PushKind::SMessage => self.registry.message(self.shard, info.data),
            PushKind::SUnsubscribe => self.registry.unsubscribed(self.shard, info.data),
            PushKind::Disconnection => self.disconnected.notify_one(),
            _ => {}
        }
        Ok(())
    }
}

/// What an append published.
struct Hint {
    head: Position,
    /// All that were appended, or none because they are too large.
    records: Vec<Arc<Record>>,
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
        inner.next += 1;
        let id = inner.next;
        let place = inner.channels.entry(channel.clone());
        let known = place.or_insert_with(|| Channel {
            stream: stream.clone(),
            listeners: Vec::new(),
            shard: 0,
            subscribed: watch::Sender::new(false),
            told: None,
            dirty: false,
        });
        known.listeners.push(Listener {
            id,
            watcher,
            stage: Stage::Begins(Vec::new(), false),
        });
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
        let listener = known.listeners.iter_mut().find(|one| one.id == guard.id);
        let Some(listener) = listener else {
            return true;
        };
        let Stage::Begins(waiting, too_many) = &mut listener.stage else {
            return true;
        };
        let waiting = std::mem::take(waiting);
        if std::mem::take(too_many) {
            return false;
        }
        listener.stage = Stage::Goes(head);
        listener.hear(&waiting);
        true
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
        let dirty = std::mem::take(&mut inner.dirty).into_iter();
        let (own, others): (Vec<_>, Vec<_>) = dirty.partition(|channel| own(channel));
        inner.dirty = others;
        for channel in own {
            let Some(known) = inner.channels.get_mut(&channel) else {
                continue;
            };
            (known.dirty, known.shard) = (false, shard);
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

    /// The server has confirmed the subscription to a channel, or has not.
    pub(super) fn subscribed(&self, channel: &Arc<str>, confirmed: bool) {
        let mut inner = self.inner.lock();
        if !confirmed {
            return inner.soil(channel);
        }
        if let Some(known) = inner.channels.get(channel) {
            known.subscribed.send_replace(true);
        }
    }

    /// No subscription at `shard` holds any more.
    pub(super) fn none_subscribed(&self, shard: u64) {
        self.soil_all(|_, known| known.shard == shard);
    }

    /// These channels have to be subscribed to at another shard.
    pub(super) fn moved(&self, is_one: impl Fn(&str) -> bool) {
        self.soil_all(|channel, _| is_one(channel));
        self.work.send_replace(());
    }

    fn soil_all(&self, which: impl Fn(&str, &Channel) -> bool) {
        let mut inner = self.inner.lock();
        let all = inner.channels.iter();
        let all = all.filter(|(channel, known)| which(channel, known));
        let all: Vec<_> = all.map(|(channel, _)| channel.clone()).collect();
        for channel in all {
            inner.soil(&channel);
        }
    }

    /// That was asked for, or the slot went elsewhere.
    fn unsubscribed(&self, shard: u64, data: Vec<Value>) {
        let Some(Value::BulkString(channel)) = data.into_iter().next() else {
            return;
        };
        let Ok(channel) = String::from_utf8(channel) else {
            return;
        };
        let mut inner = self.inner.lock();
        let known = inner.channels.get(channel.as_str());
        if known.is_some_and(|known| known.shard == shard) {
            inner.soil(&channel.into());
            self.work.send_replace(());
        }
    }

    fn message(&self, shard: u64, data: Vec<Value>) {
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
        if let Some(known) = inner.channels.get_mut(channel.as_str()) {
            known.hear(&hint);
        }
    }
}

impl Watched {
    /// The subscription to a channel is not as it should be.
    fn soil(&mut self, channel: &Arc<str>) {
        if let Some(known) = self.channels.get_mut(channel) {
            known.subscribed.send_replace(false);
            if !known.dirty {
                known.dirty = true;
                self.dirty.push(channel.clone());
            }
        }
    }
}

impl Channel {
    fn is_behind(&self, head: Position) -> bool {
        self.told
            .is_none_or(|told| told.epoch != head.epoch || told.offset < head.offset)
    }

    fn hear(&mut self, hint: &Hint) {
        if hint.records.is_empty() {
            return self.stand_at(hint.head);
        }
        self.told = Some(hint.head);
        for listener in &mut self.listeners {
            listener.hear(&hint.records);
        }
    }

    fn stand_at(&mut self, head: Position) {
        self.told = Some(head);
        for listener in &mut self.listeners {
            match &mut listener.stage {
                Stage::Begins(_, too_many) => *too_many = true,
                Stage::Goes(_) => listener.watcher.stands_at(head),
            }
        }
    }
}

impl Listener {
    fn hear(&mut self, records: &[Arc<Record>]) {
        let after = match &mut self.stage {
            Stage::Begins(waiting, too_many) => {
                waiting.extend_from_slice(records);
                if waiting.len() > WAITING {
                    waiting.clear();
                    *too_many = true;
                }
                return;
            }
            Stage::Goes(after) => *after,
        };
        let is_new = |record: &Arc<Record>| {
            record.position.epoch != after.epoch || record.position.offset > after.offset
        };
        // Records of one epoch come in order.
        let from = records.iter().position(is_new).unwrap_or(records.len());
        let new = records.get(from..).unwrap_or_default();
        if let Some(last) = new.last() {
            self.stage = Stage::Goes(last.position);
            self.watcher.appended(new);
        }
    }
}

impl Hint {
    /// Epoch, first and last offset, and the records, each after its length.
    fn read(stream: &StreamKey, mut payload: Bytes) -> Option<Self> {
        if payload.len() < 32 {
            return None;
        }
        let epoch = str::from_utf8(&payload.split_to(16)).ok()?.parse().ok()?;
        let (first, last) = (payload.get_u64(), payload.get_u64());
        let mut records = Vec::new();
        while payload.has_remaining() {
            let length = usize::try_from(payload.try_get_u32().ok()?).ok()?;
            if length > payload.len() {
                return None;
            }
            let offset = Offset(first.checked_add(records.len() as u64)?);
            let position = Position::new(epoch, offset);
            let record = stored::decode_record(stream, position, payload.split_to(length)).ok()?;
            records.push(Arc::new(record));
        }
        Some(Self {
            head: Position::new(epoch, Offset(last)),
            records,
        })
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Epoch, Tenant, UserId};

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

    #[test]
    fn only_the_shard_that_was_subscribed_at_last_is_heard() {
        let registry = Registry::new(Arc::new(Metrics::new().0));
        let tenant = Tenant::new("t").unwrap();
        let stream = StreamKey::new(tenant, UserId::new("u").unwrap());
        let heads = Arc::new(Heads::default());
        let (guard, mut subscribed) = registry.add("c", &stream, heads.clone());
        let at = |offset| Position::new(Epoch::new(7), Offset(offset));
        registry.goes(&guard, at(0));
        let push = |shard| Push {
            registry: registry.clone(),
            shard,
            disconnected: Arc::default(),
        };
        let says = |shard, offset| {
            push(shard).send(hint(at(offset))).unwrap();
            heads.0.lock().last().map_or(0, |head| head.offset.0)
        };
        let work = |shard, own: bool| registry.work(shard, |_| own).subscribe.len();
        assert_eq!((work(2, false), work(1, true), work(1, true)), (0, 1, 0));
        registry.subscribed(&"c".into(), true);
        assert_eq!((says(2, 1), says(1, 2)), (0, 2));
        // Another takes its place.
        registry.moved(|_| true);
        assert!(!*subscribed.borrow_and_update());
        assert_eq!((work(2, true), work(1, false)), (1, 0));
        registry.subscribed(&"c".into(), true);
        assert_eq!((says(1, 3), says(2, 4)), (2, 4));
        // What is gone at the one that was left is of no interest.
        registry.none_subscribed(1);
        let gone = vec![Value::BulkString(b"c".into())];
        registry.unsubscribed(1, gone.clone());
        assert!(*subscribed.borrow());
        registry.unsubscribed(2, gone);
        assert!(!*subscribed.borrow());
        assert_eq!(work(2, true), 1);
    }
}
