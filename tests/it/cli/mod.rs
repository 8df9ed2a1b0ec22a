//! The command line: what each verb prints, changes, and ends with.

mod audit;
mod backup;
mod explain;
mod import;
mod keys;
mod remote;
mod verbs;
