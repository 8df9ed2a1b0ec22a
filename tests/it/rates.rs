//! Rate limits and quotas. The limits here give back one request in a day, or in a minute where answers tell the time, so
//! that what a test counts does not depend on how long it takes.

use portcullis_testkit::{Answer, Connection, Gateway, Key, KeySpec, Origin, Response, eventually};

use crate::scene;

/// Live keys: twenty requests, then one a day. Test keys: five.
const BY_ENVIRONMENT: &str = "
environments:
  live: { rate_limit: { requests: 1, per: 24h, burst: 20 } }
  test: { rate_limit: { requests: 1, per: 24h, burst: 5 } }
";

/// A public route that limits by address, and two that limit by key.
const ROUTES: &str = r#"
  - { path: /sign-up, name: sign-up, upstream: shop, auth: none, rate_limit: { requests: 1, per: 24h, burst: 3, by: address } }
  - { path: /reports, name: reports, upstream: shop, auth: any_key, max_body: 1KiB, rate_limit: { requests: 1, per: 24h, burst: 4 } }
  - { path: /trial, name: trial, upstream: shop, mode: report, auth: any_key, rate_limit: { requests: 1, per: 24h, burst: 2 } }
"#;

async fn limited() -> (Gateway, Origin) {
    scene::shop_with(ROUTES, BY_ENVIRONMENT).await
}

/// How many of `requests`, one after the other, are not answered 429.
async fn accepted(gateway: &Gateway, path: &str, key: &Key, requests: usize) -> usize {
    let mut connection = Connection::h1(gateway.data()).await;
    let mut accepted = 0;
    for _ in 0..requests {
        let answer = connection.send(gateway.get(path).bearer(key)).await;
        accepted += usize::from(is_let_through(&answer));
    }
    accepted
}

fn is_let_through(answer: &Response) -> bool {
    assert!(answer.status == 200 || answer.status == 429, "{answer:?}");
    answer.status == 200
}

/// A number behind `mark` in a header field.
fn number(answer: &Response, name: &str, mark: &str) -> u64 {
    let value = answer.header(name).unwrap_or_else(|| panic!("no {name}: {answer:?}"));
    let rest = &value[value.find(mark).unwrap_or_else(|| panic!("no {mark} in {value}")) + mark.len()..];
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {mark} in {value}"))
}

