//! RFC 9112, HTTP/1.1.

use std::time::Duration;

use super::shop;

#[tokio::test(flavor = "multi_thread")]
async fn s2_2_empty_lines_before_a_request_line_are_ignored_or_refused() {
    let (gateway, _origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send("\r\nGET /open/x HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
    let answer = raw.response().await;
    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_2_a_request_without_host_is_400() {
    let (gateway, origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send("GET /open/x HTTP/1.1\r\n\r\n").await;
    raw.response().await.expect(400);
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_2_2_an_absolute_form_is_accepted_and_forwarded_in_origin_form() {
    let (gateway, origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send("GET http://shop.test/open/x?y HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    raw.response().await.expect(200);
    assert_eq!((origin.only().target.as_str(), origin.only().host.as_str()), ("/open/x?y", "shop.test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_1_space_before_a_colon_is_400() {
    let (gateway, origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send("GET /open/x HTTP/1.1\r\nHost: shop.test\r\nX-A : 1\r\n\r\n").await;
    raw.response().await.expect(400);
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_3_both_lengths_are_never_forwarded() {
    let (gateway, origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send(
        "POST /open/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )
    .await;
    let answer = raw.response().await.expect(400);
    assert_eq!(answer.code(), "bad_request");
    assert!(raw.is_closed_within(Duration::from_secs(5)).await);
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_3_connections_persist_unless_told_otherwise() {
    let (gateway, _origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send("GET /open/x HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let answer = raw.response().await.expect(200);
    assert_ne!(answer.header("connection"), Some("close"));
    raw.send("GET /open/x HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").await;
    let answer = raw.response().await.expect(200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(raw.is_closed_within(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_3_an_http_1_0_connection_persists_only_when_asked_to() {
    let (gateway, _origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send("GET /open/x HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    raw.response().await.expect(200);
    assert!(raw.is_closed_within(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_3_2_answers_to_pipelined_requests_come_in_order() {
    let (gateway, _origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send(
        "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nGET /open/x HTTP/1.1\r\nHost: a\r\n\r\nGET /me HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(raw.response().await.status);
    }
    assert_eq!(statuses, [404, 200, 401]);
}
