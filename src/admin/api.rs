//! The management API: from a request that has arrived whole to its answer.
//!
//! Owns the endpoints. Decides nothing itself about who may call (`door`) nor about who may do what to which key
//! ([`crate::manage`]). Runs on the control runtime.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::docs_page;
use super::door::Door;
use super::exchange::{ApiAnswer, ApiError, ApiRequest};
use super::openapi;
use super::profile::ApiProfile;
use super::query::Query;
use super::seal::Seal;
use super::table::{Effect, Name, Repeat, Row};
use crate::audit::{Asked, Unclear, entry_json};
use crate::authn::{Authenticated, Rejection};
use crate::cache::{KeySet, LastUse, SyncHandle};
use crate::credential::{self, Located};
use crate::domain::time::{self, monotonic_now};
use crate::domain::{KeyId, KeyKind, KeyRecord, KeyState, OwnerId, PresentedKey, Revision, Scope, Timestamp};
use crate::gate::{
    self, Admission, Denial, Freshness, GateSettings, Identity, Keys, RequestHead, Rules, Snapshot, SnapshotOutdated,
    admit, judge,
};
use crate::limit::{Meters, Moment};
use crate::manage::{
    Authority, Caller, Desk, KeyChange, KeyFilter, Made, NewKey, NewOwner, OwnerChange, Refused, Rotation, key_json,
    owner_json,
};
use crate::reply::{self, Audience, ErrorProfile, Refusal};
use crate::store::{Actor, AuditOrder, AuditQuery, Command, RepeatName, Repeatable, Store, StoreError};

/// How long a change that is committed may take to be enforced here before the answer says that it is not yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the API is configured with at this moment.
#[derive(Clone)]
pub struct ApiSettings {
    /// The rules in force.
    pub rules: Arc<Rules>,
    /// Shape of bodies.
    pub profile: ApiProfile,
}

/// See the module.
pub struct Api {
    store: Arc<Store>,
    keys: Arc<KeySet>,
    sync: SyncHandle,
    meters: Arc<Meters>,
    settings: Box<dyn Fn() -> ApiSettings + Send + Sync>,
    last_use: Arc<LastUse>,
    door: Mutex<Option<Arc<Door>>>,
}

/// One request on its way through an endpoint.
struct Call<'a> {
    request: ApiRequest<'a>,
    row: &'static Row,
    /// The `{id}` of the path.
    id: &'a str,
    settings: &'a ApiSettings,
    snapshot: &'a Snapshot,
    /// Nobody at endpoints that need nothing.
    authority: Authority,
    now: Timestamp,
}

impl Api {
    /// The API over a store and the key set that follows it. `settings` is asked at every request.
    pub fn new(
        store: Arc<Store>,
        keys: Arc<KeySet>,
        sync: SyncHandle,
        meters: Arc<Meters>,
        last_use: Arc<LastUse>,
        settings: impl Fn() -> ApiSettings + Send + Sync + 'static,
    ) -> Self {
        Self { store, keys, sync, meters, last_use, settings: Box::new(settings), door: Mutex::new(None) }
    }

    /// Answers a request.
    pub async fn answer(&self, request: ApiRequest<'_>) -> ApiAnswer {
        let settings = (self.settings)();
        let answered = self.decide(request, &settings).await;
        answered.unwrap_or_else(|error| error.answer(request.request_id, settings.profile))
    }

