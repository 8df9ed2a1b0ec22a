//! A shop builder: keys in the header where its users' tokens travel too, granular permissions, never in a browser.

use portcullis_testkit::eventually;

use super::Service;

const CONFIG: &str = r#"
scopes:
  orders:read: { title: Read orders }
  products:write: { title: Create and change products }
  customers:write: { title: Change customers }
routes:
  - { path: /orders/**, upstream: app, methods: { GET: { scopes: orders:read } } }
  - { path: /products/**, upstream: app, methods: { POST: { scopes: products:write } } }
  - { path: /customers/**, upstream: app, methods: { PATCH: { scopes: customers:write } } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_exactly_the_permissions_it_was_given_and_only_on_servers() {
    let service = Service::start(CONFIG).await;
    let gateway = &service.gateway;
    let site = gateway.site();
    let shipping = gateway.key("shipping", "orders:read").await;
    gateway.get("/orders/7").bearer(&shipping).await.expect(200);
    gateway.post("/products").bearer(&shipping).await.refused(403, "insufficient_scope");
    gateway.call("PATCH", "/customers/7").bearer(&shipping).await.refused(403, "insufficient_scope");

    // Shown once: nothing that can be asked later, and nothing on disk, has it.
    let shown = site.cli(&["keys", "show", &shipping.id]).await.success();
    assert!(!shown.everything().contains(&shipping.text));
    assert_eq!(site.vault().find_below(site.directory()), Vec::<String>::new());

    // In a browser it is refused, and the answer says why.
    let refused = gateway.get("/orders/7").bearer(&shipping).header("sec-fetch-site", "cross-site").await;
    let refused = refused.refused(403, "secret_key_in_browser");
    assert!(refused.json()["detail"].as_str().unwrap().contains("web page"), "{}", refused.text());

    // Invalidated and replaced at once, without touching the others.
    let reports = gateway.key("reports", "orders:read").await;
    let _revoked = site.cli(&["keys", "revoke", &shipping.id]).await.success();
    eventually!("the key is refused", gateway.get("/orders/7").bearer(&shipping).await.status == 401);
    gateway.get("/orders/7").bearer(&shipping).await.refused(401, "invalid_key");
    gateway.get("/orders/7").bearer(&reports).await.expect(200);
}
