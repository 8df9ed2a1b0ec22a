//! What holds for this store alone: several processes, servers that go away, and who is believed.

use std::time::Duration;

use portcullis_testkit::{Database, TestCa, own_postgres_or_left_out, postgres_or_left_out};

use super::{Session, Source};
use crate::domain::{QuotaHolder, QuotaPeriod, QuotaTerm, Revision, StoreHead};
use crate::store::fixtures::{NOW, Place, by, key_id, keys, postgres_settings};
use crate::store::{
    AdditionId, AuditQuery, AuditSeal, Breach, Changes, EventKind, EventQuery, KeyQuery, NewEvent, OpenMode, Passage,
    Pooler, Store, StoreError, StoreSettings, UsageCount, UsageEvent, UsageNotes, UsageQuery, migrate, migrations,
    open,
};

/// Does something over a connection of its own to the database of a place, whatever is in it.
pub(super) async fn in_session(place: &Place, job: impl AsyncFnOnce(&mut Session)) {
    let StoreSettings::Postgres(settings) = &place.settings else { panic!("{:?}", place.settings) };
    let mut session = Source::new(settings).unwrap().connect_unchecked().await.unwrap();
    job(&mut session).await;
}

async fn head(store: &Store) -> StoreHead {
    store.feed().head().await.unwrap()
}

async fn insert(store: &Store, number: u32) -> Result<Revision, StoreError> {
    store.writer().insert_keys(keys([number]), by(), NOW).await
}

fn try_open(url: &str) -> Result<std::sync::Arc<Store>, StoreError> {
    open(&postgres_settings(url, Pooler::None), OpenMode::Create, AuditSeal::default())
}

fn refusal(url: &str) -> String {
    let told = try_open(url).map(drop).expect_err(url);
    assert!(told.is_trouble(), "{told:?}");
    let everything = format!("{told} {told:?}");
    assert!(!everything.contains("password-of"), "{everything}");
    told.to_string()
}

#[tokio::test]
async fn a_commit_of_another_process_is_heard_of_at_once() {
    let Some(place) = Place::postgres() else { return };
    let (one, other) = (place.open(), place.open());
    let seen = head(&one).await;
    // Nobody listens before somebody waits; until then the poll finds it.
    one.feed().wait_for_change(seen, Duration::from_millis(1)).await.unwrap();
    let mut last = seen;
    for number in 0..50 {
        insert(&other, number).await.unwrap();
        let heard = one.feed().wait_for_change(last, Duration::from_secs(60));
        let is_heard = tokio::time::timeout(Duration::from_millis(300), heard).await.is_ok();
        last = head(&one).await;
        if is_heard && number > 0 {
            return;
        }
    }
    panic!("nothing was heard of 50 commits");
}

#[tokio::test]
async fn processes_that_start_at_the_same_moment_make_the_tables_once() {
    let Some(place) = Place::postgres() else { return };
    let settings = place.settings.clone();
    let opened: Vec<_> = (0..4)
        .map(|_| {
            let settings = settings.clone();
            std::thread::spawn(move || open(&settings, OpenMode::Create, AuditSeal::default()).map(drop))
        })
        .collect();
    for opened in opened {
        opened.join().unwrap().unwrap();
    }
    assert_eq!(head(&place.open()).await.revision, Revision::ZERO);
}

#[tokio::test]
async fn verbs_that_only_look_make_no_tables() {
    let Some(place) = Place::postgres() else { return };
    let looked = open(&place.settings, OpenMode::Existing, AuditSeal::default()).map(drop);
    let told = looked.unwrap_err().to_string();
    assert!(told.contains("no tables yet") && told.contains("portcullis migrate up"), "{told}");
    assert!(migrations(&place.settings).unwrap().iter().all(|step| step.applied_at.is_none()));
    assert_eq!(migrate(&place.settings).unwrap(), super::migrate::STEPS.len());
    assert_eq!(migrate(&place.settings).unwrap(), 0);
    assert!(migrations(&place.settings).unwrap().iter().all(|step| step.applied_at.is_some()));
    open(&place.settings, OpenMode::Existing, AuditSeal::default()).unwrap();
}

