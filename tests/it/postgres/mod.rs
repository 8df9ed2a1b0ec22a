//! Gateways on a PostgreSQL database: what they share, and what happens when it is away.

mod absence;
mod backup;
mod crash;
mod fleet;
mod load;
mod outage;
mod pooler;
mod revocation;
mod rolling;
mod verbs;

use portcullis_testkit::{Database, Gateway, Key, KeySpec, Origin, PostgresServer, Site, SiteBuilder};

use crate::scene;

/// The variable that configurations take the URL from.
const URL: &str = "PORTCULLIS_STORE_URL";

/// The shop's configuration on a database, with more fields of `store` and more sections.
fn config(fields: &str, sections: &str) -> String {
    let store = format!("store: {{ driver: postgres, url: \"${{{URL}}}\"{fields} }}");
    scene::shop_config("", &format!("{store}\n{sections}"))
}

/// The shop on a database before anything runs; its password is looked for wherever keys are.
fn prepare(builder: SiteBuilder, database: &Database, origin: &Origin) -> Site {
    let site = builder.upstream("shop", origin).prepare();
    site.vault().keep(&database.password);
    site
}

/// The shop on a database.
fn site(url: &str, fields: &str, sections: &str) -> SiteBuilder {
    scene::site(&config(fields, sections)).env(URL, url)
}

/// The running shop on a database.
async fn shop(database: &Database, sections: &str) -> (Gateway, Origin) {
    let origin = Origin::start().await;
    let gateway = prepare(site(&database.url(), "", sections), database, &origin).start().await;
    (gateway, origin)
}

/// Revokes a key as whoever writes to the database may: without a word to any gateway.
fn revoke_by_sql(server: &PostgresServer, database: &Database, key: &Key) {
    let uuid = key.id.rsplit_once('_').unwrap().1;
    let revoke = format!(
        "UPDATE portcullis.head SET revision = revision + 1, token = 42; \
         INSERT INTO portcullis.revisions SELECT revision, token, 0 FROM portcullis.head; \
         UPDATE portcullis.keys SET revoked_at = 1, revision = (SELECT revision FROM portcullis.head) WHERE id = '{uuid}'"
    );
    let _ = server.sql(&database.name, &revoke);
}

/// A key that may manage keys.
async fn operator(gateway: &Gateway) -> Key {
    gateway.key_of(KeySpec::new("operator", "portcullis:keys").kind("management").option("--may-grant", "*")).await
}
