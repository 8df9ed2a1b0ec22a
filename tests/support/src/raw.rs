//! HTTP/1 byte by byte: what is sent is exactly what the test wrote, and the answer is parsed by a reader of our own,
//! which accepts only what RFC 9112 calls well-formed.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::facts::Facts;
use crate::patience::patient;
use crate::response::Response;
use crate::vault::Vault;

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One connection that says exactly what it is given.
pub struct RawClient {
    stream: Box<dyn Duplex>,
    unread: Vec<u8>,
    ended: bool,
    method: String,
    facts: Facts,
    vault: Option<Vault>,
}

impl RawClient {
    /// Connects over TCP.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("a fresh socket takes options");
        Self::over(stream)
    }

    /// Speaks over any stream.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            unread: Vec::new(),
            ended: false,
            method: "GET".to_owned(),
            facts: Facts::default(),
            vault: None,
        }
    }

    /// Answers must not repeat these secrets.
    #[must_use]
    pub fn watching(mut self, vault: &Vault) -> Self {
        self.vault = Some(vault.clone());
        self
    }

    /// Checks other facts than the usual ones.
    #[must_use]
    pub fn facts(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }

    /// Sends these bytes. What the gateway no longer wants to read is no fault of the test.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        if let Some(method) = method_of(bytes) {
            self.method = method;
        }
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Says that nothing more will be sent.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next final answer (101 included), checked. Interim answers are skipped.
    ///
    /// # Panics
    /// When the connection ends first, or the answer is malformed, late, or breaks a fact.
    pub async fn response(&mut self) -> Response {
        loop {
            let response = self.try_next().await.unwrap_or_else(|why| panic!("no answer: {why}"));
            if response.status == 101 || response.status >= 200 {
                return response;
            }
        }
    }

    /// The next answer, interim ones too; `None` when the connection ended in order.
    pub async fn next(&mut self) -> Option<Response> {
        match self.try_next().await {
            Ok(response) => Some(response),
            Err(why) if why == ENDED => None,
            Err(why) => panic!("{why}"),
        }
    }

    async fn try_next(&mut self) -> Result<Response, String> {
        loop {
            if let Some((response, consumed)) = parse(&self.unread, &self.method, self.ended)? {
                self.unread.drain(..consumed);
                self.facts.check(&response, &self.method, self.vault.as_ref());
                return Ok(response);
            }
            if self.ended {
                let left = String::from_utf8_lossy(&self.unread).into_owned();
                return Err(if left.is_empty() { ENDED.to_owned() } else { format!("cut off after {left:?}") });
            }
            self.fill().await?;
        }
    }

    /// Every answer until the connection ends.
    pub async fn all(&mut self) -> Vec<Response> {
        let mut answers = Vec::new();
        while let Some(response) = self.next().await {
            answers.push(response);
        }
        answers
    }

    /// Exactly this many bytes of a tunnel.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count && !self.ended {
            self.fill().await.unwrap_or_else(|why| panic!("{why}"));
        }
        assert!(self.unread.len() >= count, "ended after {:?}", String::from_utf8_lossy(&self.unread));
        self.unread.drain(..count).collect()
    }

    /// Everything until the end, unparsed.
    pub async fn rest(&mut self) -> Vec<u8> {
        while !self.ended {
            self.fill().await.unwrap_or_else(|why| panic!("{why}"));
        }
        std::mem::take(&mut self.unread)
    }

    /// Whether the other side ends the connection within `within`, without saying anything more.
    pub async fn is_closed_within(&mut self, within: Duration) -> bool {
        if self.ended {
            return self.unread.is_empty();
        }
        let mut byte = [0];
        match tokio::time::timeout(patient(within), self.stream.read(&mut byte)).await {
            Err(_) => false,
            Ok(Err(_) | Ok(0)) => {
                self.ended = true;
                self.unread.is_empty()
            }
            Ok(Ok(_)) => {
                self.unread.push(byte[0]);
                false
            }
        }
    }

    async fn fill(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16 * 1024];
        let read = tokio::time::timeout(patient(ANSWER_LIMIT), self.stream.read(&mut buffer))
            .await
            .map_err(|_| format!("nothing came within {:?}", patient(ANSWER_LIMIT)))?;
        match read {
            Ok(0) => self.ended = true,
            Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
            // A reset ends the connection as an orderly close does; what was read before it counts.
            Err(_) => self.ended = true,
        }
        Ok(())
    }
}

const ENDED: &str = "the connection ended";

