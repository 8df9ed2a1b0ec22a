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

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_bound_to_the_networks_and_pages_it_names() {
    let (gateway, origin) = scene::shop().await;
    let bound = |name: &str, networks: &str| KeySpec::new(name, "read:orders").option("--allowed-ips", networks);
    let near = gateway.key_of(bound("near", "10.0.0.0/8,127.0.0.0/8")).await;
    let far = gateway.key_of(bound("far", "10.0.0.0/8")).await;
    gateway.get("/v1/orders/7").bearer(&near).await.expect(200);
    origin.forget();
    gateway.get("/v1/orders/7").bearer(&far).await.refused(403, "ip_not_allowed");

    let page = KeySpec::new("page", "read:orders").kind("publishable");
    let page = gateway.key_of(page.option("--allowed-origins", "https://app.example.com")).await;
    let ask = || gateway.get("/v1/orders/7").bearer(&page);
    ask().await.refused(403, "origin_not_allowed");
    for other in ["https://evil.example.com", "https://app.example.com.evil.com", "null", "HTTPS://app.example.com"] {
        ask().header("Origin", other).await.refused(403, "origin_not_allowed");
    }
    ask()
        .header("Origin", "https://app.example.com")
        .header("Origin", "https://evil.example.com")
        .await
        .refused(403, "origin_not_allowed");
    origin.untouched();
    ask().header("Origin", "https://app.example.com").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_one_credential_and_half_of_it_is_none() {
    let routes =
        "  - { path: /pairs, upstream: shop, auth: any_key, accept: [{ header: Authorization, scheme: Basic }] }\n";
    let (gateway, origin) = scene::shop_with(routes, "").await;
    let pair = gateway.key_of(KeySpec::new("pair", "").flag("--paired")).await;
    let basic = |user: &str, password: &str| {
        use base64::Engine;
        let value = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        gateway.get("/pairs").header("Authorization", &format!("Basic {value}"))
    };
    basic(&pair.id, &pair.text).await.expect(200);
    assert!(!origin.last().has("authorization"));
    origin.forget();
    let other = gateway.key("other", "").await;
    for (user, password) in [(&pair.text, &String::new()), (&other.id, &pair.text), (&pair.id, &other.text)] {
        basic(user, password).await.refused(401, "invalid_key");
    }
    gateway.get("/me").bearer(&pair).await.refused(401, "invalid_key");
    origin.untouched();
}
