//! A `curl` line that a new key can be tried with.
//!
//! Owns the choice of a rule that lets the key in, and how a request to it is typed. Asks the gate, guesses nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Method;
use ipnet::IpNet;

use crate::config::Settings;
use crate::credential::{Place, Scheme};
use crate::domain::{KeyId, KeyKind, KeyRecord, OwnedFields, Timestamp};
use crate::gate::{
    self, Answer, Demand, MethodSelector, RequestHead, RouteSettings, Rules, SupposedCaller, SupposedKey,
};
use crate::route::{HostPattern, PathPattern};
use crate::server::{Bind, ListenerSettings};

/// What came of looking for a request that a key can make.
#[derive(Debug)]
pub(super) enum Trial {
    /// This one.
    Line(Call),
    /// No rule lets the key in.
    NoRoute,
    /// No listener can be reached with curl from here.
    NoListener,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    /// Options that lead to the listener, and the URL.
    url: String,
    options: Vec<String>,
    place: Place,
    /// The id of a pair, which stands before its secret.
    pair: Option<KeyId>,
    /// Whether it is let in from this machine.
    is_from_here: bool,
}

/// A request of this key that is forwarded: one that reads, if there is one, and is let in from here. A key that is bound
/// to pages is tried as the first of them does, and one that is bound to networks from each of them.
pub(super) fn try_key(settings: &Settings, rules: &Rules, record: &KeyRecord, now: Timestamp) -> Trial {
    if record.kind == KeyKind::Management {
        return try_management(settings, record);
    }
    let Some(door) = settings.listeners.iter().find_map(Door::of) else { return Trial::NoListener };
    let caller = SupposedCaller::Key(SupposedKey::of_record(record, false, rules, now));
    let pair = record.paired.then_some(record.id);
    let routes = settings.gate.routes.iter();
    let mut samples: Vec<Sample<'_>> = routes.flat_map(|route| samples(route, pair.is_some())).collect();
    samples.sort_by_key(Sample::rank);
    let origin = record.bounds.allowed_origins.first();
    let mut fields = OwnedFields::default();
    if let Some(origin) = origin {
        fields.push(b"origin", origin.as_bytes());
    }
    let is_let_in = |sample: &Sample<'_>, client: IpAddr| {
        let head = RequestHead {
            method: &sample.method,
            host: &sample.host,
            path: &sample.path,
            query: None,
            fields: fields.view(),
            client: Some(client),
            is_upgrade: false,
        };
        gate::explain(&head, rules, &caller, now).answer == Answer::Forward
    };
    let here = samples.iter().find(|sample| is_let_in(sample, door.client()));
    let elsewhere = || {
        let networks = |sample: &Sample<'_>| {
            let networks = record.bounds.allowed_ips.iter().chain(sample.allow_ips);
            networks.map(|network| network.addr()).any(|client| is_let_in(sample, client))
        };
        samples.iter().find(|sample| networks(sample))
    };
    let Some(sample) = here.or_else(elsewhere) else { return Trial::NoRoute };
    let mut call = Call { is_from_here: here.is_some(), ..door.call(sample, pair) };
    if let Some(origin) = origin {
        call.options.push(format!("-H {}", shell_word(&format!("Origin: {origin}"))));
    }
    Trial::Line(call)
}

/// A management key shows itself: every one may.
fn try_management(settings: &Settings, record: &KeyRecord) -> Trial {
    let pair = record.paired.then_some(record.id);
    let place = settings.gate.accept.iter().find(|place| takes(place, record.paired));
    let Some(place) = place else { return Trial::NoListener };
    let bind = settings.admin.bind;
    let door =
        Door { address: Address::Tcp(reachable(bind.ip()), Port(bind.port())), is_tls: settings.admin.tls.is_some() };
    let (host, path) = (String::new(), "/v1/keys/self".to_owned());
    let sample = Sample { method: Method::GET, host, path, demands_scopes: false, place, allow_ips: &[] };
    let networks = &record.bounds.allowed_ips;
    let is_from_here = networks.is_empty() || networks.iter().any(|network| network.contains(&door.client()));
    Trial::Line(Call { is_from_here, ..door.call(&sample, pair) })
}

/// A request that one rule answers, unless a better one does.
struct Sample<'r> {
    method: Method,
    host: String,
    path: String,
    demands_scopes: bool,
    place: &'r Place,
    /// The networks that the route serves; none: any.
    allow_ips: &'r [IpNet],
}

impl Sample<'_> {
    /// Smaller is better: reading before writing, a demand for scopes before one for any key, no invented segments.
    fn rank(&self) -> (bool, bool, usize) {
        (self.method != Method::GET, !self.demands_scopes, self.path.matches(PathPattern::INVENTED).count())
    }
}

fn samples(route: &RouteSettings, is_pair: bool) -> impl Iterator<Item = Sample<'_>> {
    let host = route.hosts.first().map(HostPattern::sample).unwrap_or_default();
    route.methods.iter().filter_map(move |rule| {
        let place = route.accept.iter().find(|place| takes(place, is_pair))?;
        let demands_scopes = match &rule.demand {
            // Nobody learns anything from a key on a route that asks for none.
            Demand::Public => return None,
            Demand::AnyKey => false,
            Demand::Scopes { .. } => true,
        };
        let method = match &rule.selector {
            MethodSelector::Named(method) => method.clone(),
            MethodSelector::All => Method::GET,
        };
        let (host, path) = (host.clone(), route.path.sample());
        Some(Sample { method, host, path, demands_scopes, place, allow_ips: &route.allow_ips })
    })
}

