//! The store of this machine.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Arrival, Fresh, MAX_ROWS, Progress, Registry, Rows, Sample, See, Verified};
use crate::audit::entry_json;
use crate::authn::Rejection;
use crate::cli::curl::{self, Trial};
use crate::cli::failure::Failure;
use crate::cli::keys::Switch;
use crate::cli::site::Site;
use crate::cli::vault::{Vault, check_on_disk, local_actor, no_such_key};
use crate::domain::key_text::KeyTextForm;
use crate::domain::{KeyId, KeyRecord, OwnerId, PresentedKey, Revision, time};
use crate::gate::SupposedKey;
use crate::manage::{
    Authority, Batch, Desk, KeyChange, KeyFilter, Made, NewKey, NewOwner, OwnerChange, Refused, Rotation, RowReader,
    Told, key_json, owner_json, plan_key, wait_for_fleet,
};
use crate::store::{AuditQuery, Command, OpenMode};
use crate::usage::{About, Period, ReportQuery, key_usage, report, report_json};

/// The store that a configuration names, opened when it is first needed: a mistake in the flags makes none.
pub(super) struct Local {
    site: Site,
    verb: &'static str,
    authority: Authority,
    vault: OnceCell<Vault>,
    /// How long changes wait for the fleet; none: not at all.
    wait: Option<Duration>,
    /// The revision of the last change.
    changed: Cell<Option<Revision>>,
}

impl Local {
    pub(super) fn new(site: Site, verb: &'static str, wait: Option<Duration>) -> Self {
        let (authority, vault) = (Authority::Local(local_actor()), OnceCell::new());
        Self { site, verb, authority, vault, wait, changed: Cell::new(None) }
    }

    fn vault(&self, mode: OpenMode) -> Result<&Vault, Failure> {
        match self.vault.get() {
            Some(vault) => Ok(vault),
            None => {
                let vault = Vault::open_checked(&self.site, mode, self.verb)?;
                Ok(self.vault.get_or_init(|| vault))
            }
        }
    }

    /// Makes the store where there is none yet. Only for what puts something into it: whoever looks into a store that is
    /// not there, by another configuration or as another user, is told so, and leaves no file behind.
    fn create_store(&self) -> Result<(), Failure> {
        self.vault(OpenMode::Create).map(|_| ())
    }

