//! Handshakes with the edge: names, clients' certificates, and files that change.

use std::sync::Arc;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, SignatureScheme};

use super::settings::{ClientCertificates, EdgeCertificate, TlsSettings, TlsVersion};
use super::tls::{EdgeTls, TlsWarning};
use crate::domain::Timestamp;
use crate::proxy::certificate::{crypto, read_certificates};
use crate::proxy::test_ca::{TestCa, all_schemes, gullible, handshake};
use crate::proxy::{CertificateFiles, TlsError};

fn settings(certificates: Vec<CertificateFiles>) -> TlsSettings {
    TlsSettings {
        name: "edge".to_owned(),
        certificates: certificates.into_iter().map(|files| EdgeCertificate { files, ocsp: None }).collect(),
        min_version: TlsVersion::V1_2,
        client_certificates: ClientCertificates::NotAsked,
    }
}

fn leaf(files: &CertificateFiles) -> Vec<u8> {
    read_certificates(&files.cert).unwrap()[0].to_vec()
}

#[test]
fn the_certificate_is_chosen_by_name_and_the_first_answers_where_none_matches() {
    let ca = TestCa::new();
    let first = ca.pair("first", &["first.example"]);
    let exact = ca.pair("exact", &["API.example", "b.wild.example"]);
    let wild = ca.pair("wild", &["*.wild.example"]);
    let edge = EdgeTls::load(settings(vec![first.clone(), wild.clone(), exact.clone()])).unwrap();
    for (name, expected) in [
        ("first.example", &first),
        ("api.example", &exact),
        ("aPI.eXample", &exact),
        ("a.wild.example", &wild),
        ("A.WILD.example", &wild),
        ("b.wild.example", &exact),
        ("a.b.wild.example", &first),
        ("wild.example", &first),
        ("unknown.example", &first),
        ("10.0.0.1", &first),
    ] {
        let shaken = handshake(edge.config(), gullible(all_schemes()), name).unwrap();
        assert_eq!(shaken.leaf, leaf(expected), "{name}");
    }
}

#[test]
fn of_two_certificates_for_a_name_the_one_the_client_can_check_is_shown() {
    let ca = TestCa::new();
    let ecdsa = ca.pair("ecdsa", &["a.example"]);
    let ed25519 = ca.pair_with("ed25519", &["a.example"], &PKCS_ED25519, |_| {});
    let edge = EdgeTls::load(settings(vec![ecdsa.clone(), ed25519.clone()])).unwrap();
    for (schemes, expected) in [(all_schemes(), &ecdsa), (vec![SignatureScheme::ED25519], &ed25519)] {
        assert_eq!(handshake(edge.config(), gullible(schemes), "a.example").unwrap().leaf, leaf(expected));
    }
}

