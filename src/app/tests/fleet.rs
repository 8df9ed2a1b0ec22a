//! The gateways, their store, and what happens to them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::dice::Dice;
use super::trace::{Call, Change, Event, Trace, Way, now_ms};
use super::way::{Link, at_once};
use super::witness::Witness;
use crate::app::nodes::{Place, Standing};
use crate::cache::{Directory, KeySet, Publish, SyncHandle, SyncTask};
use crate::domain::time::{self, monotonic_now};
use crate::domain::{KeyHash, KeyRecord, KeyState, NodeId, OwnerRecord, Revision, StoreHead};
use crate::gate::{OnStale, Staleness};
use crate::manage::{forget_node, wait_for_fleet};
use crate::store::fixtures::{Primary, by, hash, key, key_id, owner, owner_id};
use crate::store::{Command, KeyQuery, MAX_CHANGED_KEYS, NodeBook, Order, StoreError, SyncSettings};

/// Owners, whose keys are every third one.
const OWNERS: u32 = 5;
/// Keys at the beginning.
const KEYS: u32 = 150;
/// Added to the number of a key for each secret that replaces another.
const NEXT_SECRET: u32 = 1_000_000;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) gateways: usize,
    pub(super) span: Duration,
    /// `sync.poll_interval`.
    pub(super) poll: Duration,
    /// Of so many gateways one does not hear of commits; 1: none hears.
    pub(super) one_deaf_in: u64,
    /// Whether the store fails over to a standby that lags.
    pub(super) loses_commits: bool,
}

/// Nobody derives anything from the set.
struct Nobody;

impl Publish for Nobody {
    fn directory_changed(&self, _: &Arc<Directory>) {}
}

/// A process that is one of the fleet.
pub(super) struct Gateway {
    pub(super) number: usize,
    life: u64,
    pub(super) link: Arc<Link>,
    pub(super) set: Arc<KeySet>,
    pub(super) sync: SyncHandle,
    staleness: Staleness,
    place: Arc<Place>,
    syncing: Mutex<Option<AbortHandle>>,
}

impl Gateway {
    /// Whether a request with this key is let pass now.
    pub(super) fn accepts(&self, hash: &KeyHash) -> bool {
        self.would_accept(hash) && self.set.age(monotonic_now()).is_some_and(|age| self.staleness.bears(age))
    }

    /// The same, however old its key set is.
    pub(super) fn would_accept(&self, hash: &KeyHash) -> bool {
        self.set.find(hash).is_some_and(|slot| {
            let owner = slot.owner.map(|owner| self.set.directory().owner(owner).is_some_and(|owner| !owner.suspended));
            slot.state(time::now()) == KeyState::Active && owner.unwrap_or(true)
        })
    }

    pub(super) fn max_staleness_ms(&self) -> Option<u64> {
        match self.staleness.then {
            OnStale::Serve => None,
            OnStale::Deny => u64::try_from(self.staleness.most.as_millis()).ok(),
        }
    }
}

/// See the module.
pub(super) struct Fleet {
    pub(super) plan: Plan,
    pub(super) began: u64,
    pub(super) primary: Primary,
    pub(super) trace: Trace,
    pub(super) witness: Mutex<Witness>,
    gateways: Mutex<Vec<Option<Arc<Gateway>>>>,
    /// Where the store ever stood, in its history of now.
    history: Mutex<Vec<StoreHead>>,
    /// Every secret there ever was, with the number of its key.
    secrets: Mutex<Vec<(u32, KeyHash)>>,
    /// Gateways that are no more, and their lives.
    gone: Mutex<Vec<(usize, u64)>>,
    /// From then on all ways are open.
    over_at: u64,
}

impl Fleet {
    pub(super) fn new(plan: Plan) -> Arc<Self> {
        let fleet = Arc::new(Self {
            plan,
            began: now_ms(),
            primary: Primary::new(),
            trace: Trace::of(plan.gateways),
            witness: Mutex::default(),
            gateways: Mutex::new(vec![None; plan.gateways]),
            history: Mutex::default(),
            secrets: Mutex::default(),
            gone: Mutex::default(),
            over_at: now_ms() + u64::try_from(plan.span.as_millis()).unwrap(),
        });
        for number in 0..OWNERS {
            at_once(fleet.primary.store().writer().insert_owner(owner(number), by(), time::now())).unwrap();
        }
        fleet.commit(Change::Create { first: 0, keys: KEYS }).unwrap();
        fleet
    }

