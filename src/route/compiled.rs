//! Entries put into a trie, and what stands at each of its spots.
//!
//! Owns the step from entries to look-ups and the conflicts found on the way. Must not know requests.

use std::collections::HashSet;

use super::bad_path::BadPath;
use super::host::{HostName, HostPattern};
use super::method::{MethodRules, MethodSelector};
use super::path::Marks;
use super::rules::{EmptySegments, EncodedSlash, Normalize, PathRules, ReadsPaths, TrailingSlash};
use super::table::{Conflict, RouteEntry, RouteIx, RuleRef};
use super::trie::{SpotIx, Trie};

/// A rule by the position of its entry and the index of its method there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) struct Rule {
    pub(super) entry: u32,
    pub(super) method: u16,
}

impl Rule {
    pub(super) fn entry(self, entries: &[RouteEntry]) -> &RouteEntry {
        &entries[self.entry as usize]
    }

    pub(super) fn reference(self, entries: &[RouteEntry]) -> RuleRef {
        RuleRef { route: self.entry(entries).route, method: self.method }
    }
}

/// Entries by host and path.
#[derive(Debug)]
pub(super) struct Compiled {
    trie: Trie,
    spots: Vec<Spot>,
}

/// What stands where a path ends.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) rules: MethodRules<Rule>,
    /// The route that stands first here, for requests that no rule answers.
    pub(super) route: RouteIx,
    /// The most lenient `path_rules` of the routes here, for requests that no rule of theirs answers.
    pub(super) path_rules: PathRules,
    /// Whether patterns that differ only in case meet here, so that the folded path has no one meaning.
    pub(super) is_ambiguous: bool,
}

impl Compiled {
    /// Files every text segment under `key(text)`. `entries` and their methods fit [`Rule`].
    pub(super) fn new(entries: &[RouteEntry], key: fn(&str) -> String) -> (Self, Vec<Conflict>) {
        let mut trie = Trie::default();
        let mut drafts: Vec<Draft<'_>> = Vec::new();
        for rule in each_host(entries) {
            let spot = trie.spot(rule.host, &rule.entry.path, key);
            draft_at(&mut drafts, spot).add(rule);
        }
        // Only where no pattern itself says what happens with the other kind of ending.
        let hard_spots = drafts.len();
        for rule in each_host(entries) {
            let is_soft = |spot: SpotIx| spot.0 as usize >= hard_spots;
            if rule.entry.path_rules.trailing_slash == TrailingSlash::Either
                && let Some(spot) = trie.other_slash_spot(rule.host, &rule.entry.path, key, is_soft)
            {
                draft_at(&mut drafts, spot).add(rule);
            }
        }
        let conflicts = find_conflicts(&drafts, entries);
        let spots = drafts.iter().map(Draft::spot).collect();
        (Self { trie, spots }, conflicts)
    }

    pub(super) fn best(&self, host: &HostName<'_>, path: &[u8]) -> Option<&Spot> {
        self.trie.best(host, path).map(|spot| &self.spots[spot.0 as usize])
    }
}

/// One entry under one of its hosts.
#[derive(Clone, Copy)]
struct Placed<'e> {
    position: u32,
    entry: &'e RouteEntry,
    host: Option<&'e HostPattern>,
}

fn each_host(entries: &[RouteEntry]) -> impl Iterator<Item = Placed<'_>> {
    (0_u32..).zip(entries).flat_map(|(position, entry)| {
        let any = entry.hosts.is_empty().then_some(None);
        let hosts = any.into_iter().chain(entry.hosts.iter().map(Some));
        hosts.map(move |host| Placed { position, entry, host })
    })
}

/// What will be a [`Spot`].
#[derive(Default)]
struct Draft<'e> {
    members: Vec<Placed<'e>>,
}

fn draft_at<'d, 'e>(drafts: &'d mut Vec<Draft<'e>>, spot: SpotIx) -> &'d mut Draft<'e> {
    let at = spot.0 as usize;
    if at == drafts.len() {
        drafts.push(Draft::default());
    }
    &mut drafts[at]
}

impl<'e> Draft<'e> {
    fn add(&mut self, rule: Placed<'e>) {
        // The same host may be listed twice, in two spellings.
        if self.members.last().is_none_or(|last| last.position != rule.position) {
            self.members.push(rule);
        }
    }

