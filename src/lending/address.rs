//! Where a Redis or Valkey server is and who asks it: a URL, taken apart.
//!
//! Its password can be neither printed nor compared by eye; nothing that goes wrong with a URL repeats any of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::domain::{NotEncoded, percent_decoded, percent_encoded};

/// A URL such as `rediss://user:password@host:6379/0`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    pub(super) server: Server,
    pub(super) user: Option<String>,
    pub(super) password: Option<Password>,
    pub(super) database: u32,
}

/// A password, wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(Arc<Zeroizing<String>>);

impl Password {
    /// For the handshake alone.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

/// Where it listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Server {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The same, over TLS.
    Tls(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a URL cannot be used. Repeats nothing of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisAddressFlaw {
    /// What is wrong, about `the URL`.
    pub problem: &'static str,
    /// What to do.
    pub fix: &'static str,
}

const FORM: &str = "Write rediss://USER:PASSWORD@HOST:6379/0, redis:// without TLS, or unix:///PATH?db=0";
/// Without a port.
const PORT: u16 = 6379;

const fn flaw(problem: &'static str, fix: &'static str) -> RedisAddressFlaw {
    RedisAddressFlaw { problem, fix }
}

impl RedisAddress {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub fn parse(url: &str) -> Result<Self, RedisAddressFlaw> {
        let (scheme, rest) = url.split_once("://").ok_or(flaw("the URL has no scheme", FORM))?;
        if rest.contains('#') {
            return Err(flaw("the URL holds a `#`", "Write it as %23"));
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !authority.contains('@') && url.contains('@') {
            let fix = "Write %2F for `/`, and %3F for `?`";
            return Err(flaw("the user name or the password holds a `/` or a `?`", fix));
        }
        // A password may hold an `@` that nobody escaped; a host never does.
        let (who, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = who.split_once(':').map_or((who, None), |(user, password)| (user, Some(password)));
        let user = Some(decode(user)?).filter(|user| !user.is_empty());
        let password = password.map(decode).transpose()?.filter(|password| !password.is_empty());
        if user.is_some() && password.is_none() {
            return Err(flaw("the URL names a user without a password", "Write USER:PASSWORD, or :PASSWORD alone"));
        }
        let (server, database) = match scheme {
            "redis" | "valkey" => (tcp(host, Server::Tcp)?, path.trim_start_matches('/')),
            "rediss" | "valkeys" => (tcp(host, Server::Tls)?, path.trim_start_matches('/')),
            "unix" | "redis+unix" | "valkey+unix" => (unix(host, path)?, ""),
            _ => return Err(flaw("the scheme of the URL is none of redis, rediss and unix", FORM)),
        };
        let database = match (database, query, &server) {
            ("", None, _) => 0,
            ("", Some(query), Server::Unix(_)) => {
                let number = query.strip_prefix("db=");
                number.ok_or(flaw("the URL has a parameter other than `db`", FORM)).and_then(number_of)?
            }
            (_, Some(_), _) => return Err(flaw("the URL has parameters", FORM)),
            (number, None, _) => number_of(number)?,
        };
        let password = password.map(|password| Password(Arc::new(Zeroizing::new(password))));
        Ok(Self { server, user, password, database })
    }

    /// Whether what is sent may be read, or answered, by somebody in between.
    pub fn is_exposed(&self) -> bool {
        match &self.server {
            Server::Tls(..) | Server::Unix(_) => false,
            Server::Tcp(host, _) => {
                host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }

    /// Whether TLS is spoken.
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.server, Server::Tls(..))
    }

    /// The URL with `redacted` in the place of a password, so that it can be shown.
    pub fn show(&self, redacted: &str) -> String {
        let who = match (&self.user, &self.password) {
            (Some(user), Some(_)) => format!("{}:{redacted}@", percent_encoded(user)),
            (None, Some(_)) => format!(":{redacted}@"),
            (_, None) => String::new(),
        };
        let database = self.database;
        match &self.server {
            Server::Tcp(..) => format!("redis://{who}{}/{database}", self.place()),
            Server::Tls(..) => format!("rediss://{who}{}/{database}", self.place()),
            Server::Unix(path) => format!("unix://{who}{}?db={database}", encode_path(&path.display().to_string())),
        }
    }

    /// The server, for messages.
    pub(super) fn place(&self) -> String {
        match &self.server {
            Server::Tcp(host, port) | Server::Tls(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Server::Tcp(host, port) | Server::Tls(host, port) => format!("{host}:{port}"),
            Server::Unix(path) => path.display().to_string(),
        }
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show("…"))
    }
}

fn tcp(text: &str, make: impl Fn(String, u16) -> Server) -> Result<Server, RedisAddressFlaw> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(good) {
        return Err(flaw("what stands for the host is none", FORM));
    }
    let port = match port {
        None => PORT,
        Some(port) => {
            port.parse().ok().filter(|port| *port > 0).ok_or(flaw("what stands for the port is none", FORM))?
        }
    };
    Ok(make(host.to_owned(), port))
}

fn unix(host: &str, path: &str) -> Result<Server, RedisAddressFlaw> {
    if !host.is_empty() {
        return Err(flaw("a Unix socket has a path and no host", "Write unix:///PATH, with three slashes"));
    }
    let path = decode(path)?;
    if path.len() < 2 { Err(flaw("the URL names no socket", FORM)) } else { Ok(Server::Unix(path.into())) }
}

fn number_of(text: &str) -> Result<u32, RedisAddressFlaw> {
    text.parse().map_err(|_| flaw("what stands for the database is no number", FORM))
}

fn decode(text: &str) -> Result<String, RedisAddressFlaw> {
    percent_decoded(text).map_err(|why| match why {
        NotEncoded::Broken => flaw("the URL holds a broken percent sign", "Write a `%` as %25"),
        NotEncoded::NotUtf8 => flaw("the URL is not UTF-8", "Encode it as UTF-8"),
        NotEncoded::Nul => flaw("the URL holds a NUL", "Remove it"),
    })
}

fn encode_path(path: &str) -> String {
    path.split('/').map(percent_encoded).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_as_they_were_read_without_their_password() {
        for (url, shown) in [
            ("redis://cache", "redis://cache:6379/0"),
            ("valkey://cache:7000/3", "redis://cache:7000/3"),
            ("redis://:s3cr3t@[::1]:7000/3", "redis://:***@[::1]:7000/3"),
            ("rediss://gate:s3%2Fcr@3t@10.0.0.1", "rediss://gate:***@10.0.0.1:6379/0"),
            ("unix:///run/redis/a%20b.sock", "unix:///run/redis/a%20b.sock?db=0"),
            ("redis+unix://gate:s3cr3t@/run/redis.sock?db=2", "unix://gate:***@/run/redis.sock?db=2"),
        ] {
            let address = RedisAddress::parse(url).unwrap();
            assert_eq!(address.show("***"), shown);
            assert_eq!(RedisAddress::parse(&shown.replace("***", "p")).unwrap().show("***"), shown);
            assert!(!format!("{address:?}").contains("s3"), "{address:?}");
        }
        let address = RedisAddress::parse("rediss://gate:s3%2Fcr@3t@10.0.0.1").unwrap();
        assert_eq!(address.password.unwrap().reveal(), "s3/cr@3t");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        for url in [
            "cache:6379",
            "http://s3cr3t",
            "redis://",
            "redis://:s3cr3t@",
            "redis://gate@cache",
            "redis://cache:0",
            "redis://cache/s3cr3t",
            "redis://cache?db=1",
            "redis://gate:s3/cr3t@cache",
            "redis://gate:s3#cr3t@cache",
            "redis://gate:s3%cr3t@cache",
            "redis://:%ff@cache",
            "redis://:%00@cache",
            "redis://ca che",
            "unix://run/redis.sock",
            "unix://",
            "unix:///run/redis.sock?password=s3cr3t",
        ] {
            let flaw = RedisAddress::parse(url).unwrap_err();
            assert!(!format!("{flaw:?}").contains("s3"), "{flaw:?}");
        }
    }

    #[test]
    fn only_what_leaves_the_machine_in_the_clear_is_exposed() {
        let exposed = |url| RedisAddress::parse(url).unwrap().is_exposed();
        assert!(exposed("redis://cache") && exposed("redis://10.0.0.1"));
        assert!(!exposed("redis://localhost") && !exposed("redis://[::1]") && !exposed("rediss://cache"));
        assert!(!exposed("unix:///run/redis.sock"));
    }
}
