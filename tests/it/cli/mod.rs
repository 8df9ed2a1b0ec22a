//! The command line: what each verb prints, changes, and ends with.

mod audit;
mod backup;
mod explain;
mod import;
mod keys;
mod remote;
mod verbs;

use portcullis_testkit::{Origin, Site};

use crate::scene;

/// One pepper, a secret.
const PEPPER: &str = "auth: { peppers: [{ id: one, secret: \"pepper-one-of-thirty-two-letters\" }] }";

/// Another secret under the same name.
const OTHER_PEPPER: &str = "auth: { peppers: [{ id: one, secret: \"pepper-two-of-thirty-two-letters\" }] }";

/// The shop before anything runs, with these sections; peppers are secrets.
async fn closed(sections: &str) -> (Site, Origin) {
    let origin = Origin::start().await;
    let site = scene::site(&scene::shop_config("", sections)).upstream("shop", &origin).prepare();
    site.vault().keep("pepper-one-of-thirty-two-letters");
    site.vault().keep("pepper-two-of-thirty-two-letters");
    (site, origin)
}
