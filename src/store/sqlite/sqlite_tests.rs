//! What only the embedded store promises: its files, its neighbours and its trouble.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;

use super::connect::usage_path;
use super::migrate::{KEYS, Schema};
use super::writer::{Scribe, transact};
use super::*;
use crate::domain::{Revision, RevisionToken};
use crate::store::command::{Command, Origin};
use crate::store::fixtures::{NOW, by, key_id, keys, owner};
use crate::store::{ChangeFeed, KeyReader, KeyWriter};

struct Place {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().join("data/portcullis.db"), directory }
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path, OpenMode::Create, no_key()).unwrap()
    }

    fn refusal(&self, mode: OpenMode) -> StoreError {
        match SqliteStore::open(&self.path, mode, no_key()) {
            Ok(_) => panic!("the store opened"),
            Err(error) => error,
        }
    }

    /// A look at the tables past the store.
    fn raw(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    fn audit_trail(&self) -> Vec<(i64, String, String, String)> {
        let raw = self.raw();
        let mut select = raw.prepare("SELECT revision, actor, action, subject FROM audit ORDER BY entry").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }
}

fn no_key() -> SharedSeal {
    SharedSeal::default()
}

async fn insert(store: &SqliteStore, records: Vec<KeyRecord>) -> Revision {
    store.insert_keys(records, by(), NOW).await.unwrap()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let place = Place::new();
    let store = place.open();
    insert(&store, keys(0..50)).await;
    store.insert_owner(owner(1), by(), NOW).await.unwrap();
    store.revoke(key_id(7), by(), NOW).await.unwrap();
    store.mark_used(vec![(key_id(3), NOW)]).await.unwrap();
    let head = store.head().await.unwrap();
    let listed = store.list_keys(KeyQuery::default()).await.unwrap().items;
    drop(store);

    let store = SqliteStore::open(&place.path, OpenMode::Existing, no_key()).unwrap();
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(store.list_keys(KeyQuery::default()).await.unwrap().items, listed);
    assert_eq!(store.list_owners().await.unwrap().len(), 1);
    assert_eq!(listed[3].last_used_at, Some(NOW));
}

#[tokio::test]
async fn dropping_the_store_finishes_what_is_queued() {
    let place = Place::new();
    let store = Arc::new(place.open());
    let writing: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.insert_keys(keys([n]), by(), NOW).await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    // Queued by now, answered or not: nobody waits for the answers.
    writing.iter().for_each(|task| task.abort());
    for task in writing {
        drop(task.await);
    }
    drop(Arc::into_inner(store).expect("the tasks are gone"));
    assert_eq!(place.open().list_keys(KeyQuery::default()).await.unwrap().items.len(), 20);
}

#[test]
fn the_files_are_private() {
    let place = Place::new();
    let store = place.open();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.path), 0o600);
    assert_eq!(mode(place.path.parent().unwrap()), 0o700);
    for companion in ["portcullis.db-wal", "portcullis.db-shm"] {
        assert_eq!(mode(&place.path.with_file_name(companion)), 0o600, "{companion}");
    }
    drop(store);
}

#[test]
fn looking_never_creates() {
    let place = Place::new();
    let error = place.refusal(OpenMode::Existing);
    assert!(matches!(error, StoreError::Unavailable { .. }));
    let said = error.to_string();
    assert!(said.contains("portcullis.db") && said.contains("no such file") && said.contains("init"), "{said}");
    assert!(!place.path.parent().unwrap().exists());
}

#[test]
fn what_is_no_store_of_ours_is_refused_and_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.path.parent().unwrap()).unwrap();
    let refused_as_is = |what: &str| {
        let before = std::fs::read(&place.path).unwrap();
        let error = place.refusal(OpenMode::Create);
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error:?}");
        let said = error.to_string();
        assert!(said.contains("store.path") && said.contains("portcullis.db"), "{what}: {said}");
        assert_eq!(std::fs::read(&place.path).unwrap(), before, "{what} is left alone");
    };
    std::fs::write(&place.path, "not a database, and longer than a header would be ".repeat(100)).unwrap();
    refused_as_is("text");
    std::fs::remove_file(&place.path).unwrap();
    place.raw().execute_batch("CREATE TABLE keys (anything)").unwrap();
    refused_as_is("someone else's database");
}

