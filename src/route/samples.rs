//! Short ways to write routes and requests down in tests.

use http::Method;

use super::{
    Conflict, EmptySegments, EncodedSlash, Found, HostPattern, Lookup, MethodSelector, Normalize, NormalizedPath,
    PathPattern, PathRules, ReadsPaths, RouteEntry, RouteIx, RouteTable, RuleRef, TrailingSlash,
};

/// A route from `"GET,POST /path"` or `"* a.test,*.b.test/path"`, followed by any of the words `keep`, `merge`,
/// `either`, `refuse`, `exact` and `to=N`.
pub(super) fn route(number: u32, text: &str) -> RouteEntry {
    let mut words = text.split(' ');
    let methods = words.next().unwrap().split(',').map(|name| MethodSelector::parse(name).unwrap()).collect();
    let target = words.next().unwrap();
    let (hosts, path) = target.split_at(target.find('/').unwrap());
    let hosts = hosts.split(',').filter(|host| !host.is_empty()).map(|host| HostPattern::parse(host).unwrap());
    let mut entry = RouteEntry {
        route: RouteIx(number),
        hosts: hosts.collect(),
        path: PathPattern::parse(path).unwrap(),
        methods,
        path_rules: PathRules::STRICT,
        reads_paths: ReadsPaths::Variously,
        upstream: 0,
    };
    for word in words {
        match word {
            "keep" => entry.path_rules.encoded_slash = EncodedSlash::Keep,
            "merge" => entry.path_rules.empty_segments = EmptySegments::Merge,
            "either" => entry.path_rules.trailing_slash = TrailingSlash::Either,
            "refuse" => entry.path_rules.normalize = Normalize::Refuse,
            "exact" => entry.reads_paths = ReadsPaths::Exactly,
            _ => entry.upstream = word.strip_prefix("to=").unwrap().parse().unwrap(),
        }
    }
    entry
}

fn entries(routes: &[&str]) -> Vec<RouteEntry> {
    (0..).zip(routes).map(|(number, text)| route(number, text)).collect()
}

pub(super) fn table(routes: &[&str]) -> RouteTable {
    RouteTable::build(entries(routes)).unwrap_or_else(|conflicts| panic!("{routes:?}: {conflicts:?}"))
}

pub(super) fn conflicts(routes: &[&str]) -> Vec<Conflict> {
    RouteTable::build(entries(routes)).err().unwrap_or_default()
}

pub(super) fn rule(route: u32, method: u16) -> RuleRef {
    RuleRef { route: RouteIx(route), method }
}

/// The answer to `"GET /path"` or `"GET host/path"`, in words: the routes that must agree and, if it is another, the
/// path forwarded; `404`; `405` and the methods allowed; or the reason of a 400.
pub(super) fn ask(table: &RouteTable, request: &str) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    let (host, raw) = target.split_at(target.find('/').unwrap_or(target.len()));
    let path = match NormalizedPath::parse(raw) {
        Ok(path) => path,
        Err(bad) => return format!("400 {bad:?}"),
    };
    match table.find(host, &Method::from_bytes(method.as_bytes()).unwrap(), &path) {
        Lookup::Found(Found { rule, also, path: forwarded }) => {
            let rules: Vec<_> = std::iter::once(rule).chain(also).map(|rule| rule.route.0.to_string()).collect();
            let rules = rules.join("+");
            if forwarded == raw { rules } else { format!("{rules} {forwarded}") }
        }
        Lookup::NotFound => "404".to_owned(),
        Lookup::MethodNotAllowed { allow, .. } => format!("405 {}", allow.header().to_str().unwrap()),
        Lookup::BadPath(bad) => format!("400 {bad:?}"),
    }
}

/// Asks every request and compares all answers at once.
pub(super) fn check(table: &RouteTable, cases: &[(&str, &str)]) {
    let told: Vec<_> = cases.iter().map(|(request, _)| (*request, ask(table, request))).collect();
    let expected: Vec<_> = cases.iter().map(|(request, answer)| (*request, (*answer).to_owned())).collect();
    assert_eq!(told, expected);
}