    /// Does something at a desk.
    fn at_desk<T>(&self, work: impl AsyncFnOnce(Desk<'_>) -> Result<T, Refused>) -> Result<T, Failure> {
        let vault = self.vault(OpenMode::Existing)?;
        let settings = &self.site.settings.gate;
        let desk = Desk { store: vault.store(), settings, authority: &self.authority, now: time::now() };
        vault.wait(work(desk))
    }

    fn make(&self, make: impl AsyncFnOnce(Desk<'_>) -> Result<Made, Refused>) -> Result<Fresh, Failure> {
        self.at_desk(async |desk| {
            let Made { record, key, command } = make(desk).await?;
            let revision = desk.submit(command, None).await?.unwrap_or_default();
            self.changed.set(Some(revision));
            let record = key_json(&KeyRecord { revision, ..record }, time::now());
            Ok(Fresh { record, key: Zeroizing::new(key.reveal().to_owned()) })
        })
    }
}

impl Registry for Local {
    fn create_key(&self, asked: NewKey) -> Result<Fresh, Failure> {
        let owner = asked.owner.as_deref().and_then(|owner| owner.parse().ok());
        let _plan = plan_key(asked.clone(), owner, &self.site.settings.gate, &self.authority, time::now())?;
        self.create_store()?;
        self.make(async |desk| desk.make_key(asked).await)
    }

    fn sample_call(&self, id: KeyId) -> Result<Sample, Failure> {
        let record = self.vault(OpenMode::Existing)?.find(id)?;
        Ok(match curl::try_key(&self.site.settings, &self.site.rules()?, &record, record.created_at) {
            Trial::Line(call) => Sample::Call(Box::new(call)),
            Trial::NoRoute => Sample::Nothing(format!("no route of {} lets this key in", self.site.path.display())),
            Trial::NoListener => Sample::Unknown,
        })
    }

    fn list_keys(&self, mut filter: KeyFilter, see: See<'_>) -> Result<(), Failure> {
        filter.limit = 1_000;
        loop {
            let page = self.at_desk(async |desk| desk.list_keys(filter.clone()).await)?;
            filter.after = page.items.last().map(|record| record.id);
            let now = time::now();
            see(page.items.iter().map(|record| key_json(record, now)).collect())?;
            if !page.more || filter.after.is_none() {
                return Ok(());
            }
        }
    }

    fn key(&self, id: KeyId) -> Result<Value, Failure> {
        Ok(key_json(&self.vault(OpenMode::Existing)?.find(id)?, time::now()))
    }

    fn change_key(&self, id: KeyId, change: &KeyChange) -> Result<Value, Failure> {
        self.changed.set(Some(self.at_desk(async |desk| desk.change_key(id, change, None).await)?));
        self.key(id)
    }

    fn rotate_key(&self, id: KeyId, asked: Rotation) -> Result<Fresh, Failure> {
        self.make(async |desk| desk.make_successor(id, asked, None).await)
    }

    fn replace_secret(&self, id: KeyId) -> Result<Fresh, Failure> {
        self.make(async |desk| desk.make_secret(id, None).await)
    }

    fn switch_key(&self, id: KeyId, switch: Switch) -> Result<Value, Failure> {
        let (by, now) = (local_actor(), time::now());
        let revision = self.vault(OpenMode::Existing)?.ask(|store| match switch {
            Switch::Enable => store.writer().set_active(id, true, by, now),
            Switch::Disable => store.writer().set_active(id, false, by, now),
            Switch::Revoke => store.writer().revoke(id, by, now),
        })?;
        self.changed.set(revision);
        if revision.is_none() { Err(no_such_key(id)) } else { self.key(id) }
    }

    fn verify_key<'t>(&self, text: &'t str) -> Result<Verified<'t>, Failure> {
        let key = PresentedKey::new(text).ok_or_else(|| Failure::usage("that is no key"))?;
        let (settings, now) = (&self.site.settings.gate, time::now());
        let vault = self.vault(OpenMode::Existing)?;
        let found = match key.form(&settings.brand) {
            // The gateway does not look these up either.
            KeyTextForm::BadChecksum => None,
            KeyTextForm::Ours { .. } | KeyTextForm::Foreign => {
                let hashes = settings.hasher.candidates(&key).collect();
                let taken = vault.ask(|store| store.reader().find_taken(Vec::new(), hashes))?;
                taken.hashes.into_values().next()
            }
        };
        let record = found.map(|id| vault.find(id)).transpose()?;
        let rejection = match &record {
            Some(record) => {
                let suspended = vault.is_owner_suspended(record)?;
                SupposedKey::of_record(record, suspended, &self.site.rules()?, now).rejection
            }
            None => Some(Rejection::Unknown),
        };
        let record = record.map(|record| key_json(&record, now));
        let form = key.form_of_pair(&settings.brand);
        Ok(Verified { state: state_word(rejection).to_owned(), form, record })
    }

    fn check_import(&self) -> Result<(), Failure> {
        check_on_disk(&self.site, self.verb)
    }

    fn import(&self, rows: Rows<'_>) -> Result<Arrival, Failure> {
        let (settings, now) = (&self.site.settings.gate, time::now());
        let reader = RowReader::new(settings, &self.authority, now);
        let seen = |count| (rows.progress)(Progress::Read(count));
        let read = Batch::read(rows.format, rows.input, &reader, MAX_ROWS, seen);
        let mut batch = read.map_err(|problem| Failure::runtime(format!("cannot read {}: {problem}", rows.name)))?;
        let is_refused = |batch: &Batch| !batch.bad().is_empty() && !rows.skip_bad;
        if is_refused(&batch) {
            return Ok(Arrival::Refused(batch.into_bad()));
        }
        let total = batch.len();
        (rows.progress)(Progress::Written(0, total));
        if !rows.dry_run {
            self.create_store()?;
        }
        self.at_desk(async |desk| desk.sort_out(&mut batch).await)?;
        if is_refused(&batch) {
            return Ok(Arrival::Refused(batch.into_bad()));
        }
        let (imported, skipped) = (batch.len(), batch.bad().to_vec());
        if rows.dry_run {
            return Ok(Arrival::Tried { good: imported, skipped });
        }
        let revision = self.at_desk(async |desk| desk.import(batch).await)?;
        self.changed.set(revision);
        (rows.progress)(Progress::Written(total, total));
        Ok(Arrival::Done { imported, skipped, revision: json!(revision) })
    }

