//! The management API behind a route: a request is read whole and handed to the control side, which answers it.
//!
//! These are the only requests that wait for control; no other notices. Must not know what is asked, nor who answers.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::asked::Asked;
use super::body::{BodyError, Upload, UploadProgress};
use super::engine::{Context, Routed};
use super::headers::TrailerRule;
use super::observed::Exchange;
use super::outgoing::push_path;
use crate::cache::OwnerIx;
use crate::domain::{KeyId, OwnedFields, Scope};
use crate::gate::{Admitted, Identity, Rules};
use crate::reply::Failure;
use crate::route::RouteIx;
use crate::wire::{Held, MemorySum};

/// Where workers hand inquiries in. All of them share it.
#[derive(Clone)]
pub(crate) struct Inquiries {
    queue: mpsc::Sender<Inquiry>,
    places: Arc<Places>,
}

impl Inquiries {
    /// And where they come out.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Inquiry>) {
        let (queue, asked) = mpsc::channel(PLACES);
        (Self { queue, places: Arc::default() }, asked)
    }
}

/// How many inquiries there are at one time, their bodies under way included.
#[derive(Default)]
struct Places {
    taken: Mutex<HashMap<Holder, usize>>,
}

/// Who holds a place: an owner with all its keys, or a key without one.
type Holder = Option<(Option<OwnerIx>, KeyId)>;

/// A place, until it is dropped.
struct Place {
    places: Arc<Places>,
    holder: Holder,
}

