//! The decision, shared by every door: [`judge()`] is pure, [`admit()`] is its only effect.
//!
//! Owns the compiled rules, the verdict and the leave to forward. Must not know how a request arrived, how a refusal
//! looks on the wire, or how anything is forwarded.

mod admit;
mod charge;
mod denial;
mod explain;
mod judge;
mod settings;
mod snapshot;

pub use admit::{Admission, Admitted, Decided, Identity, admit, admit_with};
pub use charge::{Allowance, RouteMeter};
pub use denial::Denial;
pub use explain::{Answer, AppliedLimit, Explanation, SupposedCaller, SupposedKey, explain};
pub use judge::{
    Caller, Freshness, Keys, Outcome, RequestHead, SnapshotOutdated, Verdict, examine, is_from_browser, judge,
    still_holds,
};
pub use settings::*;
pub use snapshot::{EnvironmentRule, Grant, Route, Rules, RulesError, Snapshot};
