//! The decision over a number of routes and a key set.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis::cache::KeySet;
use portcullis::config;
use portcullis::domain::Timestamp;
use portcullis::gate::{self, Freshness, Outcome, Rules, Snapshot, Verdict};

use crate::Request;

/// What remains of a route's number by two where it demands the scope that every key has.
pub const DEMANDS_READ: u64 = 0;
/// What remains where it demands the scope that few keys have.
pub const DEMANDS_WRITE: u64 = 1;

/// Rules and keys, joined.
pub struct Gate {
    snapshot: Snapshot,
    keys: Arc<KeySet>,
}

impl Gate {
    /// A gate of this many routes: `/v1/r0/**`, `/v1/r1/**` and so on, which demand `read` and `write` in turn.
    pub fn new(routes: u64, keys: &Arc<KeySet>) -> Self {
        let loaded = config::load_text(Path::new("bench.yaml"), &configuration(routes), &|_| None);
        let settings = loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
        let rules = Rules::compile(settings.gate, &["app"]).expect("the routes are in no conflict");
        let snapshot = Snapshot::join(Arc::new(rules), Arc::clone(&keys.directory()), None);
        Self { snapshot, keys: Arc::clone(keys) }
    }

    /// A path of the route with this number.
    pub fn path_of(route: u64) -> String {
        format!("/v1/r{route}/items/42")
    }

    /// The decision, whole: path, route, credential, hash, lookup, scopes.
    #[inline]
    pub fn judge<'a>(&self, request: &'a Request) -> Verdict<'a> {
        // As if the store had just answered; and years after the keys were made, which never age.
        let keys = gate::Keys { set: &self.keys, freshness: Freshness::Confirmed(Duration::ZERO) };
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        gate::judge(&request.head(), &self.snapshot, keys, now).expect("the snapshot knows every profile")
    }

    /// The reason of a refusal, or `allow`: to see that what is measured is what was meant.
    pub fn outcome(&self, request: &Request) -> &'static str {
        match self.judge(request).outcome {
            Outcome::Pass(_) => "allow",
            Outcome::Deny(denial) => denial.reason(),
            Outcome::Report(_) => "report",
            Outcome::Preflight => "preflight",
        }
    }
}

fn configuration(routes: u64) -> String {
    let mut text = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nupstreams: { app: { kind: echo } }\n\
                    scopes: { read: {}, write: {} }\nroutes:\n"
        .to_owned();
    for number in 0..routes {
        let scope = if number % 2 == DEMANDS_READ { "read" } else { "write" };
        text.push_str(&format!("  - {{ path: /v1/r{number}/**, upstream: app, scopes: {scope} }}\n"));
    }
    text.push_str("  - { path: /public, upstream: app, auth: none }\n");
    text
}