#[test]
fn a_directory_in_its_place_is_named() {
    let place = Place::new();
    std::fs::create_dir_all(&place.path).unwrap();
    let error = place.refusal(OpenMode::Existing);
    assert!(error.to_string().contains("it is not a file"), "{error}");
}

#[test]
fn a_newer_schema_is_refused() {
    let place = Place::new();
    drop(place.open());
    place.raw().execute_batch("INSERT INTO migrations VALUES (98, 'later', 'x', 0), (99, 'later', 'x', 0)").unwrap();
    for mode in [OpenMode::Create, OpenMode::Existing] {
        let error = place.refusal(mode);
        assert!(matches!(error, StoreError::Newer { found: 99, known: 3 }), "{error:?}");
    }
}

#[tokio::test]
async fn a_store_of_the_first_schema_is_brought_up_to_date() {
    let place = Place::new();
    std::fs::create_dir_all(place.path.parent().unwrap()).unwrap();
    let mut raw = place.raw();
    let first = Schema { application_id: KEYS.application_id, migrations: &KEYS.migrations[..1] };
    migrate::migrate(&mut raw, &first).unwrap();
    raw.execute_batch(
        r#"INSERT INTO environments VALUES (1, 'live');
        INSERT INTO profiles VALUES (1, '["read:orders"]', '[]');
        INSERT INTO owners VALUES (1, zeroblob(16), 'ACME', 1, 5, NULL, 1);
        INSERT INTO keys (id, hash, profile, owner, environment, kind, active, created_at, revision, name, prefix, last4,
            created_by) VALUES (zeroblob(16), zeroblob(32), 1, 1, 1, 1, 1, 5, 1, 'old', 'p', 'l', 'local:x');"#,
    )
    .unwrap();
    drop(raw);
    let store = place.open();
    let id = KeyId::from_bytes([0; 16]);
    let record = store.find_key(id).await.unwrap().unwrap();
    assert_eq!((record.name.as_str(), record.lineage, record.paired), ("old", id, false));
    assert!(record.bounds.is_empty() && !record.ends_on_use);
    let owner = store.find_owner(OwnerId::from_bytes([0; 16])).await.unwrap().unwrap();
    assert!(owner.suspended && owner.max_keys.is_none() && owner.may_grant.is_none());
}

#[test]
fn a_migration_that_is_not_ours_is_refused() {
    let place = Place::new();
    drop(place.open());
    place.raw().execute_batch("UPDATE migrations SET checksum = 'other'").unwrap();
    let error = place.refusal(OpenMode::Create);
    assert!(matches!(&error, StoreError::Damaged { found } if found.contains("migration 1")), "{error:?}");
}

#[tokio::test]
async fn broken_pages_are_noticed_when_the_store_opens() {
    let place = Place::new();
    let store = place.open();
    insert(&store, keys(0..2_000)).await;
    drop(store);
    let mut bytes = std::fs::read(&place.path).unwrap();
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 4_096].fill(0x5a);
    std::fs::write(&place.path, bytes).unwrap();
    let error = place.refusal(OpenMode::Create);
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("backup") && said.contains("portcullis.db"), "{said}");
}

#[tokio::test]
async fn a_value_that_no_version_writes_is_damage_and_not_a_grant() {
    let place = Place::new();
    let store = place.open();
    insert(&store, keys([1])).await;
    place.raw().execute_batch(r#"UPDATE profiles SET scopes = '["read orders"]'"#).unwrap();
    let error = store.load_all(&mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { found } if found.contains("scopes")), "{error:?}");
}

#[tokio::test]
async fn many_processes_can_create_it_at_once() {
    let place = Place::new();
    let open = || {
        let path = place.path.clone();
        std::thread::spawn(move || SqliteStore::open(&path, OpenMode::Create, no_key()).map(drop))
    };
    for opened in [open(), open(), open(), open(), open(), open()] {
        opened.join().unwrap().unwrap();
    }
    assert_eq!(place.open().head().await.unwrap().revision, Revision::ZERO);
}