impl Places {
    /// A place for one more; none when there is no room, or the holder has its share already.
    fn take(self: &Arc<Self>, holder: Holder) -> Option<Place> {
        let mut taken = self.taken.lock();
        let all: usize = taken.values().sum();
        let own = taken.entry(holder).or_default();
        if all >= PLACES || *own >= PLACES_OF_ONE {
            if *own == 0 {
                taken.remove(&holder);
            }
            return None;
        }
        *own += 1;
        Some(Place { places: Arc::clone(self), holder })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        if let Some(own) = taken.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

/// Most inquiries at one time: with their bodies they hold at most as many MiB.
const PLACES: usize = 64;
/// Most of them by one owner, or by one key without an owner: nobody keeps the others out.
const PLACES_OF_ONE: usize = 8;

/// Largest body, in bytes.
const MAX_BODY: u64 = 1 << 20;
/// How long a body may take, however small its pauses.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request to the management API that a route has let in.
pub(crate) struct Inquiry {
    /// The rules that let it in.
    pub(crate) rules: Arc<Rules>,
    /// By which route.
    pub(crate) route: RouteIx,
    /// The method.
    pub(crate) method: Method,
    /// Host and port as the client said.
    pub(crate) host: String,
    /// The path as the management API has it: what the route leaves of the one that was matched.
    pub(crate) path: String,
    /// The query as it came.
    pub(crate) query: Option<String>,
    /// All fields as they came, the credential among them: the API asks for itself who calls.
    pub(crate) fields: OwnedFields,
    /// The whole body.
    pub(crate) body: Vec<u8>,
    /// The client, after trusted proxies.
    pub(crate) client: Option<IpAddr>,
    /// The request's id.
    pub(crate) request_id: String,
    /// Takes the answer. Whoever asked may be gone.
    pub(crate) answer: oneshot::Sender<Response<Bytes>>,
    /// Held until it is answered, also for somebody who has left.
    _place: Place,
}

/// Beside an answer: why it is a refusal, for the access line and for whoever asks later.
#[derive(Clone)]
pub(crate) struct ApiRefusal {
    /// The code in the body.
    pub(crate) code: &'static str,
    /// Scopes that the caller lacks, as it knows them.
    pub(crate) missing_scopes: Vec<Scope>,
}

/// An inquiry whose body has not been read yet.
pub(super) struct Question {
    rules: Arc<Rules>,
    route: RouteIx,
    method: Method,
    host: String,
    path: String,
    query: Option<String>,
    fields: OwnedFields,
    client: Option<IpAddr>,
    upload: Option<Upload>,
    holder: Holder,
}

impl Question {
    /// Takes a request over.
    pub(super) fn prepare(
        cx: &Context,
        asked: Asked<'_>,
        client: Option<IpAddr>,
        admitted: &Admitted,
        routed: &Routed<'_>,
        exchange: &Exchange,
    ) -> Self {
        let rules = &cx.current.gate.rules;
        let forward = &rules.route(routed.route).settings.forward;
        let mut path = Vec::new();
        push_path(&mut path, forward, routed.path);
        let mut fields = OwnedFields::default();
        asked.fields.iter().for_each(|field| fields.push(field.name, field.value));
        let progress = asked.body.is_some().then(std::rc::Rc::<UploadProgress>::default);
        let upload = progress.and_then(|progress| {
            exchange.watch_upload(&progress);
            Upload::new(
                asked.body,
                Some(forward.max_body.map_or(MAX_BODY, |max| max.min(MAX_BODY))),
                &cx.engine.timers,
                cx.current.plan.patience,
                TrailerRule::Drop,
                progress,
                None,
            )
        });
        Self {
            rules: Arc::clone(rules),
            route: routed.route,
            method: asked.method,
            host: routed.authority.to_owned(),
            path: String::from_utf8_lossy(&path).into_owned(),
            query: asked.query.map(str::to_owned),
            fields,
            client,
            upload,
            holder: match admitted.identity() {
                Identity::Key(authenticated) => {
                    let slot = authenticated.slot();
                    // All keys of an owner are one holder.
                    let key = if slot.owner.is_some() { KeyId::from_bytes([0; 16]) } else { slot.id };
                    Some((slot.owner, key))
                }
                Identity::Anonymous | Identity::Reported { .. } => None,
            },
        }
    }

    /// Reads the body, hands the request in, and waits for the answer.
    ///
    /// # Errors
    /// When there is no room, the body does not come whole, or nobody answers in time.
    pub(super) async fn put(self, cx: &Context) -> Result<Response<Bytes>, Failure> {
        let Self { rules, route, method, host, path, query, fields, client, mut upload, holder } = self;
        let inquiries = &cx.engine.inquiries;
        // Before the first byte of a body: what is held is bounded by places.
        let place = inquiries.places.take(holder).ok_or(Failure::UpstreamBusy)?;
        let memory = cx.engine.buffers.memory();
        let (body, _held) = match &mut upload {
            None => (Vec::new(), memory.hold(0)),
            Some(upload) => {
                let whole = tokio::time::timeout(BODY_PATIENCE, whole(upload, memory)).await;
                whole.map_err(|_| Failure::RequestTimeout)??
            }
        };
        let (answer, answered) = oneshot::channel();
        let request_id = cx.request_id.as_str().to_owned();
        let inquiry = Inquiry {
            rules,
            route,
            method,
            host,
            path,
            query,
            fields,
            body,
            client,
            request_id,
            answer,
            _place: place,
        };
        inquiries.queue.try_send(inquiry).map_err(|_| Failure::UpstreamBusy)?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Failure::Internal),
            Err(_) => Err(Failure::UpstreamTimeout),
        }
    }
}

/// The body, and what counts it among the memory that is held.
async fn whole(upload: &mut Upload, memory: &MemorySum) -> Result<(Vec<u8>, Held), Failure> {
    let mut body = Vec::new();
    let mut held = memory.hold(0);
    loop {
        match poll_fn(|task| upload.poll_data(task)).await {
            Ok(Some(_)) => {
                upload.take(|data, taken| {
                    body.extend_from_slice(data);
                    *taken = data.len();
                });
                held = memory.hold(body.capacity());
            }
            Ok(None) => return Ok((body, held)),
            Err(BodyError::Client(failure)) => return Err(failure),
            // Nobody is there to be answered.
            Err(_) => return Err(Failure::RequestTimeout),
        }
    }
}
