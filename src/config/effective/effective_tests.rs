use std::path::Path;

use super::{REDACTED, changed_settings, effective, effective_text, origins};
use crate::config::{Loaded, load, load_text};

fn loaded(text: &str) -> Loaded {
    load_text(Path::new("p.yaml"), text, &|_| None)
}

const FULL: &str = "\
version: 1
listeners:
  - { bind: 127.0.0.1:0, name: a, proxy_protocol: { from: [10.0.0.0/8] } }
  - { bind: \"unix:/run/x.sock\", redirect_https: true }
upstreams:
  app: { targets: [{ url: \"https://h:1\" }], reads_paths: exact, host: h.test, tls: { server_name: h }, headers: { set: { X-T: canary-one }, remove: [X-R] } }
environments: { live: { max_key_age: 90d, rate_limit: { requests: 5, per: 1m, burst: 9 }, quota: { per_month: 7 } }, staging: { word: stg, upstream: app } }
scopes: { a: { title: A }, b: {} }
roles: { r: [a, \"*\"] }
auth: { catalogue: open, accept: [{ cookie: c }, { header: X-I, secret: X-S }], peppers: [{ id: p1, secret: canary-two-canary-two }], trusted_proxies: [\"::1\"], brand: acme }
mode: report
report: { until: 2100-01-01, known_bad: true }
routes:
  - { path: \"/a/{x}/**\", name: n, hosts: [\"*.h.test\"], upstream: app, scopes: { any: [a, b], all: [b] }, methods: { GET: {}, \"*\": { auth: any_key } }, mode: enforce,
      accept: [{ header: Authorization, scheme: Basic }, { query: q }], path_rules: { encoded_slash: keep, empty_segments: merge, trailing_slash: either, normalize: refuse },
      forward_credential: true, environments: [live], allow_ips: [10.0.0.1], max_staleness: 5m, on_stale: deny, publishable_unsafe_methods: true, rate_limit: { requests: 5, per: 1s, by: owner }, strip_prefix: /a, add_prefix: /z, max_body: 3MiB, upgrade: [],
      cors: { origins: [https://o.test], methods: [GET], headers: [X-H], max_age: 5m }, timeouts: { connect: 1s, idle: 2m }, headers: { set: { X-S: canary-three }, remove: [X-Q] } }
  - { path: /b, group: g, upstream: app, scopes: a }
  - { path: /c, upstream: portcullis, auth: any_key, map: { a: portcullis:keys, b: [portcullis:verify, portcullis:usage] } }
store: { driver: postgres, url: \"postgres://pc:canary-four@db.test/keys?sslmode=verify-ca&sslrootcert=/ca.pem\", pooler: transaction, connections: 20, connect_timeout: 1s, statement_timeout: 1m }
audit: { retention: 30d }
usage: { retention: 10d }
sync: { poll_interval: 1s, on_stale: serve, max_staleness: 48h }
rate_limits: { headers: false, legacy_headers: true, max_meters: 20000, quota_flush: 2s, shared: { url: \"rediss://gate:canary-five@cache.test/2\", ca: /redis.pem, timeout: 50ms, on_outage: refuse, lease: 1s, prefix: \"shop:\" } }
limits: { connections_per_address: 7, memory: 1GiB, min_body_rate: 0B, head_size: 64KiB, failures: { requests: 9, per: 1m, burst: 12 } }
errors: { profile: success }
logging: { format: json, level: debug, access: { enabled: false }, mask_addresses: true }
reload: { watch: true }
shutdown: { delay: 1500ms }
workers: 3
";

#[test]
fn the_effective_file_says_the_same_again() {
    let first = loaded(FULL).settings.expect("loads");
    let text = effective_text(&first);
    // A secret that is left out has to be long enough to be one.
    let again = loaded(&text.replace(REDACTED, "something of sixteen"));
    let second = again.settings.unwrap_or_else(|| panic!("{text}\n{:#?}", again.diagnostics));
    assert_eq!(effective_text(&second), text);
}

#[test]
fn what_differs_is_named_by_its_path() {
    let before = loaded(FULL).settings.expect("loads");
    // (what is replaced, by what, the settings that differ)
    let table: [(&str, &str, &[&str]); 13] = [
        ("version: 1\n", "version: 1\n# the same\n", &[]),
        (
            "requests: 5, per: 1m, burst: 9",
            "requests: 6, per: 1m, burst: 9",
            &["environments.live.rate_limit.requests"],
        ),
        (", quota: { per_month: 7 } }", " }", &["environments.live.quota"]),
        (
            "quota: { per_month: 7 }",
            "quota: { per_day: 7 }",
            &["environments.live.quota.per_day", "environments.live.quota.per_month"],
        ),
        ("accept: [{ cookie: c }, ", "accept: [", &["auth.accept"]),
        ("max_body: 3MiB", "max_body: 4MiB", &["routes[0].max_body"]),
        // What a route takes over is told once, where it stands.
        ("max_staleness: 48h", "max_staleness: 49h", &["sync.max_staleness"]),
        (
            "max_staleness: 5m, on_stale: deny",
            "max_staleness: 6m, on_stale: serve",
            &["routes[0].max_staleness", "routes[0].on_stale"],
        ),
        ("name: n, hosts", "name: m, hosts", &["routes[0].name"]),
        ("headers: { set: { X-S: canary-three }", "headers: { set: { X-S: canary-seven }", &[]),
        // Of routes that are gone or new, and of demands, others tell.
        ("group: g, upstream: app, scopes: a", "group: g, upstream: app, scopes: b", &[]),
        ("  - { path: /b, group: g, upstream: app, scopes: a }\n", "", &[]),
        ("secret: canary-two-canary-two", "secret: canary-six-canary-six", &[]),
    ];
    for (old, new, expected) in table {
        assert_eq!(FULL.matches(old).count(), 1, "{old}");
        let loaded = loaded(&FULL.replace(old, new));
        let after = loaded.settings.unwrap_or_else(|| panic!("{new}\n{:#?}", loaded.diagnostics));
        assert_eq!(changed_settings(&before, &after), expected, "{new}");
        let back = changed_settings(&after, &before);
        assert_eq!(back.len(), expected.len(), "{new}");
    }
}

#[test]
fn routes_of_one_path_are_told_apart_by_their_methods() {
    let split = "  - { path: /s, upstream: app, methods: { GET: { scopes: a } }, max_body: 1MiB }\n  - { path: /s, upstream: app, \
                 methods: { POST: { scopes: a }, PUT: { scopes: b } }, max_body: 9MiB }\nstore:";
    let text = FULL.replace("store:", split);
    let settings = |text: &str| loaded(text).settings.unwrap_or_else(|| panic!("{:#?}", loaded(text).diagnostics));
    let before = settings(&text);
    assert_eq!(changed_settings(&before, &settings(&text)), [""; 0]);
    assert_eq!(changed_settings(&before, &settings(&text.replace("9MiB", "8MiB"))), ["routes[4].max_body"]);
    assert_eq!(changed_settings(&before, &settings(&text.replace("1MiB }", "2MiB }"))), ["routes[3].max_body"]);
    let fewer = text.replace("POST: { scopes: a }, ", "").replace("9MiB", "8MiB");
    assert_eq!(changed_settings(&before, &settings(&fewer)), ["routes[4].max_body"]);
}

#[test]
fn a_route_is_the_same_wherever_it_stands() {
    let moved =
        FULL.replace("routes:\n", "routes:\n  - { path: /first, upstream: app, auth: none }\n").replace("3MiB", "4MiB");
    let (before, after) = (loaded(FULL).settings.expect("loads"), loaded(&moved).settings.expect("loads"));
    assert_eq!(changed_settings(&before, &after), ["routes[1].max_body"]);
}

#[test]
fn secrets_are_left_out() {
    let Loaded { settings, sources, .. } = loaded(FULL);
    let settings = settings.expect("loads");
    let shown = format!("{}{:?}{settings:?}", effective_text(&settings), origins(&settings, &sources));
    assert!(!shown.contains("canary"), "{shown}");
    assert_eq!(effective_text(&settings).matches(REDACTED).count(), 5);
}

#[test]
fn every_value_knows_where_it_came_from() {
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("p.yaml");
    let part = directory.path().join("more.yaml");
    std::fs::write(&main, "version: 1\ninclude: [more.yaml]\nlisteners:\n  - bind: 127.0.0.1:0\nupstreams: { app: { kind: echo } }\nmode: enforce\nauth: { accept: [{ cookie: c }] }\nroutes:\n  - path: /a\n    upstream: app\n    auth: none\n").unwrap();
    std::fs::write(
        &part,
        "routes:\n  - path: /b\n    upstream: app\n    scopes: a\n    methods: { GET: {}, PUT: { scopes: [a, b] } }\n",
    )
    .unwrap();
    let Loaded { settings, sources, .. } = load(&main, &|_| None);
    let settings = settings.expect("loads");
    let all = origins(&settings, &sources);
    let line = |path: &str| {
        let origin = all.iter().find(|origin| origin.path == path).unwrap_or_else(|| panic!("no {path}"));
        origin.source.as_ref().map(|source| (source.file.ends_with("more.yaml"), source.line))
    };
    assert_eq!(line("listeners[0].bind"), Some((false, 4)));
    assert_eq!(line("limits.head_timeout"), None);
    assert_eq!(line("routes[0].path"), Some((false, 9)));
    assert_eq!(line("routes[0].methods.*.auth"), Some((false, 11)));
    assert_eq!(line("routes[0].mode"), Some((false, 6)));
    assert_eq!(line("routes[0].accept[0].cookie"), Some((false, 7)));
    assert_eq!(line("routes[0].upgrade[0]"), None);
    assert_eq!(line("routes[1].path"), Some((true, 2)));
    assert_eq!(line("routes[1].methods.GET.scopes.all[0]"), Some((true, 4)));
    assert_eq!(line("routes[1].methods.PUT.scopes.all[1]"), Some((true, 5)));
    let count = |value: &serde_yaml::Value| serde_yaml::to_string(value).unwrap().lines().count();
    assert!(all.len() > count(&effective(&settings)) / 2, "all values are listed");
}