    fn is_over(&self) -> bool {
        now_ms() >= self.over_at
    }

    fn head(&self) -> StoreHead {
        at_once(self.primary.store().feed().head()).unwrap()
    }

    pub(super) fn running(&self) -> Vec<Arc<Gateway>> {
        self.gateways.lock().iter().flatten().cloned().collect()
    }

    fn gateway(&self, number: usize) -> Option<Arc<Gateway>> {
        self.gateways.lock()[number].clone()
    }

    /// Its sync task may have changed something.
    pub(super) fn look_at(&self, gateway: usize) {
        self.look(Some(gateway));
    }

    fn look(&self, only: Option<usize>) {
        for (number, event) in self.witness.lock().look(only) {
            self.trace.note(Some(number), event);
        }
    }

    /// A gateway says what it decides by.
    pub(super) fn hold_to_its_word(&self, number: usize, applied: Option<StoreHead>) {
        let Some(applied) = applied.filter(|applied| self.history.lock().contains(applied)) else { return };
        let Some(gateway) = self.gateway(number) else { return };
        let mut witness = self.witness.lock();
        // One that is stale accepts nothing, and is held to its word all the same.
        let broken = witness.watched.iter().rev().take(10).find(|watched| {
            !watched.is_lost && watched.revision <= applied.revision && gateway.would_accept(&watched.hash)
        });
        if let Some(key) = broken.map(|watched| watched.key) {
            witness.blame(Some(number), format!("acknowledges {}, and accepts key {key}", applied.revision));
        }
    }

    /// Changes something at the store, now. None where there is nothing to change.
    fn commit(self: &Arc<Self>, change: Change) -> Result<Option<Revision>, StoreError> {
        let now = time::now();
        let found = |number: u32| at_once(self.primary.store().reader().find_key(key_id(number)));
        let order = |command| Order::new(command, by(), now);
        let submit = |command| at_once(self.primary.store().writer().submit(order(command)));
        let mut refused_since = None;
        let effect = match change {
            Change::Create { first, keys } => {
                let records = (first..first + keys).map(owned_key).collect();
                let revision = at_once(self.primary.store().writer().insert_keys(records, by(), now))?;
                self.secrets.lock().extend((first..first + keys).map(|number| (number, hash(number))));
                Some(revision)
            }
            Change::Revoke(number) => {
                let before = found(number)?;
                let effect = submit(Command::Revoke { id: key_id(number) })?;
                refused_since = before.map(|before| (number, before.hash));
                effect.revision()
            }
            Change::ReplaceSecret(number) => {
                let Some(before) = found(number)? else { return Ok(None) };
                let next = self.secrets.lock().len() as u32 + NEXT_SECRET;
                let after = KeyRecord { hash: hash(next), ..before.clone() };
                let effect = submit(Command::ReplaceKey { record: Box::new(after) })?;
                self.secrets.lock().push((number, hash(next)));
                refused_since = Some((number, before.hash));
                effect.revision()
            }
            Change::Disable(number) => submit(Command::SetActive { id: key_id(number), active: false })?.revision(),
            Change::Enable(number) => submit(Command::SetActive { id: key_id(number), active: true })?.revision(),
            Change::Suspend(number) => {
                submit(Command::SetSuspended { id: owner_id(number), suspended: true })?.revision()
            }
            Change::Resume(number) => {
                submit(Command::SetSuspended { id: owner_id(number), suspended: false })?.revision()
            }
            Change::ForgetHistory => {
                submit(Command::Forget { before: now.minus(Duration::from_secs(20)) })?;
                None
            }
            Change::ForgetNode { gateway, life } => {
                let forgotten = forget_node(self.primary.store(), node_id(gateway, life), by(), now);
                forgotten.now_or_never().expect("a memory store answers at once")?;
                None
            }
        };
        self.is_committed(change, refused_since);
        Ok(effect)
    }

    /// Something may have been committed: who hears of it, and what must be refused from now on.
    fn is_committed(self: &Arc<Self>, change: Change, refused_since: Option<(u32, KeyHash)>) {
        let head = self.head();
        if self.history.lock().last() == Some(&head) {
            return;
        }
        self.history.lock().push(head);
        self.trace.note(None, Event::Commits(head.revision.number(), change));
        let gateways = self.gateways.lock();
        if let Some((number, hash)) = refused_since {
            self.witness.lock().watch(number, hash, head.revision, &gateways);
        }
        for gateway in gateways.iter().flatten() {
            gateway.link.tell(head.revision);
        }
    }

