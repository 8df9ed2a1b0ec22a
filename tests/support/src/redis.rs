//! Throw-away Redis or Valkey servers, from whatever is installed.
//!
//! A server lives below a temporary directory, keeps nothing, listens on a Unix socket there and on a free port of
//! loopback, and ends with the process that started it, however that ends: a shell waits for the end of a pipe that only
//! this process holds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Identity, patient};

/// How long a server may take to start, or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose server it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerKind {
    /// Redis.
    Redis,
    /// Valkey, which not every distribution has.
    Valkey,
}

impl ServerKind {
    const fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }
}

/// A server, running or stopped.
pub struct RedisServer {
    program: PathBuf,
    settings: Vec<String>,
    directory: tempfile::TempDir,
    port: u16,
    tls_port: Option<u16>,
    running: Mutex<Option<Child>>,
}

impl RedisServer {
    /// The programs that are installed: of Redis, of Valkey, or both.
    pub fn programs() -> Vec<PathBuf> {
        [ServerKind::Redis, ServerKind::Valkey].into_iter().filter_map(find).collect()
    }

    /// A server of a test's own, with more words of configuration; `None` where none is installed.
    ///
    /// # Panics
    /// When none is installed and one must be (`tests/run` installs it), or it does not start.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let found = Self::programs().into_iter().next();
        if found.is_none() {
            note_missing(ServerKind::Redis);
        }
        found.map(|program| Self::of(&program, settings))
    }

    /// A server of this kind; `None` where it is not installed.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn of_kind(kind: ServerKind, settings: &[&str]) -> Option<Self> {
        let found = find(kind);
        if found.is_none() {
            note_missing(kind);
        }
        found.map(|program| Self::of(&program, settings))
    }

    /// The same, on a port more that speaks TLS and shows this certificate.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn with_tls(kind: ServerKind, identity: &Identity, settings: &[&str]) -> Option<Self> {
        let mut server = Self::of_kind(kind, &[])?;
        server.stop();
        for (name, pem) in [("cert.pem", &identity.cert), ("key.pem", &identity.key)] {
            std::fs::write(server.directory.path().join(name), pem).expect("a temporary directory can be written");
        }
        let port = free_port();
        let tls = ["--tls-port", &port.to_string(), "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"];
        // Who asks shows a password, not a certificate.
        let words = tls.iter().chain(&["--tls-auth-clients", "no"]).chain(settings);
        server.settings = words.map(ToString::to_string).collect();
        server.tls_port = Some(port);
        server.launch();
        Some(server)
    }

    /// A server of this program.
    ///
    /// # Panics
    /// When it does not start.
    pub fn of(program: &Path, settings: &[&str]) -> Self {
        let port = free_port();
        let directory = tempfile::Builder::new().prefix("portcullis-redis-").tempdir().expect("a temporary directory");
        let settings = settings.iter().map(ToString::to_string).collect();
        let server =
            Self { program: program.to_owned(), settings, directory, port, tls_port: None, running: Mutex::default() };
        server.launch();
        server
    }

    /// Starts it, or starts it again, empty, at the same address.
    ///
    /// # Panics
    /// When it does not start.
    pub fn launch(&self) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$@\" >>log 2>&1 & server=$!; cat >/dev/null; kill $server; wait $server", "sh"]);
        shell.arg(&self.program).args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        shell.args(["--save", "", "--appendonly", "no", "--unixsocket", "socket", "--dir", "."]).args(&self.settings);
        shell.current_dir(self.directory.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        *self.lock() = Some(shell.spawn().expect("there is a shell"));
        let begun = Instant::now();
        while !self.answers() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < patient(PATIENCE), "{} does not start: {}", self.program.display(), log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it: connections are cut, and what it held is gone.
    pub fn stop(&self) {
        if let Some(mut shell) = self.lock().take() {
            drop(shell.stdin.take());
            let _ended = shell.wait();
        }
    }

    /// Where it listens on loopback.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its URL over loopback.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Where it speaks TLS.
    ///
    /// # Panics
    /// When it does not.
    pub fn tls_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.tls_port.expect("it was started with a certificate")))
    }

    /// Its URL over TLS.
    ///
    /// # Panics
    /// When it does not speak TLS.
    pub fn tls_url(&self) -> String {
        format!("rediss://{}", self.tls_address())
    }

    /// Its URL over the Unix socket.
    pub fn socket_url(&self) -> String {
        format!("unix://{}", self.directory.path().join("socket").display())
    }

    /// What it answers to one command, as it stands on the wire; long answers are cut.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    fn try_ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(patient(PATIENCE)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = [0; 16 * 1024];
        let read = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    fn answers(&self) -> bool {
        self.try_ask("PING").is_ok_and(|answer| answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn find(kind: ServerKind) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|at| at.join(kind.program())).find(|file| file.is_file())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a port");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn note_missing(kind: ServerKind) {
    let all = std::env::var("PORTCULLIS_TEST_TOOLS").is_ok_and(|value| value == "all");
    let cannot_be_had = kind == ServerKind::Valkey && std::env::var_os("PORTCULLIS_TEST_NO_VALKEY").is_some();
    assert!(!all || cannot_be_had, "{kind:?} is missing; `tests/run` installs it");
    let Some(path) = std::env::var_os("PORTCULLIS_TEST_LEFT_OUT") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("tests/run made it");
    let why = if cannot_be_had { "this distribution has no package of it" } else { "it is not installed" };
    writeln!(file, "left out: tests with {kind:?}: {why}").expect("a line can be appended");
}
