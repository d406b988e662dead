//! The masters, each with connections of its own, so that one that does not answer holds up its users
//! only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::select_ok, stream::FuturesUnordered};
use redis::ConnectionInfo;
use tokio::{
    select,
    sync::{Notify, watch},
    time::{self, Instant},
};

use super::{
    Config, Mode,
    call::CallError,
    cause,
    hints::Registry,
    link::{Keeper, Link, Outage, To},
    problems::Problems,
    push::Push,
    servers::{self, Purpose},
    slots::{Address, Slots, Votes},
};
use crate::{clock::Entropy, telemetry::Metrics};

/// How many connections to each master share the waiting for replicas: each waits for one append at a time.
const WRITERS: usize = 8;

/// The first wait before the nodes of a cluster are asked again; it doubles up to the longest while nothing is new.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How often they are asked at most where a master has answered that a slot is elsewhere.
const ANSWERED: Duration = Duration::from_millis(200);

/// How often they are asked where nobody has a doubt.
const ASKED: Duration = Duration::from_secs(10);

/// What leads to the nodes of a cluster that are asked who serves which slots.
const CLUSTER: &str = "cluster";

/// A master and the ways to it.
pub(super) struct Shard {
    /// No two have the same.
    pub(super) id: u64,
    /// Where it is, for messages.
    pub(super) name: String,
    /// Where it is in a cluster; without one it is found as the settings say.
    address: Option<Address>,
    pub(super) calls: Arc<Link>,
    /// Where appends wait for replicas; empty where they do not.
    writers: Vec<Arc<Link>>,
    writer: AtomicUsize,
    pub(super) published: Arc<Link>,
    /// The connection that hints come by broke.
    pub(super) disconnected: Arc<Notify>,
    _keepers: Vec<Keeper>,
}

impl Shard {
    /// The connection on which the next append waits for replicas.
    pub(super) fn next_writer(&self) -> &Link {
        let next = self.writer.fetch_add(1, Ordering::Relaxed);
        let writer = self.writers.get(next % self.writers.len().max(1));
        writer.unwrap_or(&self.calls)
    }
}

/// All masters: of a cluster those that serve slots, else the one.
pub(super) struct Shards {
    config: Arc<Config>,
    entropy: Entropy,
    metrics: Arc<Metrics>,
    hints: Arc<Registry>,
    pub(super) problems: Arc<Problems>,
    /// Of a cluster nothing until its nodes were asked.
    serving: watch::Sender<Slots<Arc<Shard>>>,
    /// A connection failed.
    doubt: Notify,
    /// A master answered that a slot is elsewhere.
    answered: Notify,
    next_id: AtomicU64,
}

impl Shards {
    /// They are connected to in the background. Needs a running tokio runtime, and in a cluster `follow`.
    pub(super) fn new(
        config: Arc<Config>,
        entropy: Entropy,
        metrics: Arc<Metrics>,
        hints: Arc<Registry>,
    ) -> Arc<Self> {
        let shards = Self {
            config,
            entropy,
            metrics,
            hints,
            problems: Arc::default(),
            serving: watch::Sender::new(Slots::none()),
            doubt: Notify::new(),
            answered: Notify::new(),
            next_id: AtomicU64::new(1),
        };
        if !shards.are_a_cluster() {
            let one = shards.shard(None);
            shards.serving.send_replace(Slots::all(one));
        }
        Arc::new(shards)
    }

    fn shard(&self, address: Option<Address>) -> Arc<Shard> {
        let (config, id) = (&self.config, self.next_id.fetch_add(1, Ordering::Relaxed));
        let (mut keepers, outage) = (Vec::new(), Arc::new(Outage::default()));
        let mut link = |purpose: Purpose| {
            let (entropy, metrics) = (self.entropy.clone(), self.metrics.clone());
            let to = To {
                config: config.clone(),
                address: address.clone(),
                purpose,
                outage: outage.clone(),
                problems: self.problems.clone(),
            };
            let (link, keeper) = Link::new(to, entropy, metrics);
            keepers.push(keeper);
            link
        };
        let disconnected = Arc::new(Notify::new());
        let push = Push {
            registry: self.hints.clone(),
            shard: id,
            disconnected: disconnected.clone(),
        };
        let (calls, published) = (link(Purpose::Calls), link(Purpose::Hints(push)));
        let writers = match config.wait_replicas {
            0 => 0,
            _ => WRITERS,
        };
        let writers = (0..writers).map(|_| link(Purpose::Writes)).collect();
        let name = address.as_ref().map(Address::to_string);
        Arc::new(Shard {
            id,
            name: name.unwrap_or_else(|| format!("{:?}", config.urls)),
            address,
            calls,
            writers,
            writer: AtomicUsize::new(0),
            published,
            disconnected,
            _keepers: keepers,
        })
    }

