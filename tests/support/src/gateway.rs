//! The running process: started, asked, told to reload or stop, and searched for secrets when it is gone.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::call::Call;
use crate::logs::{Logs, Stream};
use crate::metrics::Metrics;
use crate::patience::wait_for;
use crate::raw::RawClient;
use crate::response::Response;
use crate::site::{Key, KeySpec, Site};

/// Longest a start may take.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Longest an orderly stop may take: the default drain deadline and some.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// A process of the gateway. Dropping it ends it, and searches its logs, metrics and data directory for every secret
/// the site knows: a hit fails the test.
pub struct Gateway {
    site: Site,
    child: Mutex<Child>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    pid: Pid,
    logs: Logs,
    expected_panics: AtomicUsize,
    /// The first address of each role that was asked for: reading the whole log for every request would take longer than
    /// the request.
    first: Mutex<HashMap<&'static str, SocketAddr>>,
}

/// An address that was taken, as the log announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// `data`, `admin` or `metrics`.
    pub role: String,
    /// The listener's name.
    pub listener: String,
    /// Where it listens.
    pub address: String,
}

impl Site {
    /// Starts `run` on this site's configuration and waits until the gateway is ready.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub async fn start(&self) -> Gateway {
        let config = self.config_path();
        let gateway = self.launch(&["run", "-c", config.to_str().expect("temporary paths are UTF-8")]);
        gateway.ready().await;
        gateway
    }

    /// Starts the executable with these arguments and returns at once.
    pub fn launch(&self, args: &[&str]) -> Gateway {
        self.launch_with(args, Stdio::null())
    }

    /// The same with a standard input on which nothing comes.
    pub fn launch_waiting(&self, args: &[&str]) -> Gateway {
        self.launch_with(args, Stdio::piped())
    }

    fn launch_with(&self, args: &[&str], input: Stdio) -> Gateway {
        let mut command = match self.under() {
            [] => Command::new(self.binary()),
            [program, before @ ..] => {
                let mut command = Command::new(program);
                command.args(before).arg(self.binary());
                command
            }
        };
        let mut child = command
            .args(args)
            .current_dir(self.directory())
            .envs(self.env().iter().cloned())
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.binary().display()));
        let logs = Logs::default();
        let readers = vec![
            logs.follow(Stream::Out, child.stdout.take().expect("stdout is piped")),
            logs.follow(Stream::Err, child.stderr.take().expect("stderr is piped")),
        ];
        Gateway {
            site: self.clone(),
            pid: Pid::from_child(&child),
            child: Mutex::new(child),
            readers: Mutex::new(readers),
            logs,
            expected_panics: AtomicUsize::new(0),
            first: Mutex::default(),
        }
    }
}

impl Deref for Gateway {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Gateway {
    /// Its site; lets a test stop one process and start another on the same data.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// What it has said so far.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Waits until `/readyz` answers 200 and the first data listener is announced.
    pub async fn ready(&self) {
        wait_for("the gateway is ready", START_LIMIT, async || {
            if let Some(code) = self.exit_code() {
                panic!("the gateway ended with {code} instead of becoming ready:\n{}", self.logs.text());
            }
            let metrics = self.addresses("metrics").first().cloned()?;
            let (status, _) = plain_get(&metrics, "/readyz").ok()?;
            (status == 200 && !self.addresses("data").is_empty()).then_some(())
        })
        .await;
    }

    /// Every address it announced.
    pub fn listening(&self) -> Vec<Listening> {
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        self.logs
            .events_saying("listening")
            .iter()
            .map(|event| Listening {
                role: text(event, "role"),
                listener: text(event, "listener"),
                address: text(event, "address"),
            })
            .collect()
    }

    fn addresses(&self, role: &str) -> Vec<String> {
        self.listening().into_iter().filter(|listening| listening.role == role).map(|one| one.address).collect()
    }

    /// The address of the first data listener.
    pub fn data(&self) -> SocketAddr {
        self.address_of("data")
    }

    /// Where metrics and health answer.
    pub fn metrics_address(&self) -> SocketAddr {
        self.address_of("metrics")
    }

    /// Where management answers.
    pub fn admin_address(&self) -> SocketAddr {
        self.address_of("admin")
    }

    fn address_of(&self, role: &'static str) -> SocketAddr {
        *self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(role)
            .or_insert_with(|| self.announced_first(role))
    }

    fn announced_first(&self, role: &str) -> SocketAddr {
        let found = self.addresses(role);
        let first = found.first().unwrap_or_else(|| panic!("no {role} address was announced:\n{}", self.logs.text()));
        first.parse().unwrap_or_else(|_| panic!("{first:?} is no address"))
    }

    /// The address of the data listener with this name, newest announcement first.
    pub async fn listener(&self, name: &str) -> SocketAddr {
        let (address, _) = wait_for(&format!("listener {name} is announced"), Duration::from_secs(10), async || {
            self.listening().into_iter().rev().find(|one| one.role == "data" && one.listener == name)
        })
        .await;
        address.address.parse().unwrap_or_else(|_| panic!("{:?} is no address", address.address))
    }

    /// Creates a secret key with these scopes and waits until this process knows it.
    pub async fn key(&self, name: &str, scopes: &str) -> Key {
        self.key_of(KeySpec::new(name, scopes)).await
    }

    /// Creates a key and waits until this process knows it.
    pub async fn key_of(&self, spec: KeySpec) -> Key {
        let before = self.metrics().await.sum("portcullis_cache_entries", &[]);
        let key = self.site.create(spec).await;
        wait_for("the new key is in the key set", Duration::from_secs(5), async || {
            self.metrics().await.sum("portcullis_cache_entries", &[]) > before
        })
        .await;
        key
    }

