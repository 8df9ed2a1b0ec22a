//! The words a key may be made with: scopes, roles and environments that the configuration knows.
//!
//! A key with a misspelt scope looks fine and fails later, in someone else's hands; so it is refused here.

use std::collections::BTreeSet;

use super::authority::Authority;
use crate::domain::limits::{MAX_DESCRIPTION_CHARS, MAX_NAME_CHARS, MAX_ROLES_PER_KEY, MAX_SCOPES_PER_KEY};
use crate::domain::{GrantedScope, KeyKind, Scope, did_you_mean};
use crate::gate::{Demand, GateSettings};

/// What the configuration knows.
pub struct Vocabulary<'a> {
    settings: &'a GateSettings,
    /// The catalogue, and what rules demand or routes map beyond it.
    scopes: BTreeSet<&'a Scope>,
    /// Whether problems are told to somebody who knows nothing of the configuration.
    is_for_customers: bool,
}

impl<'a> Vocabulary<'a> {
    /// The words of a configuration.
    pub fn of(settings: &'a GateSettings) -> Self {
        let demands = settings.routes.iter().flat_map(|route| &route.methods).map(|method| &method.demand);
        let demanded = demands.flat_map(|demand| match demand {
            Demand::Public | Demand::AnyKey => [].iter().chain(&[]),
            Demand::Scopes { all, any } => all.iter().chain(any),
        });
        let mapped =
            settings.routes.iter().filter_map(|route| route.self_service.as_ref()).flat_map(|own| own.map.keys());
        let scopes = settings.scopes.keys().chain(demanded).chain(mapped).collect();
        Self { settings, scopes, is_for_customers: false }
    }

    /// The same, with problems told so that this caller can mend them.
    pub fn told_to(settings: &'a GateSettings, authority: &Authority) -> Self {
        Self { is_for_customers: authority.is_at_data_door(), ..Self::of(settings) }
    }

    /// Scopes that a key of this kind may hold.
    ///
    /// # Errors
    /// What is wrong with one of them, and how to mend it.
    pub fn scopes(&self, texts: &[String], kind: KeyKind) -> Result<Vec<GrantedScope>, String> {
        let mut scopes = Vec::new();
        for text in texts {
            let scope = self.scope(text, kind)?;
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        if scopes.len() > MAX_SCOPES_PER_KEY {
            return Err(format!("{} scopes are more than the {MAX_SCOPES_PER_KEY} a key may hold", scopes.len()));
        }
        Ok(scopes)
    }

    fn scope(&self, text: &str, kind: KeyKind) -> Result<GrantedScope, String> {
        let granted: GrantedScope =
            text.parse().map_err(|error| format!("{text:?} is not a scope: {error}. Write for example orders:read"))?;
        if granted.as_str().starts_with(Scope::RESERVED_PREFIX) {
            return self.reserved_scope(granted, kind);
        }
        if self.settings.open_catalogue
            || granted.as_str() == "*"
            || self.scopes.iter().any(|known| granted.covers(known))
        {
            return Ok(granted);
        }
        let known = self.scopes.iter().map(|scope| scope.as_str());
        let meant = did_you_mean(text, known).map(|meant| format!(" Did you mean {meant:?}?")).unwrap_or_default();
        let what = if granted.is_wildcard() { "covers no scope" } else { "is not among the scopes" };
        if self.is_for_customers {
            return Err(format!("{text:?} {what} that there are.{meant}"));
        }
        Err(format!(
            "{text:?} {what} of the configuration.{meant} Scopes are declared in its section `scopes`, \
                     or not at all with `auth: {{ catalogue: open }}`."
        ))
    }

    fn reserved_scope(&self, granted: GrantedScope, kind: KeyKind) -> Result<GrantedScope, String> {
        let text = granted.as_str();
        if self.is_for_customers {
            return Err(format!("{text:?} is not among the scopes that there are."));
        }
        if !Scope::RESERVED.contains(&text) {
            let meant = did_you_mean(text, Scope::RESERVED);
            let meant = meant.map(|meant| format!(" Did you mean {meant:?}?")).unwrap_or_default();
            return Err(format!("the gateway has no scope {text:?}.{meant} It has {}.", Scope::RESERVED.join(", ")));
        }
        if kind != KeyKind::Management {
            return Err(format!("{text:?} is for keys of the kind `management`"));
        }
        Ok(granted)
    }

    /// Roles that the configuration defines.
    ///
    /// # Errors
    /// As [`Self::scopes`].
    pub fn roles(&self, names: &[String]) -> Result<Vec<String>, String> {
        let known = &self.settings.roles;
        let mut roles: Vec<String> = Vec::new();
        for name in names {
            if !known.contains_key(name) {
                return Err(self.unknown("role", "roles", name, known.keys().map(String::as_str)));
            }
            if !roles.contains(name) {
                roles.push(name.clone());
            }
        }
        if roles.len() > MAX_ROLES_PER_KEY {
            return Err(format!("{} roles are more than the {MAX_ROLES_PER_KEY} a key may hold", roles.len()));
        }
        Ok(roles)
    }

    /// The word that key texts of this environment hold.
    ///
    /// # Errors
    /// As [`Self::scopes`].
    pub fn environment_word(&self, name: &str) -> Result<&'a str, String> {
        let known = &self.settings.environments;
        match known.get(name) {
            Some(environment) => Ok(&environment.word),
            None => Err(self.unknown("environment", "environments", name, known.keys().map(String::as_str))),
        }
    }

    fn unknown<'n>(
        &self,
        what: &str,
        section: &str,
        name: &str,
        known: impl Iterator<Item = &'n str> + Clone,
    ) -> String {
        let meant = did_you_mean(name, known.clone()).map(|meant| format!(" Did you mean {meant:?}?"));
        if self.is_for_customers {
            return format!("there is no {what} {name:?}.{}", meant.unwrap_or_default());
        }
        let all = known.collect::<Vec<_>>().join(", ");
        let all = if all.is_empty() { "There are none.".to_owned() } else { format!("There are: {all}.") };
        let hint = meant.unwrap_or_else(|| format!(" {all}"));
        format!("there is no {what} {name:?}.{hint} It is declared in the configuration's section `{section}`.")
    }

    /// The environment whose key texts hold this word.
    pub fn environment_of_word(&self, word: &str) -> Option<&'a str> {
        let mut known = self.settings.environments.iter();
        known.find(|(_, environment)| environment.word == word).map(|(name, _)| name.as_str())
    }
}

/// A label that can be listed.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if name.trim().is_empty() {
        return Err("a key needs a name; it is a label for people and need not be unique".to_owned());
    }
    if length > MAX_NAME_CHARS {
        return Err(format!("the name has {length} characters, at most {MAX_NAME_CHARS} are kept"));
    }
    if name.chars().any(char::is_control) {
        return Err("the name holds a control character".to_owned());
    }
    Ok(())
}

/// A text of bounded length.
///
/// # Errors
/// What is wrong with it.
pub fn check_description(text: &str) -> Result<(), String> {
    let length = text.chars().count();
    if length > MAX_DESCRIPTION_CHARS {
        return Err(format!("the description has {length} characters, at most {MAX_DESCRIPTION_CHARS} are kept"));
    }
    // Not every store can keep one.
    if text.contains('\0') {
        return Err("the description holds a NUL character".to_owned());
    }
    Ok(())
}

/// The entries of `a,b`; none for an empty text.
pub fn split_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
#[path = "vocabulary_tests.rs"]
mod tests;