    async fn decide(&self, request: ApiRequest<'_>, settings: &ApiSettings) -> Result<ApiAnswer, ApiError> {
        let now = time::now();
        let door = self.door(&settings.rules)?;
        let mut snapshot = door.snapshot(&self.keys);
        let age = self.keys.age(monotonic_now());
        let keys = Keys { set: &self.keys, freshness: age.map_or(Freshness::Unloaded, Freshness::Confirmed) };
        let head = RequestHead {
            method: request.method,
            host: request.host,
            path: request.path,
            query: None,
            fields: request.fields,
            client: request.client,
            is_upgrade: false,
        };
        let mut verdict = match judge(&head, &snapshot, keys, now) {
            Ok(verdict) => verdict,
            Err(SnapshotOutdated) => {
                snapshot = door.snapshot(&self.keys);
                let internal = |_| ApiError::Internal { reason: "a key without a profile".to_owned() };
                judge(&head, &snapshot, keys, now).map_err(internal)?
            }
        };
        let moment = Moment { monotonic: monotonic_now(), wall: now };
        let decided = admit(&mut verdict, &snapshot, &self.keys, request.client, &self.meters, moment);
        let (rule, path) = (verdict.rule, verdict.path.into_owned());
        let admitted = match decided.admission {
            Admission::Forward(admitted) => admitted,
            Admission::Refuse(denial) => {
                return Ok(refusal(Refusal::Denied(&denial), &request, settings, &settings.rules.settings));
            }
            Admission::Preflight => {
                return Err(ApiError::NotFound { detail: "nothing is shared with pages".to_owned() });
            }
        };
        let row = rule.and_then(|rule| door.row(rule));
        let row = row.ok_or_else(|| ApiError::Internal { reason: "a rule without an endpoint".to_owned() })?;
        let authority = match admitted.identity() {
            Identity::Key(authenticated) => {
                self.last_use.mark(0, authenticated.slot().id, now);
                match self.caller(authenticated, &snapshot, request, now).await? {
                    Some(caller) => Authority::Caller(Box::new(caller)),
                    None => {
                        let denial = Denial::InvalidKey(Rejection::Revoked);
                        return Ok(refusal(Refusal::Denied(&denial), &request, settings, &settings.rules.settings));
                    }
                }
            }
            Identity::Anonymous | Identity::Reported { .. } => Authority::Nobody,
        };
        let id = variable(row.path, &path).unwrap_or_default();
        let call = Call { request, row, id, settings, snapshot: &snapshot, authority, now };
        if let Effect::Changes(..) = row.effect {
            tracing::info!(
                request_id = request.request_id,
                actor = %call.authority.actor().name,
                endpoint = row.name.text(),
                subject = call.subject(),
                "management request"
            );
        }
        Box::pin(self.dispatch(&call)).await
    }

    fn door(&self, rules: &Arc<Rules>) -> Result<Arc<Door>, ApiError> {
        let mut current = self.door.lock();
        match &*current {
            Some(door) if Arc::ptr_eq(&door.base, rules) => Ok(Arc::clone(door)),
            _ => {
                let door = Door::compile(rules).map_err(|error| ApiError::Internal { reason: error.to_string() })?;
                let door = Arc::new(door);
                *current = Some(Arc::clone(&door));
                Ok(door)
            }
        }
    }

    /// Who calls, with what they hold now and may hand out. The store may know more than this gateway enforces yet: a key
    /// that it has switched off, or given another secret, manages nothing any more.
    async fn caller(
        &self,
        authenticated: &Authenticated,
        snapshot: &Snapshot,
        request: ApiRequest<'_>,
        now: Timestamp,
    ) -> Result<Option<Caller>, ApiError> {
        let Some(record) = self.store.reader().find_key(authenticated.slot().id).await? else { return Ok(None) };
        let suspended = match record.owner {
            None => false,
            Some(owner) => self.store.reader().find_owner(owner).await?.is_none_or(|owner| owner.suspended),
        };
        if record.state(now) != KeyState::Active || record.hash != *authenticated.hash() || suspended {
            return Ok(None);
        }
        let roles = &snapshot.rules.settings.roles;
        let of_roles = record.roles.iter().filter_map(|role| roles.get(role)).flatten();
        Ok(Some(Caller {
            actor: Actor { name: record.id.to_string(), address: request.client },
            key: record.id,
            owner: record.owner,
            kind: record.kind,
            environment: record.environment.clone(),
            holds: record.scopes.iter().chain(of_roles).cloned().collect(),
            may_grant: record.may_grant,
        }))
    }

