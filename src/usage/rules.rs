//! Names of rules: texts that stay the same across reloads and restarts, and small numbers for them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::gate::{MethodRule, MethodSelector, RouteSettings, Rules};
use crate::route::RuleRef;

/// What a rule is called: its methods, its hosts where it has some, its path: `GET /v1/orders/**`,
/// `* api.example.com/**`. No two rules of one configuration share a name.
pub fn rule_text(route: &RouteSettings, method: &MethodRule) -> String {
    let selector = match &method.selector {
        MethodSelector::Named(method) => method.as_str(),
        MethodSelector::All => "*",
    };
    let hosts: Vec<&str> = route.hosts.iter().map(|host| host.as_str()).collect();
    format!("{selector} {}{}", hosts.join(","), route.path.as_str())
}

/// The number of a name. It means the same name for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleName(u32);

impl RuleName {
    /// All rules beyond the bound of names, together.
    pub const OTHER: Self = Self(0);
}

/// Most names in the life of a process; rules that a reload brings beyond it are `other`.
const MAX_NAMES: usize = 200_000;

/// All names that rules have had in the life of this process.
#[derive(Debug)]
pub struct RuleNames {
    names: RwLock<Names>,
}

#[derive(Debug)]
struct Names {
    by_number: Vec<Arc<str>>,
    by_text: HashMap<Arc<str>, u32>,
}

impl Default for RuleNames {
    fn default() -> Self {
        let other: Arc<str> = "other".into();
        let by_text = HashMap::from([(Arc::clone(&other), 0)]);
        Self { names: RwLock::new(Names { by_number: vec![other], by_text }) }
    }
}

impl RuleNames {
    /// The numbers of all rules of a configuration.
    pub fn number(&self, rules: &Rules) -> RuleNumbers {
        // Formatted first: writers of usage read the names meanwhile.
        let texts_of = |settings: &RouteSettings| -> Vec<String> {
            settings.methods.iter().map(|method| rule_text(settings, method)).collect()
        };
        let texts: Vec<_> = rules.routes.iter().map(|route| texts_of(&route.settings)).collect();
        let mut names = self.names.write();
        RuleNumbers(texts.iter().map(|texts| texts.iter().map(|text| names.number_of(text)).collect()).collect())
    }

    /// The name with this number.
    pub fn text(&self, name: RuleName) -> Arc<str> {
        let names = self.names.read();
        let text = names.by_number.get(name.0 as usize).or_else(|| names.by_number.first());
        text.map_or_else(|| "other".into(), Arc::clone)
    }
}

impl Names {
    fn number_of(&mut self, text: &str) -> RuleName {
        if let Some(number) = self.by_text.get(text) {
            return RuleName(*number);
        }
        let number = u32::try_from(self.by_number.len()).ok().filter(|_| self.by_number.len() < MAX_NAMES);
        let Some(number) = number else { return RuleName::OTHER };
        let text: Arc<str> = text.into();
        self.by_number.push(Arc::clone(&text));
        self.by_text.insert(text, number);
        RuleName(number)
    }
}

/// The numbers of the rules of one configuration: by route, by method.
#[derive(Debug, Default)]
pub struct RuleNumbers(Vec<Box<[RuleName]>>);

impl RuleNumbers {
    /// The number of a rule.
    pub fn of(&self, rule: RuleRef) -> RuleName {
        let of_route = self.0.get(rule.route.0 as usize);
        of_route.and_then(|methods| methods.get(usize::from(rule.method))).copied().unwrap_or(RuleName::OTHER)
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
