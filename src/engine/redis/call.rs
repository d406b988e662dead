//! Calls of the functions that run within Redis, and what failures of them mean.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use redis::{Cmd, Pipeline, RedisError, RedisResult, ToRedisArgs, Value, aio::ConnectionLike};
use tokio::{
    select,
    time::{self, Instant},
};

use super::{
    cause,
    link::{Link, Live},
    servers::Connection,
    shards::{Shard, Shards},
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
    /// what there is can be read. Calls load them where they are missing.
    pub(super) async fn offer_to(connection: &mut Connection) -> RedisResult<()> {
        const CANNOT_WRITE: [&str; 3] = ["OOM", "NOREPLICAS", "MISCONF"];
        let Err(error) = Self::load_into(connection).await else {
            return Ok(());
        };
        let cannot_write = error
            .code()
            .is_some_and(|code| CANNOT_WRITE.contains(&code));
        if cannot_write {
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
    pub(super) async fn on(&self, shards: &Shards) -> Result<Vec<Value>, CallError> {
        let answer = shards.run(&self.key, &self.command).await;
        not_mistyped(shards, answer.and_then(array)?)
    }

    /// Calls it, and waits at the same connection until `replicas` have it, at most so many milliseconds. Returns the
    /// answer, and how many have it.
    pub(super) async fn on_and_wait(
        &self,
        shards: &Shards,
        replicas: usize,
        millis: u128,
    ) -> Result<(Vec<Value>, usize), CallError> {
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas)
            .arg(u64::try_from(millis).unwrap_or(u64::MAX));
        let mut both = redis::pipe();
        both.add_command(self.command.clone()).add_command(wait);
        let answers = shards.send(&self.key, Request::Both(&both)).await?;
        let mut answers = array(answers)?.into_iter();
        let (answer, have) = (answers.next(), answers.next());
        let have = match have {
            Some(Value::Int(have)) => usize::try_from(have).unwrap_or(0),
            // It may also be refused, after the call has been run.
            _ => 0,
        };
        let answer = array(answer.unwrap_or_default())?;
        Ok((not_mistyped(shards, answer)?, have))
    }
}

/// The answer of a function, unless that found a key that another program has written.
fn not_mistyped(shards: &Shards, answer: Vec<Value>) -> Result<Vec<Value>, CallError> {
    if !matches!(answer.first(), Some(Value::BulkString(word)) if word == b"mistyped") {
        return Ok(answer);
    }
    let problem = problem_of(answer)?;
    shards.problems.note(&problem);
    Err(CallError::Refused(problem))
}

/// What an answer says that begins with `mistyped`: a key, what it holds, and what it has to.
pub(super) fn problem_of(answer: Vec<Value>) -> Result<String, CallError> {
    let mut answer = answer.into_iter().skip(1);
    let [key, found, wanted] = [(); 3].map(|()| next(&mut answer).and_then(text));
    let (key, found, wanted) = (key?, found?, wanted?);
    Ok(format!(
        "the key {key:?} in Redis holds a {found}, expected a {wanted}: another program wrote it; rename or delete it, and \
         keep other programs away from redis.prefix"
    ))
}

/// What is sent.
#[derive(Clone, Copy)]
enum Request<'a> {
    One(&'a Cmd),
    /// Two, one after the other.
    Both(&'a Pipeline),
}

impl Request<'_> {
    /// Where it goes. What waits for replicas is in nobody's way there.
    fn link<'a>(&self, shard: &'a Shard) -> &'a Link {
        match self {
            Self::One(_) => &shard.calls,
            Self::Both(_) => shard.next_writer(),
        }
    }
}

impl Connection {
    async fn deliver(&mut self, request: Request<'_>) -> RedisResult<Value> {
        match request {
            Request::One(command) => self.send(command).await,
            Request::Both(both) => self.send_both(both).await.map(Value::Array),
        }
    }

    /// One command.
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        checked(self.0.req_packed_command(command).await?)
    }

    /// Commands one after the other. Fails if the first one does; what the others come to is in their answers.
    async fn send_both(&mut self, both: &Pipeline) -> RedisResult<Vec<Value>> {
        let answers = self.0.req_packed_commands(both, 0, 2).await?;
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

/// The first wait before a command goes again to a cluster that is changing; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_millis(200);

impl Shards {
    /// Runs one command where `key` is.
    pub(super) async fn run(&self, key: &str, command: &Cmd) -> Result<Value, CallError> {
        self.send(key, Request::One(command)).await
    }

    /// Sends something to where `key` is; again, as long as it surely had no effect: where the functions had to be
    /// loaded first, and where a cluster says that the slot is elsewhere, or nowhere yet. Nothing is sent, and nothing
    /// waited for but an answer, after as long as an answer may take.
    async fn send(&self, key: &str, request: Request<'_>) -> Result<Value, CallError> {
        let deadline = Instant::now() + self.timeout();
        let (mut wait, mut loaded) = (FIRST_WAIT, false);
        loop {
            let shard = self.of(key, deadline).await?;
            let link = request.link(&shard);
            let live = select! {
                biased;
                live = link.get_until(deadline) => live.inspect_err(|_| self.doubt())?,
                () = self.is_elsewhere(key, shard.id) => continue,
            };
            let mut connection = live.connection.clone();
            let error = match connection.deliver(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) if lacks_functions(&error) && !loaded => {
                    loaded = true;
                    match Functions::load_into(&mut connection).await {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let failed = self.failed(link, &live, &error);
            let moves = self.are_a_cluster() && is_moving(&error);
            if !moves || Instant::now() >= deadline {
                return Err(failed);
            }
            select! {
                () = time::sleep_until(deadline.min(Instant::now() + wait)) => {}
                () = self.is_elsewhere(key, shard.id) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// What `error` means for a command that was sent. A connection that failed is made anew; in a cluster another may
    /// have taken the server's place.
    pub(super) fn failed(&self, link: &Link, live: &Live, error: &RedisError) -> CallError {
        let is_broken = error.is_io_error() || error.is_unrecoverable_error();
        if is_broken || error.code() == Some("READONLY") {
            link.lost(live.number);
        }
        self.doubt_by(error);
        if let Some(problem) = cause::misconfigured(error, self.mode()) {
            self.problems.note(&problem);
        }
        meaning(error)
    }

    /// The nodes of a cluster are asked where `error` says that a master may not serve its slots any more.
    pub(super) fn doubt_by(&self, error: &RedisError) {
        if is_moving(error) {
            self.doubt_at_once();
        } else if error.is_io_error() || error.is_unrecoverable_error() {
            self.doubt();
        }
    }
}

/// Whether a cluster's slot was elsewhere, or nowhere: nothing was run.
pub(super) fn is_moving(error: &RedisError) -> bool {
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

    use redis::{ErrorKind, ServerError};

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
        // What goes again to a cluster surely had no effect, so that the last answer holds for all.
        for code in ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY"] {
            let error = server(&format!("{code} why"));
            assert!(is_moving(&error) && refused(&error), "{code}");
        }
        let gone = io::Error::from(io::ErrorKind::BrokenPipe).into();
        assert!(!is_moving(&gone) && unknown(&gone));
        let migrating = "ERR Script attempted to access a non local key in a cluster node";
        assert!(refused(&server(migrating)));
        assert!(unknown(&(ErrorKind::Parse, "garbage").into()));
    }
}
