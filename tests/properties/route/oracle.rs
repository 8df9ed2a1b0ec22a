//! What the contract says about paths and routes, in the plainest code there is: score every rule, take the best.

use std::collections::BTreeSet;

use portcullis::route::{
    EmptySegments, EncodedSlash, HostPattern, MethodSelector, Normalize, PathPattern, PathRules, ReadsPaths,
    RouteEntry, RouteIx, TrailingSlash,
};

use super::input::Request;
use super::symbols::{Symbol, as_sent, cut, decoded, decoded_again, folded, without_parameters};
use Symbol::{Escaped, Plain};

/// A route as it would stand in a file.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub hosts: Vec<&'static str>,
    pub segments: Vec<&'static str>,
    /// Empty, `/` or `/**`.
    pub tail: &'static str,
    pub methods: Vec<&'static str>,
    pub keep: bool,
    pub merge: bool,
    pub either: bool,
    pub refuse_changes: bool,
    pub exact: bool,
    pub upstream: u32,
}

impl Route {
    pub(super) fn pattern(&self) -> String {
        let text: String = self.segments.iter().flat_map(|segment| ["/", segment]).chain([self.tail]).collect();
        if text.is_empty() { "/".to_owned() } else { text }
    }

    pub(super) fn entry(&self, number: u32) -> RouteEntry {
        RouteEntry {
            route: RouteIx(number),
            hosts: self.hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            path: PathPattern::parse(&self.pattern()).unwrap(),
            methods: self.methods.iter().map(|name| MethodSelector::parse(name).unwrap()).collect(),
            path_rules: PathRules {
                encoded_slash: if self.keep { EncodedSlash::Keep } else { EncodedSlash::Refuse },
                empty_segments: if self.merge { EmptySegments::Merge } else { EmptySegments::Refuse },
                trailing_slash: if self.either { TrailingSlash::Either } else { TrailingSlash::Exact },
                normalize: if self.refuse_changes { Normalize::Refuse } else { Normalize::Rewrite },
            },
            reads_paths: if self.exact { ReadsPaths::Exactly } else { ReadsPaths::Variously },
            upstream: self.upstream,
        }
    }

    /// The segments with unnamed parameters, as `read` sees them.
    fn shape(&self, read: impl Fn(&str) -> Vec<Symbol>) -> (Vec<Option<Vec<Symbol>>>, &str) {
        (self.segments.iter().map(|text| (!is_param(text)).then(|| read(text))).collect(), self.tail)
    }

    fn shares_host(&self, other: &Self) -> bool {
        (self.hosts.is_empty() && other.hosts.is_empty()) || self.hosts.iter().any(|host| other.hosts.contains(host))
    }
}

fn is_param(segment: &str) -> bool {
    segment == "*" || segment.starts_with('{')
}

/// Whether two routes cannot stand side by side.
pub(super) fn clash(a: &Route, b: &Route) -> bool {
    let is_one = a.shape(as_sent) == b.shape(as_sent);
    let is_one_folded = a.shape(|text| folded(&as_sent(text))) == b.shape(|text| folded(&as_sent(text)));
    let ties = is_one && a.methods.iter().any(|method| b.methods.contains(method));
    let only_case = !is_one && is_one_folded && !(a.exact && b.exact);
    a.shares_host(b) && (ties || only_case)
}

/// What a request must be answered with.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Route and index of its method, the others that must agree, the path forwarded.
    Rule((u32, u16), BTreeSet<(u32, u16)>, String),
    NotFound,
    NotAllowed(BTreeSet<String>),
    Bad,
}

/// The path in normal form, or `None` where it must be refused whatever the route.
pub(crate) fn normal_form(raw: &str) -> Option<String> {
    let parts: Vec<&str> = raw.strip_prefix('/')?.split('/').collect();
    let mut stack: Vec<String> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let part = canonical(part)?;
        match part.as_str() {
            "." => {}
            ".." if stack.pop().is_none_or(|left| left.is_empty()) => return None,
            ".." => {}
            _ => {
                let behind_dots = part.trim_start_matches('.');
                let has_dots = behind_dots != part;
                if part.starts_with(';') || (has_dots && (behind_dots.starts_with(';') || behind_dots.starts_with('%')))
                {
                    return None;
                }
                stack.push(part);
                continue;
            }
        }
        if at + 1 == parts.len() {
            stack.push(String::new());
        }
    }
    Some(format!("/{}", stack.join("/")))
}

/// One segment with unreserved characters decoded and all other escapes in upper case.
fn canonical(segment: &str) -> Option<String> {
    let mut out = String::new();
    let mut decoded = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            if !(0x21..=0x7e).contains(&first) || b"\\#?".contains(&first) {
                return None;
            }
            out.push(first as char);
            decoded.push(first);
            rest = tail;
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).unwrap();
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        decoded.push(byte);
        rest = &tail[2..];
    }
    let decoded = String::from_utf8(decoded).ok()?;
    (!decoded.chars().any(|c| c.is_control() || c == '\\')).then_some(out)
}

