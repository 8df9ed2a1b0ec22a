//! libFuzzer over the laws that hold for any bytes; `PORTCULLIS_FUZZ_LAW` says which. `tests/fuzz/run` starts it.
#![no_main]
#![allow(dead_code, unused_imports, clippy::all, reason = "what is shared with the tests has more in it")]

#[path = "../properties/laws.rs"]
mod laws;
#[path = "../properties/route/mod.rs"]
mod route;

use std::sync::LazyLock;

/// Laws that are tried with a number of random inputs take as many as are asked for.
fn cases(number: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config { cases: number, failure_persistence: None, ..Default::default() }
}

static LAW: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("PORTCULLIS_FUZZ_LAW").unwrap_or_default();
    let known = laws::LAWS.into_iter().find(|(name, _)| *name == wanted);
    known.unwrap_or_else(|| panic!("PORTCULLIS_FUZZ_LAW is {wanted:?}, which is no law")).1
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| LAW(bytes));
