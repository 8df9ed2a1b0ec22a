//! What a decision costs, and what finding a key costs: `cargo bench -p portcullis-bench --bench decision`.
//!
//! Times are CPU time of the thread that works, so that neighbours disturb them little; each figure is the median of
//! rounds in which everything takes turns. Arguments: `judge`, `lookups`, `memory`; none: all three.

use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use portcullis::cache::KeySet;
use portcullis::domain::{KeyHash, PresentedKey, time};
use portcullis_bench::{
    DEMANDS_READ, DEMANDS_WRITE, Fleet, Gate, KeyMeters, Keys, Limited, Numbers, Request, ShardedTable, UNKNOWN,
    key_text,
};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 15;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => {
            judge();
            lookups();
            memory();
        }
        ["judge"] => judge(),
        ["lookups"] => lookups(),
        ["memory"] => memory(),
        ["hold", what, keys] => hold(what, keys.parse().expect("a number of keys")),
        _ => {
            eprintln!("arguments: judge, lookups, memory; none: all three");
            std::process::exit(2);
        }
    }
}

// --- the decision ---

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Allowed,
    UnknownKey,
    LackingScope,
    NoCredential,
    NoRoute,
    PublicRoute,
}

impl Ask {
    const fn outcome(self) -> &'static str {
        match self {
            Self::Allowed | Self::PublicRoute => "allow",
            Self::UnknownKey => "unknown_key",
            Self::LackingScope => "insufficient_scope",
            Self::NoCredential => "missing_credential",
            Self::NoRoute => "no_route",
        }
    }

    /// A request of this kind: any route and any key that fit.
    fn request(self, keys: u64, routes: u64, numbers: &mut Numbers) -> Request {
        let route = |numbers: &mut Numbers, demand| Gate::path_of(numbers.below(routes / 2) * 2 + demand);
        let key = |numbers: &mut Numbers| numbers.below(keys);
        match self {
            Self::Allowed => Request::get(&route(numbers, DEMANDS_READ)).with_key(&key_text(key(numbers))),
            Self::UnknownKey => Request::get(&route(numbers, DEMANDS_READ)).with_key(&key_text(UNKNOWN + key(numbers))),
            Self::LackingScope => {
                let mut number = key(numbers);
                while Fleet::may_write(number) {
                    number = key(numbers);
                }
                Request::get(&route(numbers, DEMANDS_WRITE)).with_key(&key_text(number))
            }
            Self::NoCredential => Request::get(&route(numbers, DEMANDS_READ)),
            Self::NoRoute => Request::get("/v2/items/42").with_key(&key_text(key(numbers))),
            Self::PublicRoute => Request::get("/public"),
        }
    }
}

/// One line of the table.
struct Case<'a> {
    name: String,
    ask: Ask,
    keys: u64,
    routes: u64,
    gate: &'a Gate,
    /// Whether meters are taken from, too.
    admits: bool,
}

fn judge() {
    let sizes = [1_000, 100_000, 1_000_000];
    let routes = [10, 1_000, 10_000];
    let sets: Vec<Keys> = sizes.iter().map(|keys| Keys::load(*keys)).collect();
    let gates: Vec<Vec<Gate>> =
        sets.iter().map(|set| routes.iter().map(|routes| Gate::new(*routes, set.set())).collect()).collect();
    let mut cases = Vec::new();
    for (keys, gates) in sizes.iter().zip(&gates) {
        for (routes, gate) in routes.iter().zip(gates) {
            let name = format!("allowed, {} keys, {} routes", short(*keys), short(*routes));
            cases.push(Case { name, ask: Ask::Allowed, keys: *keys, routes: *routes, gate, admits: false });
        }
    }
    let refusals = [
        ("401, a key nobody has", Ask::UnknownKey),
        ("401, no credential", Ask::NoCredential),
        ("403, a scope is missing", Ask::LackingScope),
        ("404, no route", Ask::NoRoute),
        ("allowed, a public route", Ask::PublicRoute),
    ];
    for (name, ask) in refusals {
        let (keys, routes, gate) = (sizes[1], routes[0], &gates[1][0]);
        let name = format!("{name}, {} keys, {} routes", short(keys), short(routes));
        cases.push(Case { name, ask, keys, routes, gate, admits: false });
    }
    let routes = routes[0];
    let limits = [
        ("and admitted, nothing limited", Limited::Free),
        ("and admitted, a rate for each key", Limited::ByRate),
        ("and admitted, two rates and two quotas", Limited::ByAll),
    ];
    let limited: Vec<_> = sizes[..2]
        .iter()
        .zip(&sets)
        .flat_map(|(keys, set)| limits.map(|(name, limited)| (*keys, name, Gate::limited(limited, routes, set.set()))))
        .collect();
    for (keys, name, gate) in &limited {
        let name = format!("{name}, {} keys", short(*keys));
        cases.push(Case { name, ask: Ask::Allowed, keys: *keys, routes, gate, admits: true });
    }
    let meters = KeyMeters::new(sizes[0]);

    let mut numbers = Numbers::seeded(1);
    let mut samples = vec![Vec::new(); cases.len() + 2];
    for _ in 0..ROUNDS {
        for (case, samples) in cases.iter().zip(&mut samples) {
            samples.push(time_decisions(case, &mut numbers));
        }
        samples[cases.len()].push(time_hashes(&mut numbers));
        samples[cases.len() + 1].push(time_takes(&meters, &mut numbers));
    }
    let medians: Vec<f64> = samples.into_iter().map(median).collect();
    println!("\nThe decision (gate::judge, whole)                    ns   ratio");
    let parts = ["of which the hash (SHA-256 of a key)", "of which taking from a rate of 1k keys"];
    let names = cases.iter().map(|case| case.name.as_str()).chain(parts);
    for (name, ns) in names.zip(&medians) {
        println!("{name:<48} {ns:>7.0} {:>7.2}", ns / medians[0]);
    }
}

