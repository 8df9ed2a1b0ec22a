//! What is seen of the use of keys: counted where requests pass, kept in the store's book, told in reports.
//!
//! Owns the names of rules, what workers note of a request, when keys were last used, what is unusual, and the report.
//! Must not know how requests are decided or who may read about whom. Nothing waits for it, and nothing decides by it, but
//! for graces that end when a successor is used.
//! Start at [`Tally`] for what a request notes, [`Ledger`] for what becomes of it; [`Graces`] have what is not a matter of the
//! store's books.

mod asked;
mod findings;
mod graces;
mod key_notes;
mod ledger;
mod ordered;
mod pace;
mod pending;
mod recent;
mod report;
mod room;
mod rules;
mod shown;
mod tally;
mod unusual;
mod visit;

pub use asked::{Period, key_usage};
pub use graces::Graces;
pub use ledger::Ledger;
pub use report::{About, Breakage, Excess, Holding, MAX_ROWS, Report, ReportQuery, Trial, UNUSED_FOR, report};
pub use room::most_notes;
pub use rules::{RuleName, RuleNames, RuleNumbers, rule_text};
pub use shown::report_json;
pub use tally::{Counted, Found, Tally};
pub use visit::{MAX_AGENT_BYTES, Visitor};
