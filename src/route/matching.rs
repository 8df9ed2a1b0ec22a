//! Every rule that a request matches, for people who ask why another one decided.
//!
//! Owns the slow, pattern-by-pattern twin of the table's walk. Never used to decide.

use http::Method;

use super::compiled::Rule;
use super::host::{HostFit, HostName, HostPattern};
use super::path::NormalizedPath;
use super::pattern::PathFit;
use super::table::{RouteEntry, RouteTable, RuleRef, merge_slashes};

/// How one rule fits one request: better rules compare greater.
type Fit = (HostFit, PathFit, u8);

impl RouteTable {
    /// Every rule that host, path and method match, best first, whatever `path_rules` say about the path itself.
    ///
    /// Where [`RouteTable::find`] finds a rule, that is the first of them and the others are those it beat; where it
    /// answers 405, all of them are rules of wider patterns. O(routes), allocates: for explanations.
    pub fn matching(&self, host: &str, method: &Method, path: &NormalizedPath<'_>) -> Vec<RuleRef> {
        let Some(host) = HostName::read(host) else { return Vec::new() };
        let path = merge_slashes(path);
        let mut fits: Vec<(Fit, RuleRef)> = Vec::new();
        for (position, entry) in (0_u32..).zip(&self.entries) {
            let Some(host_fit) = fit_host(entry, &host) else { continue };
            let Some(path_fit) = entry.path.fit(&path, entry.path_rules.trailing_slash) else { continue };
            for (index, selector) in (0_u16..).zip(&entry.methods).filter(|(_, selector)| selector.covers(method)) {
                let rule = Rule { entry: position, method: index }.reference(&self.entries);
                fits.push(((host_fit, path_fit.clone(), selector.closeness(method)), rule));
            }
        }
        fits.sort_by(|(a, _), (b, _)| b.cmp(a));
        fits.into_iter().map(|(_, rule)| rule).collect()
    }
}

fn fit_host(entry: &RouteEntry, host: &HostName<'_>) -> Option<HostFit> {
    if entry.hosts.is_empty() {
        return Some(HostFit::Any);
    }
    entry.hosts.iter().filter_map(|pattern: &HostPattern| pattern.fit(host)).max()
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
