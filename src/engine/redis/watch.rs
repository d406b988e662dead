//! Watching streams: subscriptions that come back by themselves, and heads that are compared in case a hint was lost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream};
use redis::RedisResult;
use tokio::time::{self, Instant};

use super::{
    Inner, call,
    call::CallError,
    link::{Keeper, Live},
    names,
    servers::{self, Connection},
    shards::Shard,
};
use crate::{
    engine::{Condition, EngineError, Watch, Watcher},
    event::{Position, StreamKey},
};

/// How often the heads of all watched streams are compared with what their watchers heard of.
const COMPARE: Duration = Duration::from_secs(5);

/// How long a hint may be under way before a head that differs means that it is lost.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// How long a watched stream stays when nobody renews that, and how often it is renewed.
pub(super) const PINNED: Duration = Duration::from_secs(15 * 60);
pub(super) const RENEWED: Duration = Duration::from_secs(4 * 60);

/// How many streams one call asks for, and how many calls are under way at once.
const STREAMS: usize = 256;
const CALLS: usize = 32;

/// How often a master is asked whether it evicts keys.
const EVICTION: Duration = Duration::from_secs(10);

const SUBSCRIBE: &str = "SSUBSCRIBE";
const UNSUBSCRIBE: &str = "SUNSUBSCRIBE";

/// How many subscriptions are under way at once.
const SUBSCRIPTIONS: usize = 64;

/// How long a subscription that was refused is left alone.
const REFUSED: Duration = Duration::from_secs(1);

/// Streams of one bucket, with their channels.
type Piece = (usize, Vec<(Arc<str>, StreamKey)>);

