//! Requests to a management API: one connection each, bounded in time, repeated only where that is safe.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::address::Address;
use super::refusal::ApiRefusal;
use crate::cli::failure::Failure;
use crate::cli::site;
use crate::domain::PresentedKey;
use crate::domain::time::show_duration;
use crate::proxy::{Protocol, TlsClient, UpstreamTls};

/// The variable that holds the key.
const KEY_VARIABLE: &str = "PORTCULLIS_KEY";
/// How long a connection may take, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may usually take.
const ANSWER: Duration = Duration::from_secs(30);
/// The same for many rows at once.
pub(super) const SLOW_ANSWER: Duration = Duration::from_secs(300);
/// Largest answer, in bytes: a page of a thousand of the largest records is smaller.
const MAX_ANSWER: usize = 64 << 20;
/// How often a request that may be repeated is sent.
const TRIES: u32 = 3;
/// Before the first repetition; then twice as long.
const PAUSE: Duration = Duration::from_millis(250);

/// A management API, and who asks it.
pub(super) struct Client {
    address: Address,
    authorization: HeaderValue,
    tls: Option<TlsClient>,
    runtime: tokio::runtime::Runtime,
}

/// One request.
pub(super) struct Ask {
    pub(super) method: Method,
    /// Path and query, from `/v1` on.
    pub(super) target: String,
    pub(super) body: Option<Body>,
    /// Makes it safe to send again.
    pub(super) repeat: Repeat,
    /// How long the answer may take.
    pub(super) patience: Duration,
}

/// What is sent.
pub(super) struct Body {
    pub(super) media_type: &'static str,
    pub(super) bytes: Bytes,
}

/// What happens when no answer comes to a request that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// Whether it was carried out stays unknown.
    Never,
    /// It is sent again under the same `Idempotency-Key`.
    UnderKey,
}

impl Ask {
    /// A request without a body.
    pub(super) fn bare(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), body: None, repeat: Repeat::Never, patience: ANSWER }
    }

    /// A request with JSON.
    ///
    /// # Errors
    /// None: what is asked for can be written.
    pub(super) fn json(method: Method, target: impl Into<String>, body: &impl Serialize) -> Result<Self, Failure> {
        let bytes = serde_json::to_vec(body).map_err(|error| Failure::runtime(error.to_string()))?;
        let body = Some(Body { media_type: "application/json", bytes: bytes.into() });
        Ok(Self { body, ..Self::bare(method, target) })
    }

    /// The same, to be answered when every gateway enforces it, or after so long.
    pub(super) fn waiting(mut self, patience: Duration) -> Self {
        let joint = if self.target.contains('?') { '&' } else { '?' };
        self.target = format!("{}{joint}wait=all&timeout={}", self.target, show_duration(patience));
        self.patience += patience;
        self
    }

    /// The same, to be sent again when its answer is lost.
    pub(super) fn repeatable(self) -> Self {
        Self { repeat: Repeat::UnderKey, ..self }
    }
}

/// Why there is no answer.
enum Trouble {
    /// Nothing was sent.
    Unreached(String),
    /// It was sent, or may have been.
    Lost(String),
}

/// An answer as it came.
struct Answer {
    status: StatusCode,
    request_id: Option<String>,
    body: Bytes,
}

impl Answer {
    /// Whether it says that nobody knows what was done: under the same key it may be asked again.
    fn is_open(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
            && serde_json::from_slice::<Value>(&self.body)
                .is_ok_and(|body| [&body["code"], &body["error"]["code"]].iter().any(|code| *code == "outcome_unknown"))
    }
}

