//! OCSP responses, made by hand byte for byte: what is stapled and what is not.

use std::path::PathBuf;

use super::staple::{Staple, StapleFaultKind, staple_fault};
use super::tls::Served;
use crate::domain::Timestamp;
use crate::proxy::certificate::{crypto, read_pair};
use crate::proxy::test_ca::TestCa;

const SERIAL: &[u8] = &[0x12, 0x34];
const GOOD: &[u8] = &[0x80, 0];
const UNKNOWN: &[u8] = &[0x82, 0];

fn now() -> Timestamp {
    "2026-01-15T12:00:00Z".parse().unwrap()
}

/// One value in DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut all = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 128 => all.push(short),
        _ => {
            all.push(0x82);
            all.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        }
    }
    all.extend(content);
    all
}

fn time(text: &str) -> Vec<u8> {
    der(0x18, &[text.as_bytes()])
}

fn single(serial: &[u8], status: &[u8], this_update: &str, next_update: Option<&str>) -> Vec<u8> {
    let sha256 = der(0x30, &[&der(0x06, &[&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01]])]);
    let hash = der(0x04, &[&[7; 32]]);
    let id = der(0x30, &[&sha256, &hash, &hash, &der(0x02, &[serial])]);
    let next_update = next_update.map(|text| der(0xa0, &[&time(text)])).unwrap_or_default();
    der(0x30, &[&id, status, &time(this_update), &next_update])
}

fn response(singles: &[Vec<u8>]) -> Vec<u8> {
    let singles: Vec<&[u8]> = singles.iter().map(Vec::as_slice).collect();
    let responder = der(0xa2, &[&der(0x04, &[&[9; 20]])]);
    let data = der(0x30, &[&responder, &time("20260115000000Z"), &der(0x30, &singles)]);
    let ecdsa = der(0x30, &[&der(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]])]);
    let basic = der(0x30, &[&data, &ecdsa, &der(0x03, &[&[0], &[1; 64]])]);
    let kind = der(0x06, &[&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01]]);
    der(0x30, &[&der(0x0a, &[&[0]]), &der(0xa0, &[&der(0x30, &[&kind, &der(0x04, &[&basic])])])])
}

/// A response about one certificate that is good now.
fn good() -> Vec<u8> {
    response(&[single(SERIAL, GOOD, "20260115000000Z", Some("20260116000000Z"))])
}

fn read(bytes: &[u8]) -> Result<Staple, StapleFaultKind> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("response.der");
    std::fs::write(&file, bytes).unwrap();
    Staple::read(&file, SERIAL, now()).map_err(|fault| {
        assert_eq!(fault.file, file);
        assert!(fault.to_string().contains("response.der"), "{fault}");
        fault.kind
    })
}

#[test]
fn a_response_that_is_good_now_is_stapled_as_it_is() {
    let end = "2026-01-16T00:00:00Z".parse().unwrap();
    assert_eq!(read(&good()), Ok(Staple { response: good(), until: Some(end) }));
    let endless = response(&[single(SERIAL, GOOD, "20260115000000Z", None)]);
    assert_eq!(read(&endless), Ok(Staple { response: endless, until: None }));
    let other = single(&[0x55], UNKNOWN, "20260115000000Z", None);
    let second = response(&[other, single(SERIAL, GOOD, "20260115000000Z", None)]);
    assert_eq!(read(&second), Ok(Staple { response: second, until: None }));
}

#[test]
fn what_clients_would_refuse_is_not_stapled() {
    let said = |serial, status, this, next| response(&[single(serial, status, this, next)]);
    let revoked = der(0xa1, &[&time("20260101000000Z")]);
    let table: Vec<(Vec<u8>, StapleFaultKind)> = vec![
        (Vec::new(), StapleFaultKind::Malformed),
        (b"-----BEGIN OCSP RESPONSE-----".to_vec(), StapleFaultKind::Malformed),
        ([good(), vec![0]].concat(), StapleFaultKind::Malformed),
        (vec![0x30; 20 * 1024], StapleFaultKind::TooLarge),
        (der(0x30, &[&der(0x0a, &[&[3]])]), StapleFaultKind::NotSuccessful(3)),
        (der(0x30, &[&der(0x0a, &[&[0]])]), StapleFaultKind::Malformed),
        (response(&[]), StapleFaultKind::OtherCertificate),
        (said(&[0x12, 0x35], GOOD, "20260115000000Z", None), StapleFaultKind::OtherCertificate),
        (said(SERIAL, &revoked, "20260115000000Z", None), StapleFaultKind::Revoked),
        (said(SERIAL, UNKNOWN, "20260115000000Z", None), StapleFaultKind::Unknown),
        (said(SERIAL, &[0x83, 0], "20260115000000Z", None), StapleFaultKind::Malformed),
        (said(SERIAL, GOOD, "not a moment at all", None), StapleFaultKind::Malformed),
        (
            said(SERIAL, GOOD, "20260114000000Z", Some("20260115120000Z")),
            StapleFaultKind::Expired { next_update: now() },
        ),
        (
            said(SERIAL, GOOD, "20260115120001Z", None),
            StapleFaultKind::NotYetValid { this_update: "2026-01-15T12:00:01Z".parse().unwrap() },
        ),
    ];
    for (bytes, expected) in table {
        assert_eq!(read(&bytes), Err(expected), "{bytes:02x?}");
    }
}

#[test]
fn a_response_cut_anywhere_is_malformed() {
    let whole = good();
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), Err(StapleFaultKind::Malformed), "the first {length} bytes");
    }
}

#[test]
fn a_staple_is_shown_until_it_expires() {
    let ca = TestCa::new();
    let pair = read_pair(&ca.pair("a", &["a.example"]), &crypto()).unwrap();
    let until: Timestamp = "2026-01-16T00:00:00Z".parse().unwrap();
    let served = Served::new(pair, Some(Staple { response: vec![1], until: Some(until) }));
    let last = Timestamp::from_unix_ms(until.unix_ms() - 1);
    for (now, expected) in [(now(), Some(vec![1])), (last, Some(vec![1])), (until, None)] {
        assert_eq!(served.at(|| now).ocsp, expected, "at {now}");
    }
}

#[test]
fn a_missing_response_is_a_fault_and_a_missing_certificate_is_not_its_own() {
    let ca = TestCa::new();
    let missing = PathBuf::from("/nowhere/response.der");
    let fault = staple_fault(&missing, &ca.pair("a", &["a.example"]).cert, now()).unwrap();
    assert_eq!(fault.kind, StapleFaultKind::Unreadable(std::io::ErrorKind::NotFound));
    assert_eq!(staple_fault(&missing, &missing, now()), None);
}
