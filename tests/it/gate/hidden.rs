//! `auth.hide_routes`: what is there and what is not cannot be told apart without a key.

use http::HeaderMap;
use portcullis_testkit::{Gateway, Origin, Response};

use crate::scene;

/// Routes whose own settings could show through a refusal: `cors`, `accept`, few methods.
const ROUTES: &str = r#"
  - path: /pages/**
    upstream: shop
    auth: any_key
    methods: { GET: {} }
    cors: { origins: ["https://app.example.com"] }
  - { path: "/basic/**", upstream: shop, auth: any_key, accept: [{ header: Authorization, scheme: Basic }] }
"#;

async fn hidden() -> (Gateway, Origin) {
    scene::shop_with(ROUTES, "auth: { hide_routes: true }").await
}

/// What a stranger can compare: everything but the request's own name and the time of day.
fn shown(answer: &Response) -> (u16, HeaderMap, String) {
    let id = answer.header("x-request-id").unwrap_or_default();
    let mut headers = answer.headers.clone();
    headers.remove("x-request-id");
    headers.remove("date");
    let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.as_str().is_some_and(|text| !id.is_empty() && text.contains(id)));
        fields.remove("instance");
    }
    (answer.status, headers, body.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_without_a_key_shows_neither_cors_nor_accept() {
    let (gateway, origin) = hidden().await;
    for page in [None, Some("https://app.example.com"), Some("https://evil.example.com")] {
        for method in ["GET", "PATCH"] {
            let ask = async |target: &str| {
                let call = gateway.call(method, target);
                shown(&page.into_iter().fold(call, |call, page| call.header("origin", page)).await)
            };
            let absent = ask("/nothing/x").await;
            assert_eq!(absent.0, 401, "{absent:?}");
            for target in ["/pages/x", "/basic/x", "/v1/orders/1"] {
                assert_eq!(ask(target).await, absent, "{method} {target} from {page:?}");
            }
        }
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_none_shows_no_more() {
    let (gateway, origin) = hidden().await;
    for (field, value) in [
        ("authorization", "Bearer junk"),
        ("x-api-key", "junk"),
        ("authorization", "Basic anVuazo="),
        ("x-api-key", ""),
    ] {
        let ask = async |target: &str| shown(&gateway.get(target).header(field, value).await);
        let absent = ask("/nothing/x").await;
        for target in ["/pages/x", "/basic/x", "/v1/orders/1"] {
            assert_eq!(ask(target).await, absent, "{target} with {field}: {value}");
        }
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_of_a_strange_page_shows_nothing() {
    let (gateway, origin) = hidden().await;
    let ask = async |target: &str, page: &str| {
        let call = gateway.call("OPTIONS", target).header("origin", page);
        shown(&call.header("access-control-request-method", "GET").await)
    };
    for stranger in ["https://evil.example.com", "null", "http://app.example.com"] {
        let absent = ask("/nothing/x", stranger).await;
        assert_eq!(ask("/pages/x", stranger).await, absent, "{stranger}");
        assert_eq!(ask("/basic/x", stranger).await, absent, "{stranger}");
    }
    let (status, headers, _) = ask("/pages/x", "https://app.example.com").await;
    assert!(matches!(status, 200 | 204) && headers.contains_key("access-control-allow-origin"), "{status} {headers:?}");
    origin.untouched();
}
