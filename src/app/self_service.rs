//! The management API's answers to what customers ask it through routes of the API behind the gateway.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderName, LOCATION};
use http::{HeaderValue, Response};
use tokio::sync::mpsc;

use crate::admin::{Api, ApiAnswer, ApiRequest, Entrance};
use crate::gate::ForwardSettings;
use crate::proxy::{ApiRefusal, Inquiry};

/// Answers until nobody asks any more. How many at one time is bounded where they are handed in.
pub(super) async fn serve(mut inquiries: mpsc::Receiver<Inquiry>, api: Arc<Api>) {
    while let Some(inquiry) = inquiries.recv().await {
        // Whoever asked may have left while it waited.
        if !inquiry.answer.is_closed() {
            let api = Arc::clone(&api);
            drop(tokio::spawn(async move { answer(&api, inquiry).await }));
        }
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
    let ApiAnswer { status, fields, body, code, missing_scopes } = api.answer(request).await;
    let forward = &inquiry.rules.route(inquiry.route).settings.forward;
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    if let Some(code) = code {
        answer.extensions_mut().insert(ApiRefusal { code, missing_scopes });
    }
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
