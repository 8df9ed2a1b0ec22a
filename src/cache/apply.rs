//! Bringing the key set to what the store says: changes onto the live map, a whole load beside it.
//!
//! Pure bookkeeping without I/O or clock. A map that was replaced is freed here and never by a request that happened to
//! read it at that moment: freeing a million keys takes milliseconds. Names are published before the first key that needs
//! them, keys that work come before keys that go, and a key that was seen revoked is never seen working again by the same
//! process.

use std::sync::Arc;

use hashbrown::HashMap;

use super::directory::{DirectoryWriter, Full, ProfileId};
use super::key_map::KeyMap;
use super::key_set::KeySet;
use super::slot::KeySlot;
use super::snapshot::{Base, Record, Unreadable};
use super::sync::Publish;
use crate::domain::{KeyHash, KeyId, Revision, Timestamp};
use crate::store::{KeyFacts, LoadBatch, OwnerFacts, Profile, Removed};

/// Most replaced secrets that are remembered: a few megabytes, and more than anybody replaces between two starts.
const MOST_REPLACED: usize = 100_000;

/// The one writer of a [`KeySet`].
pub(super) struct Replica {
    set: Arc<KeySet>,
    publish: Arc<dyn Publish>,
    names: DirectoryWriter,
    /// Whether the store was ever found to have lost commits. From then on nothing seen revoked is let go.
    diverged: bool,
    /// Secrets in whose place others were put, and whose they were: after lost commits the store would have them working.
    replaced_secrets: HashMap<KeyHash, KeyId>,
    /// Maps that were replaced and may still be read. Reading ends within a census, so there is hardly ever one.
    replaced: Vec<Arc<KeyMap>>,
}

impl Replica {
    pub(super) fn new(set: Arc<KeySet>, publish: Arc<dyn Publish>) -> Self {
        Self {
            set,
            publish,
            names: DirectoryWriter::default(),
            diverged: false,
            replaced_secrets: HashMap::new(),
            replaced: Vec::new(),
        }
    }

    /// Frees maps that were replaced and that nobody reads any longer. To be called now and then.
    pub(super) fn free_replaced(&mut self) {
        // Nobody can begin to read one again: it is found nowhere but here.
        self.replaced.retain(|map| Arc::strong_count(map) > 1);
    }

    pub(super) fn set(&self) -> &Arc<KeySet> {
        &self.set
    }

    /// Whether the store was ever found to have lost commits.
    pub(super) const fn has_diverged(&self) -> bool {
        self.diverged
    }

    /// Applies what changed.
    pub(super) fn apply(&mut self, Record { head, owners, keys, removed, .. }: &Record, now: Timestamp) {
        let mut placing = Placing::default();
        placing.owners(&mut self.names, owners);
        let slots: Vec<Option<KeySlot>> = keys.iter().map(|key| placing.slot(&mut self.names, key)).collect();
        self.publish_names();
        let map = self.set.map();
        for (key, slot) in keys.iter().zip(slots) {
            placing.put(&map, key, slot, |old| {
                if let Some(at) = key.revoked_at.filter(|_| !old.revoked) {
                    self.publish.revoked(now.since(at));
                }
            });
        }
        note_replaced(&mut self.replaced_secrets, &map, keys, removed);
        for Removed { id, hash } in removed {
            map.remove(hash, *id);
        }
        placing.report();
        self.set.reach(head.revision);
    }

    /// Begins a load beside the live map.
    pub(super) fn begin_load(&mut self) -> Load<'_> {
        Load { replica: self, map: KeyMap::with_capacity(0), placing: Placing::default() }
    }

    /// Names first: a key must never be visible before what its numbers mean.
    fn publish_names(&mut self) {
        if let Some(directory) = self.names.take_changed() {
            self.publish.directory_changed(&directory);
            self.set.publish_directory(directory);
        }
    }
}

/// Why everything is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LoadReason {
    /// The first time, or because too much happened.
    Behind,
    /// The store lost commits.
    OtherHistory,
}

/// A whole set on its way in. Dropping it leaves the live one as it is.
pub(super) struct Load<'a> {
    replica: &'a mut Replica,
    map: KeyMap,
    placing: Placing,
}