#[tokio::test]
async fn an_older_or_newer_schema_is_refused_also_by_who_has_it_open() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open();
    insert(&store, 1).await.unwrap();
    let newest = u32::try_from(super::migrate::STEPS.len()).unwrap();
    in_session(&place, async |session| {
        let next = newest + 1;
        let note = format!("INSERT INTO portcullis.migrations VALUES ({next}, 'later', 'x', 0)");
        session.run(&note).await.unwrap();
    })
    .await;
    let told = insert(&store, 2).await.unwrap_err();
    assert!(matches!(told, StoreError::Newer { found, known } if found == newest + 1 && known == newest), "{told:?}");
    let told = open(&place.settings, OpenMode::Create, AuditSeal::default()).map(drop).unwrap_err();
    assert!(matches!(told, StoreError::Newer { .. }), "{told:?}");
    assert!(matches!(migrate(&place.settings), Err(StoreError::Newer { .. })));

    in_session(&place, async |session| {
        session.run(&format!("DELETE FROM portcullis.migrations WHERE version >= {newest}")).await.unwrap();
    })
    .await;
    let told = open(&place.settings, OpenMode::Create, AuditSeal::default()).map(drop).unwrap_err();
    assert!(matches!(told, StoreError::Older { .. }), "{told:?}");
    assert!(told.to_string().contains("portcullis migrate up"), "{told}");
}

#[tokio::test]
async fn who_runs_on_while_the_schema_is_brought_up_to_date_hears_of_revocations() {
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    let database = server.database();
    let store = try_open(&database.url()).unwrap();
    insert(&store, 1).await.unwrap();
    let newest = super::migrate::STEPS.len() + 1;
    server.sql(&database.name, &format!("INSERT INTO portcullis.migrations VALUES ({newest}, 'later', 'x', 0)"));
    // Every connection ends: what follows is said over new ones.
    server.stop();
    server.launch().unwrap();
    let before = head(&store).await;
    server.sql(
        &database.name,
        "UPDATE portcullis.head SET revision = revision + 1, token = 5; \
         INSERT INTO portcullis.revisions (revision, token, at) SELECT revision, token, 0 FROM portcullis.head; \
         UPDATE portcullis.keys SET revoked_at = 1, revision = (SELECT revision FROM portcullis.head)",
    );
    let Changes::Since { keys, .. } = store.feed().changes_since(before).await.unwrap() else { panic!() };
    assert!(keys.len() == 1 && keys[0].is_off());
    assert!(store.reader().find_key(key_id(1)).await.unwrap().is_some());
    let told = insert(&store, 2).await.unwrap_err();
    assert!(matches!(told, StoreError::Newer { .. }), "{told:?}");
}

#[tokio::test]
async fn what_keeps_it_from_being_reached_is_told_with_a_way_to_mend_it() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let wrong = Database { password: "password-of-nobody".to_owned(), ..database.clone() };
    let told = refusal(&wrong.url());
    assert!(told.contains("password authentication failed") && told.contains("store.url"), "{told}");
    let url = database.url();
    let told = refusal(&format!("{}/nowhere", url.rsplit_once('/').unwrap().0));
    assert!(told.contains("\"nowhere\" does not exist") && told.contains("CREATE DATABASE"), "{told}");
    let told = refusal(&database.url_at("127.0.0.1:1"));
    assert!(told.contains("127.0.0.1:1") && told.contains("refused"), "{told}");
    let told = refusal(&(database.url() + "?sslmode=require"));
    assert!(told.contains("TLS"), "{told}");
    server.sql(&database.name, "CREATE SCHEMA portcullis AUTHORIZATION postgres");
    let told = refusal(&database.url());
    assert!(told.contains("permission denied") && told.contains("docs/postgresql.md"), "{told}");
    server.recycle(database);
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_used_again() {
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    let database = server.database();
    let store = try_open(&database.url()).unwrap();
    insert(&store, 1).await.unwrap();
    let before = head(&store).await;
    server.stop();
    let told = insert(&store, 2).await.unwrap_err();
    assert!(matches!(told, StoreError::Unavailable { .. }) && !told.to_string().contains("password-of"), "{told:?}");
    assert!(store.feed().head().await.is_err());
    server.launch().unwrap();
    assert_eq!(head(&store).await, before);
    insert(&store, 2).await.unwrap();
    // A connection that died unseen: the next one is made for the same job.
    server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
    for number in 3..6 {
        insert(&store, number).await.unwrap();
    }
    assert_eq!(store.reader().list_keys(KeyQuery::default()).await.unwrap().items.len(), 5);
}

