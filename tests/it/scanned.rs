//! What scanners of TLS say of the gateway's edge as it is without any settings: nothing that is of medium weight or above, and
//! that it is what Mozilla calls intermediate.
//!
//! `PORTCULLIS_TEST_SCAN=whole` lets testssl.sh look for everything, which takes minutes.

use std::time::Duration;

use portcullis_testkit::{Gateway, Origin, TestCa, patient};
use serde_json::Value;

use crate::{figures, scene, tools};

const CONFIG: &str = r#"
listeners: [{ bind: "127.0.0.1:0", name: edge, tls: edge }]
tls: { edge: { certificates: [{ cert: one.pem, key: one.key }] } }
upstreams: { shop: { targets: [{ url: "http://{{shop}}" }] } }
routes: [{ path: "/**", upstream: shop, auth: none }]
"#;

/// The gateway with a certificate as an authority of today would give it, and the authority.
async fn edge() -> (Gateway, Origin) {
    let (ca, origin) = (TestCa::new("test authority"), Origin::start().await);
    let one = ca.server_for(&["localhost"], 90);
    let site = scene::site(CONFIG).upstream("shop", &origin).file("one.pem", one.cert).file("one.key", one.key);
    (site.file("ca.pem", ca.pem()).start().await, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn sslyze_calls_the_edge_what_mozilla_calls_intermediate() {
    let Some(python) = tools::python_with("sslyze").await else { return };
    let (gateway, _origin) = edge().await;
    let authority = gateway.path("ca.pem");
    let server = format!("localhost:{}{{127.0.0.1}}", gateway.data().port());
    let authority = format!("--certinfo_ca_file={}", authority.display());
    let args = ["-m", "sslyze", "--mozilla_config=intermediate", &authority, &server];
    let (code, said) = tools::run(&python, &args, "").await;
    let verdict = said.split("COMPLIANCE").nth(1).unwrap_or(&said);
    let is_met = code == 0 && verdict.contains("OK - Compliant");
    figures::note("sslyze", "Mozilla's intermediate profile", if is_met { "met" } else { "not met" }, "met", is_met);
    assert!(is_met, "sslyze ended with {code}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn testssl_finds_nothing_of_weight() {
    let Some(program) = tools::find("testssl") else { return };
    let (gateway, _origin) = edge().await;
    let (authority, findings) = (gateway.path("ca.pem"), gateway.path("findings.json"));
    let server = format!("localhost:{}", gateway.data().port());
    let (authority, file) = (format!("--add-ca={}", authority.display()), findings.to_str().unwrap().to_owned());
    let mut args = vec!["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1"];
    args.extend([authority.as_str(), "--jsonfile", &file]);
    if !std::env::var("PORTCULLIS_TEST_SCAN").is_ok_and(|how| how == "whole") {
        args.extend(["--protocols", "--std", "--fs", "--server-defaults"]);
    }
    args.push(&server);
    let scan = tokio::time::timeout(patient(Duration::from_secs(600)), tools::run(&program, &args, ""));
    let (code, said) = scan.await.expect("testssl.sh ends");
    let text = std::fs::read_to_string(&findings).unwrap_or_else(|error| panic!("{error}: {code}: {said}"));
    let findings: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(findings.iter().any(|finding| finding["id"] == "TLS1_3" && finding["severity"] == "OK"), "{code}: {said}");
    // What it says of itself and of the machine it runs on is of another kind.
    let weighs = |finding: &&Value| {
        matches!(finding["severity"].as_str(), Some("MEDIUM" | "HIGH" | "CRITICAL" | "FATAL")) && !is_anothers(finding)
    };
    let weighty: Vec<&Value> = findings.iter().filter(weighs).collect();
    let holds = weighty.is_empty();
    let found = format!("{} of {}", weighty.len(), findings.len());
    figures::note("testssl.sh", "findings of medium weight or above", found, "0", holds);
    assert!(holds, "{weighty:#?}");
}

/// Whether a finding is about others: how our authority lets certificates be revoked, which it does not, and the fields that
/// the application behind the gateway puts into its answers, which go on as they are.
fn is_anothers(finding: &Value) -> bool {
    finding["id"].as_str().is_some_and(|id| {
        id.starts_with("cert_revocation") || id.starts_with("cert_crlDistributionPoints") || id == "security_headers"
    })
}
