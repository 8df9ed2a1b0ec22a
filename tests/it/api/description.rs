//! The API is what it says it is: schemathesis makes requests from the OpenAPI document, good and bad ones, and holds
//! every answer to it.

use std::path::Path;

use serde_json::json;

use super::Shop;
use crate::tools;

/// How many examples of each kind an endpoint is asked for. The same ones every time, unless `PORTCULLIS_TEST_EXAMPLES`
/// asks for a number of others.
fn examples() -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match std::env::var("PORTCULLIS_TEST_EXAMPLES") {
        Ok(number) => words(&["--max-examples", &number, "--generation-database", "none"]),
        Err(_) => words(&["--max-examples", "15", "--generation-deterministic"]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_one_that_the_description_promises() {
    let Some(python) = tools::python_with("schemathesis").await else { return };
    for paths in [["--exclude-path", "/v1/keys/self/rotate"], ["--include-path", "/v1/keys/self/rotate"]] {
        let shop = Shop::open().await;
        let acme = shop.tell("POST", "/v1/owners", &json!({ "name": "ACME" })).await.expect(201).json();
        let _owned = shop.make(json!({ "name": "k", "owner": acme["id"], "scopes": ["read:orders"] })).await;
        let url = format!("http://{}/v1/openapi.json", shop.gateway.admin_address());
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/schemathesis.toml");
        let (header, examples) = (format!("Authorization: Bearer {}", shop.operator.text), examples());
        // It keeps what it found where it runs.
        let scratch = shop.gateway.site().directory().to_str().unwrap().to_owned();
        let mut args = vec![
            "-C",
            &scratch,
            python.to_str().unwrap(),
            "-m",
            "schemathesis.cli",
            "--config-file",
            config,
            "run",
            &url,
            "--checks",
            "all",
        ];
        args.extend(examples.iter().map(String::as_str));
        args.extend(["-H", &header]);
        args.extend(paths);
        let (code, said) = tools::run(Path::new("/usr/bin/env"), &args, "").await;
        assert!(code == 0 && said.contains("Tested:"), "schemathesis ended with {code}:\n{said}");
    }
}