impl Load<'_> {
    /// Takes a batch.
    pub(super) fn take(&mut self, batch: &LoadBatch) {
        match batch {
            LoadBatch::Expect { keys } => self.map = KeyMap::with_capacity(*keys),
            LoadBatch::Owners(owners) => self.placing.owners(&mut self.replica.names, owners),
            LoadBatch::Keys(keys) => self.take_keys(keys),
        }
    }

    /// Takes a base of a snapshot; its numbers of names become those of this process.
    pub(super) fn take_base(&mut self, base: &Base) -> Result<(), Unreadable> {
        let Self { replica: Replica { names, .. }, map, .. } = self;
        *map = KeyMap::with_capacity(base.keys);
        let full = |full: Full| full.to_string();
        let environments = base.environments.iter().map(|name| names.environment(name));
        let environments = environments.collect::<Result<Vec<_>, _>>().map_err(full)?;
        let profiles = base.profiles.iter().map(|profile| names.profile(profile));
        let profiles = profiles.collect::<Result<Vec<_>, _>>().map_err(full)?;
        let owners = base.owners.iter().map(|owner| names.owner(*owner));
        let owners = owners.collect::<Result<Vec<_>, _>>().map_err(full)?;
        let mut filling = map.fill(base.keys);
        base.for_each_key(|hash, mut slot| {
            let missing = || "it holds a key whose names it does not hold".to_owned();
            slot.environment = *environments.get(slot.environment.index()).ok_or_else(missing)?;
            slot.profile = *profiles.get(slot.profile.index()).ok_or_else(missing)?;
            if let Some(owner) = &mut slot.owner {
                *owner = *owners.get(owner.index()).ok_or_else(missing)?;
            }
            filling.put(hash, &slot).map_err(full)
        })?;
        filling.finish().map_err(full)?;
        for (id, first) in &base.lineages {
            map.note_line(*id, *first, None);
        }
        for (id, predecessor) in &base.graces {
            map.note_line(*id, *id, Some(*predecessor));
        }
        Ok(())
    }

    /// Takes what changed after that.
    pub(super) fn take_record(&mut self, Record { owners, keys, removed, .. }: &Record) {
        self.placing.owners(&mut self.replica.names, owners);
        self.take_keys(keys);
        note_replaced(&mut self.replica.replaced_secrets, &self.map, keys, removed);
        for Removed { id, hash } in removed {
            self.map.remove(hash, *id);
        }
    }

    fn take_keys(&mut self, keys: &[KeyFacts]) {
        for key in keys {
            let slot = self.placing.slot(&mut self.replica.names, key);
            self.placing.put(&self.map, key, slot, |_| {});
        }
    }

    /// Puts the loaded set in place of the live one; returns which keys stay refused although the store has them
    /// working, or no longer has them.
    pub(super) fn finish(self, reason: LoadReason, revision: Revision) -> Vec<KeyId> {
        let Self { replica, map, placing } = self;
        replica.diverged |= reason == LoadReason::OtherHistory;
        let seen = replica.set.map();
        let mut held = hold_revocations(&seen, &map, replica.diverged);
        if reason == LoadReason::Behind {
            note_vanished(&mut replica.replaced_secrets, &seen, &map);
        }
        drop(seen);
        if replica.diverged {
            held.extend(hold_replaced(&replica.replaced_secrets, &map));
        }
        placing.report();
        replica.publish_names();
        replica.replaced.push(replica.set.replace_map(Arc::new(map)));
        replica.set.reach(revision);
        replica.free_replaced();
        held
    }
}

/// Carries revocations that this node has seen over to a map that was loaded anew. Within one history the store itself
/// remembers them and this changes nothing; after lost commits it does not, and then the hash alone decides.
fn hold_revocations(seen: &KeyMap, loaded: &KeyMap, diverged: bool) -> Vec<KeyId> {
    let mut held = Vec::new();
    seen.for_each(|hash, old| {
        if !old.revoked {
            return;
        }
        let mut keep = match loaded.get(hash) {
            Some(new) if !new.revoked && (diverged || new.id == old.id) => new,
            None if diverged => *old,
            Some(_) | None => return,
        };
        keep.revoked = true;
        // A loaded map that is full refuses what it does not hold.
        if loaded.insert(hash, keep).is_ok() {
            held.push(keep.id);
        }
    });
    held
}