#[test]
fn http_2_is_preferred_and_tls_1_3_too() {
    let ca = TestCa::new();
    let edge = EdgeTls::load(settings(vec![ca.pair("a", &["a.example"])])).unwrap();
    let shaken = handshake(edge.config(), ca.client(None), "a.example").unwrap();
    assert_eq!(shaken.alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(shaken.version, ProtocolVersion::TLSv1_3);
}

#[test]
fn tls_1_2_is_spoken_unless_1_3_is_the_least() {
    let ca = TestCa::new();
    let mut settings = settings(vec![ca.pair("a", &["a.example"])]);
    let client = || {
        let authorities = crate::proxy::certificate::read_authorities(&ca.ca()).unwrap();
        let config = ClientConfig::builder_with_provider(crypto())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(authorities)
            .with_no_client_auth();
        Arc::new(config)
    };
    let edge = EdgeTls::load(settings.clone()).unwrap();
    assert_eq!(handshake(edge.config(), client(), "a.example").unwrap().version, ProtocolVersion::TLSv1_2);
    settings.min_version = TlsVersion::V1_3;
    let edge = EdgeTls::load(settings).unwrap();
    assert!(handshake(edge.config(), client(), "a.example").is_err());
}

#[test]
fn new_files_are_served_after_a_reload_and_not_before() {
    let ca = TestCa::new();
    let old = ca.pair("a", &["a.example"]);
    let old_leaf = leaf(&old);
    let edge = EdgeTls::load(settings(vec![old])).unwrap();
    let new = ca.pair("a", &["a.example", "b.example"]);
    assert_ne!(leaf(&new), old_leaf);
    let served = || handshake(edge.config(), gullible(all_schemes()), "a.example").unwrap().leaf;
    assert_eq!(served(), old_leaf);
    edge.reload().unwrap();
    assert_eq!(served(), leaf(&new));
    assert_eq!(edge.certificates()[0].names, ["a.example", "b.example"]);
}

#[test]
fn a_broken_file_keeps_what_was_loaded_and_says_what_is_wrong() {
    let ca = TestCa::new();
    let files = ca.pair("a", &["a.example"]);
    let good = leaf(&files);
    let edge = EdgeTls::load(settings(vec![files, ca.pair("b", &["b.example"])])).unwrap();
    // A half-written renewal: the new key is there and the new certificate is not.
    let other = ca.pair("other", &["a.example"]);
    std::fs::copy(&other.key, edge.files()[1]).unwrap();
    std::fs::remove_file(edge.files()[2]).unwrap();
    let errors = edge.reload().unwrap_err();
    assert!(matches!(errors[..], [TlsError::WrongKey { .. }, TlsError::Unreadable { .. }]), "{errors:?}");
    assert_eq!(handshake(edge.config(), ca.client(None), "a.example").unwrap().leaf, good);
    assert_eq!(edge.certificates().len(), 2);
    std::fs::copy(&other.cert, edge.files()[0]).unwrap();
    ca.pair("b", &["b.example"]);
    edge.reload().unwrap();
    assert_eq!(handshake(edge.config(), ca.client(None), "a.example").unwrap().leaf, leaf(&other));
}

#[test]
fn clients_certificates_are_demanded_as_configured() {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    let mut settings = settings(vec![ours.pair("a", &["a.example"])]);
    let anonymous = ours.client(None);
    let known = ours.client(Some(ours.pair("known", &["client.example"])));
    let foreign = ours.client(Some(theirs.pair("foreign", &["client.example"])));
    for (demand, expected) in [
        (ClientCertificates::NotAsked, [Some(0), Some(0), Some(0)]),
        (ClientCertificates::Optional { ca: ours.ca() }, [Some(0), Some(1), None]),
        (ClientCertificates::Required { ca: ours.ca() }, [None, Some(1), None]),
    ] {
        settings.client_certificates = demand.clone();
        let edge = EdgeTls::load(settings.clone()).unwrap();
        let shown = [&anonymous, &known, &foreign]
            .map(|client| handshake(edge.config(), Arc::clone(client), "a.example").ok().map(|shaken| shaken.shown));
        assert_eq!(shown, expected, "{demand:?}");
    }
}

#[test]
fn a_session_never_stands_in_for_a_client_certificate() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let mut settings = settings(vec![ca.pair("a", &["a.example"])]);
    let authorities = ca.write("clients.pem", &std::fs::read_to_string(ca.ca()).unwrap());
    let client = ca.client(Some(ca.pair("client", &["client.example"])));
    let kind = |edge: &EdgeTls| handshake(edge.config(), Arc::clone(&client), "a.example").map(|shaken| shaken.kind);
    let open = EdgeTls::load(settings.clone()).unwrap();
    assert_eq!(kind(&open).unwrap(), HandshakeKind::Full);
    assert_eq!(kind(&open).unwrap(), HandshakeKind::Resumed);
    open.reload().unwrap();
    assert_eq!(kind(&open).unwrap(), HandshakeKind::Resumed);
    settings.client_certificates = ClientCertificates::Required { ca: authorities };
    let asking = EdgeTls::load_in_place_of(&open, settings).unwrap();
    for _ in 0..3 {
        assert_eq!(kind(&asking).unwrap(), HandshakeKind::Full);
    }
    ca.write("clients.pem", &std::fs::read_to_string(other.ca()).unwrap());
    asking.reload().unwrap();
    assert!(kind(&asking).is_err(), "the authority is no longer believed");
}

#[test]
fn untimely_and_nameless_certificates_are_served_with_a_warning() {
    let ca = TestCa::new();
    let year = |year| rcgen::date_time_ymd(year, 1, 1);
    let expired = ca.pair_with("expired", &["a.example"], &PKCS_ECDSA_P256_SHA256, |params| {
        (params.not_before, params.not_after) = (year(2001), year(2002));
    });
    let early = ca.pair_with("early", &["b.example"], &PKCS_ECDSA_P256_SHA256, |params| {
        (params.not_before, params.not_after) = (year(2090), year(2091));
    });
    let nameless = ca.pair("nameless", &[]);
    let address = ca.pair("address", &["10.0.0.1"]);
    let edge =
        EdgeTls::load(settings(vec![expired.clone(), early.clone(), nameless.clone(), address.clone()])).unwrap();
    let now: Timestamp = "2026-01-15T12:00:00Z".parse().unwrap();
    let (not_after, not_before) = ("2002-01-01T00:00:00Z".parse().unwrap(), "2090-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(
        edge.warnings(now),
        [
            TlsWarning::Expired { file: expired.cert.clone(), not_after },
            TlsWarning::NotYetValid { file: early.cert, not_before },
            TlsWarning::NoNames { file: nameless.cert },
        ]
    );
    assert!(edge.warnings(now)[0].to_string().contains("expired at 2002-01-01T00:00:00.000Z"));
    let certificates = edge.certificates();
    assert_eq!((certificates[0].label(), certificates[0].not_after), ("a.example".to_owned(), not_after));
    assert_eq!(certificates[3].label(), address.cert.display().to_string());
    assert_eq!(handshake(edge.config(), gullible(all_schemes()), "a.example").unwrap().leaf, leaf(&expired));
}

#[test]
fn an_entry_without_certificates_is_refused() {
    let errors = EdgeTls::load(settings(Vec::new())).unwrap_err();
    assert!(matches!(errors[..], [TlsError::NoCertificates { .. }]), "{errors:?}");
}
