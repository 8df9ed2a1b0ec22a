//! The built-in upstream of `dev`: answers with what an upstream would have been sent.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body_util::BodyExt;

use super::outgoing::Outgoing;

/// Most body bytes read before the answer; the rest is discarded by closing.
const MAX_BODY: u64 = 1024 * 1024;

/// A JSON document of method, path, fields and body length.
pub(super) async fn answer(outgoing: Outgoing) -> Response<Bytes> {
    let Outgoing { method, uri, headers, mut body, .. } = outgoing;
    let mut body_bytes = 0u64;
    while let Some(Ok(frame)) = body.frame().await {
        body_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if body_bytes > MAX_BODY {
            break;
        }
    }
    let fields: serde_json::Map<String, serde_json::Value> = headers
        .keys()
        .map(|name| {
            let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
            (name.to_string(), values.join(", ").into())
        })
        .collect();
    let document = serde_json::json!({
        "method": method.as_str(),
        "path": uri.as_str(),
        "headers": fields,
        "body_bytes": body_bytes,
    });
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    let mut answer = Response::new(Bytes::from(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