impl Client {
    /// For the key in the environment. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Failure::Usage`] when there is no key, or the file of authorities cannot be used.
    pub(super) fn new(address: Address, authorities: Option<PathBuf>) -> Result<Self, Failure> {
        let key = Zeroizing::new(site::variable(KEY_VARIABLE).unwrap_or_default());
        let key = key.trim();
        if key.is_empty() {
            return Err(Failure::usage(format!(
                "--server needs a management key in the environment variable {KEY_VARIABLE}: `read -rs {KEY_VARIABLE}; \
                 export {KEY_VARIABLE}` takes one without showing it"
            )));
        }
        let odd =
            || Failure::usage(format!("what {KEY_VARIABLE} holds is no key: it is no single word of visible ASCII"));
        let _key = PresentedKey::new(key).ok_or_else(odd)?;
        let text = Zeroizing::new(format!("Bearer {key}"));
        let mut authorization = HeaderValue::from_str(&text).map_err(|_| odd())?;
        authorization.set_sensitive(true);
        let tls = match (address.is_tls, authorities) {
            (true, ca) => {
                let settings = UpstreamTls { ca, ..UpstreamTls::default() };
                Some(TlsClient::load(&settings, Protocol::H1).map_err(|errors| {
                    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    Failure::usage(format!("--server-ca: {}", errors.join("; ")))
                })?)
            }
            (false, None) => None,
            (false, Some(_)) => return Err(Failure::usage("--server-ca is for https; --server says http")),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
        Ok(Self { address, authorization, tls, runtime })
    }

    /// Sends a request and reads the answer; a success is told in the standard shape whatever `api.profile` is there.
    ///
    /// # Errors
    /// [`Failure::Refused`], or [`Failure::Unreachable`] when no answer comes.
    pub(super) fn send(&self, ask: &Ask) -> Result<Value, Failure> {
        let key = match ask.repeat {
            Repeat::Never => None,
            Repeat::UnderKey => Some(uuid::Uuid::now_v7().to_string()),
        };
        let tries = if key.is_some() { TRIES } else { 1 };
        let mut lost = None;
        for attempt in 0..tries {
            if attempt > 0 {
                self.runtime.block_on(async { tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1)).await });
            }
            match self.runtime.block_on(self.once(ask, key.as_deref())) {
                Ok(answer) if key.is_some() && answer.is_open() => {
                    lost = Some("the store's answer was lost".to_owned())
                }
                Ok(answer) => return read(&answer),
                Err(Trouble::Unreached(why)) if lost.is_none() => {
                    return Err(Failure::Unreachable(format!("cannot reach {}: {why}", self.address)));
                }
                Err(Trouble::Unreached(why) | Trouble::Lost(why)) => lost = Some(why),
            }
        }
        let unknown = if ask.method == Method::GET { "" } else { "; whether it was carried out is not known" };
        let why = lost.unwrap_or_default();
        Err(Failure::Unreachable(format!("no answer from {}: {why}{unknown}", self.address)))
    }

    async fn once(&self, ask: &Ask, key: Option<&str>) -> Result<Answer, Trouble> {
        let connected = tokio::time::timeout(CONNECT, self.connect()).await;
        let late = |_| Trouble::Unreached(format!("no connection within {} s", CONNECT.as_secs()));
        let mut connection = connected.map_err(late)?.map_err(|error| Trouble::Unreached(explained(&error)))?;
        let request = self.request(ask, key).map_err(|error| Trouble::Unreached(error.to_string()))?;
        let lost = |error: &dyn std::fmt::Display| Trouble::Lost(error.to_string());
        let answered = tokio::time::timeout(ask.patience, async {
            let answer = connection.send_request(request).await.map_err(|error| lost(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| lost(&error))?;
            let request_id = head.headers.get("x-request-id").and_then(|value| value.to_str().ok());
            Ok(Answer { status: head.status, request_id: request_id.map(str::to_owned), body: body.to_bytes() })
        });
        answered.await.unwrap_or_else(|_| Err(Trouble::Lost(format!("none within {} s", ask.patience.as_secs()))))
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect((self.address.host.as_str(), self.address.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => speak(TokioIo::new(stream)).await,
            Some(tls) => {
                let name = tls.server_name(&self.address.host).map_err(io::Error::other)?;
                let stream = tokio_rustls::TlsConnector::from(tls.config()).connect(name, stream).await?;
                speak(TokioIo::new(stream)).await
            }
        }
    }

    fn request(&self, ask: &Ask, key: Option<&str>) -> http::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(format!("{}{}", self.address.prefix, ask.target))
            .header(HOST, &self.address.authority)
            .header(USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, &self.authorization);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        match &ask.body {
            None => request.body(Full::default()),
            Some(Body { media_type, bytes }) => {
                request.header(CONTENT_TYPE, *media_type).body(Full::new(bytes.clone()))
            }
        }
    }
}

