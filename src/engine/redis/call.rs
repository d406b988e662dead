//! Calls of the functions that run within Redis, and what failures of them mean.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ToRedisArgs, Value,
    aio::ConnectionLike,
    cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr},
};
use tokio::time::{self, Instant};

use super::{
    link::{Link, Live},
    servers::Connection,
};
use crate::{
    engine::{AppendError, EngineError, stored::Corrupt},
    event::{Epoch, Offset, Position},
};

/// A call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// It had no effect.
    Refused(String),
    /// It had no effect: there is no room.
    Full,
    /// Nobody knows whether it had an effect.
    Unknown(String),
}

impl From<CallError> for EngineError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Full => Self::Full,
            CallError::Refused(why) | CallError::Unknown(why) => Self::Unavailable(why),
        }
    }
}

impl From<CallError> for AppendError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Full => Self::Full,
            CallError::Refused(why) => Self::Unavailable(why),
            CallError::Unknown(why) => Self::Unknown(why),
        }
    }
}

impl From<Corrupt> for CallError {
    fn from(error: Corrupt) -> Self {
        Self::Unknown(error.to_string())
    }
}

/// The functions, under a name that says which version they are: nodes of several versions share a server.
pub(super) struct Functions {
    name: String,
    code: String,
}

/// One library. Each file sees what stands in those before it.
const LIBRARY: &str = concat!(
    include_str!("functions/streams.lua"),
    include_str!("functions/reads.lua"),
    include_str!("functions/append.lua"),
    include_str!("functions/upkeep.lua"),
    include_str!("functions/keys.lua"),
);

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let hash = blake3::hash(LIBRARY.as_bytes()).to_hex();
    let name = format!("emitter_{}", hash.get(..12).unwrap_or_default());
    let code = LIBRARY.replace("@LIBRARY", &name);
    Functions { name, code }
});

impl Functions {
    /// Loads them where `connection` leads, on connecting. Where nothing can be written, they may be there already, and
    /// what there is can be read; and of a cluster some servers may be away. Calls load them where they are missing.
    pub(super) async fn offer_to(connection: &mut Connection) -> RedisResult<()> {
        const CANNOT_WRITE: [&str; 3] = ["OOM", "NOREPLICAS", "MISCONF"];
        let Err(error) = Self::load_into(connection).await else {
            return Ok(());
        };
        let cannot_write = error
            .code()
            .is_some_and(|code| CANNOT_WRITE.contains(&code));
        if cannot_write || matches!(connection, Connection::Cluster(_)) {
            tracing::warn!(%error, "the functions were not loaded into Redis");
            return Ok(());
        }
        Err(error)
    }

    /// Loads them where `connection` leads.
    pub(super) async fn load_into(connection: &mut Connection) -> RedisResult<()> {
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(&FUNCTIONS.code);
        connection.send(&load).await.map(|_| ())
    }
}

/// A call of a function on one key.
#[derive(Clone)]
pub(super) struct Call {
    command: Cmd,
    key: String,
}

impl Call {
    pub(super) fn new(function: &str, key: String) -> Self {
        let mut command = redis::cmd("FCALL");
        command.arg(format!("{}_{function}", FUNCTIONS.name));
        command.arg(1).arg(&key);
        Self { command, key }
    }

    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// Calls it, and once more where the functions had to be loaded first.
    pub(super) async fn on(&self, link: &Link) -> Result<Vec<Value>, CallError> {
        link.run(&self.command).await.and_then(array)
    }

    /// Calls it, and waits at the same connection until `replicas` have it, at most so many milliseconds. Returns the
    /// answer, and how many have it.
    pub(super) async fn on_and_wait(
        &self,
        link: &Link,
        replicas: usize,
        millis: u128,
    ) -> Result<(Vec<Value>, usize), CallError> {
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas)
            .arg(u64::try_from(millis).unwrap_or(u64::MAX));
        let mut both = redis::pipe();
        both.add_command(self.command.clone()).add_command(wait);
        let answers = link.send(Request::Both(&both, &self.key)).await?;
        let mut answers = array(answers)?.into_iter();
        let (answer, have) = (answers.next(), answers.next());
        let have = match have {
            Some(Value::Int(have)) => usize::try_from(have).unwrap_or(0),
            // It may also be refused, after the call has been run.
            _ => 0,
        };
        Ok((array(answer.unwrap_or_default())?, have))
    }
}

/// What is sent.
#[derive(Clone, Copy)]
enum Request<'a> {
    /// One command, wherever it belongs.
    One(&'a Cmd),
    /// Two, one after the other, to the server that holds the key.
    Both(&'a Pipeline, &'a str),
}

impl Connection {
    async fn deliver(&mut self, request: Request<'_>) -> RedisResult<Value> {
        match request {
            Request::One(command) => self.send(command).await,
            Request::Both(both, key) => self.send_both(both, key).await.map(Value::Array),
        }
    }

