//! Answers as hyper's client sees them through the guard.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::hyper_server::run;
use super::{AnswerGuard, AnswerLimits, Fault, UpgradeWanted};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn request(method: &Method) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri("/").header("host", "a").body(Empty::new()).unwrap()
}

/// Reads one request and answers with `answer`.
async fn answer(upstream: &mut DuplexStream, answer: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(upstream.read_u8().await.unwrap());
    }
    upstream.write_all(answer.as_bytes()).await.unwrap();
}

async fn body(answer: Response<Incoming>) -> Result<Bytes, Option<Fault>> {
    answer.into_body().collect().await.map(|body| body.to_bytes()).map_err(|error| Fault::find_in(&error))
}

/// What the client gets for each of `answers`, one after the other on one connection, and what poisoned that.
fn exchanges(method: &Method, answers: &[&str]) -> (Vec<Result<Bytes, Option<Fault>>>, Option<Fault>) {
    run(async {
        let (near, mut upstream) = tokio::io::duplex(64 * 1024);
        let guard = AnswerGuard::new(near, AnswerLimits::default());
        let exchange = guard.exchange();
        let (mut sender, connection) = http1::handshake(TokioIo::new(guard)).await.unwrap();
        let client = async {
            let mut results = Vec::new();
            for text in answers {
                if sender.ready().await.is_err() {
                    break;
                }
                exchange.begin(method, UpgradeWanted::No);
                let (received, ()) = tokio::join!(sender.send_request(request(method)), answer(&mut upstream, text));
                results.push(match received {
                    Ok(received) => body(received).await,
                    Err(error) => Err(Fault::find_in(&error)),
                });
            }
            // Long enough for the connection to see what came behind the last answer.
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            drop(sender);
            results
        };
        let (results, _) = tokio::join!(client, connection);
        (results, exchange.fault())
    })
}

#[test]
fn a_connection_serves_one_exchange_after_the_other() {
    let chunked = "HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let (results, fault) = exchanges(&Method::GET, &[OK, chunked, OK]);
    assert_eq!(results, vec![Ok(Bytes::from("hi")); 3]);
    assert_eq!(fault, None);
    let (results, fault) = exchanges(&Method::HEAD, &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"; 2]);
    assert_eq!((results, fault), (vec![Ok(Bytes::new()); 2], None));
}

#[test]
fn e9_a_fault_in_a_head_is_the_error_of_the_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let (results, fault) = exchanges(&Method::GET, &[answer]);
    assert_eq!(results, [Err(Some(Fault::LengthAndEncoding))]);
    assert_eq!(fault, Some(Fault::LengthAndEncoding));
}

#[test]
fn e9_a_fault_in_a_body_is_the_error_of_that_body() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi!";
    assert_eq!(exchanges(&Method::GET, &[answer]), (vec![Err(Some(Fault::ChunkEnd))], Some(Fault::ChunkEnd)));
}

#[test]
fn e9_an_answer_with_more_behind_it_arrives_and_its_connection_is_never_used_again() {
    for method in [Method::GET, Method::HEAD] {
        let answer = if method == Method::GET { format!("{OK}{OK}") } else { OK.to_owned() };
        let (results, fault) = exchanges(&method, &[&answer, OK]);
        let expected = if method == Method::GET { "hi" } else { "" };
        assert_eq!(results, [Ok(Bytes::from(expected))], "{method}");
        assert_eq!(fault, Some(Fault::Unrequested), "{method}");
    }
}

#[test]
fn behind_an_accepted_upgrade_the_guard_can_be_taken_back_as_a_tunnel() {
    run(async {
        let (near, mut upstream) = tokio::io::duplex(64 * 1024);
        let guard = AnswerGuard::new(near, AnswerLimits::default());
        guard.exchange().begin(&Method::GET, UpgradeWanted::Yes);
        let (mut sender, mut connection) = http1::handshake(TokioIo::new(guard)).await.unwrap();
        let mut request = request(&Method::GET);
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        let switching = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x01early";
        let (received, (), ended) =
            tokio::join!(sender.send_request(request), answer(&mut upstream, switching), &mut connection);
        assert_eq!(received.unwrap().status(), StatusCode::SWITCHING_PROTOCOLS);
        ended.unwrap();
        let parts = connection.into_parts();
        let mut guard = parts.io.into_inner();
        upstream.write_all(b" late\0").await.unwrap();
        drop(upstream);
        let mut tunnel = parts.read_buf.to_vec();
        guard.read_to_end(&mut tunnel).await.unwrap();
        assert_eq!(tunnel, b"\x01early late\0");
    });
}
