//! Pages of records.

use http::StatusCode;
use serde_json::{Value, json};

use super::call::Call;
use super::exchange::{ApiAnswer, ApiError};
use super::query::Query;
use crate::audit::{Asked, Unclear, entry_json};
use crate::domain::time::moment_of_text;
use crate::domain::{KeyKind, KeyState, OwnerId};
use crate::manage::{Desk, KeyFilter, Sight, owner_json};
use crate::store::{AuditOrder, AuditQuery, Store};

/// Parameters of a list of keys.
pub(super) const KEY_FILTERS: [&str; 10] =
    ["cursor", "limit", "owner", "environment", "kind", "state", "scope", "unused_since", "name", "prefix"];

pub(super) async fn list_keys(call: &Call<'_>, desk: &Desk<'_>) -> Result<ApiAnswer, ApiError> {
    let mut query = Query::read(call.request.query)?;
    let words = |known: &[&str]| format!("is none of {}", known.join(", "));
    let kind = match query.text("kind") {
        None => None,
        Some(text) => {
            let names = KeyKind::ALL.map(KeyKind::name);
            Some(KeyKind::from_name(&text).ok_or_else(|| ApiError::field("kind", words(&names)))?)
        }
    };
    let states = match query.text("state") {
        None => Vec::new(),
        Some(text) => {
            let state = |text: &str| {
                let found = KeyState::ALL.into_iter().find(|state| state.name() == text);
                found.ok_or_else(|| ApiError::field("state", words(&KeyState::ALL.map(KeyState::name))))
            };
            text.split(',').map(state).collect::<Result<_, _>>()?
        }
    };
    let unused_since = match query.text("unused_since") {
        None => None,
        Some(text) => {
            let odd = |error| ApiError::field("unused_since", format!("{text:?} {error}"));
            Some(moment_of_text(&text, call.now).map_err(odd)?)
        }
    };
    let limit = query.page_size()?;
    let own_name = call.settings.profile.scope_parameter();
    let scope = match query.parsed(own_name)? {
        // Under the name of the other profile it is understood, too.
        None if own_name != "scope" => query.parsed("scope")?,
        scope => scope,
    };
    let filter = KeyFilter {
        after: query.parsed("cursor")?,
        limit,
        owner: query.parsed("owner")?,
        environment: query.text("environment").map(Into::into),
        kind,
        states,
        scope,
        unused_since,
        name: query.text("name").map(Into::into),
        prefix: query.text("prefix").map(Into::into),
    };
    query.finish(&KEY_FILTERS.map(|filter| if filter == "scope" { own_name } else { filter }))?;
    let page = desk.list_keys(filter).await?;
    let next = if page.more { page.items.last().map(|record| record.id) } else { None };
    let items: Vec<Value> = page.items.iter().map(|record| call.shown(record)).collect();
    Ok(call.json(StatusCode::OK, json!({ "data": items, "next_cursor": next }), Some("keys")))
}

pub(super) async fn list_owners(call: &Call<'_>, store: &Store) -> Result<ApiAnswer, ApiError> {
    let mut query = Query::read(call.request.query)?;
    let after: Option<OwnerId> = query.parsed("cursor")?;
    let limit = query.page_size()?;
    query.finish(&["cursor", "limit"])?;
    let owners = match call.authority.sight() {
        Sight::Everything => store.reader().list_owners().await?,
        // Nobody else is looked through for the sake of one.
        sight => match sight.owner() {
            Some(own) => store.reader().find_owner(own).await?.into_iter().collect(),
            None => Vec::new(),
        },
    };
    let mut visible = owners
        .iter()
        .filter(|owner| call.authority.sight().sees_owner(owner.id) && after.is_none_or(|after| owner.id > after));
    let page: Vec<_> = visible.by_ref().take(limit).collect();
    let next = visible.next().and_then(|_| page.last().map(|owner| owner.id));
    let items: Vec<Value> = page.into_iter().map(owner_json).collect();
    Ok(call.json(StatusCode::OK, json!({ "data": items, "next_cursor": next }), Some("owners")))
}

/// Parameters of the trail.
pub(super) const AUDIT_FILTERS: [&str; 8] =
    ["cursor", "limit", "order", "since", "until", "actor", "action", "subject"];

/// Orders of the trail, the usual one first.
pub(super) const AUDIT_ORDERS: [(&str, AuditOrder); 2] =
    [("newest_first", AuditOrder::NewestFirst), ("oldest_first", AuditOrder::OldestFirst)];

pub(super) async fn list_audit(call: &Call<'_>, store: &Store) -> Result<ApiAnswer, ApiError> {
    call.authority.check_operator("the audit trail")?;
    let mut query = Query::read(call.request.query)?;
    let (after, limit) = (query.parsed::<u64>("cursor")?, query.page_size()?);
    let order = match query.text("order") {
        None => AuditOrder::NewestFirst,
        Some(text) => {
            let found = AUDIT_ORDERS.into_iter().find(|(name, _)| *name == text);
            found.ok_or_else(|| ApiError::field("order", "is newest_first or oldest_first"))?.1
        }
    };
    let mut text = |name| query.text(name).map(Into::into);
    let asked = Asked {
        since: text("since"),
        until: text("until"),
        actor: text("actor"),
        action: text("action"),
        subject: text("subject"),
    };
    query.finish(&AUDIT_FILTERS)?;
    let unclear = |Unclear { field, problem }| ApiError::Unacceptable { field, detail: problem };
    let query = AuditQuery { after, limit, ..asked.query(order, call.now).map_err(unclear)? };
    let page = store.audit().list_audit(query).await?;
    let next = if page.more { page.items.last().map(|entry| entry.entry.to_string()) } else { None };
    let items: Vec<Value> = page.items.iter().map(entry_json).collect();
    Ok(call.json(StatusCode::OK, json!({ "data": items, "next_cursor": next }), Some("entries")))
}

pub(super) fn list_scopes(call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
    call.no_query()?;
    let settings = &call.settings.rules.settings;
    let scopes: Vec<Value> =
        settings.scopes.iter().map(|(scope, entry)| json!({ "name": scope, "title": entry.title })).collect();
    let roles: Vec<Value> =
        settings.roles.iter().map(|(name, grants)| json!({ "name": name, "scopes": grants })).collect();
    Ok(call.json(StatusCode::OK, json!({ "scopes": scopes, "roles": roles }), None))
}
