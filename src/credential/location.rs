//! Where a request may carry its credential, and in which scheme.

use http::HeaderName;

/// How a credential stands in a header's value.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Scheme {
    /// `Bearer <token>` (RFC 6750 §2.1).
    Bearer,
    /// `Basic <base64>` (RFC 7617): the key as user name with an empty password, or id and secret of a pair.
    Basic,
    /// `<name> <token>` for any other name; compared without regard to case.
    Named(String),
}

impl Scheme {
    /// The scheme with this name, whatever its case.
    pub fn from_name(name: &str) -> Self {
        if name.eq_ignore_ascii_case("bearer") {
            Self::Bearer
        } else if name.eq_ignore_ascii_case("basic") {
            Self::Basic
        } else {
            Self::Named(name.to_owned())
        }
    }

    /// The name as it stands in a challenge.
    pub fn name(&self) -> &str {
        match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic",
            Self::Named(name) => name,
        }
    }
}

/// One place that may carry the credential.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Place {
    /// A header field; the whole value when there is no scheme.
    Header {
        /// The field's name.
        name: HeaderName,
        /// The scheme before the token.
        scheme: Option<Scheme>,
    },
    /// Two header fields: the public id of a pair, and its secret. A request without the second carries a key of one part
    /// in the first.
    Pair {
        /// The field of the id.
        id: HeaderName,
        /// The field of the secret.
        secret: HeaderName,
    },
    /// A cookie of this name (RFC 6265 §4.2.1; names keep their case).
    Cookie {
        /// The cookie's name.
        name: String,
    },
    /// A query parameter of this name. Removed before forwarding and from every log.
    Query {
        /// The parameter's name, after percent-decoding.
        name: String,
    },
}

impl Place {
    /// What holds where nothing is configured: `Authorization: Bearer`, then `X-API-Key`.
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::Header { name: http::header::AUTHORIZATION, scheme: Some(Scheme::Bearer) },
            Self::Header { name: HeaderName::from_static("x-api-key"), scheme: None },
        ]
    }
}
