//! The report for people who clean up keys: which are not used, which hold more than they use, what enforcing would break,
//! what was unusual.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::rules::rule_text;
use crate::domain::{GrantedScope, KeyId, KeyKind, KeyRecord, KeyState, Scope, Timestamp};
use crate::gate::{Demand, Door, GateSettings, Mode};
use crate::store::{EventQuery, Finding, FoundCaller, KeyQuery, MAX_EVENTS, Store, StoreError, Surplus, UsageEvent};

/// Most entries of each list of a report.
pub const MAX_ROWS: usize = 1_000;

/// Keys that were not used for so long are unused, unless something else is asked for.
pub const UNUSED_FOR: Duration = Duration::from_secs(30 * 86_400);

/// Keys read at a time.
const PAGE: usize = 1_000;

/// Which keys a report is about.
#[derive(Clone, Copy)]
pub enum About<'a> {
    /// All, and clients without a key.
    Everything,
    /// Only some, and nothing about clients without a key, nor about rules that none of these keys asked.
    Keys {
        /// What the store is asked for, from the first on; none: there can be no such keys.
        among: Option<&'a KeyQuery>,
        /// Which of those.
        sees: &'a (dyn Fn(&KeyRecord) -> bool + Sync),
    },
}

impl About<'_> {
    const fn is_everything(self) -> bool {
        matches!(self, Self::Everything)
    }

    /// The first page to read; none when there can be no keys.
    fn first_page(self) -> Option<KeyQuery> {
        let among = match self {
            Self::Everything => KeyQuery::default(),
            Self::Keys { among, .. } => among?.clone(),
        };
        Some(KeyQuery { limit: PAGE, ..among })
    }

    fn sees(self, record: &KeyRecord) -> bool {
        match self {
            Self::Everything => true,
            Self::Keys { sees, .. } => sees(record),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct ReportQuery<'a> {
    /// About which keys.
    pub about: About<'a>,
    /// Keys that were not used for so long, or never, and are older than that, are unused.
    pub unused_for: Duration,
    /// The moment.
    pub now: Timestamp,
}

/// See the module. Each list has at most [`MAX_ROWS`] entries.
#[derive(Debug, Default)]
pub struct Report {
    /// From when on requests were counted.
    pub counted_since: Option<Timestamp>,
    /// Keys that work and are not used.
    pub unused_keys: Vec<KeyRecord>,
    /// Keys that hold more than they use.
    pub excess_scopes: Vec<Excess>,
    /// Rules in report mode.
    pub report_mode: Vec<Trial>,
    /// What was unusual, the newest first.
    pub events: Vec<UsageEvent>,
    /// The lists that have more entries than are told.
    pub truncated: Vec<&'static str>,
}

/// A key that holds more than the rules demanded that let it in.
#[derive(Debug)]
pub struct Excess {
    /// The key.
    pub key: KeyRecord,
    /// What of its scopes and roles is not needed as it is.
    pub excess: Holding,
    /// The scopes that rules demanded of it.
    pub used: Vec<Scope>,
    /// What would do instead.
    pub suggested: Holding,
}

/// Scopes and roles.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holding {
    /// Scopes, in order.
    pub scopes: Vec<GrantedScope>,
    /// Roles, in order.
    pub roles: Vec<String>,
}

/// A rule in report mode.
#[derive(Debug)]
pub struct Trial {
    /// The rule.
    pub rule: String,
    /// Requests that enforcing would refuse.
    pub requests: u64,
    /// How many keys it let in; none of their requests is among those that would be refused.
    pub keys_let_in: u64,
    /// Whose they were, the latest first.
    pub callers: Vec<Breakage>,
}

/// Requests that enforcing would refuse, of one caller and for one reason.
#[derive(Debug)]
pub struct Breakage {
    /// What was found.
    pub found: Finding,
    /// The name of the key.
    pub key_name: Option<String>,
}

