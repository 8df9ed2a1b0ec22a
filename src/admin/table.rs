//! Every endpoint of the management API in one table. A row cannot be written without the scope that it needs, nor one
//! that changes something without its word in the audit trail.

use http::Method;

use crate::domain::Scope;

/// One endpoint.
#[derive(Debug)]
pub(super) struct Row {
    /// Its name in the OpenAPI document.
    pub(super) name: Name,
    /// The method.
    pub(super) method: Method,
    /// The path, with `{id}` for the one variable segment there may be.
    pub(super) path: &'static str,
    /// Who may call it.
    pub(super) needs: Needs,
    /// What it does to records.
    pub(super) effect: Effect,
    /// What it does, in a line.
    pub(super) summary: &'static str,
}

impl Row {
    /// What happens when it is asked for again, where it changes something.
    pub(super) const fn effect_repeat(&self) -> Option<Repeat> {
        match self.effect {
            Reads => None,
            Changes(_, repeat) => Some(repeat),
        }
    }

    /// Whether it changes what gateways decide by, so that it can wait until they all do. What keys can do is in the store;
    /// the configuration is each gateway's own.
    pub(super) const fn waits_for_the_fleet(&self) -> bool {
        matches!(self.effect, Changes(..)) && !matches!(self.name, Name::ReloadConfig | Name::ForgetNode)
    }

    /// Whether it changes one record that is there: what `If-Match` is about.
    pub(super) fn changes_a_record(&self) -> bool {
        let is_of_one = self.path.contains("{id}") || self.name == Name::RotateSelf;
        matches!(self.effect, Changes(..)) && is_of_one && self.name != Name::ForgetNode
    }
}

/// What a caller must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// Nothing: documentation.
    Nothing,
    /// A key that is let in at this door, whatever it holds.
    AnyKey,
    /// This scope of the gateway, or one that includes it.
    Scope(&'static str),
}

/// What calling it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing: it may be called any number of times.
    Reads,
    /// It changes records; the trail calls it so. `Once`: an `Idempotency-Key` makes it safe to repeat.
    Changes(&'static str, Repeat),
}

/// What happens when a change is asked for again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// The same.
    Idempotent,
    /// Another record, unless the request carries an `Idempotency-Key`.
    MakesAnother,
}

/// The endpoints by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) enum Name {
    CreateKey,
    ListKeys,
    ShowKey,
    ChangeKey,
    RevokeKey,
    RotateKey,
    ReplaceSecret,
    EnableKey,
    DisableKey,
    VerifyKey,
    ImportKeys,
    ShowSelf,
    RotateSelf,
    CreateOwner,
    ListOwners,
    ShowOwner,
    ChangeOwner,
    SuspendOwner,
    ResumeOwner,
    ListScopes,
    ListAudit,
    ShowRequest,
    ListRoutes,
    Explain,
    ReloadConfig,
    ListNodes,
    ForgetNode,
    ShowUsage,
    ShowReport,
    Status,
    OpenApi,
    Docs,
    DocsErrors,
    DocsError,
}

const READ_KEYS: Needs = Needs::Scope("portcullis:keys:read");
const KEYS: Needs = Needs::Scope(Scope::MANAGE_KEYS);
const USAGE: Needs = Needs::Scope("portcullis:usage");
const AUDIT: Needs = Needs::Scope("portcullis:audit");
const CONFIG: Needs = Needs::Scope("portcullis:config");
const VERIFY: Needs = Needs::Scope("portcullis:verify");

/// The scopes that satisfy a demand for `scope`: itself, and what includes it.
pub(super) fn satisfied_by(scope: &str) -> &'static [&'static str] {
    match scope {
        "portcullis:keys:read" => &["portcullis:keys:read", Scope::MANAGE_KEYS],
        Scope::MANAGE_KEYS => &[Scope::MANAGE_KEYS],
        "portcullis:verify" => &["portcullis:verify"],
        "portcullis:usage" => &["portcullis:usage"],
        "portcullis:audit" => &["portcullis:audit"],
        "portcullis:config" => &["portcullis:config"],
        // A scope that nobody can hold: absence never grants.
        _ => &[],
    }
}

