//! Host patterns, and the host of a request in the form they are compared in.
//!
//! Owns case, ports, trailing dots and address literals. Must not know paths or routes.

use std::net::Ipv6Addr;

use smallvec::SmallVec;

use super::pattern::PatternError;

/// A host pattern, without port: an exact name or address, or `*.` and a name for every name below it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct HostPattern {
    text: String,
    kind: HostKind,
}

#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub(super) enum HostKind {
    /// This host, in comparable form.
    Exact(String),
    /// Hosts that end in this, which begins with a dot, in comparable form.
    Below(String),
}

/// How well a host pattern fits a host: exact, then the longest wildcard, then no pattern at all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum HostFit {
    Any,
    /// With the length of what stands behind the star.
    Below(usize),
    Exact,
}

impl HostPattern {
    /// Parses a host pattern.
    ///
    /// `*.example.com` is for `a.example.com` and `a.b.example.com`, not for `example.com`.
    ///
    /// # Errors
    /// Whatever could never be the host of a request: ports, paths, schemes, characters outside letters, digits,
    /// `-`, `.` and `_` (international names are written in their `xn--` form).
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let whole = 0..text.len();
        if text.is_empty() || text == "*" {
            let fix = "leave `hosts` out to answer for every host";
            return Err(PatternError::new(whole, format!("`{text}` is not a host"), fix));
        }
        if let Some(at) = text.find("://") {
            let host = text[at + 3..].split('/').next().unwrap_or_default();
            return Err(PatternError::new(0..at + 3, "a host has no scheme", format!("write `{host}`")));
        }
        if let Some(at) = text.find('/') {
            let fix = format!("write `{}`, and the path in `path`", &text[..at]);
            return Err(PatternError::new(at..text.len(), "a host has no path", fix));
        }
        if let Some((at, c)) = text.char_indices().find(|(_, c)| !c.is_ascii()) {
            let fix = "write the name in its ASCII form, which begins with `xn--` (RFC 5890)";
            return Err(PatternError::new(at..at + c.len_utf8(), format!("{c:?} cannot stand in a host"), fix));
        }
        let (name, is_wildcard) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        if let Some(at) = name.find('*') {
            let at = at + text.len() - name.len();
            let fix = "write `*.example.com` for every name below example.com";
            return Err(PatternError::new(at..at + 1, "a `*` is the whole first label", fix));
        }
        let port_at = if name.starts_with('[') { name.find("]:").map(|at| at + 1) } else { name.find(':') };
        if let Some(at) = port_at.filter(|_| name.starts_with('[') || name.matches(':').count() == 1) {
            let at = at + text.len() - name.len();
            let fix = format!("write `{}`: the port of a request is not compared", &text[..at]);
            return Err(PatternError::new(at..text.len(), "a host pattern has no port", fix));
        }
        let host = HostName::read(name).filter(|host| !host.as_bytes().is_empty());
        let host = host.filter(|_| !is_wildcard || !name.starts_with('['));
        let Some(host) = host.and_then(|host| String::from_utf8(host.as_bytes().to_vec()).ok()) else {
            let fix = if name.contains(':') {
                "write an IPv6 address in brackets, as in `[::1]`, without `*.` and zone"
            } else {
                "use letters, digits, `-`, `_` and single dots, as in `api.example.com`"
            };
            return Err(PatternError::new(whole, format!("`{text}` is not a host"), fix));
        };
        let kind = if is_wildcard { HostKind::Below(format!(".{host}")) } else { HostKind::Exact(host) };
        Ok(Self { text: text.to_owned(), kind })
    }

    /// A host that it matches.
    pub fn sample(&self) -> String {
        match self.as_str().strip_prefix("*.") {
            Some(parent) => format!("www.{parent}"),
            None => self.as_str().to_owned(),
        }
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn kind(&self) -> &HostKind {
        &self.kind
    }

    /// Whether every host that `other` matches is matched by this pattern too.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (HostKind::Exact(mine), HostKind::Exact(theirs)) => mine == theirs,
            (HostKind::Exact(_), HostKind::Below(_)) => false,
            (HostKind::Below(mine), HostKind::Exact(theirs) | HostKind::Below(theirs)) => {
                theirs.ends_with(mine.as_str())
            }
        }
    }

    pub(super) fn fit(&self, host: &HostName<'_>) -> Option<HostFit> {
        match &self.kind {
            HostKind::Exact(name) => (name.as_bytes() == host.as_bytes()).then_some(HostFit::Exact),
            HostKind::Below(suffix) => {
                host.as_bytes().ends_with(suffix.as_bytes()).then_some(HostFit::Below(suffix.len()))
            }
        }
    }
}

/// The host of a request: without port and trailing dot, in lower case, addresses in one spelling.
#[derive(Debug)]
pub(super) enum HostName<'a> {
    AsSent(&'a [u8]),
    Rewritten(SmallVec<[u8; 64]>),
}

impl<'a> HostName<'a> {
    /// Reads `host[:port]`. Empty stays empty: no pattern matches it. Allocates only beyond 64 bytes that change.
    ///
    /// `None` where it is no host: user information, escapes, commas, empty labels, ports that are no number.
    pub(super) fn read(authority: &'a str) -> Option<Self> {
        if authority.starts_with('[') {
            return read_address(authority);
        }
        let bytes = authority.as_bytes();
        let mut end = bytes.len();
        let mut has_upper_case = false;
        let mut is_behind_dot = true;
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => is_behind_dot = false,
                b'A'..=b'Z' => {
                    has_upper_case = true;
                    is_behind_dot = false;
                }
                b'.' if !is_behind_dot => is_behind_dot = true,
                b':' if at > 0 && bytes[at + 1..].iter().all(u8::is_ascii_digit) => {
                    end = at;
                    break;
                }
                _ => return None,
            }
        }
        let name = &bytes[..end];
        let name = name.strip_suffix(b".").unwrap_or(name);
        if !has_upper_case {
            return Some(Self::AsSent(name));
        }
        Some(Self::Rewritten(name.iter().map(u8::to_ascii_lowercase).collect()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::AsSent(name) => name,
            Self::Rewritten(name) => name,
        }
    }
}

/// `[IPv6]` with an optional port (RFC 3986 §3.2.2), in the spelling of RFC 5952.
fn read_address<'a>(authority: &str) -> Option<HostName<'a>> {
    let (address, port) = authority.strip_prefix('[')?.split_once(']')?;
    let digits = if port.is_empty() { port } else { port.strip_prefix(':')? };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let address: Ipv6Addr = address.parse().ok()?;
    Some(HostName::Rewritten(SmallVec::from_slice(format!("[{address}]").as_bytes())))
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