/// Makes the report from what the store knows, under these rules. Reads all keys, a page at a time, until every list is
/// full and no rule is in report mode: some seconds for a million keys.
///
/// # Errors
/// When the store cannot be read.
pub async fn report(store: &Store, settings: &GateSettings, query: ReportQuery<'_>) -> Result<Report, StoreError> {
    let mut report = Report { counted_since: store.usage().counted_since().await?, ..Report::default() };
    let demands = Demands::of(settings);
    let mut trials = reporting_rules(settings, query.now);
    let names = read_keys(store, &demands, settings, query, &mut trials, &mut report).await?;
    let is_own = |key: Option<KeyId>| query.about.is_everything() || key.is_some_and(|key| names.contains_key(&key));
    let mut findings: HashMap<Arc<str>, Vec<Finding>> = HashMap::new();
    let of_caller = |caller: FoundCaller| match caller {
        FoundCaller::Key(key) => Some(key),
        FoundCaller::Network(_) | FoundCaller::Local | FoundCaller::Other => None,
    };
    for finding in store.usage().findings().await? {
        if is_own(of_caller(finding.caller)) {
            findings.entry(Arc::clone(&finding.rule)).or_default().push(finding);
        }
    }
    let mut rows = 0;
    for (rule, keys_let_in) in trials {
        let found = findings.remove(rule.as_str()).unwrap_or_default();
        if found.is_empty() && !query.about.is_everything() {
            continue;
        }
        let requests = found.iter().map(|finding| finding.requests).sum();
        let mut callers = Vec::new();
        for finding in found {
            rows += 1;
            if rows > MAX_ROWS {
                report.truncated.push("report_mode");
                break;
            }
            let key_name = match of_caller(finding.caller) {
                Some(key) => match names.get(&key) {
                    Some(name) => Some(name.clone()),
                    None => store.reader().find_key(key).await?.map(|record| record.name),
                },
                None => None,
            };
            callers.push(Breakage { found: finding, key_name });
        }
        report.report_mode.push(Trial { rule, requests, keys_let_in, callers });
    }
    let all = store.usage().list_events(EventQuery { key: None, limit: MAX_EVENTS }).await?;
    report.events = all.into_iter().filter(|event| is_own(event.key)).collect();
    cut_events(&mut report.events, &mut report.truncated);
    cut(&mut report.unused_keys, "unused_keys", &mut report.truncated);
    cut(&mut report.excess_scopes, "excess_scopes", &mut report.truncated);
    report.truncated.dedup();
    Ok(report)
}

fn cut<T>(list: &mut Vec<T>, name: &'static str, truncated: &mut Vec<&'static str>) {
    if list.len() > MAX_ROWS {
        list.truncate(MAX_ROWS);
        truncated.push(name);
    }
}

/// As [`cut`], of the newest first, so that no kind hides another.
fn cut_events(events: &mut Vec<UsageEvent>, truncated: &mut Vec<&'static str>) {
    if events.len() > MAX_ROWS {
        let mut surplus = Surplus::of(events.iter().map(|event| (event.kind, 1)), MAX_ROWS);
        events.reverse();
        events.retain(|event| !surplus.takes(&event.kind));
        events.reverse();
        truncated.push("events");
    }
}

/// Fills in what is told of keys, and how many of them each of the `trials` let in. Answers the names of those it is about, unless it is about all: there would be too many.
async fn read_keys(
    store: &Store,
    demands: &Demands,
    settings: &GateSettings,
    query: ReportQuery<'_>,
    trials: &mut BTreeMap<String, u64>,
    report: &mut Report,
) -> Result<HashMap<KeyId, String>, StoreError> {
    let mut names = HashMap::new();
    let Some(mut wanted) = query.about.first_page() else { return Ok(names) };
    loop {
        let page = store.reader().list_keys(wanted.clone()).await?;
        let ids: Vec<KeyId> = page.items.iter().map(|record| record.id).collect();
        wanted.after = ids.last().copied();
        let mut passed: HashMap<KeyId, Vec<Arc<str>>> = HashMap::new();
        for (key, rule) in store.usage().rules_passed(ids).await? {
            passed.entry(key).or_default().push(rule);
        }
        for record in page.items {
            if !query.about.sees(&record) {
                continue;
            }
            if !query.about.is_everything() {
                names.insert(record.id, record.name.clone());
            }
            for rule in passed.get(&record.id).into_iter().flatten() {
                if let Some(keys) = trials.get_mut(rule.as_ref()) {
                    *keys += 1;
                }
            }
            if record.state(query.now) != KeyState::Active {
                continue;
            }
            let rules = passed.remove(&record.id).unwrap_or_default();
            if query.now.since(record.last_used_at.unwrap_or(record.created_at)) >= query.unused_for {
                // One more than is told, so that it shows that there are more.
                if report.unused_keys.len() <= MAX_ROWS {
                    report.unused_keys.push(record);
                }
            } else if report.excess_scopes.len() <= MAX_ROWS
                && let Some(excess) = demands.excess(record, &rules, settings)
            {
                report.excess_scopes.push(excess);
            }
        }
        let is_full = report.unused_keys.len() > MAX_ROWS && report.excess_scopes.len() > MAX_ROWS;
        if !page.more || (is_full && query.about.is_everything() && trials.is_empty()) {
            return Ok(names);
        }
    }
}

