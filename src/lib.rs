#![doc = include_str!("ARCHITECTURE.md")]

pub mod admin;
pub mod app;
pub mod authn;
pub mod authz;
pub mod cache;
pub mod config;
pub mod credential;
pub mod domain;
pub mod framing;
pub mod gate;
pub mod proxy;
pub mod reply;
pub mod route;
pub mod server;
pub mod store;
pub mod telemetry;
