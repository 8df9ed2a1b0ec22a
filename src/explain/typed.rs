//! A request as it is typed on a command line, written in a file of expectations, or sent to the API.
//!
//! Owns taking a URL apart without mending it: a path that a client could send is explained as the gateway sees it.

use std::net::IpAddr;

use http::Method;

use crate::domain::OwnedFields;
use crate::gate::RequestHead;
use crate::manage::check_origin;

/// A request without credential.
#[derive(Clone, Debug)]
pub struct TypedRequest {
    /// The method.
    pub method: Method,
    /// Host with port, as in `Host`; empty where only a path was given.
    pub host: String,
    /// The path as it would be sent.
    pub path: String,
    query: Option<String>,
    /// `Origin`, where a page is supposed to send it.
    fields: OwnedFields,
}

impl TypedRequest {
    /// Reads a method and `https://host/path?query` or `/path?query`.
    ///
    /// # Errors
    /// What cannot be sent at all.
    pub fn parse(method: &str, url: &str) -> Result<Self, String> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("{method:?} is not a method; write for example GET"))?;
        let (host, target) = split_url(url)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { method, host: host.to_owned(), path: path.to_owned(), query, fields: OwnedFields::default() })
    }

    /// The same as a page of this origin sends it.
    ///
    /// # Errors
    /// When browsers send no such `Origin`.
    pub fn from_page(mut self, origin: &str) -> Result<Self, String> {
        // That of pages which have none to tell.
        if origin != "null" {
            check_origin(origin)?;
        }
        self.fields = OwnedFields::default();
        self.fields.push(b"origin", origin.as_bytes());
        Ok(self)
    }

    /// A request without a query, from its parts as they came.
    pub(super) fn of(method: Method, host: String, path: String) -> Self {
        Self { method, host, path, query: None, fields: OwnedFields::default() }
    }

    /// The request as the gate sees it, from this client.
    pub fn head(&self, client: Option<IpAddr>) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            fields: self.fields.view(),
            client,
            is_upgrade: false,
        }
    }
}

fn split_url(url: &str) -> Result<(&str, &str), String> {
    if url.starts_with('/') {
        return Ok(("", url));
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let begins = url.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
        begins.then(|| &url[scheme.len()..])
    });
    let Some(rest) = rest else {
        return Err(format!("{url:?} is neither a URL such as https://api.example.com/v1 nor a path such as /v1"));
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    if rest[..end].is_empty() {
        return Err(format!("{url:?} has no host"));
    }
    Ok(rest.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_never_mended() {
        let cases = [
            ("https://api.example.com:8443/v1/a?b=c?d", "api.example.com:8443", "/v1/a"),
            ("HTTP://h", "h", "/"),
            ("http://h?x", "h", "/"),
            ("/a/../b%2Fc", "", "/a/../b%2Fc"),
            ("//a", "", "//a"),
        ];
        for (url, host, path) in cases {
            let request = TypedRequest::parse("GET", url).unwrap();
            assert_eq!((request.host.as_str(), request.path.as_str()), (host, path), "{url}");
        }
        for url in ["v1/orders", "ftp://h/", "http:///x", ""] {
            assert!(TypedRequest::parse("GET", url).is_err(), "{url}");
        }
        assert!(TypedRequest::parse("GE T", "/").is_err());
    }
}
