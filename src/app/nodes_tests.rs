use super::*;
use crate::cache::{Directory, Publish, SnapshotClaim, SyncTask};
use crate::domain::Revision;
use crate::store::fixtures::{NOW, by, key};
use crate::store::{AuditSeal, OpenMode, Roll, Store, StoreSettings, SyncSettings};

struct Nobody;

impl Publish for Nobody {
    fn directory_changed(&self, _directory: &Arc<Directory>) {}
}

struct Scene {
    store: Arc<Store>,
    keys: Arc<KeySet>,
    handle: SyncHandle,
    max_staleness: watch::Sender<Option<Duration>>,
    syncing: JoinHandle<()>,
}

impl Scene {
    fn open() -> Self {
        let store = crate::store::open(&StoreSettings::Memory, OpenMode::Create, AuditSeal::default()).unwrap();
        let keys = KeySet::new();
        let settings =
            SyncSettings { poll_interval: Duration::from_millis(10), last_used_flush: Duration::from_secs(30) };
        let (task, handle) =
            SyncTask::new(Arc::clone(store.feed()), Arc::clone(&keys), Arc::new(Nobody), &settings, None);
        let syncing = tokio::spawn(task.run());
        Self { store, keys, handle, max_staleness: watch::Sender::new(None), syncing }
    }

    fn standing(&self) -> Standing {
        Standing::new(NodeId::generate(), &self.keys, &self.handle, self.max_staleness.subscribe())
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Roll) -> bool) {
        for _ in 0..1_000 {
            let roll = self.store.nodes().list_nodes().await.unwrap();
            if is_so(&roll) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what}: {:?}", self.store.nodes().list_nodes().await);
    }
}

#[tokio::test]
async fn a_node_reports_what_it_applies_and_leaves() {
    let scene = Scene::open();
    let place = Place::default();
    place.take(scene.standing(), Arc::clone(scene.store.nodes()), None).await;
    let only = |roll: &Roll| roll.nodes.first().cloned();
    scene
        .until("the first load", |roll| only(roll).is_some_and(|node| node.acknowledged == Some(Revision::ZERO)))
        .await;
    for number in 1..=3 {
        let revision = scene.store.writer().insert_keys(vec![key(number)], by(), NOW).await.unwrap();
        scene.until("a change", |roll| only(roll).is_some_and(|node| node.acknowledged == Some(revision))).await;
    }
    scene.max_staleness.send_replace(Some(Duration::from_secs(7)));
    scene.until("a setting", |roll| only(roll).is_some_and(|node| node.max_staleness.is_some())).await;
    place.leave().await;
    assert_eq!(scene.store.nodes().list_nodes().await.unwrap().nodes, []);
    place.leave().await;
    scene.syncing.abort();
}

#[tokio::test]
async fn a_node_that_was_struck_out_is_back_with_its_next_report() {
    let scene = Scene::open();
    let (place, standing) = (Place::default(), scene.standing());
    let id = standing.id;
    place.take(standing, Arc::clone(scene.store.nodes()), None).await;
    scene.until("the first load", |roll| roll.nodes.iter().any(|node| node.acknowledged.is_some())).await;
    assert!(scene.store.nodes().strike_node(id).await.unwrap());
    scene.store.writer().insert_keys(vec![key(1)], by(), NOW).await.unwrap();
    scene.until("it is there again", |roll| roll.nodes.iter().any(|node| node.id == id)).await;
    place.leave().await;
    scene.syncing.abort();
}

/// Who leaves with a snapshot, alone or not: whether it is still in the book, and whether its next process must ask first.
async fn left_behind(stays_when_alone: bool, is_alone: bool) -> (bool, bool) {
    let scene = Scene::open();
    let directory = tempfile::tempdir().unwrap();
    let claim = SnapshotClaim::take(directory.path().to_owned(), Arc::default());
    let (place, standing) = (Place::default(), Standing { id: claim.node_id(), ..scene.standing() });
    let parting = Parting { farewell: claim.farewell(), stays_when_alone };
    place.take(standing, Arc::clone(scene.store.nodes()), Some(parting)).await;
    scene.until("the first load", |roll| roll.nodes.iter().any(|node| node.acknowledged.is_some())).await;
    if !is_alone {
        scene.store.nodes().report_node(scene.standing().report()).await.unwrap();
    }
    place.leave().await;
    scene.syncing.abort();
    let roll = scene.store.nodes().list_nodes().await.unwrap();
    (roll.nodes.iter().any(|node| node.id == claim.node_id()), directory.path().join("left").exists())
}

#[tokio::test]
async fn whoever_leaves_is_waited_for_or_asks_before_it_decides() {
    for (stays_when_alone, is_alone) in [(false, false), (false, true), (true, false)] {
        assert_eq!(left_behind(stays_when_alone, is_alone).await, (false, true), "{stays_when_alone} {is_alone}");
    }
    assert_eq!(left_behind(true, true).await, (true, false));
}

#[test]
fn a_name_tells_the_machine_and_the_process() {
    assert!(node_name().ends_with(&format!("/{}", std::process::id())), "{}", node_name());
}
