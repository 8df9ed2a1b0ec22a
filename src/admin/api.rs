//! The management API: from a request that has arrived whole to its answer.
//!
//! Owns the way to an endpoint; `endpoints` says what each does. Decides nothing itself about who may call (`door`) nor
//! about who may do what to which key ([`crate::manage`]). Runs on the control runtime.

use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;

use super::call::{Call, variable};
use super::door::{Door, Doors, Entrance};
use super::exchange::{ApiAnswer, ApiError, ApiRequest};
use super::fleet::Waiting;
use super::operations::Operations;
use super::profile::ApiProfile;
use super::table::{Effect, Name, Needs};
use super::turns::Turns;
use crate::authn::{Authenticated, Rejection};
use crate::cache::{KeySet, SyncHandle};
use crate::domain::clock::deciding_now;
use crate::domain::time::monotonic_now;
use crate::domain::{KeyState, Timestamp};
use crate::gate::{
    self, Admission, Denial, Freshness, Identity, Keys, Outcome, RequestHead, Rules, Snapshot, SnapshotOutdated, admit,
    judge,
};
use crate::limit::{Meters, Moment};
use crate::manage::{Authority, Caller};
use crate::reply::{self, Audience, ErrorProfile, Refusal};
use crate::store::{Actor, Store};
use crate::usage::Tally;

/// What the API is configured with at this moment.
#[derive(Clone)]
pub struct ApiSettings {
    /// The rules in force.
    pub rules: Arc<Rules>,
    /// Shape of bodies.
    pub profile: ApiProfile,
    /// Whether clients' addresses are shown without the part that tells people apart.
    pub mask_addresses: bool,
}

/// What a request will come to, as far as its head tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreseen {
    /// The same, whatever its body says: it is refused, or asks for a page.
    NoBody,
    /// Its body has to be read, for somebody of this sort.
    Work(Sort),
    /// The same, and it may be large.
    Import(Sort),
}

/// What sort of caller somebody is. Neither takes the place of the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sort {
    /// A key without an owner.
    Operator,
    /// A key with one.
    Owner,
}

/// See the module.
pub struct Api {
    pub(super) store: Arc<Store>,
    pub(super) keys: Arc<KeySet>,
    pub(super) sync: SyncHandle,
    pub(super) gateway: Arc<dyn Operations>,
    pub(super) imports: Turns,
    pub(super) waiting: Waiting,
    meters: Arc<Meters>,
    settings: Box<dyn Fn() -> ApiSettings + Send + Sync>,
    tally: Arc<Tally>,
    doors: Mutex<Option<Doors>>,
}

impl Api {
    /// The API over a store and the key set that follows it. `settings` is asked at every request.
    pub fn new(
        store: Arc<Store>,
        keys: Arc<KeySet>,
        sync: SyncHandle,
        meters: Arc<Meters>,
        tally: Arc<Tally>,
        gateway: Arc<dyn Operations>,
        settings: impl Fn() -> ApiSettings + Send + Sync + 'static,
    ) -> Self {
        let (imports, waiting) = (Turns::default(), Waiting::default());
        let (settings, doors) = (Box::new(settings), Mutex::new(None));
        Self { store, keys, sync, gateway, imports, waiting, meters, settings, tally, doors }
    }

    /// Answers a request.
    pub async fn answer(&self, request: ApiRequest<'_>) -> ApiAnswer {
        let mut settings = (self.settings)();
        if let Entrance::Route { rules, .. } = request.entrance {
            settings.rules = Arc::clone(rules);
        }
        let answered = self.decide(request, &settings).await;
        let answer = answered.unwrap_or_else(|error| error.answer(request.request_id, settings.profile));
        // What comes through a route has its access line there.
        if let (Some(code), Entrance::Management) = (answer.code, request.entrance) {
            tracing::info!(
                request_id = request.request_id,
                status = answer.status.as_u16(),
                code,
                "a management request was refused"
            );
        }
        answer
    }

    /// What is to be expected of a request of which only the head has come.
    pub fn foresee(&self, head: ApiRequest<'_>) -> Foreseen {
        let settings = (self.settings)();
        let Ok(door) = self.door(&head, &settings.rules) else { return Foreseen::NoBody };
        let snapshot = door.snapshot(&self.keys);
        let age = self.keys.age(monotonic_now());
        let keys = Keys { set: &self.keys, freshness: age.map_or(Freshness::Unloaded, Freshness::Confirmed) };
        // A key that is too new for the snapshot is one all the same.
        let Ok(verdict) = judge(&head_of(head), &snapshot, keys, deciding_now()) else {
            return Foreseen::Work(Sort::Owner);
        };
        let sort = match verdict.caller.slot() {
            Some(slot) if slot.owner.is_none() => Sort::Operator,
            Some(_) | None => Sort::Owner,
        };
        match verdict.outcome {
            Outcome::Pass(_) => match verdict.rule.and_then(|rule| door.row(rule)) {
                Some(row) if row.name == Name::ImportKeys => Foreseen::Import(sort),
                Some(row) if row.needs == Needs::Nothing => Foreseen::NoBody,
                Some(_) | None => Foreseen::Work(sort),
            },
            Outcome::Deny(_) | Outcome::Report(_) | Outcome::Preflight => Foreseen::NoBody,
        }
    }

