//! `/livez` and `/readyz`: on the metrics listener only, and about the key set alone.

use std::time::Duration;

use portcullis_testkit::{Site, eventually};

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

/// The configuration of a running gateway with this address where it had the system choose.
fn named(site: &Site, address: &str) {
    let text = std::fs::read_to_string(site.config_path()).unwrap();
    std::fs::write(site.config_path(), text.replace("metrics: { bind: \"127.0.0.1:0\" }", address)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verb_asks_where_the_configuration_says_and_ends_with_the_answer() {
    let (gateway, _origin) = scene::shop_with("", "shutdown: { delay: 30s }").await;
    let (address, port) = (gateway.metrics_address().to_string(), gateway.metrics_address().port());
    let _ = gateway.cli(&["health"]).await.exit(1).says(&["metrics.bind", "--address"]);
    assert_eq!(gateway.cli(&["health", "--address", &address]).await.success().stdout, "ok\n");
    named(gateway.site(), &format!("metrics: {{ bind: \"0.0.0.0:{port}\" }}"));
    for args in [&["health"][..], &["health", "--ready"], &["health", "--live"]] {
        let outcome = gateway.cli(args).await.success();
        assert_eq!(outcome.stderr, "", "{outcome:?}");
    }
    let _ = gateway.cli(&["health", "--ready", "--live"]).await.exit(2);
    let _ = gateway.cli(&["health", "--timeout", "2m"]).await.exit(2).says(&["1ms to 1m"]);

    // The gateway goes on by what it read before, and so does its health check.
    let text = std::fs::read_to_string(gateway.config_path()).unwrap();
    std::fs::write(gateway.config_path(), text + "\ncolour: blue\n").unwrap();
    let _ = gateway.cli(&["check"]).await.exit(3);
    let _ = gateway.cli(&["health"]).await.success();
    std::fs::write(gateway.config_path(), "metrics: { bind: \"${NOWHERE}\" }").unwrap();
    let _ = gateway.cli(&["health"]).await.exit(3).says(&["NOWHERE"]);

    gateway.terminate();
    eventually!("the verb says so too", gateway.cli(&["health", "--address", &address]).await.code == 1);
    let leaving = gateway.cli(&["health", "--address", &address]).await.exit(1).says(&["/readyz answers 503"]);
    assert_eq!((leaving.stdout.as_str(), leaving.stderr.lines().count()), ("", 1), "{leaving:?}");
    let _ = gateway.cli(&["health", "--live", "--address", &address]).await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verb_says_that_nobody_answers() {
    let (site, _origin) = scene::closed_shop().await;
    // A port that nobody listens on: taken and given back.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let outcome = site.cli(&["health", "--address", &address]).await.exit(1).says(&["no gateway answers", &address]);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let _ = site.cli(&["health", "--timeout", "50ms", "--address", &address]).await.exit(1).says(&["too long"]);
}
