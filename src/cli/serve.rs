//! `emitter serve`, and what `dev` shares with it.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Environment, Failure, Listen, Storage, logs, say, warn};
use crate::{
    app::{self, Addresses, App},
    config::{Config, EngineKind, Resolved, Sources},
    engine::{Description, durable},
    net::Descriptors,
};

/// Connections to Redis: several to each of up to 30 masters.
const REDIS_CONNECTIONS: usize = 256;

/// Run the service
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter serve --config emitter.toml
  EMITTER_AUTH__ISSUER=platform EMITTER_AUTH__SECRET_FILE=/run/secrets/emitter \\
    emitter serve
      no file needed: every key but the prices is also a variable

Every key: emitter check-config --print-defaults. SIGTERM and SIGINT drain it;
a second one ends it at once.")]
pub(super) struct Serve {
    /// The TOML file
    #[arg(long, value_name = "FILE", env = "EMITTER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    storage: Storage,
    /// Print where it listens as one line of JSON, and log JSON lines
    #[arg(long, env = "EMITTER_JSON")]
    json: bool,
}

impl Serve {
    pub(super) fn run(self, environment: Environment) -> Result<ExitCode, Failure> {
        let mut sources = Sources {
            file: self.config,
            environment,
            flags: Vec::new(),
        };
        self.listen.add_to(&mut sources);
        self.storage.add_to(&mut sources)?;
        let resolved = Resolved::new(&sources);
        let json = self.json || resolved.logs_json();
        let done = resolved.into_config().map_err(Failure::from);
        let done = done.and_then(|config| Self::serve(config, json));
        // Whoever reads the log as JSON lines reads failures there too.
        match done {
            Err(failure) if json => Ok(failure.logged()),
            done => done,
        }
    }

    fn serve(mut config: Config, json: bool) -> Result<ExitCode, Failure> {
        config.settings.log.json = json;
        serve(&config, |app| {
            let (addresses, engine) = (app.addresses(), app.engine());
            say(&if json {
                listening_json(&addresses, &engine)
            } else {
                format!(
                    "listening: gRPC on {}, HTTP on {}, admin on {}\n\
                     engine: {}; lost of what was acknowledged: {}",
                    addresses.grpc, addresses.http, addresses.admin, engine.kind, engine.loses
                )
            })?;
            Ok(app)
        })
    }
}

/// Where the service listens, and what keeps its events, as the first line of `--json`.
pub(super) fn listening_json(addresses: &Addresses, engine: &Description) -> String {
    let loses = serde_json::Value::from(engine.loses.as_str());
    // Written by hand for the order of the fields; an address needs no escapes.
    format!(
        r#"{{"type":"listening","grpc":"{}","http":"{}","admin":"{}","engine":{{"kind":"{}","level":"{}","loses":{loses}}}}}"#,
        addresses.grpc, addresses.http, addresses.admin, engine.kind, engine.level
    )
}

/// Runs the service that `config` describes until a signal ends it. `bound` gets it before it serves, to tell where it
/// listens.
pub(super) fn serve(
    config: &Config,
    bound: impl FnOnce(App) -> Result<App, Failure>,
) -> Result<ExitCode, Failure> {
    logs::begin(&config.settings.log);
    let config = &within_descriptors(config.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let app = bound(App::bind(config, app::Environment::default()).await?)?;
        let (begin, begun) = tokio::sync::oneshot::channel();
        let stop = async {
            let _ended_by_itself = begun.await;
        };
        let mut running = std::pin::pin!(app.run(stop));
        tokio::select! {
            ended = &mut running => ended?,
            () = signals.next() => {
                let _ended_by_itself = begin.send(());
                tokio::select! {
                    ended = &mut running => ended?,
                    () = signals.next() => {
                        warn("ended at once");
                        return Ok(ExitCode::FAILURE);
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    });
    runtime.shutdown_background();
    served
}

/// `config` with no more connections than the process may have files open, beside those of its engine.
fn within_descriptors(mut config: Config) -> Config {
    let engine = match config.settings.engine.kind {
        EngineKind::Memory => 0,
        EngineKind::Durable => durable::FILES,
        EngineKind::Redis => REDIS_CONNECTIONS,
    };
    let connections = &mut config.settings.limits.connections;
    *connections = Descriptors::raise().connections(*connections, engine);
    config
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
