//! What the standards say, one module for each document; test names carry the section.

mod rfc6750;
mod rfc9110_auth;
mod rfc9110_intermediaries;
mod rfc9112;
mod rfc9457;

use portcullis_testkit::{Gateway, Origin};

use crate::scene;

/// The shop, as every module here starts.
async fn shop() -> (Gateway, Origin) {
    scene::shop().await
}
