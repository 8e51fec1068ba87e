//! A connection to the node that has a service's keys, whatever the arrangement.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode, Value,
};

use super::config::{Address, Arrangement, Login, RedisConfig, Tls};

/// One connection for commands and wake-ups both: RESP3 brings them side by side.
#[derive(Clone)]
pub(super) enum Link {
    Node(MultiplexedConnection),
    /// Follows slots that move, by itself.
    Cluster(ClusterConnection),
}

impl Link {
    /// Connects, and gives what is pushed to `pushed`.
    pub(super) async fn connect<F>(config: &RedisConfig, pushed: F) -> RedisResult<Self>
    where
        F: Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static,
    {
        match &config.arrangement {
            Arrangement::Single(address) => {
                let info = address_of(address, config.tls.as_ref())
                    .into_connection_info()?
                    .set_redis_settings(settings(config.login.as_ref()));
                let client = match &config.tls {
                    Some(tls) => Client::build_with_tls(info, certificates(tls))?,
                    None => Client::open(info)?,
                };
                let options = options(config).set_push_sender(pushed);
                Ok(Self::Node(client.get_multiplexed_async_connection_with_config(&options).await?))
            }
            Arrangement::Sentinel { sentinels, primary, login } => {
                let addresses = sentinels.iter().map(|address| address_of(address, config.tls.as_ref()));
                let mut builder = SentinelClientBuilder::new(addresses, primary, SentinelServerType::Master)?
                    .set_client_to_redis_protocol(ProtocolVersion::RESP3);
                if let Some(login) = login {
                    builder = builder.set_client_to_sentinel_password(&login.password);
                    if let Some(user) = &login.user {
                        builder = builder.set_client_to_sentinel_username(user);
                    }
                }
                if let Some(login) = &config.login {
                    builder = builder.set_client_to_redis_password(&login.password);
                    if let Some(user) = &login.user {
                        builder = builder.set_client_to_redis_username(user);
                    }
                }
                if let Some(tls) = &config.tls {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(certificates(tls))
                        .set_client_to_sentinel_certificates(certificates(tls));
                }
                let options = options(config).set_push_sender(pushed);
                Ok(Self::Node(builder.build()?.get_async_connection_with_config(&options).await?))
            }
            Arrangement::Cluster(nodes) => {
                let infos = nodes.iter().map(|address| {
                    address_of(address, config.tls.as_ref())
                        .into_connection_info()
                        .map(|info| info.set_redis_settings(settings(config.login.as_ref())))
                });
                let infos = infos.collect::<RedisResult<Vec<ConnectionInfo>>>()?;
                let mut builder = ClusterClientBuilder::new(infos)
                    .use_protocol(ProtocolVersion::RESP3)
                    .connection_timeout(config.connect_deadline)
                    .response_timeout(config.command_deadline)
                    // A slot that moves costs a second try within the deadline; a node that is gone is nobody's to wait for.
                    .retries(2)
                    .min_retry_wait(5)
                    .max_retry_wait(50)
                    .push_sender(pushed);
                if let Some(tls) = &config.tls {
                    builder = builder.tls(TlsMode::Secure).certs(certificates(tls));
                }
                Ok(Self::Cluster(builder.build()?.get_async_connection().await?))
            }
        }
    }

    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        // Errors come as values: the caller's conversion to a result is here.
        match self {
            Self::Node(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }
        .and_then(Value::extract_error)
    }

    pub(super) async fn subscribe(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Self::Node(_) => self.send(redis::cmd("SSUBSCRIBE").arg(channel)).await.map(|_| ()),
            Self::Cluster(connection) => connection.ssubscribe(channel).await,
        }
    }

    pub(super) async fn unsubscribe(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Self::Node(_) => self.send(redis::cmd("SUNSUBSCRIBE").arg(channel)).await.map(|_| ()),
            Self::Cluster(connection) => connection.sunsubscribe(channel).await,
        }
    }
}

fn options(config: &RedisConfig) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_deadline))
        .set_response_timeout(Some(config.command_deadline))
}

fn settings(login: Option<&Login>) -> RedisConnectionInfo {
    let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    let Some(login) = login else { return settings };
    let settings = settings.set_password(&login.password);
    match &login.user {
        Some(user) => settings.set_username(user),
        None => settings,
    }
}

fn address_of(address: &Address, tls: Option<&Tls>) -> ConnectionAddr {
    let (host, port) = (address.host.clone(), address.port);
    match tls {
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        None => ConnectionAddr::Tcp(host, port),
    }
}

fn certificates(tls: &Tls) -> TlsCertificates {
    TlsCertificates {
        client_tls: tls
            .certificate
            .clone()
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
        root_cert: tls.authorities.clone(),
    }
}
