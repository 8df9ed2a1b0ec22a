//! What an upstream can do wrong, over each HTTP it speaks: the client is told so in time, and nothing that was on a
//! broken connection is ever anybody else's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_testkit::{Gateway, RawPeer, ScriptedOrigin, TestCa, patient};

use crate::scene;

/// The bounds of every upstream here.
const CONNECT: Duration = Duration::from_millis(300);
const FIRST_BYTE: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(400);
/// How much later than its bound an answer may be.
const SLACK: Duration = Duration::from_millis(100);
/// A test that is slow once is on a busy machine.
const ATTEMPTS: usize = 3;

/// What an upstream does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Refuses,
    ResetsBeforeTheHead,
    ResetsInTheBody,
    Hangs,
    HalfClosesInTheHead,
    HalfClosesInTheBody,
    DripsTheHead,
    DripsTheBody,
    AnswersEarly,
    SaysMore,
    FramesTwice,
    NeverGetsBeyondInterim,
}

/// What the client sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// This status at once.
    Status(u16),
    /// 504 when this is over.
    TimeoutAfter(Duration),
    /// An answer that breaks off: at once, or when this is over.
    CutAfter(Option<Duration>),
}

const ALL: [(Fault, Seen); 12] = [
    (Fault::Refuses, Seen::Status(502)),
    (Fault::ResetsBeforeTheHead, Seen::Status(502)),
    (Fault::ResetsInTheBody, Seen::CutAfter(None)),
    (Fault::Hangs, Seen::TimeoutAfter(FIRST_BYTE)),
    (Fault::HalfClosesInTheHead, Seen::Status(502)),
    (Fault::HalfClosesInTheBody, Seen::CutAfter(None)),
    (Fault::DripsTheHead, Seen::TimeoutAfter(FIRST_BYTE)),
    (Fault::DripsTheBody, Seen::CutAfter(Some(IDLE))),
    (Fault::AnswersEarly, Seen::Status(413)),
    (Fault::SaysMore, Seen::Status(200)),
    (Fault::FramesTwice, Seen::Status(502)),
    (Fault::NeverGetsBeyondInterim, Seen::Status(502)),
];

impl Fault {
    /// What its upstream and its route are called.
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Which HTTP the upstream speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spoken {
    Http1,
    Https,
    H2c,
}

impl Spoken {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Http1 | Self::H2c => "http",
            Self::Https => "https",
        }
    }

    const fn settings(self) -> &'static str {
        match self {
            Self::Http1 => "",
            Self::Https => ", tls: { ca: ca.pem, server_name: localhost }",
            Self::H2c => ", protocol: h2c",
        }
    }
}

/// An upstream with a fault, and how often it was connected to.
struct Faulty {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _origin: Option<ScriptedOrigin>,
}

impl Faulty {
    async fn start(fault: Fault, spoken: Spoken, ca: &TestCa) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        if fault == Fault::Refuses {
            let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            return Self { address, connections, _origin: None };
        }
        let counter = Arc::clone(&connections);
        let script = move |peer: RawPeer| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                match spoken {
                    Spoken::Http1 | Spoken::Https => over_h1(fault, peer).await,
                    Spoken::H2c => over_h2(fault, peer).await,
                }
            }
        };
        let origin = match spoken {
            Spoken::Http1 | Spoken::H2c => ScriptedOrigin::start(script).await,
            Spoken::Https => ScriptedOrigin::tls(ca, &["http/1.1"], script).await,
        };
        Self { address: origin.address(), connections, _origin: Some(origin) }
    }
}

const BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning";

async fn over_h1(fault: Fault, mut peer: RawPeer) {
    while peer.head().await.is_some() {
        match fault {
            Fault::Refuses => {}
            Fault::ResetsBeforeTheHead => return peer.reset(),
            Fault::ResetsInTheBody => {
                peer.send(BODY).await;
                // What was said must have arrived: a reset overtakes it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                return peer.reset();
            }
            Fault::Hangs => {}
            Fault::HalfClosesInTheHead => {
                peer.send(&BODY[..20]).await;
                peer.half_close().await;
            }
            Fault::HalfClosesInTheBody => {
                peer.send(BODY).await;
                peer.half_close().await;
            }
            Fault::DripsTheHead => drip(&mut peer, BODY.as_bytes()).await,
            Fault::DripsTheBody => {
                peer.send(BODY).await;
                drip(&mut peer, &[b'.'; 87]).await;
            }
            Fault::AnswersEarly => {
                peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await;
            }
            Fault::SaysMore => {
                let evil = "HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil";
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{evil}")).await;
            }
            Fault::FramesTwice => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
                peer.send(format!("{head}2\r\nok\r\n0\r\n\r\n")).await;
            }
            Fault::NeverGetsBeyondInterim => {
                peer.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10_000)).await;
            }
        }
    }
}

