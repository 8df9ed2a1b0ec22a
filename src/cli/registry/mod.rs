//! Where the verbs about keys, owners, usage and the audit trail do their work: on the store of this machine, or over the
//! management API of another.
//!
//! A verb asks a [`Registry`] and prints what it answers: records as JSON, the same from either. Must not know how anything
//! is shown.

mod address;
mod client;
mod local;
mod refusal;
mod remote;
mod shipment;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use zeroize::Zeroizing;

use super::curl::Call;
use super::failure::Failure;
use super::keys::Switch;
use super::site::Site;
use crate::domain::key_text::KeyTextForm;
use crate::domain::{KeyId, OwnerId};
use crate::manage::{BadRow, Format, KeyChange, KeyFilter, NewKey, NewOwner, OwnerChange, Rotation};
use crate::store::AuditQuery;
use crate::usage::Period;

pub(super) use client::speak;
pub(super) use refusal::ApiRefusal;

/// What takes the records of a list, page by page.
pub(super) type See<'s> = &'s mut dyn FnMut(Vec<Value>) -> Result<(), Failure>;

/// What verbs ask for. Records are JSON as the management API shows them.
pub(super) trait Registry {
    /// Makes a key.
    fn create_key(&self, asked: NewKey) -> Result<Fresh, Failure>;
    /// A request that a key which was just made can be tried with.
    fn sample_call(&self, id: KeyId) -> Result<Sample, Failure>;
    /// Shows the keys that fit, in the order they were made; `after` and `limit` are not looked at.
    fn list_keys(&self, filter: KeyFilter, see: See<'_>) -> Result<(), Failure>;
    /// A key.
    fn key(&self, id: KeyId) -> Result<Value, Failure>;
    /// Changes a key, and answers it as it is then.
    fn change_key(&self, id: KeyId, change: &KeyChange) -> Result<Value, Failure>;
    /// Makes a successor.
    fn rotate_key(&self, id: KeyId, asked: Rotation) -> Result<Fresh, Failure>;
    /// Gives a key another secret.
    fn replace_secret(&self, id: KeyId) -> Result<Fresh, Failure>;
    /// Turns a switch, and answers the key as it is then.
    fn switch_key(&self, id: KeyId, switch: Switch) -> Result<Value, Failure>;
    /// Says what a key is. `text` is a single token of visible ASCII.
    fn verify_key<'t>(&self, text: &'t str) -> Result<Verified<'t>, Failure>;
    /// Whether an import makes sense at all, before its rows are read.
    fn check_import(&self) -> Result<(), Failure>;
    /// Takes over keys, all rows or none.
    fn import(&self, rows: Rows<'_>) -> Result<Arrival, Failure>;
    /// What a key was used for.
    fn key_usage(&self, id: KeyId, period: Period) -> Result<Value, Failure>;
    /// What could be taken from keys; those that were not used for so long are unused.
    fn usage_report(&self, unused_for: Duration) -> Result<Value, Failure>;
    /// Makes an owner.
    fn create_owner(&self, asked: NewOwner) -> Result<Value, Failure>;
    /// Shows all owners.
    fn list_owners(&self, see: See<'_>) -> Result<(), Failure>;
    /// An owner.
    fn owner(&self, id: OwnerId) -> Result<Value, Failure>;
    /// Changes an owner, and answers it as it is then.
    fn change_owner(&self, id: OwnerId, change: &OwnerChange) -> Result<Value, Failure>;
    /// Turns an owner's switch, and answers it as it is then.
    fn set_suspended(&self, id: OwnerId, suspended: bool) -> Result<Value, Failure>;
    /// How far the fleet is with the last change, waiting as long as was said; none where nobody asked, or nothing changed.
    fn fleet(&self) -> Result<Option<Value>, Failure>;
    /// Shows up to `most` entries of the trail; `after` and `limit` of the query are not looked at.
    fn list_audit(&self, query: AuditQuery, most: Option<u64>, see: See<'_>) -> Result<(), Failure>;
}

/// A key that was just made.
pub(super) struct Fresh {
    /// Its record, without its text.
    pub(super) record: Value,
    /// Its text, for the one answer that shows it.
    pub(super) key: Zeroizing<String>,
}

/// What came of looking for a request that a new key can make.
pub(super) enum Sample {
    /// This one.
    Call(Box<Call>),
    /// There is none, and why.
    Nothing(String),
    /// Nobody knows: the routes are not here.
    Unknown,
}

/// What a key is.
pub(super) struct Verified<'t> {
    /// Why it is not accepted, as a word for its state; `active` where it is.
    pub(super) state: String,
    /// What its text says about itself.
    pub(super) form: KeyTextForm<'t>,
    /// Its record, where it is known.
    pub(super) record: Option<Value>,
}

/// Rows to be imported.
pub(super) struct Rows<'a> {
    /// What they are called: a file's name, or standard input.
    pub(super) name: &'a str,
    /// How they are written down.
    pub(super) format: Format,
    /// Where they come from.
    pub(super) input: &'a mut dyn BufRead,
    /// Whether good rows are imported although there are bad ones.
    pub(super) skip_bad: bool,
    /// Whether nothing is imported.
    pub(super) dry_run: bool,
    /// Is told how far it is.
    pub(super) progress: &'a mut dyn FnMut(Progress),
}

impl Rows<'_> {
    /// The rows cannot be read.
    fn unreadable(&self, problem: &str) -> Failure {
        Failure::runtime(format!("cannot read {}: {problem}", self.name))
    }
}

