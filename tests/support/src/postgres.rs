//! Throw-away PostgreSQL servers, from whatever version is installed.
//!
//! A server lives below a temporary directory, listens on a Unix socket there and on a free port of loopback, and ends with
//! the process that started it, however that ends: a shell waits for the end of a pipe that only this process holds, then
//! stops the server and removes the directory. PostgreSQL refuses root, so root starts it as somebody else.

use std::fmt::Write as _;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Where Debian puts each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The superuser's password; nothing but tests is kept there.
const PASSWORD: &str = "throw-away-superuser";
/// Its files, below its directory, from where every program is run.
const DATA: &str = "data";
/// How often another port is tried.
const ATTEMPTS: usize = 5;

/// A running server.
pub struct PostgresServer {
    directory: PathBuf,
    programs: PathBuf,
    user: Option<User>,
    port: u16,
    databases: AtomicU32,
    free: Mutex<Vec<Database>>,
    _guard: Guard,
}

/// A database of its own for a test, with a role that owns it and nothing else.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name, and the role's.
    pub name: String,
    /// The role's password.
    pub password: String,
    /// Where the server listens on loopback.
    pub port: u16,
    /// Where the server's socket is.
    pub socket_directory: PathBuf,
}

impl Database {
    /// Its URL over loopback.
    pub fn url(&self) -> String {
        self.url_at(&format!("127.0.0.1:{}", self.port))
    }

    /// Its URL through another address.
    pub fn url_at(&self, authority: &str) -> String {
        let Self { name, password, .. } = self;
        format!("postgres://{name}:{password}@{authority}/{name}")
    }

    /// Its URL over the Unix socket.
    pub fn socket_url(&self) -> String {
        let Self { name, port, socket_directory, .. } = self;
        format!("postgres:///{name}?host={}&port={port}&user={name}", socket_directory.display())
    }
}

/// Ends the server when this process does.
struct Guard {
    shell: Child,
}

