//! What the API tells of the use of keys, and to whom.

use portcullis_testkit::eventually;
use serde_json::{Value, json};

use super::Shop;

const ROUTES: &str = "
  - { path: /trial, upstream: shop, mode: report, scopes: write:orders, methods: { GET: {} } }
";

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_reads_of_its_own_keys_and_an_operator_of_all() {
    let shop = Shop::open_with(ROUTES, "sync: { last_used_flush: 1s }").await;
    shop.origin.tolerate_credentials();
    let acme = shop.tell("POST", "/v1/owners", &json!({ "name": "ACME" })).await.expect(201).json();
    let auditor = json!({ "name": "a", "kind": "management", "owner": acme["id"], "scopes": ["portcullis:usage"] });
    let auditor = shop.make(auditor).await;
    let scopes = json!(["read:orders", "write:orders"]);
    let own = shop.make(json!({ "name": "own", "owner": acme["id"], "scopes": scopes })).await;
    let foreign = shop.make(json!({ "name": "foreign", "scopes": ["read:orders"] })).await;
    for key in [&own, &foreign] {
        shop.gateway.get("/v1/orders/7").bearer(key).header("user-agent", "shop/1.0").await.expect(200);
    }
    shop.gateway.get("/trial").bearer(&foreign).await.expect(200);
    let ask = |caller, path: String| shop.tell_as(caller, "GET", &path, &Value::Null);
    let usage = async || ask(&auditor, format!("/v1/keys/{}/usage", own.id)).await.expect(200).json();
    eventually!("it is counted", usage().await["totals"]["allowed"] == 1);
    let told = usage().await;
    let bucket = &told["buckets"][0];
    assert_eq!((&bucket["rule"], &bucket["status"]), (&json!("GET /v1/orders/**"), &json!(200)), "{told}");
    assert_eq!((&bucket["result"], &bucket["requests"]), (&json!("allowed"), &json!(1)));
    assert_eq!(told["last_seen"]["user_agent"], "shop/1.0");
    ask(&auditor, format!("/v1/keys/{}/usage", foreign.id)).await.refused(404, "not_found");
    let later = ask(&auditor, format!("/v1/keys/{}/usage?since=2999-01-01", own.id)).await.expect(200).json();
    assert_eq!(later["totals"]["requests"], 0);
    let odd = ask(&auditor, format!("/v1/keys/{}/usage?until=yesterday", own.id)).await;
    assert_eq!(odd.refused(422, "invalid_value").json()["field"], "until");
    let report = async |caller| ask(caller, "/v1/usage/report".to_owned()).await.expect(200).json();
    eventually!("report mode's finding is written", report(&shop.operator).await["report_mode"][0]["requests"] == 1);
    let (all, owners) = (report(&shop.operator).await, report(&auditor).await);
    assert_eq!(all["report_mode"][0]["callers"][0]["key_id"], json!(foreign.id), "{all}");
    assert_eq!(owners["report_mode"], json!([]), "{owners}");
    for report in [&all, &owners] {
        let excess = report["excess_scopes"].as_array().unwrap();
        assert_eq!(excess.len(), 1, "{report}");
        assert_eq!((&excess[0]["id"], &excess[0]["suggested"]["scopes"]), (&json!(own.id), &json!(["read:orders"])));
    }
    let none = ask(&auditor, "/v1/usage/report?unused_for=0".to_owned()).await.expect(200).json();
    let unused = none["unused_keys"].as_array().unwrap().iter().map(|key| key["owner"].clone());
    assert_eq!(unused.collect::<Vec<_>>(), vec![acme["id"].clone(); 2], "{none}");
    ask(&auditor, "/v1/usage/report?unused_for=soon".to_owned()).await.refused(422, "invalid_value");
    assert_eq!(shop.gateway.site().vault().find_in(all.to_string().as_bytes()), None);
}
