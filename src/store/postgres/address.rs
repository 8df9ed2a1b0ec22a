//! Where a PostgreSQL server is and who asks it: a URL, taken apart.
//!
//! Owns which words a URL may hold. Its password can be neither printed nor compared by eye; nothing that goes wrong with a
//! URL repeats any of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::domain::{NotEncoded, percent_decoded, percent_encoded};

/// A URL such as `postgres://user:password@host:5432/database?sslmode=verify-full`.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    pub(super) servers: Vec<Server>,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: Option<Password>,
    pub(super) encryption: Encryption,
    pub(super) demand: Demand,
    pub(super) application: String,
}

/// A password, wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(Arc<Zeroizing<String>>);

impl Password {
    fn new(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }

    /// For the handshake alone.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

/// One server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Server {
    /// Over TCP: a name or an address, and a port.
    Tcp(String, u16),
    /// A directory with a Unix socket, and the port in its name.
    Unix(PathBuf, u16),
}

impl Server {
    /// Whether nobody can listen in between.
    fn is_local(&self) -> bool {
        match self {
            Self::Unix(..) => true,
            Self::Tcp(host, _) => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(directory, port) => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

/// `sslmode`, with what certificates are checked against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Encryption {
    /// None.
    Disable,
    /// Where the server offers it. Who answers is not checked.
    Prefer,
    /// Always. Who answers is not checked.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa(Roots),
    /// Always, with a certificate of a known authority for the name of the host.
    VerifyFull(Roots),
}

/// Which authorities are believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Roots {
    /// Those of the operating system.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// `target_session_attrs`: which of several servers will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Demand {
    /// The first that answers.
    Any,
    /// The first that takes writes.
    ReadWrite,
}

/// Why a URL cannot be used. Repeats nothing of it but the names of parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressFlaw {
    /// What is wrong, about `the URL`.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

fn flaw(problem: impl Into<String>, fix: impl Into<String>) -> AddressFlaw {
    AddressFlaw { problem: problem.into(), fix: fix.into() }
}

const FORM: &str = "Write postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full";
/// Without a port.
const PORT: u16 = 5432;
/// Most servers of one URL: each may take a whole `connect_timeout`.
const MAX_SERVERS: usize = 8;

impl PostgresAddress {
    /// Takes a URL apart; relative paths in it are relative to `base`.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub fn parse(url: &str, base: &Path) -> Result<Self, AddressFlaw> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| flaw("the URL does not begin with postgres://", FORM))?;
        if rest.contains('#') {
            return Err(flaw("the URL holds a `#`", "Write it as %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !authority.contains('@') && url.contains('@') {
            return Err(flaw(
                "the user name or the password holds a `/` or a `?`",
                "Write %2F for `/`, and %3F for `?`",
            ));
        }
        if path.contains(['@', '/']) {
            return Err(flaw(
                "the name of the database, or the password before it, holds an `@` or a `/`",
                "Write %40 for `@`, and %2F for `/`",
            ));
        }
        // A password may hold an `@` that nobody escaped; a host never does.
        let (who, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = who.split_once(':').map_or((who, None), |(user, password)| (user, Some(password)));
        let mut words = Words::read(query)?;
        let user = named(decode(user, "user name")?, words.take("user"), "user", "user name")?;
        let password = match (password, words.take("password")) {
            (Some(_), Some(_)) => return Err(said_twice("password")),
            (Some(text), None) => Some(decode(text, "password")?),
            (None, word) => word,
        };
        let database = named(decode(path, "database")?, words.take("dbname"), "dbname", "database")?;
        let servers = servers(hosts, words.take("host"), words.take("port"))?;
        let encryption = encryption(&mut words, base)?;
        let demand = match words.take("target_session_attrs").as_deref() {
            Some("read-write") => Demand::ReadWrite,
            Some("any") => Demand::Any,
            // One name may lead to another server tomorrow, which is a standby until it is promoted.
            None => Demand::ReadWrite,
            Some(_) => return Err(flaw("`target_session_attrs` is neither any nor read-write", "Write one of them")),
        };
        let application = words.take("application_name").unwrap_or_else(|| "portcullis".to_owned());
        words.finish()?;
        if encryption.is_checked() && servers.iter().any(|server| matches!(server, Server::Unix(..))) {
            return Err(flaw("there is no TLS over a Unix socket", "Remove `sslmode`"));
        }
        let password = password.filter(|password| !password.is_empty()).map(Password::new);
        Ok(Self { servers, database, user, password, encryption, demand, application })
    }

    /// Whether what is sent may be read, or answered, by somebody in between.
    pub fn is_exposed(&self) -> bool {
        !self.encryption.is_checked() && !self.servers.iter().all(Server::is_local)
    }

    /// The URL with `redacted` in the place of a password, so that it can be shown.
    pub fn show(&self, redacted: &str) -> String {
        let hosts: Vec<String> = self
            .servers
            .iter()
            .map(|server| match server {
                Server::Tcp(..) => server.to_string(),
                Server::Unix(directory, port) => {
                    format!("{}:{port}", percent_encoded(&directory.display().to_string()))
                }
            })
            .collect();
        let password = if self.password.is_some() { format!(":{redacted}") } else { String::new() };
        let mut shown = format!(
            "postgres://{}{password}@{}/{}",
            percent_encoded(&self.user),
            hosts.join(","),
            percent_encoded(&self.database)
        );
        let roots = match &self.encryption {
            Encryption::VerifyCa(roots) | Encryption::VerifyFull(roots) => Some(roots),
            Encryption::Disable | Encryption::Prefer | Encryption::Require => None,
        };
        shown.push_str("?sslmode=");
        shown.push_str(self.encryption.word());
        if let Some(Roots::File(file)) = roots {
            shown.push_str("&sslrootcert=");
            shown.push_str(&percent_encoded(&file.display().to_string()));
        }
        if self.demand == Demand::Any {
            shown.push_str("&target_session_attrs=any");
        }
        if self.application != "portcullis" {
            shown.push_str("&application_name=");
            shown.push_str(&percent_encoded(&self.application));
        }
        shown
    }

    /// The database and its servers, for messages.
    pub(super) fn place(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        format!("the database `{}` at {}", self.database, servers.join(", "))
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show("…"))
    }
}

impl Encryption {
    fn is_checked(&self) -> bool {
        match self {
            Self::VerifyCa(_) | Self::VerifyFull(_) => true,
            Self::Disable | Self::Prefer | Self::Require => false,
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa(_) => "verify-ca",
            Self::VerifyFull(_) => "verify-full",
        }
    }
}

fn encryption(words: &mut Words, base: &Path) -> Result<Encryption, AddressFlaw> {
    let roots = words.take("sslrootcert").map(|roots| match roots.as_str() {
        "system" => Roots::System,
        file => Roots::File(base.join(file)),
    });
    let mode = words.take("sslmode");
    match (mode.as_deref(), roots) {
        (Some("verify-full"), roots) => Ok(Encryption::VerifyFull(roots.unwrap_or(Roots::System))),
        (Some("verify-ca"), roots) => Ok(Encryption::VerifyCa(roots.unwrap_or(Roots::System))),
        (Some("disable" | "prefer" | "require") | None, Some(_)) => Err(flaw(
            "`sslrootcert` without `sslmode=verify-ca` or `verify-full` checks nothing",
            "Write `sslmode=verify-full`",
        )),
        (Some("prefer") | None, None) => Ok(Encryption::Prefer),
        (Some("require"), None) => Ok(Encryption::Require),
        (Some("disable"), None) => Ok(Encryption::Disable),
        (Some(_), _) => Err(flaw(
            "`sslmode` is none of disable, prefer, require, verify-ca and verify-full",
            "Write `sslmode=verify-full`, unless the server is on this machine",
        )),
    }
}

fn servers(hosts: &str, host: Option<String>, port: Option<String>) -> Result<Vec<Server>, AddressFlaw> {
    let common = port.map_or(Ok(PORT), |port| number(&port))?;
    let texts: Vec<String> = match (hosts, host) {
        ("", None) => return Err(flaw("the URL names no host", FORM)),
        ("", Some(host)) => return host.split(',').map(|host| server(host.to_owned(), common)).collect(),
        (_, Some(_)) => return Err(said_twice("host")),
        (hosts, None) => hosts.split(',').map(str::to_owned).collect(),
    };
    if texts.len() > MAX_SERVERS {
        return Err(flaw(format!("the URL names more than {MAX_SERVERS} hosts"), "Name fewer"));
    }
    texts
        .iter()
        .map(|text| {
            let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((host, "")) => (host, None),
                Some((host, port)) => (host, port.strip_prefix(':')),
                None => text.split_once(':').map_or((text.as_str(), None), |(host, port)| (host, Some(port))),
            };
            server(decode(host, "host")?, port.map_or(Ok(common), number)?)
        })
        .collect()
}

fn server(host: String, port: u16) -> Result<Server, AddressFlaw> {
    if host.starts_with('/') {
        return Ok(Server::Unix(PathBuf::from(host), port));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || !host.chars().all(good) {
        return Err(flaw("what stands for the host is none", FORM));
    }
    Ok(Server::Tcp(host, port))
}

fn number(text: &str) -> Result<u16, AddressFlaw> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| flaw("what stands for the port is none", FORM))
}

