//! Paths that servers read differently: what is matched is what is forwarded, and what has no single reading is 400.

use portcullis_testkit::{Gateway, Origin, Response};

use crate::scene;

/// `/public/**` for everybody, `/admin/**` and `/public/admin/**` for nobody who asks here.
const ROUTES: &str = r#"
  - { path: "/public/**", upstream: shop, auth: none }
  - { path: "/public/admin/**", upstream: shop, scopes: write:orders }
  - { path: "/admin/**", upstream: shop, scopes: write:orders }
  - { path: "/merged/**", upstream: shop, auth: none, path_rules: { empty_segments: merge } }
  - { path: "/kept/{project}/files", upstream: shop, auth: none, path_rules: { encoded_slash: keep } }
  - { path: /either, upstream: shop, auth: none, path_rules: { trailing_slash: either } }
  - { path: "/picky/**", upstream: shop, auth: none, path_rules: { normalize: refuse } }
"#;

async fn ask(gateway: &Gateway, target: &str) -> Response {
    let mut raw = gateway.raw().await;
    raw.send(format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")).await;
    raw.response().await
}

async fn paths() -> (Gateway, Origin) {
    scene::shop_with(ROUTES, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_single_reading_is_refused() {
    let (gateway, origin) = paths().await;
    for target in [
        // escaping the root
        "/..",
        "/../admin",
        "/public/../../admin",
        "/%2e%2e/admin",
        "/public/..%2f..%2fadmin",
        // separators in disguise
        "/public%2fadmin",
        "/public/x%2Fadmin",
        "/public/%5cadmin",
        "/public/x%5Cy",
        "/public\\admin",
        // empty segments
        "//admin",
        "/public//admin",
        "/public//",
        "/public/x//y",
        // parameters on dots, and segments that are nothing but parameters
        "/public/..;/admin",
        "/public/.;/admin",
        "/public/..;x=1/admin",
        "/public/;/admin",
        "/public/;x=1",
        "/public/..%3b/admin",
        "/public/.%00./admin",
        // escapes that are none, controls, bytes that are no UTF-8
        "/public/%",
        "/public/%2",
        "/public/%zz",
        "/public/%u002e%u002e/admin",
        "/public/%00",
        "/public/%0d%0aX:1",
        "/public/%1f",
        "/public/%7f",
        "/public/%ff",
        "/public/%c0%ae%c0%ae/admin",
        "/public/%c0%af",
        "/public/%ed%a0%80",
        // double escapes that some server undoes
        "/public/%252e%252e/admin",
        "/public/%25%32%65%25%32%65/admin",
        // a fragment
        "/public/#/../admin",
        "/public/x#y",
    ] {
        let answer = ask(&gateway, target).await;
        assert_eq!(answer.status, 400, "{target}: {answer:?}");
    }
    for raw_bytes in [&b"/public/\xc3\xa9"[..], b"/public/\x01", b"/public/\x7f", b"/public/a\tb"] {
        let mut raw = gateway.raw().await;
        raw.send([b"GET ", raw_bytes, b" HTTP/1.1\r\nHost: shop.test\r\n\r\n"].concat()).await;
        let answer = raw.response().await;
        assert_eq!(answer.status, 400, "{raw_bytes:?}: {answer:?}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_to_a_protected_route_is_judged_there() {
    let (gateway, origin) = paths().await;
    for target in [
        "/public/../admin",
        "/public/./../admin/x",
        "/public/x/../../admin/users",
        "/public/%2e%2e/admin",
        "/public/.%2e/admin",
        "/public/%2E./admin",
        "/public/%2e/admin",
        "/public/./admin/x",
        "/public/%61dmin",
        "/%61dmin/x",
        "/admin/.",
        "/admin/x/..",
        "/public/x/%2e%2e/admin",
    ] {
        let answer = ask(&gateway, target).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "missing_credential"), "{target}: {answer:?}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reading_of_a_public_path_opens_a_protected_one() {
    let (gateway, origin) = paths().await;
    for target in [
        "/public/admin;x=1/users",
        "/public/admin;/users",
        "/public/ADMIN/users",
        "/public/Admin",
        "/PUBLIC/x",
        "/Admin/x",
        "/public/admin%3bx",
        "/public/%2561dmin/users",
        "/public/%252fadmin",
        "/public/x/..;/admin/",
        "/public/%41dmin",
    ] {
        let answer = ask(&gateway, target).await;
        assert!(matches!(answer.status, 400 | 401 | 404), "{target}: {answer:?}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_forwarded_is_the_path_that_was_matched() {
    let (gateway, origin) = paths().await;
    for (sent, forwarded) in [
        ("/public/x", "/public/x"),
        ("/public/./x", "/public/x"),
        ("/public/a/../x", "/public/x"),
        ("/public/a/b/..", "/public/a/"),
        ("/public/%61%2d%7E", "/public/a-~"),
        ("/public/%c3%a9", "/public/%C3%A9"),
        ("/public/a%20b", "/public/a%20b"),
        ("/public/@me:+,=()!$'*", "/public/@me:+,=()!$'*"),
        ("/public/x?a=/../%2e%2e&&;#".trim_end_matches('#'), "/public/x?a=/../%2e%2e&&;"),
        ("/public/x?", "/public/x?"),
        ("/public/", "/public/"),
        ("/public", "/public"),
        ("/public/...", "/public/..."),
        ("/public/a..b/..c", "/public/a..b/..c"),
    ] {
        let answer = ask(&gateway, sent).await;
        assert_eq!(answer.status, 200, "{sent}: {answer:?}");
        let seen = origin.last().target;
        assert!(seen.eq_ignore_ascii_case(forwarded) && seen.len() == forwarded.len(), "{sent} became {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_that_need_other_readings_say_so() {
    let (gateway, origin) = paths().await;
    for (sent, forwarded) in [
        ("/merged//a///b", "/merged/a/b"),
        ("/kept/group%2Fproject/files", "/kept/group%2Fproject/files"),
        ("/either", "/either"),
        ("/either/", "/either/"),
        ("/picky/x", "/picky/x"),
    ] {
        let answer = ask(&gateway, sent).await;
        assert_eq!(answer.status, 200, "{sent}: {answer:?}");
        assert_eq!(origin.last().target, forwarded);
    }
    let before = origin.count();
    for refused in ["/picky/./x", "/picky/a/../x", "/picky/%61", "/kept/%2e%2e%2fadmin/files"] {
        assert_eq!(ask(&gateway, refused).await.status, 400, "{refused}");
    }
    for absent in ["/kept/group/project/files", "/publicity", "/public.json", "/status/", "/me%20", "/status.json"] {
        assert_eq!(ask(&gateway, absent).await.status, 404, "{absent}");
    }
    assert_eq!(origin.count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_takes_no_part_in_the_match() {
    let (gateway, origin) = paths().await;
    for target in ["/admin?/../public/x", "/admin?x=/public", "/nothing?/public"] {
        let answer = ask(&gateway, target).await;
        assert!(matches!(answer.status, 401 | 404), "{target}: {answer:?}");
    }
    ask(&gateway, "/public?next=/admin").await.expect(200);
    assert_eq!(origin.only().target, "/public?next=/admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asterisk_or_authority_is_no_path() {
    let (gateway, origin) = paths().await;
    for head in ["GET * HTTP/1.1", "GET shop.test:80 HTTP/1.1", "GET public/x HTTP/1.1", "GET ?x HTTP/1.1"] {
        let mut raw = gateway.raw().await;
        raw.send(format!("{head}\r\nHost: shop.test\r\n\r\n")).await;
        assert_eq!(raw.response().await.status, 400, "{head}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_are_taken_off_and_put_on_in_whole_segments() {
    let routes = r#"
  - { path: "/api/v1/**", upstream: shop, auth: none, strip_prefix: /api, add_prefix: /internal }
  - { path: "/api/bare/**", upstream: shop, auth: none, strip_prefix: /api/bare }
"#;
    let (gateway, origin) = scene::shop_with(routes, "").await;
    for (sent, forwarded) in [
        ("/api/v1/x?y", "/internal/v1/x?y"),
        ("/api/v1", "/internal/v1"),
        ("/api/bare/x/", "/x/"),
        ("/api/bare", "/"),
        ("/api/bare/", "/"),
        ("/api/v1/a/../b", "/internal/v1/b"),
    ] {
        ask(&gateway, sent).await.expect(200);
        assert_eq!(origin.last().target, forwarded, "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_reads_exactly_is_believed() {
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  shop: { targets: [{ url: "http://{{shop}}" }], reads_paths: exact }
scopes: { a: { title: A } }
routes:
  - { path: "/public/**", upstream: shop, auth: none }
  - { path: "/public/admin", upstream: shop, scopes: a }
"#;
    let origin = Origin::start().await;
    let gateway = scene::site(config).upstream("shop", &origin).start().await;
    for target in ["/public/ADMIN", "/public/admin;x=1", "/public/%2561dmin"] {
        ask(&gateway, target).await.expect(200);
        assert_eq!(origin.last().target, target);
    }
    assert_eq!(ask(&gateway, "/public/admin").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reading_of_a_public_path_opens_one_that_is_public_for_some_addresses_alone() {
    let routes = r#"
  - { path: "/ip/{x}", upstream: shop, auth: none }
  - { path: /ip/admin, upstream: shop, auth: none, allow_ips: [10.0.0.0/8] }
"#;
    let (gateway, origin) = scene::shop_with(routes, "").await;
    assert_eq!(ask(&gateway, "/ip/admin").await.status, 403);
    for target in ["/ip/ADMIN", "/ip/admin;x", "/ip/%61DMIN", "/ip/admin%3bx", "/ip/%61dmin"] {
        let answer = ask(&gateway, target).await;
        assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
    }
    origin.untouched();
    ask(&gateway, "/ip/administrator").await.expect(200);
}
