//! Where a management API is: `--server`.

use std::net::IpAddr;

use http::Uri;
use http::uri::Scheme;

use crate::cli::failure::Failure;

/// The address of a management API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address {
    /// Whether it is spoken to over TLS.
    pub(super) is_tls: bool,
    /// Host and port, as `Host` says them.
    pub(super) authority: String,
    /// The host alone, without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// What stands before `/v1`, without a slash at its end.
    pub(super) prefix: String,
}

impl Address {
    /// Reads a URL. The key would be readable on the way over plain http, so that leads to this machine only, unless
    /// `insecure`.
    ///
    /// # Errors
    /// [`Failure::Usage`]; the URL is not repeated, as it may hold what should not be in one.
    pub(super) fn parse(url: &str, insecure: bool) -> Result<Self, Failure> {
        let odd = || {
            Failure::usage(
                "--server is the address of a management API, such as https://gate.example or http://127.0.0.1:9901; \
                 no user, no query",
            )
        };
        let uri: Uri = url.parse().map_err(|_| odd())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(odd)?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(odd()),
        };
        if uri.query().is_some() || authority.host().is_empty() || url.contains('#') {
            return Err(odd());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if !is_tls && !insecure && !is_this_machine(&host) {
            return Err(Failure::usage(format!(
                "over plain http the key is readable on its way to {host}; use https, a tunnel to 127.0.0.1, or \
                 --insecure-http where the network itself is trusted"
            )));
        }
        let usual = if is_tls { 443 } else { 80 };
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => usual,
            // Something stands where a port does.
            None => return Err(odd()),
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { is_tls, authority: authority.as_str().to_owned(), host, port, prefix })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_a_host_and_little_else() {
        for (url, shown, host, port) in [
            ("https://gate.example", "https://gate.example", "gate.example", 443),
            ("https://gate.example:9901/", "https://gate.example:9901", "gate.example", 9901),
            ("https://gate.example/admin/", "https://gate.example/admin", "gate.example", 443),
            ("http://127.0.0.1:9901", "http://127.0.0.1:9901", "127.0.0.1", 9901),
            ("http://[::1]:9901", "http://[::1]:9901", "::1", 9901),
            ("http://localhost", "http://localhost", "localhost", 80),
        ] {
            let address = Address::parse(url, false).unwrap();
            assert_eq!((address.to_string().as_str(), address.host.as_str(), address.port), (shown, host, port));
        }
        for odd in [
            "",
            "gate.example",
            "/v1",
            "ftp://gate.example",
            "https://",
            "https://a@gate.example",
            "https://gate.example/?a=b",
            "https://gate.example/#x",
            "https://gate.example:99999",
        ] {
            let failure = Address::parse(odd, false).unwrap_err();
            assert!(failure.code() == 2 && failure.to_string().contains("management API"), "{odd}: {failure}");
        }
    }

    #[test]
    fn a_key_does_not_leave_the_machine_in_the_clear_unless_asked_to() {
        for url in ["http://10.0.0.1:9901", "http://gate.example", "http://localhost.example", "http://[2001:db8::1]"] {
            let failure = Address::parse(url, false).unwrap_err();
            assert!(failure.to_string().contains("--insecure-http"), "{url}: {failure}");
            assert!(Address::parse(url, true).is_ok(), "{url}");
        }
        let failure = Address::parse("http://user:secret@10.0.0.1", false).unwrap_err();
        assert!(!failure.to_string().contains("secret"), "{failure}");
    }
}