/// A text that stands in its place of the URL or as a parameter, and is needed.
fn named(place: String, word: Option<String>, parameter: &str, what: &str) -> Result<String, AddressFlaw> {
    match (place.is_empty(), word) {
        (false, Some(_)) => Err(said_twice(parameter)),
        (false, None) => Ok(place),
        (true, Some(word)) if !word.is_empty() => Ok(word),
        (true, _) => Err(flaw(format!("the URL names no {what}"), FORM)),
    }
}

fn said_twice(parameter: &str) -> AddressFlaw {
    flaw(format!("`{parameter}` is given twice"), "Give it once")
}

/// The parameters of a URL, each of which must be taken.
struct Words(Vec<(String, String)>);

impl Words {
    fn read(query: &str) -> Result<Self, AddressFlaw> {
        let mut words: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| flaw("a parameter of the URL has no value", FORM))?;
            let (name, value) = (decode(name, "name of a parameter")?, decode(value, "value of a parameter")?);
            if words.iter().any(|(known, _)| *known == name) {
                return Err(said_twice(&shown(&name)));
            }
            words.push((name, value));
        }
        Ok(Self(words))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn finish(self) -> Result<(), AddressFlaw> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let fix = match name.as_str() {
            "connect_timeout" => "Set `store.connect_timeout`",
            "sslcert" | "sslkey" | "sslpassword" | "sslcrl" | "sslcrldir" => {
                "Identify with a password: client certificates and revocation lists are not supported"
            }
            "options" => "Set what the role needs with ALTER ROLE … SET",
            "service" | "passfile" | "krbsrvname" | "gssencmode" => {
                "Write everything into the URL; use ${NAME} or ${file:PATH}"
            }
            _ => {
                "Known: sslmode, sslrootcert, host, port, user, password, dbname, target_session_attrs, application_name"
            }
        };
        Err(flaw(format!("the parameter `{}` is not supported", shown(name)), fix))
    }
}

/// The name of a parameter, unless it may be a piece of a password that was not escaped.
fn shown(name: &str) -> String {
    let plain = name.len() <= 30 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if plain { name.to_owned() } else { "…".to_owned() }
}

fn decode(text: &str, what: &str) -> Result<String, AddressFlaw> {
    percent_decoded(text).map_err(|why| match why {
        NotEncoded::Broken => flaw(format!("the {what} holds a broken percent sign"), "Write a `%` as %25"),
        NotEncoded::NotUtf8 => flaw(format!("the {what} is not UTF-8"), "Encode it as UTF-8"),
        NotEncoded::Nul => flaw(format!("the {what} holds a NUL"), "Remove it"),
    })
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