impl PostgresServer {
    /// The server that all tests of this process share; `None` where PostgreSQL is not installed.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<PostgresServer>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[])).as_ref()
    }

    /// A server of a test's own, with more lines of configuration; `None` where PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let programs = programs()?;
        let user = rustix::process::getuid().is_root().then(somebody_else);
        let server = Self::nothing(programs, user);
        server.make(settings);
        Some(server.launched())
    }

    /// A directory without a server.
    fn nothing(programs: PathBuf, user: Option<User>) -> Self {
        let directory = tempfile::Builder::new().prefix("portcullis-pg-").tempdir().expect("a temporary directory");
        let directory = directory.keep();
        Self {
            _guard: Guard::over(&directory, &programs, user.as_ref()),
            directory,
            programs,
            user,
            port: 0,
            databases: AtomicU32::new(0),
            free: Mutex::default(),
        }
    }

    fn launched(mut self) -> Self {
        for attempt in 1.. {
            self.port = free_port();
            match self.launch() {
                Ok(()) => break,
                Err(said) => assert!(attempt < ATTEMPTS, "PostgreSQL does not start: {said}\n{}", self.log()),
            }
        }
        self
    }

    fn make(&self, settings: &[&str]) {
        self.hand_over(&self.directory);
        let password = self.directory.join("password");
        std::fs::write(&password, PASSWORD).expect("a file in our own directory can be written");
        self.program(
            "initdb",
            &[
                "--pgdata",
                DATA,
                "--username=postgres",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
                "--pwfile",
                password.to_str().expect("temporary paths are UTF-8"),
            ],
        )
        .unwrap_or_else(|said| panic!("initdb: {said}"));
        let usual = [
            "fsync = off",
            "synchronous_commit = off",
            "full_page_writes = off",
            "shared_buffers = 32MB",
            "max_connections = 300",
        ];
        let directory = self.directory.display();
        let mut text = format!("listen_addresses = '127.0.0.1'\nunix_socket_directories = '{directory}'\n");
        for line in usual.iter().chain(settings) {
            text.push_str(line);
            text.push('\n');
        }
        let file = self.directory.join("data/postgresql.auto.conf");
        std::fs::write(file, text).expect("root, or the owner, may write it");
    }

    /// Starts it, or starts it again on the same port.
    ///
    /// # Errors
    /// What `pg_ctl` says.
    pub fn launch(&self) -> Result<(), String> {
        let (port, log) = (format!("-p {}", self.port), self.directory.join("log"));
        let log = log.to_str().expect("temporary paths are UTF-8");
        self.program("pg_ctl", &["start", "-w", "-t", "60", "-D", DATA, "-l", log, "-o", &port])
    }

    /// Stops it; connections are cut.
    pub fn stop(&self) {
        self.program("pg_ctl", &["stop", "-w", "-m", "fast", "-D", DATA])
            .unwrap_or_else(|said| panic!("pg_ctl stop: {said}"));
    }

    /// Kills it and everything it started, and starts it again: what it had not made sure of is lost.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn crash(&self) {
        let lock = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).expect("it runs");
        let master = lock.lines().next().expect("its number comes first").to_owned();
        // The first goes first, or it would start anew what the others were.
        run(Command::new("kill").args(["-9", &master])).expect("it runs");
        // Those that are left see that nobody leads them, and leave; until then it does not start.
        let mut tries = 0;
        while let Err(said) = self.launch() {
            tries += 1;
            assert!(tries < 20, "PostgreSQL does not start again: {said}\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// A server that follows this one, and can take its place.
    ///
    /// # Panics
    /// When it does not start.
    pub fn standby(&self) -> Self {
        let standby = Self::nothing(self.programs.clone(), self.user.clone());
        standby.hand_over(&standby.directory);
        let (from, port) = (self.directory.to_str().expect("temporary paths are UTF-8"), self.port.to_string());
        let copy = ["-h", from, "-p", &port, "-U", "postgres", "-D", DATA, "-R", "-X", "stream", "-c", "fast", "-N"];
        standby.program("pg_basebackup", &copy).unwrap_or_else(|said| panic!("pg_basebackup: {said}"));
        let file = standby.directory.join("data/postgresql.auto.conf");
        let mut text = std::fs::read_to_string(&file).expect("root, or the owner, may read it");
        // The last line about a thing holds.
        writeln!(text, "unix_socket_directories = '{}'", standby.directory.display()).expect("text takes more");
        std::fs::write(file, text).expect("root, or the owner, may write it");
        standby.launched()
    }

    /// Waits until a standby has all that this one has.
    ///
    /// # Panics
    /// When it has not after half a minute.
    pub fn followed_by(&self, standby: &Self) {
        let here = self.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
        let asked = format!("SELECT pg_last_wal_replay_lsn() >= '{here}'::pg_lsn");
        for _ in 0..300 {
            if standby.sql("postgres", &asked) == "t" {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the standby stays behind\n{}", standby.log());
    }

    /// Makes a standby the server that may be written to.
    ///
    /// # Panics
    /// When it is none.
    pub fn promote(&self) {
        self.program("pg_ctl", &["promote", "-w", "-t", "60", "-D", DATA])
            .unwrap_or_else(|said| panic!("pg_ctl promote: {said}"));
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Another program, run as who the server runs as, in its directory.
    pub fn companion(&self, program: &Path) -> Command {
        as_user(self.user.as_ref(), program, &self.directory)
    }

    /// A file for the server, readable by it alone.
    pub fn give(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, content).expect("a file in our own directory can be written");
        run(Command::new("chmod").arg("600").arg(&path)).expect("our own file");
        self.hand_over(&path);
        path
    }

    fn hand_over(&self, path: &Path) {
        if let Some((user, group)) = &self.user {
            run(Command::new("chown").arg(format!("{user}:{group}")).arg(path)).expect("root may give a file away");
        }
    }

    /// A database that no other test has, with nothing in it.
    pub fn database(&self) -> Database {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| self.make_database())
    }

    /// Empties a database for the next test: that takes a tenth of making one. One that cannot be emptied, as somebody
    /// works on it still, is left alone.
    pub fn recycle(&self, database: Database) {
        let empty = "SET lock_timeout = '5s'; DROP SCHEMA IF EXISTS portcullis CASCADE";
        if self.try_sql(&database.name, empty).is_ok() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(database);
        }
    }

    fn make_database(&self) -> Database {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let password = format!("password of {name}").replace(' ', "-");
        self.sql("postgres", &format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {name}"));
        Database { name, password, port: self.port, socket_directory: self.directory.clone() }
    }

    /// What a superuser gets as an answer, without headings.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        self.try_sql(database, statement).unwrap_or_else(|said| panic!("{statement}: {said}"))
    }

    fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        let socket = self.directory.to_str().expect("temporary paths are UTF-8");
        let port = self.port.to_string();
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", socket, "-p", &port, "-U", "postgres"]);
        run(command.args(["-d", database, "-c", statement]))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        as_user(self.user.as_ref(), &self.programs.join(program), &self.directory)
    }

    fn program(&self, program: &str, args: &[&str]) -> Result<(), String> {
        // What is started outlives the program, and would keep a pipe open.
        let said = self.directory.join(format!("{program}.said"));
        let file = std::fs::File::create(&said).expect("a file in our own directory can be made");
        let errors = file.try_clone().expect("a file can be shared");
        let status = self.command(program).args(args).stdout(file).stderr(errors).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{status}: {}", std::fs::read_to_string(&said).unwrap_or_default())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Guard {
    fn over(directory: &Path, programs: &Path, user: Option<&User>) -> Self {
        let script = "cat >/dev/null; \"$@\" stop -s -m immediate -D data >/dev/null 2>&1; cd /; exec rm -rf \"$0\"";
        let stop = as_user(user, &programs.join("pg_ctl"), directory);
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(directory).arg(stop.get_program()).args(stop.get_args());
        shell.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { shell: shell.spawn().expect("there is a shell") }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ended = self.shell.wait();
    }
}

/// The programs of the newest version.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).ok()?.flatten().filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs.join("initdb").is_file().then_some((version, programs))
    });
    versions.max_by_key(|(version, _)| *version).map(|(_, programs)| programs)
}

