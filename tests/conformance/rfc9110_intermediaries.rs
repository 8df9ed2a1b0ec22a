//! RFC 9110, HTTP Semantics: what an intermediary must do.

use portcullis_testkit::Answer;

use super::shop;

#[tokio::test(flavor = "multi_thread")]
async fn s7_6_1_fields_nominated_by_connection_are_removed_in_both_directions() {
    let (gateway, origin) = shop().await;
    origin.answer(Answer::ok("x").header("connection", "x-hop").header("x-hop", "1").header("x-end", "1"));
    let mut raw = gateway.raw().await;
    raw.send("GET /open/x HTTP/1.1\r\nHost: shop.test\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\n\r\n").await;
    let answer = raw.response().await.expect(200);
    assert_eq!((answer.header("x-hop"), answer.header("x-end")), (None, Some("1")));
    let seen = origin.only();
    assert_eq!((seen.header("x-hop"), seen.header("x-end")), (None, Some("1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_6_2_max_forwards_zero_on_trace_is_not_forwarded() {
    let (gateway, origin) = shop().await;
    gateway.call("TRACE", "/open/x").header("max-forwards", "0").await.expect(405);
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_6_3_via_is_added_to_requests() {
    let (gateway, origin) = shop().await;
    gateway.get("/open/x").await.expect(200);
    assert!(origin.only().header("via").is_some_and(|via| via.starts_with("1.1 ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_6_1_an_answer_of_ours_has_a_date() {
    let (gateway, _origin) = shop().await;
    let refused = gateway.get("/me").await.expect(401);
    assert!(refused.header("date").is_some_and(|date| date.ends_with(" GMT")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s9_3_2_an_answer_to_head_has_the_fields_of_get_and_no_content() {
    let (gateway, origin) = shop().await;
    origin.answer(Answer::ok("twelve bytes").header("x-app", "1"));
    let answer = gateway.call("HEAD", "/open/x").await.expect(200);
    assert_eq!((answer.header("x-app"), answer.body.len()), (Some("1"), 0));
    let refused = gateway.call("HEAD", "/me").await.expect(401);
    assert!(refused.body.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_1_1_an_expectation_is_passed_on_or_answered() {
    let (gateway, origin) = shop().await;
    let mut raw = gateway.raw().await;
    raw.send("POST /open/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi").await;
    raw.response().await.expect(200);
    assert_eq!(origin.only().text(), "hi", "a client need not wait for the invitation");
}
