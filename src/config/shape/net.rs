//! Addresses, networks, URLs and header fields.

use std::net::SocketAddr;

use http::{HeaderName, Uri};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Definitions, Flaw, Shape, note_flaw, parsed, scalar};
use crate::config::diagnostic::Findings;
use crate::config::node::Node;
use crate::proxy::NamePattern;
use crate::server::Bind;

/// Reads `127.0.0.1:8080` or `[::1]:8080`.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, Flaw> {
    let flaw = || {
        let fix = "Write an address and a port: 127.0.0.1:8080, [::1]:8080, 0.0.0.0:8080 or [::]:8080";
        if text.starts_with(':') && text[1..].parse::<u16>().is_ok() {
            return Flaw::new("names no address", format!("Write [::]{text} for every address, or 127.0.0.1{text}"));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            return Flaw::new("is a name, not an address", format!("Write 127.0.0.1:{port} or [::1]:{port}"));
        }
        if text.parse::<u16>().is_ok() {
            return Flaw::new("is a port without an address", format!("Write 127.0.0.1:{text} or [::]:{text}"));
        }
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Flaw::new("names no port", fix);
        }
        Flaw::new("is no address to listen on", fix)
    };
    text.parse().map_err(|_| flaw())
}

impl Shape for SocketAddr {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "an address such as 127.0.0.1:8080", findings, parse_address)
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": ":[0-9]+$" })
    }
}

impl Shape for Bind {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let base = findings.sources.base_of(node.at);
        parsed(node, "an address such as 127.0.0.1:8080", findings, |text| match text.strip_prefix("unix:") {
            Some("") => Err(Flaw::new("names no socket", "Write unix:/path")),
            Some(path) => Ok(Self::Unix(base.join(path))),
            None => parse_address(text).map(Self::Tcp),
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^unix:.+$|:[0-9]+$" })
    }
}

impl Shape for IpNet {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a network such as 10.0.0.0/8", findings, |text| {
            let fix = "Write 10.0.0.0/8, 2001:db8::/32, or one address";
            let net = text
                .parse::<Self>()
                .ok()
                .or_else(|| text.parse::<std::net::IpAddr>().ok().map(Self::from))
                .ok_or_else(|| Flaw::new("is neither a network nor an address", fix))?;
            let address = net.addr();
            if address == net.network() {
                Ok(net)
            } else {
                Err(Flaw::new("has bits set behind its prefix", format!("Write {} or {address}", net.trunc())))
            }
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]+)?$" })
    }
}

/// Where an upstream listens: scheme, host and port.
impl Shape for Uri {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let scalar = scalar(node, "a URL such as http://127.0.0.1:9000", findings)?;
        if scalar.text.contains('@') {
            // What stands before the `@` may be a password: neither message nor excerpt shows it.
            findings.sources.mark_secret(node.at);
            let problem =
                super::Problem::new(super::Code::BadValue, node.at, "a target cannot hold a user or password");
            findings.note(problem.fix("Set `headers: { set: { Authorization: … } }` on the upstream instead"));
            return None;
        }
        match parse_target(&scalar.text) {
            Ok(uri) => Some(uri),
            Err(flaw) => {
                note_flaw(node.at, scalar, "a URL such as http://127.0.0.1:9000", flaw, findings);
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^https?://[^/?#@]+/?$" })
    }
}

/// Reads `http://host:port` or `https://host:port`.
pub(crate) fn parse_target(text: &str) -> Result<Uri, Flaw> {
    let fix = "Write http://host:port or https://host:port";
    let uri: Uri = text.parse().map_err(|_| Flaw::new("is no URL", fix))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return Err(Flaw::new("is neither an http nor an https URL", fix)),
        None => return Err(Flaw::new("names no scheme", format!("Write http://{text}"))),
    }
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return Err(Flaw::new("names no host", fix));
    };
    let port = authority.as_str().rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err(Flaw::new("has no port that a server can listen on", fix));
    }
    if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
        let fix = "End it after the port; `add_prefix` on the route puts a path in front";
        return Err(Flaw::new("has a path", fix));
    }
    Ok(uri)
}

/// Reads the name of a header field.
pub(crate) fn parse_header_name(text: &str) -> Result<HeaderName, Flaw> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Flaw::new("is no name of a header field (RFC 9110 §5.1)", "Use letters, digits and `-`"))
}

impl Shape for HeaderName {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "the name of a header field", findings, parse_header_name)
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" })
    }
}

/// What stands for every name with a `_` or a `.` in it.
pub(crate) const UNUSUAL_NAMES: &str = "*[_.]*";

impl Shape for NamePattern {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "the name of a header field", findings, |text| {
            if text == UNUSUAL_NAMES {
                return Ok(Self::Unusual);
            }
            match text.strip_suffix('*') {
                Some("") => Err(Flaw::new("would remove every field", "Write at least one character before `*`")),
                Some(start) => parse_header_name(start).map(|name| Self::Prefix(name.as_str().to_owned())),
                None => parse_header_name(text).map(|name| Self::Exact(name.as_str().to_owned())),
            }
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}