/// How far an import is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// So many rows were read.
    Read(usize),
    /// All were read; so many of so many were checked and written.
    Written(usize, usize),
}

/// What came of an import.
pub(super) enum Arrival {
    /// Some rows are bad, and nothing was imported.
    Refused(Vec<BadRow>),
    /// Nothing was to be imported.
    Tried {
        /// How many rows are good.
        good: usize,
        /// Rows that would be left out.
        skipped: Vec<BadRow>,
    },
    /// It is done.
    Done {
        /// How many keys were imported.
        imported: usize,
        /// Rows that were left out.
        skipped: Vec<BadRow>,
        /// The revision that holds them; null where there are none.
        revision: Value,
    },
}

/// Most rows of one import.
const MAX_ROWS: usize = 1_000_000;

/// Where a verb works.
#[derive(Args, Debug)]
#[command(next_help_heading = "Another machine")]
pub(super) struct ServerArgs {
    /// The management API to use instead of the store here, such as `https://gate.example`; its key is taken from the
    /// environment variable PORTCULLIS_KEY
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// Believe the authorities in this file (PEM) instead of the system's
    #[arg(long, global = true, value_name = "FILE")]
    server_ca: Option<PathBuf>,
    /// Send the key over plain http, readable on the way, to a server that is not this machine
    #[arg(long, global = true)]
    insecure_http: bool,
}

impl ServerArgs {
    /// Opens what `verb` looks at. Nothing is made or sent yet.
    ///
    /// # Errors
    /// As [`Self::open_to_change`].
    pub(super) fn open(self, config: Option<&Path>, verb: &'static str) -> Result<Box<dyn Registry>, Failure> {
        self.open_to_change(config, verb, None)
    }

    /// Opens what `verb` works on; its changes wait for the fleet for so long. Nothing is made or sent yet.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the flags make no sense, or there is no key to send; [`Failure::Configuration`].
    pub(super) fn open_to_change(
        self,
        config: Option<&Path>,
        verb: &'static str,
        wait: Option<Duration>,
    ) -> Result<Box<dyn Registry>, Failure> {
        match self.server {
            None => {
                self.check_alone(verb)?;
                Ok(Box::new(local::Local::new(Site::open(config)?, verb, wait)))
            }
            Some(_) if config.is_some() => {
                Err(Failure::usage("--server works on another machine and --config on this one; name one of them"))
            }
            Some(url) => {
                let address = address::Address::parse(&url, self.insecure_http)?;
                Ok(Box::new(remote::Remote::new(client::Client::new(address, self.server_ca)?, wait)))
            }
        }
    }

    /// Refuses to work on another machine.
    ///
    /// # Errors
    /// [`Failure::Usage`] when one is named.
    pub(super) fn check_local(&self, verb: &str) -> Result<(), Failure> {
        match self.server {
            Some(_) => {
                Err(Failure::usage(format!("`{verb}` reads the store itself; run it where that is, without --server")))
            }
            None => self.check_alone(verb),
        }
    }

    fn check_alone(&self, verb: &str) -> Result<(), Failure> {
        if self.server_ca.is_some() || self.insecure_http {
            let problem = format!("--server-ca and --insecure-http say how `{verb}` reaches a --server; name one");
            return Err(Failure::usage(problem));
        }
        Ok(())
    }
}
