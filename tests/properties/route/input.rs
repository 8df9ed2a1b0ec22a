//! Route maps and requests that meet often: few words, many tricks.

use portcullis::route::{RouteEntry, RouteTable};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::oracle::{Route, clash};

/// Segments of patterns that every server reads alike.
pub(super) const PLAIN: &[&str] = &["a", "b", "ab", "{p}", "*", "c.d", "~e"];
/// Segments of patterns that some server reads differently.
pub(super) const TRICKY: &[&str] =
    &["a", "b", "A", "B", "{p}", "*", "a;v", "x%20y", "%C3%A9", "%C3%89", "a:b", "x%2Fy", "100%25", "k", "..a"];

const HOSTS: &[&str] = &["a.test", "*.test", "b.a.test", "*.a.test"];
const METHODS: &[&str] = &["GET", "HEAD", "POST", "*", "PURGE"];

/// Pieces of segments of hostile paths.
const ATOMS: &[&str] = &[
    "a",
    "b",
    "A",
    "B",
    "k",
    "v",
    "",
    ".",
    "..",
    ";",
    ":",
    "=",
    "\"",
    "[",
    "%41",
    "%61",
    "%2e",
    "%2E",
    "%2f",
    "%2F",
    "%252f",
    "%252F",
    "%252e",
    "%252E",
    "%252e%252e",
    "%253b",
    "%253B",
    "%3B",
    "%3b",
    "%3A",
    "%253A",
    "%25",
    "%2541",
    "%2561",
    "%20",
    "%2520",
    "x%20y",
    "x%2Fy",
    "100%25",
    "a;v",
    "%C3%A9",
    "%c3%89",
    "%25C3%25A9",
    "%E2%84%AA",
    "%EF%BC%8F",
    "%EF%BC%8E",
    "%EF%BD%81",
    "%EF%BC%BC",
    "%3F",
    "%23",
    "%253F",
    "%2523",
    "%25252f",
    "%255c",
    "%2500",
    "%25ff",
    "..;",
    "%2e%2e",
];
/// Pieces that no path may hold.
const POISON: &[&str] =
    &["%5c", "\\", "%00", "%ff", "%c0%ae", "%c2%85", "%", "%2", "%zz", "%u002e", "é", " ", "#", "?", "\u{1}"];

pub(super) fn route(segments: &'static [&'static str]) -> impl Strategy<Value = Route> {
    let hosts = prop_oneof![3 => Just(Vec::new()), 2 => subsequence(HOSTS, 1..3)];
    let tail = prop_oneof![3 => Just(""), 1 => Just("/"), 3 => Just("/**")];
    let methods = subsequence(METHODS, 1..4);
    let flag = || prop::bool::weighted(0.3);
    let flags = (flag(), flag(), flag(), prop::bool::weighted(0.1), prop::bool::weighted(0.2));
    let upstream = prop_oneof![5 => Just(0_u32), 1 => Just(1)];
    (hosts, prop::collection::vec(select(segments), 0..4), tail, methods, flags, upstream).prop_map(
        |(hosts, segments, tail, methods, (keep, merge, either, refuse_changes, exact), upstream)| {
            let tail = if segments.is_empty() && tail == "/" { "" } else { tail };
            Route { hosts, segments, tail, methods, keep, merge, either, refuse_changes, exact, upstream }
        },
    )
}

pub(super) fn routes(segments: &'static [&'static str]) -> impl Strategy<Value = Vec<Route>> {
    prop::collection::vec(route(segments), 1..9)
}

/// Routes that can stand side by side: of those that clash the first stays.
pub(super) fn peaceful(segments: &'static [&'static str]) -> impl Strategy<Value = Vec<Route>> {
    routes(segments).prop_map(|routes| {
        let mut kept: Vec<Route> = Vec::new();
        for route in routes {
            if !kept.iter().any(|other| clash(other, &route)) {
                kept.push(route);
            }
        }
        kept
    })
}

pub(super) fn host() -> impl Strategy<Value = &'static str> {
    select(&["", "a.test", "A.Test:8080", "b.a.test", "c.a.test.", "d.c.a.test", "e.test:1", "test", "else"][..])
}

pub(super) fn method() -> impl Strategy<Value = &'static str> {
    select(&["GET", "GET", "HEAD", "POST", "OPTIONS", "PURGE", "get"][..])
}

/// A path of segments that patterns have.
pub(super) fn plain_path() -> impl Strategy<Value = String> {
    let segment = select(&["a", "b", "ab", "c.d", "~e", "z", "abc"][..]);
    (prop::collection::vec(segment, 0..5), any::<bool>()).prop_map(|(segments, slash)| {
        format!("/{}{}", segments.join("/"), if slash && !segments.is_empty() { "/" } else { "" })
    })
}

/// A path that means harm: mostly such that something can be made of it.
pub(super) fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![60 => select(ATOMS), 1 => select(POISON)];
    let crafted = prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat());
    let borrowed = select(TRICKY).prop_map(|text| if text.starts_with(['{', '*']) { "z" } else { text }.to_owned());
    let segment = prop_oneof![2 => crafted, 3 => borrowed];
    (prop::collection::vec(segment, 0..5), prop::bool::weighted(0.2))
        .prop_map(|(segments, slash)| format!("/{}{}", segments.join("/"), if slash { "/" } else { "" }))
}

