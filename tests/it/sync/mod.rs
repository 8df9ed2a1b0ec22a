//! The key set follows the store, and outlives it.

mod changes;
mod outage;
mod snapshot;
