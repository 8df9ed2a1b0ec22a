//! What is said about files that are refused.

use crate::config::samples::{findings, loaded, with, with_routes};

/// Every mistake is named with the place it stands at and a way out.
#[test]
fn a_malformed_file_is_refused_where_and_why() {
    // (file, `line:column path`, part of what is said)
    let table: &[(&str, &str, &str)] = &[
        // Not YAML.
        ("", "1:1", "the file is empty"),
        ("# nothing but a comment\n", "1:1", "the file is empty"),
        ("---\n", "1:1", "the file is empty"),
        ("- a\n", "1:1", "expected a map with fields such as version"),
        ("just words\n", "1:1", "found \"just words\""),
        ("a:\n\t- b\n", "2:1", "a tab cannot indent YAML. Use spaces."),
        ("hosts: [*.example.com]\n", "1:9", "Put it in quotes: \"*.example.com\"."),
        ("hosts: *.example.com\n", "1:8", "makes it a YAML alias"),
        ("r: { path: /v1/{id}, a: b }\n", "1:12", "Put it in quotes: \"/v1/{id}\"."),
        ("methods: { *: {} }\n", "1:12", "Put it in quotes: \"*\"."),
        ("a: @x\n", "1:4", "a value cannot begin with `@`"),
        ("a:b\nc: d\n", "1:2", "Write `a: b`."),
        ("a: b: c\n", "1:4", "Put it in quotes: \"b: c\"."),
        ("routes:\n  - path: /v1/{id}\n   upstream: x\n", "3:4", "the indentation of this line fits nothing"),
        ("a: [1, 2\n", "2:1", "a `[` is not closed"),
        ("a: {b: c\nd: e\n", "2:2", "a `{` is not closed"),
        ("a: \"x\n", "1:4", "this quote is never closed"),
        ("a: &x [*x]\n", "1:8", "makes it a YAML alias"),
        ("a: !!str 1\n", "1:4", "Remove it; a value in quotes is a text."),
        ("version: 1\n---\nversion: 1\n", "2:1", "a second document begins here"),
        ("? [a]\n: b\n", "1:3", "a map or list cannot be a key"),
        ("version: 1\nversion: 1\n", "2:1 version", "`version` stands twice in this map"),
        // Sections and fields.
        (&with("webhooks: {}"), "1:1 webhooks", "there is no section `webhooks`"),
        (&with("lisners: []"), "1:1 lisners", "Did you mean `listeners`?"),
        (&with("logging: { formt: json }"), "1:12 logging.formt", "Did you mean `format`?"),
        (&with("logging: { access: true }"), "1:20 logging.access", "expected a map with fields such as enabled"),
        (&with("limits: { <<: {} }"), "1:11 limits[\"<<\"]", "write the fields out"),
        (
            &with("scopes: { a: { title: Read, and write } }"),
            "1:29 scopes.a[\"and write\"]",
            "put text with commas in quotes",
        ),
        (
            &with("admin:"),
            "1:6 admin",
            "expected a map with fields such as bind, tls, socket, found nothing. Write `{}`",
        ),
        ("listeners: [{ bind: 127.0.0.1:0 }]\n", "1:1", "there is no section `version`"),
        (&with("").replace("version: 1", "version: 2"), "2:10 version", "Write `version: 1`."),
        ("version: 1\n", "1:1", "there is no section `listeners`"),
        // Values.
        (&with("limits: { head_timeout: 10 }"), "1:25 limits.head_timeout", "Write a number and a unit: 250ms"),
        (&with("limits: { head_timeout: 1ms }"), "1:25 limits.head_timeout", "1ms is not between 100ms and 5m"),
        (&with("limits: { head_size: 32KB }"), "1:22 limits.head_size", "write 32KiB"),
        (&with("limits: { head_size: 2k }"), "1:22 limits.head_size", "write 2KiB"),
        (&with("limits: { head_fields: many }"), "1:24 limits.head_fields", "\"many\" is not a whole number"),
        (&with("limits: { head_fields: -1 }"), "1:24 limits.head_fields", "\"-1\" is not a whole number"),
        (&with("limits: { head_size: 1KiB }"), "1:22 limits.head_size", "a target of 8KiB does not fit"),
        (&with("reload: { watch: yes }"), "1:18 reload.watch", "\"yes\" is neither true nor false. Write true."),
        (&with("reload: { watch: \"true\" }"), "1:18 reload.watch", "is neither true nor false. Write true."),
        (&with("workers: 0"), "1:10 workers", "is neither auto nor a number from 1 to 1024"),
        (&with("mode: reprot"), "1:7 mode", "Did you mean `report`?"),
        (&with("report: { until: tomorrow }"), "1:18 report.until", "is not a date"),
        (&with("store: { driver: redis }"), "1:18 store.driver", "is none of `sqlite`, `postgres`, `memory`"),
        (&with("store: { driver: postgres }"), "1:18 store.driver", "needs a `url`"),
        (&with("store: { driver: memory, path: x }"), "1:32 store.path", "a store in memory has no `path`"),
        (&with("admin: { bind: 9901 }"), "1:16 admin.bind", "Write 127.0.0.1:9901 or [::]:9901."),
        (&with("admin: { bind: localhost:9901 }"), "1:16 admin.bind", "is a name, not an address"),
        (&with("admin: { bind: :9901 }"), "1:16 admin.bind", "names no address"),
        (&with("admin: { bind: 127.0.0.1 }"), "1:16 admin.bind", "names no port"),
        (&with("admin: { bind: 127.0.0.1:9902 }"), "1:16 admin.bind", "127.0.0.1:9902 is where `metrics.bind` is"),
        (&with("metrics: { max_routes: 0 }"), "1:24 metrics.max_routes", "0 is not between 1 and 100000"),
        (
            &with("auth: { trusted_proxies: [10.0.0.1/8] }"),
            "1:27 auth.trusted_proxies[0]",
            "Write 10.0.0.0/8 or 10.0.0.1.",
        ),
        (
            &with("auth: { trusted_proxies: 10.0.0.0/8 }"),
            "1:26 auth.trusted_proxies",
            "expected a list, found \"10.0.0.0/8\". Write [\"10.0.0.0/8\"].",
        ),
        (
            &with("auth: { trusted_proxies: [lan] }"),
            "1:27 auth.trusted_proxies[0]",
            "is neither a network nor an address",
        ),
        (&with("auth: { brand: PC }"), "1:16 auth.brand", "cannot begin a key"),
        (&with("auth: { realm: 'a\"b' }"), "1:16 auth.realm", "cannot stand in a challenge"),
        (&with("auth: { accept: [{ query: k }] }"), "1:27 auth.accept[0].query", "on single routes only"),
        (&with("auth: { accept: [{ header: X-Key, cookie: k }] }"), "1:18 auth.accept[0]", "names several places"),
        (&with("auth: { accept: [{}] }"), "1:18 auth.accept[0]", "names no place"),
        (
            &with("auth: { accept: [{ scheme: Bearer }] }"),
            "1:28 auth.accept[0].scheme",
            "only a header field has a scheme",
        ),
        (&with("auth: { accept: [{ header: Authorization }] }"), "1:28 auth.accept[0].header", "Add `scheme: Bearer`."),
        (&with("auth: { accept: [{ header: Cookie }] }"), "1:28 auth.accept[0].header", "Write { cookie: N }"),
        (&with("auth: { accept: [{ header: X Key }] }"), "1:28 auth.accept[0].header", "is no name of a header field"),
        (
            &with("auth: { accept: [{ header: X-K }, { header: x-k, scheme: T }] }"),
            "1:35 auth.accept[1]",
            "with and without a scheme has two readings",
        ),
        (&with("auth: { peppers: [{ id: p }] }"), "1:19 auth.peppers[0]", "`secret` is missing"),
        (
            &with("auth: { peppers: [{ id: p, secret: short }] }"),
            "1:36 auth.peppers[0].secret",
            "is shorter than 16 bytes",
        ),
        (&with("environments: { live: { word: Live } }"), "1:31 environments.live.word", "cannot stand in a key"),
        (
            &with("environments: { staging: { word: live } }"),
            "1:17 environments.staging",
            "its word stands for `live` already",
        ),
        (&with("environments: { eu-west: {} }"), "1:17 environments.eu-west", "Add `word: …`"),
        (&with("environments: { live: { upstream: ap } }"), "1:35 environments.live.upstream", "Did you mean `app`?"),
        (&with("scopes: { orders read: {} }"), "1:11 scopes[\"orders read\"]", "a space separates scopes"),
        (&with("scopes: { portcullis:keys: {} }"), "1:11 scopes.portcullis:keys", "are the gateway's own"),
        (&with("roles: { r: [a*] }"), "1:14 roles.r[0]", "right after `:`"),
        (&with("headers: { identity: { owner: Host } }"), "1:31 headers.identity.owner", "cannot be an identity field"),
        (&with("headers: { untrusted: ['*'] }"), "1:24 headers.untrusted[0]", "would remove every field"),
        (
            &with("tls: { e: { certificates: [{ cert: no.crt, key: no.key }] } }"),
            "1:36 tls.e.certificates[0].cert",
            "there is no file no.crt",
        ),
        (&with("tls: { e: { certificates: [] } }"), "1:27 tls.e.certificates", "there is no certificate"),
        (&with("include: [no.yaml]"), "1:11 include[0]", "no.yaml does not exist"),
        (&with("admin: { socket: \"${NOT_SET}/s\" }"), "1:19 admin.socket", "the variable NOT_SET is not set"),
        (&with("admin: { socket: \"${file:no.txt}\" }"), "1:19 admin.socket", "cannot read no.txt"),
        (&with("admin: { socket: \"a${B\" }"), "1:20 admin.socket", "`${` without `}`"),
        (&with("admin: { socket: \"${9}\" }"), "1:19 admin.socket", "this is no name of a variable"),
        // Listeners and upstreams.
        (
            "version: 1\nlisteners: [{ bind: 1.2.3.4:1 }, { bind: 1.2.3.4:1 }]\n",
            "2:42 listeners[1].bind",
            "1.2.3.4:1 is used twice",
        ),
        (
            "version: 1\nlisteners: [{ bind: 1.2.3.4:1, tls: e }]\n",
            "2:37 listeners[0].tls",
            "there is no entry of `tls` called \"e\"",
        ),
        ("version: 1\nupstreams: { u: {} }\n", "2:14 upstreams.u", "`u` has no target"),
        (
            "upstreams: { u: { targets: [{ url: localhost:9000 }] } }\n",
            "1:36 upstreams.u.targets[0].url",
            "Write http://localhost:9000.",
        ),
        ("upstreams: { u: { targets: [{ url: http://h/api }] } }\n", "1:36 upstreams.u.targets[0].url", "has a path"),
        ("upstreams: { u: { targets: [{ url: http://h:0 }] } }\n", "1:36 upstreams.u.targets[0].url", "has no port"),
        (
            "upstreams: { u: { targets: [{ url: http://h }], protocol: h2 } }\n",
            "1:36 upstreams.u.targets[0].url",
            "h2 is spoken over TLS",
        ),
        (
            "upstreams: { u: { kind: echo, targets: [] } }\n",
            "1:40 upstreams.u.targets",
            "the built-in echo has no targets",
        ),
        (
            "upstreams: { u: { kind: echo, headers: { set: { Host: x } } } }\n",
            "1:49 upstreams.u.headers.set.Host",
            "`host` on the upstream",
        ),
        ("upstreams: { u: { kind: echo, host: a b } }\n", "1:37 upstreams.u.host", "\"a b\" is no host"),
        // Routes.
        (&with_routes("  - path: /a\n    auth: none\n"), "6:5 routes[0]", "`upstream` is missing"),
        (&with_routes("  - path: /a\n    upstream: app\n"), "6:5 routes[0]", "does not say what it demands"),
        (
            &with_routes("  - path: /a\n    upstream: app\n    methods: { GET: {} }\n"),
            "8:16 routes[0].methods.GET",
            "neither `GET` nor its route",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    methods: { GET: }\n"),
            "8:19 routes[0].methods.GET",
            "Write `{}`",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    scopes: []\n"),
            "8:13 routes[0].scopes",
            "no scope is named",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    scopes: { any: [], all: [a] }\n"),
            "8:20 routes[0].scopes.any",
            "names no scope",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    scopes: a b\n"),
            "8:13 routes[0].scopes",
            "Write one entry each: [\"a\", \"b\"].",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    scopes: ['b*']\n"),
            "8:14 routes[0].scopes[0]",
            "one exact name",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    scopes: a\n    auth: none\n"),
            "8:13 routes[0].scopes",
            "contradict each other",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: nobody\n"),
            "8:11 routes[0].auth",
            "is none of `none`, `any_key`",
        ),
        (
            &with_routes("  - path: /a\n    upstream: ap\n    auth: none\n"),
            "7:15 routes[0].upstream",
            "Did you mean `app`?",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    methods: { get: {} }\n"),
            "9:16 routes[0].methods.get",
            "Write GET.",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    methods: { TRACE: {} }\n"),
            "9:16 routes[0].methods.TRACE",
            "always answered with 405",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    methods: {}\n"),
            "9:14 routes[0].methods",
            "no method is named",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    methods: { ALL: {}, '*': {} }\n"),
            "9:25 routes[0].methods.*",
            "what all methods demand",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    environments: [prod]\n"),
            "9:20 routes[0].environments[0]",
            "there is no environment called \"prod\"",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    allow_ips: []\n"),
            "9:16 routes[0].allow_ips",
            "names no networks",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    strip_prefix: /b\n"),
            "9:19 routes[0].strip_prefix",
            "does not begin with \"/b\"",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    add_prefix: /a/../b\n"),
            "9:17 routes[0].add_prefix",
            "is no prefix of a path",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    cors: { origins: [https://a/] }\n"),
            "9:23 routes[0].cors.origins[0]",
            "is no origin",
        ),
        (
            &with_routes("  - path: /a\n    upstream: app\n    auth: none\n    upgrade: [h2c]\n"),
            "9:15 routes[0].upgrade[0]",
            "is none of `websocket`",
        ),
        (
            &with_routes(
                "  - path: /a\n    upstream: app\n    auth: none\n    name: x\n  - path: /b\n    upstream: app\n    auth: none\n    name: x\n",
            ),
            "13:11 routes[1].name",
            "two routes are called `x`",
        ),
        (
            &with_routes("  - { path: v1, upstream: app, auth: none }\n"),
            "6:13 routes[0].path",
            "a path pattern begins with a slash. Write `/v1`.",
        ),
        (
            &with_routes("  - { path: /a/../b, upstream: app, auth: none }\n"),
            "6:16 routes[0].path",
            "dot segments are resolved",
        ),
        (
            &with_routes("  - { path: { id: x }, upstream: app, auth: none }\n"),
            "6:13 routes[0].path",
            "Put a pattern with braces in quotes",
        ),
        (
            &with_routes("  - { path: /a, hosts: [\"https://h.test\"], upstream: app, auth: none }\n"),
            "6:26 routes[0].hosts[0]",
            "a host has no scheme. Write `h.test`.",
        ),
        // Limits.
        (&with("rate_limits: { legacy: true }"), "1:16 rate_limits.legacy", "there is no field `legacy`"),
        (&with("rate_limits: { max_meters: 10 }"), "1:28 rate_limits.max_meters", "is not between 10000 and 100000000"),
        (&with("rate_limits: { quota_flush: 1h }"), "1:29 rate_limits.quota_flush", "is not between 100ms and 1m"),
        (
            &with("rate_limits: { shared: { url: \"redis://:s3cr3t/x@h\" } }"),
            "1:31 rate_limits.shared.url",
            "the password holds a `/`",
        ),
        (
            &with("rate_limits: { shared: { url: redis://localhost, ca: a.pem } }"),
            "1:54 rate_limits.shared.ca",
            "there is no TLS",
        ),
        (&with("rate_limits: { shared: { timeout: 20ms } }"), "1:24 rate_limits.shared", "url"),
        (
            &with("environments: { live: { rate_limit: { requests: 0, per: 1s } } }"),
            "1:49 environments.live.rate_limit.requests",
            "at least 1",
        ),
        (
            &with("environments: { live: { rate_limit: { requests: 5, per: 1s, burst: 0 } } }"),
            "1:68 environments.live.rate_limit.burst",
            "at least 1",
        ),
        (
            &with("environments: { live: { rate_limit: { requests: 5, per: 10ms } } }"),
            "1:57 environments.live.rate_limit.per",
            "`per` is 1s to 1d",
        ),
        (
            &with("environments: { live: { rate_limit: { requests: 2000000, per: 1s } } }"),
            "1:37 environments.live.rate_limit",
            "at most one request in a microsecond",
        ),
        (
            &with("environments: { live: { rate_limit: { requests: 5000000000, per: 24h } } }"),
            "1:49 environments.live.rate_limit.requests",
            "more than a gateway counts",
        ),
        (
            &with("environments: { live: { rate_limit: { requests: 5, per: 1s, by: key } } }"),
            "1:61 environments.live.rate_limit.by",
            "there is no field `by`",
        ),
        (&with("environments: { live: { quota: {} } }"), "1:32 environments.live.quota", "a quota has `per_day`"),
        (
            &with("environments: { live: { quota: { per_day: 5, per_month: 0 } } }"),
            "1:57 environments.live.quota.per_month",
            "each at least 1",
        ),
        (
            &with_routes("  - { path: /a, upstream: app, auth: none, rate_limit: { requests: 5, per: 1s } }\n"),
            "6:56 routes[0].rate_limit",
            "Write `by: address`",
        ),
        (
            &with_routes(
                "  - { path: /a, upstream: app, auth: any_key, methods: { POST: {}, GET: { auth: none } }, rate_limit: { requests: 5, per: 1s, by: owner } }\n",
            ),
            "6:131 routes[0].rate_limit.by",
            "a public rule knows its callers by address only",
        ),
        // Ties.
        (
            &with_routes(
                "  - path: /a\n    upstream: app\n    auth: none\n  - path: /a\n    upstream: app\n    scopes: a\n",
            ),
            "9:5 routes[1]",
            "\"*\" /a is defined twice",
        ),
        (
            &with_routes(
                "  - { path: \"/a/{x}\", upstream: app, methods: { GET: { auth: none } } }\n  - { path: /a/*, upstream: app, methods: { GET: { auth: any_key } } }\n",
            ),
            "7:45 routes[1].methods.GET",
            "GET /a/* matches the same requests as /a/{x}",
        ),
        (
            &with_routes(
                "  - { path: /Orders, upstream: app, auth: none }\n  - { path: /orders, upstream: app, auth: any_key }\n",
            ),
            "7:13 routes[1].path",
            "differ in case only",
        ),
    ];
    assert!(table.len() >= 100);
    let mut misses = Vec::new();
    for (text, at, part) in table {
        let said = findings(text);
        let start = format!("p.yaml:{at}: ");
        let hit = said.iter().any(|line| line.starts_with(&start) && line.contains(part));
        if !hit {
            misses.push(format!("{text}\nexpected `{start}…{part}…`, said:\n{}\n", said.join("\n")));
        }
        assert!(loaded(text).settings.is_none(), "{text}");
    }
    assert!(misses.is_empty(), "{}", misses.join("\n"));
}
