//! Limits that a fleet shares: leases of tokens from meters in Redis or Valkey.
//!
//! Owns the address of the server, the few words of its protocol that are needed, the script that lends, and the one
//! thread that asks. Must not know what is limited, or what a lease is used for: that is `limit`'s.
//! Start at [`Lender::start`].
//!
//! The protocol is written here: a lease takes four commands, while the usual client brings a parser of URLs with the
//! tables of Unicode, locks and a second set of TLS features.

mod address;
mod lender;
mod link;
mod resp;
mod script;
mod settings;
mod tls;
mod trouble;

pub use address::{RedisAddress, RedisAddressFlaw};
pub use lender::{Lender, LendingStatus};
pub use settings::LendingSettings;
