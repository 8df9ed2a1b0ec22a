//! Routing: normal form, precedence and readings.

mod input;
mod normal_form;
mod oracle;
mod precedence;
mod readings;
mod symbols;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

/// The normal form of a path by the contract.
pub(crate) use oracle::normal_form;

/// Holds an attack against the oracle and the six readings: its routes are drawn by the first eight bytes, and the rest is the
/// path of one request more, in UTF-8.
pub(crate) fn check_attack(bytes: &[u8]) {
    let (draw, path) = bytes.split_at(bytes.len().min(8));
    let Ok(path) = std::str::from_utf8(path) else { return };
    let mut seed = [0; 32];
    seed[..draw.len()].copy_from_slice(draw);
    let choices = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let attack = input::attack().new_tree(&mut TestRunner::new_with_rng(crate::cases(1), choices));
    let Ok(mut attack) = attack.map(|attack| attack.current()) else { return };
    let like = attack.requests[0].clone();
    attack.requests.push(input::Request { path: path.to_owned(), ..like });
    let table = input::table(&attack.routes);
    for request in &attack.requests {
        let answered = precedence::ask(&table, request);
        assert_eq!(answered, oracle::answer(&attack.routes, request), "{request:?} to {:?}", attack.routes);
        if let Err(problem) = readings::check_six_ways(&attack, request, answered) {
            panic!("{problem}: {request:?} to {:?}", attack.routes);
        }
    }
}
