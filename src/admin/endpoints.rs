//! What each endpoint does.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::api::Api;
use super::call::Call;
use super::configuration::list_routes;
use super::docs_page;
use super::exchange::{ApiAnswer, ApiError};
use super::fleet::Wait;
use super::lists::{list_audit, list_keys, list_owners, list_scopes};
use super::making::Making;
use super::openapi;
use super::profile::ApiProfile;
use super::table::{Effect, Name};
use super::usage::{show_report, show_usage};
use crate::domain::{KeyId, OwnerId, Revision};
use crate::manage::{Desk, KeyChange, OwnerChange, Rotation, owner_json};

/// How long a change that is committed may take to be enforced here before the answer says that it is not yet.
const PATIENCE: Duration = Duration::from_secs(5);

impl Api {
    pub(super) async fn dispatch(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        // Before anything is changed.
        let wait = match call.row.effect {
            Effect::Reads => Wait::ForThisNode,
            Effect::Changes(..) if call.row.name == Name::ImportKeys => Wait::ForThisNode,
            Effect::Changes(..) => call.wait()?,
        };
        let seen = match call.row.effect {
            Effect::Reads => None,
            Effect::Changes(..) => call.if_match()?,
        };
        if seen.is_some() && !call.row.changes_a_record() {
            // What it names has no entity tag, so none is that of `If-Match` (RFC 9110 §13.1.1).
            return Err(ApiError::PreconditionFailed);
        }
        let seen = seen.as_deref();
        let desk = call.desk(&self.store);
        match call.row.name {
            Name::CreateKey => {
                let asked = call.body()?;
                self.make(call, &desk, wait, Making::Key(Box::new(asked))).await
            }
            Name::RotateKey => {
                let making = Making::Successor(call.key_id()?, call.optional_body()?);
                self.make(call, &desk, wait, making).await
            }
            Name::RotateSelf => {
                let asked = call.optional_body::<Rotation>()?;
                if asked.expires_at.is_some() && !call.manages_keys() {
                    let detail =
                        "only who manages keys says when a successor expires; without it, it does as the old one";
                    return Err(ApiError::Unacceptable { field: "expires_at", detail: detail.to_owned() });
                }
                self.make(call, &desk, wait, Making::Successor(call.own_key()?, asked)).await
            }
            Name::ReplaceSecret => {
                let id = call.key_id()?;
                call.no_body()?;
                self.make(call, &desk, wait, Making::Secret(id)).await
            }
            Name::ListKeys => list_keys(call, &desk).await,
            Name::ShowKey => show_key(call, &desk, call.key_id()?).await,
            Name::ShowSelf => show_key(call, &desk, call.own_key()?).await,
            Name::ChangeKey => {
                let (id, change) = (call.key_id()?, call.body::<KeyChange>()?);
                let revision = desk.change_key(id, &change, seen).await?;
                self.changed_key(call, &desk, wait, id, revision).await
            }
            Name::RevokeKey => {
                let id = call.key_id()?;
                let revision = desk.revoke(id, seen).await?;
                self.changed_key(call, &desk, wait, id, revision).await
            }
            Name::EnableKey | Name::DisableKey => {
                let id = call.key_id()?;
                call.no_body()?;
                let revision = desk.set_active(id, call.row.name == Name::EnableKey, seen).await?;
                self.changed_key(call, &desk, wait, id, revision).await
            }
            Name::ImportKeys => self.import(call, &desk).await,
            Name::VerifyKey => self.verify(call, &desk).await,
            Name::CreateOwner => self.make_owner(call, &desk, wait).await,
            Name::ListOwners => list_owners(call, &self.store).await,
            Name::ShowOwner => {
                let record = desk.owner(call.owner_id()?).await?;
                call.no_query()?;
                Ok(call.json(StatusCode::OK, owner_json(&record), None).tagged(record.revision))
            }
            Name::ChangeOwner => {
                let (id, change) = (call.owner_id()?, call.body::<OwnerChange>()?);
                let revision = desk.change_owner(id, &change, seen).await?;
                self.changed_owner(call, &desk, wait, id, revision).await
            }
            Name::SuspendOwner | Name::ResumeOwner => {
                let id = call.owner_id()?;
                call.no_body()?;
                let revision = desk.set_suspended(id, call.row.name == Name::SuspendOwner, seen).await?;
                self.changed_owner(call, &desk, wait, id, revision).await
            }
            Name::ListScopes => Ok(list_scopes(call)?),
            Name::ListAudit => list_audit(call, &self.store).await,
            Name::ShowRequest => self.show_request(call).await,
            Name::ListRoutes => list_routes(call),
            Name::Explain => self.explain(call).await,
            Name::ReloadConfig => self.reload(call).await,
            Name::ListNodes => self.list_nodes(call).await,
            Name::ForgetNode => self.forget_node(call).await,
            Name::ShowUsage => show_usage(call, &desk).await,
            Name::ShowReport => show_report(call, &self.store).await,
            Name::Status => self.status(call),
            Name::OpenApi => {
                call.no_query()?;
                Ok(ApiAnswer::text("application/json", openapi::document(call.settings.profile)))
            }
            Name::Docs => Ok(ApiAnswer::text("text/html; charset=utf-8", openapi::page())),
            Name::DocsErrors | Name::DocsError => {
                let page = docs_page(call.request.path);
                let page = page.ok_or_else(|| ApiError::NotFound { detail: "there is no such code".to_owned() })?;
                Ok(ApiAnswer::text("text/markdown; charset=utf-8", page))
            }
        }
    }