    async fn dispatch(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        if let Effect::Changes(..) = call.row.effect {
            // Before anything is changed.
            call.no_query()?;
        }
        let desk = call.desk(&self.store);
        match call.row.name {
            Name::CreateKey => {
                let asked = call.body()?;
                self.make(call, &desk, Making::Key(Box::new(asked))).await
            }
            Name::RotateKey => {
                let making = Making::Successor(call.key_id()?, call.optional_body()?);
                self.make(call, &desk, making).await
            }
            Name::RotateSelf => {
                let asked = call.optional_body::<Rotation>()?;
                if asked.expires_at.is_some() && !call.manages_keys() {
                    let detail =
                        "only who manages keys says when a successor expires; without it, it does as the old one";
                    return Err(ApiError::Unacceptable { field: "expires_at", detail: detail.to_owned() });
                }
                self.make(call, &desk, Making::Successor(call.own_key()?, asked)).await
            }
            Name::ReplaceSecret => {
                let id = call.key_id()?;
                call.no_body()?;
                self.make(call, &desk, Making::Secret(id)).await
            }
            Name::ListKeys => list_keys(call, &desk).await,
            Name::ShowKey => show_key(call, &desk, call.key_id()?).await,
            Name::ShowSelf => show_key(call, &desk, call.own_key()?).await,
            Name::ChangeKey => {
                let (id, change) = (call.key_id()?, call.body::<KeyChange>()?);
                let revision = desk.change_key(id, &change, call.if_match()?.as_deref()).await?;
                self.changed_key(call, &desk, id, revision).await
            }
            Name::RevokeKey => {
                let id = call.key_id()?;
                let revision = desk.revoke(id).await?;
                self.changed_key(call, &desk, id, revision).await
            }
            Name::EnableKey | Name::DisableKey => {
                let id = call.key_id()?;
                call.no_body()?;
                let revision = desk.set_active(id, call.row.name == Name::EnableKey).await?;
                self.changed_key(call, &desk, id, revision).await
            }
            Name::VerifyKey => self.verify(call, &desk).await,
            Name::CreateOwner => self.make_owner(call, &desk).await,
            Name::ListOwners => list_owners(call, &self.store).await,
            Name::ShowOwner => {
                let record = desk.owner(call.owner_id()?).await?;
                call.no_query()?;
                Ok(call.json(StatusCode::OK, owner_json(&record), None).tagged(record.revision))
            }
            Name::ChangeOwner => {
                let (id, change) = (call.owner_id()?, call.body::<OwnerChange>()?);
                let revision = desk.change_owner(id, &change, call.if_match()?.as_deref()).await?;
                self.changed_owner(call, &desk, id, revision).await
            }
            Name::SuspendOwner | Name::ResumeOwner => {
                let id = call.owner_id()?;
                call.no_body()?;
                let revision = desk.set_suspended(id, call.row.name == Name::SuspendOwner).await?;
                self.changed_owner(call, &desk, id, revision).await
            }
            Name::ListScopes => Ok(list_scopes(call)?),
            Name::ListAudit => list_audit(call, &self.store).await,
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

    /// Makes something that is shown once; asked again under the same `Idempotency-Key`, shows the same again.
    async fn make(&self, call: &Call<'_>, desk: &Desk<'_>, making: Making) -> Result<ApiAnswer, ApiError> {
        let repeat = call.repeat()?;
        if let Some(answer) = self.answered_before(call, repeat.as_ref()).await? {
            return Ok(answer);
        }
        // A change of the same record in between makes it out of date; then it is made from what is there now.
        for _ in 0..8 {
            let Made { record, key, command } = match &making {
                Making::Key(asked) => desk.make_key(NewKey::clone(asked)).await?,
                Making::Successor(id, asked) => desk.make_successor(*id, asked.clone()).await?,
                Making::Secret(id) => desk.make_secret(*id).await?,
            };
            let mut body = key_json(&record, call.now);
            if let Some(object) = body.as_object_mut() {
                object.insert("key".to_owned(), key.reveal().into());
            }
            let body = Zeroizing::new(body.to_string());
            match self.store_once(call, command, repeat.as_ref(), &body).await {
                Err(ApiError::PreconditionFailed) => {}
                answer => return answer,
            }
        }
        Err(ApiError::PreconditionFailed)
    }

    async fn make_owner(&self, call: &Call<'_>, desk: &Desk<'_>) -> Result<ApiAnswer, ApiError> {
        let repeat = call.repeat()?;
        if let Some(answer) = self.answered_before(call, repeat.as_ref()).await? {
            return Ok(answer);
        }
        let record = desk.make_owner(call.body::<NewOwner>()?)?;
        let body = owner_json(&record).to_string();
        self.store_once(call, Command::InsertOwner { record }, repeat.as_ref(), &body).await
    }

    /// Stores what was made together with the answer, and gives it.
    async fn store_once(
        &self,
        call: &Call<'_>,
        command: Command,
        repeat: Option<&Repeated>,
        body: &str,
    ) -> Result<ApiAnswer, ApiError> {
        let repeatable = match repeat {
            None => None,
            Some(repeat) => {
                let sealed = repeat.seal.close(&repeat.name, body.as_bytes());
                let sealed = sealed.ok_or_else(|| ApiError::Internal { reason: "nothing random".to_owned() })?;
                Some((repeat.name, Repeatable { request: repeat.request, sealed }))
            }
        };
        match call.desk(&self.store).submit(command, repeatable).await {
            Ok(Some(revision)) => self.made(call, body, revision).await,
            Ok(None) => Err(ApiError::NotFound { detail: "the record is gone".to_owned() }),
            // Somebody with the same Idempotency-Key was quicker.
            Err(Refused::Store(StoreError::Repeated)) => {
                let answer = self.answered_before(call, repeat).await?;
                answer.ok_or(ApiError::Conflict { detail: "the same request was carried out before".to_owned() })
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// What was answered when the same was asked before.
    async fn answered_before(&self, call: &Call<'_>, repeat: Option<&Repeated>) -> Result<Option<ApiAnswer>, ApiError> {
        let Some(repeat) = repeat else { return Ok(None) };
        let Some((kept, revision)) = self.store.reader().find_repeatable(repeat.name, call.now).await? else {
            return Ok(None);
        };
        if kept.request != repeat.request {
            return Err(ApiError::IdempotencyKeyReused);
        }
        let opened = repeat.seal.open(&repeat.name, &kept.sealed);
        // It was sealed under another secret of the same key.
        let changed =
            || ApiError::Conflict { detail: "the secret of the key that asked was replaced since".to_owned() };
        let opened = opened.ok_or_else(changed)?;
        let body = std::str::from_utf8(&opened).map_err(|error| ApiError::Internal { reason: error.to_string() })?;
        self.made(call, body, revision).await.map(Some)
    }

    async fn made(&self, call: &Call<'_>, body: &str, revision: Revision) -> Result<ApiAnswer, ApiError> {
        let enforced = self.enforced(revision).await;
        let mut body: Value =
            serde_json::from_str(body).map_err(|error| ApiError::Internal { reason: error.to_string() })?;
        let status = if enforced { StatusCode::CREATED } else { StatusCode::ACCEPTED };
        let id = body["id"].as_str().unwrap_or_default().to_owned();
        if let Some(object) = body.as_object_mut() {
            object.insert("revision".to_owned(), json!(revision));
        }
        let collection = if id.starts_with(OwnerId::PREFIX) { "owners" } else { "keys" };
        Ok(call.json(status, body, None).tagged(revision).located(format!("/v1/{collection}/{id}")))
    }

    async fn changed_key(
        &self,
        call: &Call<'_>,
        desk: &Desk<'_>,
        id: KeyId,
        revision: Revision,
    ) -> Result<ApiAnswer, ApiError> {
        let status = if self.enforced(revision).await { StatusCode::OK } else { StatusCode::ACCEPTED };
        let record = desk.key(id).await?;
        let mut body = key_json(&record, call.now);
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
        id: OwnerId,
        revision: Revision,
    ) -> Result<ApiAnswer, ApiError> {
        let status = if self.enforced(revision).await { StatusCode::OK } else { StatusCode::ACCEPTED };
        let record = desk.owner(id).await?;
        Ok(call.json(status, owner_json(&record), None).tagged(record.revision))
    }

    /// Waits until this gateway enforces what was committed; false when that takes too long.
    async fn enforced(&self, revision: Revision) -> bool {
        let mut sync = self.sync.clone();
        matches!(tokio::time::timeout(PATIENCE, sync.reach(revision)).await, Ok(Ok(())))
    }

    async fn verify(&self, call: &Call<'_>, desk: &Desk<'_>) -> Result<ApiAnswer, ApiError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Asked {
            key: Zeroizing<String>,
            #[serde(default)]
            scopes: Vec<String>,
        }
        call.no_query()?;
        let Asked { key, scopes } = call.body()?;
        let Some(presented) = PresentedKey::new(&key) else {
            return Err(ApiError::field("key", "is no single token of visible ASCII, at most 8 KiB"));
        };
        let (slot, mut rejection) = gate::examine(&presented, call.snapshot, &self.keys, call.now);
        // A key of somebody else is as unknown as one that does not exist.
        let record = match slot {
            None => None,
            Some(slot) => match desk.key(slot.id).await {
                Ok(record) => Some(record),
                Err(Refused::NoSuchKey(_)) => {
                    rejection = Some(Rejection::Unknown);
                    None
                }
                Err(refused) => return Err(refused.into()),
            },
        };
        let missing = match &record {
            None => scopes,
            Some(record) => missing(record, scopes, &call.settings.rules.settings)?,
        };
        let valid = rejection.is_none() && missing.is_empty();
        let body = json!({
            "valid": valid,
            "reason": rejection.map(Rejection::reason),
            "missing_scopes": missing,
            "record": record.map(|record| key_json(&record, call.now)),
        });
        Ok(call.json(StatusCode::OK, body, None))
    }

    fn status(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        call.no_query()?;
        let status = self.sync.status();
        let body = json!({
            "version": env!("CARGO_PKG_VERSION"),
            // How many others have is nobody's business.
            "keys": call.authority.confined_to().is_none().then(|| self.keys.len()),
            "revision": self.keys.revision(),
            "as_of": self.keys.as_of(),
            "store_up": status.store_up,
            "now": call.now,
        });
        Ok(call.json(StatusCode::OK, body, None))
    }
}

/// What is shown once.
enum Making {
    Key(Box<NewKey>),
    Successor(KeyId, Rotation),
    Secret(KeyId),
}

/// What makes a request the same as one before.
struct Repeated {
    name: RepeatName,
    request: [u8; 32],
    seal: Seal,
}

/// Longest `Idempotency-Key`, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

impl<'a> Call<'a> {
    fn desk(&'a self, store: &'a Store) -> Desk<'a> {
        Desk { store, settings: &self.settings.rules.settings, authority: &self.authority, now: self.now }
    }

    fn json(&self, status: StatusCode, body: Value, list: Option<&str>) -> ApiAnswer {
        ApiAnswer::json(status, &self.settings.profile.body(body, list))
    }

    /// The `{id}` of the path where it is one: a key that was sent in its place must not reach the log.
    fn subject(&self) -> &'a str {
        let is_id = self.id.parse::<KeyId>().is_ok() || self.id.parse::<OwnerId>().is_ok() || self.id == "self";
        if is_id { self.id } else { "" }
    }

    fn key_id(&self) -> Result<KeyId, ApiError> {
        self.id.parse().map_err(|_| ApiError::NotFound { detail: "there is no key of this id".to_owned() })
    }

    fn owner_id(&self) -> Result<OwnerId, ApiError> {
        self.id.parse().map_err(|_| ApiError::NotFound { detail: "there is no owner of this id".to_owned() })
    }

    fn manages_keys(&self) -> bool {
        let manages = |caller: &Caller| caller.holds.iter().any(|scope| scope.as_str() == Scope::MANAGE_KEYS);
        matches!(&self.authority, Authority::Caller(caller) if manages(caller))
    }

    fn own_key(&self) -> Result<KeyId, ApiError> {
        match &self.authority {
            Authority::Caller(caller) => Ok(caller.key),
            Authority::Local(_) | Authority::Nobody => {
                Err(ApiError::Internal { reason: "nobody has no key".to_owned() })
            }
        }
    }

    /// The body as what it should be.
    fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let is_json = self.request.fields.named(&http::header::CONTENT_TYPE).all(is_json);
        if !is_json || self.request.fields.named(&http::header::CONTENT_TYPE).next().is_none() {
            return Err(ApiError::NotJson);
        }
        let read = match self.settings.profile {
            ApiProfile::Standard => {
                let mut json = serde_json::Deserializer::from_slice(self.request.body);
                let value = serde_path_to_error::deserialize(&mut json).map_err(unreadable)?;
                json.end().map_err(|error| ApiError::Unreadable { field: None, detail: error.to_string() })?;
                value
            }
            ApiProfile::Success => {
                let value: Value = serde_json::from_slice(self.request.body)
                    .map_err(|error| ApiError::Unreadable { field: None, detail: error.to_string() })?;
                serde_path_to_error::deserialize(self.settings.profile.request(value)).map_err(unreadable)?
            }
        };
        Ok(read)
    }

    /// As [`Self::body`]; nothing says what an empty object says.
    fn optional_body<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        if self.request.body.is_empty() { Ok(T::default()) } else { self.body() }
    }

