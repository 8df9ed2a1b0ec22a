//! The management API behind a route: a request is read whole and handed to the control side, which answers it.
//!
//! These are the only requests that wait for control; no other notices. Must not know what is asked, nor who answers.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use tokio::sync::{mpsc, oneshot};

use super::asked::Asked;
use super::body::{BodyError, Upload, UploadProgress};
use super::engine::{Context, Routed};
use super::headers::TrailerRule;
use super::observe::Exchange;
use super::outgoing::push_path;
use crate::domain::OwnedFields;
use crate::gate::Rules;
use crate::reply::Failure;
use crate::route::RouteIx;

/// Where workers hand inquiries in.
pub(crate) type Inquiries = mpsc::Sender<Inquiry>;

/// Largest body, in bytes.
const MAX_BODY: u64 = 1 << 20;
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
}

impl Question {
    /// Takes a request over.
    pub(super) fn prepare(
        cx: &Context,
        asked: Asked<'_>,
        client: Option<IpAddr>,
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
                cx.current.plan.stall_timeout,
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
        }
    }

    /// Reads the body, hands the request in, and waits for the answer.
    ///
    /// # Errors
    /// When the body does not come whole, or nobody answers in time.
    pub(super) async fn put(self, cx: &Context) -> Result<Response<Bytes>, Failure> {
        let Self { rules, route, method, host, path, query, fields, client, mut upload } = self;
        let mut body = Vec::new();
        if let Some(upload) = &mut upload {
            loop {
                match poll_fn(|task| upload.poll_data(task)).await {
                    Ok(Some(_)) => upload.take(|data, taken| {
                        body.extend_from_slice(data);
                        *taken = data.len();
                    }),
                    Ok(None) => break,
                    Err(BodyError::Client(failure)) => return Err(failure),
                    // Nobody is there to be answered.
                    Err(_) => return Err(Failure::RequestTimeout),
                }
            }
        }
        let (answer, answered) = oneshot::channel();
        let request_id = cx.request_id.as_str().to_owned();
        let inquiry = Inquiry { rules, route, method, host, path, query, fields, body, client, request_id, answer };
        cx.engine.inquiries.try_send(inquiry).map_err(|_| Failure::UpstreamBusy)?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Failure::Internal),
            Err(_) => Err(Failure::UpstreamTimeout),
        }
    }
}