    /// One command, wherever it belongs.
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::One(connection) => connection.req_packed_command(command).await?,
            Self::Cluster(connection) => connection.req_packed_command(command).await?,
        };
        checked(answer)
    }

    /// Commands one after the other, at the server that holds `key`. Fails if the first one does; what the others come to
    /// is in their answers.
    async fn send_both(&mut self, both: &Pipeline, key: &str) -> RedisResult<Vec<Value>> {
        let answers = match self {
            Self::One(connection) => connection.req_packed_commands(both, 0, 2).await?,
            Self::Cluster(connection) => {
                let route = Route::with_key(key, SlotAddr::Master);
                let route = SingleNodeRoutingInfo::SpecificNode(route);
                connection.route_pipeline(both.clone(), 0, 2, route).await?
            }
        };
        let mut answers = answers.into_iter();
        let first = answers.next().map(checked).transpose()?;
        Ok(first.into_iter().chain(answers).collect())
    }
}

fn checked(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(error) => Err(error.into()),
        answer => Ok(answer),
    }
}

/// The first wait before a command goes again to a cluster that is changing; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(10);

impl Link {
    /// Runs one command.
    pub(super) async fn run(&self, command: &Cmd) -> Result<Value, CallError> {
        self.send(Request::One(command)).await
    }

    /// Sends something; again, as long as it surely had no effect: where the functions had to be loaded first, and
    /// where a cluster says that the slot is elsewhere, or nowhere yet.
    async fn send(&self, request: Request<'_>) -> Result<Value, CallError> {
        let mut live = self.get().await?;
        let (begun, mut wait, mut loaded) = (Instant::now(), FIRST_WAIT, false);
        loop {
            let error = match live.connection.deliver(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if lacks_functions(&error) && !loaded {
                loaded = true;
                let loading = Functions::load_into(&mut live.connection).await;
                loading.map_err(|error| self.failed(&live, &error))?;
                continue;
            }
            let patient = begun.elapsed() + wait < self.timeout();
            let moves = matches!(live.connection, Connection::Cluster(_)) && is_moving(&error);
            if !(moves && patient) {
                return Err(self.failed(&live, &error));
            }
            time::sleep(wait).await;
            wait *= 2;
        }
    }

    /// What `error` means for a command that was sent. A connection that failed is made anew. The cluster's client sees to
    /// its own, but to one that only does not answer: it would wait for ever for a server whose place another has taken.
    fn failed(&self, live: &Live, error: &RedisError) -> CallError {
        match live.connection {
            Connection::One(_) => {
                let demoted = error.code() == Some("READONLY");
                if demoted || error.is_io_error() || error.is_unrecoverable_error() {
                    self.lost(live.number);
                }
                meaning(error)
            }
            Connection::Cluster(_) => {
                if error.is_timeout() {
                    self.stale(live.number);
                }
                meaning_in_cluster(error)
            }
        }
    }
}

/// Whether a cluster's slot was elsewhere, or nowhere: nothing was run.
fn is_moving(error: &RedisError) -> bool {
    const CODES: [&str; 5] = ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY"];
    error.code().is_some_and(|code| CODES.contains(&code)) || is_migrating(error)
}

/// Whether the slot is on its way to another server: the functions ask for a key that is nowhere before they change
/// anything, and a server that does not have all of the slot refuses that.
fn is_migrating(error: &RedisError) -> bool {
    error.to_string().contains("non local key")
}

fn lacks_functions(error: &RedisError) -> bool {
    // In a pipeline the code is that of its first failure.
    error.to_string().contains("Function not found")
}

/// Answers that a server gives before it runs anything, besides that there is no room.
const REFUSALS: [&str; 14] = [
    "READONLY",
    "LOADING",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOREPLICAS",
    "MISCONF",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "NOAUTH",
    "NOPERM",
    "BUSY",
    "CROSSSLOT",
    "UNKILLABLE",
];

/// What `error` means for a command that was sent.
fn meaning(error: &RedisError) -> CallError {
    let text = error.to_string();
    match error.code() {
        Some("OOM") => CallError::Full,
        Some(code) if REFUSALS.contains(&code) => CallError::Refused(text),
        _ if lacks_functions(error) || is_migrating(error) => CallError::Refused(text),
        _ => CallError::Unknown(text),
    }
}

/// The same of a cluster. Its client answers what is under way also with what it meets when it asks who serves which
/// slot: what a server says on that may not be about the command.
fn meaning_in_cluster(error: &RedisError) -> CallError {
    const ON_ANY_COMMAND: [&str; 5] = ["LOADING", "NOAUTH", "NOPERM", "BUSY", "MASTERDOWN"];
    let text = error.to_string();
    match error.code() {
        Some(code) if ON_ANY_COMMAND.contains(&code) => CallError::Unknown(text),
        _ if error.kind() == ErrorKind::ClusterConnectionNotFound => CallError::Unknown(text),
        _ => meaning(error),
    }
}

/// The items of an answer.
pub(super) fn array(answer: Value) -> Result<Vec<Value>, CallError> {
    match answer {
        Value::Array(items) => Ok(items),
        other => Err(strange(&other)),
    }
}

/// The bytes of an item.
pub(super) fn bytes(item: Value) -> Result<Bytes, CallError> {
    match item {
        Value::BulkString(bytes) => Ok(bytes.into()),
        other => Err(strange(&other)),
    }
}

/// The text of an item.
pub(super) fn text(item: Value) -> Result<String, CallError> {
    match item {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| odd("no UTF-8")),
        other => Err(strange(&other)),
    }
}