    fn no_body(&self) -> Result<(), ApiError> {
        #[derive(serde::Deserialize, Default)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.optional_body().map(|Nothing {}| ())
    }

    fn no_query(&self) -> Result<(), ApiError> {
        Query::read(self.request.query)?.finish(&[])
    }

    /// The revisions that `If-Match` names (RFC 9110 §13.1.1); `None` for `*` and where there is none.
    fn if_match(&self) -> Result<Option<Vec<Revision>>, ApiError> {
        let mut revisions = None;
        for value in self.request.fields.named(&http::header::IF_MATCH) {
            let odd = |_| ApiError::field("If-Match", "is no list of entity tags; send the ETag as it came");
            let tags = std::str::from_utf8(value).map_err(odd)?.trim();
            // An empty field names nothing.
            if matches!(tags, "*" | "") {
                continue;
            }
            for tag in tags.split(',').map(str::trim) {
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                let text = strong.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                let Some(text) = text.filter(|text| !text.contains('"')) else {
                    return Err(ApiError::field(
                        "If-Match",
                        format!("{tag:?} is no entity tag; send the ETag as it came"),
                    ));
                };
                // A tag of another shape, or a weak one, is none that was ever given out: it matches nothing.
                let named = if strong == tag { text.parse().ok().map(Revision::new) } else { None };
                revisions.get_or_insert_with(Vec::new).extend(named);
            }
        }
        Ok(revisions)
    }