    pub(super) fn are_a_cluster(&self) -> bool {
        self.config.mode == Mode::Cluster
    }

    pub(super) fn mode(&self) -> Mode {
        self.config.mode
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// The master that serves `key`, once one does.
    ///
    /// # Errors
    /// When none does until `deadline`.
    pub(super) async fn of(&self, key: &str, deadline: Instant) -> Result<Arc<Shard>, CallError> {
        if let Some(shard) = self.serving.borrow().of(key) {
            return Ok(shard.clone());
        }
        self.doubt();
        let mut serving = self.serving.subscribe();
        let served = serving.wait_for(|serving| serving.of(key).is_some());
        let served = time::timeout_at(deadline, served).await;
        let shard = served.ok().and_then(Result::ok);
        let shard = shard.and_then(|serving| serving.of(key).cloned());
        shard.ok_or_else(|| CallError::Refused("nobody serves its slot".into()))
    }

    /// Resolves when the master that serves `key` is not that one.
    pub(super) async fn is_elsewhere(&self, key: &str, id: u64) {
        let mut serving = self.serving.subscribe();
        let is = |serving: &Slots<Arc<Shard>>| serving.of(key).is_none_or(|shard| shard.id != id);
        let _never_closed_while_this_lives = serving.wait_for(is).await;
    }

    /// Whether the master that serves `key` is that one.
    pub(super) fn is_served_by(&self, key: &str, id: u64) -> bool {
        let serving = self.serving.borrow();
        serving.of(key).is_some_and(|shard| shard.id == id)
    }

    /// Whether the master that serves `key` is connected to.
    pub(super) fn is_live(&self, key: &str) -> bool {
        let serving = self.serving.borrow();
        serving.of(key).is_some_and(|shard| shard.calls.is_live())
    }

    /// Whether any master is connected to.
    pub(super) fn any_is_live(&self) -> bool {
        let serving = self.serving.borrow();
        serving.each().any(|shard| shard.calls.is_live())
    }

    /// How many masters are not connected to; 1 while it is not known which there are.
    pub(super) fn away(&self) -> usize {
        let serving = self.serving.borrow();
        if serving.each().next().is_none() {
            return 1;
        }
        let away = serving.each().filter(|shard| !shard.calls.is_live());
        away.map(|shard| shard.id).collect::<BTreeSet<_>>().len()
    }

    /// Waits until any master is connected to.
    ///
    /// # Errors
    /// When none is for as long as an answer may take.
    pub(super) async fn reached(&self) -> Result<(), CallError> {
        let mut serving = self.serving.subscribe();
        let known = serving.wait_for(|serving| serving.each().next().is_some());
        let shards: Vec<Arc<Shard>> = match time::timeout(self.timeout(), known).await {
            Ok(Ok(serving)) => serving.each().cloned().collect(),
            _ => return Err(CallError::Refused("not connected".into())),
        };
        let deadline = Instant::now() + self.timeout();
        let each = shards
            .iter()
            .map(|shard| Box::pin(shard.calls.get_until(deadline)));
        select_ok(each).await.map(|_| ())
    }

    /// All masters, each once, whenever they are others.
    pub(super) fn watch(&self) -> watch::Receiver<Slots<Arc<Shard>>> {
        self.serving.subscribe()
    }

    /// A connection failed, so that another may have taken the master's place: the nodes of a cluster are asked, the
    /// more seldom the longer nothing is new.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// A master answered that a slot is elsewhere: the nodes of a cluster are asked, as soon as they may be again.
    pub(super) fn doubt_at_once(&self) {
        self.answered.notify_one();
    }

    /// Asks who serves which slots, in doubt and now and then, for as long as it is polled.
    pub(super) async fn follow(self: Arc<Self>) {
        let (mut wait, mut is_lost, mut candidate) = (FIRST_WAIT, false, None);
        loop {
            let is_news = match self.ask().await {
                Ok((slots, is_most)) => {
                    self.problems.note_reached(CLUSTER);
                    if std::mem::take(&mut is_lost) {
                        tracing::info!("the cluster tells again who serves which slots");
                    }
                    self.consider(slots, is_most, &mut candidate)
                }
                Err(why) => {
                    self.problems.note_unreached(CLUSTER, why.clone());
                    if !std::mem::replace(&mut is_lost, true) {
                        tracing::warn!(%why, "no node of the cluster tells who serves which slots");
                    }
                    false
                }
            };
            wait = match is_news {
                true => FIRST_WAIT,
                false => (wait * 2).min(LONGEST_WAIT),
            };
            if self.rest(wait, is_lost).await {
                wait = FIRST_WAIT;
            }
        }
    }

    /// Waits until the nodes are to be asked again. Whether nobody had a doubt.
    async fn rest(&self, wait: Duration, is_lost: bool) -> bool {
        let doubted = async {
            time::sleep(wait.mul_f64(0.5 + self.entropy.fraction() / 2.0)).await;
            !is_lost && time::timeout(ASKED, self.doubt.notified()).await.is_err()
        };
        let answered = async {
            time::sleep(ANSWERED).await;
            self.answered.notified().await;
        };
        select! {
            is_quiet = doubted => is_quiet,
            () = answered => false,
        }
    }

    /// Asks the nodes of the settings and the masters. Returns what most of them tell, and whether those are more than
    /// half: beyond that nobody is waited for, and not for long once one has answered.
    ///
    /// # Errors
    /// When none tells: what came of the last one.
    async fn ask(&self) -> Result<(Slots<Address>, bool), String> {
        let present = self.addresses();
        let known: Vec<Address> = present.each().cloned().collect();
        let nodes = servers::nodes(&self.config, known).map_err(|error| error.to_string())?;
        let mut votes = Votes::of(nodes.len());
        let ask = |node: ConnectionInfo| async {
            let name = node.addr().to_string();
            let told = time::timeout(self.timeout(), servers::slots(&self.config, node)).await;
            match told {
                Ok(told) => told.map_err(|error| format!("{name}: {}", cause::explained(&error))),
                Err(_) => Err(format!("{name}: it does not answer")),
            }
        };
        let mut answers: FuturesUnordered<_> = nodes.into_iter().map(ask).collect();
        let mut until = Instant::now() + self.timeout() * 2;
        let mut last = "nobody is known".to_owned();
        while let Ok(Some(answer)) = time::timeout_at(until, answers.next()).await {
            match answer {
                Ok(told) => {
                    if votes.count(told) {
                        break;
                    }
                    until = until.min(Instant::now() + self.timeout() / 4);
                }
                Err(why) => last = why,
            }
        }
        votes.most(&present).ok_or(last)
    }

    /// Uses what the nodes told, if most of them did, or the second time in a row. Whether there was anything new.
    fn consider(
        &self,
        slots: Slots<Address>,
        is_most: bool,
        candidate: &mut Option<Slots<Address>>,
    ) -> bool {
        let present = self.addresses();
        let is_known = present.each().next().is_some();
        let is_new = slots != present;
        if is_new && is_known && !is_most && candidate.as_ref() != Some(&slots) {
            *candidate = Some(slots);
            return true;
        }
        *candidate = None;
        if is_new {
            self.adopt(&slots, &present);
        }
        is_new
    }

    /// Where the masters are.
    fn addresses(&self) -> Slots<Address> {
        let unknown = || Address {
            host: String::new(),
            port: 0,
        };
        let serving = self.serving.borrow();
        serving.map(|shard| shard.address.clone().unwrap_or_else(unknown))
    }

    /// Uses the masters that serve the slots now; to those that did before it stays connected as it is.
    fn adopt(&self, slots: &Slots<Address>, present: &Slots<Address>) {
        let before = self.serving.borrow().clone();
        self.serving.send_replace(self.at(slots, &before));
        let moved = |channel: &str| {
            let id = before.of(channel).map(|shard| shard.id);
            id.is_none_or(|id| !self.is_served_by(channel, id))
        };
        self.hints.moved(moved);
        let those =
            |slots: &Slots<Address>| -> BTreeSet<Address> { slots.each().cloned().collect() };
        let (masters, before) = (those(slots), those(present));
        match masters == before {
            true => tracing::debug!("slots of the cluster went to another master"),
            false => tracing::info!(?masters, ?before, "others are masters of the cluster now"),
        }
    }

    /// The masters at these addresses: those of `before`, and new ones.
    fn at(&self, slots: &Slots<Address>, before: &Slots<Arc<Shard>>) -> Slots<Arc<Shard>> {
        let known = before.each();
        let known = known.filter_map(|shard| Some((shard.address.clone()?, shard.clone())));
        let mut shards: BTreeMap<Address, Arc<Shard>> = known.collect();
        slots.map(|address| {
            let shard = shards.entry(address.clone());
            let new = || self.shard(Some(address.clone()));
            shard.or_insert_with(new).clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use redis::{RedisError, Value};

    use super::*;
    use crate::{
        engine::Watcher,
        event::{Position, Record, StreamKey, Tenant, UserId},
    };

    struct Deaf;

    impl Watcher for Deaf {
        fn appended(&self, _: &[Arc<Record>]) {}

        fn stands_at(&self, _: Position) {}
    }

    fn of_a_cluster() -> Arc<Shards> {
        let config = Config {
            mode: Mode::Cluster,
            ..Config::default()
        };
        let metrics = Arc::new(Metrics::new().0);
        let hints = Registry::new(metrics.clone());
        Shards::new(Arc::new(config), Entropy::seeded(1), metrics, hints)
    }

    fn answer(text: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
            Ok(redis::Value::ServerError(error)) => error.into(),
            other => panic!("{other:?}"),
        }
    }

    /// However often other connections fail meanwhile.
    #[tokio::test(start_paused = true)]
    async fn where_a_slot_is_elsewhere_the_nodes_are_asked_at_once() {
        let shards = of_a_cluster();
        let rested = async || {
            let began = Instant::now();
            assert!(
                !shards.rest(LONGEST_WAIT, false).await,
                "somebody had a doubt"
            );
            began.elapsed()
        };
        shards.doubt();
        let seldom = rested().await;
        assert!(seldom >= LONGEST_WAIT / 2, "{seldom:?}");
        shards.doubt();
        shards.doubt_by(&answer("MOVED 1 127.0.0.1:1"));
        let soon = rested().await;
        assert!(soon < ANSWERED * 2, "{soon:?}");
    }

    /// Whether or not the master that a channel was subscribed to at says that it is elsewhere now.
    #[tokio::test(start_paused = true)]
    async fn where_a_slot_moves_its_channels_are_subscribed_to_at_the_new_master() {
        let shards = of_a_cluster();
        let stream = StreamKey::new(Tenant::new("t").unwrap(), UserId::new("u").unwrap());
        let (_guard, subscribed) = shards.hints.add("c", &stream, Arc::new(Deaf));
        for port in [1, 2] {
            let host = "127.0.0.1".to_owned();
            let slots = Slots::all(Address { host, port });
            shards.adopt(&slots, &shards.addresses());
            assert!(!*subscribed.borrow(), "not at the master at port {port}");
            let id = shards.serving.borrow().of("c").unwrap().id;
            let is_its_own = |channel: &str| shards.is_served_by(channel, id);
            let asked = shards.hints.work(id, is_its_own).subscribe;
            assert_eq!(asked, [Arc::<str>::from("c")]);
            let confirmed = vec![Value::BulkString(b"c".into())];
            shards.hints.subscribed(id, confirmed);
            assert!(*subscribed.borrow());
        }
    }
}
