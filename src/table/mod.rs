//! Tier 0: a hash table for what nobody looked at in a while.
//!
//! Among many entries the one that a request asks for is in no cache, and each place that has to be looked at after another is
//! waited for, some 150 ns. A table of control bytes and entries has two of them. Here entries stand in groups, and for most there
//! is one group to look at: where the table is as full as it gets, five eighths, 97 of 100 entries in groups of eight are in
//! the group that their bits lead to, and 92 in groups of four; the others are behind it, most often next to it. For what is
//! not there one looks at 1.2 groups, or 1.6. It grows by half, not to twice its size, so that less of it is empty.
//!
//! Must not know what it holds.
//! Start at [`Table::find`].

mod groups;

pub use groups::{Entry, Table};