    fn rules(&self) -> impl Iterator<Item = (&'e MethodSelector, Rule)> + Clone {
        self.members.iter().flat_map(|placed| {
            let rule = |method| Rule { entry: placed.position, method };
            placed.entry.methods.iter().zip(0_u16..).map(move |(selector, method)| (selector, rule(method)))
        })
    }

    /// One member for each pattern that met others here, preferably one whose upstream promised nothing.
    fn patterns(&self) -> Vec<Placed<'e>> {
        let mut patterns: Vec<Placed<'e>> = Vec::new();
        for member in &self.members {
            match patterns.iter_mut().find(|known| known.entry.path.ties_with(&member.entry.path)) {
                None => patterns.push(*member),
                Some(known) if known.entry.reads_paths == ReadsPaths::Exactly => *known = *member,
                Some(_) => {}
            }
        }
        patterns
    }

    /// Pairs of patterns that meet here only because they were folded, unless both upstreams tell them apart.
    fn patterns_that_differ(&self) -> Vec<(Placed<'e>, Placed<'e>)> {
        let patterns = self.patterns();
        let pairs = patterns.iter().enumerate().flat_map(|(at, b)| patterns[..at].iter().map(move |a| (*a, *b)));
        let is_promised = |placed: &Placed<'_>| placed.entry.reads_paths == ReadsPaths::Exactly;
        let clashing = pairs.filter(|(a, b)| !(is_promised(a) && is_promised(b)));
        clashing.map(|(a, b)| if a.position <= b.position { (a, b) } else { (b, a) }).collect()
    }

    fn spot(&self) -> Spot {
        let any =
            |wanted: &dyn Fn(&PathRules) -> bool| self.members.iter().any(|placed| wanted(&placed.entry.path_rules));
        let keeps = any(&|rules| rules.encoded_slash == EncodedSlash::Keep);
        let merges = any(&|rules| rules.empty_segments == EmptySegments::Merge);
        let path_rules = PathRules {
            encoded_slash: if keeps { EncodedSlash::Keep } else { EncodedSlash::Refuse },
            empty_segments: if merges { EmptySegments::Merge } else { EmptySegments::Refuse },
            ..PathRules::STRICT
        };
        let is_ambiguous = self.patterns().len() > 1;
        let route = self.members.first().map_or(RouteIx(0), |placed| placed.entry.route);
        Spot { rules: MethodRules::new(self.rules()), route, path_rules, is_ambiguous }
    }
}

/// Rules that claim the same requests, each pair once.
fn find_conflicts(drafts: &[Draft<'_>], entries: &[RouteEntry]) -> Vec<Conflict> {
    let mut found = Vec::new();
    let mut known = HashSet::new();
    let mut report = |conflict: Conflict| {
        if known.insert(conflict) {
            found.push(conflict);
        }
    };
    for draft in drafts {
        let mut firsts = std::collections::HashMap::new();
        let is_one_pattern = |a: Rule, b: Rule| a.entry(entries).path.ties_with(&b.entry(entries).path);
        for (selector, rule) in draft.rules() {
            let first = *firsts.entry(selector).or_insert(rule);
            if first != rule && is_one_pattern(first, rule) {
                report(Conflict::Tie { first: first.reference(entries), second: rule.reference(entries) });
            }
        }
        for (first, second) in draft.patterns_that_differ() {
            report(Conflict::OnlyCase { first: first.entry.route, second: second.entry.route });
        }
    }
    found
}

/// Whether a route with `rules` takes a path with these marks.
pub(super) fn check_marks(rules: PathRules, marks: Marks, is_changed: bool) -> Result<(), BadPath> {
    if marks.intersects(Marks::ENCODED_SLASH) && rules.encoded_slash == EncodedSlash::Refuse {
        return Err(BadPath::EncodedSlash);
    }
    let has_empty_segment = marks.intersects(Marks::EMPTY_SEGMENT);
    if has_empty_segment && rules.empty_segments == EmptySegments::Refuse {
        return Err(BadPath::EmptySegment);
    }
    if rules.normalize == Normalize::Refuse && (is_changed || has_empty_segment) {
        return Err(BadPath::NotNormal);
    }
    Ok(())
}
