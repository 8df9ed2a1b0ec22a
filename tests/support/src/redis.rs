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

use crate::patient;

/// How long a server may take to start, or to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, running or stopped.
pub struct RedisServer {
    program: PathBuf,
    settings: Vec<String>,
    directory: tempfile::TempDir,
    port: u16,
    running: Mutex<Option<Child>>,
}

impl RedisServer {
    /// The programs that are installed: of Redis, of Valkey, or both.
    pub fn programs() -> Vec<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = |name: &str| std::env::split_paths(&path).map(|at| at.join(name)).find(|file| file.is_file());
        ["redis-server", "valkey-server"].into_iter().filter_map(found).collect()
    }

    /// A server of a test's own, with more words of configuration; `None` where none is installed.
    ///
    /// # Panics
    /// When none is installed and one must be (`tests/run` installs it), or it does not start.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let found = Self::programs().into_iter().next();
        if found.is_none() {
            note_missing();
        }
        found.map(|program| Self::of(&program, settings))
    }

    /// A server of this program.
    ///
    /// # Panics
    /// When it does not start.
    pub fn of(program: &Path, settings: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        drop(listener);
        let directory = tempfile::Builder::new().prefix("portcullis-redis-").tempdir().expect("a temporary directory");
        let settings = settings.iter().map(ToString::to_string).collect();
        let server = Self { program: program.to_owned(), settings, directory, port, running: Mutex::default() };
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

fn note_missing() {
    let all = std::env::var("PORTCULLIS_TEST_TOOLS").is_ok_and(|value| value == "all");
    assert!(!all, "Redis is missing; `tests/run` installs it");
    let Some(path) = std::env::var_os("PORTCULLIS_TEST_LEFT_OUT") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("tests/run made it");
    writeln!(file, "left out: Redis is not installed").expect("a line can be appended");
}