impl Inner {
    pub(super) async fn watch(
        self: &Arc<Self>,
        stream: &StreamKey,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Watch, EngineError> {
        let channel = self.names.of('c', stream);
        let (guard, mut subscribed) = self.hints.add(&channel, stream, watcher);
        // Subscribed first, so that nothing appended after the head is read can be missed.
        let confirmed = subscribed.wait_for(|subscribed| *subscribed);
        let confirmed = time::timeout(self.config.timeout, confirmed)
            .await
            .is_ok_and(|confirmed| confirmed.is_ok());
        if !confirmed {
            let why = "the subscription was not confirmed".to_owned();
            return Err(EngineError::Unavailable(why));
        }
        loop {
            let head = self.pinned(stream).await?;
            if self.hints.goes(&guard, head) {
                let guard = Box::new(guard);
                return Ok(Watch { head, guard });
            }
        }
    }

    /// The head of a stream, which is kept from being evicted for a while.
    async fn pinned(&self, stream: &StreamKey) -> Result<Position, CallError> {
        let of_stream = vec![("".into(), stream.clone())];
        let one = (stream.bucket(), of_stream);
        let heads = match self.pin(&one).await {
            Ok(heads) => heads,
            // Where nothing can be written, nothing is evicted either.
            Err(_) => self.heads(&one).await?,
        };
        heads.into_iter().next().ok_or_else(|| call::odd("no head"))
    }

    async fn heads(&self, (bucket, streams): &Piece) -> Result<Vec<Position>, CallError> {
        let mut call = self.call("heads", *bucket);
        for (_, stream) in streams {
            call.arg(names::sid(stream));
        }
        self.positions(*bucket, &call).await
    }

    async fn pin(&self, (bucket, streams): &Piece) -> Result<Vec<Position>, CallError> {
        let mut call = self.call("pin", *bucket);
        call.arg((self.clock.now() + PINNED).as_millis());
        for (_, stream) in streams {
            call.arg(names::sid(stream));
        }
        self.positions(*bucket, &call).await
    }

    async fn positions(
        &self,
        bucket: usize,
        call: &call::Call,
    ) -> Result<Vec<Position>, CallError> {
        let mut answer = self.ask(bucket, call).await?;
        let epoch = call::epoch_of(call::next(&mut answer)?)?;
        let offset = |item| {
            Ok(Position::new(
                epoch,
                crate::event::Offset(call::number(item)?),
            ))
        };
        answer.map(offset).collect()
    }

    /// Keeps the watched streams from being evicted.
    pub(super) async fn pin_watched(&self) {
        let pieces = pieces(self.hints.watched(|channel| self.shards.is_live(channel))).into_iter();
        let pins = pieces.map(|piece| async move { self.pin(&piece).await });
        let mut pins = stream::iter(pins).buffer_unordered(CALLS);
        while let Some(pinned) = pins.next().await {
            if let Err(error) = pinned {
                tracing::debug!(?error, "watched streams were not pinned");
            }
        }
    }

    /// Compares the heads of `watched` with what was heard, and tells those that missed something.
    async fn compare(&self, watched: Vec<(Arc<str>, StreamKey)>) {
        let behind = self.behind(pieces(watched)).await;
        if behind.is_empty() {
            return;
        }
        // Most often the hint is only under way.
        time::sleep(UNDER_WAY).await;
        let behind = behind
            .into_iter()
            .map(|(channel, stream, _)| (channel, stream));
        for (channel, _, head) in self.behind(pieces(behind.collect())).await {
            self.hints.stands_at(&channel, head);
        }
    }

    /// The streams whose watchers have not heard of everything.
    async fn behind(&self, pieces: Vec<Piece>) -> Vec<(Arc<str>, StreamKey, Position)> {
        let asked = pieces.into_iter().map(|piece| async move {
            let heads = self.heads(&piece).await;
            (piece, heads)
        });
        let mut asked = stream::iter(asked).buffer_unordered(CALLS);
        let mut behind = Vec::new();
        while let Some(((_, streams), heads)) = asked.next().await {
            match heads {
                Ok(heads) => {
                    let each = streams.into_iter().zip(heads);
                    let each = each.map(|((channel, stream), head)| (channel, stream, head));
                    behind.extend(
                        each.filter(|(channel, _, head)| self.hints.is_behind(channel, *head)),
                    );
                }
                Err(error) => tracing::debug!(?error, "heads were not compared"),
            }
        }
        behind
    }

    /// Compares the clocks for as long as it is polled, and tells how things stand.
    pub(super) async fn compare_clocks_always(self: Arc<Self>) {
        let mut ticks = every(COMPARE);
        loop {
            ticks.tick().await;
            self.compare_clocks().await;
            let refuses = self.condition() != Condition::Well;
            self.metrics.engine_refusing.set(u8::from(refuses));
            let away = self.shards.away() as f64;
            self.metrics.redis_masters_away.set(away);
        }
    }

    /// Hears what each master publishes, for as long as it is polled.
    pub(super) async fn hear_always(self: Arc<Self>) {
        let mut serving = self.shards.watch();
        let mut hearing: BTreeMap<u64, Keeper> = BTreeMap::new();
        loop {
            let shards = serving.borrow_and_update().clone();
            hearing.retain(|id, _| shards.each().any(|shard| shard.id == *id));
            for shard in shards.each() {
                let hear = || Keeper::of(self.clone().hear(shard.clone()));
                hearing.entry(shard.id).or_insert_with(hear);
            }
            drop(shards);
            let _never_closed_while_this_lives = serving.changed().await;
        }
    }

    async fn hear(self: Arc<Self>, shard: Arc<Shard>) {
        tokio::join!(
            self.subscribe_always(&shard),
            self.compare_always(&shard),
            self.warn_of_eviction(&shard)
        );
    }

    /// The streams that are watched here and that `shard` has.
    fn watched_at(&self, shard: &Shard) -> Vec<(Arc<str>, StreamKey)> {
        let own = |channel: &str| self.shards.is_served_by(channel, shard.id);
        self.hints.watched(own)
    }

    /// Compares heads, and sees that the connection that hints come by is alive.
    async fn compare_always(&self, shard: &Shard) {
        let mut ticks = every(COMPARE);
        loop {
            ticks.tick().await;
            let watched = self.watched_at(shard);
            if watched.is_empty() {
                continue;
            }
            let deadline = Instant::now() + self.shards.timeout();
            if let Ok(mut live) = shard.published.get_until(deadline).await
                && let Err(error) = live.connection.send(&redis::cmd("PING")).await
            {
                let master = &shard.name;
                tracing::debug!(%error, master, "the connection for hints does not answer");
                shard.published.lost(live.number);
                self.shards.doubt();
            }
            self.compare(watched).await;
        }
    }

    /// Subscribes to what is watched, and unsubscribes from what is not any more.
    async fn subscribe_always(self: &Arc<Self>, shard: &Arc<Shard>) {
        let mut work = self.hints.work.subscribe();
        loop {
            let live = shard.published.get().await;
            // It may still tell of the connection before.
            let _before = shard.disconnected.notified().now_or_never();
            let _connected = self.hints.connected(shard.id);
            loop {
                work.mark_unchanged();
                self.subscribe(shard, &live).await;
                tokio::select! {
                    _never_closed_while_this_lives = work.changed() => {}
                    () = shard.published.changed_from(live.number) => break,
                    () = shard.disconnected.notified() => {
                        shard.published.lost(live.number);
                        break;
                    }
                }
            }
        }
    }

    /// Does what is to be done.
    async fn subscribe(self: &Arc<Self>, shard: &Arc<Shard>, live: &Live) {
        let own = |channel: &str| self.shards.is_served_by(channel, shard.id);
        let work = self.hints.work(shard.id, own);
        let asked = work.subscribe.clone();
        let mut requests = Vec::new();
        for (command, channels) in [(UNSUBSCRIBE, work.unsubscribe), (SUBSCRIBE, work.subscribe)] {
            let each = channels.into_iter();
            requests.extend(each.map(|channel| subscription(&live.connection, command, channel)));
        }
        let mut requests = stream::iter(requests).buffered(SUBSCRIPTIONS);
        let (mut refused, mut last) = (0, None);
        while let Some(done) = requests.next().await {
            let Err(error) = done else { continue };
            self.metrics.redis_errors.increment(1);
            self.shards.doubt_by(&error);
            if error.is_io_error() {
                // What is left is subscribed to by the next connection.
                tracing::debug!(%error, master = shard.name, "a subscription was not answered");
                return shard.published.lost(live.number);
            }
            match call::is_moving(&error) {
                true => tracing::debug!(%error, master = shard.name, "a channel is elsewhere"),
                false => (refused, last) = (refused + 1, Some(error)),
            }
        }
        if let Some(error) = last {
            let master = &shard.name;
            tracing::warn!(%error, master, refused, "Redis refused subscriptions");
        }
        self.follow_up(shard, &asked);
    }

    /// What was subscribed to anew is compared, and what was not confirmed is asked for again. Not in the way: new
    /// subscriptions wait for nothing.
    fn follow_up(self: &Arc<Self>, shard: &Shard, asked: &[Arc<str>]) {
        let resumed = self.hints.resumed(asked);
        if !resumed.is_empty() {
            let inner = self.clone();
            tokio::spawn(async move { inner.compare(resumed).await });
        }
        let (id, left) = (shard.id, self.hints.unconfirmed(shard.id, asked));
        if !left.is_empty() {
            let inner = self.clone();
            tokio::spawn(async move {
                time::sleep(REFUSED).await;
                inner.hints.ask_again(id, &left);
            });
        }
    }

    /// Says when a master begins to drop keys by itself: what is gone by itself is gone without a word.
    async fn warn_of_eviction(&self, shard: &Shard) {
        let (mut did, master) = (false, &shard.name);
        loop {
            let mut live = shard.calls.get().await;
            let does = servers::evicts(&mut live.connection).await;
            match (did, &does) {
                (false, Ok(true)) => tracing::error!(
                    master,
                    "Redis evicts keys when it is full: set `maxmemory-policy noeviction`"
                ),
                (true, Ok(false)) => tracing::info!(master, "Redis does not evict keys any more"),
                (_, Err(error)) => {
                    tracing::debug!(%error, master, "Redis does not tell whether it evicts keys");
                    self.shards.failed(&shard.calls, &live, error);
                }
                _ => {}
            }
            did = does.unwrap_or(did);
            time::sleep(EVICTION).await;
        }
    }
}

fn every(period: Duration) -> time::Interval {
    let mut ticks = time::interval(period);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    ticks
}

/// Subscribes to a channel or unsubscribes from it.
async fn subscription(
    connection: &Connection,
    command: &'static str,
    channel: Arc<str>,
) -> RedisResult<()> {
    let mut request = redis::cmd(command);
    request.arg(&*channel);
    let done = connection.clone().send(&request).await;
    done.map(|_| ())
}

/// `watched` by bucket, in pieces that one call asks for.
fn pieces(watched: Vec<(Arc<str>, StreamKey)>) -> Vec<Piece> {
    let mut buckets: BTreeMap<usize, Vec<(Arc<str>, StreamKey)>> = BTreeMap::new();
    for one in watched {
        buckets.entry(one.1.bucket()).or_default().push(one);
    }
    let piece = |(bucket, streams): (usize, Vec<(Arc<str>, StreamKey)>)| {
        let pieces = streams
            .chunks(STREAMS)
            .map(move |piece| (bucket, piece.to_vec()));
        pieces.collect::<Vec<_>>()
    };
    buckets.into_iter().flat_map(piece).collect()
}