/// How escapes that the reading decoded are to be thought of: as still standing in the text, or as gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    AsSent,
    Decoded,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Kept,
    Folded,
}

/// One reading of a path.
pub(super) struct Reading {
    pub symbols: Vec<Symbol>,
    pub level: Level,
    pub case: Case,
}

/// All readings of a path in normal form that the contract speaks of; `None` where one of them is no text.
pub(super) fn readings(path: &str) -> Option<Vec<Reading>> {
    let d = |path: &[Symbol]| decoded(path);
    let dd = |path: &[Symbol]| decoded_again(path);
    let s = |path: &[Symbol]| without_parameters(path);
    let sent = as_sent(path);
    let once = d(&sent);
    let twice = dd(&once)?;
    let as_sent = [sent.clone(), s(&sent)];
    let decoded =
        [s(&once), cut(&once), d(&s(&sent)), s(&twice), cut(&twice), dd(&s(&once))?, dd(&d(&s(&sent)))?, once, twice];
    let as_sent = as_sent.into_iter().map(|symbols| (symbols, Level::AsSent));
    let decoded = decoded.into_iter().map(|symbols| (symbols, Level::Decoded));
    let both = as_sent.chain(decoded).flat_map(|(symbols, level)| {
        let folded = Reading { symbols: folded(&symbols), level, case: Case::Folded };
        [Reading { symbols, level, case: Case::Kept }, folded]
    });
    Some(both.collect())
}

impl Reading {
    /// The path with its dot segments resolved and, where there are any, as it is. `None`: it would be refused.
    fn variants(&self) -> Option<Vec<Vec<&[Symbol]>>> {
        if self.symbols.iter().any(|symbol| matches!(symbol, Plain(c) | Escaped(c) if c.is_control() || *c == '\\')) {
            return None;
        }
        let segments: Vec<&[Symbol]> = self.symbols.split(|symbol| *symbol == Plain('/')).skip(1).collect();
        let mut stack: Vec<&[Symbol]> = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            match *segment {
                [Plain('.')] => {}
                [Plain('.'), Plain('.')] if stack.pop().is_none_or(<[_]>::is_empty) => return None,
                [Plain('.'), Plain('.')] => {}
                _ if self.is_suspicious(segment) => return None,
                _ => {
                    stack.push(segment);
                    continue;
                }
            }
            if at + 1 == segments.len() {
                stack.push(&[]);
            }
        }
        Some(if stack == segments { vec![segments] } else { vec![stack, segments] })
    }

    fn is_suspicious(&self, segment: &[Symbol]) -> bool {
        let behind_dots = segment.iter().position(|symbol| *symbol != Plain('.')).filter(|dots| *dots > 0);
        let dots_then_more = behind_dots.is_some_and(|at| segment[at] == Plain(';') || self.is_escaped(segment[at]));
        let parts: Vec<_> = segment.split(|symbol| *symbol == Escaped('/')).collect();
        let hidden = |part: &&[Symbol]| {
            let part = part.split(|symbol| *symbol == Plain(';')).next().unwrap();
            matches!(part, [Plain('.')] | [Plain('.'), Plain('.')])
        };
        segment.first() == Some(&Plain(';')) || dots_then_more || (parts.len() > 1 && parts.iter().any(hidden))
    }

    /// Whether the symbol would be an escape if the reading were written as a path in normal form.
    fn is_escaped(&self, symbol: Symbol) -> bool {
        match symbol {
            Escaped(_) => true,
            Plain(c) if !c.is_ascii() => true,
            Plain(c) => self.level == Level::Decoded && !(c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c)),
        }
    }

    fn read_pattern(&self, text: &str) -> Vec<Symbol> {
        let symbols = as_sent(text);
        let symbols = if self.level == Level::Decoded { decoded(&symbols) } else { symbols };
        if self.case == Case::Folded { folded(&symbols) } else { symbols }
    }

    /// The rules this reading leads to, one for each variant; `None` where one is refused.
    pub(super) fn rules(&self, routes: &[Route], host: &str, method: &str) -> Option<Vec<(u32, u16)>> {
        let rule = |segments: &Vec<&[Symbol]>| {
            let best = best(routes, host, segments, |text| self.read_pattern(text));
            let shape = |at: &usize| routes[*at].shape(as_sent);
            if best.iter().any(|at| shape(at) != shape(&best[0])) {
                return None;
            }
            let rule = rule_for(routes, &best, method)?;
            tolerates(&routes[rule.0 as usize], segments).then_some(rule)
        };
        self.variants()?.iter().map(rule).collect()
    }
}

fn tolerates(route: &Route, segments: &[&[Symbol]]) -> bool {
    let has_slash = segments.iter().any(|segment| segment.contains(&Escaped('/')));
    let has_empty = has_empty_segment(segments);
    (route.keep || !has_slash) && (!has_empty || (route.merge && !route.refuse_changes))
}

