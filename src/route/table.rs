//! The route table: from host, method and path to the rule that answers.
//!
//! Owns the look-up and its answer. Must not know what a rule demands or how a request is forwarded.
//! Start at [`RouteTable::build`] and [`RouteTable::find`].

use std::borrow::Cow;
use std::fmt;

use http::Method;
use smallvec::SmallVec;

use super::bad_path::{BadPath, Reading};
use super::compiled::{Compiled, Rule, Spot, check_marks};
use super::host::{HostName, HostPattern};
use super::method::{Allow, MethodSelector};
use super::path::{Marks, NormalizedPath};
use super::pattern::PathPattern;
use super::readings;
use super::rules::{PathRules, ReadsPaths};

/// A route by its number in whatever list the entries were made from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RouteIx(pub u32);

/// A rule: one method entry of one route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RuleRef {
    /// The route.
    pub route: RouteIx,
    /// Index into that entry's `methods`.
    pub method: u16,
}

/// One route, as the table needs it.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    /// Its number; no two entries share one.
    pub route: RouteIx,
    /// Hosts it answers for; empty: any.
    pub hosts: Vec<HostPattern>,
    /// Its path pattern.
    pub path: PathPattern,
    /// Its methods.
    pub methods: Vec<MethodSelector>,
    /// How its paths are read.
    pub path_rules: PathRules,
    /// How its upstream reads paths.
    pub reads_paths: ReadsPaths,
    /// Tells upstreams apart: a reading that leads to another one is refused.
    pub upstream: u32,
}

/// Why entries make no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Conflict {
    /// Two rules for the same host, path and method.
    Tie {
        /// The one that stands first.
        first: RuleRef,
        /// The other; of the same route where that names a method twice.
        second: RuleRef,
    },
    /// Two patterns that differ only in case, and not both on upstreams with `reads_paths: exact`.
    OnlyCase {
        /// The route that stands first.
        first: RouteIx,
        /// The other.
        second: RouteIx,
    },
    /// More than 65,535 methods on one route.
    TooManyMethods {
        /// The route.
        route: RouteIx,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tie { .. } => "two rules answer the same host, path and method; remove one of them",
            Self::OnlyCase { .. } => {
                "two patterns differ only in case, and an upstream may not tell them apart; rename one of them, or \
                 set `reads_paths: exact` on their upstreams"
            }
            Self::TooManyMethods { .. } => "a route has at most 65,535 methods; use \"*\"",
        })
    }
}

/// Every route, ready for look-ups. Never changes: a reload builds another.
#[derive(Debug)]
pub struct RouteTable {
    pub(super) entries: Vec<RouteEntry>,
    exact: Compiled,
    /// The same with every pattern folded; `None` where that changes none of them.
    folded: Option<Compiled>,
}

/// What [`RouteTable::find`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup<'t, 'p> {
    /// A rule that answers.
    Found(Found<'p>),
    /// No route has this host and path.
    NotFound,
    /// The best host and path do not have this method.
    MethodNotAllowed {
        /// One of the routes with that host and path.
        route: RouteIx,
        /// Those they have.
        allow: &'t Allow,
    },
    /// The path has no one meaning here.
    BadPath(BadPath),
}

/// The rule that answers a request, and those that answer what servers may read instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found<'p> {
    /// The rule.
    pub rule: RuleRef,
    /// Other rules, which lead to the same upstream, for other readings of the path: the request must satisfy every
    /// one of them too.
    pub also: SmallVec<[RuleRef; 4]>,
    /// The path to forward.
    pub path: Cow<'p, str>,
}

impl RouteTable {
    /// Compiles entries. Their order never matters.
    ///
    /// # Errors
    /// All pairs of entries that claim the same requests.
    pub fn build(entries: Vec<RouteEntry>) -> Result<Self, Vec<Conflict>> {
        let has_too_many = |entry: &&RouteEntry| entry.methods.len() > usize::from(u16::MAX);
        let too_many = |entry: &RouteEntry| Conflict::TooManyMethods { route: entry.route };
        let oversized: Vec<_> = entries.iter().filter(has_too_many).map(too_many).collect();
        if !oversized.is_empty() {
            return Err(oversized);
        }
        let folds = entries.iter().any(|entry| entry.path.texts().any(|text| readings::fold(text) != text));
        let (exact, mut conflicts) = Compiled::new(&entries, str::to_owned);
        let folded = folds.then(|| Compiled::new(&entries, readings::fold)).map(|(folded, more)| {
            conflicts.extend(more.into_iter().filter(|conflict| matches!(conflict, Conflict::OnlyCase { .. })));
            folded
        });
        if conflicts.is_empty() { Ok(Self { entries, exact, folded }) } else { Err(conflicts) }
    }

