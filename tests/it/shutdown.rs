//! Leaving: everything accepted is answered, and the process ends in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_testkit::{Answer, Connection, eventually, patient};

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_gateway_leaves_at_once() {
    let (gateway, _origin) = scene::shop().await;
    let started = Instant::now();
    assert_eq!(gateway.stop().await, 0);
    assert!(started.elapsed() < patient(Duration::from_secs(3)), "{:?}", started.elapsed());
    assert!(!gateway.path("data/portcullis.sock").exists(), "the socket is taken away");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_request_is_answered() {
    let (gateway, origin) = scene::shop().await;
    let (held, latch) = Answer::ok("finished").held();
    origin.answer_at("/open/held", held);
    let waiting: Vec<_> = (0..10)
        .map(|number| {
            let call = gateway.get("/open/held");
            tokio::spawn(if number % 2 == 0 { call.h2() } else { call }.into_future())
        })
        .collect();
    eventually!("all of them are under way", origin.count() == 10);
    gateway.terminate();
    eventually!("the door is closed", tokio::net::TcpStream::connect(gateway.data()).await.is_err());
    assert!(gateway.exit_code().is_none(), "it waits for its requests");
    latch.open();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().expect(200).text(), "finished");
    }
    assert_eq!(gateway.exited(Duration::from_secs(10)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_request_is_lost_and_connections_are_told_to_close() {
    let (gateway, _origin) = scene::shop_with("", "shutdown: { delay: 500ms }").await;
    let gateway = Arc::new(gateway);
    let load: Vec<_> = (0..4)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let mut answered = 0;
                'connections: loop {
                    let Ok(mut raw) =
                        tokio::net::TcpStream::connect(gateway.data()).await.map(portcullis_testkit::RawClient::over)
                    else {
                        return answered;
                    };
                    loop {
                        raw.send("GET /status HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
                        match raw.next().await {
                            Some(answer) => {
                                assert_eq!(answer.status, 200, "{answer:?}");
                                answered += 1;
                                if answer.header("connection") == Some("close") {
                                    continue 'connections;
                                }
                            }
                            // Between two requests an idle connection may be closed; the next connect tells.
                            None => continue 'connections,
                        }
                    }
                }
            })
        })
        .collect();
    eventually!("requests flow", gateway.metrics().await.sum("portcullis_http_requests_total", &[]) > 100.0);
    gateway.terminate();
    for task in load {
        assert!(task.await.unwrap() > 10);
    }
    assert_eq!(gateway.exited(Duration::from_secs(10)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_let_go_soon() {
    let (gateway, _origin) = scene::shop().await;
    let mut idle = Connection::h1(gateway.data()).await;
    idle.send(gateway.get("/status")).await.expect(200);
    gateway.terminate();
    assert_eq!(gateway.exited(Duration::from_secs(5)).await, 0);
    eventually!("the idle connection is closed", idle.is_gone());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_is_cut_at_the_deadline() {
    let (gateway, origin) = scene::shop_with("", "shutdown: { deadline: 1s }").await;
    let (held, _latch) = Answer::ok("never").held();
    origin.answer(held);
    let waiting = tokio::spawn(gateway.get("/open/x").attempt());
    eventually!("the origin was asked", origin.count() == 1);
    let started = Instant::now();
    let code = gateway.stop().await;
    let took = started.elapsed();
    assert_eq!(code, 0);
    assert!(took >= Duration::from_millis(900) && took < patient(Duration::from_secs(6)), "{took:?}");
    let cut = waiting.await.unwrap();
    assert!(cut.is_err() || cut.is_ok_and(|answer| answer.status >= 500), "nothing was ever answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let (gateway, origin) = scene::shop().await;
    let (held, _latch) = Answer::ok("never").held();
    origin.answer(held);
    let _waiting = tokio::spawn(gateway.get("/open/x").attempt());
    eventually!("the origin was asked", origin.count() == 1);
    gateway.terminate();
    eventually!("the door is closed", tokio::net::TcpStream::connect(gateway.data()).await.is_err());
    gateway.terminate();
    gateway.exited(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_never_spoke_does_not_hold_up_the_end() {
    let (gateway, _origin) = scene::shop_with("", "shutdown: { deadline: 20s }").await;
    let silent = tokio::net::TcpStream::connect(gateway.data()).await.unwrap();
    eventually!("it is let in", {
        gateway.metrics().await.sum("portcullis_connections", &[("listener", "front")]) == 1.0
    });
    gateway.terminate();
    assert_eq!(gateway.exited(Duration::from_secs(8)).await, 0);
    drop(silent);
}