fn has_empty_segment(segments: &[&[Symbol]]) -> bool {
    segments[..segments.len() - 1].iter().any(|segment| segment.is_empty())
}

/// The routes that share the best score, which are those with the same host and path.
fn best(routes: &[Route], host: &str, segments: &[&[Symbol]], read: impl Fn(&str) -> Vec<Symbol>) -> Vec<usize> {
    let score = |route: &Route| Some((host_score(route, host)?, path_score(route, segments, &read)?));
    let scores: Vec<_> = routes.iter().map(score).collect();
    let top = scores.iter().flatten().max();
    (0..routes.len()).filter(|at| top.is_some() && scores[*at].as_ref() == top).collect()
}

fn host_score(route: &Route, host: &str) -> Option<usize> {
    let host = host.split(':').next().unwrap().trim_end_matches('.').to_lowercase();
    if route.hosts.is_empty() {
        return Some(0);
    }
    let score = |pattern: &&str| match pattern.strip_prefix('*') {
        None => (**pattern == host).then_some(usize::MAX),
        Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len()),
    };
    route.hosts.iter().filter_map(score).max()
}

/// One number a segment: 5 text, 4 parameter, and at the end 3 as written, 2 the other slash, 1 the rest.
fn path_score(route: &Route, segments: &[&[Symbol]], read: impl Fn(&str) -> Vec<Symbol>) -> Option<Vec<u8>> {
    let (last, inner) = segments.split_last()?;
    let has_slash = last.is_empty() && inner.iter().any(|segment| !segment.is_empty());
    let given: Vec<_> = segments.iter().filter(|segment| !segment.is_empty()).collect();
    let mut score = Vec::new();
    for (at, pattern) in route.segments.iter().enumerate() {
        let given = given.get(at)?;
        if is_param(pattern) {
            score.push(4);
        } else if read(pattern) == ***given {
            score.push(5);
        } else {
            return None;
        }
    }
    let is_whole = given.len() == route.segments.len();
    score.push(match (route.tail, has_slash) {
        ("/**", _) => 1,
        _ if !is_whole => return None,
        ("", false) | ("/", true) => 3,
        _ if route.either => 2,
        _ => return None,
    });
    Some(score)
}

const ALL: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn rule_for(routes: &[Route], best: &[usize], method: &str) -> Option<(u32, u16)> {
    let named = |wanted: &str| {
        best.iter().find_map(|at| {
            let method = routes[*at].methods.iter().position(|name| *name == wanted)?;
            Some((u32::try_from(*at).unwrap(), u16::try_from(method).unwrap()))
        })
    };
    let all = || if ALL.contains(&method) { named("*") } else { None };
    let by_get = || if method == "HEAD" { named("GET") } else { None };
    named(method).or_else(by_get).or_else(all)
}

/// What the table must answer.
pub(super) fn answer(routes: &[Route], request: &Request) -> Answer {
    let Request { host, method, path: raw } = request;
    let Some(normal) = normal_form(raw) else { return Answer::Bad };
    let symbols = as_sent(&normal);
    let segments: Vec<_> = symbols.split(|symbol| *symbol == Plain('/')).skip(1).collect();
    let best = best(routes, host, &segments, as_sent);
    let Some(rule) = rule_for(routes, &best, method) else {
        let may_have = |wanted: fn(&Route) -> bool| best.iter().any(|at| wanted(&routes[*at]));
        let is_bad = (normal.contains("%2F") && !may_have(|route| route.keep))
            || (has_empty_segment(&segments) && !may_have(|route| route.merge));
        return match () {
            () if is_bad => Answer::Bad,
            () if best.is_empty() => Answer::NotFound,
            () => Answer::NotAllowed(allowed(routes, &best)),
        };
    };
    let route = &routes[rule.0 as usize];
    if !tolerates(route, &segments) || (route.refuse_changes && normal != *raw) {
        return Answer::Bad;
    }
    let mut forwarded = normal;
    while forwarded.contains("//") {
        forwarded = forwarded.replace("//", "/");
    }
    if route.exact {
        return Answer::Rule(rule, BTreeSet::new(), forwarded);
    }
    let Some(readings) = readings(&forwarded) else { return Answer::Bad };
    let mut also = BTreeSet::new();
    for reading in readings {
        let Some(rules) = reading.rules(routes, host, method) else { return Answer::Bad };
        if rules.iter().any(|(other, _)| routes[*other as usize].upstream != route.upstream) {
            return Answer::Bad;
        }
        also.extend(rules);
    }
    also.remove(&rule);
    Answer::Rule(rule, also, forwarded)
}

fn allowed(routes: &[Route], best: &[usize]) -> BTreeSet<String> {
    let named = best.iter().flat_map(|at| routes[*at].methods.iter().copied());
    let candidates: BTreeSet<&str> = named.filter(|name| *name != "*").chain(ALL).collect();
    candidates.into_iter().filter(|name| rule_for(routes, best, name).is_some()).map(str::to_owned).collect()
}
