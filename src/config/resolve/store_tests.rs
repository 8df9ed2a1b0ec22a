use std::path::Path;
use std::time::Duration;

use crate::config::{Loaded, load_text};
use crate::store::{Pooler, StoreSettings};

fn load(store: &str) -> Loaded {
    let text = format!(
        "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nupstreams: {{ a: {{ kind: echo }} }}\n\
         routes: [{{ path: /a, upstream: a, auth: any_key }}]\nstore: {store}\n"
    );
    load_text(Path::new("/etc/pc/p.yaml"), &text, &|name| {
        (name == "URL").then(|| "postgres://pc:hunter2hunter2@db.test:1/keys?sslmode=verify-full".to_owned())
    })
}

fn said(store: &str) -> String {
    let loaded = load(store);
    let said = format!("{:?}", loaded.diagnostics);
    assert!(!said.contains("hunter2"), "{said}");
    said
}

#[test]
fn a_url_is_all_that_postgres_needs() {
    let loaded = load("{ driver: postgres, url: \"${URL}\" }");
    assert_eq!(loaded.diagnostics, []);
    let settings = loaded.settings.unwrap();
    let StoreSettings::Postgres(store) = &settings.store else { panic!("{settings:?}") };
    assert_eq!((store.pooler, store.connections), (Pooler::None, 8));
    assert_eq!((store.connect_timeout, store.statement_timeout), (Duration::from_secs(5), Duration::from_secs(30)));
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn what_is_wrong_with_a_url_is_told_and_the_url_is_not() {
    let missing = said("{ driver: postgres }");
    assert!(missing.contains("needs a `url`"), "{missing}");
    let odd = said("{ driver: postgres, url: \"postgres://pc:hunter2hunter2@db.test/keys?sslcert=x\" }");
    assert!(odd.contains("`sslcert` is not supported"), "{odd}");
    assert!(load("{ driver: postgres, url: \"mysql://pc:hunter2@db/keys\" }").settings.is_none());
}

#[test]
fn a_connection_that_others_can_read_is_warned_of() {
    let exposed = said("{ driver: postgres, url: \"postgres://pc:hunter2hunter2@db.test/keys\" }");
    assert!(exposed.contains("Weakened") && exposed.contains("verify-full"), "{exposed}");
    assert_eq!(load("{ driver: postgres, url: \"postgres://pc:hunter2hunter2@[::1]/keys\" }").diagnostics, []);
}

#[test]
fn a_field_of_another_driver_is_refused() {
    for (store, expected) in [
        ("{ driver: memory, path: x }", "a store in memory has no `path`"),
        ("{ connections: 9 }", "a store in a file has no `connections`"),
        ("{ driver: postgres, url: \"${URL}\", path: x }", "a store in PostgreSQL has no `path`"),
        ("{ driver: postgres, url: \"${URL}\", connections: 3 }", "is not between 4 and 200"),
    ] {
        let said = said(store);
        assert!(said.contains(expected), "{store}: {said}");
    }
}

#[test]
fn the_snapshot_lies_beside_the_database_file_unless_it_is_said_otherwise() {
    for (store, snapshot) in [
        ("{ driver: sqlite, path: /var/lib/p/keys.db }", Some("/var/lib/p/snapshot")),
        ("{ driver: sqlite, path: /var/lib/p/keys.db }\nsync: { snapshot: { path: /run/s } }", Some("/run/s")),
        ("{ driver: sqlite }\nsync: { snapshot: { enabled: false } }", None),
        ("{ driver: memory }", None),
    ] {
        let settings = load(store).settings.unwrap();
        assert_eq!(settings.snapshot.as_deref(), snapshot.map(Path::new), "{store}");
    }
    for store in ["{ driver: sqlite }", "{ driver: postgres, url: \"postgres://p:p@localhost/p\" }"] {
        let settings = load(store).settings.unwrap();
        assert!(settings.snapshot.unwrap().ends_with("data/snapshot"), "{store}");
    }
}

#[test]
fn it_is_asked_less_often_where_it_tells_of_changes() {
    let interval = |store: &str, fields: &str| {
        let loaded = load(&format!("{store}\n{fields}"));
        loaded.settings.unwrap().sync.poll_interval
    };
    let (often, seldom) = (Duration::from_millis(100), Duration::from_secs(3));
    assert_eq!(interval("{ driver: sqlite }", ""), often);
    assert_eq!(interval("{ driver: postgres, url: \"${URL}\" }", ""), seldom);
    assert_eq!(interval("{ driver: postgres, url: \"${URL}\", pooler: transaction }", ""), often);
    let asked = "sync: { poll_interval: 20ms }";
    assert_eq!(interval("{ driver: postgres, url: \"${URL}\" }", asked), Duration::from_millis(20));
}
