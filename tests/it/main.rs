//! The one binary of tests that drive the real executable over real sockets. Everything here is black box: it speaks
//! what users, clients, upstreams, scrapers and scripts speak, and knows only what they are promised.
//!
//! Start at [`scene`] for the usual arrangement and at `portcullis_testkit` for the actors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::large_futures,
    unreachable_pub,
    reason = "a test may fail loudly, reads the clock itself, and is nobody's library"
)]

mod api;
mod besieged;
mod boot;
mod bounds;
mod cli;
mod clock;
mod config;
#[path = "../conformance/mod.rs"]
mod conformance;
mod control;
mod deploy;
mod descriptors;
mod dev;
mod disk_full;
mod dripping;
mod figures;
mod gate;
mod health;
mod key_pages;
mod layering;
mod limits;
mod memory;
mod metrics;
mod panics;
mod postgres;
mod proxy;
mod rates;
mod readme;
mod recall;
mod reload;
mod scanned;
mod scene;
mod secrets;
mod servers;
mod shared_limits;
mod shutdown;
mod soak;
mod sync;
mod timing;
mod tls;
mod tools;
mod usage;
