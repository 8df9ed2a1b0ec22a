//! Kinds, environments and addresses: who may use a valid key where.

use portcullis_testkit::KeySpec;

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn the_kind_and_environment_stand_in_the_key() {
    let (gateway, _origin) = scene::shop().await;
    for (kind, environment, fixed) in [
        ("secret", "live", "pc_live_sk_"),
        ("publishable", "live", "pc_live_pk_"),
        ("management", "live", "pc_live_mk_"),
        ("secret", "test", "pc_test_sk_"),
    ] {
        let key = gateway.create(KeySpec::new(kind, "").kind(kind).environment(environment)).await;
        assert!(portcullis_testkit::key_text::is_well_formed(&key.text, fixed), "{kind} {environment}");
        assert_eq!(key.prefix, key.text[..fixed.len() + 8], "the prefix is the fixed part and eight characters");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_management_key_never_reaches_an_upstream() {
    let (gateway, origin) = scene::shop().await;
    let operator = gateway.key_of(KeySpec::new("operator", "read:orders").kind("management")).await;
    gateway.get("/v1/orders/7").bearer(&operator).await.refused(403, "kind_not_allowed");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publishable_key_changes_nothing_unless_the_route_says_so() {
    let routes = "  - { path: /form, upstream: shop, auth: any_key, publishable_unsafe_methods: true }\n";
    let (gateway, _origin) = scene::shop_with(routes, "").await;
    let page = gateway.key_of(KeySpec::new("page", "read:orders,write:orders").kind("publishable")).await;
    gateway.get("/v1/orders/7").bearer(&page).await.expect(200);
    gateway.post("/v1/orders/7").bearer(&page).await.refused(403, "kind_not_allowed");
    gateway.post("/form").bearer(&page).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_serves_the_environments_it_names() {
    let routes = "  - { path: /live-only, upstream: shop, auth: any_key, environments: [live] }\n";
    let (gateway, origin) = scene::shop_with(routes, "").await;
    let live = gateway.key("live", "").await;
    let test = gateway.key_of(KeySpec::new("test", "").environment("test")).await;
    gateway.get("/live-only").bearer(&live).await.expect(200);
    gateway.get("/live-only").bearer(&test).await.refused(403, "environment_not_allowed");
    gateway.get("/me").bearer(&test).await.expect(200);
    assert_eq!(origin.last().header("x-portcullis-environment"), Some("test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_can_have_an_upstream_of_its_own() {
    let (live, sandbox) = (portcullis_testkit::Origin::start().await, portcullis_testkit::Origin::start().await);
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  live: { targets: [{ url: "http://{{live}}" }] }
  sandbox: { targets: [{ url: "http://{{sandbox}}" }] }
environments: { live: {}, test: { word: probe, upstream: sandbox } }
routes: [{ path: "/**", upstream: live, auth: any_key }]
"#;
    let gateway = scene::site(config).upstream("live", &live).upstream("sandbox", &sandbox).start().await;
    let real = gateway.key("real", "").await;
    let trial = gateway.key_of(KeySpec::new("trial", "").environment("test")).await;
    assert!(trial.text.starts_with("pc_probe_sk_"));
    gateway.get("/x").bearer(&real).await.expect(200);
    gateway.get("/x").bearer(&trial).await.expect(200);
    assert_eq!((live.count(), sandbox.count()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_serves_the_addresses_it_names() {
    let routes = "  - { path: /near, upstream: shop, auth: any_key, allow_ips: [127.0.0.2/32, 10.0.0.0/8] }\n";
    let (gateway, origin) = scene::shop_with(routes, "").await;
    let key = gateway.key("key", "").await;
    gateway.get("/near").bearer(&key).await.refused(403, "ip_not_allowed");
    gateway.get("/near").bearer(&key).header("x-forwarded-for", "10.0.0.1").await.refused(403, "ip_not_allowed");
    origin.untouched();
    gateway.get("/near").bearer(&key).from("127.0.0.2").await.expect(200);
}
