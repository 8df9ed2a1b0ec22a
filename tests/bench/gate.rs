//! The decision over a number of routes and a key set.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis::cache::KeySet;
use portcullis::config;
use portcullis::domain::{KeyId, RateLimit, Timestamp, time};
use portcullis::gate::{self, Decided, Freshness, Outcome, Rules, Snapshot, Verdict};
use portcullis::limit::{Charge, Gcra, Meters, Moment, Policy, RuleId, Subject};

use crate::Request;

/// What remains of a route's number by two where it demands the scope that every key has.
pub const DEMANDS_READ: u64 = 0;
/// What remains where it demands the scope that few keys have.
pub const DEMANDS_WRITE: u64 = 1;

/// What limits the requests of each key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limited {
    /// Nothing.
    Free,
    /// A rate of its own.
    ByRate,
    /// A rate and quotas of the day and the month of its own, and a rate on each route.
    ByAll,
}

/// Rules and keys, joined, and the meters that requests take from.
pub struct Gate {
    snapshot: Snapshot,
    keys: Arc<KeySet>,
    meters: Meters,
    now: Moment,
}

/// Years after the keys were made, which never age.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

impl Gate {
    /// A gate of this many routes: `/v1/r0/**`, `/v1/r1/**` and so on, which demand `read` and `write` in turn.
    pub fn new(routes: u64, keys: &Arc<KeySet>) -> Self {
        Self::limited(Limited::Free, routes, keys)
    }

    /// The same, with limits that no request ever runs into.
    pub fn limited(limited: Limited, routes: u64, keys: &Arc<KeySet>) -> Self {
        let text = configuration(limited, routes);
        let loaded = config::load_text(Path::new("bench.yaml"), &text, &|_| None);
        let settings = loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
        let rules = Rules::compile(settings.gate, &["app"]).expect("the routes are in no conflict");
        let snapshot = Snapshot::join(Arc::new(rules), Arc::clone(&keys.directory()), None);
        let started = time::monotonic_now();
        let now = Moment { monotonic: started, wall: NOW };
        Self { snapshot, keys: Arc::clone(keys), meters: Meters::new(10_000_000, started), now }
    }

    /// A path of the route with this number.
    pub fn path_of(route: u64) -> String {
        format!("/v1/r{route}/items/42")
    }

    /// The decision, whole: path, route, credential, hash, lookup, scopes.
    #[inline]
    pub fn judge<'a>(&self, request: &'a Request) -> Verdict<'a> {
        // As if the store had just answered.
        let keys = gate::Keys { set: &self.keys, freshness: Freshness::Confirmed(Duration::ZERO) };
        gate::judge(&request.head(), &self.snapshot, keys, NOW).expect("the snapshot knows every profile")
    }

    /// The decision, and what it takes from meters.
    #[inline]
    pub fn admit(&self, request: &Request) -> Decided {
        let mut verdict = self.judge(request);
        gate::admit(&mut verdict, &self.snapshot, &self.keys, request.head().client, &self.meters, self.now)
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

/// A rate for each key, and nothing else.
pub struct KeyMeters {
    meters: Meters,
    charges: Vec<[Charge; 1]>,
    now: Moment,
}

impl KeyMeters {
    /// Full meters of so many keys.
    pub fn new(keys: u64) -> Self {
        let limit = RateLimit::new(1_000_000, Duration::from_secs(1), Some(u32::MAX)).expect("it is a limit");
        let charge = |key: u64| {
            let subject = Subject::Key(KeyId::from_bytes(u128::from(key).to_be_bytes()));
            [Charge::Rate(Policy::Key, subject, RuleId::OWN, Gcra::new(limit))]
        };
        let started = time::monotonic_now();
        Self {
            meters: Meters::new(10_000_000, started),
            charges: (0..keys).map(charge).collect(),
            now: Moment { monotonic: started, wall: NOW },
        }
    }

    /// How many keys there are.
    pub const fn len(&self) -> u64 {
        self.charges.len() as u64
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.charges.is_empty()
    }

    /// Takes a request of one of them; whether it is let through.
    #[inline]
    pub fn take(&self, key: u64) -> bool {
        self.meters.take(&self.charges[key as usize], self.now).is_ok()
    }
}

fn configuration(limited: Limited, routes: u64) -> String {
    let rate = "{ requests: 1000000, per: 1s, burst: 4000000000 }";
    let (of_keys, of_routes) = match limited {
        Limited::Free => (String::new(), String::new()),
        Limited::ByRate => (format!("rate_limit: {rate}"), String::new()),
        Limited::ByAll => {
            let quota = "{ per_day: 1000000000000, per_month: 1000000000000 }";
            (format!("rate_limit: {rate}, quota: {quota}"), format!(", rate_limit: {rate}"))
        }
    };
    let mut text = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nupstreams: { app: { kind: echo } }\n\
                    scopes: { read: {}, write: {} }\nroutes:\n"
        .to_owned();
    for number in 0..routes {
        let scope = if number % 2 == DEMANDS_READ { "read" } else { "write" };
        text.push_str(&format!("  - {{ path: /v1/r{number}/**, upstream: app, scopes: {scope}{of_routes} }}\n"));
    }
    text.push_str("  - { path: /public, upstream: app, auth: none }\n");
    text.push_str(&format!("environments: {{ live: {{ {of_keys} }} }}\n"));
    text
}
