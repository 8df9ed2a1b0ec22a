//! The store as a verb uses it: opened, asked, and told who acts.

use std::sync::Arc;

use super::failure::Failure;
use super::site::Site;
use crate::app;
use crate::domain::{KeyId, KeyRecord};
use crate::manage::Refused;
use crate::store::{self, Actor, Answer, OpenMode, Store, StoreSettings};

/// An open store, and what drives its answers.
pub(super) struct Vault {
    store: Arc<Store>,
    runtime: tokio::runtime::Runtime,
}

impl Vault {
    /// Opens the store of a configuration for `verb`.
    ///
    /// # Errors
    /// [`Failure::Usage`] when it lives in the memory of a gateway, which no other process reaches;
    /// [`Failure::Store`] when it cannot be opened.
    pub(super) fn open(site: &Site, mode: OpenMode, verb: &str) -> Result<Self, Failure> {
        check_on_disk(site, verb)?;
        Self::over(store::open(&site.settings.store, mode, site.settings.audit_seal())?)
    }

    /// As [`Self::open`], for who writes to it or looks for keys: refused where a pepper has another secret than it was
    /// written with.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Failure::Configuration`] for such a pepper; the store's.
    pub(super) fn open_checked(site: &Site, mode: OpenMode, verb: &str) -> Result<Self, Failure> {
        let vault = Self::open(site, mode, verb)?;
        match vault.block_on(vault.store.find_other_secret())? {
            Some(other) => Err(Failure::Configuration(format!("error: {other}\n"))),
            None => Ok(vault),
        }
    }

    /// A store that is open already.
    ///
    /// # Errors
    /// [`Failure::Runtime`] when the operating system gives no runtime.
    pub(super) fn over(store: Arc<Store>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
        Ok(Self { store, runtime })
    }

    /// Waits for one answer.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn ask<'a, T>(&'a self, question: impl FnOnce(&'a Store) -> Answer<'a, T>) -> Result<T, Failure> {
        Ok(self.runtime.block_on(question(&self.store))?)
    }

    /// Waits for anything.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The store itself.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Waits for something that is done at a desk.
    ///
    /// # Errors
    /// Its own.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T, Refused>>) -> Result<T, Failure> {
        Ok(self.runtime.block_on(work)?)
    }

    /// The record of a key.
    ///
    /// # Errors
    /// [`Failure::Runtime`] when there is none; the store's.
    pub(super) fn find(&self, id: KeyId) -> Result<KeyRecord, Failure> {
        self.ask(|store| store.reader().find_key(id))?.ok_or_else(|| no_such_key(id))
    }

    /// Whether the account that a key belongs to is suspended. One that the store does not know never grants.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn is_owner_suspended(&self, record: &KeyRecord) -> Result<bool, Failure> {
        let Some(id) = record.owner else { return Ok(false) };
        let owners = self.ask(|store| store.reader().list_owners())?;
        Ok(owners.iter().find(|owner| owner.id == id).is_none_or(|owner| owner.suspended))
    }
}

/// Refuses a store that no other process reaches.
///
/// # Errors
/// [`Failure::Usage`] for `driver: memory`.
pub(super) fn check_on_disk(site: &Site, verb: &str) -> Result<(), Failure> {
    match &site.settings.store {
        StoreSettings::Sqlite { .. } | StoreSettings::Postgres(_) => Ok(()),
        StoreSettings::Memory => Err(Failure::usage(format!(
            "`{verb}` needs a store on disk, and {} says `store.driver: memory`: such keys live and die with the \
             gateway's process. Use `driver: sqlite`.",
            site.path.display()
        ))),
    }
}

/// Nothing has this id.
pub(super) fn no_such_key(id: KeyId) -> Failure {
    Failure::runtime(format!("there is no key {id}; `portcullis keys list` shows those there are"))
}

/// Who acts on this machine: `local:<user>`, by the user this process runs as.
pub(super) fn local_actor() -> Actor {
    app::actor_of_user(rustix::process::getuid().as_raw())
}
