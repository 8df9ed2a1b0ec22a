//! What must hold for every answer, whatever was asked. Every client checks it; a test opts out of single facts only.

use http::Version;
use serde_json::Value;

use crate::response::Response;
use crate::vault::Vault;

/// The shape of error bodies the gateway is configured for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ErrorBodies {
    Problem,
    Success,
}

/// Which facts are checked; all of them unless a test says otherwise.
#[derive(Clone, Debug)]
pub struct Facts {
    checked: bool,
    errors: ErrorBodies,
}

impl Default for Facts {
    fn default() -> Self {
        Self { checked: true, errors: ErrorBodies::Problem }
    }
}

impl Facts {
    /// Nothing is checked: for tunnels, and for servers that are not the gateway.
    pub fn none() -> Self {
        Self { checked: false, ..Self::default() }
    }

    /// Error bodies have the shape of `errors.profile: success`.
    pub fn success_profile() -> Self {
        Self { errors: ErrorBodies::Success, ..Self::default() }
    }

    /// Checks an answer to a request with this method.
    ///
    /// # Panics
    /// When a fact does not hold.
    #[track_caller]
    pub fn check(&self, response: &Response, method: &str, vault: Option<&Vault>) {
        if !self.checked || (100..200).contains(&response.status) {
            return;
        }
        if let Err(complaint) = self.complain(response, method, vault) {
            panic!("{complaint}\nanswer to {method}: {response:?}");
        }
    }

    fn complain(&self, response: &Response, method: &str, vault: Option<&Vault>) -> Result<(), String> {
        request_id(response)?;
        no_hop_by_hop(response)?;
        if let Some(vault) = vault {
            no_secret(response, vault)?;
        }
        if response.status >= 400 && !response.is_from_origin() {
            refusal_fields(response)?;
            if method != "HEAD" {
                match self.errors {
                    ErrorBodies::Problem => problem_body(response)?,
                    ErrorBodies::Success => success_body(response)?,
                }
            }
        }
        Ok(())
    }
}

fn request_id(response: &Response) -> Result<(), String> {
    match response.header_all("x-request-id").as_slice() {
        [id] if !id.is_empty() => Ok(()),
        ids => Err(format!("exactly one X-Request-Id was expected, there are {ids:?}")),
    }
}

fn no_hop_by_hop(response: &Response) -> Result<(), String> {
    let mut forbidden = vec!["keep-alive", "proxy-connection", "proxy-authenticate", "te"];
    if response.status != 426 {
        forbidden.push("upgrade");
    }
    if response.version == Version::HTTP_2 {
        forbidden.extend(["connection", "transfer-encoding"]);
    }
    for name in forbidden {
        if response.headers.contains_key(name) {
            return Err(format!("a hop-by-hop field came through: {name}"));
        }
    }
    for value in response.header_all("connection") {
        if !["close", "keep-alive"].contains(&value.to_ascii_lowercase().as_str()) {
            return Err(format!("Connection: {value}"));
        }
    }
    for value in response.header_all("transfer-encoding") {
        if !value.eq_ignore_ascii_case("chunked") {
            return Err(format!("Transfer-Encoding: {value}"));
        }
    }
    Ok(())
}

fn no_secret(response: &Response, vault: &Vault) -> Result<(), String> {
    let fields = response.headers.iter().chain(&response.trailers).map(|(_, value)| value.as_bytes());
    for bytes in fields.chain([&response.body[..]]) {
        if let Some(secret) = vault.find_in(bytes) {
            return Err(format!("the answer repeats the credential {secret}"));
        }
    }
    Ok(())
}

fn refusal_fields(response: &Response) -> Result<(), String> {
    let needs = |field: &str| {
        response.header(field).is_some().then_some(()).ok_or(format!("{} without {field}", response.status))
    };
    match response.status {
        401 => needs("www-authenticate")?,
        405 => needs("allow")?,
        429 => needs("retry-after")?,
        _ => {}
    }
    if matches!(response.status, 401 | 403) {
        let value = response.header("cache-control").unwrap_or_default();
        if !value.contains("no-store") {
            return Err(format!("{} with Cache-Control: {value:?}", response.status));
        }
    }
    Ok(())
}

fn problem_body(response: &Response) -> Result<(), String> {
    let kind = response.header("content-type").unwrap_or_default();
    if kind != "application/problem+json" {
        return Err(format!("an error of ours has Content-Type {kind:?}"));
    }
    let body = parsed(response)?;
    if body["status"] != response.status {
        return Err(format!("the body says status {}", body["status"]));
    }
    if body["request_id"].as_str() != response.header("x-request-id") {
        return Err(format!("the body says request_id {}", body["request_id"]));
    }
    for member in ["type", "title", "detail", "code"] {
        if body[member].as_str().is_none_or(str::is_empty) {
            return Err(format!("the problem has no {member}"));
        }
    }
    if body["code"] == "insufficient_scope"
        && !(body["required_scopes"].is_array() && body["missing_scopes"].is_array())
    {
        return Err("insufficient_scope does not name required_scopes and missing_scopes".to_owned());
    }
    Ok(())
}

fn success_body(response: &Response) -> Result<(), String> {
    let body = parsed(response)?;
    let told = body["error"]["code"].is_string() && body["error"]["message"].is_string();
    if body["success"] != false || !told {
        return Err("the body is not {success: false, error: {code, message}}".to_owned());
    }
    Ok(())
}

fn parsed(response: &Response) -> Result<Value, String> {
    serde_json::from_slice(&response.body).map_err(|error| format!("the error body is no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderMap;

    fn answer(status: u16, fields: &[(&'static str, &'static str)], body: &'static str) -> Response {
        let mut headers = HeaderMap::new();
        for &(name, value) in fields {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        Response {
            status,
            version: Version::HTTP_11,
            headers,
            body: Bytes::from_static(body.as_bytes()),
            trailers: HeaderMap::new(),
        }
    }

    const PROBLEM: &str = r#"{"type":"t","title":"t","status":401,"detail":"d","code":"c","request_id":"r"}"#;
    const FIELDS: [(&str, &str); 4] = [
        ("x-request-id", "r"),
        ("content-type", "application/problem+json"),
        ("www-authenticate", "Bearer"),
        ("cache-control", "no-store"),
    ];

    fn complaint(response: &Response) -> String {
        Facts::default().complain(response, "GET", None).err().unwrap_or_default()
    }

    #[test]
    fn a_proper_refusal_raises_no_complaint() {
        assert_eq!(complaint(&answer(401, &FIELDS, PROBLEM)), "");
    }

    #[test]
    fn each_missing_fact_is_noticed() {
        for (left_out, expected) in
            [(0, "X-Request-Id"), (1, "Content-Type"), (2, "www-authenticate"), (3, "Cache-Control")]
        {
            let fields: Vec<_> = FIELDS.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, f)| *f).collect();
            let said = complaint(&answer(401, &fields, PROBLEM));
            assert!(said.contains(expected), "{said}");
        }
        assert!(complaint(&answer(401, &FIELDS, r#"{"status":401}"#)).contains("request_id"));
        assert!(complaint(&answer(200, &[("x-request-id", "r"), ("keep-alive", "5")], "")).contains("keep-alive"));
        assert!(complaint(&answer(200, &[("x-request-id", "r"), ("connection", "x-a")], "")).contains("x-a"));
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_noticed() {
        let vault = Vault::default();
        vault.keep("pc_live_sk_secret");
        let response = answer(200, &[("x-request-id", "r")], "you sent pc_live_sk_secret");
        assert!(Facts::default().complain(&response, "GET", Some(&vault)).is_err());
    }
}
