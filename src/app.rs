//! Builds the service and runs it: everything from the listeners down to the engine, and its end.

mod engine;
mod grpc;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{self, Instant, MissedTickBehavior},
};
use tonic_health::server::HealthReporter;

use crate::{
    access::Authenticator,
    calls::Calls,
    clock::{Clock, Entropy},
    config::{Config, ListenAddress},
    egress::Egress,
    engine::{Bounded, Description, Engine, durable::OpenError},
    fanout::Hub,
    ingest::EmitterService,
    net::{self, Door, Listener},
    operator::{self, OperatorService},
    sequencer::Sequencer,
    shutdown::{Drain, Phase, Shutdown},
    telemetry::Metrics,
};

/// What the service takes from outside besides its settings.
#[derive(Clone, Default)]
pub struct Environment {
    /// The wall clock.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// Where events are stored; `None`: in memory, as the settings say.
    pub engine: Option<Arc<dyn Engine>>,
}

/// Where the service can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Agent services, over gRPC.
    pub grpc: SocketAddr,
    /// Browsers, over HTTP.
    pub http: SocketAddr,
    /// Operators, over HTTP.
    pub admin: SocketAddr,
}

/// The service cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A port cannot be had.
    #[error("{key}: cannot listen on {address}: {error}")]
    Port {
        /// The setting.
        key: &'static str,
        /// The address as it was set.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// The data directory cannot be used.
    #[error("{}: {error}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        error: OpenError,
    },
    /// The settings ask for the engine on Redis, which this build does not have.
    #[cfg(not(feature = "redis"))]
    #[error("engine.kind: this build has no engine on Redis")]
    NoRedis,
    /// The contract that the gRPC port describes itself by is broken.
    #[error("server reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The service stopped without being told to.
#[derive(Debug, thiserror::Error)]
#[error("a listener stopped: {0}")]
pub struct RunError(String);

/// The service, bound to its ports. Nothing is served until `run`.
pub struct App {
    addresses: Addresses,
    shutdown: Shutdown,
    core: Core,
    grpc: (grpc::Server, Listener),
    health: HealthReporter,
    http: (axum::Router, Listener),
    admin: (axum::Router, Listener),
}

/// What stores events and hands them on.
struct Core {
    engine: Arc<dyn Engine>,
    sequencer: Arc<Sequencer>,
    hub: Arc<Hub>,
    egress: Arc<Egress>,
    rendered: PrometheusHandle,
}

/// How often what is no longer needed is given back.
const UPKEEP: Duration = Duration::from_secs(1);

/// How often a drain looks whether the last emit is done.
const LOOK: Duration = Duration::from_millis(10);

impl App {
    /// Builds the service and binds its ports.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub async fn bind(config: &Config, environment: Environment) -> Result<Self, BindError> {
        let Environment {
            clock,
            entropy,
            engine,
        } = environment;
        let settings = &config.settings;
        let (metrics, rendered) = Metrics::new();
        let metrics = Arc::new(metrics);
        let shutdown = Shutdown::new(settings.drain);
        let engine = match engine {
            Some(engine) => engine,
            None => engine::open(config, &clock, &entropy, &metrics).await?,
        };
        let engine = Bounded::new(engine, settings.limits.engine_timeout);
        let sequencing = config.sequencer();
        let sequencer = Sequencer::new(
            engine.clone(),
            clock.clone(),
            entropy.clone(),
            sequencing,
            metrics.clone(),
        );
        let authenticator = Authenticator::new(&config.access, clock.clone());
        let authenticator = Arc::new(authenticator.with_leeway(config.token_leeway));
        let ingest = EmitterService::new(
            authenticator.clone(),
            sequencer.clone(),
            clock.clone(),
            entropy.clone(),
            metrics.clone(),
            shutdown.drain(),
            config.ingest(),
        );
        let hub = Hub::new(
            engine.clone(),
            config.fanout(),
            clock.clone(),
            metrics.clone(),
        );
        let egress = Egress::new(
            hub.clone(),
            authenticator.clone(),
            clock.clone(),
            entropy,
            metrics.clone(),
            shutdown.drain(),
            config.egress(),
        );

