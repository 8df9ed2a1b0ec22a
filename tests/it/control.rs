//! Control work (sync, reloads, metrics, the store) delays no request: it has threads of its own, and they yield.
//!
//! Latency is compared with that of a calm phase of the same run, counted from when a request was due: one that could
//! not be sent because another was stuck counts as late, too.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis_testkit::{Call, Connection, Gateway, Key, Origin, eventually, patient};
use rustix::fs::{FileType, Mode};

use crate::{scene, tools};

/// Between two requests of one connection: seldom enough that most of what a worker could do is not requests.
const PACE: Duration = Duration::from_millis(40);
/// Connections that ask.
const CONNECTIONS: u32 = 4;
/// How long a gateway that has nothing else to do is watched.
const CALM: Duration = Duration::from_secs(2);
/// How much slower requests may be while control work goes on: processors are few, and shared.
const FACTOR: u32 = 10;
/// What counts as undisturbed whatever the calm phase was like: the median, and all but one in twenty.
const UNDISTURBED: [(usize, Duration); 2] = [(50, Duration::from_millis(30)), (95, Duration::from_millis(120))];
/// How much more of a processor the worker may take for the same requests: caches are shared, too.
const MORE_WORK: f64 = 2.0;
/// And this in any case: clock ticks of a hundredth of a second do not tell less apart.
const TICKS: f64 = 4.0;
/// One worker, so that none can step in for another, and last use is written all the time.
const SECTIONS: &str =
    "workers: 1\nsync: { last_used_flush: 1s }\nlogging: { format: json, access: { enabled: false } }";

/// How a gateway fared for a while.
struct Watched {
    /// Ascending.
    latencies: Vec<Duration>,
    /// What its worker took of a processor, in ticks a second.
    work: f64,
}

impl Watched {
    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, most, slowest] = [50, 95, 100].map(|percent| self.percentile(percent));
        let (count, work) = (self.latencies.len(), self.work);
        write!(f, "{count} requests: median {median:?}, 95 % {most:?}, slowest {slowest:?}; worker {work:.1} ticks/s")
    }
}

/// Asks at a fixed pace with a known key for as long as `during` takes; every answer must be a 200.
async fn watch<T>(gateway: &Gateway, key: &Key, during: impl Future<Output = T>) -> (Watched, T) {
    let stop = Arc::new(AtomicBool::new(false));
    let (began, work_before) = (Instant::now(), worker_ticks(gateway));
    let askers: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (stop, data, key) = (Arc::clone(&stop), gateway.data(), key.clone());
            tokio::spawn(async move {
                let mut connection = Connection::h1(data).await;
                let mut latencies = Vec::new();
                let mut due = began + PACE * number / CONNECTIONS;
                while !stop.load(Ordering::SeqCst) {
                    tokio::time::sleep_until(due.into()).await;
                    connection.send(Call::to(data, "GET", "/v1/orders/1").bearer(&key)).await.expect(200);
                    latencies.push(due.elapsed());
                    due += PACE;
                }
                latencies
            })
        })
        .collect();
    let done = during.await;
    stop.store(true, Ordering::SeqCst);
    let mut latencies = Vec::new();
    for asker in askers {
        latencies.extend(asker.await.expect("every request is answered with 200"));
    }
    latencies.sort_unstable();
    let work = (worker_ticks(gateway) - work_before) / began.elapsed().as_secs_f64();
    (Watched { latencies, work }, done)
}

/// What the one worker took of a processor so far.
fn worker_ticks(gateway: &Gateway) -> f64 {
    let worker = threads(gateway.process_id()).into_iter().find(|thread| thread.name == "worker-0");
    worker.expect("there is one worker").ticks
}

/// Watches a calm gateway, then one whose control side does `work`, which must not show.
async fn unnoticed_while<T>(gateway: &Gateway, key: &Key, work: impl Future<Output = T>) -> T {
    let (calm, ()) = watch(gateway, key, tokio::time::sleep(CALM)).await;
    let (busy, done) = watch(gateway, key, work).await;
    println!("calm: {calm}\nbusy: {busy}");
    for (percent, undisturbed) in UNDISTURBED {
        let bound = patient(undisturbed.max(calm.percentile(percent) * FACTOR));
        assert!(busy.percentile(percent) <= bound, "over {bound:?} at {percent} %\ncalm: {calm}\nbusy: {busy}");
    }
    let bound = calm.work * MORE_WORK + TICKS;
    assert!(busy.work <= bound, "the worker did control work, too\ncalm: {calm}\nbusy: {busy}");
    done
}

