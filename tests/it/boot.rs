//! Starting: what is announced, and how a start that cannot succeed says so.

use portcullis_testkit::{Call, Origin};

use crate::scene::{self, shop_config, site};

#[tokio::test(flavor = "multi_thread")]
async fn every_address_taken_is_announced_in_the_log() {
    let (gateway, _origin) = scene::shop().await;
    let announced = gateway.listening();
    for role in ["data", "admin", "metrics"] {
        let one = announced.iter().find(|one| one.role == role).unwrap_or_else(|| panic!("no {role}: {announced:?}"));
        let address: std::net::SocketAddr = one.address.parse().unwrap();
        assert!(address.ip().is_loopback() && address.port() != 0, "{one:?}");
    }
    assert_eq!(announced.iter().find(|one| one.role == "data").unwrap().listener, "front");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_answers() {
    let origin = Origin::start().await;
    let config = shop_config("", "").replace(
        r#"  - { bind: "127.0.0.1:0", name: front }"#,
        r#"  - { bind: "127.0.0.1:0", name: front }
  - { bind: "[::1]:0", name: six }
  - { bind: "unix:{{dir}}/door.sock", name: door }"#,
    );
    let gateway = site(&config).upstream("shop", &origin).start().await;
    gateway.get("/status").await.expect(200);
    let six = gateway.listener("six").await;
    assert!(six.is_ipv6());
    Call::to(six, "GET", "/status").await.expect(200);

    let door = tokio::net::UnixStream::connect(gateway.path("door.sock")).await.unwrap();
    let mut raw = portcullis_testkit::RawClient::over(door);
    raw.send("GET /status HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    raw.response().await.expect(200);
    assert_eq!(origin.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_and_its_directory_are_made_by_the_first_start() {
    let (site, _origin) = scene::closed_shop().await;
    assert!(!site.path("data").exists());
    let _gateway = site.start().await;
    assert!(site.path("data/portcullis.db").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_socket_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (gateway, _origin) = scene::shop().await;
    let mode = std::fs::metadata(gateway.path("data/portcullis.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_the_line_to_change() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = shop_config("", "").replacen("127.0.0.1:0", &address, 1);
    let outcome = site(&config).fill("shop", "127.0.0.1:9").prepare().cli(&["run"]).await;
    let _ = outcome.exit(1).says(&[&address, "in use", "listeners[0].bind"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_configuration_ends_the_start_with_3_and_its_place() {
    let config = shop_config("", "").replace("auth: none", "auth: nobody");
    let outcome = site(&config).fill("shop", "127.0.0.1:9").prepare().cli(&["run"]).await;
    let _ = outcome.exit(3).says(&["portcullis.yaml:", "nobody"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_ends_the_start_with_4() {
    let unreachable = site(&shop_config("", "store: { driver: sqlite, path: /proc/nowhere/portcullis.db }"))
        .fill("shop", "127.0.0.1:9")
        .prepare();
    let _ = unreachable.cli(&["run"]).await.exit(4).says(&["/proc/nowhere"]);

    let (damaged, _origin) = scene::closed_shop().await;
    damaged.write("data/portcullis.db", "this is no database, and never was one. ".repeat(200));
    let _ = damaged.cli(&["run"]).await.exit(4).says(&["data/portcullis.db"]);
    let _ = damaged.cli(&["keys", "list"]).await.exit(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_with_another_store_runs_beside_the_first() {
    let (first, _one) = scene::shop().await;
    let (second, _two) = scene::shop().await;
    assert_ne!(first.data(), second.data());
    first.get("/status").await.expect(200);
    second.get("/status").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_stands_where_the_management_socket_should_is_never_removed() {
    let origin = Origin::start().await;
    let config = shop_config("", "admin: { bind: \"127.0.0.1:0\", socket: notes.txt }");
    let gateway = site(&config).upstream("shop", &origin).file("notes.txt", "years of work").start().await;
    assert_eq!(std::fs::read_to_string(gateway.path("notes.txt")).unwrap(), "years of work");
    assert_eq!(gateway.stop().await, 0);
    assert_eq!(std::fs::read_to_string(gateway.path("notes.txt")).unwrap(), "years of work");
}
