//! Finding exactly one credential in a request, and taking it out again.
//!
//! Owns the places and schemes a credential may stand in. Must not know whether it is valid.
//! Start at [`locate()`].

mod locate;
#[cfg(test)]
mod locate_tests;
mod location;
mod strip;

pub use locate::{Credential, Located, Malformed, locate};
pub use location::{Place, Scheme};
pub use strip::{Stripped, strip_field, strip_query};
