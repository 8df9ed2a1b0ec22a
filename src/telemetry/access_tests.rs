//! Claims about access lines.

use std::net::IpAddr;
use std::time::Duration;

use http::Version;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::access::{AccessLine, Addresses, ClockText, LineFormat};
use super::metrics::DecisionMode;
use crate::domain::{KeyId, OwnerId, Timestamp};

const KEY_ID: KeyId = KeyId::from_bytes([0x11; 16]);
const OWNER: OwnerId = OwnerId::from_bytes([0x22; 16]);

/// 2026-01-15T12:00:00.007Z.
const NOON: Timestamp = Timestamp::from_unix_ms(1_768_478_400_007);

fn full_line() -> AccessLine<'static> {
    AccessLine {
        ts: NOON,
        request_id: "r-1",
        client_request_id: Some("c-1"),
        listener: "public",
        protocol: Version::HTTP_2,
        method: Some("GET"),
        host: Some("api.example.com"),
        path: Some("/v1/orders/7"),
        route: Some("/v1/orders/**"),
        upstream: Some("shop"),
        status: 403,
        code: Some("insufficient_scope"),
        reason: Some("missing_scope"),
        missing_scopes: &["read:orders", "read:all"],
        mode: Some(DecisionMode::Enforce),
        duration: Duration::from_micros(1_234_567),
        upstream_duration: Some(Duration::from_nanos(80_999)),
        key_id: Some(KEY_ID),
        key_prefix: Some("pc_live_sk_abcdefgh"),
        owner: Some(OWNER),
        environment: Some("live"),
        client_ip: Some(IpAddr::from([203, 0, 113, 9])),
        bytes_in: 0,
        bytes_out: u64::MAX,
    }
}

/// What is known about a request whose head could not be read.
fn empty_line() -> AccessLine<'static> {
    AccessLine {
        ts: NOON,
        request_id: "r-2",
        client_request_id: None,
        listener: "public",
        protocol: Version::HTTP_11,
        method: None,
        host: None,
        path: None,
        route: None,
        upstream: None,
        status: 400,
        code: None,
        reason: None,
        missing_scopes: &[],
        mode: None,
        duration: Duration::ZERO,
        upstream_duration: None,
        key_id: None,
        key_prefix: None,
        owner: None,
        environment: None,
        client_ip: None,
        bytes_in: 0,
        bytes_out: 0,
    }
}

fn rendered(line: &AccessLine<'_>, format: LineFormat, addresses: Addresses) -> String {
    let mut out = String::new();
    line.write(&mut out, format, addresses, &mut ClockText::default());
    out
}

#[test]
fn json_line_has_every_field_of_the_contract_in_its_order() {
    assert_eq!(
        rendered(&full_line(), LineFormat::Json, Addresses::Full),
        concat!(
            r#"{"ts":"2026-01-15T12:00:00.007Z","request_id":"r-1","client_request_id":"c-1","listener":"public","#,
            r#""protocol":"HTTP/2.0","method":"GET","host":"api.example.com","path":"/v1/orders/7","#,
            r#""route":"/v1/orders/**","upstream":"shop","status":403,"code":"insufficient_scope","#,
            r#""reason":"missing_scope","missing_scopes":["read:orders","read:all"],"mode":"enforce","#,
            r#""duration_ms":1234.567,"upstream_ms":0.080,"key_id":"key_11111111111111111111111111111111","#,
            r#""key_prefix":"pc_live_sk_abcdefgh","owner":"own_22222222222222222222222222222222","#,
            r#""environment":"live","client_ip":"203.0.113.9","bytes_in":0,"bytes_out":18446744073709551615}"#,
            "\n"
        )
    );
}