    /// A call to the first data listener.
    pub fn call(&self, method: &str, target: &str) -> Call {
        Call::to(self.data(), method, target).watching(self.site.vault())
    }

    /// A GET to the first data listener.
    pub fn get(&self, target: &str) -> Call {
        self.call("GET", target)
    }

    /// A POST to the first data listener.
    pub fn post(&self, target: &str) -> Call {
        self.call("POST", target)
    }

    /// A connection to the first data listener that says exactly what it is given.
    pub async fn raw(&self) -> RawClient {
        RawClient::connect(self.data()).await.watching(self.site.vault())
    }

    /// A GET to the metrics and health listener.
    pub async fn health(&self, path: &str) -> (u16, String) {
        let address = self.metrics_address().to_string();
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || plain_get(&address, &path))
            .await
            .expect("a scrape does not panic")
            .unwrap_or_else(|error| panic!("the metrics listener does not answer: {error}"))
    }

    /// A scrape.
    pub async fn metrics(&self) -> Metrics {
        let (status, text) = self.health("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// The access line of this answer, as soon as it is written.
    pub async fn access_line(&self, response: &Response) -> Value {
        let id = response.header("x-request-id").unwrap_or_else(|| panic!("no request id: {response:?}"));
        self.access_line_where(&format!("request {id} has an access line"), |line| line["request_id"] == id).await
    }

    /// The newest access line that fits, as soon as it is written.
    pub async fn access_line_where(&self, claim: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_for(claim, Duration::from_secs(5), async || self.logs.access().into_iter().rev().find(&fits)).await.0
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Writes a new configuration, sends SIGHUP, waits until the reload was counted, and says whether it was applied.
    pub async fn reload_with(&self, config: &str) -> bool {
        self.rewrite_config(config);
        let before = self.metrics().await.sum("portcullis_config_reloads_total", &[]);
        self.hang_up();
        wait_for("the reload is counted", Duration::from_secs(10), async || {
            let now = self.metrics().await;
            (now.sum("portcullis_config_reloads_total", &[]) > before)
                .then(|| now.value("portcullis_config_last_reload_successful", &[]) == Some(1.0))
        })
        .await
        .0
    }

    /// Sends a signal; nothing happens if the process is gone.
    pub fn signal(&self, signal: Signal) {
        if self.exit_code().is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Sends SIGTERM and returns at once.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGTERM, waits for the end, and returns the exit code (-1 after a signal).
    pub async fn stop(&self) -> i32 {
        self.terminate();
        self.exited(STOP_LIMIT).await
    }

    /// Waits until the process has ended and returns its exit code.
    pub async fn exited(&self, within: Duration) -> i32 {
        let (code, _) = wait_for("the gateway has ended", within, async || self.exit_code()).await;
        self.finish_reading();
        code
    }

    /// Ends it without warning, as a crash would.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        self.finish_reading();
    }

    /// Its exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().expect("our own child can be waited for").map(|status| status.code().unwrap_or(-1))
    }

    /// Whether it left a core file, or would have where the system collects them, once it has ended.
    pub fn left_a_core(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.try_wait().expect("our own child can be waited for");
        std::os::unix::process::ExitStatusExt::core_dumped(&status.expect("it has ended"))
    }

    /// Its process id, for `/proc`.
    pub fn process_id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id())).expect("it is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has a VmRSS");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("VmRSS is a number");
        kib * 1024
    }

    /// From now on this many panics are what the test is about: fewer fail it, and so do more. Without this, one does.
    pub fn expect_panics(&self, count: usize) {
        self.expected_panics.store(count, Ordering::Relaxed);
    }

    fn finish_reading(&self) {
        for reader in self.readers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = reader.join();
        }
    }

    /// Every place where a secret was found that must not be there.
    fn leaks(&self, last_scrape: Option<String>) -> Vec<String> {
        let vault = self.site.vault();
        let mut leaks = vault.find_below(&self.site.path("data"));
        leaks.extend(vault.find_in(self.logs.text().as_bytes()).map(|secret| format!("{secret} in the logs")));
        leaks.extend(
            last_scrape
                .and_then(|text| vault.find_in(text.as_bytes()))
                .map(|secret| format!("{secret} in the metrics")),
        );
        leaks
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.kill();
            let lines = self.logs.lines();
            let shown = lines.len().saturating_sub(60);
            eprintln!("--- the gateway's last lines ---\n{}", lines[shown..].join("\n"));
            return;
        }
        let last_scrape = match (self.exit_code(), self.addresses("metrics").first()) {
            (None, Some(metrics)) => plain_get(metrics, "/metrics").ok().map(|(_, text)| text),
            _ => None,
        };
        self.kill();
        let counted_panics =
            last_scrape.as_deref().map(|text| Metrics::parse(text).sum("portcullis_panics_total", &[]));
        let leaks = self.leaks(last_scrape);
        assert!(leaks.is_empty(), "secrets were found where they must not be: {leaks:#?}");
        // Before it has a log, Rust's own words; then its own, and what it counted in case a line was lost.
        let is_panic = |line: &String| line.contains("panicked at") || line.contains("a panic was caught");
        let panics: Vec<String> = self.logs.lines().into_iter().filter(is_panic).collect();
        let expected = self.expected_panics.load(Ordering::Relaxed);
        assert_eq!(panics.len(), expected, "the gateway panicked: {panics:#?}");
        if let Some(counted) = counted_panics {
            assert_eq!(counted, expected as f64, "the gateway counted other panics than it logged");
        }
    }
}

/// A GET without any of the kit's machinery, usable while a runtime is going away.
fn plain_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let (response, _) = crate::raw::parse(&bytes, "GET", true)
        .map_err(std::io::Error::other)?
        .ok_or_else(|| std::io::Error::other("the answer is cut off"))?;
    Ok((response.status, response.text()))
}
