//! Tier 0: a hash table for what nobody looked at in a while.
//!
//! Among many entries the one that a request asks for is in no cache, and each place that has to be looked at after another is
//! waited for, some 150 ns. A table of control bytes and entries has two of them. Here entries stand in groups, each in one
//! place: nearly all are found in the group that their bits lead to, the others in the one behind it. It grows by half, not
//! to twice its size, so that less of it is empty.
//!
//! Must not know what it holds.
//! Start at [`Table::find`].

mod groups;

pub use groups::{Entry, Table};
