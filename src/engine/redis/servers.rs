//! Finding the servers and connecting to them, as the settings say.

use std::{fs, path::Path, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, RedisError, RedisResult, TlsCertificates, Value, aio::MultiplexedConnection,
    cluster::ClusterClientBuilder, cluster_async::ClusterConnection, io::tcp::TcpSettings,
};

use super::{Config, Mode, hints::Push};

/// How many requests wait at a connection until it takes them; more wait at the caller.
const WAITING: usize = 1_024;

/// A way to the servers. Clones share connections.
#[derive(Clone)]
pub(super) enum Connection {
    /// To the one master.
    One(MultiplexedConnection),
    /// To whichever master holds a key.
    Cluster(ClusterConnection),
}

/// What a connection is for.
#[derive(Clone)]
pub(super) enum Purpose {
    /// Calls that may take as long.
    Calls(Duration),
    /// Subscriptions: what is published is pushed there.
    Hints(Push),
}

/// Connects to the master, or to the cluster.
pub(super) async fn connect(config: &Config, purpose: &Purpose) -> RedisResult<Connection> {
    match config.mode {
        Mode::Single => {
            let url = config.urls.first().map_or("", |url| url.secret());
            let info = with_credentials(config, url.into_connection_info()?)?;
            open(config, info, purpose).await.map(Connection::One)
        }
        Mode::Sentinel => through_sentinels(config, purpose)
            .await
            .map(Connection::One),
        Mode::Cluster => cluster(config, purpose).await.map(Connection::Cluster),
    }
}

async fn open(
    config: &Config,
    info: ConnectionInfo,
    purpose: &Purpose,
) -> RedisResult<MultiplexedConnection> {
    let mut settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.timeout))
        .set_pipeline_buffer_size(WAITING);
    let protocol = match purpose {
        Purpose::Calls(timeout) => {
            settings = settings.set_response_timeout(Some(*timeout));
            ProtocolVersion::RESP2
        }
        Purpose::Hints(push) => {
            settings = settings
                .set_response_timeout(Some(config.timeout))
                .set_push_sender(push.clone());
            ProtocolVersion::RESP3
        }
    };
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
    let asking = Purpose::Calls(config.timeout);
    let mut sentinel = open(config, url.into_connection_info()?, &asking).await?;
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

async fn cluster(config: &Config, purpose: &Purpose) -> RedisResult<ClusterConnection> {
    let nodes = config.urls.iter().map(|url| {
        let info = url.secret().into_connection_info()?;
        with_credentials(config, info)
    });
    let nodes: Vec<ConnectionInfo> = nodes.collect::<RedisResult<_>>()?;
    let is_tls = |info: &ConnectionInfo| matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    let over_tls = nodes.iter().any(is_tls);
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(config.timeout)
        // It would also send again what a lost connection has not answered: see `Link::run`.
        .retries(0)
        .tcp_settings(TcpSettings::default().set_nodelay(true));
    if over_tls {
        builder = builder.certs(certificates(config)?);
    }
    builder = match purpose {
        Purpose::Calls(timeout) => builder
            .response_timeout(*timeout)
            .overall_response_timeout(Some(*timeout)),
        Purpose::Hints(push) => builder
            .use_protocol(ProtocolVersion::RESP3)
            .response_timeout(config.timeout)
            .overall_response_timeout(Some(config.timeout))
            .push_sender(push.clone()),
    };
    builder.build()?.get_async_connection().await
}

/// Warns if the server may drop keys by itself: what is gone by itself is gone without a word.
pub(super) async fn warn_of_eviction(connection: &mut Connection) {
    let Connection::One(_) = connection else {
        return;
    };
    let mut memory = redis::cmd("INFO");
    memory.arg("memory");
    // Who may not ask is not warned.
    if let Ok(Value::BulkString(info)) = connection.send(&memory).await {
        let info = String::from_utf8_lossy(&info);
        let is = |line: &str| info.lines().any(|held| held == line);
        if !is("maxmemory:0") && !is("maxmemory_policy:noeviction") {
            tracing::error!("Redis evicts keys when it is full: set `maxmemory-policy noeviction`");
        }
    }
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

impl Connection {
    /// Subscribes to a channel, or unsubscribes from it, and waits until that is confirmed.
    pub(super) async fn subscription(&mut self, command: &str, channel: &str) -> RedisResult<()> {
        match self {
            Self::One(_) => {
                let mut request = redis::cmd(command);
                request.arg(channel);
                self.send(&request).await.map(|_| ())
            }
            Self::Cluster(connection) if command == "SSUBSCRIBE" => {
                connection.ssubscribe(channel).await
            }
            Self::Cluster(connection) => connection.sunsubscribe(channel).await,
        }
    }
}
