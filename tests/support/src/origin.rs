//! A server behind the gateway that writes down what it is sent and complains about what it must never see.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::answer::{Answer, BodyPlan};
use crate::ca::TestCa;
use crate::patience::wait_for;
use crate::recorded::{Recorded, Recording};
use crate::stream::AnyBody;
use crate::vault::Vault;

/// The identity fields the gateway may add; nothing else may begin with `X-Portcullis-`.
const IDENTITY_FIELDS: [&str; 5] = [
    "x-portcullis-key-id",
    "x-portcullis-owner",
    "x-portcullis-environment",
    "x-portcullis-scopes",
    "x-portcullis-auth",
];

/// The accept value that belongs to the key of RFC 6455 §1.3, `dGhlIHNhbXBsZSBub25jZQ==`.
const SAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A recording server. Every request is checked: no secret of a watched vault anywhere, identity fields only the five
/// the gateway may add, each once. A complaint fails the test when the requests are looked at or the origin is dropped.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<Closing>,
    accepting: tokio::task::JoinHandle<()>,
}

/// How often connections were told to close. Counters, because a watch keeps only the latest word.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Closing {
    politely: u64,
    at_once: u64,
}

pub(crate) struct Shared {
    answers: Mutex<Answers>,
    recorded: Mutex<Vec<Recorded>>,
    complaints: Mutex<Vec<String>>,
    vaults: Mutex<Vec<Vault>>,
    tolerant: Mutex<bool>,
    connections: AtomicU64,
}

struct Answers {
    usual: Answer,
    by_path: HashMap<String, Answer>,
}

impl Origin {
    /// A server in the clear: HTTP/1.1 and HTTP/2 with prior knowledge. Answers 200 `hello from the origin`.
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// A server over TLS with a certificate of `ca` for `localhost` and `127.0.0.1`, offering these protocols.
    pub async fn tls(ca: &TestCa, alpn: &[&str]) -> Self {
        Self::serve(Some(ca.server_config(&["localhost", "127.0.0.1"], alpn, false))).await
    }

    /// The same, refusing clients without a certificate of `ca`.
    pub async fn mutual_tls(ca: &TestCa, alpn: &[&str]) -> Self {
        Self::serve(Some(ca.server_config(&["localhost", "127.0.0.1"], alpn, true))).await
    }

