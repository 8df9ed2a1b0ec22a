//! Making connections: to the servers of the URL, with bounds, and only where the tables are those this program knows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Demand, Encryption, PostgresAddress, Server};
use super::fault::Fault;
use super::migrate::{self, State};
use super::session::Session;
use super::tls;
use crate::store::error::StoreError;
use crate::store::settings::{Pooler, PostgresSettings};

/// The oldest server that is spoken to.
const OLDEST: u32 = 13;
/// A connection that says nothing is asked whether it is still there after this long, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Nothing is changed over it.
    Reading,
    /// Whatever has to be done.
    Writing,
}

/// Where connections come from.
pub(super) struct Source {
    config: Config,
    tls: MakeRustlsConnect,
    settings: PostgresSettings,
}

/// An open connection and what carries its messages.
pub(super) type Wire =
    (Client, Connection<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>);

impl Source {
    /// Reads what TLS needs; connects to nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the authorities cannot be read.
    pub(super) fn new(settings: &PostgresSettings) -> Result<Arc<Self>, StoreError> {
        let tls = tls::connector(&settings.address.encryption)?;
        Ok(Arc::new(Self { config: config(settings), tls, settings: settings.clone() }))
    }

    pub(super) fn address(&self) -> &PostgresAddress {
        &self.settings.address
    }

    pub(super) fn pooler(&self) -> Pooler {
        self.settings.pooler
    }

    /// A connection that speaks to tables of the schema that this program knows; for reading, a newer one that goes on from
    /// there will do. Steps that a gateway of before cannot read by are not taken while it runs (docs/sizing.md): it goes
    /// on hearing of revocations until it is replaced.
    pub(super) async fn connect(&self, what_for: Purpose) -> Result<Session, Fault> {
        let mut session = self.connect_unchecked().await?;
        match (migrate::look(&mut session, migrate::STEPS).await?, what_for) {
            (State::Known, _) | (State::Newer(_), Purpose::Reading) => Ok(session),
            (other, _) => Err(other.refusal(self.address()).into()),
        }
    }

    /// A connection, whatever the tables are.
    pub(super) async fn connect_unchecked(&self) -> Result<Session, Fault> {
        let (client, connection) = self.wire().await?;
        check_server(&connection)?;
        drop(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the store ended");
            }
        }));
        let mut session = Session::new(client, self.settings.pooler, self.settings.statement_timeout);
        session.set_bounds().await?;
        Ok(session)
    }

    /// A connection whose messages the caller carries.
    pub(super) async fn wire(&self) -> Result<Wire, Fault> {
        let patience = self.settings.connect_timeout;
        match tokio::time::timeout(patience, self.first_that_answers()).await {
            Ok(wire) => wire,
            Err(_) => Err(Fault::Silence(patience)),
        }
    }

    /// Tries each address of each server with a share of the time for the whole of it: one that accepts connections and
    /// says nothing hides none of the others.
    async fn first_that_answers(&self) -> Result<Wire, Fault> {
        let mut ways = Vec::new();
        for server in &self.address().servers {
            ways.extend(self.ways_to(server).await);
        }
        let share = self.settings.connect_timeout / u32::try_from(ways.len()).unwrap_or(1).max(1);
        let mut trouble = Fault::Silence(share);
        for way in ways {
            trouble = match tokio::time::timeout(share, way.connect(self.tls.clone())).await {
                Ok(Ok(wire)) => return Ok(wire),
                Ok(Err(error)) => error.into(),
                Err(_) => Fault::Silence(share),
            };
        }
        Err(trouble)
    }

    /// The addresses behind a server's name. A name that leads nowhere stays, to be told of.
    async fn ways_to(&self, server: &Server) -> Vec<Config> {
        let mut config = self.config.clone();
        match server {
            Server::Unix(directory, port) => vec![config.host_path(directory).port(*port).clone()],
            Server::Tcp(host, port) => {
                config.host(host).port(*port);
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                let mut addresses: Vec<IpAddr> = found.into_iter().flatten().map(|address| address.ip()).collect();
                addresses.dedup();
                if addresses.is_empty() {
                    return vec![config];
                }
                addresses.into_iter().map(|address| config.clone().hostaddr(address).clone()).collect()
            }
        }
    }
}

/// What connections to all servers have in common.
fn config(settings: &PostgresSettings) -> Config {
    let address = &settings.address;
    let mut config = Config::new();
    config.user(&address.user).dbname(&address.database).application_name(&address.application);
    if let Some(password) = &address.password {
        config.password(password.reveal());
    }
    config.ssl_mode(match address.encryption {
        Encryption::Disable => SslMode::Disable,
        Encryption::Prefer => SslMode::Prefer,
        Encryption::Require | Encryption::VerifyCa(_) | Encryption::VerifyFull(_) => SslMode::Require,
    });
    config.target_session_attrs(match address.demand {
        Demand::Any => TargetSessionAttrs::Any,
        Demand::ReadWrite => TargetSessionAttrs::ReadWrite,
    });
    config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 4).keepalives_retries(4);
    config.tcp_user_timeout(KEEPALIVE * 2);
    config
}

fn check_server<T>(connection: &Connection<Socket, T>) -> Result<(), Fault>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let told = |name| connection.parameter(name).unwrap_or_default();
    let version = told("server_version");
    let major: Option<u32> = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|text| text.parse().ok());
    if major.is_some_and(|major| major < OLDEST) {
        let problem = format!("the server is PostgreSQL {version}; {OLDEST} or newer is needed");
        return Err(StoreError::unavailable("connecting to PostgreSQL", problem).into());
    }
    let encoding = told("server_encoding");
    if !encoding.is_empty() && encoding != "UTF8" {
        let problem = format!("the database is encoded as {encoding}; create it with ENCODING 'UTF8'");
        return Err(StoreError::unavailable("connecting to PostgreSQL", problem).into());
    }
    Ok(())
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.address.fmt(f)
    }
}