#[tokio::test]
async fn another_process_is_seen_at_the_next_poll() {
    let place = Place::new();
    let (ours, theirs) = (place.open(), place.open());
    let before = ours.head().await.unwrap();
    assert_eq!(ours.head().await.unwrap(), before);
    insert(&theirs, keys([1])).await;
    let after = ours.head().await.unwrap();
    assert_eq!(after, theirs.head().await.unwrap());
    assert_eq!(after.revision, before.revision.next());
    // A commit of our own is seen by the same shortcut.
    insert(&ours, keys([2])).await;
    assert_eq!(ours.head().await.unwrap().revision, after.revision.next());
}

#[tokio::test]
async fn two_processes_write_at_once_and_nothing_is_lost() {
    let place = Place::new();
    let stores = [Arc::new(place.open()), Arc::new(place.open())];
    let writing: Vec<_> = (0..60)
        .map(|n| {
            let store = stores[n as usize % 2].clone();
            tokio::spawn(async move { store.insert_keys(keys([n]), by(), NOW).await.unwrap() })
        })
        .collect();
    for task in writing {
        task.await.unwrap();
    }
    assert_eq!(stores[0].list_keys(KeyQuery::default()).await.unwrap().items.len(), 60);
    let raw = place.raw();
    let count = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let newest = i64::try_from(stores[1].head().await.unwrap().revision.number()).unwrap();
    assert_eq!(count("SELECT count(*) FROM revisions"), newest + 1, "revisions have no gap");
    assert_eq!(count("SELECT count(DISTINCT token) FROM revisions"), newest + 1);
}

fn order(command: Command) -> Order {
    Order::new(command, by(), NOW)
}

fn insertion(numbers: impl IntoIterator<Item = u32>) -> Order {
    order(Command::InsertKeys { records: keys(numbers), origin: Origin::Minted })
}

#[tokio::test]
async fn orders_that_wait_together_share_one_commit_and_a_refused_one_leaves_nothing() {
    let place = Place::new();
    drop(place.open());
    let mut seat = Seat::new(place.path.clone(), Role::Writer);
    let orders = [
        insertion([1, 2]),
        insertion([3, 4, 1]),
        order(Command::Revoke { id: key_id(1) }),
        order(Command::Revoke { id: key_id(1) }),
        order(Command::Revoke { id: key_id(3) }),
        order(Command::SetActive { id: key_id(1), active: false }),
    ];
    let (answers, head) =
        seat.run("testing", |open| transact(open, &orders, RevisionToken(5), &no_key().load())).unwrap();
    let first = Revision::new(1);
    assert_eq!(head, Some(StoreHead { revision: first, token: RevisionToken(5) }));
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.map_err(|error| format!("{error:?}"))).collect();
    let expected = [
        Ok(Effect::Changed(first, 2)),
        Err("Duplicate { index: 2 }".to_owned()),
        Ok(Effect::Changed(first, 1)),
        Ok(Effect::Unchanged(first)),
        Ok(Effect::NotFound),
        Err("Revoked".to_owned()),
    ];
    assert_eq!(answers, expected);
    assert_eq!(place.open().list_keys(KeyQuery::default()).await.unwrap().items.len(), 2);
    let actions: Vec<String> = place.audit_trail().into_iter().map(|(_, _, action, _)| action).collect();
    assert_eq!(actions, ["key.create", "key.create", "key.revoke"]);
}

#[tokio::test]
async fn noting_use_and_revoking_never_wait_for_each_other() {
    let place = Place::new();
    let store = place.open();
    insert(&store, keys([1, 2])).await;
    store.mark_used(vec![(key_id(1), NOW)]).await.unwrap();

    // Each file's write lock is held by someone else in turn.
    let usage = Connection::open(usage_path(&place.path)).unwrap();
    usage.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.revoke(key_id(1), by(), NOW).await.unwrap();
    usage.execute_batch("ROLLBACK").unwrap();

    let main = place.raw();
    main.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.mark_used(vec![(key_id(2), NOW)]).await.unwrap();
    main.execute_batch("ROLLBACK").unwrap();
    let used = store.list_keys(KeyQuery::default()).await.unwrap().items;
    assert_eq!(used.iter().map(|record| record.last_used_at).collect::<Vec<_>>(), [Some(NOW), Some(NOW)]);
}

