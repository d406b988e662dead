//! The masters, each with connections of its own, so that one that does not answer is in nobody's way but its users'.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::select_ok, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, watch},
    time,
};

use super::{
    Config, Mode,
    call::CallError,
    hints::{Push, Registry},
    link::{Keeper, Link, Outage, To},
    servers::{self, Purpose},
    slots::{Address, Slots, Votes},
};
use crate::{clock::Entropy, telemetry::Metrics};

/// How many connections to each master share the waiting for replicas: each waits for one append at a time.
const WRITERS: usize = 8;

/// The first wait before the nodes of a cluster are asked again; it doubles up to the longest while nothing is new.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How often they are asked where nobody has a doubt.
const ASKED: Duration = Duration::from_secs(10);

/// A master and the ways to it.
pub(super) struct Shard {
    /// Each has another one.
    pub(super) id: u64,
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
    /// Of a cluster nothing until its nodes were asked.
    serving: watch::Sender<Slots<Arc<Shard>>>,
    doubt: Notify,
    next: AtomicU64,
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
            serving: watch::Sender::new(Slots::none()),
            doubt: Notify::new(),
            next: AtomicU64::new(1),
        };
        if !shards.are_a_cluster() {
            let one = shards.shard(None);
            shards.serving.send_replace(Slots::all(one));
        }
        Arc::new(shards)
    }

    fn shard(&self, address: Option<Address>) -> Arc<Shard> {
        let (config, id) = (&self.config, self.next.fetch_add(1, Ordering::Relaxed));
        let (mut keepers, outage) = (Vec::new(), Arc::new(Outage::default()));
        let mut link = |purpose: Purpose| {
            let (entropy, metrics) = (self.entropy.clone(), self.metrics.clone());
            let to = To {
                config: config.clone(),
                address: address.clone(),
                purpose,
                outage: outage.clone(),
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
        Arc::new(Shard {
            id,
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

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// The master that serves `key`, once one does.
    ///
    /// # Errors
    /// When none does for as long as an answer may take.
    pub(super) async fn of(&self, key: &str) -> Result<Arc<Shard>, CallError> {
        if let Some(shard) = self.serving.borrow().of(key) {
            return Ok(shard.clone());
        }
        self.doubt();
        let mut serving = self.serving.subscribe();
        let served = serving.wait_for(|serving| serving.of(key).is_some());
        let served = time::timeout(self.timeout(), served).await;
        let shard = served.ok().and_then(Result::ok);
        let shard = shard.and_then(|serving| serving.of(key).cloned());
        shard.ok_or_else(|| CallError::Refused("nobody serves its slot".into()))
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

    /// How many masters are not connected to.
    pub(super) fn away(&self) -> usize {
        let serving = self.serving.borrow();
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
        let each = shards.iter().map(|shard| Box::pin(shard.calls.get()));
        select_ok(each).await.map(|_| ())
    }

    /// All masters, each once, whenever they are others.
    pub(super) fn watch(&self) -> watch::Receiver<Slots<Arc<Shard>>> {
        self.serving.subscribe()
    }

    /// A master may not serve its slots any more: the nodes of a cluster are asked.
    pub(super) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Asks who serves which slots, in doubt and now and then, for as long as it is polled.
    pub(super) async fn follow(self: Arc<Self>) {
        let (mut wait, mut lost) = (FIRST_WAIT, false);
        loop {
            let told = self.ask().await;
            match &told {
                Some(_) => lost = false,
                None if !lost => {
                    let urls = &self.config.urls;
                    tracing::warn!(?urls, "no node of the cluster tells who serves which slots");
                    lost = true;
                }
                None => {}
            }
            let is_news = told.is_some_and(|slots| self.adopt(&slots));
            wait = match is_news {
                true => FIRST_WAIT,
                false => (wait * 2).min(LONGEST_WAIT),
            };
            time::sleep(wait.mul_f64(0.5 + self.entropy.fraction() / 2.0)).await;
            let doubted = time::timeout(ASKED, self.doubt.notified());
            if !lost && doubted.await.is_err() {
                wait = FIRST_WAIT;
            }
        }
    }

    /// What most nodes tell, those of the settings and the masters. The others are waited for only until that is certain.
    async fn ask(&self) -> Option<Slots<Address>> {
        let present = self.addresses();
        let known: Vec<Address> = present.each().cloned().collect();
        let nodes = servers::nodes(&self.config, known).ok()?;
        let half = nodes.len() / 2;
        let ask = |node| time::timeout(self.timeout(), servers::slots(&self.config, node));
        let mut answers: FuturesUnordered<_> = nodes.into_iter().map(ask).collect();
        let mut votes = Votes::default();
        while let Some(answer) = answers.next().await {
            if let Ok(Ok(told)) = answer
                && votes.count(told) > half
            {
                break;
            }
        }
        votes.most(&present)
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

    /// Uses the masters that serve the slots now; to those that did before it stays connected as it is. Whether there
    /// was anything new.
    fn adopt(&self, slots: &Slots<Address>) -> bool {
        let addresses = self.addresses();
        if *slots == addresses {
            return false;
        }
        let before = self.serving.borrow().clone();
        let known = before.each();
        let known = known.filter_map(|shard| Some((shard.address.clone()?, shard.clone())));
        let mut shards: BTreeMap<Address, Arc<Shard>> = known.collect();
        let serving = slots.map(|address| {
            let shard = shards.entry(address.clone());
            let new = || self.shard(Some(address.clone()));
            shard.or_insert_with(new).clone()
        });
        self.serving.send_replace(serving);
        let moved = |channel: &str| {
            let id = before.of(channel).map(|shard| shard.id);
            id.is_none_or(|id| !self.is_served_by(channel, id))
        };
        self.hints.moved(moved);
        let those =
            |slots: &Slots<Address>| -> BTreeSet<Address> { slots.each().cloned().collect() };
        let (masters, before) = (those(slots), those(&addresses));
        match masters == before {
            true => tracing::debug!("slots of the cluster went to another master"),
            false => tracing::info!(?masters, ?before, "others are masters of the cluster now"),
        }
        true
    }
}