macro_rules! table {
    ($($name:ident: $method:ident $path:literal, $needs:expr, $effect:expr, $summary:literal;)*) => {
        /// All endpoints.
        pub(super) static TABLE: &[Row] = &[$(Row {
            name: Name::$name,
            method: Method::$method,
            path: $path,
            needs: $needs,
            effect: $effect,
            summary: $summary,
        },)*];

        impl Name {
            /// The name in the OpenAPI document.
            pub(super) const fn text(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

use Effect::{Changes, Reads};
use Repeat::{Idempotent, MakesAnother};

table! {
    CreateKey: POST "/v1/keys", KEYS, Changes("key.create", MakesAnother), "Make a key; it is shown this once";
    ListKeys: GET "/v1/keys", READ_KEYS, Reads, "List keys";
    VerifyKey: POST "/v1/keys/verify", VERIFY, Reads, "Say whether a key is accepted, and what it holds";
    ImportKeys: POST "/v1/keys/import", KEYS, Changes("key.import", Idempotent), "Take over keys that were made elsewhere, all of them or none";
    ShowSelf: GET "/v1/keys/self", Needs::AnyKey, Reads, "Show the key that asks";
    RotateSelf: POST "/v1/keys/self/rotate", Needs::AnyKey, Changes("key.rotate", MakesAnother), "Make a successor of the key that asks; it is shown this once";
    ShowKey: GET "/v1/keys/{id}", READ_KEYS, Reads, "Show a key";
    ChangeKey: PATCH "/v1/keys/{id}", KEYS, Changes("key.update", Idempotent), "Change a key; what is left out stays";
    RevokeKey: DELETE "/v1/keys/{id}", KEYS, Changes("key.revoke", Idempotent), "Refuse a key for good";
    RotateKey: POST "/v1/keys/{id}/rotate", KEYS, Changes("key.rotate", MakesAnother), "Make a successor; it is shown this once";
    ReplaceSecret: POST "/v1/keys/{id}/secret", KEYS, Changes("key.replace_secret", MakesAnother), "Give a key another secret, shown this once; the old one is refused at once";
    EnableKey: POST "/v1/keys/{id}/enable", KEYS, Changes("key.enable", Idempotent), "Accept a key that was disabled";
    DisableKey: POST "/v1/keys/{id}/disable", KEYS, Changes("key.disable", Idempotent), "Refuse a key until it is enabled again";
    CreateOwner: POST "/v1/owners", KEYS, Changes("owner.create", MakesAnother), "Make an owner";
    ListOwners: GET "/v1/owners", READ_KEYS, Reads, "List owners";
    ShowOwner: GET "/v1/owners/{id}", READ_KEYS, Reads, "Show an owner";
    ChangeOwner: PATCH "/v1/owners/{id}", KEYS, Changes("owner.update", Idempotent), "Change an owner; what is left out stays";
    SuspendOwner: POST "/v1/owners/{id}/suspend", KEYS, Changes("owner.suspend", Idempotent), "Refuse all keys of an owner";
    ResumeOwner: POST "/v1/owners/{id}/resume", KEYS, Changes("owner.resume", Idempotent), "Accept the keys of an owner again";
    ListScopes: GET "/v1/scopes", READ_KEYS, Reads, "List the scopes and roles that keys may hold";
    ShowUsage: GET "/v1/keys/{id}/usage", USAGE, Reads, "Show what a key was used for, how often and from where";
    ShowReport: GET "/v1/usage/report", USAGE, Reads, "Tell which keys are not used, hold more than they use, or would be refused without report mode";
    ListAudit: GET "/v1/audit", AUDIT, Reads, "List who changed what, the newest first";
    ShowRequest: GET "/v1/requests/{id}", CONFIG, Reads, "Say what became of a request, and what it would be answered now";
    ListRoutes: GET "/v1/routes", CONFIG, Reads, "List the rules that hold";
    Explain: POST "/v1/explain", CONFIG, Reads, "Say which rule decides a request, and why";
    ReloadConfig: POST "/v1/config/reload", CONFIG, Changes("config.reload", Idempotent), "Read the configuration again, or say what would come of it";
    ListNodes: GET "/v1/nodes", CONFIG, Reads, "List the gateways that enforce keys";
    ForgetNode: DELETE "/v1/nodes/{id}", CONFIG, Changes("node.forget", Idempotent), "Say of a gateway that it serves no more: nobody waits for it";
    Status: GET "/v1/status", Needs::AnyKey, Reads, "Show how this gateway stands with its store";
    OpenApi: GET "/v1/openapi.json", Needs::Nothing, Reads, "This document";
    Docs: GET "/docs", Needs::Nothing, Reads, "The API for people";
    DocsErrors: GET "/docs/errors", Needs::Nothing, Reads, "All error codes";
    DocsError: GET "/docs/errors/{id}", Needs::Nothing, Reads, "One error code";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_that_changes_something_needs_a_key_and_every_unsafe_method_says_what_it_does() {
        let mut names = HashSet::new();
        for row in TABLE {
            assert!(names.insert((row.method.clone(), row.path)), "{} twice", row.path);
            match row.effect {
                Changes(word, _) => {
                    assert!(row.needs != Needs::Nothing && !row.method.is_safe(), "{}", row.path);
                    assert!(word.contains('.'), "{}", row.path);
                }
                Reads => {
                    let asks_with_a_body = matches!(row.name, Name::VerifyKey | Name::Explain);
                    assert!(row.method.is_safe() || asks_with_a_body, "{}", row.path);
                }
            }
            if let Needs::Scope(scope) = row.needs {
                assert!(Scope::RESERVED.contains(&scope) && satisfied_by(scope).contains(&scope), "{scope}");
            }
        }
        for scope in Scope::RESERVED {
            assert!(satisfied_by(scope).iter().all(|includes| Scope::RESERVED.contains(includes)), "{scope}");
        }
    }
}