#[tokio::test]
async fn a_broken_usage_file_is_set_aside() {
    let place = Place::new();
    let store = place.open();
    insert(&store, keys([1])).await;
    let path = usage_path(&place.path);
    std::fs::write(&path, "broken ".repeat(1_000)).unwrap();
    assert_eq!(store.find_key(key_id(1)).await.unwrap().unwrap().last_used_at, None, "records matter more");
    store.mark_used(vec![(key_id(1), NOW)]).await.unwrap();
    assert_eq!(store.find_key(key_id(1)).await.unwrap().unwrap().last_used_at, Some(NOW));
    assert!(std::fs::read_to_string(path.with_extension("db.broken")).unwrap().starts_with("broken"));
}

#[tokio::test]
async fn a_file_that_takes_its_place_is_noticed_as_another_history() {
    let (place, other) = (Place::new(), Place::new());
    let store = place.open();
    insert(&store, keys([1, 2])).await;
    let seen = store.head().await.unwrap();
    let backup = other.open();
    insert(&backup, keys([7])).await;
    drop(backup);

    // The customary way back to a backup: set the files aside, move the other one in.
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("portcullis.db{suffix}");
        let from = place.path.with_file_name(&name);
        std::fs::rename(from, place.directory.path().join(name)).unwrap();
    }
    let gone = store.head().await.unwrap_err();
    assert!(gone.to_string().contains("no such file"), "{gone}");
    std::fs::rename(&other.path, &place.path).unwrap();

    assert_ne!(store.head().await.unwrap(), seen);
    assert!(matches!(store.changes_since(seen).await.unwrap(), Changes::OtherHistory));
    insert(&store, keys([8])).await;
    let ids: Vec<_> = store.list_keys(KeyQuery::default()).await.unwrap().items.iter().map(|key| key.id).collect();
    assert_eq!(ids, [key_id(7), key_id(8)], "writes go to the file that is there");
}

#[tokio::test]
async fn a_full_disk_refuses_a_write_whole_and_passes() {
    let place = Place::new();
    let store = place.open();
    insert(&store, keys([1])).await;
    drop(store);
    // SQLite's own bound on the size of a file stands in for the disk's.
    let bounded = Connection::open(&place.path).unwrap();
    let pages: i64 = bounded.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    bounded.pragma_update(None, "max_page_count", pages).unwrap();
    let seat = Seat::with_connection(place.path.clone(), Role::Writer, bounded);
    let writer = writer::Writer::start(seat, watch::Sender::new(StoreHead::default()), no_key()).unwrap();

    let full = writer.submit(insertion(10..2_000)).await.unwrap_err();
    assert!(matches!(full, StoreError::Unavailable { .. }), "{full:?}");
    assert!(full.to_string().contains("the disk is full"), "{full}");
    let kept = place.open().list_keys(KeyQuery::default()).await.unwrap().items;
    assert_eq!(kept.iter().map(|record| record.id).collect::<Vec<_>>(), [key_id(1)]);
    // The writer opens the file again after trouble, and now there is room.
    writer.submit(insertion(10..2_000)).await.expect("nothing needs a restart");
}

#[tokio::test]
async fn an_order_that_fails_does_not_take_down_those_that_wait_with_it() {
    let place = Place::new();
    drop(place.open());
    let poison = "CREATE TRIGGER poison BEFORE INSERT ON keys WHEN new.name = 'key 2'
                  BEGIN SELECT RAISE(ABORT, 'poisoned'); END";
    place.raw().execute_batch(poison).unwrap();
    let seat = Seat::new(place.path.clone(), Role::Writer);
    let orders = [insertion([1]), insertion([2]), order(Command::Revoke { id: key_id(1) })];
    let committed = watch::Sender::new(StoreHead::default());
    let mut scribe = Scribe { seat, committed: committed.clone(), seal: no_key() };
    let answers = scribe.answer_all(&orders);
    assert!(answers[1].as_ref().unwrap_err().to_string().contains("poisoned"), "{answers:?}");
    let changed = |n: usize, revision| assert_eq!(*answers[n].as_ref().unwrap(), Effect::Changed(revision, 1));
    changed(0, Revision::new(1));
    changed(2, Revision::new(2));
    assert_eq!(committed.borrow().revision, Revision::new(2));
}
