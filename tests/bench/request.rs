//! A request as the engine would hand it to the decision.

use http::Method;
use portcullis::domain::OwnedFields;
use portcullis::gate::RequestHead;

/// What a [`RequestHead`] borrows from.
#[derive(Clone)]
pub struct Request {
    method: Method,
    path: String,
    fields: OwnedFields,
}

impl Request {
    /// A `GET` with the fields that clients commonly send, and no credential.
    pub fn get(path: &str) -> Self {
        let mut fields = OwnedFields::default();
        for (name, value) in [
            ("Host", "api.example.com"),
            ("User-Agent", "okhttp/4.12.0"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "gzip, deflate, br"),
            ("Content-Type", "application/json"),
        ] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        Self { method: Method::GET, path: path.to_owned(), fields }
    }

    /// The same with this key as its Bearer token.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.fields.push(b"Authorization", format!("Bearer {key}").as_bytes());
        self
    }

    /// What the decision sees of it. The one place that makes such a thing.
    pub fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            host: "api.example.com",
            path: &self.path,
            query: None,
            fields: self.fields.view(),
            client: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            is_upgrade: false,
        }
    }
}