/// Whom root starts it as: the numbers of a user and its group.
fn somebody_else() -> (String, String) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let numbers = |name: &str| {
        let mut fields =
            users.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name))?;
        Some((fields.nth(2)?.to_owned(), fields.next()?.to_owned()))
    };
    numbers("postgres").or_else(|| numbers("nobody")).expect("there is somebody besides root")
}

/// The numbers of a user and its group.
type User = (String, String);

fn as_user(user: Option<&User>, program: &Path, directory: &Path) -> Command {
    let mut command = match user {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", group, "--clear-groups", "--"]).arg(program);
            command
        }
    };
    command.current_dir(directory).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the kernel has a port");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}: {} {}", output.status, text(&output.stdout), text(&output.stderr)))
    }
}

/// Whether PostgreSQL may be missing; where it may, what is left out is told as for any other tool.
///
/// # Panics
/// When it may not: `tests/run` installs it, and nothing is skipped there.
pub fn postgres_or_left_out() -> Option<&'static PostgresServer> {
    let found = PostgresServer::shared();
    if found.is_none() {
        note_missing();
    }
    found
}

/// As [`postgres_or_left_out`], for a server of a test's own.
///
/// # Panics
/// As that.
pub fn own_postgres_or_left_out(settings: &[&str]) -> Option<PostgresServer> {
    let found = PostgresServer::start(settings);
    if found.is_none() {
        note_missing();
    }
    found
}

fn note_missing() {
    let all = std::env::var("PORTCULLIS_TEST_TOOLS").is_ok_and(|value| value == "all");
    assert!(!all, "PostgreSQL is missing; `tests/run` installs it");
    let Some(path) = std::env::var_os("PORTCULLIS_TEST_LEFT_OUT") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("tests/run made it");
    writeln!(file, "left out: PostgreSQL is not installed").expect("a line can be appended");
}
