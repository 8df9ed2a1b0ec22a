//! Messages that two parties could read differently, with servers of other people behind the gateway and proxies of other
//! people in front of it: every party counts the same requests, and nobody gets an answer to what somebody else sent.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_testkit::{Answer, Call, Facts, Gateway, Origin, patient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::servers::{Line, Server, free_port};
use crate::{scene, tools};

/// Fields behind `POST … Host: …`, and what follows them. `SMUGGLED` stands for a whole request of 46 bytes.
const POSTS: &[(&str, &str)] = &[
    ("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 4", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nTransfer-Encoding: xchunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nTransfer-Encoding : chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nTransfer-Encoding\t: chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nTransfer-Encoding:\x0bchunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nTransfer-Encoding:\r\n chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nX: y\r\n Transfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nX: y\0\r\nTransfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\n\x0bTransfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nTransfer_Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 5\r\nTrAnSfEr-EnCoDiNg: cHuNkEd", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked, chunked", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked, cow", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: cow, chunked", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: \"chunked\"", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked;q=1", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding:", "0\r\n\r\nSMUGGLED"),
    ("Content-Length: 0\r\nContent-Length: 46", "SMUGGLED"),
    ("Content-Length: 46\r\nContent-Length: 0", "SMUGGLED"),
    ("Content-Length: 0, 46", "SMUGGLED"),
    ("Content-Length: 46, 46", "SMUGGLED"),
    ("Content-Length: +0", "SMUGGLED"),
    ("Content-Length: -1", "SMUGGLED"),
    ("Content-Length: 0x2e", "SMUGGLED"),
    ("Content-Length: 4 6", "SMUGGLED"),
    ("Content-Length: 0.0", "SMUGGLED"),
    ("Content-Length:", "SMUGGLED"),
    ("Content-Length: 18446744073709551616", "SMUGGLED"),
    ("Content-Length: 0000000000000000000000", "SMUGGLED"),
    ("Content-Length : 0", "SMUGGLED"),
    ("Content_Length: 46", "SMUGGLED"),
    ("X: y\nContent-Length: 46", "SMUGGLED"),
    ("Connection: Content-Length\r\nContent-Length: 46", "SMUGGLED"),
    ("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Connection: close, Content-Length\r\nContent-Length: 46", "SMUGGLED"),
    ("Expect: 100-continue\r\nContent-Length: 0", "SMUGGLED"),
    ("Expect: 100-continue\r\nContent-Length: 46", "SMUGGLED"),
    ("Expect: x 100-continue\r\nContent-Length: 46", "SMUGGLED"),
    ("Transfer-Encoding: chunked", "0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "00\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0;\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0\n\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0\r\n\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0 \r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0x0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "-0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0_0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "10000000000000000\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "5;a\nhello\r\n0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "5;a=\"\r\nhello\r\n0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "5;a\rxhello\r\n0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "4\r\nhello\r\n0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "5\r\nhello0\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0\r\nX: y\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0\r\nContent-Length: 46\r\n\r\nSMUGGLED"),
    ("Transfer-Encoding: chunked", "0\r\nX: y\nZ: y\r\n\r\nSMUGGLED"),
];

/// Whole messages; `TARGET` is a path of its own.
const OTHERS: &[&str] = &[
    "GET TARGET HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 46\r\n\r\nSMUGGLED",
    "HEAD TARGET HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 46\r\n\r\nSMUGGLED",
    "OPTIONS TARGET HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST TARGET HTTP/1.1\r\nHost: shop.test\r\n\r\nSMUGGLED",
    "POST TARGET HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    "POST TARGET HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\nSMUGGLED",
    "POST TARGET HTTP/1.10\r\nHost: shop.test\r\nContent-Length: 0\r\n\r\nSMUGGLED",
    "GET TARGET\r\n\r\nSMUGGLED",
    "GET  TARGET HTTP/1.1\r\nHost: shop.test\r\n\r\nSMUGGLED",
    "GET\tTARGET HTTP/1.1\r\nHost: shop.test\r\n\r\nSMUGGLED",
    "\r\nGET TARGET HTTP/1.1\r\nHost: shop.test\r\n\r\nSMUGGLED",
    "GET TARGET HTTP/1.1\nHost: shop.test\n\nSMUGGLED",
    "GET TARGET HTTP/1.1\r\n Content-Length: 46\r\nHost: shop.test\r\n\r\nSMUGGLED",
    "GET TARGET HTTP/1.1\r\nHost: shop.test\r\nHost: other.test\r\n\r\nSMUGGLED",
    "GET http://other.testTARGET HTTP/1.1\r\nHost: shop.test\r\n\r\nSMUGGLED",
    "GET TARGET HTTP/1.1\r\nHost: shop.test\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\
     HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nSMUGGLED",
    "GET TARGET HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 7\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nSMUGGLED",
    "POST TARGET HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 46\r\n\r\nSMUGGLED",
];

/// Sends every message over a connection of its own, all at once, and gives up whoever waits for more of one.
async fn send_all(address: SocketAddr, round: usize) {
    let posts =
        POSTS.iter().map(|(fields, rest)| format!("POST TARGET HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n\r\n{rest}"));
    let messages = posts.chain(OTHERS.iter().map(|&message| message.to_owned()));
    let sending: Vec<_> = messages
        .enumerate()
        .map(|(number, message)| {
            let smuggled = format!("GET /smuggled-{round}-{number:02} HTTP/1.1\r\nHost: shop.tt\r\n\r\n");
            let message =
                message.replace("TARGET", &format!("/row-{round}-{number:02}")).replace("SMUGGLED", &smuggled);
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let _ = stream.write_all(message.as_bytes()).await;
                let mut said = Vec::new();
                let _ = tokio::time::timeout(Duration::from_millis(700), stream.read_to_end(&mut said)).await;
            })
        })
        .collect();
    for one in sending {
        one.await.unwrap();
    }
}

