//! What a route and its methods demand. Absence never grants: where nobody speaks, the file is refused.

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::routes::{AuthWord, MethodFile, RouteFile};
use super::super::place::PlaceId;
use super::super::shape::words::{ScopeRule, parse_selector};
use super::super::shape::{At, NamedEntry};
use crate::gate::{Demand, MethodRule, MethodSelector};

/// A rule, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedRule {
    pub(crate) rule: MethodRule,
    /// The method, or the route where it has no methods.
    pub(crate) at: PlaceId,
    /// The scopes demanded, each where it is written.
    pub(crate) scopes_at: Vec<At<crate::domain::Scope>>,
}

/// A word about what is demanded.
#[derive(Clone)]
struct Word {
    demand: Demand,
    scopes_at: Vec<At<crate::domain::Scope>>,
}

/// What someone said: nothing, a demand, or something that is refused (and noted).
#[derive(Clone)]
enum Said {
    Nothing,
    Demand(Word),
    Refused,
}

/// The rules of a route. Empty only after an error, which is noted.
pub(super) fn rules(route: &RouteFile, at: PlaceId, findings: &mut Findings) -> Vec<ResolvedRule> {
    let word = said(route.auth.as_ref(), route.scopes.as_ref(), findings);
    let Some(methods) = &route.methods else {
        return match word {
            Said::Demand(word) => vec![rule(MethodSelector::All, word, at, findings)],
            Said::Refused => Vec::new(),
            Said::Nothing => {
                let message = "this route does not say what it demands";
                findings.note(Problem::new(Code::NoDemand, at, message).fix(HOW_TO_SAY));
                Vec::new()
            }
        };
    };
    if methods.value.is_empty() {
        let problem = Problem::new(Code::BadValue, methods.at, "no method is named, so nothing is ever answered");
        findings.note(problem.fix("Name some, or remove `methods`"));
    }
    let mut rules: Vec<ResolvedRule> = Vec::new();
    for entry in methods.value.iter() {
        let Some(next) = method_rule(entry, &word, findings) else { continue };
        if let Some(first) = rules.iter().find(|first| first.rule.selector == next.rule.selector) {
            let message = format!("`{}` says again what all methods demand", entry.name);
            let problem = Problem::new(Code::Tie, next.at, message);
            findings
                .note(problem.label(first.at, "first defined here").fix("`ALL` and `\"*\"` are the same; remove one"));
            continue;
        }
        rules.push(next);
    }
    rules
}

const HOW_TO_SAY: &str = "Write `scopes: …`, `auth: any_key` (any valid key) or `auth: none` (public)";

fn method_rule(entry: &NamedEntry<MethodFile>, route: &Said, findings: &mut Findings) -> Option<ResolvedRule> {
    let selector = match parse_selector(&entry.name) {
        Ok(selector) => selector,
        Err(flaw) => {
            findings.note(Problem::new(Code::BadValue, entry.name_at, flaw.problem).fix(flaw.fix));
            return None;
        }
    };
    let method = entry.value.as_ref()?;
    let word = match (said(method.auth.as_ref(), method.scopes.as_ref(), findings), route) {
        (Said::Demand(word), _) => word,
        (Said::Nothing, Said::Demand(word)) => word.clone(),
        (Said::Refused, _) | (Said::Nothing, Said::Refused) => return None,
        (Said::Nothing, Said::Nothing) => {
            let message = format!("neither `{}` nor its route says what it demands", entry.name);
            findings.note(Problem::new(Code::NoDemand, entry.name_at, message).fix(HOW_TO_SAY));
            return None;
        }
    };
    Some(rule(selector, word, entry.name_at, findings))
}

fn rule(selector: MethodSelector, word: Word, at: PlaceId, findings: &Findings) -> ResolvedRule {
    let source = findings.sources.source_span(at);
    ResolvedRule { rule: MethodRule { selector, demand: word.demand, source }, at, scopes_at: word.scopes_at }
}

fn said(auth: Option<&At<AuthWord>>, scopes: Option<&At<ScopeRule>>, findings: &mut Findings) -> Said {
    match (auth, scopes) {
        (None, None) => Said::Nothing,
        (Some(auth), Some(scopes)) => {
            let problem = Problem::new(Code::Conflict, scopes.at, "`scopes` and `auth` contradict each other");
            findings.note(
                problem.label(auth.at, "`auth` stands here").fix("Keep one; `scopes` asks for a valid key by itself"),
            );
            Said::Refused
        }
        (Some(auth), None) => {
            let demand = match auth.value {
                AuthWord::None => Demand::Public,
                AuthWord::AnyKey => Demand::AnyKey,
            };
            Said::Demand(Word { demand, scopes_at: Vec::new() })
        }
        (None, Some(scopes)) => {
            let ScopeRule { all, any } = &scopes.value;
            if all.is_empty() && any.is_empty() {
                let problem = Problem::new(Code::NoDemand, scopes.at, "no scope is named, which demands nothing");
                findings.note(problem.fix(HOW_TO_SAY));
                return Said::Refused;
            }
            let names = |list: &[At<crate::domain::Scope>]| {
                let mut names = Vec::new();
                for scope in list {
                    if !names.contains(&scope.value) {
                        names.push(scope.value.clone());
                    }
                }
                names
            };
            let scopes_at = all.iter().chain(any).cloned().collect();
            Said::Demand(Word { demand: Demand::Scopes { all: names(all), any: names(any) }, scopes_at })
        }
    }
}