fn method_of(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == b' ')?;
    let method = std::str::from_utf8(&bytes[..end]).ok()?;
    method.bytes().all(|byte| byte.is_ascii_uppercase()).then(|| method.to_owned())
}

/// The first answer in `bytes` and how many bytes it takes; `None` while it is incomplete.
pub(crate) fn parse(bytes: &[u8], method: &str, ended: bool) -> Result<Option<(Response, usize)>, String> {
    let Some(head_end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| "the head is no text".to_owned())?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let (version, status) = match status_line.split_at_checked(9) {
        Some(("HTTP/1.1 ", rest)) => (Version::HTTP_11, rest),
        Some(("HTTP/1.0 ", rest)) => (Version::HTTP_10, rest),
        _ => return Err(format!("no status line: {status_line:?}")),
    };
    let status: u16 =
        status.get(..3).and_then(|digits| digits.parse().ok()).ok_or(format!("no status: {status_line:?}"))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(format!("no field: {line:?}"))?;
        headers.append(
            name.parse::<HeaderName>().map_err(|_| format!("no field name: {line:?}"))?,
            value.trim_matches([' ', '\t']).parse::<HeaderValue>().map_err(|_| format!("no field value: {line:?}"))?,
        );
    }
    let mut response = Response { status, version, headers, body: Bytes::new(), trailers: HeaderMap::new() };
    let start = head_end + 4;
    let bodyless = method == "HEAD" || status < 200 || status == 204 || status == 304;
    let rest = &bytes[start..];
    if bodyless {
        return Ok(Some((response, start)));
    }
    if response.headers.contains_key("transfer-encoding") {
        if response.headers.contains_key("content-length") {
            return Err("Content-Length beside Transfer-Encoding".to_owned());
        }
        return Ok(chunked(rest, &mut response.trailers)?.map(|(body, used)| {
            response.body = body;
            (response, start + used)
        }));
    }
    let lengths = response.header_all("content-length");
    match lengths.as_slice() {
        [] => Ok(ended.then(|| {
            response.body = Bytes::copy_from_slice(rest);
            (response, bytes.len())
        })),
        [length] => {
            let length: usize = length.parse().map_err(|_| format!("Content-Length: {length}"))?;
            Ok(rest.get(..length).map(|body| {
                response.body = Bytes::copy_from_slice(body);
                (response, start + length)
            }))
        }
        several => Err(format!("several lengths: {several:?}")),
    }
}

fn chunked(bytes: &[u8], trailers: &mut HeaderMap) -> Result<Option<(Bytes, usize)>, String> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(line_end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&bytes[at..at + line_end]).map_err(|_| "a chunk size is no text".to_owned())?;
        let size = usize::from_str_radix(line, 16).map_err(|_| format!("no chunk size: {line:?}"))?;
        at += line_end + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk does not end where its size says".to_owned());
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    loop {
        let Some(line_end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&bytes[at..at + line_end]).into_owned();
        at += line_end + 2;
        if line.is_empty() {
            return Ok(Some((Bytes::from(body), at)));
        }
        let (name, value) = line.split_once(':').ok_or(format!("no trailer: {line:?}"))?;
        trailers.append(
            name.parse::<HeaderName>().map_err(|_| format!("no trailer name: {line:?}"))?,
            value.trim().parse::<HeaderValue>().map_err(|_| format!("no trailer value: {line:?}"))?,
        );
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Response, usize) {
        parse(text.as_bytes(), "GET", false).unwrap().unwrap()
    }

    #[test]
    fn lengths_chunks_and_trailers_are_followed_to_the_byte() {
        let (response, used) = read("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 ");
        assert_eq!((response.status, response.text().as_str(), used), (200, "hi", 40));
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n";
        let (response, used) = read(text);
        assert_eq!((response.text().as_str(), response.trailer("x-sum"), used), ("hi", Some("1"), text.len()));
    }

    #[test]
    fn incomplete_answers_wait_and_malformed_ones_are_refused() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi", "GET", false).unwrap().is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "HEAD", false).unwrap().is_some());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\nall of it", "GET", false).unwrap().is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\nall of it", "GET", true).unwrap().is_some());
        for bad in ["SIP/2.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nno field\r\n\r\n"] {
            assert!(parse(bad.as_bytes(), "GET", false).is_err(), "{bad}");
        }
        assert!(
            parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nhi\r\n0\r\n\r\n", "GET", false).is_err()
        );
    }
}
