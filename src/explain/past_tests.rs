//! Claims about what may be said of a request that happened.

use super::*;

#[test]
fn a_change_is_claimed_only_where_all_that_decides_is_remembered() {
    use Decision::{Failed, LetIn, Refused, Reported};
    for (then, now, changed) in [
        (Refused("insufficient_scope"), LetIn, Some(true)),
        (Refused("insufficient_scope"), Refused("insufficient_scope"), Some(false)),
        (Refused("insufficient_scope"), Refused("key_revoked"), Some(true)),
        (Refused("missing_credential"), Reported("missing_credential"), Some(true)),
        (Reported("missing_credential"), Refused("missing_credential"), Some(true)),
        (LetIn, LetIn, Some(false)),
        (LetIn, Refused("no_route"), Some(true)),
        (Refused("unknown_key"), Refused("unknown_key"), None),
        (Refused("unknown_key"), LetIn, Some(true)),
        (Refused("bad_checksum"), Refused("bad_checksum"), Some(false)),
        (Refused("rate_limited"), LetIn, None),
        (Reported("rate_limited"), LetIn, None),
        (Refused("secret_key_in_browser"), LetIn, None),
        (Refused("rate_limited"), Refused("key_revoked"), Some(true)),
        (Refused("rate_limited"), Refused("insufficient_scope"), Some(true)),
        (Refused("secret_key_in_browser"), Refused("key_revoked"), Some(true)),
        (Refused("secret_key_in_browser"), Refused("insufficient_scope"), None),
        (Refused("origin_not_allowed"), Refused("origin_not_allowed"), None),
        (LetIn, Refused("origin_not_allowed"), None),
        (Refused("insufficient_scope"), Refused("origin_not_allowed"), None),
        (Failed, LetIn, Some(false)),
        (Failed, Refused("no_route"), None),
    ] {
        assert_eq!(compare(then, now).0, changed, "{:?}", compare(then, now));
    }
}

#[test]
fn what_came_upon_a_limit_is_said_to_have() {
    use Decision::{LetIn, Refused, Reported};
    let says = |then: Decision<'_>, word: &str| compare(then, LetIn).1.contains(word);
    for reason in ["rate_limited", "quota_exceeded", "too_many_failures"] {
        assert!(says(Refused(reason), "a limit") && says(Reported(reason), "a limit"), "{reason}");
    }
    for reason in ["secret_key_in_browser", "limits_unavailable"] {
        assert!(says(Refused(reason), "header fields") && !says(Refused(reason), "a limit"), "{reason}");
    }
}

#[test]
fn every_reason_of_a_decision_is_sorted() {
    for reason in Rejection::ALL.map(Rejection::reason) {
        assert!(JUDGED.contains(&reason), "{reason}");
    }
    let decided = [
        Denial::BadPath { detail: "" },
        Denial::NoRoute,
        Denial::MethodNotAllowed { allow: Vec::new() },
        Denial::MissingCredential,
        Denial::InvalidRequest(crate::credential::Malformed::Empty),
        Denial::KindNotAllowed,
        Denial::EnvironmentNotAllowed,
        Denial::IpNotAllowed,
        Denial::OriginNotAllowed,
        Denial::SecretKeyInBrowser,
        Denial::InsufficientScope { required: Vec::new(), missing: Vec::new() },
        Denial::RateLimited { policy: crate::limit::Policy::Key, retry_after_seconds: 1 },
        Denial::QuotaExceeded { policy: crate::limit::Policy::KeyDay, retry_after_seconds: 1 },
        Denial::TooManyFailures { retry_after_seconds: 1 },
        Denial::AuthUnavailable,
    ];
    for reason in decided.iter().map(Denial::reason) {
        assert!(JUDGED.contains(&reason) != BEYOND.contains(&reason), "{reason}");
    }
}

#[test]
fn what_stands_against_it_is_a_sentence_behind_the_others() {
    let noted = |objection: Option<&str>| {
        let remembered = Remembered {
            ts: Timestamp::from_unix_ms(1),
            request_id: "a".to_owned(),
            listener: String::new(),
            protocol: "HTTP/1.1",
            method: None,
            host: None,
            path: None,
            is_whole: false,
            route: None,
            rule: None,
            status: Some(400),
            code: Some("bad_request"),
            reason: Some("bad_request"),
            missing_scopes: Vec::new(),
            mode: None,
            key_id: None,
            owner: None,
            environment: None,
            client_ip: None,
            duration: None,
        };
        let past = Past { remembered, today: None, changed: None, note: "It cannot be said.".into() };
        past.but(objection.map(str::to_owned)).json()["note"].clone()
    };
    assert_eq!(noted(None), "It cannot be said.");
    assert_eq!(noted(Some("worker 2 does not answer")), "It cannot be said. But worker 2 does not answer.");
}
