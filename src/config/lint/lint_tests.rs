use crate::config::samples::{findings, loaded, with, with_routes};
use crate::config::{Code, Severity};

#[test]
fn lints_warn_and_do_not_refuse() {
    // (file, code, `line:column path`, part of what is said)
    let two = |first: &str, second: &str| with_routes(&format!("  - {first}\n  - {second}\n"));
    let table: Vec<(String, Code, &str, &str)> = vec![
        (
            with_routes("  - { path: /a, upstream: app, scopes: [a, b, read:order] }\n"),
            Code::UndeclaredScope,
            "6:47 routes[0].scopes[2]",
            "Add `read:order: { title: … }`",
        ),
        (
            with_routes("  - { path: /a, upstream: app, scopes: a }\n"),
            Code::UnusedScope,
            "4:18 scopes.b",
            "no route asks for the scope `b`",
        ),
        (
            with_routes("  - { path: /a, upstream: app, scopes: [a, b], methods: { GETT: {}, PUT: {} } }\n"),
            Code::OddMethod,
            "6:59 routes[0].methods.GETT",
            "Did you mean `GET`?",
        ),
        (with("roles: { r: [orders:*] }"), Code::IdleRole, "1:14 roles.r[0]", "covers no scope"),
        (
            with_routes("  - { path: /a, upstream: app, scopes: [a, b], upgrade: [websocket] }\n")
                .replace("app: { kind: echo }", "app: { targets: [{ url: \"http://127.0.0.1:1\" }], protocol: h2c }"),
            Code::Mismatch,
            "6:57 routes[0].upgrade",
            "no connection is upgraded",
        ),
        (
            with("workers: 4").replace(
                "app: { kind: echo }",
                "app: { targets: [{ url: \"http://127.0.0.1:1\" }], protocol: h2c, max_connections: 3 }",
            ),
            Code::Mismatch,
            "4:95 upstreams.app.max_connections",
            "there are 4 workers",
        ),
        (with("mode: report"), Code::ReportMode, "1:7 mode", "let through"),
        (
            with("mode: report\nreport: { until: 2001-01-01 }"),
            Code::ReportMode,
            "2:18 report.until",
            "report mode ended at 2001-01-01",
        ),
        (with("report: { known_bad: true }"), Code::Weakened, "1:22 report.known_bad", "revoked"),
        (with("sync: { on_stale: serve }"), Code::Weakened, "1:19 sync.on_stale", "revoked"),
        (with("admin: { bind: \"0.0.0.0:9901\" }"), Code::Weakened, "1:16 admin.bind", "admin.tls"),
        (with("auth: { browser_guard: false }"), Code::Weakened, "1:24 auth.browser_guard", "web pages"),
        (with("auth: { trusted_proxies: [0.0.0.0/0] }"), Code::Weakened, "1:27 auth.trusted_proxies[0]", "any address"),
        (with("headers: { untrusted: [X-Forwarded-*] }"), Code::Weakened, "1:23 headers.untrusted", "20 of the fields"),
        (
            with("").replace("app: { kind: echo }", "app: { kind: echo }, old: { kind: echo }"),
            Code::Unused,
            "4:35 upstreams.old",
            "no route leads",
        ),
        (
            with_routes("  - { path: /a, upstream: app, scopes: [a, b], accept: [] }\n"),
            Code::Unreachable,
            "6:5 routes[0]",
            "no request can pass",
        ),
        (
            with_routes(
                "  - { path: /a, upstream: app, scopes: [a, b], methods: { GET: {}, POST: {}, PUT: {}, PATCH: {}, DELETE: {}, OPTIONS: {}, \"*\": {} } }\n",
            ),
            Code::Unreachable,
            "6:123 routes[0].methods.*",
            "more specific rules answer",
        ),
        (
            with_routes(
                "  - { path: /account/keys/**, upstream: portcullis, auth: any_key, strip_prefix: /account }\n",
            ),
            Code::Unreachable,
            "6:13 routes[0].path",
            "nothing of the management API",
        ),
        (
            with_routes("  - { path: /a%2Fb, upstream: app, scopes: [a, b] }\n"),
            Code::Unreachable,
            "6:5 routes[0]",
            "all its requests are refused",
        ),
        (
            two(
                "{ path: /v1/orders/**, upstream: app, scopes: [a, b] }",
                "{ path: \"/v1/orders/{id}\", upstream: app, auth: none }",
            ),
            Code::PublicShadow,
            "7:5 routes[1]",
            "looks protected by /v1/orders/**",
        ),
        (
            two(
                "{ path: \"/v1/{t}/admin\", upstream: app, scopes: [a, b] }",
                "{ path: /v1/users/**, upstream: app, auth: none }",
            ),
            Code::PublicShadow,
            "7:5 routes[1]",
            "/v1/{t}/admin",
        ),
        (
            two(
                "{ path: /v1/**, upstream: app, scopes: [a, b] }",
                "{ path: /**, hosts: [x.test], upstream: app, auth: none }",
            ),
            Code::PublicShadow,
            "7:5 routes[1]",
            "/v1/**",
        ),
    ];
    let mut misses = Vec::new();
    for (text, code, at, part) in &table {
        let loaded = loaded(text);
        assert!(loaded.settings.is_some(), "{text}\n{:?}", loaded.diagnostics);
        assert!(loaded.diagnostics.iter().all(|found| found.severity() == Severity::Warning));
        let start = format!("p.yaml:{at}: ");
        let said: Vec<_> = loaded.diagnostics.iter().map(|found| (found.code, found.to_string())).collect();
        if !said.iter().any(|(found, said)| found == code && said.starts_with(&start) && said.contains(part)) {
            misses.push(format!("{text}\nexpected {code:?} {start}…{part}…, said {said:#?}"));
        }
    }
    assert!(misses.is_empty(), "{}", misses.join("\n"));
}

#[test]
fn methods_that_are_spelt_like_no_usual_one_are_meant() {
    let methods = "GETT: {}, PSOT: {}, PURGE: {}, GET: {}, PATCH: {}, MKCOL: {}";
    let text = with_routes(&format!("  - {{ path: /a, upstream: app, scopes: [a, b], methods: {{ {methods} }} }}\n"));
    let odd: Vec<_> = loaded(&text).diagnostics.iter().map(|found| (found.code, found.to_string())).collect();
    assert_eq!(odd.len(), 2, "{odd:#?}");
    for (number, meant) in ["`GETT` is no method", "`PSOT` is no method"].into_iter().enumerate() {
        assert!(odd[number].0 == Code::OddMethod && odd[number].1.contains(meant), "{odd:#?}");
    }
}

#[test]
fn deliberate_public_routes_are_no_shadows() {
    for (protected, public) in [
        ("/v1/**", "/v1/status"),
        ("/**", "/assets/**"),
        ("/v1/orders/**", "/v1/products/**"),
        // The protected rule is the more specific one.
        ("/v1/users/{id}", "/v1/{kind}/**"),
    ] {
        let text = with_routes(&format!(
            "  - {{ path: \"{protected}\", upstream: app, scopes: [a, b] }}\n  - {{ path: \"{public}\", upstream: app, auth: none }}\n"
        ));
        assert_eq!(findings(&text), Vec::<String>::new(), "{protected} and {public}");
    }
}
