//! The one reading of every HTTP/1 message of clients and upstreams, or none.
//!
//! Smuggling is a disagreement: two readers of the same bytes see different messages. Here there is one reader, towards
//! clients ([`RequestHeads`]) and towards upstreams ([`AnswerHeads`]), and it is strict: a head has exactly the form that
//! RFC 9112 gives it or it is refused whole, a [`Body`] is followed byte by byte, and what goes out is written anew from
//! what was read. It accepts a subset of what hyper accepts and reads that subset alike; tests hold it to both.
//!
//! Owns what a well-framed HTTP/1 message is, and what is said of one that is not ([`Fault`]). Pure: bytes in, facts out.
//! Must not know sockets, routes, credentials, or how a refusal is rendered.
//! Start at `request.rs` for what is checked in a head.

mod answer;
mod body;
mod chunked;
mod fault;
mod field;
mod head;
mod octets;
mod request;

pub use answer::{AnswerHeads, AnswerLimits, AnswerRead, AnswerStep, Asked};
pub use body::{Body, Taken};
pub use chunked::Chunked;
pub use fault::Fault;
pub use field::Version;
pub use octets::{is_authority, is_target};
pub use request::{RequestHeads, RequestLimits, RequestRead};

#[cfg(test)]
mod answer_tests;
#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod octets_tests;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod split_tests;