    /// Numbers of keys that work.
    fn working_keys(&self) -> Vec<u32> {
        let working = |record: &KeyRecord| record.state(time::now()) == KeyState::Active;
        self.records().iter().filter(|record| working(record)).map(number_of).collect()
    }

    fn records(&self) -> Vec<KeyRecord> {
        let mut records = Vec::new();
        loop {
            let after = records.last().map(|record: &KeyRecord| record.id);
            let query = KeyQuery { after, limit: 1_000, ..KeyQuery::default() };
            let page = at_once(self.primary.store().reader().list_keys(query)).unwrap();
            records.extend(page.items);
            if !page.more {
                return records;
            }
        }
    }

    fn owners(&self) -> Vec<OwnerRecord> {
        at_once(self.primary.store().reader().list_owners()).unwrap()
    }

    /// Starts a gateway, as `app::run` does it.
    async fn start(self: Arc<Self>, number: usize, life: u64) {
        let mut dice = Dice::of(self.plan.seed, 500_000 + (number as u64) * 1_000 + life);
        let listens = !dice.once_in(self.plan.one_deaf_in);
        let link = Link::new(&self, number, life, listens);
        let set = KeySet::new();
        let settings = SyncSettings { poll_interval: self.plan.poll, last_used_flush: Duration::from_secs(30) };
        let (task, sync) = SyncTask::new(Arc::clone(&link) as _, Arc::clone(&set), Arc::new(Nobody), &settings, None);
        let then = if dice.once_in(10) { OnStale::Serve } else { OnStale::Deny };
        let staleness = Staleness { most: Duration::from_secs(dice.between(5, 30)), then };
        let gateway = Arc::new(Gateway {
            number,
            life,
            link: Arc::clone(&link),
            set: Arc::clone(&set),
            sync: sync.clone(),
            staleness,
            place: Arc::default(),
            syncing: Mutex::default(),
        });
        self.trace.note(Some(number), Event::Starts);
        self.gateways.lock()[number] = Some(Arc::clone(&gateway));
        let longest = (then == OnStale::Deny).then_some(staleness.most);
        let (_told, max_staleness) = watch::channel(longest);
        let standing = Standing::new(node_id(number, life), &set, &sync, max_staleness);
        gateway.place.take(standing, Arc::clone(&link) as Arc<dyn NodeBook>, None).await;
        let is_still_there = self.gateway(number).is_some_and(|there| Arc::ptr_eq(&there, &gateway));
        if is_still_there {
            *gateway.syncing.lock() = Some(tokio::spawn(task.run()).abort_handle());
        }
    }

    /// A gateway serves no more: it is killed, or leaves in order.
    async fn stop(self: &Arc<Self>, number: usize, in_order: bool) {
        let Some(gateway) = self.gateways.lock()[number].take() else { return };
        self.trace.note(Some(number), if in_order { Event::Leaves } else { Event::Dies });
        self.witness.lock().is_gone(number);
        if in_order {
            gateway.place.leave().await;
        }
        gateway.link.end();
        if let Some(syncing) = gateway.syncing.lock().take() {
            syncing.abort();
        }
        // Somebody who knows that it is gone says so.
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.gone.lock().push((number, gateway.life));
        self.commit(Change::ForgetNode { gateway: number, life: gateway.life }).unwrap();
    }
}

fn node_id(gateway: usize, life: u64) -> NodeId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(gateway as u64).to_be_bytes());
    id[8..].copy_from_slice(&life.to_be_bytes());
    NodeId::from_bytes(id)
}

fn owned_key(number: u32) -> KeyRecord {
    let owner = number.is_multiple_of(3).then(|| owner_id(number / 3 % OWNERS));
    KeyRecord { owner, ..key(number) }
}

fn number_of(record: &KeyRecord) -> u32 {
    u32::from_be_bytes(record.id.to_bytes()[1..5].try_into().unwrap())
}

