//! A connection that comes back by itself.

use std::{sync::Arc, time::Duration};

use redis::RedisResult;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};

use super::{
    Config,
    call::{CallError, Functions},
    servers::{self, Connection, Purpose},
};
use crate::{clock::Entropy, telemetry::Metrics};

/// The first wait before connecting again; it doubles up to the longest, and is jittered.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A connection of which this much came without a fault is well; after one that was not, the wait stays as it is.
const WELL: Duration = Duration::from_secs(30);

/// A connection, and how many there were before it.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) number: u64,
}

/// A connection that is made anew, in the background, whenever it is lost.
pub(super) struct Link {
    live: watch::Sender<Option<Live>>,
    /// Connections with numbers below this are to be made anew, and used until then.
    stale: watch::Sender<u64>,
    timeout: Duration,
}

/// Keeps a link connected for as long as it lives.
pub(super) struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Keeper {
    /// Runs `task` until this is dropped.
    pub(super) fn of(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Link {
    /// A link that is not connected yet, and what connects it.
    pub(super) fn new(
        config: Arc<Config>,
        purpose: Purpose,
        entropy: Entropy,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, Keeper) {
        let link = Arc::new(Self {
            live: watch::Sender::new(None),
            stale: watch::Sender::new(0),
            timeout: config.timeout,
        });
        let keeping = link.clone().keep(config, purpose, entropy, metrics);
        (link, Keeper::of(keeping))
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether there is a connection.
    pub(super) fn is_live(&self) -> bool {
        self.live.borrow().is_some()
    }

    /// The connection, once there is one.
    ///
    /// # Errors
    /// When there is none for as long as an answer may take.
    pub(super) async fn get(&self) -> Result<Live, CallError> {
        if let Some(live) = &*self.live.borrow() {
            return Ok(live.clone());
        }
        let mut live = self.live.subscribe();
        let connected = time::timeout(self.timeout, live.wait_for(Option::is_some)).await;
        match connected {
            Ok(Ok(live)) if live.is_some() => live
                .clone()
                .ok_or_else(|| CallError::Refused("not connected".into())),
            _ => Err(CallError::Refused("not connected".into())),
        }
    }

    /// The connection of that number is of no use any more.
    pub(super) fn lost(&self, number: u64) {
        self.live.send_if_modified(|live| {
            let is = live.as_ref().is_some_and(|live| live.number == number);
            if is {
                *live = None;
            }
            is
        });
    }

    /// The connection of that number is to be made anew, but is of use until then: to some of a cluster's servers.
    pub(super) fn stale(&self, number: u64) {
        self.stale.send_if_modified(|stale| {
            let is_news = number >= *stale;
            if is_news {
                *stale = number + 1;
            }
            is_news
        });
    }

    /// How many connections there were before this one.
    pub(super) fn number(&self) -> Option<u64> {
        self.live.borrow().as_ref().map(|live| live.number)
    }

    async fn is_stale(&self, number: u64) {
        let mut stale = self.stale.subscribe();
        let _never_closed = stale.wait_for(|stale| *stale > number).await;
    }

    /// Resolves when the connection is another than that of `number`, or none.
    pub(super) async fn changed_from(&self, number: u64) {
        let mut live = self.live.subscribe();
        let is_other = |live: &Option<Live>| live.as_ref().is_none_or(|live| live.number != number);
        let _never_closed = live.wait_for(is_other).await;
    }

    async fn keep(
        self: Arc<Self>,
        config: Arc<Config>,
        purpose: Purpose,
        entropy: Entropy,
        metrics: Arc<Metrics>,
    ) {
        let mut wait = FIRST_WAIT;
        for number in 0u64.. {
            let since = Instant::now();
            loop {
                match self.connect(&config, &purpose).await {
                    Ok(connection) => {
                        self.live.send_replace(Some(Live { connection, number }));
                        break;
                    }
                    Err(error) => {
                        let (error, urls) = (error.to_string(), &config.urls);
                        tracing::warn!(%error, ?urls, "Redis cannot be reached");
                    }
                }
                time::sleep(wait.mul_f64(0.5 + entropy.fraction())).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            if number > 0 {
                metrics.redis_reconnects.increment(1);
                tracing::info!(took = ?since.elapsed(), "connected to Redis again");
            }
            let connected = Instant::now();
            tokio::select! {
                () = self.changed_from(number) => {}
                () = self.is_stale(number) => {}
            }
            // One that is lost at once, again and again, is not asked for in a busy loop.
            if connected.elapsed() > WELL {
                wait = FIRST_WAIT;
            } else {
                time::sleep(wait.mul_f64(0.5 + entropy.fraction())).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }

    async fn connect(&self, config: &Config, purpose: &Purpose) -> RedisResult<Connection> {
        let connecting = async {
            let mut connection = servers::connect(config, purpose).await?;
            if let Purpose::Calls(_) = purpose {
                Functions::offer_to(&mut connection).await?;
                servers::warn_of_eviction(&mut connection).await;
            }
            Ok(connection)
        };
        // Sentinels are asked one after the other.
        let steps = u32::try_from(config.urls.len()).unwrap_or(1) + 2;
        match time::timeout(config.timeout * steps, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err((redis::ErrorKind::Io, "connecting took too long").into()),
        }
    }
}
