//! Gateways on a PostgreSQL database: what they share, and what happens when it is away.

mod fleet;
mod outage;
mod pooler;
mod revocation;
mod rolling;
mod verbs;

use portcullis_testkit::{Database, Gateway, Key, KeySpec, Origin, Site, SiteBuilder};

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

/// A key that may manage keys.
async fn operator(gateway: &Gateway) -> Key {
    gateway.key_of(KeySpec::new("operator", "portcullis:keys").kind("management").option("--may-grant", "*")).await
}