/// Refuses secrets that others took the place of, where lost commits have brought them back.
fn hold_replaced(replaced_secrets: &HashMap<KeyHash, KeyId>, loaded: &KeyMap) -> Vec<KeyId> {
    let mut held = Vec::new();
    for (hash, id) in replaced_secrets {
        let Some(mut back) = known_as(loaded, hash, *id).filter(|back| !back.revoked) else { continue };
        back.revoked = true;
        if loaded.insert(hash, back).is_ok() {
            held.push(back.id);
        }
    }
    held
}

/// Notes secrets that are removed while they work, which is what putting another in their place does.
fn note_replaced(replaced_secrets: &mut HashMap<KeyHash, KeyId>, map: &KeyMap, keys: &[KeyFacts], removed: &[Removed]) {
    for key in keys {
        // It counts again: somebody has brought it back.
        replaced_secrets.remove(&key.hash);
    }
    for Removed { id, hash } in removed {
        let works = known_as(map, hash, *id).is_some_and(|slot| !slot.revoked);
        if works && replaced_secrets.len() < MOST_REPLACED {
            replaced_secrets.insert(*hash, *id);
        }
    }
}

/// Notes secrets that worked and are not there any more, of whose going only the whole load tells.
fn note_vanished(replaced_secrets: &mut HashMap<KeyHash, KeyId>, seen: &KeyMap, loaded: &KeyMap) {
    seen.for_each(|hash, old| {
        if !old.revoked && known_as(loaded, hash, old.id).is_none() && replaced_secrets.len() < MOST_REPLACED {
            replaced_secrets.insert(*hash, old.id);
        }
    });
}

/// Turning facts into slots, for the length of one load or one set of changes.
#[derive(Default)]
struct Placing {
    /// Profiles by address, which saves hashing the same texts for every key. They are kept so that no other profile
    /// gets the address meanwhile.
    profiles: HashMap<usize, (Arc<Profile>, ProfileId)>,
    /// The first thing that did not fit, and how many keys are refused for want of room.
    full: Option<(Full, usize)>,
}

impl Placing {
    fn owners(&mut self, names: &mut DirectoryWriter, owners: &[OwnerFacts]) {
        for owner in owners {
            if let Err(full) = names.owner(*owner) {
                self.note(full);
            }
        }
    }

    /// The slot of a key; `None` when there is no room for its names.
    fn slot(&mut self, names: &mut DirectoryWriter, key: &KeyFacts) -> Option<KeySlot> {
        let slot = self.try_slot(names, key);
        slot.map_err(|full| self.note(full)).ok()
    }

    fn try_slot(&mut self, names: &mut DirectoryWriter, key: &KeyFacts) -> Result<KeySlot, Full> {
        let address = Arc::as_ptr(&key.profile).addr();
        let profile = match self.profiles.get(&address) {
            Some((_, known)) => *known,
            None => {
                let id = names.profile(&key.profile)?;
                self.profiles.insert(address, (key.profile.clone(), id));
                id
            }
        };
        let owner = key.owner.map(|id| names.owner_of_key(id)).transpose()?;
        let environment = names.environment(&key.environment)?;
        let mut slot = KeySlot::new(key.id, profile, owner, environment, key.kind, key.dies_at, key.created_at);
        slot.active = key.active;
        slot.revoked = key.revoked_at.is_some();
        slot.succeeds = key.lineage != key.id;
        Ok(slot)
    }

    /// Puts a key into a map. `replaces` sees what the same key was before.
    fn put(&mut self, map: &KeyMap, key: &KeyFacts, slot: Option<KeySlot>, replaces: impl FnOnce(&KeySlot)) {
        let Some(mut slot) = slot else {
            // What the store says about it now is not known here, so what was known must not grant any longer.
            map.remove(&key.hash, key.id);
            return;
        };
        if let Some(old) = known_as(map, &key.hash, key.id) {
            slot.revoked |= old.revoked;
            replaces(&old);
        }
        map.note_line(key.id, key.lineage, key.ends_on_use);
        if let Err(full) = map.insert(&key.hash, slot) {
            self.note(full);
        }
    }

    fn note(&mut self, full: Full) {
        self.full.get_or_insert((full, 0)).1 += 1;
    }

    fn report(&self) {
        if let Some((full, refused)) = &self.full {
            tracing::error!(reason = %full, refused, "keys are refused for want of room");
        }
    }
}

fn known_as(map: &KeyMap, hash: &KeyHash, id: KeyId) -> Option<KeySlot> {
    map.get(hash).filter(|slot| slot.id == id)
}