/// What the gateway wrote down: every request that it could read, and whether it forwarded it.
fn read_by(gateway: &Gateway) -> Vec<(Line, bool)> {
    let line = |event: &serde_json::Value| {
        let request = format!("{} {}", event["method"].as_str()?, event["path"].as_str()?);
        let status = event["status"].as_u64().and_then(|status| u16::try_from(status).ok())?;
        Some((Line { request, status }, event["upstream"] == "far"))
    };
    gateway.logs().access().iter().filter_map(line).collect()
}

/// The requests of the one that are not among those of the other, each as often as it is missing.
fn missing(these: &[Line], among: &[Line]) -> Vec<String> {
    let mut left: Vec<&str> = among.iter().map(|line| line.request.as_str()).collect();
    let is_missing = |line: &&Line| {
        let at = left.iter().position(|request| *request == line.request);
        at.map(|at| left.swap_remove(at)).is_none()
    };
    these.iter().filter(is_missing).map(|line| format!("{} ({})", line.request, line.status)).collect()
}

/// Those that were answered as any good request is.
fn answered(lines: &[Line]) -> Vec<Line> {
    lines.iter().filter(|line| matches!(line.status, 200 | 404)).cloned().collect()
}

/// Both count the same: what the one passed on and saw answered was read by the other, and nothing else was.
async fn agree(near: &str, passed_on: impl Fn() -> Vec<Line>, far: &str, read: impl Fn() -> Vec<Line>) {
    let unlike = || (missing(&read(), &passed_on()), missing(&answered(&passed_on()), &read()));
    // Some write their lines a little later.
    let settled = async {
        while unlike() != (Vec::new(), Vec::new()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(patient(Duration::from_secs(10)), settled).await.is_err() {
        let (unknown, lost) = unlike();
        panic!(
            "{far} read what {near} never passed on: {unknown:#?}\nand did not read what {near} says it answered: {lost:#?}"
        );
    }
    let (passed_on, read) = (passed_on().len(), read().len());
    println!("{near} passed on {passed_on} requests, {far} read {read}");
    assert!(read > 20, "{read} requests came through");
}

async fn count_the_same_behind(server: Option<Server>) {
    let Some(server) = server else { return };
    let gateway = scene::open_door(&server.address().to_string(), "").await;
    for round in 0..2 {
        send_all(gateway.data(), round).await;
        let last = gateway.get("/last").facts(Facts::none()).await;
        assert!(matches!(last.status, 200 | 404), "{last:?}: {}", server.said());
    }
    let forwarded =
        || read_by(&gateway).into_iter().filter_map(|(line, is_forwarded)| is_forwarded.then_some(line)).collect();
    agree("the gateway", forwarded, server.name(), || server.seen()).await;
}

async fn count_the_same_in_front(front: impl AsyncFnOnce(SocketAddr) -> Option<Server>) {
    let origin = Origin::start().await;
    origin.answer(Answer::echo());
    // The origin answers as soon as it is asked, and some of those in front leave their connection open in the middle of the
    // body then: nobody says any more until an answer may pause no longer.
    let config = r#"
listeners: [{ bind: "127.0.0.1:0", name: front }]
upstreams: { far: { targets: [{ url: "http://{{far}}" }], timeouts: { idle: 3s } } }
routes: [{ path: "/**", name: all, upstream: far, auth: none }]
"#;
    let gateway = scene::site(config).upstream("far", &origin).start().await;
    let Some(front) = front(gateway.data()).await else { return };
    for round in 0..2 {
        send_all(front.address(), round).await;
        // What was left behind on a connection that the proxy keeps would be in front of one of these.
        for number in 0..20 {
            let name = format!("probe {round} {number}");
            let probe = Call::to(front.address(), "POST", "/probe").body(name.clone()).facts(Facts::none());
            let answer = probe.await.expect(200);
            assert_eq!(answer.text(), name, "{}: somebody else's answer", front.name());
        }
    }
    let read = || read_by(&gateway).into_iter().map(|(line, _)| line).collect();
    agree(front.name(), || front.seen(), "the gateway", read).await;
    let forwarded =
        || read_by(&gateway).into_iter().filter_map(|(line, is_forwarded)| is_forwarded.then_some(line)).collect();
    let arrived = || {
        let line = |request: portcullis_testkit::Recorded| Line {
            request: format!("{} {}", request.method, request.path()),
            status: 200,
        };
        origin.requests().into_iter().map(line).collect()
    };
    agree("the gateway", forwarded, "the origin", arrived).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_behind_the_gateway_counts_what_it_counts() {
    let inside = "keepalive_requests 1000000; location / { return 200 'ok'; }";
    count_the_same_behind(Server::nginx(free_port(), inside, "").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_behind_the_gateway_counts_what_it_counts() {
    let inside = "http-request return status 200 content-type text/plain string ok";
    count_the_same_behind(Server::haproxy(inside, "").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_behind_the_gateway_counts_what_it_counts() {
    count_the_same_behind(Server::apache(&[], "").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_behind_the_gateway_counts_what_it_counts() {
    let script = r#"
require('http').createServer((request, response) => {
  console.log(`${request.method} ${request.url} 200`);
  request.resume().on('end', () => response.end('ok'));
}).listen(Number(process.argv[2]), '127.0.0.1');
"#;
    let Some(node) = tools::find("node") else { return };
    count_the_same_behind(Some(Server::script("Node", &node, script, &[]).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uvicorn_behind_the_gateway_counts_what_it_counts() {
    let script = r#"
import sys, uvicorn

async def application(scope, receive, send):
    print(scope["method"], scope["raw_path"].decode(), 200, flush=True)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), http="h11", lifespan="off", access_log=False)
"#;
    let Some(python) = tools::python_with("uvicorn").await else { return };
    count_the_same_behind(Some(Server::script("uvicorn", &python, script, &[]).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_in_front_of_the_gateway_counts_what_it_counts() {
    count_the_same_in_front(async |gateway| {
        let inside =
            "location / { proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection ''; }";
        Server::nginx(free_port(), inside, &format!("upstream gateway {{ server {gateway}; keepalive 64; }}")).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_in_front_of_the_gateway_counts_what_it_counts() {
    count_the_same_in_front(async |gateway| {
        Server::haproxy("default_backend gateway", &format!("backend gateway\n  server gateway {gateway}")).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_in_front_of_the_gateway_counts_what_it_counts() {
    count_the_same_in_front(async |gateway| {
        Server::apache(&["proxy", "proxy_http"], &format!("ProxyPass / http://{gateway}/\nProxyPreserveHost On")).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_in_front_of_the_gateway_counts_what_it_counts() {
    let script = r#"
const http = require('http');
const [host, port] = process.argv[2].split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
http.createServer((request, response) => {
  const { method, url: path, headers } = request;
  let status = 499;
  const asked = http.request({ host, port, agent, method, path, headers }, (answer) => {
    status = answer.statusCode;
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  asked.on('close', () => console.log(`${method} ${path} ${status}`));
  asked.on('error', () => response.headersSent ? response.destroy() : response.writeHead(502).end());
  request.on('close', () => request.complete || asked.destroy()).pipe(asked);
}).listen(Number(process.argv[3]), '127.0.0.1');
"#;
    let node: Option<PathBuf> = tools::find("node");
    count_the_same_in_front(async |gateway| {
        Some(Server::script("Node", &node?, script, &[&gateway.to_string()]).await)
    })
    .await;
}
