//! Routing: normal form, precedence and readings.

mod input;
mod normal_form;
mod oracle;
mod precedence;
mod readings;
mod symbols;