/// Does `step` again and again for so long, and says how often.
async fn again_for(span: Duration, mut step: impl AsyncFnMut(u64)) -> u64 {
    let until = Instant::now() + span;
    let mut rounds = 0;
    while Instant::now() < until {
        step(rounds).await;
        rounds += 1;
    }
    rounds
}

/// Rows for `keys import`: as many new keys, by their hashes.
fn rows(round: u64, keys: u64) -> String {
    let mut rows = String::new();
    for number in 0..keys {
        let hash = u128::from(round) << 64 | u128::from(number);
        writeln!(rows, r#"{{"name":"k","scopes":[],"hash":"sha256:{:064x}"}}"#, hash + 1).unwrap();
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_into_the_store_it_follows_delay_no_request() {
    const KEYS: u64 = 30_000;
    let (gateway, _origin) = scene::shop_with("", SECTIONS).await;
    let key = gateway.key("known", "read:orders").await;
    let imported = unnoticed_while(&gateway, &key, async {
        again_for(Duration::from_secs(4), async |round| {
            let args = ["keys", "import", "-", "--format", "jsonl"];
            let _ = gateway.cli_with_input(&args, &rows(round, KEYS)).await.success();
        })
        .await
    })
    .await;
    let expected = (imported * KEYS + 1) as f64;
    // Control has what a busy machine leaves it.
    eventually!(
        "it has followed all of them",
        within Duration::from_secs(30),
        gateway.metrics().await.sum("portcullis_cache_entries", &[]) == expected
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_the_whole_key_set_anew_delays_no_request() {
    // Two stores that went different ways from one, as a store and its restored backup do: whenever the other is found
    // in the place of the one, everything is loaded anew.
    let sections = format!("{SECTIONS}\nstore: {{ driver: sqlite, path: store/portcullis.db }}");
    let origin = Origin::start().await;
    let site = scene::site(&scene::shop_config("", &sections)).upstream("shop", &origin).prepare();
    std::fs::create_dir(site.path("one")).unwrap();
    symlink("one", site.path("store")).unwrap();
    let key = site.create_key("known", "read:orders").await;
    let _ = site.cli_with_input(&["keys", "import", "-", "--format", "jsonl"], &rows(0, 20_000)).await.success();
    std::fs::create_dir(site.path("two")).unwrap();
    std::fs::copy(site.path("one/portcullis.db"), site.path("two/portcullis.db")).unwrap();
    let put = |which: &str| {
        let _ = std::fs::remove_file(site.path("next"));
        symlink(which, site.path("next")).unwrap();
        std::fs::rename(site.path("next"), site.path("store")).unwrap();
    };
    for which in ["one", "two"] {
        put(which);
        site.create_key("at the end", "").await;
    }
    let gateway = site.start().await;
    let loads = || gateway.logs().text().matches("key set loaded anew").count();
    unnoticed_while(&gateway, &key, async {
        again_for(Duration::from_secs(3), async |round| {
            let before = loads();
            put(if round % 2 == 0 { "one" } else { "two" });
            eventually!("all of it was loaded", loads() > before);
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_and_reloads_of_many_routes_delay_no_request() {
    let routes = (0..2_000).fold(String::new(), |mut routes, number| {
        writeln!(routes, "  - {{ path: \"/v1/area{}/{number}/**\", upstream: shop, auth: any_key }}", number % 50)
            .unwrap();
        routes
    });
    let (gateway, _origin) = scene::shop_with(&routes, SECTIONS).await;
    let key = gateway.key("known", "read:orders").await;
    let reloads = async || gateway.metrics().await.sum("portcullis_config_reloads_total", &[("result", "success")]);
    unnoticed_while(&gateway, &key, async {
        again_for(Duration::from_secs(3), async |_| {
            let before = reloads().await;
            gateway.hang_up();
            // Looks by scraping, again and again.
            eventually!("the reload is counted", reloads().await > before);
        })
        .await
    })
    .await;
}

/// Holds what every reader and writer of a SQLite file with a write-ahead log must lock, as a process that hangs amid a
/// recovery does (sqlite.org/walformat.html, "WAL Locks").
struct HungHolder(Child);

impl HungHolder {
    fn hold(python: &Path, index: &Path) -> Self {
        let program = "import fcntl, sys, time\n\
                       file = open(sys.argv[1], 'r+b')\n\
                       fcntl.lockf(file, fcntl.LOCK_EX, 8, 120)\n\
                       print('held', flush=True)\n\
                       time.sleep(60)";
        let mut holder = Command::new(python);
        let mut holder = holder.args(["-c", program]).arg(index).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut stdout = std::io::BufReader::new(holder.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut said).unwrap();
        let holder = Self(holder);
        assert_eq!(said, "held\n");
        holder
    }
}

impl Drop for HungHolder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_delays_no_request() {
    let Some(python) = tools::find("python3") else { return };
    let (gateway, _origin) = scene::shop_with("", SECTIONS).await;
    let key = gateway.key("known", "read:orders").await;
    let lag = async || gateway.metrics().await.sum("portcullis_sync_lag_seconds", &[]);
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    eventually!("last use has a file of its own", gateway.path("data/portcullis.usage.db-shm").exists());
    unnoticed_while(&gateway, &key, async {
        let _keys = HungHolder::hold(&python, &gateway.path("data/portcullis.db-shm"));
        let _uses = HungHolder::hold(&python, &gateway.path("data/portcullis.usage.db-shm"));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let lag = lag().await;
        assert!(lag > 1.5, "the store hangs for sync, which last heard of it {lag} s ago");
    })
    .await;
    let late = gateway.create_key("late", "read:orders").await;
    eventually!("changes arrive again", gateway.get("/v1/orders/1").bearer(&late).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_read_holds_up_nothing() {
    let (gateway, _origin) = scene::shop_with("", SECTIONS).await;
    let key = gateway.key("known", "read:orders").await;
    let leaving = gateway.key("leaving", "read:orders").await;
    let config = std::fs::read_to_string(gateway.config_path()).unwrap();
    let elsewhere = gateway.write("elsewhere.yaml", &config);
    std::fs::remove_file(gateway.config_path()).unwrap();
    // Whoever opens it to read waits until somebody writes: a file system that does not answer.
    rustix::fs::mknodat(rustix::fs::CWD, gateway.config_path(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    unnoticed_while(&gateway, &key, async {
        gateway.hang_up();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let reloads = gateway.metrics().await.sum("portcullis_config_reloads_total", &[]);
        assert_eq!(reloads, 0.0, "it is being read");
        let _ =
            gateway.bare_cli(&["-c", elsewhere.to_str().unwrap(), "keys", "revoke", &leaving.id], "").await.success();
        eventually!("a revocation is not held up", gateway.get("/v1/orders/1").bearer(&leaving).await.status == 401);
    })
    .await;
    gateway.write("portcullis.yaml", config);
    eventually!("it is read", gateway.metrics().await.sum("portcullis_config_reloads_total", &[]) == 1.0);
}

/// A thread of a process.
#[derive(Debug)]
struct Thread {
    name: String,
    nice: i32,
    /// What it took of a processor so far, in hundredths of a second.
    ticks: f64,
}

/// The threads of a process, by `proc(5)`.
fn threads(process: i32) -> Vec<Thread> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap().path());
    // One that ends meanwhile is left out.
    tasks.filter_map(|task| Some(thread(&std::fs::read_to_string(task.join("stat")).ok()?))).collect()
}

fn thread(stat: &str) -> Thread {
    let (before, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let (_, name) = before.split_once(" (").expect("a name in brackets");
    let fields: Vec<&str> = fields.split(' ').collect();
    // The third field of the line is the first behind the name.
    let number = |field: usize| fields[field - 3].parse::<f64>().expect("a number");
    Thread { name: name.to_owned(), nice: number(19) as i32, ticks: number(14) + number(15) }
}

/// Whether a request waits for what this thread does.
fn serves(thread: &Thread) -> bool {
    thread.name == "accept" || thread.name == "log" || thread.name.starts_with("worker-")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_that_does_not_serve_is_nicer_than_those_that_do() {
    // By name, so that it is looked up.
    let origin = Origin::start().await;
    let by_name = format!("localhost:{}", origin.authority().rsplit(':').next().unwrap());
    let gateway = scene::open_door(&by_name, "workers: 2\nreload: { watch: true }").await;
    let began_with = thread(&std::fs::read_to_string("/proc/thread-self/stat").unwrap()).nice;
    gateway.get("/").await.expect(200);
    gateway.metrics().await;
    let all = threads(gateway.process_id());
    let named = |name: &str| all.iter().filter(|thread| thread.name.starts_with(name)).count();
    for (name, how_many) in [("worker-0", 1), ("worker-1", 1), ("accept", 1), ("log", 1), ("store-", 5), ("notify", 1)]
    {
        assert!(named(name) >= how_many, "fewer than {how_many} called {name}: {all:#?}");
    }
    assert!(named("control-block") >= 1, "the page was made on a thread that may block: {all:#?}");
    assert_eq!(named("worker-"), 2, "no name is looked up for a worker: {all:#?}");
    assert_eq!(named("tokio-"), 0, "every thread says what it is for: {all:#?}");
    for thread in &all {
        let expected = if serves(thread) { began_with } else { (began_with + 5).min(19) };
        assert_eq!(thread.nice, expected, "{thread:?} beside {all:#?}");
    }
}
