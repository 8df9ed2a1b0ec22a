//! One connection to the server.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::address::Server;
use super::resp::{self, Reply, push_command};
use super::settings::LendingSettings;
use super::trouble::Trouble;
use super::{script, tls};
use crate::limit::{Ask, Grant, MeterId, meter_digest};

/// What is read at once.
const PIECE: usize = 16 * 1024;

/// What bytes go over.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// See the module. A call that is given up half-way leaves it useless.
pub(super) struct Link {
    stream: Box<dyn Duplex>,
    /// Came, and was not read yet.
    read: Vec<u8>,
    /// What the server knows the script by.
    sha: Vec<u8>,
    prefix: String,
}

impl Link {
    /// Connects, identifies, and hands over the script.
    pub(super) async fn open(settings: &LendingSettings) -> Result<Self, Trouble> {
        let address = &settings.address;
        let stream: Box<dyn Duplex> = match &address.server {
            Server::Tcp(host, port) => Box::new(tcp(host, *port).await?),
            Server::Tls(host, port) => {
                Box::new(tls::connect(tcp(host, *port).await?, host, settings.ca.as_deref()).await?)
            }
            Server::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let mut link = Self { stream, read: Vec::new(), sha: Vec::new(), prefix: settings.prefix.clone() };
        if let Some(password) = address.password.as_ref().map(|password| password.reveal()) {
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(address.user.as_ref().map(String::as_bytes));
            words.push(password.as_bytes());
            link.ask("user and password", &words, Some(password)).await?;
        }
        if address.database != 0 {
            let number = address.database.to_string();
            link.ask("the database", &[b"SELECT", number.as_bytes()], None).await?;
        }
        link.load().await?;
        Ok(link)
    }

    /// Asks every meter for a lease, all at once, and returns what each grants, in the same order.
    pub(super) async fn lend(&mut self, asks: &[(MeterId, Ask)]) -> Result<Vec<Grant>, Trouble> {
        let mut grants: Vec<Option<Grant>> = vec![None; asks.len()];
        let mut open: VecDeque<usize> = (0..asks.len()).collect();
        for is_last in [false, true] {
            let mut out = Vec::with_capacity(open.len() * 320);
            for number in &open {
                let (meter, ask) = &asks[*number];
                script::push_call(&mut out, &self.sha, self.key(meter).as_bytes(), ask);
            }
            self.send(&out).await?;
            // A server that forgot the script, as one that took over has, is told it again.
            for _ in 0..open.len() {
                let Some(number) = open.pop_front() else { break };
                match self.reply().await? {
                    Reply::Error(said) if said.starts_with("NOSCRIPT") && !is_last => open.push_back(number),
                    Reply::Error(said) => return Err(Trouble::refused("to lend", &said, None)),
                    reply => grants[number] = Some(script::grant(&reply).ok_or(Trouble::Foreign)?),
                }
            }
            if open.is_empty() {
                break;
            }
            self.load().await?;
        }
        grants.into_iter().collect::<Option<_>>().ok_or(Trouble::Foreign)
    }

    /// Asks whether the server is there.
    pub(super) async fn ping(&mut self) -> Result<(), Trouble> {
        self.ask("to answer", &[b"PING"], None).await.map(drop)
    }

    /// Returns when the connection ends, or something comes that nobody asked for. Giving up loses nothing.
    pub(super) async fn broken(&mut self) -> Trouble {
        match self.fill().await {
            Ok(()) => Trouble::Foreign,
            Err(trouble) => trouble,
        }
    }

    async fn load(&mut self) -> Result<(), Trouble> {
        match self.ask("the script", &[b"SCRIPT", b"LOAD", script::TEXT.as_bytes()], None).await? {
            Reply::Text(Some(sha)) => self.sha = sha,
            Reply::Text(None) | Reply::Error(_) | Reply::Number(_) | Reply::List(_) => return Err(Trouble::Foreign),
        }
        Ok(())
    }

    async fn ask(&mut self, doing: &'static str, words: &[&[u8]], secret: Option<&str>) -> Result<Reply, Trouble> {
        let mut out = Vec::new();
        push_command(&mut out, words);
        self.send(&out).await?;
        match self.reply().await? {
            Reply::Error(said) => Err(Trouble::refused(doing, &said, secret)),
            reply => Ok(reply),
        }
    }

    async fn send(&mut self, out: &[u8]) -> Result<(), Trouble> {
        self.stream.write_all(out).await?;
        Ok(self.stream.flush().await?)
    }

    async fn reply(&mut self) -> Result<Reply, Trouble> {
        loop {
            if let Some((reply, length)) = resp::read(&self.read).map_err(|_| Trouble::Foreign)? {
                self.read.drain(..length);
                return Ok(reply);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Trouble> {
        self.read.reserve(PIECE);
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(Trouble::Ended),
            _ => Ok(()),
        }
    }

    /// The key of a meter: it names neither an address nor a key.
    fn key(&self, meter: &MeterId) -> String {
        let mut key = self.prefix.clone();
        for byte in meter_digest(meter) {
            key.push_str(&format!("{byte:02x}"));
        }
        key
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
