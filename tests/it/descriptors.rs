//! Few descriptors: clients are turned away, and nobody else notices.

use std::time::{Duration, Instant};

use portcullis_testkit::{Call, Connection, Facts, Gateway, KeySpec, Origin, eventually, patient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{scene, tools};

/// The shop, with this many descriptors; none where the tool is missing.
async fn shop_with_descriptors(soft: usize, hard: usize) -> Option<(Gateway, Origin)> {
    let prlimit = tools::find("prlimit")?;
    let origin = Origin::start().await;
    // Files that come and go would be counted with the sockets.
    let sections = "workers: 1\nsync: { snapshot: { enabled: false } }";
    let site = scene::site(&scene::shop_config("", sections)).upstream("shop", &origin);
    Some((site.under(&prlimit, &[&format!("--nofile={soft}:{hard}")]).start().await, origin))
}

/// One more client: what it is told, if that is anything, and its connection.
async fn crowd_in(gateway: &Gateway) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(gateway.data()).await.unwrap();
    let _ = stream.write_all(b"GET /status HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let mut said = [0; 12];
    let read = tokio::time::timeout(patient(Duration::from_secs(5)), stream.read_exact(&mut said)).await;
    let said = if matches!(read, Ok(Ok(_))) { String::from_utf8_lossy(&said).into_owned() } else { String::new() };
    (said, stream)
}

/// The first number that the process's next descriptor could have.
fn lowest_free(pid: &str) -> usize {
    let is_open = |number: &usize| std::fs::read_link(format!("/proc/{pid}/fd/{number}")).is_ok();
    (0..).find(|number| !is_open(number)).unwrap()
}

/// The number of the descriptor that is kept for those who are turned away: `/dev/null`, like standard input.
fn spare_of(pid: &str) -> usize {
    let is_spare = |number: &usize| {
        std::fs::read_link(format!("/proc/{pid}/fd/{number}")).is_ok_and(|to| to == std::path::Path::new("/dev/null"))
    };
    (3..256).find(is_spare).expect("one is kept")
}

#[tokio::test(flavor = "multi_thread")]
async fn few_descriptors_shed_clients_and_kill_nobody() {
    let Some((gateway, origin)) = shop_with_descriptors(256, 256).await else { return };
    let customer = gateway.key("customer", "read:orders").await;
    let doomed = gateway.key("doomed", "read:orders").await;
    let operator = gateway.key_of(KeySpec::new("operator", "portcullis:keys").kind("management")).await;
    let mut connected = Connection::h1(gateway.data()).await;
    connected.send(gateway.get("/v1/orders/1").bearer(&customer)).await.expect(200);
    connected.send(gateway.get("/v1/orders/1").bearer(&doomed)).await.expect(200);

    let mut crowd = Vec::new();
    let (mut served, mut told) = (0, 0);
    for _ in 0..1_000 {
        let (said, stream) = crowd_in(&gateway).await;
        match said.as_str() {
            "HTTP/1.1 200" => served += 1,
            "HTTP/1.1 503" => told += 1,
            // A connection that is reset says the same.
            _ => {}
        }
        crowd.push(stream);
    }
    assert!(served >= 50 && told >= 800, "{served} were served, and {told} told that there is no room");
    let shed = gateway.metrics().await.sum("portcullis_connections_shed_total", &[("reason", "descriptors")]);
    assert!(shed >= 800.0, "{shed} were counted");

    assert_eq!(gateway.health("/readyz").await.0, 200);
    connected.send(gateway.get("/v1/orders/2").bearer(&customer)).await.expect(200);
    let revoke = Call::to(gateway.admin_address(), "DELETE", &format!("/v1/keys/{}", doomed.id));
    revoke.watching(gateway.vault()).bearer(&operator).await.expect(200);
    let begun = Instant::now();
    while connected.attempt(gateway.get("/v1/orders/1").bearer(&doomed)).await.unwrap().status != 401 {
        assert!(begun.elapsed() < patient(Duration::from_secs(1)), "a revocation takes effect");
    }
    // It needs a connection of its own to the upstream, and gets one.
    origin.close_connections();
    connected.send(gateway.get("/v1/orders/3").bearer(&customer)).await.expect(200);
    let healthy = gateway.metrics().await.value("portcullis_upstream_healthy", &[]);
    assert_eq!(healthy, Some(1.0));
    assert!(gateway.exit_code().is_none());

    drop(crowd);
    eventually!(
        "it recovers",
        within Duration::from_secs(1),
        gateway.get("/status").facts(Facts::none()).attempt().await.is_ok_and(|answer| answer.status == 200)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let Some((gateway, _origin)) = shop_with_descriptors(128, 512).await else { return };
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.process_id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["512", "512"], "{line}");
    let warning = "the configuration allows for more connections than there are descriptors: clients beyond are answered \
                   503; raise the hard limit (`LimitNOFILE` of systemd, `ulimit -Hn`), or lower \
                   `limits.connections_per_listener`";
    eventually!("it is told", gateway.logs().events_saying(warning).len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_while_no_descriptor_is_left_is_told_so() {
    let Some((gateway, origin)) = shop_with_descriptors(512, 512).await else { return };
    let prlimit = tools::find("prlimit").unwrap();
    let pid = gateway.process_id().to_string();
    let mut connected = Connection::h1(gateway.data()).await;
    connected.send(gateway.get("/nothing")).await.expect(404);
    // From here on the system itself says no: the next number is the first that may not be.
    // The spare one has to be below it, as all are where nobody lowers the limit: what is free below that is filled.
    let spare = spare_of(&pid);
    let mut idle = Vec::new();
    while lowest_free(&pid) < spare {
        let before = lowest_free(&pid);
        idle.push(TcpStream::connect(gateway.data()).await.unwrap());
        eventually!("it is accepted", lowest_free(&pid) > before);
    }
    // A file that is open for a moment only, behind which its number is free again, does not count.
    let mut open = lowest_free(&pid);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        open = open.min(lowest_free(&pid));
    }
    let (code, said) = tools::run(&prlimit, &["--pid", &pid, &format!("--nofile={open}:512")], "").await;
    assert_eq!(code, 0, "{said}");
    let answer = connected.send(gateway.get("/status")).await.refused(503, "upstream_busy");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    origin.untouched();
    let (said, _stream) = crowd_in(&gateway).await;
    assert_eq!(said, "HTTP/1.1 503");

    let (code, said) = tools::run(&prlimit, &["--pid", &pid, "--nofile=512:512"], "").await;
    assert_eq!(code, 0, "{said}");
    eventually!("it recovers", within Duration::from_secs(2), gateway.get("/status").attempt().await.is_ok_and(|answer| answer.status == 200));
    let healthy = gateway.metrics().await.value("portcullis_upstream_healthy", &[]);
    assert_eq!(healthy, Some(1.0), "our own trouble is not the upstream's");
}