/// The rules that report now, in order of their names, none of which has let in a key yet.
fn reporting_rules(settings: &GateSettings, now: Timestamp) -> BTreeMap<String, u64> {
    if settings.report_until.is_some_and(|until| now >= until) {
        return BTreeMap::new();
    }
    let reporting = settings.routes.iter().filter(|route| route.mode == Mode::Report);
    reporting.flat_map(|route| route.methods.iter().map(|method| (rule_text(route, method), 0))).collect()
}

/// What the rules demand.
struct Demands {
    by_rule: HashMap<String, Vec<Scope>>,
    all: BTreeSet<Scope>,
}

impl Demands {
    fn of(settings: &GateSettings) -> Self {
        let mut demands = Self { by_rule: HashMap::new(), all: BTreeSet::new() };
        for route in settings.routes.iter().filter(|route| route.door == Door::Data) {
            for method in &route.methods {
                let demanded: Vec<&Scope> = match &method.demand {
                    Demand::Public | Demand::AnyKey => Vec::new(),
                    Demand::Scopes { all, any } => all.iter().chain(any).collect(),
                };
                // What the management API behind the route takes, any of which may have been asked for.
                let behind = route.self_service.iter().flat_map(|service| service.map.keys());
                let scopes: Vec<Scope> = demanded.into_iter().chain(behind).cloned().collect();
                demands.all.extend(scopes.iter().cloned());
                demands.by_rule.insert(rule_text(route, method), scopes);
            }
        }
        demands
    }

    /// What a key holds beyond what these rules demanded of it; none when it holds nothing such, or when it was let in by no
    /// rule, so that nothing is known of what it needs. Requests of management keys are not counted, so nothing is known of
    /// them either.
    ///
    /// An entry is needed as it is when everything that it covers of what rules demand was used; a role, when all its
    /// scopes are. What is not needed as it is, is spelled out. Of a choice (`any`), all that the key holds count as used.
    fn excess(&self, key: KeyRecord, rules: &[Arc<str>], settings: &GateSettings) -> Option<Excess> {
        if rules.is_empty() || key.kind == KeyKind::Management {
            return None;
        }
        let scopes_of = |role: &String| settings.roles.get(role).map(Vec::as_slice).unwrap_or_default();
        let covered = |scope: &Scope| {
            key.scopes.iter().chain(key.roles.iter().flat_map(scopes_of)).any(|held| held.covers(scope))
        };
        let demanded = rules.iter().filter_map(|rule| self.by_rule.get(rule.as_ref())).flatten();
        let used: BTreeSet<&Scope> = demanded.filter(|scope| covered(scope)).collect();
        let is_needed = |held: &GrantedScope| {
            let mut covered = self.all.iter().filter(|scope| held.covers(scope)).peekable();
            covered.peek().is_some() && covered.all(|scope| used.contains(scope))
        };
        let is_role_needed = |role: &String| {
            let scopes = scopes_of(role);
            !scopes.is_empty() && scopes.iter().all(is_needed)
        };
        let (kept, excess): (Vec<GrantedScope>, Vec<GrantedScope>) = key.scopes.iter().cloned().partition(is_needed);
        let (roles, excess_roles): (Vec<String>, Vec<String>) = key.roles.iter().cloned().partition(is_role_needed);
        if excess.is_empty() && excess_roles.is_empty() {
            return None;
        }
        let stays: Vec<&GrantedScope> = kept.iter().chain(roles.iter().flat_map(scopes_of)).collect();
        let spelled_out = used.iter().filter(|scope| !stays.iter().any(|held| held.covers(scope)));
        let spelled_out = spelled_out.map(|scope| GrantedScope::from((*scope).clone()));
        let suggested = kept.iter().cloned().chain(spelled_out).collect();
        let used = used.into_iter().cloned().collect();
        Some(Excess {
            excess: sorted(Holding { scopes: excess, roles: excess_roles }),
            suggested: sorted(Holding { scopes: suggested, roles }),
            used,
            key,
        })
    }
}

fn sorted(mut holding: Holding) -> Holding {
    holding.scopes.sort();
    holding.scopes.dedup();
    holding.roles.sort();
    holding.roles.dedup();
    holding
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
