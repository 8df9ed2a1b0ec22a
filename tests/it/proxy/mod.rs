//! The way of a request to its upstream and of the answer back.

mod balance;
mod credential_locations;
mod faults;
mod floods;
mod forwarding;
mod framing;
mod h2_bodies;
mod h2_connections;
mod headers;
mod http2;
mod neighbours;
mod path_tricks;
mod races;
mod retries;
mod slow_clients;
mod smuggling;
mod streaming;
mod timeouts;
mod upgrade;
mod upstreams;