    /// What the request is kept under, when it carries an `Idempotency-Key`.
    fn repeat(&self) -> Result<Option<Repeated>, ApiError> {
        if self.row.effect_repeat() != Some(Repeat::MakesAnother) {
            return Ok(None);
        }
        let name = http::HeaderName::from_static("idempotency-key");
        let mut values = self.request.fields.named(&name);
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(None),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(ApiError::field("Idempotency-Key", "stands more than once")),
        };
        let is_well_formed = (1..=MAX_IDEMPOTENCY_KEY).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        if !is_well_formed {
            let detail =
                format!("has 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters; a random UUID is a good one");
            return Err(ApiError::field("Idempotency-Key", detail));
        }
        let located = credential::locate(self.request.fields, None, &self.settings.rules.settings.accept);
        let Located::One(found) = located else {
            return Err(ApiError::Internal { reason: "a caller without a credential".to_owned() });
        };
        let seal = Seal::of(&found.key()).ok_or_else(|| ApiError::Internal { reason: "no seal".to_owned() })?;
        let digest = |parts: &[&[u8]]| -> [u8; 32] {
            let mut digest = Sha256::new();
            for part in parts {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            digest.finalize().into()
        };
        let (method, path) = (self.request.method.as_str().as_bytes(), self.request.path.as_bytes());
        let caller = self.authority.actor().name;
        Ok(Some(Repeated {
            name: digest(&[b"portcullis idempotency", caller.as_bytes(), value]),
            request: digest(&[method, path, self.request.body]),
            seal,
        }))
    }
}

