//! Verbs about the database itself: who is let in, and whether its schema is the one that is known.

use portcullis_testkit::{Database, Origin, Site, postgres_or_left_out};

use super::{prepare, site};
use crate::scene;

async fn closed_shop(database: &Database, url: &str) -> (Site, Origin) {
    let origin = Origin::start().await;
    (prepare(site(url, "", ""), database, &origin), origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let wrong = Database { password: "a-wrong-password".to_owned(), ..database.clone() };
    let (site, _origin) = closed_shop(&wrong, &wrong.url()).await;
    for verb in [&["keys", "list"][..], &["run"], &["migrate", "status"], &["migrate", "up"]] {
        let _ = site.cli(verb).await.exit(4).says(&["password authentication failed", "store.url"]);
    }
    let url = database.url();
    let nowhere = format!("{}/nowhere", url.rsplit_once('/').unwrap().0);
    let (site, _origin) = closed_shop(&database, &nowhere).await;
    let _ = site.cli(&["keys", "list"]).await.exit(4).says(&["nowhere", "CREATE DATABASE"]);
    let (site, _origin) = closed_shop(&database, &format!("{url}?sslmode=verify")).await;
    let _ = site.cli(&["check"]).await.exit(3).says(&["store.url", "sslmode"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_shown_and_brought_up_to_date() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let (site, _origin) = closed_shop(&database, &database.url()).await;
    let status = async || site.cli(&["migrate", "status", "--output", "json"]).await.success().json();
    assert!(status().await.as_array().unwrap().iter().all(|step| step["applied_at"].is_null()));
    // Verbs that only look make nothing.
    let _ = site.cli(&["audit", "list"]).await.exit(4).says(&["no tables yet", "portcullis migrate up"]);
    let _ = site.cli(&["migrate", "up"]).await.success().says(&["4 steps taken"]);
    let _ = site.cli(&["migrate", "up"]).await.success().says(&["nothing to do"]);
    assert!(status().await.as_array().unwrap().iter().all(|step| step["applied_at"].is_string()));
    let key = site.create_key("kept", "").await;

    // As a portcullis of before the last step left it.
    for undo in ["DROP TABLE portcullis.writers", "DELETE FROM portcullis.migrations WHERE version = 4"] {
        server.sql(&database.name, undo);
    }
    for verb in [&["run"][..], &["keys", "list"]] {
        let _ = site.cli(verb).await.exit(4).says(&["schema 3", "needs 4", "portcullis migrate up"]);
    }
    let _ = site.cli(&["migrate", "up"]).await.success().says(&["1 step taken"]);
    assert_eq!(site.show_key(&key.id).await["name"], "kept");

    server.sql(&database.name, "INSERT INTO portcullis.migrations VALUES (5, 'later', 'x', 0)");
    for verb in [&["run"][..], &["keys", "list"], &["migrate", "up"]] {
        let _ = site.cli(verb).await.exit(4).says(&["schema 5", "install a newer portcullis"]);
    }
    let _ = site.cli(&["migrate", "status"]).await.success().says(&["newer portcullis"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_stores_have_a_schema_too_or_none() {
    let (site, _origin) = scene::closed_shop().await;
    let _ = site.cli(&["migrate", "status"]).await.success().says(&["keys", "missing"]);
    assert!(!site.path("data/portcullis.db").exists(), "looking makes no file");
    let _ = site.cli(&["migrate", "up"]).await.success().says(&["3 steps taken"]);
    let _ = site.cli(&["migrate", "up"]).await.success().says(&["nothing to do"]);
    let _ = site.cli(&["keys", "list"]).await.success();
    let memory =
        scene::site(&scene::shop_config("", "store: { driver: memory }")).fill("shop", "127.0.0.1:1").prepare();
    let _ = memory.cli(&["migrate", "up"]).await.exit(2).says(&["memory"]);
}
