//! The audit trail for those who read it: what they may ask for, and how they are shown what is found.
//!
//! The same for the command line and for the management API. Must not know terminals or HTTP; what a sound trail is, the
//! store knows. Start at [`Asked`].

mod asked;
mod shown;

pub use asked::{Asked, Unclear};
pub use shown::{entry_json, verification_json};