    fn key_usage(&self, id: KeyId, period: Period) -> Result<Value, Failure> {
        let vault = self.vault(OpenMode::Existing)?;
        let id = vault.find(id)?.id;
        vault.ask(|store| Box::pin(key_usage(store, id, period)))
    }

    fn usage_report(&self, unused_for: Duration) -> Result<Value, Failure> {
        let query = ReportQuery { about: About::Everything, unused_for, now: time::now() };
        let settings = &self.site.settings.gate;
        let found = self.vault(OpenMode::Existing)?.ask(|store| Box::pin(report(store, settings, query)))?;
        Ok(report_json(&found))
    }

    fn create_owner(&self, asked: NewOwner) -> Result<Value, Failure> {
        self.create_store()?;
        let id = self.at_desk(async |desk| {
            let record = desk.make_owner(asked)?;
            let id = record.id;
            self.changed.set(desk.submit(Command::InsertOwner { record }, None).await?);
            Ok(id)
        })?;
        self.owner(id)
    }

    fn list_owners(&self, see: See<'_>) -> Result<(), Failure> {
        let owners = self.vault(OpenMode::Existing)?.ask(|store| store.reader().list_owners())?;
        see(owners.iter().map(owner_json).collect())
    }

    fn owner(&self, id: OwnerId) -> Result<Value, Failure> {
        self.at_desk(async |desk| desk.owner(id).await.map(|owner| owner_json(&owner)))
    }

    fn change_owner(&self, id: OwnerId, change: &OwnerChange) -> Result<Value, Failure> {
        self.changed.set(Some(self.at_desk(async |desk| desk.change_owner(id, change, None).await)?));
        self.owner(id)
    }

    fn set_suspended(&self, id: OwnerId, suspended: bool) -> Result<Value, Failure> {
        self.changed.set(Some(self.at_desk(async |desk| desk.set_suspended(id, suspended, None).await)?));
        self.owner(id)
    }

    fn fleet(&self) -> Result<Option<Value>, Failure> {
        let (Some(patience), Some(revision)) = (self.wait, self.changed.get()) else { return Ok(None) };
        let vault = self.vault(OpenMode::Existing)?;
        let answer = vault.wait(async { Ok(wait_for_fleet(vault.store(), revision, patience).await) })?;
        Ok(Some(answer.json(Told::Names)))
    }

    fn list_audit(&self, mut query: AuditQuery, most: Option<u64>, see: See<'_>) -> Result<(), Failure> {
        let vault = self.vault(OpenMode::Existing)?;
        let mut left = most.unwrap_or(u64::MAX);
        while left > 0 {
            query.limit = usize::try_from(left.min(1_000)).unwrap_or(usize::MAX);
            let page = vault.ask(|store| store.audit().list_audit(query.clone()))?;
            see(page.items.iter().map(entry_json).collect())?;
            left -= page.items.len() as u64;
            query.after = page.items.last().map(|entry| entry.entry);
            if !page.more {
                break;
            }
        }
        Ok(())
    }
}

/// What a rejection is called where a key's state is told.
pub(super) const fn state_word(rejection: Option<Rejection>) -> &'static str {
    match rejection {
        None => "active",
        Some(Rejection::Checksum | Rejection::Unknown) => "unknown",
        Some(Rejection::Revoked) => "revoked",
        Some(Rejection::Disabled) => "disabled",
        Some(Rejection::Expired) => "expired",
        Some(Rejection::OwnerSuspended) => "owner_suspended",
    }
}
