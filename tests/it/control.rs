//! Control work (sync, reloads, metrics, the store) delays no request: it has threads of its own, and they yield.

use portcullis_testkit::Origin;

use crate::scene;

/// A thread of a process.
#[derive(Debug)]
struct Thread {
    name: String,
    nice: i32,
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
    // Field 19 of the line, and the third is the first behind the name.
    let nice = fields.split(' ').nth(19 - 3).expect("a nice value").parse().expect("a number");
    Thread { name: name.to_owned(), nice }
}

/// Whether a request waits for what this thread does.
fn serves(thread: &Thread) -> bool {
    thread.name == "accept" || thread.name == "log" || thread.name.starts_with("worker-")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_that_does_not_serve_is_nicer_than_those_that_do() {
    // By name, so that a worker looks it up on a thread of its own.
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
    assert_eq!(named("worker-0-dns") + named("worker-1-dns"), 1, "the name was looked up beside a worker: {all:#?}");
    assert_eq!(named("tokio-"), 0, "every thread says what it is for: {all:#?}");
    for thread in &all {
        let expected = if serves(thread) { began_with } else { (began_with + 5).min(19) };
        assert_eq!(thread.nice, expected, "{thread:?} beside {all:#?}");
    }
}
