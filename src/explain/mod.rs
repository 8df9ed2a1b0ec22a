//! Decisions for their readers: which rule decides a request and why, whether it is only supposed or happened a moment
//! ago.
//!
//! Owns the words and the JSON of explanations, of rules and of remembered requests. Must not decide anything itself:
//! it asks the gate, with a caller who is only supposed. Start at [`Account`] for one explanation, [`Past`] for a request
//! that happened.

mod account;
mod past;
mod rules;
mod supposition;
mod typed;

pub use account::Account;
pub use past::Past;
pub use rules::{demand_text, method_text, mode_text, rules_json};
pub use supposition::{KeySources, Supposition};
pub use typed::TypedRequest;
