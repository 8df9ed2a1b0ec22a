//! What the decision looks like from outside: who is answered what, and what the log knows about it.

mod answers;
mod browser;
mod cors;
mod hidden;
mod kinds;
mod methods;
mod profile;
mod report;
mod shield;
