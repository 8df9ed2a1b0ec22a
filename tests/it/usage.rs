//! What is seen of the use of keys: counted, kept across restarts, and told to who may ask.

use portcullis_testkit::{Answer, Gateway, Key, KeySpec, Origin, eventually};
use serde_json::{Value, json};

use crate::scene;

/// Written every second; the client's address is what a trusted proxy says.
const SECTIONS: &str = "
sync: { last_used_flush: 1s }
auth: { trusted_proxies: [127.0.0.1] }
";

/// A route that reports, and one that limits.
const ROUTES: &str = r#"
  - { path: /trial, name: trial, upstream: shop, mode: report, methods: { GET: { scopes: write:orders } } }
  - { path: /slow, upstream: shop, auth: any_key, rate_limit: { requests: 1, per: 24h, burst: 1 } }
"#;

async fn shop() -> (Gateway, Origin) {
    scene::shop_with(ROUTES, SECTIONS).await
}

/// What the command line tells of a key.
async fn usage(gateway: &Gateway, key: &Key) -> Value {
    gateway.cli(&["keys", "usage", &key.id, "--output", "json"]).await.success().json()
}

async fn report(gateway: &Gateway) -> Value {
    gateway.cli(&["usage", "report", "--output", "json"]).await.success().json()
}