/// The number that an item is.
pub(super) fn number(item: Value) -> Result<u64, CallError> {
    match item {
        Value::Int(number) => u64::try_from(number).map_err(|_| odd("a negative number")),
        item => text(item)?.parse().map_err(|_| odd("no number")),
    }
}

/// The position that two items are.
pub(super) fn position(epoch: Value, offset: Value) -> Result<Position, CallError> {
    Ok(Position::new(epoch_of(epoch)?, Offset(number(offset)?)))
}

/// The epoch that an item is.
pub(super) fn epoch_of(item: Value) -> Result<Epoch, CallError> {
    text(item)?.parse().map_err(|_| odd("no epoch"))
}

/// The next item of an answer.
pub(super) fn next(items: &mut impl Iterator<Item = Value>) -> Result<Value, CallError> {
    items.next().ok_or_else(|| odd("too little"))
}

fn strange(answer: &Value) -> CallError {
    let kind = match answer {
        Value::Nil => "nothing",
        Value::Array(_) => "an array",
        Value::Int(_) => "a number",
        _ => "something else",
    };
    odd(kind)
}

pub(super) fn odd(what: &str) -> CallError {
    CallError::Unknown(format!("an unexpected answer: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use redis::ServerError;

    use super::*;

    fn server(text: &str) -> RedisError {
        let line = format!("-{text}\r\n");
        match redis::parse_redis_value(line.as_bytes()) {
            Ok(Value::ServerError(error)) => ServerError::into(error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_surely_had_no_effect_is_told_as_such() {
        let unknown = |error: &RedisError| matches!(meaning(error), CallError::Unknown(_));
        let refused = |error: &RedisError| matches!(meaning(error), CallError::Refused(_));
        assert_eq!(meaning(&server("OOM command not allowed")), CallError::Full);
        for text in [
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "NOREPLICAS Not enough good replicas to write.",
            "MISCONF Redis is configured to save RDB snapshots",
            "MOVED 1 127.0.0.1:1",
            "NOPERM this user has no permissions",
            "ERR Function not found",
        ] {
            assert!(refused(&server(text)), "{text}");
        }
        for text in [
            "ERR user_script:1: oh",
            "WRONGTYPE Operation",
            "WHAT is this",
        ] {
            assert!(unknown(&server(text)), "{text}");
        }
        for kind in [
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::TimedOut,
            io::ErrorKind::ConnectionReset,
        ] {
            assert!(unknown(&io::Error::from(kind).into()), "{kind}");
        }
        for text in [
            "LOADING Redis is loading",
            "NOPERM this user",
            "BUSY a script",
        ] {
            let meaning = meaning_in_cluster(&server(text));
            assert!(matches!(meaning, CallError::Unknown(_)), "{text}");
        }
        for text in ["MOVED 1 127.0.0.1:1", "CLUSTERDOWN The cluster is down"] {
            let meaning = meaning_in_cluster(&server(text));
            assert!(matches!(meaning, CallError::Refused(_)), "{text}");
        }
        // What goes again to a cluster surely had no effect, so that the last answer holds for all.
        for code in [
            "MOVED",
            "ASK",
            "TRYAGAIN",
            "CLUSTERDOWN",
            "READONLY",
            "LOADING",
            "MASTERDOWN",
        ] {
            let error = server(&format!("{code} why"));
            let had_none = matches!(meaning_in_cluster(&error), CallError::Refused(_));
            assert_eq!(is_moving(&error), had_none, "{code}");
        }
        let gone: RedisError = (ErrorKind::ClusterConnectionNotFound, "gone").into();
        assert!(!is_moving(&gone) && matches!(meaning_in_cluster(&gone), CallError::Unknown(_)));
        let migrating = "ERR Script attempted to access a non local key in a cluster node";
        assert!(refused(&server(migrating)));
        assert!(unknown(&(ErrorKind::Parse, "garbage").into()));
    }
}