/// Whether a place is one for such a key: a pair fits best where two things are asked for.
fn takes(place: &Place, is_pair: bool) -> bool {
    match place {
        Place::Header { scheme: Some(Scheme::Basic), .. } | Place::Pair { .. } => true,
        Place::Header { .. } | Place::Cookie { .. } | Place::Query { .. } => !is_pair,
    }
}

/// A listener as a client on this machine reaches it.
struct Door<'s> {
    address: Address<'s>,
    is_tls: bool,
}

enum Address<'s> {
    Tcp(IpAddr, Port),
    Unix(&'s std::path::Path),
}

impl<'s> Door<'s> {
    fn of(listener: &'s ListenerSettings) -> Option<Self> {
        if !listener.proxy_protocol_from.is_empty() || listener.redirect_https {
            return None;
        }
        let address = match &listener.bind {
            Bind::Tcp(bind) => Address::Tcp(reachable(bind.ip()), Port(bind.port())),
            Bind::Unix(path) => Address::Unix(path),
        };
        Some(Self { address, is_tls: listener.tls.is_some() })
    }

    /// Where requests from this machine seem to come from.
    fn client(&self) -> IpAddr {
        match &self.address {
            Address::Tcp(address, _) => *address,
            Address::Unix(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn call(&self, sample: &Sample<'_>, pair: Option<KeyId>) -> Call {
        let mut options = Vec::new();
        let scheme = if self.is_tls { "https" } else { "http" };
        let authority = match &self.address {
            Address::Tcp(address, port) if sample.host.is_empty() => format!("{}:{port}", in_url(*address)),
            // The name must be in the URL where TLS asks for it.
            Address::Tcp(address, port) if self.is_tls => {
                let route = format!("{}:{port}:{}", sample.host, in_url(*address));
                options.push(format!("--resolve {}", shell_word(&route)));
                format!("{}:{port}", sample.host)
            }
            Address::Tcp(address, port) => {
                options.push(format!("-H {}", shell_word(&format!("Host: {}", sample.host))));
                format!("{}:{port}", in_url(*address))
            }
            Address::Unix(path) => {
                options.push(format!("--unix-socket {}", shell_word(&path.display().to_string())));
                if sample.host.is_empty() { "localhost".to_owned() } else { sample.host.clone() }
            }
        };
        let url = format!("{scheme}://{authority}{}", sample.path);
        Call { method: sample.method.clone(), url, options, place: sample.place.clone(), pair, is_from_here: true }
    }
}

/// A port; 0 is one that the system chooses when the gateway starts, and only its log knows.
#[derive(Clone, Copy)]
struct Port(u16);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(0) => f.write_str("PORT"),
            Self(port) => port.fmt(f),
        }
    }
}

fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The address that a client uses for a listener on all of them.
fn reachable(bind: IpAddr) -> IpAddr {
    match bind {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

impl Call {
    /// Whether it is let in when it is made on this machine.
    pub(super) const fn is_from_here(&self) -> bool {
        self.is_from_here
    }

    /// The line, with this key where the route looks for it.
    pub(super) fn with_key(&self, key: &str) -> String {
        let mut url = self.url.clone();
        let credential = match &self.place {
            Place::Header { name: _, scheme: Some(Scheme::Basic) } => {
                let user = self.pair.map_or_else(|| format!("{key}:"), |id| format!("{id}:{key}"));
                format!("-u {}", shell_word(&user))
            }
            Place::Pair { id, secret } => {
                let field = |name: &http::HeaderName, value: &str| {
                    format!("-H {}", shell_word(&format!("{}: {value}", written(name.as_str()))))
                };
                match &self.pair {
                    Some(public) => format!("{} {}", field(id, &public.to_string()), field(secret, key)),
                    None => field(id, key),
                }
            }
            Place::Header { name, scheme } => {
                let scheme = scheme.as_ref().map(|scheme| format!("{} ", scheme.name())).unwrap_or_default();
                format!("-H {}", shell_word(&format!("{}: {scheme}{key}", written(name.as_str()))))
            }
            Place::Cookie { name } => format!("-b {}", shell_word(&format!("{name}={key}"))),
            Place::Query { name } => {
                url = format!("{url}?{}={key}", escaped(name));
                String::new()
            }
        };
        let mut words = vec!["curl -i".to_owned()];
        match self.method {
            Method::GET => {}
            Method::HEAD => words.push("-I".to_owned()),
            _ => words.push(format!("-X {}", shell_word(self.method.as_str()))),
        }
        words.push(shell_word(&url));
        words.extend(self.options.iter().cloned());
        words.push(credential);
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }
}

/// A field's name in the case people write it.
fn written(name: &str) -> String {
    match name {
        "x-api-key" => "X-API-Key".to_owned(),
        _ => name
            .split('-')
            .map(|part| {
                let mut letters = part.chars();
                letters
                    .next()
                    .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
                    .unwrap_or_default()
            })
            .collect::<Vec<_>>()
            .join("-"),
    }
}

/// A text with everything escaped that is not unreserved (RFC 3986 §2.3).
fn escaped(text: &str) -> String {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if is_unreserved(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// A text as one word of a shell's line.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:@%+=,".contains(&b);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
#[path = "curl_tests.rs"]
mod tests;