#[tokio::test]
async fn nothing_that_another_role_of_the_database_made_is_called() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    // Fits better than the operator of the system itself, which is for two bigints.
    server.sql(
        &database.name,
        "CREATE FUNCTION public.trap(bigint, integer) RETURNS bigint LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'trapped'; END $$; \
         CREATE OPERATOR public.% (FUNCTION = public.trap, LEFTARG = bigint, RIGHTARG = integer)",
    );
    for pooler in [Pooler::None, Pooler::Transaction] {
        let StoreSettings::Postgres(settings) = postgres_settings(&database.url(), pooler) else { panic!() };
        let mut session = Source::new(&settings).unwrap().connect_unchecked().await.unwrap();
        let rows = session.rows_once("SELECT 7::bigint % 4::integer").await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 3, "{pooler:?}");
        session.begin().await.unwrap();
        let rows = session.rows_once("SELECT 7::bigint % 4::integer").await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 3, "{pooler:?}");
        session.commit().await.unwrap();
    }
    server.recycle(database);
}

#[tokio::test]
async fn behind_a_pooler_every_statement_has_its_bounds() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let StoreSettings::Postgres(settings) = postgres_settings(&database.url(), Pooler::Transaction) else { panic!() };
    let mut session = Source::new(&settings).unwrap().connect_unchecked().await.unwrap();
    let shown =
        session.rows_once("SELECT current_setting('lock_timeout'), current_setting('search_path')").await.unwrap();
    assert_eq!(shown[0].get::<_, String>(0), "30s");
    assert_eq!(shown[0].get::<_, String>(1), "pg_catalog");
    // An error ends its transaction: the next statement finds none.
    session.rows_once("SELECT 1 FROM portcullis.nothing").await.unwrap_err();
    assert_eq!(session.rows_once("SELECT 1").await.unwrap().len(), 1);
    server.recycle(database);
}

#[tokio::test]
async fn a_server_that_says_nothing_hides_none_of_the_others() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", silent.local_addr().unwrap().port(), server.port());
    let store = try_open(&database.url_at(&hosts)).unwrap();
    insert(&store, 1).await.unwrap();
    drop(store);
    server.recycle(database);
}

#[tokio::test]
async fn a_server_that_turned_read_only_is_not_stayed_at() {
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    let database = server.database();
    let store = try_open(&database.url()).unwrap();
    insert(&store, 1).await.unwrap();
    let turn = |change: &str| {
        server.sql("postgres", change);
        server.sql("postgres", "SELECT pg_reload_conf()");
    };
    turn("ALTER SYSTEM SET default_transaction_read_only = on");
    let told = async || insert(&store, 2).await.err().map(|error| error.to_string());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let told = loop {
        match told().await {
            Some(told) => break told,
            None => assert!(tokio::time::Instant::now() < deadline, "it still takes writes"),
        }
        store.writer().revoke(key_id(2), by(), NOW).await.ok();
    };
    assert!(told.contains("read only") || told.contains("read-only"), "{told}");
    // Nothing is asked of it any more, not by connections that were open either.
    let told = insert(&store, 3).await.unwrap_err().to_string();
    assert!(told.contains("read-only") || told.contains("read only"), "{told}");
    turn("ALTER SYSTEM RESET default_transaction_read_only");
    while insert(&store, 4).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline + Duration::from_secs(20), "it is not used again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_answers_is_believed_as_far_as_sslmode_says() {
    let (ca, stranger) = (TestCa::new("PostgreSQL"), TestCa::new("stranger"));
    let identity = ca.server(&["db.test"]);
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    server.give("data/server.crt", &identity.cert);
    server.give("data/server.key", &identity.key);
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    server.stop();
    server.launch().unwrap();
    let database = server.database();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (ours, theirs) = (file("ours.pem", ca.pem()), file("theirs.pem", stranger.pem()));
    let url = |words: String| format!("{}?{words}", database.url());
    for words in
        ["sslmode=require".to_owned(), "sslmode=prefer".to_owned(), format!("sslmode=verify-ca&sslrootcert={ours}")]
    {
        let store = try_open(&url(words.clone())).unwrap_or_else(|told| panic!("{words}: {told}"));
        assert_eq!(head(&store).await.revision, Revision::ZERO, "{words}");
        assert_eq!(server.sql("postgres", "SELECT count(*) > 0 FROM pg_stat_ssl WHERE ssl"), "t", "{words}");
    }
    for words in [
        format!("sslmode=verify-ca&sslrootcert={theirs}"),
        format!("sslmode=verify-full&sslrootcert={theirs}"),
        format!("sslmode=verify-full&sslrootcert={ours}"),
        "sslmode=verify-full".to_owned(),
        format!("sslmode=verify-full&sslrootcert={ours}.missing"),
    ] {
        refusal(&url(words));
    }
}

