//! The management API's answers to what customers ask it through routes of the API behind the gateway.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderName, LOCATION};
use http::{HeaderValue, Response};
use tokio::sync::{Semaphore, mpsc};

use crate::admin::{Api, ApiAnswer, ApiRequest, Entrance};
use crate::gate::ForwardSettings;
use crate::proxy::Inquiry;

/// How many may wait for their turn; more are answered 503 at once.
pub(super) const QUEUE: usize = 256;
/// How many are answered at one time.
const AT_ONCE: usize = 64;

/// Answers until nobody asks any more.
pub(super) async fn serve(mut inquiries: mpsc::Receiver<Inquiry>, api: Arc<Api>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(inquiry) = inquiries.recv().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let api = Arc::clone(&api);
        drop(tokio::spawn(async move {
            answer(&api, inquiry).await;
            drop(permit);
        }));
    }
}

async fn answer(api: &Api, inquiry: Inquiry) {
    let request = ApiRequest {
        entrance: Entrance::Route { rules: &inquiry.rules, route: inquiry.route },
        method: &inquiry.method,
        host: &inquiry.host,
        path: &inquiry.path,
        query: inquiry.query.as_deref(),
        fields: inquiry.fields.view(),
        body: &inquiry.body,
        client: inquiry.client,
        request_id: &inquiry.request_id,
    };
    let ApiAnswer { status, fields, body } = api.answer(request).await;
    let forward = &inquiry.rules.route(inquiry.route).settings.forward;
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    for (name, value) in fields {
        let value = if name == LOCATION { outside(forward, &value) } else { value };
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().append(name, value);
        }
    }
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert(HeaderName::from_static("x-content-type-options"), nosniff);
    // Whoever asked may be gone.
    let _taken = inquiry.answer.send(answer);
}

/// A path of the management API as the clients of a route have it.
fn outside(forward: &ForwardSettings, path: &str) -> String {
    let added = forward.add_prefix.as_deref().unwrap_or_default();
    let stripped = forward.strip_prefix.as_deref().unwrap_or_default();
    format!("{stripped}{}", path.strip_prefix(added).unwrap_or(path))
}
