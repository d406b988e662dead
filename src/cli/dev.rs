//! `emitter dev`.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use super::{
    Environment, Failure, Listen, Storage, say,
    serve::{listening_json, serve},
    session::{self, DEV_ISSUER, Session},
    variable,
};
use crate::{
    access::Scope,
    app::Addresses,
    clock::Entropy,
    config::{Config, Engine, EngineKind, Sources},
    engine::Description,
    page,
};

/// Run a service on this machine for development: no config needed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  emitter dev
  emitter dev --config emitter.toml
      with the settings of a file, such as the prices of models
  emitter dev --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \\
    --admin-listen 127.0.0.1:0
      on any free ports; `emit` and `tail` find them
  emitter dev --data-dir ./data
      events outlive it
  emitter dev --json
      the first line says where it listens, for scripts

Tokens are by the issuer `emitter-dev` under a secret kept in the session file,
or under the one in EMITTER_DEV_SECRET (at least 32 bytes). `emit`, `tail` and
`token` read that file, so they need no flags.")]
pub(super) struct Dev {
    /// A TOML file with settings, less those of [auth]
    #[arg(long, value_name = "FILE", env = "EMITTER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    storage: Storage,
    /// Where to keep the secret and the addresses [default: in the user's runtime or cache directory]
    #[arg(long, value_name = "PATH", env = "EMITTER_SESSION_FILE")]
    session_file: Option<PathBuf>,
    /// Print where it listens as one line of JSON, and log JSON lines
    #[arg(long, env = "EMITTER_JSON")]
    json: bool,
}

impl Dev {
    pub(super) fn run(self, environment: &Environment) -> Result<ExitCode, Failure> {
        let json = self.json;
        match self.start(environment) {
            Err(failure) if json => Ok(failure.logged()),
            done => done,
        }
    }

    fn start(self, environment: &Environment) -> Result<ExitCode, Failure> {
        let path = session::path(self.session_file.as_deref(), environment)?;
        refuse_to_displace(&path)?;
        let secret = secret(&path, environment)?;
        let config = self.config(&secret, environment)?;
        serve(&config, |app| {
            let addresses = app.addresses();
            let session = Session {
                secret,
                grpc: reachable(addresses.grpc).to_string(),
                http: reachable(addresses.http).to_string(),
                admin: reachable(addresses.admin).to_string(),
            };
            session
                .write(&path)
                .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
            if self.json {
                say(&listening_json(&addresses, &app.engine()))?;
            } else {
                let asked = self.session_file.as_deref();
                let kept = kept(&app.engine(), &config.settings.engine);
                say(&welcome(&kept, &tail_command(asked), &addresses, &session)?)?;
            }
            Ok(app.with_http(|routes| page::with_page(routes, session.access(), &session.grpc)))
        })
    }

    fn config(&self, secret: &str, environment: &Environment) -> Result<Config, Failure> {
        let mut sources = Sources {
            file: self.config.clone(),
            environment: environment.clone(),
            flags: vec![
                ("auth.issuer", DEV_ISSUER.to_owned()),
                ("auth.secret", secret.to_owned()),
                ("auth.secret_file", String::new()),
            ],
        };
        // Pages under development come from anywhere; they need a token all the same.
        if variable(environment, "EMITTER_ORIGINS").is_none() {
            sources.flags.push(("origins", "*".to_owned()));
        }
        self.listen.add_to(&mut sources);
        self.storage.add_to(&mut sources)?;
        let mut config = Config::load(&sources)?;
        config.settings.log.json |= self.json;
        Ok(config)
    }
}

/// How long a service on this machine may take to accept a connection.
const REACH: Duration = Duration::from_millis(500);

/// Two services would overwrite each other's session, and `emit` and `tail` would lose the one that still runs.
fn refuse_to_displace(path: &Path) -> Result<(), Failure> {
    let Ok(session) = Session::read(path) else {
        return Ok(());
    };
    let runs = session
        .grpc
        .parse()
        .is_ok_and(|address| TcpStream::connect_timeout(&address, REACH).is_ok());
    if !runs {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "`emitter dev` runs already, on {}; give this one a --session-file of its own",
        session.grpc
    )))
}

/// The secret of this session: as asked, else that of the last one, else a new one.
fn secret(path: &Path, environment: &Environment) -> Result<String, Failure> {
    if let Some(secret) = variable(environment, "EMITTER_DEV_SECRET") {
        return match secret.into_string() {
            Ok(secret) if secret.len() >= crate::access::SECRET_BYTES => Ok(secret),
            _ => Err(Failure::Config(
                "EMITTER_DEV_SECRET: it needs 32 or more bytes of UTF-8".into(),
            )),
        };
    }
    match Session::read(path) {
        Ok(session) => Ok(session.secret),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(fresh_secret()),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", path.display()))),
    }
}

fn fresh_secret() -> String {
    let mut bytes = [0; 32];
    Entropy::system().fill(&mut bytes);
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

/// An address that can be connected to: one that is bound to every interface is reached over loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// `tail` as a shell in any directory runs it: this program, and the session file where it is not at its usual place.
fn tail_command(session_file: Option<&Path>) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "emitter".into());
    let mut command = format!("{} tail --user demo --from oldest", quoted(&program));
    if let Some(path) = session_file {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let _never_fails = write!(command, " --session-file {}", quoted(&path));
    }
    command
}

/// `path` as a shell reads it.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if path.chars().all(plain) {
        return path.into_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// Where its events are, for a person.
