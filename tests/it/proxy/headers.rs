//! Which fields an upstream sees: only our identity, nothing a stranger could have made up, nothing hop-by-hop.

use portcullis_testkit::Answer;

use crate::scene;

/// Spellings of an identity field that some server somewhere reads as ours.
const SPOOFS: [&str; 9] = [
    "x-portcullis-key-id",
    "X-PORTCULLIS-KEY-ID",
    "x_portcullis_key_id",
    "X-Portcullis_Key-Id",
    "x-portcullis-auth",
    "x-portcullis-role",
    "X_PORTCULLIS_SCOPES",
    "x-portcullis-",
    "x-portcullis-anything-at-all",
];

#[tokio::test(flavor = "multi_thread")]
async fn identity_cannot_be_spoofed_in_any_spelling_on_any_route() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("honest", "read:orders").await;
    for spoof in SPOOFS {
        for target in ["/status", "/me", "/v1/orders/7"] {
            let mut raw = gateway.raw().await;
            raw.send(format!(
                "GET {target} HTTP/1.1\r\nHost: shop.test\r\nX-API-Key: {}\r\n{spoof}: key_evil\r\nConnection: close\r\n\r\n",
                key.text
            ))
            .await;
            raw.response().await.expect(200);
            let seen = origin.last();
            let values: Vec<_> = seen.headers.values().filter(|value| value.as_bytes() == b"key_evil").collect();
            assert!(values.is_empty(), "{spoof} came through on {target}: {seen:?}");
            let expected = if target == "/status" { "anonymous" } else { "key" };
            assert_eq!(seen.header("x-portcullis-auth"), Some(expected), "{spoof} on {target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_cannot_be_removed_by_nominating_it_in_connection() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("honest", "read:orders").await;
    for nominated in
        ["x-portcullis-key-id", "X-Portcullis-Scopes, x-portcullis-auth", "close, x-portcullis-environment"]
    {
        let mut raw = gateway.raw().await;
        raw.send(format!(
            "GET /me HTTP/1.1\r\nHost: shop.test\r\nX-API-Key: {}\r\nConnection: {nominated}\r\n\r\n",
            key.text
        ))
        .await;
        let answer = raw.response().await;
        if answer.status == 400 {
            continue;
        }
        let seen = origin.last();
        assert_eq!(seen.header("x-portcullis-key-id"), Some(key.id.as_str()), "{nominated}");
        assert_eq!(seen.header("x-portcullis-scopes"), Some("read:orders"), "{nominated}");
        assert_eq!(seen.header("x-portcullis-auth"), Some("key"), "{nominated}");
        assert_eq!(seen.header("x-portcullis-environment"), Some("live"), "{nominated}");
        assert!(!seen.has("x-api-key"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_nominated_in_connection_still_counts_or_is_refused() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("honest", "").await;
    let mut raw = gateway.raw().await;
    raw.send(format!(
        "GET /me HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {}\r\nConnection: authorization\r\n\r\n",
        key.text
    ))
    .await;
    let answer = raw.response().await;
    assert!(matches!(answer.status, 200 | 400 | 401), "{answer:?}");
    for seen in origin.requests() {
        assert_eq!(seen.header("x-portcullis-key-id"), Some(key.id.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_identity_names_are_used_and_guarded() {
    let (gateway, origin) =
        scene::shop_with("", "headers: { identity: { key_id: X-Consumer, auth: X-Auth-Kind } }").await;
    let key = gateway.key("honest", "").await;
    for spoof in ["x-consumer", "X_Consumer", "x-auth-kind", "x-portcullis-key-id"] {
        let mut raw = gateway.raw().await;
        raw.send(format!("GET /me HTTP/1.1\r\nHost: shop.test\r\nX-API-Key: {}\r\n{spoof}: evil\r\n\r\n", key.text))
            .await;
        raw.response().await.expect(200);
        let seen = origin.last();
        assert_eq!(seen.header("x-consumer"), Some(key.id.as_str()), "{spoof}");
        assert_eq!(seen.header("x-auth-kind"), Some("key"), "{spoof}");
        assert!(!seen.headers.values().any(|value| value == "evil"), "{spoof}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_only_a_trusted_proxy_may_send_are_removed() {
    let (gateway, origin) = scene::shop().await;
    let untrusted = [
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-prefix",
        "x-forwarded-uri",
        "x-forwarded-method",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "proxy",
        "proxy-authorization",
        "remote-user",
        "x-remote-user",
        "x-consumer-id",
        "x-consumer-username",
        "x-authenticated-userid",
        "x-user-id",
        "x-credential-identifier",
        "x-forwarded-client-cert",
        "client-cert",
        "x-client-cert",
        "x-ssl-client-verify",
        "x-arr-clientcert",
        "some_name",
        "content_length",
        "dotted.name",
    ];
    let mut raw = gateway.raw().await;
    let fields: String = untrusted.iter().map(|name| format!("{name}: evil\r\n")).collect();
    raw.send(format!("GET /open/x HTTP/1.1\r\nHost: shop.test\r\n{fields}X-Harmless: kept\r\n\r\n")).await;
    raw.response().await.expect(200);
    let seen = origin.only();
    assert_eq!(seen.header("x-harmless"), Some("kept"));
    let evil: Vec<_> = seen.headers.iter().filter(|(_, value)| value.as_bytes() == b"evil").collect();
    assert!(evil.is_empty(), "{evil:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_may_send_them() {
    let (gateway, origin) = scene::shop_with("", "auth: { trusted_proxies: [127.0.0.0/8] }").await;
    gateway.get("/open/x").header("x-user-id", "42").header("x-portcullis-owner", "evil").await.expect(200);
    let seen = origin.only();
    assert_eq!(seen.header("x-user-id"), Some("42"));
    assert!(!seen.headers.values().any(|value| value == "evil"), "identity is ours alone, whoever the peer is");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_untrusted_fields_can_be_shortened() {
    let (gateway, origin) = scene::shop_with("", "headers: { untrusted: [x-user-id] }").await;
    gateway.get("/open/x").header("x-user-id", "evil").header("x-client-cert", "mine").await.expect(200);
    assert!(!origin.only().has("x-user-id"));
    assert_eq!(origin.only().header("x-client-cert"), Some("mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_end_here_in_both_directions() {
    let (gateway, origin) = scene::shop().await;
    origin.answer(Answer::ok("x").header("x-private", "1").header("connection", "x-private, keep-alive"));
    let mut raw = gateway.raw().await;
    raw.send(
        "GET /open/x HTTP/1.1\r\nHost: shop.test\r\nConnection: keep-alive, X-Nominated, te\r\nX-Nominated: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\nX-Kept: 1\r\n\r\n",
    )
    .await;
    let answer = raw.response().await.expect(200);
    assert!(answer.header("x-private").is_none(), "{answer:?}");
    let seen = origin.only();
    for name in ["x-nominated", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"] {
        assert!(!seen.has(name), "{name} came through: {seen:?}");
    }
    assert_eq!(seen.header("x-kept"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_fields_are_rebuilt_from_the_real_peer() {
    let (gateway, origin) = scene::shop().await;
    gateway
        .get("/open/x")
        .host("shop.example.com")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "evil.test")
        .header("forwarded", "for=6.6.6.6;host=evil.test")
        .await
        .expect(200);
    let seen = origin.only();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example.com"));
    let forwarded = seen.header("forwarded").unwrap();
    assert!(forwarded.contains("for=127.0.0.1") && forwarded.contains("proto=http"), "{forwarded}");
    assert!(!forwarded.contains("6.6.6.6") && !forwarded.contains("evil"), "{forwarded}");
    assert_eq!(seen.host, "shop.example.com", "the host is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_its_proxy_does_not_name_readably_is_in_no_allow_list() {
    let route = "  - { path: /inside, upstream: shop, auth: none, allow_ips: [127.0.0.0/8] }\n";
    let (gateway, origin) = scene::shop_with(route, "auth: { trusted_proxies: [127.0.0.0/8] }").await;
    for said in
        ["6.6.6.6:4711", "[2001:db8::6]:4711", "unknown", "_hidden", "6.6.6.6, \u{e9}", "127.0.0.9, for=6.6.6.6"]
    {
        gateway.get("/inside").header("x-forwarded-for", said).await.refused(403, "ip_not_allowed");
    }
    origin.untouched();
    for said in ["127.0.0.9:4711", "[::ffff:127.0.0.9]:1", " , 127.0.0.9 ,"] {
        gateway.get("/inside").header("x-forwarded-for", said).await.expect(200);
    }
    // What the proxy asks for itself.
    gateway.get("/inside").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_proxy_says_of_the_client_is_believed_from_the_right() {
    let (gateway, origin) = scene::shop_with("", "auth: { trusted_proxies: [127.0.0.0/8, 10.0.0.0/8] }").await;
    for (said, client) in [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::7]:4711, 10.1.2.3:80", "2001:db8::7"),
        // Whoever it was, it was not the proxy.
        ("203.0.113.7, nonsense", ""),
    ] {
        let answer = gateway.get("/open/x").header("x-forwarded-for", said).await.expect(200);
        let line = gateway.access_line(&answer).await;
        assert_eq!(line["client_ip"].as_str().unwrap_or_default(), client, "{said}");
        let chain = origin.last().header("x-forwarded-for").unwrap().to_owned();
        assert!(chain.ends_with("127.0.0.1"), "the real peer is appended: {chain}");
    }
    let answer = gateway.get("/open/x").header("x-forwarded-proto", "https").await.expect(200);
    drop(answer);
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
}

#[tokio::test(flavor = "multi_thread")]
async fn via_names_the_versions_on_the_way() {
    let (gateway, origin) = scene::shop().await;
    gateway.get("/open/x").header("via", "1.0 fred").await.expect(200);
    let via = origin.last().header_all("via").join(", ");
    assert!(via.starts_with("1.0 fred, 1.1 "), "{via}");
    gateway.get("/open/x").h2().await.expect(200);
    let via = origin.last().header_all("via").join(", ");
    assert!(via.starts_with("2"), "{via}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_and_one_is_begun_where_there_is_none() {
    let (gateway, origin) = scene::shop().await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    gateway.get("/open/x").header("traceparent", given).header("tracestate", "a=1").await.expect(200);
    let seen = origin.last();
    let passed = seen.header("traceparent").unwrap();
    assert_eq!(&passed[3..35], &given[3..35], "the same trace: {passed}");
    assert_eq!(seen.header("tracestate"), Some("a=1"));
    gateway.get("/open/x").await.expect(200);
    let begun = origin.last().header("traceparent").unwrap().to_owned();
    let parts: Vec<_> = begun.split('-').collect();
    assert!(parts.len() == 4 && parts[0] == "00" && parts[1].len() == 32 && parts[2].len() == 16, "{begun}");
    assert!(parts[1].bytes().any(|byte| byte != b'0'), "{begun}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_told_the_request_id_the_client_is_told() {
    let (gateway, origin) = scene::shop().await;
    let answer = gateway.get("/open/x").await.expect(200);
    assert_eq!(origin.only().header("x-request-id"), answer.header("x-request-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_upstreams_set_and_remove_fields() {
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  shop:
    targets: [{ url: "http://{{shop}}" }]
    host: backend.internal
    headers: { set: { Authorization: Basic Z2F0ZTpzZWNyZXQ=, X-From: upstream }, remove: [x-unwanted] }
routes:
  - path: /**
    upstream: shop
    auth: any_key
    headers: { set: { X-From: route }, remove: [cookie] }
"#;
    let origin = portcullis_testkit::Origin::start().await;
    let gateway = scene::site(config).upstream("shop", &origin).start().await;
    let key = gateway.key("key", "").await;
    let call = gateway.get("/x").bearer(&key).header("cookie", "a=1").header("x-unwanted", "1").header("x-from", "me");
    call.await.expect(200);
    let seen = origin.only();
    assert_eq!(seen.host, "backend.internal");
    assert_eq!(seen.header("authorization"), Some("Basic Z2F0ZTpzZWNyZXQ="), "the gateway's own credential");
    assert_eq!(seen.header("x-from"), Some("route"), "the route has the last word");
    assert!(!seen.has("cookie") && !seen.has("x-unwanted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn host_and_authority_must_be_one_and_well_formed() {
    let (gateway, origin) = scene::shop().await;
    for bad in [
        "GET /open/x HTTP/1.1\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a.test/path\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: user@a.test\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET http://user:pw@a.test/open/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
        "GET http:///open/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        let mut raw = gateway.raw().await;
        raw.send(bad).await;
        let answer = raw.response().await;
        assert_eq!(answer.status, 400, "{bad:?}: {answer:?}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_of_an_absolute_target_decides_and_is_forwarded() {
    let routes = "  - { path: /only, hosts: [a.test], upstream: shop, auth: none }\n";
    let (gateway, origin) = scene::shop_with(routes, "").await;
    let mut raw = gateway.raw().await;
    raw.send("GET http://a.test/only HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    raw.response().await.expect(200);
    assert_eq!((origin.last().target.as_str(), origin.last().host.as_str()), ("/only", "a.test"));
    for (target, host) in [("http://a.test/only", "b.test"), ("http://b.test/only", "a.test")] {
        let mut raw = gateway.raw().await;
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = raw.response().await;
        // RFC 9112 §3.2.2 lets the target win; refusing the contradiction is as good. Believing `Host` is not.
        assert!(
            answer.status == 400 || (answer.status == 200) == target.contains("//a."),
            "{target} {host}: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_name_with_an_underscore_is_guarded_in_every_spelling() {
    let (gateway, origin) = scene::shop_with("", "headers: { identity: { key_id: X_Acct } }").await;
    let key = gateway.key("honest", "").await;
    for spoof in ["X-Acct", "x-acct", "X_Acct", "X.Acct"] {
        for (path, ours) in [("/me", Some(key.id.as_str())), ("/open/x", None)] {
            let mut raw = gateway.raw().await;
            let head = format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nX-API-Key: {}\r\n", key.text);
            raw.send(format!("{head}{spoof}: evil\r\n\r\n")).await;
            raw.response().await.expect(200);
            let seen = origin.last();
            assert!(!seen.headers.values().any(|value| value == "evil"), "{spoof} on {path}: {seen:?}");
            assert_eq!(seen.header("x_acct"), ours, "{spoof} on {path}: {seen:?}");
        }
    }
}