fn unreadable(error: serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = error.path().to_string();
    let detail = error.into_inner().to_string();
    // A field that nobody knows is named by the message alone.
    let unknown = detail.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()).map(str::to_owned);
    let missing = detail.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()).map(str::to_owned);
    let field = unknown.or(missing).or_else(|| (path != "." && path != "?").then_some(path));
    ApiError::Unreadable { field, detail }
}

/// `application/json`, or a type that is JSON by its name (RFC 6839 §3.1).
fn is_json(value: &[u8]) -> bool {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    kind == b"application/json" || (kind.starts_with(b"application/") && kind.ends_with(b"+json"))
}

/// What stands in a path where a pattern has `{id}`.
fn variable<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    pattern.split('/').zip(path.split('/')).find(|(known, _)| *known == "{id}").map(|(_, found)| found)
}

/// Those of some scopes that a key does not hold.
fn missing(record: &KeyRecord, asked: Vec<String>, settings: &GateSettings) -> Result<Vec<String>, ApiError> {
    let of_roles = record.roles.iter().filter_map(|role| settings.roles.get(role)).flatten();
    let holds: Vec<_> = record.scopes.iter().chain(of_roles).collect();
    let mut missing = Vec::new();
    for text in asked {
        let scope: Scope = text
            .parse()
            .map_err(|error| ApiError::Unacceptable { field: "scopes", detail: format!("{text:?}: {error}") })?;
        if !holds.iter().any(|held| held.covers(&scope)) {
            missing.push(text);
        }
    }
    Ok(missing)
}

