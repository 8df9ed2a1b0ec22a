//! What a request reads: the keys, the names behind their numbers, and how fresh both are.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use super::directory::Directory;
use super::key_map::KeyMap;
use super::slot::KeySlot;
use crate::domain::{KeyHash, KeyId, KeyState, Revision, Timestamp, time};

/// No poll has succeeded yet.
const NEVER: i64 = i64::MIN;

/// The key set of this node. Read by every request, written by the sync task; others tell it at most that a grace ended.
pub struct KeySet {
    map: ArcSwap<KeyMap>,
    directory: ArcSwap<Directory>,
    revision: AtomicU64,
    /// When the store last confirmed the set: on the wall clock for people, on the monotonic one for deciding.
    confirmed_at_unix_ms: AtomicI64,
    confirmed_after_ms: AtomicI64,
    born: Instant,
}

impl KeySet {
    /// An empty set that is not loaded yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            map: ArcSwap::from_pointee(KeyMap::with_capacity(0)),
            directory: ArcSwap::from_pointee(Directory::default()),
            revision: AtomicU64::new(0),
            confirmed_at_unix_ms: AtomicI64::new(0),
            confirmed_after_ms: AtomicI64::new(NEVER),
            born: time::monotonic_now(),
        })
    }

    /// The key with this hash, whatever its state. Allocates nothing, waits for nothing.
    ///
    /// Names behind its numbers stand in the directory as it is *after* this call: they are published before the first
    /// key that needs them.
    pub fn find(&self, hash: &KeyHash) -> Option<KeySlot> {
        self.map.load().get(hash)
    }

    /// The key that the meters of this one go by: the first of its line of rotations.
    pub fn lineage(&self, slot: &KeySlot) -> KeyId {
        let first = if slot.succeeds { self.map.load().lineage(slot.id) } else { None };
        first.unwrap_or(slot.id)
    }

    /// Keys whose first use ends the grace of another, and that other.
    pub fn ends_on_use(&self) -> Vec<(KeyId, KeyId)> {
        self.map.load().ends_on_use()
    }

    /// The grace that the first use of this key ends has ended.
    pub fn note_ended(&self, id: KeyId) {
        self.map.load().note_ended(id);
    }

    /// The names, as they are now.
    pub fn directory(&self) -> Guard<Arc<Directory>> {
        self.directory.load()
    }

    /// Whether the first full set has been loaded. Before, nobody may be told that a key is unknown.
    pub fn is_loaded(&self) -> bool {
        self.confirmed_after_ms.load(Ordering::Acquire) != NEVER
    }

    /// How long ago the store last confirmed the set, by the monotonic clock; `None` before the first load.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let after = self.confirmed_after_ms.load(Ordering::Acquire);
        let lived = || milliseconds(now.saturating_duration_since(self.born));
        (after != NEVER).then(|| Duration::from_millis(u64::try_from(lived().saturating_sub(after)).unwrap_or(0)))
    }

    /// When the store last confirmed the set, by the wall clock; `None` before the first load. For people: a clock that
    /// jumps must not make the set stale, so decide by [`Self::age`].
    pub fn as_of(&self) -> Option<Timestamp> {
        self.is_loaded().then(|| Timestamp::from_unix_ms(self.confirmed_at_unix_ms.load(Ordering::Relaxed)))
    }

    /// Whether anybody vouches for the set: the store since this process began, or a snapshot. That of a node which had left
    /// its fleet does not: what was revoked since, with nobody waiting for this node, it could not know.
    pub fn is_vouched_for(&self) -> bool {
        self.as_of().is_some_and(|as_of| as_of > Timestamp::default())
    }

    /// The store's revision that the set is at.
    pub fn revision(&self) -> Revision {
        Revision::new(self.revision.load(Ordering::Acquire))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.map.load().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of at most `most` keys that `wanted` accepts. Reads the set until there are as many, and gives way meanwhile: of
    /// a million keys that may take a quarter of a second on a busy machine, and so it is not for the control thread.
    pub fn ids_where(&self, most: usize, wanted: impl Fn(&KeySlot) -> bool) -> Vec<KeyId> {
        let mut ids = Vec::new();
        let _stopped: ControlFlow<()> = self.map.load_full().for_each_giving_way(|_, slot| {
            if ids.len() == most {
                return ControlFlow::Break(());
            }
            if wanted(slot) {
                ids.push(slot.id);
            }
            ControlFlow::Continue(())
        });
        ids
    }

    /// Counts keys by environment and state at `now`. Reads the whole set, and gives way as [`Self::ids_where`] does.
    pub fn census(&self, now: Timestamp) -> Vec<Census> {
        let map = self.map.load_full();
        let directory = self.directory.load_full();
        let mut counts = vec![[0; 4]; directory.environments().len()];
        let _went_on: ControlFlow<()> = map.for_each_giving_way(|_, slot| {
            if let Some(count) = counts.get_mut(slot.environment.index()) {
                count[column(slot.state(now))] += 1;
            }
            ControlFlow::Continue(())
        });
        let census = |(name, [active, disabled, expired, revoked]): (&Arc<str>, [u64; 4])| Census {
            environment: name.clone(),
            active,
            disabled,
            expired,
            revoked,
        };
        directory.environments().iter().zip(counts).map(census).collect()
    }

    pub(super) fn map(&self) -> Arc<KeyMap> {
        self.map.load_full()
    }

    /// Puts `map` in place of the one that is returned, which requests may still be reading.
    pub(super) fn replace_map(&self, map: Arc<KeyMap>) -> Arc<KeyMap> {
        self.map.swap(map)
    }

    pub(super) fn publish_directory(&self, directory: Arc<Directory>) {
        self.directory.store(directory);
    }

    pub(super) fn reach(&self, revision: Revision) {
        self.revision.store(revision.number(), Ordering::Release);
    }

    /// Notes that the store confirmed the set at a moment, given on both clocks.
    pub(super) fn confirm(&self, moment: Moment) {
        let after = milliseconds(moment.monotonic.saturating_duration_since(self.born));
        self.confirmed_at_unix_ms.store(moment.wall.unix_ms(), Ordering::Relaxed);
        self.confirmed_after_ms.store(after, Ordering::Release);
    }

    /// Notes that the store confirmed the set before this process began, at `as_of`. How long ago that was says the wall
    /// clock alone; one that has been set back since makes the set as old as it is wrong, which is the safe side.
    pub(super) fn confirm_as_of(&self, as_of: Timestamp, now: Moment) {
        let ago = now.wall.since(as_of).max(as_of.since(now.wall));
        let lived = milliseconds(now.monotonic.saturating_duration_since(self.born));
        self.confirmed_at_unix_ms.store(as_of.unix_ms(), Ordering::Relaxed);
        self.confirmed_after_ms.store(lived.saturating_sub(milliseconds(ago)).max(NEVER + 1), Ordering::Release);
    }
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").field("len", &self.len()).field("revision", &self.revision()).finish_non_exhaustive()
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) wall: Timestamp,
    pub(super) monotonic: Instant,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { wall: time::now(), monotonic: time::monotonic_now() }
    }
}

/// How many keys of an environment are in each state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Census {
    /// Its name.
    pub environment: Arc<str>,
    /// Accepted, unless their owner is suspended.
    pub active: u64,
    /// Switched off.
    pub disabled: u64,
    /// Past their time.
    pub expired: u64,
    /// Switched off for good.
    pub revoked: u64,
}

const fn column(state: KeyState) -> usize {
    match state {
        KeyState::Active => 0,
        KeyState::Disabled => 1,
        KeyState::Expired => 2,
        KeyState::Revoked => 3,
    }
}