/// Requests by rule, status and result, added up over hours: an hour may end in the middle of a test.
fn counts(usage: &Value) -> Vec<String> {
    let mut sums = std::collections::BTreeMap::<String, u64>::new();
    for bucket in usage["buckets"].as_array().unwrap() {
        assert_eq!(bucket["span"], "hour", "{bucket}");
        let text = |field: &str| bucket[field].as_str().unwrap().to_owned();
        let name = format!("{} {} {}", text("rule"), bucket["status"], text("result"));
        *sums.entry(name).or_default() += bucket["requests"].as_u64().unwrap();
    }
    sums.into_iter().map(|(name, requests)| format!("{name} {requests}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_status_and_survive_a_restart() {
    let (gateway, origin) = shop().await;
    origin.answer_at("/v1/orders/404", Answer::status(404));
    let key = gateway.key("reader", "read:orders").await;
    for _ in 0..3 {
        gateway.get("/v1/orders/7?page=1").bearer(&key).header("user-agent", "shop-app/1.0").await.expect(200);
    }
    gateway.get("/v1/orders/404").bearer(&key).await.expect(404);
    gateway.post("/v1/orders").bearer(&key).await.refused(403, "insufficient_scope");
    gateway.get("/slow").bearer(&key).await.expect(200);
    gateway.get("/slow").bearer(&key).await.refused(429, "rate_limited");
    // Neither a stranger nor a public route leaves anything.
    gateway.get("/v1/orders/7").header("authorization", "Bearer nonsense").await.refused(401, "invalid_key");
    gateway.get("/status").await.expect(200);
    let _ = gateway.cli(&["keys", "disable", &key.id]).await.success();
    eventually!("the key is refused", {
        let answer = gateway.get("/me").bearer(&key).await;
        answer.status == 401
    });
    let expected = [
        "* /slow 200 allowed 1",
        "* /slow 429 refused 1",
        "GET /v1/orders/** 200 allowed 3",
        "GET /v1/orders/** 404 allowed 1",
        "POST /v1/orders/** 403 refused 1",
    ];
    let of_orders =
        |usage: &Value| counts(usage).into_iter().filter(|count| !count.contains("/me")).collect::<Vec<_>>();
    eventually!("the counts are written", of_orders(&usage(&gateway, &key).await) == expected);
    // What came since is written when the process leaves.
    gateway.get("/v1/orders/7").bearer(&key).header("user-agent", "last/2.0").await.refused(401, "invalid_key");
    assert_eq!(gateway.stop().await, 0);
    let after = usage(&gateway, &key).await;
    assert!(counts(&after).contains(&"GET /v1/orders/** 401 refused 1".to_owned()), "{after}");
    assert_eq!(after["last_seen"]["user_agent"], "last/2.0");
    assert_eq!(after["last_seen"]["address"], "127.0.0.1");
    assert_eq!(after["networks"][0]["network"], "127.0.0.0/24");
    assert_eq!(after["totals"]["allowed"], json!(counts_of(&after, "allowed")));
    let again = gateway.site().start().await;
    assert_eq!(counts(&usage(&again, &key).await), counts(&after), "a restart counts nothing anew");
    let table = again.cli(&["keys", "usage", &key.id]).await.success();
    assert!(table.stdout.contains("GET /v1/orders/**") && table.stdout.contains("last/2.0"), "{}", table.stdout);
    assert_eq!(gateway.site().vault().find_below(gateway.site().directory()), Vec::<String>::new());
}

async fn table_of(gateway: &Gateway, more: &[&str]) -> String {
    gateway.cli(&[&["usage", "report"], more].concat()).await.success().stdout
}

fn counts_of(usage: &Value, result: &str) -> u64 {
    let buckets = usage["buckets"].as_array().unwrap();
    buckets.iter().filter(|bucket| bucket["result"] == result).map(|bucket| bucket["requests"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_meaning_of_no_count() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("reader", "read:orders").await;
    gateway.get("/v1/orders/7").bearer(&key).await.expect(200);
    let first = r#"
  - { path: /aaa, upstream: shop, auth: any_key }
"#;
    let config = scene::shop_config(&format!("{ROUTES}{first}"), SECTIONS);
    let config = config.replace(
        "  - path: /v1/orders/**",
        "  - { path: /first, upstream: shop, auth: any_key }\n  - path: /v1/orders/**",
    );
    assert!(gateway.reload_with(&config).await);
    gateway.get("/first").bearer(&key).await.expect(200);
    gateway.get("/v1/orders/7").bearer(&key).await.expect(200);
    let expected = ["* /first 200 allowed 1", "GET /v1/orders/** 200 allowed 2"];
    eventually!("the counts are written", counts(&usage(&gateway, &key).await) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_use_is_told_once() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("reader", "read:orders").await;
    let from = |address: &str| gateway.get("/me").bearer(&key).header("x-forwarded-for", address);
    let events = async || -> Vec<String> {
        let usage = usage(&gateway, &key).await;
        let events = usage["events"].as_array().unwrap().iter();
        events.map(|event| format!("{} {}", event["event"].as_str().unwrap(), event["address"])).collect()
    };
    from("192.0.2.1").await.expect(200);
    eventually!("the first network is known", usage(&gateway, &key).await["networks"].as_array().unwrap().len() == 1);
    from("198.51.100.7").await.expect(200);
    eventually!("a new network is told", events().await == ["new_network \"198.51.100.7\""]);
    let leak = || from("198.51.100.7").header("sec-fetch-mode", "cors");
    leak().await.refused(403, "secret_key_in_browser");
    eventually!("a browser is told", events().await.len() == 2);
    for _ in 0..120 {
        gateway.post("/v1/orders").bearer(&key).header("x-forwarded-for", "192.0.2.9").await.expect(403);
    }
    eventually!("refusals are told", events().await.len() == 3);
    leak().await.refused(403, "secret_key_in_browser");
    from("192.0.2.77").await.expect(200);
    gateway.post("/v1/orders").bearer(&key).header("x-forwarded-for", "192.0.2.9").await.expect(403);
    eventually!("all of it is written", usage(&gateway, &key).await["totals"]["requests"] == 126);
    let told = ["many_refusals", "secret_key_in_browser", "new_network"];
    let found = events().await;
    assert!(found.len() == 3 && found.iter().zip(told).all(|(found, told)| found.starts_with(told)), "{found:?}");
    let lines = || gateway.logs().events_saying("unusual use of a key");
    eventually!("all of it is logged", lines().len() >= 3);
    let lines = lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!((&lines[0]["event"], &lines[0]["level"]), (&json!("new_network"), &json!("warn")));
    assert_eq!((&lines[0]["key_id"], &lines[0]["address"]), (&json!(key.id), &json!("198.51.100.7")));
    let metrics = gateway.metrics().await;
    for event in told {
        assert_eq!(metrics.value("portcullis_events_total", &[("event", event)]), Some(1.0), "{}", metrics.text);
    }
    let report = report(&gateway).await;
    assert_eq!(report["events"].as_array().unwrap().len(), 3, "{report}");
    assert_eq!(gateway.site().vault().find_in(report.to_string().as_bytes()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_names_what_is_not_used_not_needed_and_not_ready() {
    let (gateway, origin) = shop().await;
    // Report mode leaves the credential alone.
    origin.tolerate_credentials();
    let busy = gateway.key("busy", "read:orders,write:orders").await;
    let idle = gateway.key("idle", "read:orders").await;
    let early = gateway.key_of(KeySpec::new("lacking", "read:orders")).await;
    gateway.get("/v1/orders/7").bearer(&busy).await.expect(200);
    gateway.get("/v1/orders/7").bearer(&early).await.expect(200);
    gateway.get("/trial").bearer(&early).await.expect(200);
    gateway.get("/trial").header("x-forwarded-for", "203.0.113.9").await.expect(200);
    let trial = async || report(&gateway).await["report_mode"].clone();
    eventually!("what report mode found is written", trial().await[0]["requests"] == 2);
    let found = trial().await;
    assert_eq!((&found[0]["rule"], &found[0]["ready"]), (&json!("GET /trial"), &json!(false)), "{found}");
    let caller = |reason: &str| {
        let callers = found[0]["callers"].as_array().unwrap();
        callers.iter().find(|caller| caller["reason"] == reason).unwrap_or_else(|| panic!("{found}")).clone()
    };
    let lacking = caller("insufficient_scope");
    assert_eq!((&lacking["key_id"], &lacking["key_name"]), (&json!(early.id), &json!("lacking")));
    assert_eq!((&lacking["missing_scopes"], &lacking["requests"]), (&json!(["write:orders"]), &json!(1)));
    let nobody = caller("missing_credential");
    assert_eq!((&nobody["key_id"], &nobody["network"]), (&Value::Null, &json!("203.0.113.0/24")));
    let whole = report(&gateway).await;
    assert_eq!(whole["unused_keys"], json!([]), "{whole}");
    let excess = whole["excess_scopes"].as_array().unwrap();
    assert_eq!(excess.len(), 1, "{whole}");
    assert_eq!((&excess[0]["id"], &excess[0]["used"]), (&json!(busy.id), &json!(["read:orders"])));
    assert_eq!(excess[0]["excess"], json!({ "scopes": ["write:orders"], "roles": [] }));
    assert_eq!(excess[0]["suggested"], json!({ "scopes": ["read:orders"], "roles": [] }));
    let unused = async || {
        let args = ["usage", "report", "--unused-for", "1s", "--output", "json"];
        let report = gateway.cli(&args).await.success().json();
        let keys = report["unused_keys"].as_array().unwrap().clone();
        keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually!("who was never used is unused", unused().await.contains(&"idle".to_owned()));
    assert!(table_of(&gateway, &["--unused-for", "1s"]).await.contains(&idle.id));
    let table = table_of(&gateway, &[]).await;
    for word in ["GET /trial", "lacking", "write:orders", "203.0.113.0/24", "busy"] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    let _ = gateway.cli(&["usage", "report", "--unused-for", "soon"]).await.exit(2).says(&["--unused-for"]);
    let _ = gateway.cli(&["keys", "usage", "key_00000000000000000000000000000000"]).await.exit(1);
    assert_eq!(gateway.site().vault().find_in(whole.to_string().as_bytes()), None);
}