/// What happens, until it is over.
impl Fleet {
    /// All of it. Returns when everything has come to rest, or at the first thing that must not be.
    pub(super) async fn live(self: &Arc<Self>) {
        let mut dice = Dice::of(self.plan.seed, 1);
        for number in 0..self.plan.gateways {
            tokio::spawn(Arc::clone(self).start(number, 0));
            tokio::time::sleep(Duration::from_millis(dice.between(0, 20))).await;
        }
        let operators = tokio::spawn(Arc::clone(self).operate());
        let troubles = tokio::spawn(Arc::clone(self).trouble());
        let restarts = tokio::spawn(Arc::clone(self).restart());
        let failovers = tokio::spawn(Arc::clone(self).fail_over());
        while !self.is_over() && self.watch(&mut dice).await {}
        for task in [operators, troubles, restarts, failovers] {
            task.abort();
        }
        let running = self.running();
        for gateway in &running {
            gateway.link.turn(Way::Open);
        }
        // That may have been lost.
        let gone = self.gone.lock().clone();
        for (gateway, life) in gone {
            self.commit(Change::ForgetNode { gateway, life }).unwrap();
        }
        // Long enough for the slowest to notice, and to report that.
        let until = now_ms() + 25_000;
        while now_ms() < until && self.watch(&mut dice).await {}
        self.is_at_rest();
        let newest = self.head().revision;
        let answer = wait_for_fleet(self.primary.store(), newest, Duration::ZERO).await;
        if !answer.complete {
            self.witness.lock().blame(None, format!("is not complete at rest: {:?}", answer.pending));
        }
        self.gateways.lock().clear();
    }

