//! A connection that comes back by itself.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::RedisResult;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};

use super::{
    Config,
    call::{CallError, Functions},
    cause,
    problems::Problems,
    servers::{self, Connection, Purpose},
    slots::Address,
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
    pub(super) fn new(to: To, entropy: Entropy, metrics: Arc<Metrics>) -> (Arc<Self>, Keeper) {
        let link = Arc::new(Self {
            live: watch::Sender::new(None),
        });
        let keeping = link.clone().keep(to, entropy, metrics);
        (link, Keeper::of(keeping))
    }

    /// Whether there is a connection.
    pub(super) fn is_live(&self) -> bool {
        self.live.borrow().is_some()
    }

    /// The connection, once there is one.
    pub(super) async fn get(&self) -> Live {
        let mut live = self.live.subscribe();
        loop {
            if let Some(live) = &*live.borrow_and_update() {
                return live.clone();
            }
            let _never_closed_while_this_lives = live.changed().await;
        }
    }

    /// The connection, once there is one.
    ///
    /// # Errors
    /// When there is none until `deadline`.
    pub(super) async fn get_until(&self, deadline: Instant) -> Result<Live, CallError> {
        let live = time::timeout_at(deadline, self.get()).await;
        live.map_err(|_| CallError::Refused("not connected".into()))
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

    /// Resolves when the connection is another than that of `number`, or none.
    pub(super) async fn changed_from(&self, number: u64) {
        let mut live = self.live.subscribe();
        let is_other = |live: &Option<Live>| live.as_ref().is_none_or(|live| live.number != number);
        let _never_closed_while_this_lives = live.wait_for(is_other).await;
    }

    async fn keep(self: Arc<Self>, to: To, entropy: Entropy, metrics: Arc<Metrics>) {
        let mut wait = FIRST_WAIT;
        for number in 0u64.. {
            let (since, mut is_away) = (Instant::now(), false);
            loop {
                match to.connect().await {
                    Ok(connection) => {
                        self.live.send_replace(Some(Live { connection, number }));
                        break;
                    }
                    Err(error) if !is_away => {
                        is_away = true;
                        let why = cause::explained(&error);
                        to.outage.begins(&to, &why);
                        to.is_unreached(why);
                    }
                    Err(error) => {
                        tracing::debug!(%error, %to, "still not connected");
                        to.is_unreached(cause::explained(&error));
                    }
                }
                time::sleep(wait.mul_f64(0.5 + entropy.fraction())).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            if number > 0 {
                metrics.redis_reconnects.increment(1);
            }
            if is_away {
                to.problems.note_reached(&to.to_string());
                to.outage.ends(&to, since.elapsed());
            }
            let connected = Instant::now();
            self.changed_from(number).await;
            // One that is lost at once, again and again, is not asked for in a busy loop.
            if connected.elapsed() > WELL {
                wait = FIRST_WAIT;
            } else {
                time::sleep(wait.mul_f64(0.5 + entropy.fraction())).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Where a link leads.
pub(super) struct To {
    pub(super) config: Arc<Config>,
    /// A master of a cluster; else the settings say who.
    pub(super) address: Option<Address>,
    pub(super) purpose: Purpose,
    pub(super) outage: Arc<Outage>,
    pub(super) problems: Arc<Problems>,
}

impl Drop for To {
    /// What is not connected to any more is no problem.
    fn drop(&mut self) {
        self.problems.note_reached(&self.to_string());
    }
}

/// How many links to one server fail to connect: that is said when the first does, and when none does any more.
#[derive(Default)]
pub(super) struct Outage(AtomicUsize);

impl Outage {
    fn begins(&self, to: &To, error: &str) {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => tracing::warn!(error, %to, "Redis cannot be reached"),
            _ => tracing::debug!(error, %to, "Redis cannot be reached for this either"),
        }
    }

    fn ends(&self, to: &To, took: Duration) {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            1 => tracing::info!(?took, %to, "Redis is reached again"),
            _ => tracing::debug!(?took, %to, "connected again"),
        }
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{address}")?,
            None => write!(f, "{:?}", self.config.urls)?,
        }
        write!(f, " for {}", self.purpose)
    }
}

impl To {
    fn is_unreached(&self, why: String) {
        let to = self.to_string();
        self.problems.note_unreached(&to, format!("{to}: {why}"));
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let Self {
            config,
            address,
            purpose,
            ..
        } = self;
        let connecting = async {
            let mut connection = servers::connect(config, address.as_ref(), purpose).await?;
            if !matches!(purpose, Purpose::Hints(_)) {
                // A server that wants a password says so here. Of the functions, which are long, it only says that they
                // are too long for one who has not given it.
                connection.send(&redis::cmd("PING")).await?;
                Functions::offer_to(&mut connection).await?;
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
