//! An answer as a client sees it, and what tests ask of it.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Version};
use serde_json::Value;

/// An answer, read to its end.
#[derive(Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// The version it was spoken in.
    pub version: Version,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body without framing.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: HeaderMap,
}

impl Response {
    /// A field's first value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("the gateway's fields are ASCII"))
    }

    /// All values of a field.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("the gateway's fields are ASCII")).collect()
    }

    /// A trailer's value as text.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The `code` of a problem body, or an empty text.
    pub fn code(&self) -> String {
        serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|body| body["code"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// The challenge, or an empty text.
    pub fn challenge(&self) -> String {
        self.header_all("www-authenticate").join(", ")
    }

    /// Whether an [`Origin`](crate::Origin) made this answer, rather than the gateway.
    pub fn is_from_origin(&self) -> bool {
        self.headers.contains_key("x-made-by")
    }

    /// Itself, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Itself, if it is this refusal of the gateway.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert!(
            self.status == status && self.code() == code && !self.is_from_origin(),
            "expected the gateway to answer {status} {code}, got {self:?}"
        );
        self
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} {}", self.version, self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        let shown = &self.body[..self.body.len().min(2000)];
        write!(f, "\n{}", String::from_utf8_lossy(shown))?;
        if shown.len() < self.body.len() {
            write!(f, "… ({} bytes)", self.body.len())?;
        }
        for (name, value) in &self.trailers {
            write!(f, "\n[trailer] {name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        Ok(())
    }
}
