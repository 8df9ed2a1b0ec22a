//! The wall clock jumps: `libfaketime` sets that of the gateway, and leaves the monotonic one alone.

use std::time::Duration;

use portcullis_testkit::{Gateway, KeySpec, eventually};

use crate::{scene, tools};

/// The shop, with a clock that can be set, and the file that sets it.
async fn shop_with_a_clock() -> Option<(Gateway, impl Fn(&str))> {
    let library = tools::library("faketime/libfaketime.so.1")?;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("clock");
    std::fs::write(&file, "+0").unwrap();
    let origin = portcullis_testkit::Origin::start().await;
    let gateway = scene::site(&scene::shop_config("", ""))
        .upstream("shop", &origin)
        .env("LD_PRELOAD", library.to_str().unwrap())
        .env("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start()
        .await;
    let set = move |offset: &str| {
        // The file goes with the closure, and so does the origin.
        let _kept = (&directory, &origin);
        std::fs::write(&file, offset).unwrap();
    };
    Some((gateway, set))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_brings_no_expired_key_back() {
    let Some((gateway, set)) = shop_with_a_clock().await else { return };
    let lasting = gateway.key("lasting", "read:orders").await;
    let brief = gateway.key_of(KeySpec::new("brief", "read:orders").expires_in("2s")).await;
    let status = async |key| gateway.get("/v1/orders/7").bearer(key).await.status;
    eventually!("the key has expired", status(&brief).await == 401);
    set("-30d");
    for _ in 0..20 {
        assert_eq!((status(&brief).await, status(&lasting).await), (401, 200));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually!("it is told", gateway.logs().text().contains("the wall clock went back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_forwards_ends_keys_at_once_and_no_longer_than_it_lasts() {
    let Some((gateway, set)) = shop_with_a_clock().await else { return };
    let key = gateway.key_of(KeySpec::new("for a day", "read:orders").expires_in("1d")).await;
    let status = async || gateway.get("/v1/orders/7").bearer(&key).await.status;
    assert_eq!(status().await, 200);
    set("+2d");
    eventually!("the key has expired by this clock", status().await == 401);
    set("+0");
    eventually!("it was wrong", status().await == 200);
}