/// Begins HTTP/1.1 on a connection, which lives until its one answer is read.
pub(in crate::cli) async fn speak<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    // How it ends is told by the request that is under way on it.
    drop(tokio::spawn(connection));
    Ok(sender)
}

/// What went wrong, with what is probably to be done.
fn explained(error: &io::Error) -> String {
    let text = error.to_string();
    let hint = if text.contains("UnknownIssuer") { "; --server-ca FILE names an authority of your own" } else { "" };
    format!("{text}{hint}")
}

fn read(answer: &Answer) -> Result<Value, Failure> {
    let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let refused = |refusal: ApiRefusal| match refusal.is_outage() {
        true => Failure::Unreachable(refusal.to_string().trim_start_matches("error: ").trim_end().to_owned()),
        false => Failure::Refused(Box::new(refusal)),
    };
    if !answer.status.is_success() {
        return Err(refused(ApiRefusal::read(answer.status, answer.request_id.clone(), &body)));
    }
    match body {
        body @ Value::Object(_) => Ok(standard(body)),
        _ => Err(refused(ApiRefusal::nonsense(answer.status, answer.request_id.clone()))),
    }
}

/// Lists by the name of their records, under `api.profile: success`.
const LISTS: [&str; 3] = ["keys", "owners", "entries"];

/// The body of a success in the standard shape.
fn standard(body: Value) -> Value {
    let Value::Object(mut outer) = body else { return body };
    if outer.get("success") != Some(&Value::Bool(true)) {
        return Value::Object(outer);
    }
    let Some(Value::Object(mut data)) = outer.remove("data") else { return Value::Object(outer) };
    for list in LISTS {
        if let Some(items @ Value::Array(_)) = data.remove(list) {
            data.insert("data".to_owned(), items);
            break;
        }
    }
    data.remove("message");
    renamed_throughout(Value::Object(data))
}

/// Members by their names under `api.profile: success`, and in the standard shape.
const NAMES: [(&str, &str); 4] = [
    ("permissions", "scopes"),
    ("missing_permissions", "missing_scopes"),
    ("required_permissions", "required_scopes"),
    ("held_permissions", "held_scopes"),
];

/// An answer with the names of the standard shape, save in what is made of names that people chose.
fn renamed_throughout(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(renamed_throughout).collect(),
        Value::Object(members) => {
            let renamed = |(name, value): (String, Value)| {
                let same = NAMES.iter().find(|(other, _)| *other == name).map(|(_, same)| (*same).to_owned());
                let value = if name == "metadata" { value } else { renamed_throughout(value) };
                (same.unwrap_or(name), value)
            };
            Value::Object(members.into_iter().map(renamed).collect())
        }
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, request_id: None, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn both_shapes_of_answers_mean_the_same() {
        for (other, same) in [
            (
                json!({ "id": "key_1", "permissions": ["a"], "message": "gone" }),
                json!({ "id": "key_1", "scopes": ["a"] }),
            ),
            (
                json!({ "keys": [{ "permissions": ["a"] }], "next_cursor": null }),
                json!({ "data": [{ "scopes": ["a"] }], "next_cursor": null }),
            ),
            (
                json!({ "record": { "permissions": ["a"], "metadata": { "permissions": 1 } }, "missing_permissions": [] }),
                json!({ "record": { "scopes": ["a"], "metadata": { "permissions": 1 } }, "missing_scopes": [] }),
            ),
            (json!({ "entries": [], "next_cursor": "7" }), json!({ "data": [], "next_cursor": "7" })),
        ] {
            assert_eq!(standard(json!({ "success": true, "data": other })), same);
            assert_eq!(standard(same.clone()), same);
        }
    }

    #[test]
    fn an_answer_that_is_none_of_ours_is_a_refusal_and_an_outage_is_none() {
        for (status, body, code) in [
            (200, "<html>", 5),
            (200, "[]", 5),
            (302, "", 5),
            (404, "not here", 5),
            (422, r#"{"code":"invalid_value","detail":"d"}"#, 5),
            (503, r#"{"code":"store_unavailable","detail":"d"}"#, 4),
            (502, "bad gateway", 4),
        ] {
            assert_eq!(read(&answer(status, body)).unwrap_err().code(), code, "{status} {body}");
        }
        assert_eq!(read(&answer(201, "{}")).unwrap(), json!({}));
    }
}