        // Operators get in however many others are at the door.
        let door = Door::new(config.net(), metrics.clone());
        let side = net::Config {
            connections: net::ADMIN_CONNECTIONS,
            ..config.net()
        };
        let side_door = Door::new(side, metrics.clone());
        let grpc = listen("grpc_listen", &settings.grpc_listen, &door).await?;
        let http = listen("http_listen", &settings.http_listen, &door).await?;
        let admin = listen("admin_listen", &settings.admin_listen, &side_door).await?;
        let addresses = Addresses {
            grpc: grpc.0,
            http: http.0,
            admin: admin.0,
        };
        let calls = Calls::new(authenticator, config.calls(), metrics);
        let operator = OperatorService::new(engine.clone(), sequencer.clone(), hub.clone());
        let services = (ingest, egress.grpc(), operator.into_server());
        let (server, health) = grpc::server(&settings.limits, &calls, services).await?;
        let admin_routes = operator::routes(rendered.clone(), shutdown.drain(), engine.clone());
        Ok(Self {
            addresses,
            grpc: (server, grpc.1),
            health,
            http: (egress.routes(), http.1),
            admin: (admin_routes, admin.1),
            shutdown,
            core: Core {
                engine,
                sequencer,
                hub,
                egress,
                rendered,
            },
        })
    }

    /// The bound addresses, with the ports that port 0 became.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where events are kept, and how safely.
    pub fn engine(&self) -> Description {
        self.core.engine.describe()
    }

    /// Changes what the HTTP listener serves.
    #[must_use]
    pub fn with_http(mut self, change: impl FnOnce(axum::Router) -> axum::Router) -> Self {
        self.http.0 = change(self.http.0);
        self
    }

    /// Serves until `stop` is ready, then drains: new work is refused and readers are sent away, what is under way
    /// finishes, and the listeners close, all within the deadline for it.
    ///
    /// # Errors
    /// When a listener stops by itself.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let (shutdown, core) = (self.shutdown, self.core);
        let engine = core.engine.clone();
        let mut upkeep = core.upkeep(shutdown.drain());
        let drain = shutdown.drain();
        upkeep.spawn(grpc::tell_health(self.health, engine.clone(), drain));
        let mut serving = JoinSet::new();
        let (server, listener) = self.grpc;
        serving.spawn(grpc::serve(server, listener, shutdown.drain()));
        for (routes, listener) in [self.http, self.admin] {
            let serving_http = net::serve_http(listener, routes, shutdown.drain());
            serving.spawn(async {
                serving_http.await;
                Ok(())
            });
        }
        tokio::select! {
            () = stop => {}
            ended = serving.join_next() => {
                upkeep.abort_all();
                return Err(RunError(format!("{ended:?}")));
            }
        }

        tracing::info!("draining");
        shutdown.advance(Phase::Draining);
        let deadline = shutdown.drain().deadline();
        // A tenth of the time is for what the listeners still have under way.
        let begun = Instant::now();
        let quiet = time::timeout(deadline * 9 / 10, core.quiet()).await.is_ok();
        shutdown.advance(Phase::Stopped);
        let closed = time::timeout(deadline / 10, async {
            while serving.join_next().await.is_some() {}
        });
        // What was refused at last is told as well.
        let told = time::timeout(deadline / 10, core.sequencer.tell_rest());
        let (closed, _told) = tokio::join!(closed, told);
        let closed = closed.is_ok();
        upkeep.abort_all();
        // Nothing asks for anything any more.
        let safe = time::timeout(deadline / 10, engine.close()).await.is_ok();
        tracing::info!(quiet, closed, safe, took = ?begun.elapsed(), "stopped");
        Ok(())
    }

    /// Serves in the background until the returned handle stops it.
    pub fn start(self) -> Running {
        let addresses = self.addresses;
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(self.run(async {
            // Dropping the handle stops the service as well.
            let _asked_or_dropped = stopped.await;
        }));
        Running {
            addresses,
            stop,
            running,
        }
    }
}

/// A service in the background. Dropping this begins its drain.
pub struct Running {
    addresses: Addresses,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
}

impl Running {
    /// Where it can be reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Drains it and waits until it has stopped.
    ///
    /// # Errors
    /// When it stopped by itself before.
    pub async fn stop(self) -> Result<(), RunError> {
        let _ended_already = self.stop.send(());
        self.running
            .await
            .unwrap_or_else(|error| Err(RunError(error.to_string())))
    }
}

impl Core {
    /// Gives back what is no longer needed and ends runs that are silent for too long, for as long as the returned
    /// tasks live.
    fn upkeep(&self, drain: Drain) -> JoinSet<()> {
        let (engine, sequencer) = (self.engine.clone(), self.sequencer.clone());
        let (hub, rendered) = (self.hub.clone(), self.rendered.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ticks = upkeep_ticks();
            loop {
                ticks.tick().await;
                engine.maintain().await;
                sequencer.maintain();
                hub.maintain();
                // Samples of histograms are kept one by one until this or a scrape adds them up.
                rendered.run_upkeep();
            }
        });
        let keeper = self.sequencer.clone();
        tasks.spawn(async move { keeper.keep_content_key().await });
        // On its own: it waits for appends, and an engine that hangs must not keep memory from being given back.
        let sequencer = self.sequencer.clone();
        tasks.spawn(async move {
            let mut ticks = upkeep_ticks();
            loop {
                ticks.tick().await;
                // From then on runs are silent because nothing is taken in.
                if drain.is_draining() {
                    return;
                }
                sequencer.sweep().await;
            }
        });
        // Not behind a sweep that lasts long, and until the end: what a drain cuts off is to be known too.
        let sequencer = self.sequencer.clone();
        tasks.spawn(async move { sequencer.keep_telling().await });
        tasks
    }

    /// Waits until every reader is gone, what they acknowledged is stored, and every accepted event is stored or
    /// refused.
    async fn quiet(&self) {
        let idle = async {
            self.egress.idle().await;
            while self.sequencer.in_flight() > 0 || !self.hub.acks().is_settled() {
                time::sleep(LOOK).await;
            }
        };
        // Another node is to watch while this one has other things to finish.
        tokio::join!(self.sequencer.stop_watching(), idle);
    }
}

fn upkeep_ticks() -> time::Interval {
    let mut ticks = time::interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn listen(
    key: &'static str,
    address: &ListenAddress,
    door: &Arc<Door>,
) -> Result<(SocketAddr, Listener), BindError> {
    let bound = async {
        let tcp = TcpListener::bind(address.as_str()).await?;
        Ok((tcp.local_addr()?, tcp))
    };
    let (bound, tcp) = bound.await.map_err(|error| BindError::Port {
        key,
        address: address.to_string(),
        error,
    })?;
    Ok((bound, Listener::new(tcp, door.clone())))
}
