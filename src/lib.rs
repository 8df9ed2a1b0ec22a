#![doc = include_str!("ARCHITECTURE.md")]

pub mod cache;
pub mod credential;
pub mod domain;
pub mod framing;
pub mod route;
pub mod store;
pub mod telemetry;
