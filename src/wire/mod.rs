//! HTTP/1 connections: messages read from a stream and written to it, on both sides of the gateway.
//!
//! Owns streams with and without TLS, the memory messages are read into, and who waits for what on one connection. What
//! a message means is `framing`'s; these are its hands. One parser reads each message once: nothing is handed to a
//! second reader that might disagree.
//! Must not know routes, credentials, how a request is decided or how an answer is rendered.
//! Start at [`ClientWire`] for the side of the client, and at [`UpstreamWire`] for the side of an upstream.

mod buffer;
mod client;
mod closing;
mod cursor;
mod descriptors;
mod memory;
mod outbox;
mod pace;
mod pipe;
mod progress;
mod stream;
mod tcp;
mod upstream;

pub use buffer::Buffers;
pub use client::{Arrival, BodyFault, ClientWire, SHORT_BODY};
pub use descriptors::{SocketPlace, is_exhausted, open_sockets, set_room_for_sockets};
pub use memory::{Held, MemorySum};
pub use outbox::{Outbox, push_chunk_end, push_chunk_head};
pub use pace::{Floor, Pace};
pub use progress::{CoarseClock, HELD_UP_MS, Patience, Phase, Progress, Swept, takes_one};
pub use stream::{Socket, Stream};
pub use upstream::{AnswerFault, UpstreamAnswer, UpstreamWire};

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod pace_tests;
#[cfg(test)]
mod progress_tests;
#[cfg(test)]
mod upstream_tests;