    /// The rule that answers `method` on `host` (as in `Host` or `:authority`, with or without port) and `path`.
    ///
    /// TRACE and CONNECT are the caller's to refuse. A plain path costs one walk and no allocation, however many
    /// routes there are; one in upper case a second walk; one with escapes, `;` or bytes that RFC 3986 does not
    /// allow is judged under every reading: at most 22 texts as long as the path, a quarter of a millisecond for
    /// 8 KiB made for it.
    pub fn find<'p>(&self, host: &str, method: &Method, path: &'p NormalizedPath<'_>) -> Lookup<'_, 'p> {
        // The framing guard refuses what is no host; if anything gets here, no route is meant.
        let Some(host) = HostName::read(host) else { return Lookup::NotFound };
        let marks = path.marks();
        let text = merge_slashes(path);
        let Some(spot) = self.exact.best(&host, text.as_bytes()) else {
            return check_marks(PathRules::STRICT, marks, false).map_or_else(Lookup::BadPath, |()| Lookup::NotFound);
        };
        let Some(rule) = spot.rules.find(method) else {
            let refused = |()| Lookup::MethodNotAllowed { route: spot.route, allow: spot.rules.allow() };
            return check_marks(spot.path_rules, marks, false).map_or_else(Lookup::BadPath, refused);
        };
        let entry = rule.entry(&self.entries);
        if let Err(bad) = check_marks(entry.path_rules, marks, path.is_changed()) {
            return Lookup::BadPath(bad);
        }
        let mut judged = Judged { table: self, host: &host, method, rule, also: SmallVec::new() };
        let verdict = match entry.reads_paths {
            ReadsPaths::Exactly => Ok(()),
            ReadsPaths::Variously => judged.every_reading(&text, marks),
        };
        match verdict {
            Ok(()) => {
                let rule = rule.reference(&self.entries);
                Lookup::Found(Found { rule, also: judged.also, path: text })
            }
            Err(bad) => Lookup::BadPath(bad),
        }
    }

    /// The table that folded paths are looked up in.
    fn folded(&self) -> &Compiled {
        self.folded.as_ref().unwrap_or(&self.exact)
    }
}

/// The path with empty segments removed: what a route that merges them matches and forwards.
pub(super) fn merge_slashes<'p>(path: &'p NormalizedPath<'_>) -> Cow<'p, str> {
    if path.marks().intersects(Marks::EMPTY_SEGMENT) { merge(path.as_str()).into() } else { path.as_str().into() }
}

fn merge(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

/// The readings of one path, looked up one after the other.
struct Judged<'a> {
    table: &'a RouteTable,
    host: &'a HostName<'a>,
    method: &'a Method,
    rule: Rule,
    also: SmallVec<[RuleRef; 4]>,
}

impl Judged<'_> {
    fn every_reading(&mut self, text: &str, marks: Marks) -> Result<(), BadPath> {
        if !marks.intersects(Marks::BEYOND_CASE) {
            return self.in_other_case(text, marks);
        }
        if readings::hides_dot_segment(text) {
            return Err(BadPath::ReadDifferently(Reading::AsSent));
        }
        self.folded_reading(text)?;
        for (reading, text) in readings::of(text)? {
            self.reading(reading, &text, &self.table.exact)?;
            self.folded_reading(&text)?;
        }
        Ok(())
    }

    /// The folded reading of a text that has itself been looked up.
    fn folded_reading(&mut self, text: &str) -> Result<(), BadPath> {
        let folded = readings::fold(text);
        if folded == text && self.table.folded.is_none() {
            return Ok(());
        }
        self.reading(Reading::Folded, &folded, self.table.folded())
    }

    /// The one reading that a path of letters and other harmless bytes has.
    fn in_other_case(&mut self, text: &str, marks: Marks) -> Result<(), BadPath> {
        // A path in lower case is another case of a pattern that is not.
        if marks.intersects(Marks::UPPER_CASE) {
            let lower: SmallVec<[u8; 256]> = text.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
            self.spot(Reading::Folded, self.table.folded().best(self.host, &lower), Marks::NONE)
        } else if let Some(folded) = &self.table.folded {
            self.spot(Reading::Folded, folded.best(self.host, text.as_bytes()), Marks::NONE)
        } else {
            Ok(())
        }
    }

    /// Judges a reading as if it had been asked for in its own right, by servers that resolve dot segments and by
    /// servers that do not.
    fn reading(&mut self, reading: Reading, text: &str, table: &Compiled) -> Result<(), BadPath> {
        let path = NormalizedPath::parse(text).map_err(|_| BadPath::ReadDifferently(reading))?;
        if readings::hides_dot_segment(text) {
            return Err(BadPath::ReadDifferently(reading));
        }
        self.spot(reading, table.best(self.host, merge_slashes(&path).as_bytes()), path.marks())?;
        if path.is_changed() {
            self.spot(reading, table.best(self.host, merge(text).as_bytes()), Marks::of(text))?;
        }
        Ok(())
    }

    fn spot(&mut self, reading: Reading, spot: Option<&Spot>, marks: Marks) -> Result<(), BadPath> {
        let refused = BadPath::ReadDifferently(reading);
        let spot = spot.filter(|spot| !spot.is_ambiguous).ok_or(refused)?;
        let rule = spot.rules.find(self.method).ok_or(refused)?;
        let entry = rule.entry(&self.table.entries);
        check_marks(entry.path_rules, marks, false).map_err(|_| refused)?;
        if entry.upstream != self.rule.entry(&self.table.entries).upstream {
            return Err(refused);
        }
        let reference = rule.reference(&self.table.entries);
        if rule != self.rule && !self.also.contains(&reference) {
            self.also.push(reference);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "threat_tests.rs"]
mod threat_tests;