/// A route map and requests to it.
#[derive(Clone, Debug)]
pub(super) struct Attack {
    pub(super) routes: Vec<Route>,
    pub(super) requests: Vec<Request>,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) host: &'static str,
    pub(super) method: &'static str,
    pub(super) path: String,
}

/// How many requests each route map is tried with.
pub(super) const REQUESTS: usize = 8;

/// Requests for one of the routes, disguised, beside requests that mean harm at random.
pub(super) fn attack() -> impl Strategy<Value = Attack> {
    let routes = (peaceful(TRICKY), prop::bool::weighted(0.7)).prop_map(|(mut routes, has_fallback)| {
        let fallback = Route {
            hosts: Vec::new(),
            segments: Vec::new(),
            tail: "/**",
            methods: vec!["*"],
            keep: true,
            merge: true,
            either: false,
            refuse_changes: false,
            exact: false,
            upstream: 0,
        };
        if has_fallback && !routes.iter().any(|route| clash(route, &fallback)) {
            routes.push(fallback);
        }
        routes
    });
    let aim = (any::<Index>(), any::<Index>(), "[abk]{0,3}", prop::collection::vec(disguise(), 0..4));
    let random = (host(), method(), hostile_path()).prop_map(|(host, method, path)| Request { host, method, path });
    let target = (prop::bool::weighted(0.8), aim, random);
    (routes, prop::collection::vec(target, REQUESTS)).prop_map(|(routes, targets)| {
        let request =
            |(is_aimed, (route, method, fill, disguises), random): (bool, (Index, Index, String, Vec<_>), Request)| {
                if is_aimed { aimed(route.get(&routes), method, random.host, &fill, &disguises) } else { random }
            };
        let requests = targets.into_iter().map(request).collect();
        Attack { routes, requests }
    })
}

fn aimed(route: &Route, method: Index, any_host: &'static str, fill: &str, disguises: &[(Index, Disguise)]) -> Request {
    let host = match route.hosts.first() {
        None => any_host,
        Some(pattern) if pattern.starts_with('*') => "b.a.test",
        Some(host) => host,
    };
    let method = match *method.get(&route.methods) {
        "*" => "OPTIONS",
        method => method,
    };
    Request { host, method, path: disguised(&aimed_path(route, fill), disguises) }
}

/// A path that the route's pattern matches.
fn aimed_path(route: &Route, fill: &str) -> String {
    let text = |segment: &&'static str| if segment.starts_with(['{', '*']) { "b" } else { segment };
    let path: String = route.segments.iter().flat_map(|segment| ["/", text(segment)]).collect();
    match route.tail {
        "/**" if !fill.is_empty() => format!("{path}/{fill}"),
        "/" => format!("{path}/"),
        _ if path.is_empty() => "/".to_owned(),
        _ => path,
    }
}

/// One change to one character of a path.
#[derive(Clone, Debug)]
enum Disguise {
    Escape,
    EscapeTwice,
    SwapCase,
    FullWidth,
    Insert(&'static str),
}

fn disguise() -> impl Strategy<Value = (Index, Disguise)> {
    let insert = select(
        &[
            ";",
            ";v",
            "/",
            "%2F",
            "%2f",
            "%252F",
            "%3B",
            "%3Bv",
            "%253Bv",
            "%3F",
            "%2523",
            "/b/..",
            "/.",
            "/b%2f..",
            "/%2e%2e",
            "/b/%252e%252e",
            "%252Fb%252F..",
            "/b%252F%252e%252e",
            "%20",
            "%25",
            "\"",
            ".",
            "%EF%BC%8F",
            "%EF%BC%8E",
        ][..],
    );
    let disguise = prop_oneof![
        Just(Disguise::Escape),
        Just(Disguise::EscapeTwice),
        Just(Disguise::SwapCase),
        Just(Disguise::FullWidth),
        insert.prop_map(Disguise::Insert),
    ];
    (any::<Index>(), disguise)
}

fn disguised(path: &str, disguises: &[(Index, Disguise)]) -> String {
    let mut pieces: Vec<String> = path.chars().map(|c| c.to_string()).collect();
    for (at, disguise) in disguises {
        let at = at.index(pieces.len());
        let piece = &mut pieces[at];
        let byte = piece.as_bytes()[0];
        *piece = match disguise {
            Disguise::Insert(text) => format!("{piece}{text}"),
            // The slash a path begins with, and what is changed already, stay.
            _ if at == 0 || piece.len() != 1 => continue,
            Disguise::Escape => format!("%{byte:02x}"),
            Disguise::EscapeTwice => format!("%25{byte:02X}"),
            Disguise::SwapCase if byte.is_ascii_lowercase() => piece.to_ascii_uppercase(),
            Disguise::SwapCase => piece.to_ascii_lowercase(),
            Disguise::FullWidth => {
                let wide = char::from_u32(u32::from(byte) + 0xfee0).map(|c| c.to_string()).unwrap_or_default();
                wide.bytes().map(|byte| format!("%{byte:02X}")).collect()
            }
        };
    }
    pieces.concat()
}

pub(super) fn entries(routes: &[Route]) -> Vec<RouteEntry> {
    (0..).zip(routes).map(|(number, route)| route.entry(number)).collect()
}

pub(super) fn table(routes: &[Route]) -> RouteTable {
    RouteTable::build(entries(routes)).unwrap_or_else(|conflicts| panic!("{conflicts:?}"))
}