    async fn serve(tls: Option<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the kernel has a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            answers: Mutex::new(Answers { usual: Answer::ok("hello from the origin"), by_path: HashMap::new() }),
            recorded: Mutex::default(),
            complaints: Mutex::default(),
            vaults: Mutex::default(),
            tolerant: Mutex::default(),
            connections: AtomicU64::new(0),
        });
        let (stop, stopped) = watch::channel(Closing::default());
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared), stopped));
        Self { address, shared, stop, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as text, for configurations.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Answers every path like this from now on.
    pub fn answer(&self, answer: Answer) {
        lock(&self.shared.answers).usual = answer;
    }

    /// Answers this path like this from now on.
    pub fn answer_at(&self, path: &str, answer: Answer) {
        lock(&self.shared.answers).by_path.insert(path.to_owned(), answer);
    }

    /// Requests must not carry any secret of this vault.
    pub fn watch(&self, vault: &Vault) {
        lock(&self.shared.vaults).push(vault.clone());
    }

    /// Credentials may arrive: for routes that forward them on purpose.
    pub fn tolerate_credentials(&self) {
        *lock(&self.shared.tolerant) = true;
    }

    /// Every request so far, in order of arrival.
    #[track_caller]
    pub fn requests(&self) -> Vec<Recorded> {
        self.assert_content();
        lock(&self.shared.recorded).clone()
    }

    /// How many requests there were, without copying them.
    pub fn count(&self) -> usize {
        lock(&self.shared.recorded).len()
    }

    /// The latest request.
    #[track_caller]
    pub fn last(&self) -> Recorded {
        self.requests().pop().expect("the origin was asked")
    }

    /// The only request there was.
    #[track_caller]
    pub fn only(&self) -> Recorded {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.into_iter().next().expect("there is one")
    }

    /// Fails unless nobody asked.
    #[track_caller]
    pub fn untouched(&self) {
        let requests = self.requests();
        assert!(requests.is_empty(), "something was forwarded: {requests:#?}");
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.shared.recorded).clear();
    }

    /// The first request whose path this is, once its body has come to its end.
    pub async fn completed(&self, path: &str) -> Recorded {
        wait_for("the origin has read the request", std::time::Duration::from_secs(10), async || {
            self.requests().into_iter().find(|request| request.complete && request.path() == path)
        })
        .await
        .0
    }

    /// How many connections were opened to it.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes idle connections and tells the others to close after their answer; goes on accepting new ones.
    pub fn close_connections(&self) {
        self.stop.send_modify(|closing| closing.politely += 1);
    }

    /// Breaks every connection off where it is; goes on accepting new ones.
    pub fn break_connections(&self) {
        self.stop.send_modify(|closing| closing.at_once += 1);
    }

    #[track_caller]
    fn assert_content(&self) {
        let complaints = lock(&self.shared.complaints).clone();
        assert!(complaints.is_empty(), "the origin was sent what it must not see: {complaints:#?}");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
        self.stop.send_modify(|closing| closing.at_once += 1);
        if !std::thread::panicking() {
            self.assert_content();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stopped: watch::Receiver<Closing>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let mut stopped = stopped.clone();
        stopped.mark_unchanged();
        let shared = Arc::clone(&shared);
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => serve(stream, number, shared, stopped).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, number, shared, stopped).await;
                    }
                }
            }
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    number: u64,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<Closing>,
) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request, number).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let at_once = stopped.borrow().at_once;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            changed = stopped.changed() => {
                if changed.is_err() || stopped.borrow().at_once > at_once {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, connection: u64) -> Response<AnyBody> {
        let (mut parts, body) = request.into_parts();
        self.check(&parts);
        let host = parts.uri.authority().map_or_else(
            || parts.headers.get("host").map(|host| host.to_str().unwrap_or_default().to_owned()).unwrap_or_default(),
            ToString::to_string,
        );
        let target = parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), ToString::to_string);
        let index = {
            let mut recorded = lock(&self.recorded);
            recorded.push(Recorded::begun(connection, &parts, target, host));
            recorded.len() - 1
        };
        let answer = {
            let answers = lock(&self.answers);
            answers.by_path.get(parts.uri.path()).unwrap_or(&answers.usual).clone()
        };
        tokio::time::sleep(answer.delay).await;
        if let Some(latch) = &answer.latch {
            latch.opened().await;
        }
        let body = Recording::of(body, Arc::clone(&self), index);
        let mut response = Response::new(crate::stream::empty());
        *response.status_mut() = answer.status;
        response.headers_mut().insert("x-made-by", HeaderValue::from_static("origin"));
        for (name, value) in &answer.headers {
            response.headers_mut().append(name, value.clone());
        }
        match &answer.body {
            BodyPlan::Tunnel => {
                if let Some(upgrade) = parts.extensions.remove::<hyper::upgrade::OnUpgrade>() {
                    tokio::spawn(tunnel(upgrade));
                }
                for (name, value) in
                    [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", SAMPLE_ACCEPT)]
                {
                    response.headers_mut().insert(name, HeaderValue::from_static(value));
                }
            }
            BodyPlan::Echo => *response.body_mut() = body.boxed_unsync(),
            BodyPlan::Fixed(_) | BodyPlan::Pattern { .. } | BodyPlan::Channel(_) => {
                if answer.reads_body {
                    let mut body = std::pin::pin!(body);
                    while let Some(Ok(_)) = body.as_mut().frame().await {}
                }
                *response.body_mut() = answer.own_body();
            }
        }
        response
    }

    fn check(&self, parts: &http::request::Parts) {
        let mut complaints = Vec::new();
        let target = parts.uri.to_string();
        self.check_fields(&parts.headers, &mut complaints);
        if !*lock(&self.tolerant) {
            self.check_secret(target.as_bytes(), "the target", &mut complaints);
        }
        if !complaints.is_empty() {
            let what = complaints.join("; ");
            lock(&self.complaints).push(format!("{} {}: {what}", parts.method, parts.uri.path()));
        }
    }

    /// Changes what is written down about one request.
    pub(crate) fn note(&self, index: usize, update: impl FnOnce(&mut Recorded)) {
        // `forget` may have removed it meanwhile.
        if let Some(recorded) = lock(&self.recorded).get_mut(index) {
            update(recorded);
        }
    }

    /// Looks at trailers, which are fields that come late.
    pub(crate) fn check_trailers(&self, trailers: &HeaderMap) {
        let mut complaints = Vec::new();
        self.check_fields(trailers, &mut complaints);
        lock(&self.complaints).extend(complaints.into_iter().map(|complaint| format!("trailers: {complaint}")));
    }

    fn check_fields(&self, fields: &HeaderMap, complaints: &mut Vec<String>) {
        let tolerant = *lock(&self.tolerant);
        for (name, value) in fields {
            if !tolerant {
                self.check_secret(value.as_bytes(), name.as_str(), complaints);
            }
            let folded = name.as_str().replace('_', "-");
            if folded.starts_with("x-portcullis-") && !IDENTITY_FIELDS.contains(&name.as_str()) {
                complaints.push(format!("the identity field {name} is not one of ours"));
            }
        }
        for name in IDENTITY_FIELDS {
            if fields.get_all(name).iter().count() > 1 {
                complaints.push(format!("{name} came more than once"));
            }
        }
    }

    fn check_secret(&self, bytes: &[u8], place: &str, complaints: &mut Vec<String>) {
        for vault in lock(&self.vaults).iter() {
            if let Some(secret) = vault.find_in(bytes) {
                complaints.push(format!("the credential {secret} in {place}"));
            }
        }
    }
}

async fn tunnel(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
}
