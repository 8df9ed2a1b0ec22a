//! The canary: a key is shown once and is then nowhere. Every test ends with this search; here it is provoked.

use std::time::Duration;

use portcullis_testkit::{Gateway, KeySpec, Site, eventually};
use rustix::process::Signal;

use crate::{scene, tools};

#[tokio::test(flavor = "multi_thread")]
async fn keys_used_in_every_way_are_found_nowhere_afterwards() {
    let (gateway, _origin) = scene::shop_with(
        "  - { path: \"/every/**\", upstream: shop, auth: any_key, accept: [{ header: X-API-Key }, { cookie: k }, { query: k }] }\n",
        "logging: { format: json, level: trace }",
    )
    .await;
    let key = gateway.key("used", "read:orders").await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    gateway.post("/v1/orders/1").bearer(&key).await.expect(403);
    gateway.get("/nothing").bearer(&key).await.expect(404);
    gateway.get("/status").bearer(&key).await.expect(200);
    gateway.get("/v1/orders/1").bearer(&key).api_key(&key).await.expect(400);
    gateway.get("/every/1").header("cookie", &format!("k={}", key.text)).await.expect(200);
    gateway.get(&format!("/every/1?k={}", key.text)).await.expect(200);
    gateway.get(&format!("/every/1?k={0}&k={0}", key.text)).await.expect(400);
    // Pieces of a request that cannot be read at all.
    for text in [
        format!("GET /open/x HTTP/1.1\r\nHost: shop.test\r\nAuthorization : Bearer {}\r\n\r\n", key.text),
        format!("GET /open/x HTTP/9.1\r\nAuthorization: Bearer {}\r\n\r\n", key.text),
        format!("{}\r\n\r\n", key.text),
    ] {
        let mut raw = gateway.raw().await;
        raw.send(text).await;
        raw.all().await;
    }
    for args in [["keys", "list"], ["keys", "show"], ["config", "show"], ["routes", "list"]] {
        let mut args = args.to_vec();
        if args[1] == "show" && args[0] == "keys" {
            args.push(&key.id);
        }
        let _ = gateway.cli(&args).await.success();
    }
    let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
    eventually!("the key is refused", gateway.get("/v1/orders/1").bearer(&key).await.status == 401);
    assert!(gateway.logs().text().len() > 1000, "at this level there is much to search");
    // The search itself happens when the gateway is dropped.
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_of_the_store_would_find_a_secret() {
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.create(KeySpec::new("a-name-to-be-found", "")).await;
    let probe = portcullis_testkit::Vault::default();
    probe.keep("a-name-to-be-found");
    assert!(!probe.find_below(&gateway.path("data")).is_empty(), "names are stored, so the search sees the rows");
    assert!(gateway.vault().find_below(&gateway.path("data")).is_empty(), "{} is not", key.prefix);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_the_configuration_are_shown_nowhere() {
    let origin = portcullis_testkit::Origin::start().await;
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  shop:
    targets: [{ url: "http://{{shop}}" }]
    headers: { set: { Authorization: "Bearer ${BACKEND_TOKEN}" } }
auth: { peppers: [{ id: one, secret: "${file:pepper}" }] }
routes: [{ path: "/**", upstream: shop, auth: any_key }]
"#;
    let gateway = scene::site(config)
        .upstream("shop", &origin)
        .env("BACKEND_TOKEN", "backend-token-4711")
        .file("pepper", "pepper-of-thirty-two-characters!")
        .start()
        .await;
    origin.tolerate_credentials();
    let key = gateway.key("caller", "").await;
    gateway.get("/x").bearer(&key).await.expect(200);
    assert_eq!(origin.only().header("authorization"), Some("Bearer backend-token-4711"));
    gateway.vault().keep("backend-token-4711");
    gateway.vault().keep("pepper-of-thirty-two-characters!");
    for args in
        [&["config", "show"][..], &["config", "show", "--effective"], &["config", "show", "--origin"], &["check"]]
    {
        let _ = gateway.cli(args).await.success();
    }
    gateway.rewrite_config(&config.replace("any_key", "nobody"));
    let _ = gateway.cli(&["check"]).await.exit(3);
    let _ = gateway.cli(&["reload"]).await.exit(3);
}

/// Ends a process of this name in the way that leaves a core file, once it waits for something, and says whether it did.
async fn leaves_a_core(process: &Gateway, name: &str) -> bool {
    let waits = format!("({name}) S");
    eventually!("it waits", {
        std::fs::read_to_string(format!("/proc/{}/stat", process.process_id())).is_ok_and(|stat| stat.contains(&waits))
    });
    process.signal(Signal::ABORT);
    process.exited(Duration::from_secs(10)).await;
    process.left_a_core()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_no_core_file_of_a_gateway_or_of_a_verb() {
    let Some(prlimit) = tools::find("prlimit") else { return };
    let unlimited = ["--core=unlimited"];
    let other = Site::with("/bin/sh").under(&prlimit, &unlimited).prepare().launch_waiting(&["-c", "read nothing"]);
    if !leaves_a_core(&other, "sh").await {
        // Nothing leaves one here, so this would show nothing.
        return;
    }
    let origin = portcullis_testkit::Origin::start().await;
    let site = scene::site(&scene::shop_config("", "")).upstream("shop", &origin).under(&prlimit, &unlimited).prepare();
    let gateway = site.start().await;
    assert!(!leaves_a_core(&gateway, "portcullis").await);
    // It reads a key from its standard input, where none comes.
    let config = site.config_path();
    let verb = site.launch_waiting(&["-c", config.to_str().unwrap(), "keys", "verify"]);
    assert!(!leaves_a_core(&verb, "portcullis").await);
}
