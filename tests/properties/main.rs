//! Laws that hold for every input, held against oracles written apart from the code they judge.
//!
//! `PROPTEST_CASES` sets how many inputs each law is tried with.

// Always true in this binary; it tells the lints that these are tests.
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod route;

/// `default` inputs, or as many as `PROPTEST_CASES` says. Failing inputs are printed, not written to files.
#[cfg(test)]
fn cases(default: u32) -> proptest::test_runner::Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default);
    proptest::test_runner::Config { cases, failure_persistence: None, ..Default::default() }
}