#[test]
fn absent_values_are_null_in_json_and_no_field_is_left_out() {
    assert_eq!(
        rendered(&empty_line(), LineFormat::Json, Addresses::Full),
        concat!(
            r#"{"ts":"2026-01-15T12:00:00.007Z","request_id":"r-2","client_request_id":null,"listener":"public","#,
            r#""protocol":"HTTP/1.1","method":null,"host":null,"path":null,"route":null,"upstream":null,"#,
            r#""status":400,"code":null,"reason":null,"missing_scopes":[],"mode":null,"duration_ms":0.000,"#,
            r#""upstream_ms":null,"key_id":null,"key_prefix":null,"owner":null,"environment":null,"#,
            r#""client_ip":null,"bytes_in":0,"bytes_out":0}"#,
            "\n"
        )
    );
}

#[test]
fn text_line_begins_with_what_people_look_for_and_leaves_out_what_is_absent() {
    assert_eq!(
        rendered(&full_line(), LineFormat::Text, Addresses::Full),
        concat!(
            "2026-01-15T12:00:00.007Z 403 GET /v1/orders/7 1234.567ms request_id=r-1 client_request_id=c-1 ",
            "listener=public protocol=HTTP/2.0 host=api.example.com route=/v1/orders/** upstream=shop ",
            "code=insufficient_scope reason=missing_scope missing_scopes=read:orders,read:all mode=enforce ",
            "upstream_ms=0.080 key_id=key_11111111111111111111111111111111 key_prefix=pc_live_sk_abcdefgh ",
            "owner=own_22222222222222222222222222222222 environment=live client_ip=203.0.113.9 bytes_in=0 ",
            "bytes_out=18446744073709551615\n"
        )
    );
    assert_eq!(
        rendered(&empty_line(), LineFormat::Text, Addresses::Full),
        "2026-01-15T12:00:00.007Z 400 - - 0.000ms request_id=r-2 listener=public protocol=HTTP/1.1 bytes_in=0 bytes_out=0\n"
    );
}

#[test]
fn query_and_fragment_are_never_written() {
    for (path, written) in [
        ("/a?api_key=secret", "/a"),
        ("/a#secret", "/a"),
        ("/a?x#secret?y", "/a"),
        ("?secret", ""),
        ("/a%3Fb", "/a%3Fb"),
    ] {
        let line = AccessLine { path: Some(path), ..empty_line() };
        let json = rendered(&line, LineFormat::Json, Addresses::Full);
        let parsed: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["path"], written, "{path}");
        assert!(!json.contains("secret"), "{json}");
        assert!(!rendered(&line, LineFormat::Text, Addresses::Full).contains("secret"), "{path}");
    }
}

