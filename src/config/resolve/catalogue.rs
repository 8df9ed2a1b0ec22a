//! `environments`, `scopes` and `roles`: what there is to be named.

use std::collections::BTreeMap;

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::File;
use super::super::node::shortened;
use super::super::shape::At;
use super::super::shape::text::Label;
use super::super::shape::words::{KeyWord, scope_flaw};
use super::network::note_unknown;
use super::{DAY, Marks, SECOND, limits, span};
use crate::domain::{GrantedScope, Scope};
use crate::gate::{Environment, ScopeEntry};

/// `live` and `test`, and what the file says in their place or beside them.
pub(super) fn environments(file: &File, findings: &mut Findings) -> BTreeMap<String, Environment> {
    let usual = |word: &str| Environment {
        word: word.to_owned(),
        max_key_age: None,
        upstream: None,
        rate_limit: None,
        quota: None,
    };
    let mut all: BTreeMap<String, Environment> =
        ["live", "test"].into_iter().map(|name| (name.to_owned(), usual(name))).collect();
    let named = file.environments.0.as_ref();
    for entry in named.into_iter().flat_map(|named| named.iter()) {
        if let Err(flaw) = Label::parse(&entry.name) {
            let problem =
                Problem::new(Code::BadValue, entry.name_at, format!("{:?} {}", shortened(&entry.name), flaw.problem));
            findings.note(problem.fix(flaw.fix));
        }
        let Some(value) = &entry.value else { continue };
        let word = match &value.word {
            Some(word) => word.0.clone(),
            None => match KeyWord::parse(&entry.name) {
                Ok(word) => word.0,
                Err(flaw) => {
                    let message = format!("{:?} {}", shortened(&entry.name), flaw.problem);
                    let problem = Problem::new(Code::BadValue, entry.name_at, message);
                    findings.note(problem.fix("Add `word: …`, the one that stands in key texts"));
                    continue;
                }
            },
        };
        if let Some(upstream) = &value.upstream {
            check_upstream(file, upstream, findings);
        }
        let max_key_age =
            value.max_key_age.as_ref().map(|age| span(Some(age), 90 * DAY, SECOND..=36_500 * DAY, findings));
        let upstream = value.upstream.as_ref().map(|upstream| upstream.value.clone());
        let rate_limit = value.rate_limit.as_ref().and_then(|limit| limits::rate_limit(limit, findings));
        let quota = value.quota.as_ref().and_then(|quota| limits::quota(quota, findings));
        all.insert(entry.name.clone(), Environment { word, max_key_age, upstream, rate_limit, quota });
    }
    for entry in named.into_iter().flat_map(|named| named.iter()) {
        let Some(word) = all.get(&entry.name).map(|environment| &environment.word) else { continue };
        if let Some((other, _)) = all.iter().find(|(other, found)| **other != entry.name && found.word == *word) {
            let message = format!("its word stands for `{other}` already");
            findings.note(
                Problem::new(Code::Duplicate, entry.name_at, message).fix("Give each environment its own `word`"),
            );
        }
    }
    all
}

/// Notes a reference to an upstream that is not there.
pub(super) fn check_upstream(file: &File, name: &At<String>, findings: &mut Findings) {
    let known = file.upstreams.0.as_ref();
    if known.is_some_and(|known| known.find(&name.value).is_some()) {
        return;
    }
    if known.is_some() || !findings.is_broken("upstreams") {
        let names = known.into_iter().flat_map(|known| known.names());
        note_unknown("upstream", name, names, findings);
    }
}

pub(super) fn scopes(file: &File, marks: &mut Marks, findings: &mut Findings) -> BTreeMap<Scope, ScopeEntry> {
    let mut all = BTreeMap::new();
    for entry in file.scopes.0.iter().flat_map(|scopes| scopes.iter()) {
        match entry.name.parse::<Scope>() {
            Ok(scope) if scope.is_reserved() => {
                let message = format!("scopes that begin with `{}` are the gateway's own", Scope::RESERVED_PREFIX);
                findings.note(Problem::new(Code::BadValue, entry.name_at, message).fix("Choose another name"));
            }
            Ok(scope) => {
                marks.scopes.push((scope.clone(), entry.name_at));
                let title = entry.value.as_ref().and_then(|value| value.title.clone()).unwrap_or_default();
                all.insert(scope, ScopeEntry { title: title.0 });
            }
            Err(error) => {
                let flaw = scope_flaw(&entry.name, error);
                let message = format!("{:?} {}", shortened(&entry.name), flaw.problem);
                findings.note(Problem::new(Code::BadValue, entry.name_at, message).fix(flaw.fix));
            }
        }
    }
    all
}

pub(super) fn roles(file: &File, marks: &mut Marks, findings: &mut Findings) -> BTreeMap<String, Vec<GrantedScope>> {
    let mut all = BTreeMap::new();
    for entry in file.roles.0.iter().flat_map(|roles| roles.iter()) {
        if let Err(flaw) = Label::parse(&entry.name) {
            let problem =
                Problem::new(Code::BadValue, entry.name_at, format!("{:?} {}", shortened(&entry.name), flaw.problem));
            findings.note(problem.fix(flaw.fix));
        }
        let Some(grants) = &entry.value else { continue };
        for grant in grants.iter() {
            marks.grants.push((entry.name.clone(), grant.value.clone(), grant.at));
        }
        all.insert(entry.name.clone(), grants.iter().map(|grant| grant.value.clone()).collect());
    }
    all
}
