//! Finding the servers and connecting to them, as the settings say.

use std::{fmt, fs, path::Path};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, RedisError, RedisResult, TlsCertificates, Value, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};

use super::{
    Config, Mode,
    push::Push,
    slots::{Address, Slots, Told},
};

/// How many requests wait at a connection until it takes them; more wait at the caller.
const WAITING: usize = 1_024;

/// A connection to one server. Clones share it.
#[derive(Clone)]
pub(super) struct Connection(pub(super) MultiplexedConnection);

/// What a connection is for.
#[derive(Clone)]
pub(super) enum Purpose {
    /// Calls.
    Calls,
    /// Calls that wait for replicas.
    Writes,
    /// Subscriptions: what is published is pushed there.
    Hints(Push),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calls => "calls",
            Self::Writes => "appends that wait for replicas",
            Self::Hints(_) => "hints",
        })
    }
}

/// Connects to the master at `address` of a cluster, or to the one that the settings say.
pub(super) async fn connect(
    config: &Config,
    address: Option<&Address>,
    purpose: &Purpose,
) -> RedisResult<Connection> {
    let connection = match (config.mode, address) {
        (_, Some(address)) => open(config, info_at(config, address.clone())?, purpose).await,
        (Mode::Sentinel, None) => through_sentinels(config, purpose).await,
        (_, None) => open(config, first(config)?, purpose).await,
    };
    connection.map(Connection)
}

/// The first server of the settings.
fn first(config: &Config) -> RedisResult<ConnectionInfo> {
    let url = config.urls.first().map_or("", |url| url.secret());
    with_credentials(config, url.into_connection_info()?)
}

/// Another server, that is reached as the first is.
fn info_at(config: &Config, Address { host, port }: Address) -> RedisResult<ConnectionInfo> {
    let info = first(config)?;
    let address = match info.addr().clone() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure,
            tls_params,
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    // A cluster has one database only.
    let redis = info.redis_settings().clone().set_db(0);
    Ok(info.set_addr(address).set_redis_settings(redis))
}

/// The nodes of a cluster that can be asked: those of the settings, and the `known` ones.
pub(super) fn nodes(config: &Config, known: Vec<Address>) -> RedisResult<Vec<ConnectionInfo>> {
    let told = config.urls.iter();
    let told = told.map(|url| with_credentials(config, url.secret().into_connection_info()?));
    let known = known.into_iter().map(|address| info_at(config, address));
    let mut nodes: Vec<ConnectionInfo> = Vec::new();
    for node in told.chain(known) {
        let node = node?;
        if !nodes.iter().any(|other| other.addr() == node.addr()) {
            nodes.push(node);
        }
    }
    Ok(nodes)
}

/// Who serves which slots, as a node of the cluster says, and who that is.
pub(super) async fn slots(config: &Config, node: ConnectionInfo) -> RedisResult<Told> {
    let host = match node.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => String::new(),
    };
    let mut node = open(config, node, &Purpose::Calls).await?;
    let mut questions = redis::pipe();
    for question in ["MYID", "INFO", "SLOTS"] {
        questions.cmd("CLUSTER").arg(question);
    }
    let (id, info, slots): (String, String, Value) = questions.query_async(&mut node).await?;
    let nobody = || RedisError::from((ErrorKind::Parse, "it knows nobody who serves slots"));
    Ok(Told {
        node: id,
        is_well: info.lines().any(|line| line == "cluster_state:ok"),
        slots: Slots::read(slots, &host).ok_or_else(nobody)?,
    })
}

async fn open(
    config: &Config,
    info: ConnectionInfo,
    purpose: &Purpose,
) -> RedisResult<MultiplexedConnection> {
    let mut settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.timeout))
        .set_pipeline_buffer_size(WAITING);
    let (protocol, timeout) = match purpose {
        Purpose::Calls => (ProtocolVersion::RESP2, config.timeout),
        Purpose::Writes => (ProtocolVersion::RESP2, config.timeout + config.wait_timeout),
        Purpose::Hints(push) => {
            settings = settings.set_push_sender(push.clone());
            (ProtocolVersion::RESP3, config.timeout)
        }
    };
    settings = settings.set_response_timeout(Some(timeout));
    let redis = info.redis_settings().clone().set_protocol(protocol);
    let tcp = TcpSettings::default().set_nodelay(true);
    let info = info.set_redis_settings(redis).set_tcp_settings(tcp);
    let client = match info.addr() {
        ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, certificates(config)?)?,
        _ => Client::open(info)?,
    };
    client
        .get_multiplexed_async_connection_with_config(&settings)
        .await
}

/// Asks the sentinels, one after the other, for the master, and connects to it if it says that it is one.
async fn through_sentinels(
    config: &Config,
    purpose: &Purpose,
) -> RedisResult<MultiplexedConnection> {
    let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no sentinel is known"));
    for url in &config.urls {
        match through_sentinel(config, url.secret(), purpose).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn through_sentinel(
    config: &Config,
    url: &str,
    purpose: &Purpose,
) -> RedisResult<MultiplexedConnection> {
    let mut sentinel = open(config, url.into_connection_info()?, &Purpose::Calls).await?;
    let master: Option<(String, u16)> = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(&config.master_name)
        .query_async(&mut sentinel)
        .await?;
    let Some((host, port)) = master else {
        let unknown = "the sentinels do not know the master";
        return Err((ErrorKind::MasterNameNotFoundBySentinel, unknown).into());
    };
    let scheme = url.split_once("://").map_or("redis", |(scheme, _)| scheme);
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let address = format!("{scheme}://{host}:{port}");
    let info = with_credentials(config, address.as_str().into_connection_info()?)?;
    let mut master = open(config, info, purpose).await?;
    let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut master).await?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(master),
        _ => Err((ErrorKind::Io, "the sentinels' master is none yet").into()),
    }
}

/// Whether the server may drop keys by itself.
pub(super) async fn evicts(connection: &mut Connection) -> RedisResult<bool> {
    let mut memory = redis::cmd("INFO");
    memory.arg("memory");
    let info: String = redis::from_redis_value(connection.send(&memory).await?)?;
    let is = |line: &str| info.lines().any(|held| held == line);
    Ok(!is("maxmemory:0") && !is("maxmemory_policy:noeviction"))
}

/// Who the service is, where the URL does not say.
fn with_credentials(config: &Config, info: ConnectionInfo) -> RedisResult<ConnectionInfo> {
    let mut redis = info.redis_settings().clone();
    if redis.username().is_none() && !config.username.is_empty() {
        redis = redis.set_username(&config.username);
    }
    if redis.password().is_none() && !config.password_file.as_os_str().is_empty() {
        let password = read(&config.password_file)?;
        let password = String::from_utf8_lossy(&password);
        redis = redis.set_password(password.trim_end_matches(['\r', '\n']));
    }
    Ok(info.set_redis_settings(redis))
}

fn certificates(config: &Config) -> RedisResult<TlsCertificates> {
    let root_cert = match config.ca_file.as_os_str().is_empty() {
        true => None,
        false => Some(read(&config.ca_file)?),
    };
    Ok(TlsCertificates {
        client_tls: None,
        root_cert,
    })
}

fn read(path: &Path) -> RedisResult<Vec<u8>> {
    fs::read(path).map_err(|error| {
        let detail = format!("{}: {error}", path.display());
        RedisError::from((
            ErrorKind::InvalidClientConfig,
            "a file cannot be read",
            detail,
        ))
    })
}