/// One byte a second.
async fn drip(peer: &mut RawPeer, bytes: &[u8]) {
    for byte in bytes {
        peer.send([*byte]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field as a literal (RFC 7541 §6.2.2); both parts are short.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [vec![u8::try_from(text.len()).unwrap()], text.as_bytes().to_vec()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// Reads until a request has begun: its stream, once the connection has.
async fn h2_request(peer: &mut RawPeer, is_first: bool) -> Option<u32> {
    if is_first {
        // The preface looks like two heads.
        peer.head().await?;
        peer.head().await?;
        peer.send(frame(SETTINGS, 0, 0, &[])).await;
    }
    loop {
        let head = peer.bytes(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        peer.bytes(length).await?;
        match head[3] {
            SETTINGS if head[4] & ACK == 0 => peer.send(frame(SETTINGS, ACK, 0, &[])).await,
            HEADERS => return Some(u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]])),
            _ => {}
        }
    }
}

async fn over_h2(fault: Fault, mut peer: RawPeer) {
    let mut is_first = true;
    while let Some(id) = h2_request(&mut peer, std::mem::take(&mut is_first)).await {
        let ok = |flags| frame(HEADERS, END_HEADERS | flags, id, &[STATUS_200]);
        let begun = [ok(0), frame(DATA, 0, id, b"the beginning")].concat();
        match fault {
            Fault::Refuses => {}
            Fault::ResetsBeforeTheHead => return peer.reset(),
            Fault::ResetsInTheBody => {
                peer.send(begun).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                return peer.reset();
            }
            Fault::Hangs => {}
            Fault::HalfClosesInTheHead => {
                peer.send(&ok(0)[..5]).await;
                peer.half_close().await;
            }
            Fault::HalfClosesInTheBody => {
                peer.send(begun).await;
                peer.half_close().await;
            }
            Fault::DripsTheHead => drip(&mut peer, &ok(0)).await,
            Fault::DripsTheBody => {
                peer.send(begun).await;
                drip(&mut peer, &frame(DATA, 0, id, &[b'.'; 87])).await;
            }
            Fault::AnswersEarly => {
                let block = [vec![0x08, 3], b"413".to_vec()].concat();
                peer.send(frame(HEADERS, END_HEADERS, id, &block)).await;
                peer.send(frame(DATA, END_STREAM, id, b"no")).await;
            }
            Fault::SaysMore => {
                peer.send(ok(0)).await;
                peer.send(frame(DATA, END_STREAM, id, b"ok")).await;
                peer.send(frame(DATA, END_STREAM, id, b"evil")).await;
            }
            Fault::FramesTwice => {
                let (length, coding) = (field("content-length", "2"), field("transfer-encoding", "chunked"));
                let block = [vec![STATUS_200], length, coding].concat();
                peer.send(frame(HEADERS, END_HEADERS, id, &block)).await;
                peer.send(frame(DATA, END_STREAM, id, b"ok")).await;
            }
            Fault::NeverGetsBeyondInterim => {
                let block = [vec![0x08, 3], b"103".to_vec()].concat();
                peer.send(frame(HEADERS, END_HEADERS, id, &block).repeat(10_000)).await;
            }
        }
    }
}

/// One gateway in front of one upstream for each fault.
async fn scene_of(spoken: Spoken) -> (Gateway, Vec<Faulty>) {
    let ca = TestCa::new("ours");
    let (mut upstreams, mut routes, mut faulty) = (String::new(), String::new(), Vec::new());
    for (fault, _) in ALL {
        let one = Faulty::start(fault, spoken, &ca).await;
        let (name, scheme, address) = (fault.name(), spoken.scheme(), one.address);
        let timeouts = format!("connect: {CONNECT:?}, first_byte: {FIRST_BYTE:?}, idle: {IDLE:?}");
        let settings = spoken.settings();
        upstreams.push_str(&format!(
            "  {name}: {{ targets: [{{ url: \"{scheme}://{address}\" }}], timeouts: {{ {timeouts} }}{settings} }}\n"
        ));
        routes.push_str(&format!("  - {{ path: \"/{name}\", upstream: {name}, auth: none }}\n"));
        faulty.push(one);
    }
    let config =
        format!("workers: 1\nlisteners: [{{ bind: \"127.0.0.1:0\" }}]\nupstreams:\n{upstreams}routes:\n{routes}\n");
    (scene::site(&config).file("ca.pem", ca.pem()).start().await, faulty)
}

/// Asks once, and holds what came to what should; how long it took beyond what it may.
async fn ask(gateway: &Gateway, fault: Fault, seen: Seen, spoken: Spoken) -> Duration {
    let call = match fault {
        // A body that is never sent whole.
        Fault::AnswersEarly => gateway.post(&format!("/{}", fault.name())).header("content-length", "1000000"),
        _ => gateway.get(&format!("/{}", fault.name())),
    };
    let started = Instant::now();
    let (due, claim) = (Duration::ZERO, format!("{fault:?} over {spoken:?}"));
    let due = if fault == Fault::AnswersEarly {
        let (call, feed) = call.fed();
        assert!(feed.send("some").await);
        let head = call.stream().await.head;
        assert_eq!(Seen::Status(head.status), seen, "{claim}: {head:?}");
        drop(feed);
        due
    } else {
        let answer = call.attempt().await;
        match (seen, answer) {
            (Seen::Status(200), Ok(answer)) => {
                assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()), "{claim}: {answer:?}");
                due
            }
            (Seen::Status(status), Ok(answer)) => {
                let code = if status == 502 { "upstream_unreachable" } else { "upstream_timeout" };
                drop(answer.refused(status, code));
                due
            }
            (Seen::TimeoutAfter(bound), Ok(answer)) => {
                drop(answer.refused(504, "upstream_timeout"));
                assert!(started.elapsed() >= bound, "{claim}: {:?}", started.elapsed());
                bound
            }
            (Seen::CutAfter(bound), Err(_)) => {
                let bound = bound.unwrap_or_default();
                assert!(started.elapsed() >= bound, "{claim}: {:?}", started.elapsed());
                bound
            }
            // It went to the connection on which the answer before still drips: that one, too, is over in time, and the
            // next request gets a connection of its own.
            (Seen::CutAfter(Some(_)), Ok(answer)) if spoken == Spoken::H2c => {
                drop(answer.refused(504, "upstream_timeout"));
                FIRST_BYTE
            }
            (seen, answer) => panic!("{claim}: {answer:?} instead of {seen:?}"),
        }
    };
    started.elapsed().saturating_sub(due)
}