fn kept(engine: &Description, asked: &Engine) -> String {
    match asked.kind {
        EngineKind::Memory => "in memory. Its events are gone when it ends.".to_owned(),
        EngineKind::Durable => format!(
            "in {}. Lost of what was acknowledged: {}.",
            asked.data_dir.display(),
            engine.loses
        ),
        EngineKind::Redis => {
            format!("in Redis. Lost of what was acknowledged: {}.", engine.loses)
        }
    }
}

/// What to do next, for a person.
fn welcome(
    kept: &str,
    tail: &str,
    addresses: &Addresses,
    session: &Session,
) -> Result<String, Failure> {
    let token = session.token("demo-agent", Scope::Emit)?;
    let reading = session.token("demo", Scope::Subscribe)?;
    let Addresses { grpc, http, admin } = addresses;
    let (reach, page) = (&session.grpc, &session.http);
    // Nothing is indented that is to be pasted: the end of a here-document stands at the line's start.
    Ok(format!(
        r#"emitter dev: one node, {kept}

  agent services   {grpc}   gRPC: emitter.v1, health, reflection
  browsers         {http}   WebSocket /v1/stream, SSE /v1/events
  operators        {admin}   /healthz /readyz /metrics

See what the user `demo` sees, in a browser:

http://{page}/#token={reading}

or in another terminal:

{tail}

Emit a whole run to that user, as often as you like:

RUN=run-$(date +%s%N); grpcurl -plaintext -H 'authorization: Bearer {token}' -d @ {reach} emitter.v1.EventEmitter/EmitBatch <<EOF
{{"events": [
{{"user_id": "demo", "run_id": "$RUN", "agent_name": "researcher", "agent_started": {{"message": "Looking into it"}}}},
{{"user_id": "demo", "run_id": "$RUN", "agent_thinking": {{"reasoning": "The documents should tell", "step_number": 1, "total_steps": 2}}}},
{{"user_id": "demo", "run_id": "$RUN", "tool_executing": {{"tool_call_id": "call-1", "tool_name": "search", "parameters": {{"query": "order of events"}}}}}},
{{"user_id": "demo", "run_id": "$RUN", "tool_completed": {{"tool_call_id": "call-1", "tool_name": "search", "status": "TOOL_STATUS_SUCCEEDED", "execution_time": "0.118s", "result": {{"hits": 3}}}}}},
{{"user_id": "demo", "run_id": "$RUN", "agent_completed": {{"message": "Three documents say so", "execution_time": "1.2s"}}}}
]}}
EOF
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_can_be_pasted() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let addresses = Addresses {
            grpc: address,
            http: address,
            admin: address,
        };
        let session = Session {
            secret: fresh_secret(),
            grpc: address.to_string(),
            http: address.to_string(),
            admin: address.to_string(),
        };
        let tail = tail_command(None);
        assert!(tail.ends_with(" tail --user demo --from oldest"), "{tail}");
        let text = welcome("in memory.", &tail, &addresses, &session).unwrap();
        assert!(text.contains(&format!("\n{tail}\n")), "{text}");
        assert!(text.contains("\nhttp://127.0.0.1:1/#token=ey"), "{text}");
        assert!(!text.contains(&session.secret));
        let (_, pasted) = text.split_once("RUN=").unwrap();
        let (call, rest) = pasted.split_once("<<EOF\n").unwrap();
        assert!(call.ends_with("-d @ 127.0.0.1:1 emitter.v1.EventEmitter/EmitBatch "));
        let (body, end) = rest.split_once("\nEOF\n").unwrap();
        assert_eq!(end, "");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let events = body["events"].as_array().unwrap();
        assert_eq!(events.len(), 5);
        for event in events {
            // Fixed ids would collide when it is pasted again.
            assert_eq!(event["run_id"], "$RUN");
            assert!(event.get("event_id").is_none());
        }
    }

    #[test]
    fn the_tail_finds_the_session_from_any_directory() {
        let cases = [
            ("/a/b.json", "/a/b.json".to_owned()),
            ("/it's a", r"'/it'\''s a'".to_owned()),
            (
                "b.json",
                quoted(&std::env::current_dir().unwrap().join("b.json")),
            ),
        ];
        for (path, want) in cases {
            let tail = tail_command(Some(Path::new(path)));
            assert!(tail.ends_with(&format!(" --session-file {want}")), "{tail}");
        }
    }

    #[test]
    fn the_secret_is_as_asked_or_kept_or_new() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session.json");
        let none = Environment::new();
        let first = secret(&path, &none).unwrap();
        assert_eq!(first.len(), 64);
        assert_ne!(first, secret(&path, &none).unwrap());
        let session = Session {
            secret: first.clone(),
            grpc: String::new(),
            http: String::new(),
            admin: String::new(),
        };
        session.write(&path).unwrap();
        assert_eq!(secret(&path, &none).unwrap(), first);
        let asked = |text: &str| vec![("EMITTER_DEV_SECRET".into(), text.into())];
        let long = "x".repeat(32);
        assert_eq!(secret(&path, &asked(&long)).unwrap(), long);
        assert!(matches!(
            secret(&path, &asked("short")),
            Err(Failure::Config(_))
        ));
    }

    #[test]
    fn a_session_that_runs_is_not_displaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("session.json");
        refuse_to_displace(&path).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let session = Session {
            secret: fresh_secret(),
            grpc: address.to_string(),
            http: String::new(),
            admin: String::new(),
        };
        session.write(&path).unwrap();
        let Err(Failure::Failed(message)) = refuse_to_displace(&path) else {
            panic!("it was displaced");
        };
        assert!(message.contains(&address.to_string()), "{message}");
        drop(listener);
        refuse_to_displace(&path).unwrap();
    }

    #[test]
    fn every_interface_is_reached_over_loopback() {
        for (bound, want) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), want);
        }
    }
}
