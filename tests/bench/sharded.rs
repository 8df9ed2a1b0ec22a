//! What the key set is held against: the table that one would write first, with a lock for each shard and whole hashes
//! as keys.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::RwLock;
use portcullis::domain::{KeyHash, KeyKind};

use crate::Fleet;
use crate::fleet::CHANGES_PER_COMMIT;

/// As many as the key set has.
const SHARDS: usize = 128;

/// What a request learns about a key: the same facts as the key set's slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its id.
    pub id: [u8; 16],
    /// The number of its scopes and roles.
    pub profile: u32,
    /// The number of its owner; 0: none.
    pub owner: u32,
    /// From then on it is refused, in seconds since 1970; 0: never.
    pub dies_at: u32,
    /// When it was made, in seconds since 1970.
    pub created_at: u32,
    /// The number of its environment.
    pub environment: u16,
    /// What it may be used for.
    pub kind: KeyKind,
    /// The reversible switch.
    pub active: bool,
    /// The final one.
    pub revoked: bool,
}

/// Keys by hash, in shards that the first byte chooses.
pub struct ShardedTable {
    shards: Box<[Shard]>,
}

type Shard = RwLock<HashMap<[u8; 32], Slot>>;

impl ShardedTable {
    /// A table of this fleet's keys.
    pub fn load(fleet: &Fleet) -> Self {
        let room = (fleet.len() as usize).div_ceil(SHARDS);
        let table = Self { shards: (0..SHARDS).map(|_| Shard::new(HashMap::with_capacity(room))).collect() };
        (0..fleet.len()).for_each(|number| table.insert(number));
        table
    }

    /// The key with this hash.
    #[inline]
    pub fn find(&self, hash: &KeyHash) -> Option<Slot> {
        self.shard(hash).read().get(hash.as_bytes()).copied()
    }

    /// Makes the changes of the fleet's next revisions, one every `pause`, until told to stop. Returns how many changes
    /// that were.
    pub fn follow(&self, fleet: &Fleet, pause: Duration, stop: &AtomicBool) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
        let mut changes = 0;
        while !stop.load(Ordering::Relaxed) {
            let revision = fleet.commit().number();
            fleet.written_by(revision).for_each(|number| self.insert(number));
            for number in fleet.removed_by(revision) {
                let hash = Fleet::hash(number);
                self.shard(&hash).write().remove(hash.as_bytes());
            }
            changes += CHANGES_PER_COMMIT;
            runtime.block_on(async { tokio::time::sleep(pause).await });
        }
        changes
    }

    fn insert(&self, number: u64) {
        let slot = Slot {
            id: u128::from(number).to_be_bytes(),
            profile: u32::from(Fleet::may_write(number)),
            owner: 0,
            dies_at: 0,
            created_at: 1_700_000_000,
            environment: 0,
            kind: KeyKind::Secret,
            active: true,
            revoked: false,
        };
        let hash = Fleet::hash(number);
        self.shard(&hash).write().insert(*hash.as_bytes(), slot);
    }

    fn shard(&self, hash: &KeyHash) -> &Shard {
        &self.shards[usize::from(hash.as_bytes()[0]) % SHARDS]
    }
}
