//! Handshakes with upstreams that are what they say, and with others.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;

use super::certificate::{crypto, read_authorities, read_pair};
use super::test_ca::{TestCa, handshake};
use super::tls::TlsClient;
use super::{CertificateFiles, Protocol, TlsError, UpstreamTls};

fn server(files: &CertificateFiles, client_ca: Option<&TestCa>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(crypto()).with_safe_default_protocol_versions().unwrap();
    let builder = match client_ca {
        Some(ca) => {
            let authorities = Arc::new(read_authorities(&ca.ca()).unwrap());
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(authorities, crypto());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let pair = read_pair(files, &crypto()).unwrap();
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    Arc::new(config)
}

fn believing(ca: &TestCa) -> UpstreamTls {
    UpstreamTls { ca: Some(ca.ca()), server_name: None, client_certificate: None }
}

#[test]
fn an_upstream_signed_by_the_configured_authority_is_believed_and_no_other() {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    let client = TlsClient::load(&believing(&ours), Protocol::Auto).unwrap();
    let good = server(&ours.pair("good", &["up.example"]), None);
    handshake(Arc::clone(&good), client.config(), "up.example").unwrap();
    assert!(handshake(good, client.config(), "other.example").is_err(), "a name it is not valid for");
    let bad = server(&theirs.pair("bad", &["up.example"]), None);
    assert!(handshake(bad, client.config(), "up.example").is_err(), "an authority that is not ours");
}

#[test]
fn alpn_offers_what_the_protocol_setting_says() {
    let ca = TestCa::new();
    let server = server(&ca.pair("up", &["up.example"]), None);
    for (protocol, expected) in [
        // The server prefers HTTP/1.1, so it is taken where both are offered.
        (Protocol::Auto, &b"http/1.1"[..]),
        (Protocol::H1, b"http/1.1"),
        (Protocol::H2, b"h2"),
    ] {
        let client = TlsClient::load(&believing(&ca), protocol).unwrap();
        let shaken = handshake(Arc::clone(&server), client.config(), "up.example").unwrap();
        assert_eq!(shaken.alpn.as_deref(), Some(expected), "{protocol:?}");
    }
    let (auto, one) = (TlsClient::load(&believing(&ca), Protocol::Auto).unwrap(), [b"http/1.1".to_vec()]);
    assert_eq!(auto.h1_config().alpn_protocols, one, "what must not speak HTTP/2 does not offer it");
    assert_eq!(auto.config().alpn_protocols.len(), 2);
}

#[test]
fn our_certificate_is_shown_to_an_upstream_that_asks() {
    let ca = TestCa::new();
    let server = server(&ca.pair("up", &["up.example"]), Some(&ca));
    let mut settings = believing(&ca);
    let without = TlsClient::load(&settings, Protocol::H1).unwrap();
    assert!(handshake(Arc::clone(&server), without.config(), "up.example").is_err());
    settings.client_certificate = Some(ca.pair("gateway", &["gateway.example"]));
    let with = TlsClient::load(&settings, Protocol::H1).unwrap();
    assert_eq!(handshake(server, with.config(), "up.example").unwrap().shown, 1);
}

#[test]
fn the_name_that_is_checked_is_the_configured_one_or_the_targets() {
    let ca = TestCa::new();
    let mut settings = believing(&ca);
    let client = TlsClient::load(&settings, Protocol::H1).unwrap();
    for (host, expected) in [("up.example", "up.example"), ("[::1]", "::1"), ("10.0.0.1", "10.0.0.1")] {
        assert_eq!(client.server_name(host).unwrap().to_str(), expected);
    }
    assert!(matches!(client.server_name("a b"), Err(TlsError::BadServerName { .. })));
    settings.server_name = Some("real.example".to_owned());
    let client = TlsClient::load(&settings, Protocol::H1).unwrap();
    assert_eq!(client.server_name("10.0.0.1").unwrap().to_str(), "real.example");
}

#[test]
fn every_problem_is_told_and_how_to_fix_it() {
    let ca = TestCa::new();
    let settings = UpstreamTls {
        ca: Some("/nowhere/ca.pem".into()),
        server_name: Some("a b".to_owned()),
        client_certificate: Some(CertificateFiles {
            cert: ca.pair("one", &["one.example"]).cert,
            key: ca.pair("two", &["two.example"]).key,
        }),
    };
    let errors: Vec<String> =
        TlsClient::load(&settings, Protocol::Auto).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 3, "{errors:#?}");
    assert!(errors[0].starts_with("cannot read /nowhere/ca.pem (No such file"), "{}", errors[0]);
    assert!(errors[1].contains("two.key does not belong to the certificate") && errors[1].contains("one.crt"));
    assert!(errors[2].starts_with("\"a b\" is not the name of a server"), "{}", errors[2]);
}

#[test]
fn files_that_are_no_certificate_or_key_are_told_apart() {
    let ca = TestCa::new();
    let good = ca.pair("good", &["good.example"]);
    let key_text = std::fs::read_to_string(&good.key).unwrap();
    let damaged = std::fs::read_to_string(&good.cert).unwrap().replace("-----END", "-----DNE");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let empty = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    for (cert, key, expected) in [
        (key_text.as_str(), key_text.as_str(), "holds no certificate"),
        (damaged.as_str(), key_text.as_str(), "is damaged PEM"),
        ("", "", "holds no certificate"),
        (empty, key_text.as_str(), "is not a valid X.509"),
        ("good", "", "holds no private key"),
        ("good", encrypted, "is encrypted: decrypt it"),
        ("good", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", "is not supported: use RSA"),
    ] {
        let cert = if cert == "good" { good.cert.clone() } else { ca.write("bad.crt", cert) };
        let files = CertificateFiles { cert, key: ca.write("bad.key", key) };
        let error = read_pair(&files, &crypto()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("MAA"), "contents of a file reach an error: {error}");
    }
    let huge = ca.write("huge.pem", &"x".repeat(1024 * 1024 + 1));
    assert!(matches!(read_authorities(&huge), Err(TlsError::TooLarge { .. })));
}