fn names_no_limit(answer: &Response) -> bool {
    let names = ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    names.iter().all(|name| answer.header(name).is_none()) && answer.header("retry-after").is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_connections_together_get_what_one_key_may_have() {
    const MOST: usize = 300;
    let sections =
        format!("workers: 2\nenvironments: {{ live: {{ rate_limit: {{ requests: 1, per: 24h, burst: {MOST} }} }} }}");
    let (gateway, origin) = scene::shop_with("", &sections).await;
    let key = gateway.key("busy", "").await;
    let ask = async |h2: bool| {
        let address = gateway.data();
        let mut connection = if h2 { Connection::h2(address).await } else { Connection::h1(address).await };
        let mut accepted = 0;
        for _ in 0..60 {
            accepted += usize::from(is_let_through(&connection.send(gateway.get("/me").bearer(&key)).await));
        }
        accepted
    };
    let (a, b, c, d, e, f, g, h) =
        tokio::join!(ask(false), ask(true), ask(false), ask(true), ask(false), ask(true), ask(false), ask(true));
    assert_eq!(a + b + c + d + e + f + g + h, MOST);
    assert_eq!(origin.count(), MOST, "no refused request reaches the upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_where_its_caller_stands() {
    let sections =
        "environments: { live: { rate_limit: { requests: 2, per: 2m, burst: 3 }, quota: { per_day: 100 } } }";
    let (gateway, _origin) = scene::shop_with("", sections).await;
    let key = gateway.key("reader", "").await;
    for h2 in [false, true] {
        let call = gateway.get("/me").bearer(&key);
        let answer = if h2 { call.h2() } else { call }.await.expect(200);
        let remaining = if h2 { 1 } else { 2 };
        let policy = answer.header("ratelimit-policy").unwrap();
        assert_eq!(policy, "\"key\";q=3;w=180, \"key-day\";q=100;w=86400");
        let (more, midnight) = (number(&answer, "ratelimit", ";t="), number(&answer, "ratelimit", "\"key-day\";r="));
        assert!((50..=60).contains(&more) && midnight == 97 + remaining, "{answer:?}");
        let told = answer.header("ratelimit").unwrap();
        let form = format!("\"key\";r={remaining};t={more}, \"key-day\";r={midnight};t=");
        assert!(told.starts_with(&form) && (1..=86_400).contains(&number(&answer, "ratelimit", &form)), "{told}");
        assert!(answer.header("x-ratelimit-limit").is_none() && answer.header("retry-after").is_none(), "{answer:?}");
    }
    // A refusal of another kind says it too, when it came after the limits were asked.
    gateway.get("/me").bearer(&key).await.expect(200);
    let refused = gateway.get("/me").bearer(&key).await.refused(429, "rate_limited");
    assert_eq!(refused.header("ratelimit-policy").unwrap(), "\"key\";q=3;w=180, \"key-day\";q=100;w=86400");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&wait), "{refused:?}");
    let told = refused.header("ratelimit").unwrap();
    assert!(told.starts_with(&format!("\"key\";r=0;t={wait}, \"key-day\";r=97;t=")), "{told}");
    let line = gateway.access_line(&refused).await;
    assert_eq!((&line["reason"], &line["code"]), (&"rate_limited".into(), &"rate_limited".into()), "{line}");
    assert_eq!(line["key_id"], key.id.as_str(), "{line}");
    let metrics = gateway.metrics().await;
    let labels = [("environment", "live"), ("limit", "key"), ("route", "/me")];
    assert_eq!(metrics.value("portcullis_rate_limited_total", &labels), Some(1.0), "{}", metrics.text);
    let refused = [("result", "refused"), ("reason", "rate_limited")];
    assert_eq!(metrics.sum("portcullis_auth_decisions_total", &refused), 1.0, "{}", metrics.text);
    assert_eq!(metrics.value("portcullis_rate_meters", &[]), Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_comes_back_with_time() {
    let sections = "environments: { live: { rate_limit: { requests: 2, per: 1s, burst: 2 } } }";
    let (gateway, _origin) = scene::shop_with("", sections).await;
    let key = gateway.key("reader", "").await;
    let begun = std::time::Instant::now();
    let mut let_through = 0;
    while begun.elapsed() < std::time::Duration::from_secs(3) {
        let_through += accepted(&gateway, "/me", &key, 10).await;
    }
    let most = 2 + (begun.elapsed().as_secs_f64() * 2.0) as usize;
    assert!((6..=most).contains(&let_through), "{let_through} of at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_and_test_keys_have_limits_of_their_own_and_each_key_has_its_own_meter() {
    let (gateway, _origin) = limited().await;
    let (one, other) = (gateway.key("one", "").await, gateway.key("other", "").await);
    let trial = gateway.key_of(KeySpec::new("trial", "").environment("test")).await;
    assert_eq!(accepted(&gateway, "/me", &one, 30).await, 20);
    assert_eq!(accepted(&gateway, "/any/x", &one, 5).await, 0, "over all routes together");
    assert_eq!(accepted(&gateway, "/me", &trial, 30).await, 5);
    assert_eq!(accepted(&gateway, "/me", &other, 30).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_limits_says_nothing_of_limits() {
    let sections = "environments: { test: { quota: { per_month: 1 } } }";
    let (gateway, _origin) = scene::shop_with(ROUTES, sections).await;
    let key = gateway.key("free", "").await;
    for _ in 0..200 {
        let answer = gateway.get("/me").bearer(&key).await.expect(200);
        assert!(names_no_limit(&answer), "{answer:?}");
    }
    for call in [gateway.get("/status"), gateway.get("/nothing"), gateway.get("/me"), gateway.get("/sign-up/x")] {
        let answer = call.await;
        assert!(names_no_limit(&answer), "{answer:?}");
    }
    assert_eq!(gateway.metrics().await.value("portcullis_rate_meters", &[]), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_route_counts_addresses() {
    let (gateway, _origin) = limited().await;
    let from = async |address: &str, requests: usize| {
        let mut let_through = 0;
        for _ in 0..requests {
            let_through += usize::from(is_let_through(&gateway.get("/sign-up").from(address).await));
        }
        let_through
    };
    assert_eq!(from("127.0.0.8", 10).await, 3);
    assert_eq!(from("127.0.0.9", 10).await, 3);
    let refused = gateway.get("/sign-up").from("127.0.0.8").await.refused(429, "rate_limited");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"route\";q=3;w=259200"));
    let labels = [("environment", "none"), ("limit", "route"), ("route", "sign-up")];
    assert_eq!(gateway.metrics().await.value("portcullis_rate_limited_total", &labels), Some(15.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_those_that_trusted_proxies_tell_and_ipv6_counts_by_64() {
    let sections = "auth: { trusted_proxies: [127.0.0.1] }";
    let (gateway, _origin) = scene::shop_with(ROUTES, sections).await;
    let from = async |address: &str| gateway.get("/sign-up").header("x-forwarded-for", address).await;
    for host in 1..4 {
        from(&format!("2001:db8:0:1::{host}")).await.expect(200);
    }
    from("2001:db8:0:1:ffff::1").await.refused(429, "rate_limited");
    from("2001:db8:0:2::1").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_limits_have_to_allow_a_request_and_a_refused_one_takes_from_none() {
    let (gateway, origin) = limited().await;
    let key = gateway.key("reader", "").await;
    assert_eq!(accepted(&gateway, "/reports", &key, 50).await, 4, "the route's");
    assert_eq!(accepted(&gateway, "/me", &key, 50).await, 16, "what is left of the key's");
    assert_eq!(origin.count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_refused_for_another_reason_take_nothing() {
    let (gateway, _origin) = limited().await;
    let key = gateway.key("reader", "").await;
    for _ in 0..30 {
        gateway.post("/v1/orders/1").bearer(&key).await.refused(403, "insufficient_scope");
        gateway.post("/reports").bearer(&key).pattern(1025).await.refused(413, "body_too_large");
        gateway.get("/me").header("expect", "tea").bearer(&key).await.refused(417, "expectation_failed");
        gateway.get("/me").header("x-api-key", "stranger").await.refused(401, "invalid_key");
    }
    assert_eq!(accepted(&gateway, "/reports", &key, 30).await, 4);
    assert_eq!(accepted(&gateway, "/me", &key, 30).await, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn report_mode_lets_pass_what_a_limit_would_refuse_and_says_so() {
    let (gateway, origin) = limited().await;
    origin.tolerate_credentials();
    let key = gateway.key("reader", "").await;
    for _ in 0..2 {
        gateway.get("/trial").bearer(&key).await.expect(200);
        assert_eq!(origin.last().header("x-portcullis-auth"), Some("key"));
    }
    for _ in 0..10 {
        let answer = gateway.get("/trial").bearer(&key).await.expect(200);
        let seen = origin.last();
        assert_eq!(seen.header("x-portcullis-auth"), Some("reported"));
        assert!(!seen.has("x-portcullis-key-id") && seen.has("authorization"), "{seen:?}");
        assert!(answer.header("ratelimit").unwrap().contains("\"route\";r=0;t="), "{answer:?}");
        let line = gateway.access_line(&answer).await;
        assert_eq!((&line["mode"], &line["reason"]), (&"report".into(), &"rate_limited".into()), "{line}");
        assert_eq!(line["key_id"], key.id.as_str(), "{line}");
    }
    let metrics = gateway.metrics().await;
    let reported = [("result", "reported"), ("reason", "rate_limited"), ("route", "trial")];
    assert_eq!(metrics.sum("portcullis_auth_decisions_total", &reported), 10.0, "{}", metrics.text);
    assert_eq!(metrics.sum("portcullis_rate_limited_total", &[("route", "trial"), ("limit", "route")]), 10.0);
    assert_eq!(accepted(&gateway, "/me", &key, 30).await, 18, "what was only reported took nothing from the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_fields_can_be_had_instead_and_replace_an_upstreams() {
    let sections = format!("{BY_ENVIRONMENT}\nrate_limits: {{ headers: false, legacy_headers: true }}");
    let (gateway, origin) = scene::shop_with(ROUTES, &sections).await;
    let upstreams = Answer::ok("x").header("x-ratelimit-limit", "9").header("ratelimit", "\"theirs\";r=1;t=2");
    origin.answer(upstreams);
    let key = gateway.key("reader", "").await;
    let answer = gateway.get("/reports").bearer(&key).await.expect(200);
    let told = |answer: &Response, name: &str| answer.header_all(name).join("|");
    assert_eq!(told(&answer, "x-ratelimit-limit"), "4");
    assert_eq!(told(&answer, "x-ratelimit-remaining"), "3");
    assert!((86_000..=86_400).contains(&answer.header("x-ratelimit-reset").unwrap().parse::<u64>().unwrap()));
    assert_eq!(
        (told(&answer, "ratelimit"), told(&answer, "ratelimit-policy")),
        ("\"theirs\";r=1;t=2".into(), String::new())
    );
    let free = gateway.get("/status").await.expect(200);
    assert_eq!(told(&free, "x-ratelimit-limit"), "9", "where nothing is limited the upstream's own pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_requests_that_run_into_a_limit_get_status_8() {
    let (gateway, _origin) = limited().await;
    let key = gateway.key("reader", "").await;
    assert_eq!(accepted(&gateway, "/reports", &key, 10).await, 4);
    let call = gateway.post("/reports").bearer(&key).h2().header("content-type", "application/grpc");
    let answer = call.header("te", "trailers").await.expect(200);
    let told = answer.header("grpc-status").or_else(|| answer.trailer("grpc-status"));
    assert_eq!(told, Some("8"), "{answer:?}");
    assert!(answer.header("ratelimit").is_some() && answer.header("retry-after").is_some(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_reload_nor_a_change_of_the_key_refills_a_meter() {
    let (gateway, _origin) = limited().await;
    let key = gateway.key("reader", "").await;
    assert_eq!(accepted(&gateway, "/reports", &key, 50).await, 4);
    assert_eq!(accepted(&gateway, "/me", &key, 50).await, 16);
    let _ = gateway.cli(&["keys", "disable", &key.id]).await.success();
    eventually!("the key is off", gateway.get("/me").bearer(&key).await.status == 401);
    let _ = gateway.cli(&["keys", "enable", &key.id]).await.success();
    eventually!("the key is on again", gateway.get("/me").bearer(&key).await.status == 429);
    // Other limits, another path of the named route, another order, more routes.
    let routes = ROUTES.replace("/reports", "/monthly").replace("burst: 4 }", "burst: 5 }");
    let more = format!("  - {{ path: /first, upstream: shop, auth: none }}\n{routes}");
    let sections = BY_ENVIRONMENT.replace("per: 24h, burst: 20", "per: 12h, burst: 22");
    assert!(gateway.reload_with(&scene::shop_config(&more, &sections)).await);
    assert_eq!(accepted(&gateway, "/monthly", &key, 50).await, 1, "one more than before");
    assert_eq!(accepted(&gateway, "/me", &key, 50).await, 1, "two more than before, and one is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_outlive_a_restart_and_a_crash() {
    let sections = "rate_limits: { quota_flush: 100ms }\nenvironments: { live: { quota: { per_month: 10 } } }";
    let (gateway, origin) = scene::shop_with("", sections).await;
    let key = gateway.key("reader", "").await;
    // The counter of a month begins anew at its end, and this is no test of midnight.
    assert_eq!(accepted(&gateway, "/me", &key, 6).await, 6);
    assert_eq!(gateway.stop().await, 0, "an orderly stop writes what was counted last");
    let again = gateway.site().start().await;
    eventually!("the key is known", again.get("/status").await.status == 200);
    assert_eq!(accepted(&again, "/me", &key, 2).await, 2);
    // Longer than the interval at which counts are written.
    tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
    again.kill();
    let last = again.site().start().await;
    assert_eq!(accepted(&last, "/me", &key, 10).await, 2);
    let refused = last.get("/me").bearer(&key).await.refused(429, "quota_exceeded");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31 * 86_400).contains(&wait), "{refused:?}");
    assert!(refused.header("ratelimit").unwrap().starts_with("\"key-month\";r=0;t="), "{refused:?}");
    let labels = [("environment", "live"), ("limit", "key-month"), ("route", "/me")];
    let refusals = last.metrics().await.value("portcullis_rate_limited_total", &labels);
    assert_eq!(refusals, Some(9.0));
    assert_eq!(origin.count(), 11, "ten, and one for `/status`");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_lists_the_limits() {
    let sections =
        "environments: { live: { rate_limit: { requests: 5, per: 1s }, quota: { per_day: 9, per_month: 90 } } }";
    let origin = Origin::start().await;
    let site = scene::site(&scene::shop_config(ROUTES, sections)).upstream("shop", &origin).prepare();
    let told = site.cli(&["explain", "GET", "/reports", "--scopes", "", "--output", "json"]).await.success().json();
    assert_eq!(
        told["limits"],
        serde_json::json!([
            "5 requests in 1s, 5 at once, for each key",
            "9 requests a day and 90 requests a month, for each key",
            "1 request in 24h, 4 at once, for each key on this route",
        ])
    );
    let public = site.cli(&["explain", "GET", "/sign-up", "--output", "json"]).await.success().json();
    assert_eq!(
        public["limits"],
        serde_json::json!(["1 request in 24h, 3 at once, for each client address on this route"])
    );
    let refused = site.cli(&["explain", "GET", "/reports", "--output", "json"]).await.success().json();
    assert_eq!(refused["limits"], serde_json::json!([]));
}