    async fn decide(&self, request: ApiRequest<'_>, settings: &ApiSettings) -> Result<ApiAnswer, ApiError> {
        let now = deciding_now();
        let door = self.door(&request, &settings.rules)?;
        let mut snapshot = door.snapshot(&self.keys);
        let age = self.keys.age(monotonic_now());
        let keys = Keys { set: &self.keys, freshness: age.map_or(Freshness::Unloaded, Freshness::Confirmed) };
        let head = head_of(request);
        let mut verdict = match judge(&head, &snapshot, keys, now) {
            Ok(verdict) => verdict,
            Err(SnapshotOutdated) => {
                snapshot = door.snapshot(&self.keys);
                let internal = |_| ApiError::Internal { reason: "a key without a profile".to_owned() };
                judge(&head, &snapshot, keys, now).map_err(internal)?
            }
        };
        let refuse = |denial: &Denial| Ok(refusal(Refusal::Denied(denial), &request, settings, &door));
        let nothing_shared = || ApiError::NotFound { detail: "nothing is shared with pages".to_owned() };
        let (rule, path) = (verdict.rule, verdict.path.clone().into_owned());
        let authenticated = match request.entrance {
            Entrance::Management => {
                let moment = Moment { monotonic: monotonic_now(), wall: now };
                let decided = admit(&mut verdict, &snapshot, &self.keys, request.client, &self.meters, moment);
                let admitted = match decided.admission {
                    Admission::Forward(admitted) => admitted,
                    Admission::Refuse(denial) => return refuse(&denial),
                    Admission::Preflight => return Err(nothing_shared()),
                };
                match admitted.identity() {
                    Identity::Key(authenticated) => {
                        self.tally.mark(0, authenticated.slot().id, now);
                        Some(*authenticated)
                    }
                    Identity::Anonymous | Identity::Reported { .. } => None,
                }
            }
            // It was admitted by the route: what it takes from meters it has taken, and its key's use is noted.
            Entrance::Route { .. } => match (verdict.outcome, verdict.caller) {
                (Outcome::Pass(_), gate::Caller::Key(authenticated)) => Some(authenticated),
                (Outcome::Pass(_), gate::Caller::Anonymous | gate::Caller::Refused(_)) => None,
                (Outcome::Deny(denial), _) => return refuse(&denial),
                (Outcome::Report(_) | Outcome::Preflight, _) => return Err(nothing_shared()),
            },
        };
        let row = rule.and_then(|rule| door.row(rule));
        let row = row.ok_or_else(|| ApiError::Internal { reason: "a rule without an endpoint".to_owned() })?;
        let authority = match authenticated {
            Some(authenticated) => match self.caller(&authenticated, &snapshot, request, now).await? {
                Some(caller) => Authority::Caller(Box::new(caller)),
                None => return refuse(&Denial::InvalidKey(Rejection::Revoked)),
            },
            None => Authority::Nobody,
        };
        let id = variable(row.path, &path).unwrap_or_default();
        let call = Call { request, row, id, settings, door: &door, snapshot: &snapshot, authority, now };
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

    fn door(&self, request: &ApiRequest<'_>, rules: &Arc<Rules>) -> Result<Arc<Door>, ApiError> {
        let route = match request.entrance {
            Entrance::Management => None,
            Entrance::Route { route, .. } => Some(route),
        };
        let mut doors = self.doors.lock();
        let door = doors.get_or_insert_with(|| Doors::new(rules)).of(rules, route);
        door.map_err(|error| ApiError::Internal { reason: error.to_string() })
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
}

/// What of a request is judged.
fn head_of(request: ApiRequest<'_>) -> RequestHead<'_> {
    RequestHead {
        method: request.method,
        host: request.host,
        path: request.path,
        query: None,
        fields: request.fields,
        client: request.client,
        is_upgrade: false,
    }
}

/// A refusal of the gate, as every door says it.
fn refusal(refusal: Refusal<'_>, request: &ApiRequest<'_>, settings: &ApiSettings, door: &Door) -> ApiAnswer {
    let audience = Audience {
        request_id: request.request_id,
        profile: match settings.profile {
            ApiProfile::Standard => ErrorProfile::Standard,
            ApiProfile::Success => ErrorProfile::Success,
        },
        type_base: "urn:portcullis:error:",
        realm: &settings.rules.settings.realm,
        accept: &door.accept,
        is_browser: gate::is_from_browser(request.fields, false),
        is_grpc: false,
    };
    let code = refusal.facts().code;
    let missing_scopes = match refusal {
        Refusal::Denied(Denial::InsufficientScope { missing, .. }) => missing.clone(),
        Refusal::Denied(_) | Refusal::Failed(_) => Vec::new(),
    };
    let rendered = reply::render(refusal, &audience);
    let fields = rendered.lines.iter().filter_map(|(name, value)| {
        Some((http::HeaderName::from_bytes(name).ok()?, String::from_utf8(value.to_vec()).ok()?))
    });
    let fields = fields.filter(|(name, _)| name != "x-request-id").collect();
    let body = if *request.method == Method::HEAD { Vec::new() } else { rendered.body };
    ApiAnswer { status: rendered.status, fields, body, code: Some(code), missing_scopes }
}