async fn show_key(call: &Call<'_>, desk: &Desk<'_>, id: KeyId) -> Result<ApiAnswer, ApiError> {
    call.no_query()?;
    let record = desk.key(id).await?;
    Ok(call.json(StatusCode::OK, key_json(&record, call.now), None).tagged(record.revision))
}

/// Parameters of a list of keys.
pub(super) const KEY_FILTERS: [&str; 9] =
    ["cursor", "limit", "owner", "environment", "kind", "state", "scope", "unused_since", "name"];

async fn list_keys(call: &Call<'_>, desk: &Desk<'_>) -> Result<ApiAnswer, ApiError> {
    let mut query = Query::read(call.request.query)?;
    let words = |known: &[&str]| format!("is none of {}", known.join(", "));
    let kind = match query.text("kind") {
        None => None,
        Some(text) => {
            let names = KeyKind::ALL.map(KeyKind::name);
            Some(KeyKind::from_name(&text).ok_or_else(|| ApiError::field("kind", words(&names)))?)
        }
    };
    let state = match query.text("state") {
        None => None,
        Some(text) => {
            let names = KeyState::ALL.map(KeyState::name);
            let found = KeyState::ALL.into_iter().find(|state| state.name() == text);
            Some(found.ok_or_else(|| ApiError::field("state", words(&names)))?)
        }
    };
    let limit = query.page_size()?;
    let filter = KeyFilter {
        after: query.parsed("cursor")?,
        limit,
        owner: query.parsed("owner")?,
        environment: query.text("environment").map(Into::into),
        kind,
        state,
        scope: query.parsed("scope")?,
        unused_since: query.parsed("unused_since")?,
        name: query.text("name").map(Into::into),
    };
    query.finish(&KEY_FILTERS)?;
    let page = desk.list_keys(filter).await?;
    let next = if page.more { page.items.last().map(|record| record.id) } else { None };
    let items: Vec<Value> = page.items.iter().map(|record| key_json(record, call.now)).collect();
    Ok(call.json(StatusCode::OK, json!({ "data": items, "next_cursor": next }), Some("keys")))
}

