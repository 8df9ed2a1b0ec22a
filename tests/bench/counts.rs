//! Work to be counted by `tests/bench/counts`, under callgrind: `counts SCENARIO TIMES`; without arguments it names the
//! scenarios.
//!
//! Only what [`measured`] calls is counted. Every scenario does the same work in every run. What is random in the library,
//! the seeds of its tables, is drawn for several gates, which take turns as the keys do: one alone is lucky or not.

use std::hint::black_box;

use portcullis::domain::{KeyHash, PresentedKey};
use portcullis::route::NormalizedPath;
use portcullis_bench::{
    DEMANDS_READ, DEMANDS_WRITE, Fleet, Gate, HeadReader, Keys, Request, UNKNOWN, key_text, request_head,
};

const KEYS: u64 = 1_000;
const ROUTES: u64 = 10;
/// Gates that take turns, each with tables of its own.
const GATES: usize = 16;

/// Name, and what makes the work ready: a function to be called with 0, 1, 2 and so on.
type Scenario = (&'static str, fn() -> Box<dyn FnMut(usize)>);

const SCENARIOS: [Scenario; 7] = [
    // The hash stands alone, so that the decisions can be told without it: callgrind has no SHA instructions, and in
    // software the hash outweighs everything else.
    ("hash_key", hash_key),
    ("decide_allowed", decide_allowed),
    ("decide_401_unknown_key", decide_401_unknown_key),
    ("decide_401_no_credential", decide_401_no_credential),
    ("decide_403_lacking_scope", decide_403_lacking_scope),
    ("parse_path", parse_path),
    ("read_head_400_bytes", read_head_400_bytes),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [] => SCENARIOS.iter().for_each(|(name, _)| println!("{name}")),
        [wanted, times] => {
            let (_, prepare) = SCENARIOS.iter().find(|(name, _)| name == wanted).expect("a scenario");
            let mut act = prepare();
            measured(times.parse().expect("a number"), &mut *act);
        }
        _ => panic!("counts SCENARIO TIMES"),
    }
}

/// The script finds it by its name.
#[inline(never)]
fn measured(times: usize, act: &mut dyn FnMut(usize)) {
    for time in 0..times {
        act(time);
    }
}

fn hash_key() -> Box<dyn FnMut(usize)> {
    let texts: Vec<String> = (0..KEYS).map(key_text).collect();
    Box::new(move |time| {
        let key = PresentedKey::new(black_box(&texts[time % texts.len()])).expect("key texts are credentials");
        black_box(KeyHash::sha256(&key));
    })
}

fn decide_allowed() -> Box<dyn FnMut(usize)> {
    decide("allow", DEMANDS_READ, (0..KEYS).map(|number| Some(key_text(number))))
}

fn decide_401_unknown_key() -> Box<dyn FnMut(usize)> {
    decide("unknown_key", DEMANDS_READ, (0..KEYS).map(|number| Some(key_text(UNKNOWN + number))))
}

fn decide_401_no_credential() -> Box<dyn FnMut(usize)> {
    decide("missing_credential", DEMANDS_READ, (0..KEYS).map(|_| None))
}

fn decide_403_lacking_scope() -> Box<dyn FnMut(usize)> {
    let lacking = (0..KEYS).filter(|number| !Fleet::may_write(*number));
    decide("insufficient_scope", DEMANDS_WRITE, lacking.map(|number| Some(key_text(number))))
}

/// Decides one request after the other. `keys` are what they carry, `demand` says of which routes they are.
fn decide(outcome: &str, demand: u64, keys: impl Iterator<Item = Option<String>>) -> Box<dyn FnMut(usize)> {
    let gates: Vec<Gate> = (0..GATES).map(|_| Gate::new(ROUTES, Keys::load(KEYS).set())).collect();
    let requests: Vec<Request> = keys
        .enumerate()
        .map(|(turn, key)| {
            let request = Request::get(&Gate::path_of(turn as u64 * 2 % ROUTES + demand));
            key.map_or(request.clone(), |key| request.with_key(&key))
        })
        .collect();
    assert!(requests.iter().all(|request| gates[0].outcome(request) == outcome), "every outcome is {outcome}");
    Box::new(move |time| {
        let gate = &gates[time / requests.len() % gates.len()];
        black_box(gate.judge(black_box(&requests[time % requests.len()])));
    })
}

fn parse_path() -> Box<dyn FnMut(usize)> {
    let paths = [
        "/",
        "/v1/orders",
        "/v1/orders/0b7c3f4e-93a1-4c1b-9d53-6f4d8a1e2c75/lines/7",
        "/v1/customers/a%20b/notes",
        "/v1/./orders/../items/42",
    ];
    Box::new(move |time| {
        black_box(NormalizedPath::parse(black_box(paths[time % paths.len()])).is_ok());
    })
}

fn read_head_400_bytes() -> Box<dyn FnMut(usize)> {
    let mut reader = HeadReader::new(request_head(400));
    Box::new(move |_| assert_eq!(black_box(reader.read()), 400))
}
