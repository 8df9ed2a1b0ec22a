//! Lists of keys: which are meant, and a page of those that a caller sees.

use super::authority::spelled_out;
use super::checks::of;
use super::desk::Desk;
use super::fault::Refused;
use crate::domain::{KeyId, KeyKind, KeyRecord, KeyState, OwnerId, Scope, Timestamp};
use crate::gate::GateSettings;
use crate::store::{KeyQuery, Page};

/// Which keys a list shows.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    /// Only after this id.
    pub after: Option<KeyId>,
    /// At most this many; at least 1.
    pub limit: usize,
    /// Only of this owner.
    pub owner: Option<OwnerId>,
    /// Only of this environment.
    pub environment: Option<String>,
    /// Only of this kind.
    pub kind: Option<KeyKind>,
    /// Only in one of these states now; none: in any.
    pub states: Vec<KeyState>,
    /// Only those that hold this scope, by themselves or by a role.
    pub scope: Option<Scope>,
    /// Only those that were made before this moment and not used since.
    pub unused_since: Option<Timestamp>,
    /// Only with this exact name.
    pub name: Option<String>,
    /// Only whose text begins with this.
    pub prefix: Option<String>,
}

impl KeyFilter {
    /// What the store does not filter by itself.
    fn keeps(&self, record: &KeyRecord, settings: &GateSettings, now: Timestamp) -> bool {
        let holds =
            |scope: &Scope| spelled_out(&record.scopes, &record.roles, settings).any(|granted| granted.covers(scope));
        let is_unused =
            |since: Timestamp| record.created_at < since && record.last_used_at.is_none_or(|used| used < since);
        let is_meant = self.states.is_empty() || self.states.contains(&record.state(now));
        is_meant && self.scope.as_ref().is_none_or(holds) && self.unused_since.is_none_or(is_unused)
    }
}

impl Desk<'_> {
    /// A page of keys that the caller sees, in order of id.
    ///
    /// # Errors
    /// The store's, and where there is no such key an environment or a scope that the configuration does not know.
    pub async fn list_keys(&self, filter: KeyFilter) -> Result<Page<KeyRecord>, Refused> {
        let mut query = KeyQuery {
            after: filter.after,
            limit: 1_000,
            owner: filter.owner,
            environment: filter.environment.clone(),
            kind: filter.kind,
            state: match filter.states.as_slice() {
                [state] => Some((*state, self.now)),
                _ => None,
            },
            name: filter.name.clone(),
            prefix: filter.prefix.clone(),
            ..KeyQuery::default()
        };
        if !self.authority.sight().narrow(&mut query) {
            // What the caller does not see does not exist, as far as they can tell.
            return Ok(Page { items: Vec::new(), more: false });
        }
        let page = self.pages(&filter, query).await?;
        if page.items.is_empty() && filter.after.is_none() {
            self.check_words(&filter)?;
        }
        Ok(page)
    }

    /// Refuses words that the configuration does not know. Keys that live in an environment or hold a scope of another
    /// time are found all the same, so only an empty list is worth a look.
    fn check_words(&self, filter: &KeyFilter) -> Result<(), Refused> {
        let vocabulary = self.vocabulary();
        if let Some(environment) = &filter.environment {
            vocabulary.environment_word(environment).map_err(of("environment"))?;
        }
        if let Some(scope) = &filter.scope {
            vocabulary.scopes(&[scope.to_string()], KeyKind::Management).map_err(of("scope"))?;
        }
        Ok(())
    }

    async fn pages(&self, filter: &KeyFilter, mut query: KeyQuery) -> Result<Page<KeyRecord>, Refused> {
        if filter.scope.is_none() && filter.unused_since.is_none() && filter.states.len() < 2 {
            query.limit = filter.limit.max(1);
            return Ok(self.store.reader().list_keys(query).await?);
        }
        let mut items = Vec::new();
        loop {
            let page = self.store.reader().list_keys(query.clone()).await?;
            query.after = page.items.last().map(|record| record.id);
            for record in page.items.into_iter().filter(|record| filter.keeps(record, self.settings, self.now)) {
                if items.len() == filter.limit.max(1) {
                    return Ok(Page { items, more: true });
                }
                items.push(record);
            }
            if !page.more {
                return Ok(Page { items, more: false });
            }
        }
    }
}