/// Requests of a batch: few enough to lie in a near cache, as the bytes of a request that was just read do. The keys
/// they carry are anywhere in the set.
const BATCH: usize = 256;

fn time_decisions(case: &Case<'_>, numbers: &mut Numbers) -> f64 {
    let Case { name: _, ask, keys, routes, gate, admits } = case;
    let batches = 16;
    let mut spent = Duration::ZERO;
    for _ in 0..batches {
        let requests: Vec<Request> = (0..BATCH).map(|_| ask.request(*keys, *routes, numbers)).collect();
        assert_eq!(gate.outcome(&requests[0]), ask.outcome(), "{}", case.name);
        let begun = cpu_time();
        if *admits {
            for request in &requests {
                black_box(gate.admit(black_box(request)));
            }
        } else {
            for request in &requests {
                black_box(gate.judge(black_box(request)));
            }
        }
        spent += cpu_time() - begun;
    }
    spent.as_nanos() as f64 / (batches * BATCH) as f64
}

fn time_hashes(numbers: &mut Numbers) -> f64 {
    let texts: Vec<String> = (0..BATCH).map(|_| key_text(numbers.below(UNKNOWN))).collect();
    let turns = 16;
    let begun = cpu_time();
    for text in texts.iter().cycle().take(turns * BATCH) {
        black_box(KeyHash::sha256(&PresentedKey::new(black_box(text)).expect("key texts are credentials")));
    }
    (cpu_time() - begun).as_nanos() as f64 / (turns * BATCH) as f64
}

fn time_takes(meters: &KeyMeters, numbers: &mut Numbers) -> f64 {
    let keys: Vec<u64> = (0..BATCH).map(|_| numbers.below(meters.len())).collect();
    let turns = 16;
    let begun = cpu_time();
    for key in keys.iter().cycle().take(turns * BATCH) {
        black_box(meters.take(black_box(*key)));
    }
    (cpu_time() - begun).as_nanos() as f64 / (turns * BATCH) as f64
}

// --- finding a key ---

/// Something that finds keys, and can be written meanwhile.
trait Table: Sync {
    fn find(&self, hash: &KeyHash) -> bool;
}

impl Table for KeySet {
    fn find(&self, hash: &KeyHash) -> bool {
        black_box(Self::find(self, hash)).is_some()
    }
}

impl Table for ShardedTable {
    fn find(&self, hash: &KeyHash) -> bool {
        black_box(Self::find(self, hash)).is_some()
    }
}

/// A writer, from the moment it is called until it is told to stop; says how many changes it made.
type Writer<'a> = &'a mut (dyn FnMut(&AtomicBool) -> u64 + Send);

/// Time between two commits of the writer, and so 10,000 to 20,000 changes a second: far more than a store commits.
const PAUSE: Duration = Duration::from_millis(5);
/// How long one measurement of finding reads.
const READING: Duration = Duration::from_millis(40);

