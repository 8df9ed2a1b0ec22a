//! `/livez` and `/readyz`: on the metrics listener only, and about the key set alone.

use std::time::Duration;

use portcullis_testkit::eventually;

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_its_key_set_is_alive_and_ready() {
    let (gateway, _origin) = scene::shop().await;
    assert_eq!(gateway.health("/livez").await.0, 200);
    assert_eq!(gateway.health("/readyz").await.0, 200);
    assert_eq!(gateway.health("/nothing").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_does_not_depend_on_upstreams() {
    let gateway = scene::open_door("127.0.0.1:9", "").await;
    gateway.get("/").await.refused(502, "upstream_unreachable");
    assert_eq!(gateway.health("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_paths_are_no_free_pass_on_the_data_listener() {
    let (gateway, origin) = scene::shop().await;
    for path in ["/livez", "/readyz", "/metrics", "/health", "/ping"] {
        gateway.get(path).header("user-agent", "kube-probe/1.31").await.refused(404, "no_route");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaving_gateway_says_so_before_it_stops_accepting() {
    let (gateway, _origin) = scene::shop_with("", "shutdown: { delay: 3s }").await;
    gateway.terminate();
    eventually!("readiness is withdrawn", within Duration::from_secs(2), gateway.health("/readyz").await.0 == 503);
    assert_eq!(gateway.health("/livez").await.0, 200);
    gateway.get("/status").await.expect(200);
    assert_eq!(gateway.exited(Duration::from_secs(20)).await, 0);
}