    /// A moment passes, and everybody is looked at; false when something was found.
    async fn watch(self: &Arc<Self>, dice: &mut Dice) -> bool {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.look(None);
        }
        let running = self.running();
        let mut witness = self.witness.lock();
        let watched = witness.watched.len();
        for gateway in &running {
            for _ in 0..watched.min(4) {
                witness.probe(dice.below(watched), gateway);
            }
        }
        witness.failure.is_none()
    }

    /// Everybody is the same as the store.
    fn is_at_rest(&self) {
        let (head, owners, now) = (self.head(), self.owners(), time::now());
        let suspended =
            |record: &KeyRecord| owners.iter().any(|owner| Some(owner.id) == record.owner && owner.suspended);
        let records = self.records();
        let is_good = |record: &KeyRecord| record.state(now) == KeyState::Active && !suspended(record);
        let good: HashSet<KeyHash> = records.iter().filter(|one| is_good(one)).map(|one| one.hash).collect();
        let mut witness = self.witness.lock();
        for gateway in self.running() {
            let number = gateway.number;
            if gateway.sync.applied_head() != Some(head) {
                let at = gateway.sync.applied();
                witness.blame(Some(number), format!("stands at {at:?}, and the store at {}", head.revision));
            }
            for (key, hash) in self.secrets.lock().iter() {
                let (does, should) = (gateway.accepts(hash), good.contains(hash));
                let is_held = gateway.set.find(hash).is_some_and(|slot| slot.revoked) && self.plan.loses_commits;
                if does != should && (does || !is_held) {
                    witness.blame(Some(number), format!("accepts key {key}: {does}; by the store: {should}"));
                }
            }
        }
    }

    /// Somebody changes something now and then, and waits for it now and then.
    async fn operate(self: Arc<Self>) {
        let mut dice = Dice::of(self.plan.seed, 2);
        let mut next = KEYS;
        loop {
            tokio::time::sleep(Duration::from_millis(dice.between(20, 1_800))).await;
            let keys = self.working_keys();
            let one = dice.pick(&keys).copied().unwrap_or_default();
            let change = match dice.below(100) {
                0..55 => Change::Revoke(one),
                55..65 => Change::ReplaceSecret(one),
                65..70 => Change::Disable(one),
                70..75 => Change::Enable(u32::try_from(dice.below(next as usize)).unwrap()),
                75..78 => Change::Suspend(u32::try_from(dice.below(OWNERS as usize)).unwrap()),
                78..81 => Change::Resume(u32::try_from(dice.below(OWNERS as usize)).unwrap()),
                81..84 => Change::ForgetHistory,
                84 if next < 2_000 => Change::Create { first: next, keys: MAX_CHANGED_KEYS as u32 + 1 },
                _ => Change::Create { first: next, keys: 1 },
            };
            if let Change::Create { keys, .. } = change {
                next += keys;
            }
            let patience = match dice.below(10) {
                0 => Some(60),
                1..4 => Some(dice.between(1, 15)),
                _ => None,
            };
            let at = dice.below(self.plan.gateways);
            tokio::spawn(Arc::clone(&self).change(change, at, patience.map(Duration::from_secs)));
        }
    }

    /// Changes something over the management API of a gateway, and waits until everybody enforces it.
    async fn change(self: Arc<Self>, change: Change, at: usize, patience: Option<Duration>) {
        let Some(gateway) = self.gateway(at) else { return };
        let answer = gateway.link.call(Call::Write, move |fleet| fleet.commit(change)).await;
        let Ok(Some(revision)) = answer else { return };
        gateway.link.hear(revision);
        self.witness.lock().is_told(at, revision);
        let index = self.witness.lock().watched.iter().rposition(|watched| watched.revision == revision);
        let (Some(patience), Some(index)) = (patience, index) else { return };
        self.witness.lock().waits += 1;
        self.trace.note(None, Event::Waits(revision.number(), at));
        let store = self.primary.reached_by(Arc::clone(&gateway.link) as _, Arc::clone(&gateway.link) as _);
        let answer = wait_for_fleet(&store, revision, patience).await;
        let (acknowledged, pending) = (answer.acknowledged.len(), answer.pending.len());
        self.trace.note(None, Event::IsAnswered(revision.number(), answer.complete, acknowledged, pending));
        if answer.complete {
            let mut witness = self.witness.lock();
            witness.complete += 1;
            witness.is_answered(index, &self.gateways.lock());
        }
    }

    /// Ways are cut, and mended.
    async fn trouble(self: Arc<Self>) {
        let mut dice = Dice::of(self.plan.seed, 3);
        loop {
            tokio::time::sleep(Duration::from_millis(dice.between(100, 4_000))).await;
            let running = self.running();
            let how_many = match dice.below(20) {
                0..13 => 1,
                13..18 => dice.below(20),
                18 => running.len() / 2,
                _ => running.len(),
            };
            let way = match dice.below(6) {
                0 => Way::Deaf,
                1 => Way::Refusing,
                2 => Way::Slow,
                _ => Way::Silent,
            };
            let lasts = match dice.below(20) {
                0..12 => dice.between(50, 3_000),
                12..18 => dice.between(3_000, 15_000),
                // The store is away for everybody, but not for as long.
                _ if how_many > 20 => dice.between(3_000, 8_000),
                _ => dice.between(15_000, 60_000),
            };
            for _ in 0..how_many {
                let Some(gateway) = dice.pick(&running) else { continue };
                if gateway.link.way() == Way::Open {
                    gateway.link.turn(way);
                    let (fleet, link) = (Arc::clone(&self), Arc::clone(&gateway.link));
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(lasts)).await;
                        if way == Way::Slow && !fleet.is_over() {
                            // What it was told last it was told long after it had asked.
                            link.turn(Way::Silent);
                            tokio::time::sleep(Duration::from_secs(35)).await;
                        }
                        if !fleet.is_over() {
                            link.turn(Way::Open);
                        }
                    });
                }
            }
        }
    }

    /// Gateways are killed, or leave, and others take their place.
    async fn restart(self: Arc<Self>) {
        let mut dice = Dice::of(self.plan.seed, 4);
        for life in 1.. {
            tokio::time::sleep(Duration::from_millis(dice.between(500, 12_000))).await;
            let (number, in_order) = (dice.below(self.plan.gateways), dice.once_in(2));
            let again = Duration::from_millis(dice.between(10, 4_000));
            let fleet = Arc::clone(&self);
            tokio::spawn(async move {
                let stopped = Arc::clone(&fleet);
                let is_there = stopped.gateway(number).is_some();
                tokio::spawn(async move { stopped.stop(number, in_order).await });
                tokio::time::sleep(again).await;
                if is_there && fleet.gateway(number).is_none() {
                    fleet.start(number, life).await;
                }
            });
        }
    }

    /// The store fails over, and loses what the standby had not got yet.
    async fn fail_over(self: Arc<Self>) {
        let mut dice = Dice::of(self.plan.seed, 5);
        if !self.plan.loses_commits {
            return;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(dice.between(5_000, 30_000))).await;
            let (standby, kept) = (self.primary.standby(), self.head());
            tokio::time::sleep(Duration::from_millis(dice.between(0, 4_000))).await;
            for gateway in self.running() {
                gateway.link.turn(Way::Refusing);
            }
            self.primary.fail_over(standby);
            self.history.lock().retain(|head| head.revision <= kept.revision);
            self.witness.lock().lose(kept.revision);
            self.trace.note(None, Event::FailsOver(kept.revision.number()));
            tokio::time::sleep(Duration::from_millis(dice.between(100, 5_000))).await;
            for gateway in self.running() {
                gateway.link.turn(Way::Open);
            }
        }
    }
}