async fn every_fault_over(spoken: Spoken) {
    let (gateway, faulty) = scene_of(spoken).await;
    for ((fault, seen), upstream) in ALL.into_iter().zip(&faulty) {
        let seen = match (fault, spoken) {
            // The library passes over them; the time for the answer is the bound.
            (Fault::NeverGetsBeyondInterim, Spoken::H2c) => Seen::TimeoutAfter(FIRST_BYTE),
            (_, _) => seen,
        };
        let mut late = Vec::new();
        while late.len() < ATTEMPTS {
            let before = upstream.connections.load(Ordering::SeqCst);
            late.push(ask(&gateway, fault, seen, spoken).await);
            let opened = upstream.connections.load(Ordering::SeqCst) - before;
            // With HTTP/2 one stream can go wrong and leave the connection as it was.
            if spoken != Spoken::H2c && fault != Fault::Refuses {
                assert_eq!(opened, 1, "{fault:?} over {spoken:?}: each request needs a connection of its own");
            }
            if late.len() >= 2 && late.iter().any(|late| *late <= patient(SLACK)) {
                break;
            }
        }
        assert!(late.iter().any(|late| *late <= patient(SLACK)), "{fault:?} over {spoken:?}: late by {late:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_an_upstream_in_the_clear() {
    every_fault_over(Spoken::Http1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_an_upstream_behind_tls() {
    every_fault_over(Spoken::Https).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_an_upstream_with_http2() {
    every_fault_over(Spoken::H2c).await;
}