fn lookups() {
    for keys in [100_000, 1_000_000] {
        let mut set = Keys::load(keys);
        let fleet = Fleet::new(keys);
        let table = ShardedTable::load(&fleet);
        let any = shuffled(keys);
        let nobody: Vec<KeyHash> = (0..65_536).map(|number| Fleet::hash(UNKNOWN + number)).collect();
        let cases = [
            ("any key, 1 thread", &any[..], 1, false),
            ("any key, 1 thread, beside a writer", &any[..], 1, true),
            ("any key, 2 threads", &any[..], 2, false),
            ("any key, 2 threads, beside a writer", &any[..], 2, true),
            ("one hot key, 1 thread", &any[..1], 1, false),
            ("one hot key, 2 threads", &any[..1], 2, false),
            ("one hot key, 2 threads, beside a writer", &any[..1], 2, true),
            ("a key nobody has, 1 thread", &nobody[..], 1, false),
        ];
        let mut samples = vec![(Vec::new(), Vec::new()); cases.len()];
        let mut rates = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for ((_, hashes, threads, beside_writer), samples) in cases.iter().zip(&mut samples) {
                let reading = Arc::clone(set.set());
                let mut follow = |stop: &AtomicBool| set.follow(PAUSE, stop);
                let writer = beside_writer.then_some(&mut follow as Writer<'_>);
                samples.0.push(time_finding(&*reading, hashes, *threads, writer, &mut rates.0));
                let mut follow = |stop: &AtomicBool| table.follow(&fleet, PAUSE, stop);
                let writer = beside_writer.then_some(&mut follow as Writer<'_>);
                samples.1.push(time_finding(&table, hashes, *threads, writer, &mut rates.1));
            }
        }
        println!("\nFinding a key among {:<20} key set, ns  sharded table, ns   ratio", short(keys));
        for ((name, ..), (ours, theirs)) in cases.iter().zip(samples) {
            let (ours, theirs) = (median(ours), median(theirs));
            println!("{name:<40} {ours:>11.1} {theirs:>18.1} {:>7.2}", ours / theirs);
        }
        println!("{:<40} {:>11.0} {:>18.0}", "changes a second by the writer", median(rates.0), median(rates.1));
    }
}

/// CPU nanoseconds for each key found, by so many threads at once.
fn time_finding<T: Table>(
    table: &T,
    hashes: &[KeyHash],
    threads: usize,
    writer: Option<Writer<'_>>,
    rates: &mut Vec<f64>,
) -> f64 {
    let stop = AtomicBool::new(false);
    let begin = Barrier::new(threads);
    std::thread::scope(|scope| {
        let writing = writer.map(|write| {
            let stop = &stop;
            scope.spawn(move || {
                let begun = time::monotonic_now();
                let changes = write(stop);
                changes as f64 / begun.elapsed().as_secs_f64()
            })
        });
        let readers: Vec<_> = (0..threads)
            .map(|thread| {
                let (begin, from) = (&begin, hashes.len() / threads * thread);
                scope.spawn(move || {
                    begin.wait();
                    read(table, hashes, from)
                })
            })
            .collect();
        let times: Vec<f64> = readers.into_iter().map(|reader| reader.join().expect("readers end")).collect();
        stop.store(true, Ordering::Relaxed);
        rates.extend(writing.map(|writing| writing.join().expect("the writer ends")));
        times.iter().sum::<f64>() / times.len() as f64
    })
}

/// Finds key after key for [`READING`], beginning somewhere in `hashes`.
fn read<T: Table>(table: &T, hashes: &[KeyHash], mut at: usize) -> f64 {
    let until = time::monotonic_now() + READING;
    let (begun, mut count, mut found) = (cpu_time(), 0_u64, 0_u64);
    while time::monotonic_now() < until {
        for _ in 0..4_096 {
            found += u64::from(table.find(black_box(&hashes[at])));
            at = if at + 1 == hashes.len() { 0 } else { at + 1 };
        }
        count += 4_096;
    }
    let spent = cpu_time() - begun;
    assert!(found == 0 || found == count, "either every key is there or none is");
    spent.as_nanos() as f64 / count as f64
}

fn shuffled(keys: u64) -> Vec<KeyHash> {
    let mut hashes: Vec<KeyHash> = (0..keys).map(Fleet::hash).collect();
    let mut numbers = Numbers::seeded(2);
    for at in (1..hashes.len()).rev() {
        hashes.swap(at, numbers.below(at as u64 + 1) as usize);
    }
    hashes
}

// --- memory ---

fn memory() {
    println!("\nMemory, bytes a key                         key set      sharded table   ratio");
    for keys in [100_000, 1_000_000] {
        let [ours, theirs] = ["set", "table"].map(|what| bytes_held(what, keys) / keys as f64);
        println!("{:<40} {ours:>10.0} {theirs:>18.0} {:>7.2}", format!("{} keys", short(keys)), ours / theirs);
    }
}

/// What a process grows by that loads so many keys. One of its own, so that nothing was freed in it before.
fn bytes_held(what: &str, keys: u64) -> f64 {
    let program = std::env::current_exe().expect("this program has a path");
    let told = Command::new(program).args(["hold", what, &keys.to_string()]).output().expect("it starts");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8_lossy(&told.stdout).trim().parse().expect("it prints one number")
}

fn hold(what: &str, keys: u64) {
    // A small one first: what is made once for all does not count.
    let _warm = (Keys::load(10), ShardedTable::load(&Fleet::new(10)));
    let before = resident_bytes();
    let grown = if what == "set" {
        let set = Keys::load(keys);
        let after = resident_bytes();
        drop(set);
        after - before
    } else {
        let table = ShardedTable::load(&Fleet::new(keys));
        let after = resident_bytes();
        drop(table);
        after - before
    };
    println!("{grown}");
}

/// Memory that this process holds (`proc_pid_status(5)`).
fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says what a process holds");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("this is a line of it");
    let kilobytes: i64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes * 1024
}

// --- shared ---

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn short(number: u64) -> String {
    match number {
        1_000_000.. => format!("{}M", number / 1_000_000),
        1_000.. => format!("{}k", number / 1_000),
        _ => number.to_string(),
    }
}
