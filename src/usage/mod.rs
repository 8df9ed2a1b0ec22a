//! What is seen of the use of keys: counted where requests pass, kept in the store's book, told in reports.
//!
//! Owns the names of rules, what workers note of a request, what is unusual, and the report. Must not know how requests
//! are decided or who may read about whom. Nothing waits for it, and nothing decides by it.
//! Start at [`Tally`] for what a request notes, [`Ledger`] for what becomes of it.

mod ledger;
mod rules;
mod tally;
mod unusual;

pub use ledger::Ledger;
pub use rules::{RuleName, RuleNames, RuleNumbers, rule_text};
pub use tally::{Counted, Found, Tally, Visitor};