#[test]
fn masked_addresses_name_a_network_and_not_a_person() {
    for (address, masked) in [
        ("203.0.113.9", "203.0.113.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("::ffff:203.0.113.9", "203.0.113.0"),
        ("::1", "::"),
    ] {
        let line = AccessLine { client_ip: Some(address.parse().unwrap()), ..empty_line() };
        let parsed: Value = serde_json::from_str(&rendered(&line, LineFormat::Json, Addresses::Masked)).unwrap();
        assert_eq!(parsed["client_ip"], masked, "{address}");
        let text = rendered(&line, LineFormat::Text, Addresses::Masked);
        assert!(text.contains(&format!(" client_ip={masked} ")), "{text}");
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_shown_as_ipv4() {
    let line = AccessLine { client_ip: Some("::ffff:203.0.113.9".parse().unwrap()), ..empty_line() };
    let parsed: Value = serde_json::from_str(&rendered(&line, LineFormat::Json, Addresses::Full)).unwrap();
    assert_eq!(parsed["client_ip"], "203.0.113.9");
}

#[test]
fn a_forged_line_stays_inside_its_field() {
    let forged = "/a\n2026-01-15T12:00:00.007Z 200 GET /admin\u{1b}[2J\u{202e}\u{9b}1m";
    let line = AccessLine { path: Some(forged), host: Some("a b=\"c\""), ..empty_line() };
    let text = rendered(&line, LineFormat::Text, Addresses::Full);
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(text.contains(r#" "/a\n2026-01-15T12:00:00.007Z 200 GET /admin\u{1b}[2J\u{202e}\u{9b}1m" "#), "{text}");
    assert!(text.contains(r#" host="a b=\"c\"" "#), "{text}");
}

#[test]
fn a_clock_text_is_what_the_moment_displays_as() {
    let mut clock = ClockText::default();
    for ms in [0, 1, 999, 1000, -1, -1000, 1_768_478_400_007, 1_768_478_400_008, 951_782_399_999, i64::MAX, i64::MIN] {
        let moment = Timestamp::from_unix_ms(ms);
        let mut out = String::new();
        clock.push(&mut out, moment);
        assert_eq!(out, moment.to_string());
    }
}

/// Any text, with the characters that could break a line more often than chance would have them.
fn hostile_text() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        '"', '\\', '\n', '\r', '\t', '\0', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{2028}', '\u{2029}', '\u{202e}',
        '\u{feff}', '{', '}', ',', ':', '=', ' ',
    ]);
    prop::collection::vec(prop_oneof![hostile, any::<char>()], 0..24).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_json_line_parses_and_equals_its_input(
        texts in prop::collection::vec(hostile_text(), 11),
        scopes in prop::collection::vec(hostile_text(), 0..4),
        present in any::<bool>(),
        status in 100u16..1000,
        numbers in any::<[u64; 2]>(),
        micros in 0u64..1 << 40,
        key in any::<[u8; 16]>(),
        address in any::<IpAddr>(),
        ms in -10_000_000_000_000i64..100_000_000_000_000,
    ) {
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let optional = |at: usize| present.then(|| texts[at].as_str());
        let line = AccessLine {
            ts: Timestamp::from_unix_ms(ms),
            request_id: &texts[0],
            client_request_id: optional(1),
            listener: &texts[2],
            protocol: Version::HTTP_10,
            method: optional(3),
            host: optional(4),
            path: optional(5),
            route: optional(6),
            upstream: optional(7),
            status,
            code: optional(8),
            reason: optional(9),
            missing_scopes: &scopes,
            mode: present.then_some(DecisionMode::Report),
            duration: Duration::from_micros(micros),
            upstream_duration: present.then_some(Duration::from_micros(micros)),
            key_id: present.then_some(KeyId::from_bytes(key)),
            key_prefix: optional(10),
            owner: present.then_some(OwnerId::from_bytes(key)),
            environment: optional(1),
            client_ip: Some(address),
            bytes_in: numbers[0],
            bytes_out: numbers[1],
        };
        let json = rendered(&line, LineFormat::Json, Addresses::Full);
        let body = json.strip_suffix('\n').expect("a line ends");
        let steers = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}');
        prop_assert!(!body.contains(steers));
        let path = optional(5).map(|path| path.split(['?', '#']).next().expect("a first piece"));
        // Read as JSON too: what is compared is the text, not how a library rounds it.
        let milliseconds: Value =
            serde_json::from_str(&format!("{}.{:03}", micros / 1000, micros % 1000)).expect("a number");
        let expected = json!({
            "ts": Timestamp::from_unix_ms(ms).to_string(),
            "request_id": texts[0],
            "client_request_id": optional(1),
            "listener": texts[2],
            "protocol": "HTTP/1.0",
            "method": optional(3),
            "host": optional(4),
            "path": path,
            "route": optional(6),
            "upstream": optional(7),
            "status": status,
            "code": optional(8),
            "reason": optional(9),
            "missing_scopes": scopes,
            "mode": present.then_some("report"),
            "duration_ms": milliseconds,
            "upstream_ms": present.then_some(&milliseconds),
            "key_id": present.then(|| KeyId::from_bytes(key).to_string()),
            "key_prefix": optional(10),
            "owner": present.then(|| OwnerId::from_bytes(key).to_string()),
            "environment": optional(1),
            "client_ip": address.to_canonical().to_string(),
            "bytes_in": numbers[0],
            "bytes_out": numbers[1],
        });
        prop_assert_eq!(serde_json::from_str::<Value>(body).expect("JSON"), expected);

        let text = rendered(&line, LineFormat::Text, Addresses::Full);
        let body = text.strip_suffix('\n').expect("a line ends");
        prop_assert!(!body.contains(char::is_control));
    }
}
