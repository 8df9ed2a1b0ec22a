//! The built-in upstream of `dev`: answers with what an upstream would have been sent.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};

use super::outgoing::Outgoing;

/// Most body bytes read before the answer; the rest is discarded by closing.
const MAX_BODY: u64 = 1024 * 1024;

/// A JSON document of method, path, fields and body length.
pub(super) async fn answer(outgoing: &mut Outgoing) -> Response<Bytes> {
    let mut body_bytes = 0u64;
    if let Some(upload) = &mut outgoing.upload {
        while let Ok(Some(len)) = std::future::poll_fn(|cx| upload.poll_data(cx)).await {
            upload.consume(len);
            body_bytes += len as u64;
            if body_bytes > MAX_BODY {
                break;
            }
        }
    }
    let headers = HeaderMap::from(&outgoing.lines());
    let fields: serde_json::Map<String, serde_json::Value> = headers
        .keys()
        .map(|name| {
            let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
            (name.to_string(), values.join(", ").into())
        })
        .collect();
    let document = serde_json::json!({
        "method": outgoing.method.as_str(),
        "path": outgoing.target(),
        "headers": fields,
        "body_bytes": body_bytes,
    });
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    let mut answer = Response::new(Bytes::from(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