async fn list_owners(call: &Call<'_>, store: &Store) -> Result<ApiAnswer, ApiError> {
    let mut query = Query::read(call.request.query)?;
    let after: Option<OwnerId> = query.parsed("cursor")?;
    let limit = query.page_size()?;
    query.finish(&["cursor", "limit"])?;
    let owners = store.reader().list_owners().await?;
    let mut visible =
        owners.iter().filter(|owner| call.authority.sees(Some(owner.id)) && after.is_none_or(|after| owner.id > after));
    let page: Vec<_> = visible.by_ref().take(limit).collect();
    let next = visible.next().and_then(|_| page.last().map(|owner| owner.id));
    let items: Vec<Value> = page.into_iter().map(owner_json).collect();
    Ok(call.json(StatusCode::OK, json!({ "data": items, "next_cursor": next }), Some("owners")))
}

/// Parameters of the trail.
pub(super) const AUDIT_FILTERS: [&str; 7] = ["cursor", "limit", "since", "until", "actor", "action", "subject"];

async fn list_audit(call: &Call<'_>, store: &Store) -> Result<ApiAnswer, ApiError> {
    call.authority.check_operator("the audit trail")?;
    let mut query = Query::read(call.request.query)?;
    let (after, limit) = (query.parsed::<u64>("cursor")?, query.page_size()?);
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
    let query = AuditQuery { after, limit, ..asked.query(AuditOrder::NewestFirst, call.now).map_err(unclear)? };
    let page = store.audit().list_audit(query).await?;
    let next = if page.more { page.items.last().map(|entry| entry.entry.to_string()) } else { None };
    let items: Vec<Value> = page.items.iter().map(entry_json).collect();
    Ok(call.json(StatusCode::OK, json!({ "data": items, "next_cursor": next }), Some("entries")))
}

fn list_scopes(call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
    call.no_query()?;
    let settings = &call.settings.rules.settings;
    let scopes: Vec<Value> =
        settings.scopes.iter().map(|(scope, entry)| json!({ "name": scope, "title": entry.title })).collect();
    let roles: Vec<Value> =
        settings.roles.iter().map(|(name, grants)| json!({ "name": name, "scopes": grants })).collect();
    Ok(call.json(StatusCode::OK, json!({ "scopes": scopes, "roles": roles }), None))
}

/// A refusal of the gate, as every door says it.
fn refusal(refusal: Refusal<'_>, request: &ApiRequest<'_>, settings: &ApiSettings, gate: &GateSettings) -> ApiAnswer {
    let audience = Audience {
        request_id: request.request_id,
        profile: match settings.profile {
            ApiProfile::Standard => ErrorProfile::Standard,
            ApiProfile::Success => ErrorProfile::Success,
        },
        type_base: "urn:portcullis:error:",
        realm: &gate.realm,
        accept: &gate.accept,
        is_browser: gate::is_from_browser(request.fields, false),
        is_grpc: false,
    };
    let rendered = reply::render(refusal, &audience);
    let fields = rendered.lines.iter().filter_map(|(name, value)| {
        Some((http::HeaderName::from_bytes(name).ok()?, String::from_utf8(value.to_vec()).ok()?))
    });
    let fields = fields.filter(|(name, _)| name != "x-request-id").collect();
    let body = if *request.method == Method::HEAD { Vec::new() } else { rendered.body };
    ApiAnswer { status: rendered.status, fields, body }
}