    async fn changed_key(
        &self,
        call: &Call<'_>,
        desk: &Desk<'_>,
        wait: Wait,
        id: KeyId,
        revision: Revision,
    ) -> Result<ApiAnswer, ApiError> {
        // Before the wait: the store may go away meanwhile.
        let record = desk.key(id).await.map_err(ApiError::after_change)?;
        let settled = self.settle(call, wait, revision).await;
        let status = settled.status(StatusCode::OK);
        let mut body = settled.told_in(call.shown(&record));
        if call.settings.profile == ApiProfile::Success
            && call.row.name == Name::RevokeKey
            && let Some(object) = body.as_object_mut()
        {
            object.insert("message".to_owned(), "API key revoked successfully".into());
        }
        Ok(call.json(status, body, None).tagged(record.revision))
    }

    async fn changed_owner(
        &self,
        call: &Call<'_>,
        desk: &Desk<'_>,
        wait: Wait,
        id: OwnerId,
        revision: Revision,
    ) -> Result<ApiAnswer, ApiError> {
        let record = desk.owner(id).await.map_err(ApiError::after_change)?;
        let settled = self.settle(call, wait, revision).await;
        let status = settled.status(StatusCode::OK);
        Ok(call.json(status, settled.told_in(owner_json(&record)), None).tagged(record.revision))
    }

    /// Waits until this gateway enforces what was committed; false when that takes too long.
    pub(super) async fn enforced(&self, revision: Revision) -> bool {
        let mut sync = self.sync.clone();
        matches!(tokio::time::timeout(PATIENCE, sync.reach(revision)).await, Ok(Ok(())))
    }

    fn status(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        call.no_query()?;
        let status = self.sync.status();
        let body = json!({
            "version": env!("CARGO_PKG_VERSION"),
            // How many others have is nobody's business.
            "keys": call.authority.is_operator().then(|| self.keys.len()),
            "revision": self.keys.revision(),
            "as_of": self.keys.as_of(),
            "store_up": status.store_up,
            "now": call.now,
        });
        Ok(call.json(StatusCode::OK, body, None))
    }
}

async fn show_key(call: &Call<'_>, desk: &Desk<'_>, id: KeyId) -> Result<ApiAnswer, ApiError> {
    call.no_query()?;
    let record = desk.key(id).await?;
    Ok(call.json(StatusCode::OK, call.shown(&record), None).tagged(record.revision))
}
