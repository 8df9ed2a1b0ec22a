use http::{HeaderName, Method};

use super::{Audience, ErrorProfile, Failure, Refusal, Rendered, every_refusal, render, render_h1};
use crate::authn::Rejection;
use crate::credential::{Malformed, Place, Scheme};
use crate::gate::Denial;

fn basic() -> Place {
    Place::Header { name: http::header::AUTHORIZATION, scheme: Some(Scheme::Basic) }
}

fn audience(accept: &[Place]) -> Audience<'_> {
    Audience {
        request_id: "0123456789abcdef",
        profile: ErrorProfile::Standard,
        type_base: "urn:portcullis:error:",
        realm: "shop \"one\"",
        accept,
        is_browser: false,
        is_grpc: false,
    }
}

fn all(answer: &Rendered, name: &str) -> Vec<String> {
    answer.lines.all(name).map(|value| String::from_utf8(value.to_vec()).unwrap()).collect()
}

fn challenges(denial: &Denial, audience: &Audience<'_>) -> Vec<String> {
    let answer = render(Refusal::Denied(denial), audience);
    all(&answer, "www-authenticate")
}

#[test]
fn a_missing_credential_is_challenged_without_error_rfc6750_s3_1() {
    let accept = [Place::defaults(), vec![basic()]].concat();
    let realm = "realm=\"shop \\\"one\\\"\"";
    assert_eq!(
        challenges(&Denial::MissingCredential, &audience(&accept)),
        [format!("Bearer {realm}"), format!("Basic {realm}, charset=\"UTF-8\"")]
    );
    let browser = Audience { is_browser: true, ..audience(&accept) };
    assert_eq!(challenges(&Denial::MissingCredential, &browser), [format!("Bearer {realm}")]);
    let plain = [Place::Header { name: HeaderName::from_static("x-api-key"), scheme: None }];
    assert_eq!(challenges(&Denial::MissingCredential, &audience(&plain)), [format!("ApiKey {realm}")]);
}

#[test]
fn errors_stand_in_the_bearer_challenge() {
    let accept = Place::defaults();
    let scopes: Vec<_> = ["a:b", "c"].iter().map(|s| s.parse().unwrap()).collect();
    let denied = Denial::InsufficientScope { required: scopes.clone(), missing: scopes[1..].to_vec() };
    let cases = [
        (Denial::InvalidKey(Rejection::Unknown), "error=\"invalid_token\""),
        (Denial::InvalidRequest(Malformed::Several), "error=\"invalid_request\""),
        (denied, "error=\"insufficient_scope\", scope=\"a:b c\""),
    ];
    for (denial, expected) in cases {
        let said = challenges(&denial, &audience(&accept));
        assert!(said.len() == 1 && said[0].ends_with(expected), "{said:?}");
    }
}

#[test]
fn every_rejected_key_gets_the_same_bytes() {
    let accept = Place::defaults();
    let answers: Vec<_> = Rejection::ALL
        .iter()
        .map(|rejection| render_h1(Refusal::Denied(&Denial::InvalidKey(*rejection)), &audience(&accept)))
        .collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn problems_are_rfc9457_and_name_the_scopes() {
    let accept = Place::defaults();
    let required: Vec<_> = vec!["read:orders".parse().unwrap()];
    let denied = Denial::InsufficientScope { missing: required.clone(), required };
    let answer = render(Refusal::Denied(&denied), &audience(&accept));
    assert_eq!(all(&answer, "cache-control"), ["no-store"]);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["status"], 403);
    assert_eq!(body["code"], "insufficient_scope");
    assert_eq!(body["type"], "urn:portcullis:error:insufficient_scope");
    assert_eq!(body["request_id"], "0123456789abcdef");
    assert_eq!(body["missing_scopes"], serde_json::json!(["read:orders"]));
    assert_eq!(body["required_scopes"], serde_json::json!(["read:orders"]));
    assert!(body["detail"].is_string() && body["title"].is_string());
}

#[test]
fn the_success_profile_has_its_own_shape() {
    let accept = Place::defaults();
    let audience = Audience { profile: ErrorProfile::Success, ..audience(&accept) };
    let answer = render(Refusal::Denied(&Denial::MissingCredential), &audience);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["success"], false);
    assert_eq!(body["error"]["code"], "missing_credential");
}

/// RFC 3986 §2.1.
fn percent_encoding_undone(text: &str) -> Vec<u8> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    bytes
}

#[test]
fn every_refusal_is_json_that_says_what_it_has_to_say() {
    let accept = [Place::defaults(), vec![basic()]].concat();
    every_refusal(|refusal| {
        let facts = refusal.facts();
        let body = |profile| -> serde_json::Value {
            let answer = render(refusal, &Audience { profile, ..audience(&accept) });
            serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{facts:?}: {error}"))
        };
        let problem = body(ErrorProfile::Standard);
        assert_eq!((&problem["title"], &problem["detail"]), (&facts.title.into(), &facts.detail.into()));
        assert_eq!((&problem["code"], &problem["status"]), (&facts.code.into(), &facts.status.as_u16().into()));
        let error = &body(ErrorProfile::Success)["error"];
        let scopes_are_told = error["message"].as_str().is_some_and(|said| said.ends_with(" x."));
        assert!(error["message"] == facts.detail || scopes_are_told && !facts.missing.is_empty(), "{facts:?}: {error}");
        assert_eq!(error["code"], facts.code);
        let answer = render(refusal, &Audience { is_grpc: true, ..audience(&accept) });
        let said = all(&answer, "grpc-message").concat();
        let bytes = percent_encoding_undone(&said);
        assert!(said.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{said}");
        assert_eq!(bytes, format!("{}: {}", facts.code, facts.detail).as_bytes());
    });
}

#[test]
fn grpc_requests_get_grpc_statuses() {
    let accept = Place::defaults();
    let audience = Audience { is_grpc: true, ..audience(&accept) };
    let cases = [
        (Refusal::Denied(&Denial::MissingCredential), "16"),
        (Refusal::Denied(&Denial::KindNotAllowed), "7"),
        (Refusal::Denied(&Denial::AuthUnavailable), "14"),
        (Refusal::Failed(Failure::UpstreamTimeout), "14"),
    ];
    for (refusal, status) in cases {
        let answer = render(refusal, &audience);
        assert_eq!(answer.status, 200);
        assert_eq!(all(&answer, "grpc-status"), [status]);
        assert!(answer.body.is_empty());
    }
}

#[test]
fn allow_lists_what_the_route_answers() {
    let accept = Place::defaults();
    let denial = Denial::MethodNotAllowed { allow: vec![Method::GET, Method::HEAD] };
    let answer = render(Refusal::Denied(&denial), &audience(&accept));
    assert_eq!(all(&answer, "allow"), ["GET, HEAD"]);
    assert!(all(&answer, "www-authenticate").is_empty());
}

#[test]
fn any_text_is_written_as_json() {
    let odd = (0..=0x7f_u8).map(char::from).chain(['ü', '\u{2028}', '😀']);
    for text in odd.flat_map(|odd| (0..20).map(move |at| format!("{0:>at$}{odd}{0:>7}", ""))) {
        let mut body = Vec::new();
        render::push_json(&mut body, &["a", &text, "b"]);
        let read: String = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(read, format!("a{text}b"));
    }
}