#[tokio::test]
async fn a_changed_entry_of_the_trail_is_found() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open();
    for number in 1..4 {
        insert(&store, number).await.unwrap();
    }
    for (change, entry, breach) in [
        ("UPDATE portcullis.audit SET actor = 'nobody' WHERE entry = 2", 2, Breach::Changed),
        ("DELETE FROM portcullis.audit WHERE entry = 2", 2, Breach::Missing { through: 2 }),
    ] {
        in_session(&place, async |session| session.run(change).await.unwrap()).await;
        let found = store.audit().verify_audit(None).await.unwrap();
        assert_eq!(found.breach, Some((entry, breach)), "{change}");
    }
}

#[tokio::test]
async fn a_text_that_no_row_can_hold_finds_nothing() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open();
    insert(&store, 1).await.unwrap();
    let nul = || Some("a\0".to_owned());
    let found = store.reader().list_keys(KeyQuery { name: nul(), ..KeyQuery::default() }).await.unwrap();
    assert_eq!(found.items, []);
    let found = store.audit().list_audit(AuditQuery { actor: nul(), ..AuditQuery::default() }).await.unwrap();
    assert_eq!(found.items, []);
}

#[tokio::test]
async fn dropping_the_store_finishes_what_was_begun() {
    let Some(place) = Place::postgres() else { return };
    let store = place.open();
    let mut write = store.writer().insert_keys(keys(0..2_000), by(), NOW);
    // Begun, and nobody waits for its end.
    assert!(tokio::time::timeout(Duration::ZERO, &mut write).await.is_err());
    drop(write);
    drop(store);
    assert!(place.open().reader().find_key(key_id(1_999)).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_brought_again_under_the_same_id_is_added_once() {
    let Some(place) = Place::postgres() else { return };
    let (store, neighbour) = (place.open(), place.open());
    let (mut id, others) = (AdditionId::first(), AdditionId::first());
    let term = QuotaTerm { holder: QuotaHolder::Key(key_id(1)), period: QuotaPeriod::Day, begins: NOW };
    for (id, total) in [(id, 3), (id, 3), (others, 6), (id, 6), (id.next(), 9), (id, 9), (id.next(), 9)] {
        assert_eq!(store.quotas().count_requests(id, vec![(term, 3)]).await.unwrap(), [(term, total)], "{id:?}");
        // Over another connection, as after a failover.
        assert_eq!(neighbour.quotas().count_requests(id, vec![(term, 3)]).await.unwrap(), [(term, total)], "{id:?}");
    }
    let count = UsageCount {
        key: key_id(1),
        rule: "GET /a".into(),
        status: 200,
        passage: Passage::Allowed,
        at: NOW,
        requests: 5,
    };
    id = AdditionId::first();
    for (id, total) in [(id, 5), (id, 5), (id.next(), 10), (id.next(), 10)] {
        let notes = UsageNotes { id, counts: vec![count.clone()], ..UsageNotes::default() };
        store.usage().note_usage(notes).await.unwrap();
        let query = UsageQuery { key: key_id(1), since: NOW, until: NOW.plus(Duration::from_secs(1)), limit: 10 };
        let known = store.usage().key_usage(query).await.unwrap();
        assert_eq!(known.totals, [(Passage::Allowed, 200, total)], "{id:?}");
    }
    let event = UsageEvent {
        kind: EventKind::NewNetwork,
        key: Some(key_id(1)),
        address: None,
        at: NOW,
        detail: "first use from 10.0.0.0/24".to_owned(),
    };
    let event = NewEvent { event, apart: Duration::ZERO };
    id = AdditionId::first();
    for (id, listed) in [(id, 1), (id, 1), (id.next(), 2)] {
        assert_eq!(store.usage().note_events(id, vec![event.clone()]).await.unwrap(), [true]);
        let query = EventQuery { key: None, limit: 10 };
        assert_eq!(store.usage().list_events(query).await.unwrap().len(), listed, "{id:?}");
    }
}
