//! How much a caller may ask for: the arithmetic of rates and quotas, and the meters that requests take from.
//!
//! Owns [`Meters`], the pure arithmetic of [`Gcra`] and [`Term`], what a node borrows of meters that a fleet shares, and
//! how what is left is said in header fields.
//! Must not know who decides what applies to a request, how a refusal looks, or where counts are kept when the process
//! is gone: whoever asks brings [`Charge`]s, and whoever keeps counts takes [`Meters::take_unwritten`].
//! Start at [`Meters::take`].

mod drawing;
mod gcra;
mod headers;
mod held;
mod lease;
mod meters;
mod quota;
mod settings;
mod shard;
mod sharing;
mod subject;

pub use drawing::{Patience, Withheld};
pub use gcra::{Bucket, Gcra, Level};
pub use headers::{LimitFields, add_fields};
pub use lease::{Ask, Grant};
pub use meters::{Charge, Charges, Exceeded, Meters, Moment, Policy, Standing, Standings};
pub use quota::Term;
pub use settings::LimitSettings;
pub use sharing::{Awaited, LeaseTerms, MeterId, OnOutage, Sharing};
pub use subject::{Network, RuleId, Subject, meter_digest};
