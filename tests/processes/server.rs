//! `emitter serve` as a process of its own, that can be killed and started again where it was.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use emitter::{
    access::{self, Grant, Scope, mint},
    client::Credential,
    clock::Clock,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use super::{
    ports,
    tools::{self, ended, signal, tail},
};

const SECRET: &str = "a secret of the tests, and of nothing else";
const ISSUER: &str = "tests";

/// How long a start may take, recovery included.
const START: Duration = Duration::from_secs(120);

/// How long a drain may take, and a little more.
const STOP: Duration = Duration::from_secs(120);

/// A process of the service, killed when dropped. If its test fails, the end of its log is printed.
pub(crate) struct Server {
    /// What its log is called where several run.
    pub(crate) name: String,
    /// Where its agent services connect, such as `http://127.0.0.1:1`. The same after each start.
    pub(crate) grpc: String,
    /// Where browsers connect.
    pub(crate) http: String,
    /// Where operators connect, without a scheme.
    pub(crate) admin: String,
    /// Its files: configuration, log, and `data` for a durable engine.
    directory: TempDir,
    /// What the command line begins with, such as a tracer.
    wrapper: Vec<String>,
    child: Option<Child>,
}

/// How a start ended that did not lead to a listening server.
#[derive(Debug)]
pub(crate) struct Refused {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it said on standard error.
    pub(crate) said: String,
}

impl Server {
    /// A server with the configuration `toml` beside the addresses and the credentials. `{data}` in it stands for a
    /// directory of the server's own, which is not there yet.
    pub(crate) async fn start(name: &str, toml: &str) -> Self {
        Self::start_under(name, toml, &[]).await
    }

    /// The same, started by `wrapper`, in which `{data}` stands for the same directory.
    pub(crate) async fn start_under(name: &str, toml: &str, wrapper: &[&str]) -> Self {
        let mut server = Self::prepared(name, toml, wrapper);
        server.restart().await;
        server
    }

    /// A server that was not started yet.
    pub(crate) fn prepared(name: &str, toml: &str, wrapper: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("emitter-")
            .tempdir()
            .unwrap();
        let [grpc, http, admin] = [(); 3].map(|()| format!("127.0.0.1:{}", ports::free()));
        let data = directory.path().join("data").display().to_string();
        let addresses = format!(
            "grpc_listen = \"{grpc}\"\nhttp_listen = \"{http}\"\nadmin_listen = \"{admin}\"\n"
        );
        let auth = format!("\n[auth]\nissuer = \"{ISSUER}\"\nsecret = \"{SECRET}\"\n");
        // Keys without a table come before all tables.
        let (keys, tables) = match toml.find('[') {
            Some(at) => toml.split_at(at),
            None => (toml, ""),
        };
        let config = format!("{addresses}{keys}{auth}{tables}").replace("{data}", &data);
        fs::write(directory.path().join("emitter.toml"), config).unwrap();
        let wrapper = wrapper.iter().map(|word| word.replace("{data}", &data));
        Self {
            name: name.to_owned(),
            grpc: format!("http://{grpc}"),
            http: format!("http://{http}"),
            admin,
            wrapper: wrapper.collect(),
            directory,
            child: None,
        }
    }

    /// The directory of a durable engine.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Starts it, for the first time or again, and waits until it listens.
    pub(crate) async fn restart(&mut self) {
        if let Err(refused) = self.try_start().await {
            panic!("{} did not start: {refused:#?}", self.name);
        }
    }

    /// The same, for a start that may be refused.
    pub(crate) async fn try_start(&mut self) -> Result<(), Refused> {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = self.log();
        let size_before = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut command = self.command();
        let file = File::options().create(true).append(true).open(&log);
        command.stdout(Stdio::piped()).stderr(file.unwrap());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        self.child = Some(child);
        let (said, mut lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            // Only the first line is asked for; what follows is read so that nothing waits for it.
            for line in stdout.lines().map_while(Result::ok) {
                let _nobody_asks_any_more = said.send(line);
            }
        });
        let first = tokio::time::timeout(START, lines.recv()).await;
        match first.unwrap_or_else(|_| panic!("{} says nothing", self.name)) {
            Some(line) => {
                let admin = self.admin.as_str();
                assert!(line.contains("listening") && line.contains(admin), "{line}");
                Ok(())
            }
            None => {
                let status = self.wait().await;
                let said = fs::read(&log).unwrap();
                let said = said.get(size_before as usize..).unwrap_or_default();
                let said = String::from_utf8_lossy(said).into_owned();
                Err(Refused { status, said })
            }
        }
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_emitter");
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, arguments)) => {
                let mut command = tools::tool(wrapper);
                command.args(arguments).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        let config = self.directory.path().join("emitter.toml");
        command.args(["serve", "--json", "--config"]).arg(config);
        // Settings of the shell that runs the tests are not for this server.
        let settings = std::env::vars_os().map(|(name, _)| name);
        for name in settings.filter(|name| name.to_string_lossy().starts_with("EMITTER_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(&mut self) {
        signal(self.pid(), "KILL");
        self.wait().await;
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(&self) {
        signal(self.pid(), "TERM");
    }

    /// Asks it to end, and waits until it did.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait().await
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        ended(&mut child, STOP).await.unwrap_or_else(|| {
            let _gone_by_now = child.kill();
            panic!("{} did not end", self.name)
        })
    }

    /// The file that it logs to.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it logged, over all starts.
    pub(crate) fn logged(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the admin listener answers for `path`: the status and the body. 0: it cannot be reached.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let get = async {
            let mut stream = TcpStream::connect(&self.admin).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.split(' ').nth(1)?.parse().ok()?;
            Some((status, body.to_owned()))
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), get).await;
        answer.ok().flatten().unwrap_or_default()
    }

    /// The sum of a metric over its labels; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        text.lines().filter(of_name).filter_map(value).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone_by_itself = child.kill();
            let _gone_by_now = child.wait();
        }
        if std::thread::panicking() {
            let name = &self.name;
            eprintln!("-- log of {name}:\n{}", tail(&self.log(), 40));
        }
    }
}

/// A token of `sub` with the space-separated `scope`, good for a day at any server of the tests.
pub(crate) fn token(sub: &str, scope: &str) -> String {
    let scopes = scope.split(' ').map(|name| Scope::named(name).unwrap());
    let until = Clock::system().now() + Duration::from_secs(24 * 3600);
    let config = access::Config {
        issuer: ISSUER.into(),
        secret: SECRET.into(),
    };
    mint(&config, &Grant::new(sub, scopes, until)).unwrap()
}

/// The same for a client.
pub(crate) fn credential(sub: &str, scope: &str) -> Credential {
    Credential::fixed(&token(sub, scope))
}
