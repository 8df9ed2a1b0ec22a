//! Where a key may stand, and that it stands nowhere in what is forwarded or logged.

use portcullis_testkit::{Call, Gateway, Key, Origin};

use crate::scene;

const EVERYWHERE: &str = r#"
  - path: /every/**
    name: every
    upstream: shop
    auth: any_key
    accept:
      - { header: Authorization, scheme: Bearer }
      - { header: Authorization, scheme: Basic }
      - { header: Authorization, scheme: Token }
      - { header: X-API-Key }
      - { header: X-Custom, scheme: Key }
      - { cookie: session_key }
      - { query: api_key }
"#;

async fn every() -> (Gateway, Origin, Key) {
    let (gateway, origin) = scene::shop_with(EVERYWHERE, "").await;
    let key = gateway.key("caller", "").await;
    (gateway, origin, key)
}

/// Base64 (RFC 4648 §4), for `Basic`.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bytes = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let bits = u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2]);
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn each_accepted_place_is_read_and_emptied() {
    let (gateway, origin, key) = every().await;
    let text = &key.text;
    let basic = base64(&format!("{text}:"));
    gateway.vault().keep(&basic);
    let call = || gateway.get("/every/x");
    let places: [(&str, Call); 9] = [
        ("bearer", call().header("authorization", &format!("Bearer {text}"))),
        ("bearer, any case", call().header("authorization", &format!("bEARER {text}"))),
        ("basic, key as user name", call().header("authorization", &format!("Basic {basic}"))),
        ("a scheme of our own", call().header("authorization", &format!("Token {text}"))),
        ("a plain field", call().header("x-api-key", text)),
        ("another field with a scheme", call().header("x-custom", &format!("Key {text}"))),
        ("a cookie", call().header("cookie", &format!("session_key={text}"))),
        ("a query parameter", gateway.get(&format!("/every/x?api_key={text}"))),
        ("an escaped query parameter", gateway.get(&format!("/every/x?%61pi_key={text}"))),
    ];
    for (place, call) in places {
        let answer = call.await;
        assert_eq!(answer.status, 200, "{place}: {answer:?}");
        let seen = origin.last();
        assert_eq!(seen.header("x-portcullis-key-id"), Some(key.id.as_str()), "{place}");
        for field in ["authorization", "x-api-key", "x-custom", "cookie"] {
            assert!(!seen.has(field), "{place}: {field} is left");
        }
        assert_eq!(seen.target.trim_end_matches('?'), "/every/x", "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_beside_a_credential_is_kept_byte_for_byte() {
    let (gateway, origin, key) = every().await;
    let text = &key.text;
    gateway.get("/every/x").header("cookie", &format!("a=1; session_key={text}; b=\"2 3\"")).await.expect(200);
    assert_eq!(origin.last().header("cookie"), Some("a=1; b=\"2 3\""));
    for (sent, forwarded) in [
        (format!("a=1&api_key={text}&b=%2F+x"), "/every/x?a=1&b=%2F+x"),
        (format!("api_key={text}&a"), "/every/x?a"),
        (format!("a=&&api_key={text}"), "/every/x?a=&"),
        ("api_key_2=x&a=api_key".to_owned(), "/every/x?api_key_2=x&a=api_key"),
    ] {
        let call = gateway.get(&format!("/every/x?{sent}"));
        let call = if sent.contains(text) { call } else { call.bearer(&key) };
        call.await.expect(200);
        assert_eq!(origin.last().target, forwarded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_query_is_never_logged() {
    let (gateway, _origin, key) = every().await;
    let answer = gateway.get(&format!("/every/x?api_key={}&secret=hunter2hunter2", key.text)).await.expect(200);
    let line = gateway.access_line(&answer).await;
    assert_eq!(line["path"], "/every/x", "{line}");
    assert!(!gateway.logs().text().contains("hunter2hunter2"), "a query is never logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_the_accepted_places_may_hold_a_credential() {
    let (gateway, origin, key) = every().await;
    let text = &key.text;
    for call in [
        gateway.get("/every/x").bearer(&key).header("cookie", &format!("session_key={text}")),
        gateway.get(&format!("/every/x?api_key={text}")).api_key(&key),
        gateway.get(&format!("/every/x?api_key={text}&api_key={text}")),
        gateway.get("/every/x").header("cookie", &format!("session_key={text}; session_key={text}")),
        gateway.get("/every/x").header("cookie", "session_key="),
        gateway.get("/every/x?api_key="),
    ] {
        call.await.refused(400, "invalid_request");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_not_accepted_is_neither_read_nor_removed() {
    let routes = "  - { path: \"/own/**\", upstream: shop, auth: any_key, accept: [{ header: X-API-Key }] }\n";
    let (gateway, origin) = scene::shop_with(routes, "").await;
    let key = gateway.key("caller", "").await;
    gateway
        .get("/own/x?api_key=mine")
        .api_key(&key)
        .header("authorization", "Bearer of-the-application")
        .await
        .expect(200);
    let seen = origin.only();
    assert_eq!(seen.header("authorization"), Some("Bearer of-the-application"));
    assert_eq!(seen.target, "/own/x?api_key=mine");
    assert!(!seen.has("x-api-key"));
    gateway.get("/own/x").header("authorization", "Bearer one two").api_key(&key).await.expect(200);
    let refused = gateway.get("/own/x").header("authorization", "Bearer abc").await.refused(401, "missing_credential");
    assert!(!refused.challenge().contains("Bearer realm"), "a scheme that is not accepted is not offered: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_route_that_accepts_nothing_leaves_the_applications_fields_alone() {
    let routes = "  - { path: \"/app/**\", upstream: shop, auth: none, accept: [] }\n";
    let (gateway, origin) = scene::shop_with(routes, "").await;
    gateway.get("/app/x").header("authorization", "Bearer of-the-application").await.expect(200);
    assert_eq!(origin.only().header("authorization"), Some("Bearer of-the-application"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_forwarded_where_the_route_says_so() {
    let routes = "  - { path: /pass, upstream: shop, auth: any_key, forward_credential: true }\n";
    let (gateway, origin) = scene::shop_with(routes, "").await;
    origin.tolerate_credentials();
    let key = gateway.key("caller", "").await;
    gateway.get("/pass").bearer(&key).await.expect(200);
    let seen = origin.only();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", key.text).as_str()));
    assert_eq!(seen.header("x-portcullis-key-id"), Some(key.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_basic_pair_of_key_and_password_is_no_single_credential() {
    let (gateway, origin, key) = every().await;
    let basic = base64(&format!("{}:password", key.text));
    let answer = gateway.get("/every/x").header("authorization", &format!("Basic {basic}")).await;
    assert!(matches!(answer.status, 400 | 401), "{answer:?}");
    for junk in ["Basic", "Basic ???", "Basic Zm9v"] {
        let answer = gateway.get("/every/x").header("authorization", junk).await;
        assert!(matches!(answer.status, 400 | 401), "{junk}: {answer:?}");
    }
    origin.untouched();
}

#[test]
fn base64_agrees_with_the_examples_of_rfc_4648() {
    for (text, coded) in [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(base64(text), coded);
    }
}
