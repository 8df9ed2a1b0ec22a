//! `keys import`: keys that exist already move in, all of them or none.

use portcullis_testkit::Outcome;

use crate::scene;

/// A hash of nothing that anybody knows.
const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

async fn listed(site: &portcullis_testkit::Site) -> usize {
    // Nothing was ever put into it.
    if !site.path("data/portcullis.db").exists() {
        return 0;
    }
    site.cli(&["keys", "list", "--output", "json"]).await.success().json().as_array().unwrap().len()
}

async fn import(site: &portcullis_testkit::Site, name: &str, content: &str, more: &[&str]) -> Outcome {
    let path = site.write(name, content);
    let mut args = vec!["keys", "import", path.to_str().unwrap()];
    args.extend_from_slice(more);
    site.cli(&args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_keys_are_accepted_as_they_always_were() {
    let (gateway, _origin) = scene::shop().await;
    for secret in ["legacy-plaintext-0001", "legacy-plaintext-0002"] {
        gateway.vault().keep(secret);
    }
    let lines = "{\"name\":\"one\",\"scopes\":[\"read:orders\"],\"key\":\"legacy-plaintext-0001\"}\n\
                 {\"name\":\"two\",\"scopes\":[],\"key\":\"legacy-plaintext-0002\",\"environment\":\"test\",\"metadata\":{\"team\":\"a\"}}\n";
    let _ = import(&gateway, "keys.jsonl", lines, &[]).await.success();
    let asked = |secret: &str| gateway.get("/v1/orders/1").header("x-api-key", secret);
    portcullis_testkit::eventually!("the first is accepted", asked("legacy-plaintext-0001").await.status == 200);
    asked("legacy-plaintext-0002").await.refused(403, "insufficient_scope");
    let records = gateway.cli(&["keys", "list", "--output", "json"]).await.success().json();
    assert_eq!(records[1]["metadata"]["team"], "a", "{records}");
    assert_eq!(records[1]["environment"], "test", "{records}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_is_enough() {
    let (gateway, _origin) = scene::shop().await;
    let secret = "imported-by-hash-0001";
    let output = tokio::process::Command::new("sha256sum")
        .arg(gateway.write("secret.txt", secret))
        .output()
        .await
        .expect("coreutils are everywhere");
    let hash = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
    let _ = import(&gateway, "keys.csv", &format!("name,scopes,hash\nhashed,read:orders,sha256:{hash}\n"), &[])
        .await
        .success();
    portcullis_testkit::eventually!("it is accepted", {
        gateway.get("/v1/orders/1").header("x-api-key", secret).await.status == 200
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_format_is_told_by_extension_or_option() {
    let (site, _origin) = scene::closed_shop().await;
    let csv = "name,scopes,key\none,read:orders write:orders,legacy-plaintext-0003\n";
    let _ = import(&site, "keys.txt", csv, &[]).await.exit(2);
    let _ = import(&site, "keys.txt", csv, &["--format", "csv"]).await.success();
    let _ = import(&site, "more.csv", "name,scopes,key\ntwo,,legacy-plaintext-0004\n", &[]).await.success();
    assert_eq!(listed(&site).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_looked_at_without_being_imported() {
    let (site, _origin) = scene::closed_shop().await;
    let _there = site.create_key("there", "").await;
    let good = "name,scopes,key\none,,legacy-plaintext-0010\n";
    let bad = format!("{good}two,,\n");
    let tried = import(&site, "good.csv", good, &["--dry-run"]).await.success();
    assert_eq!(tried.stdout, "would import 1 keys\n");
    let tried = import(&site, "good.csv", good, &["--dry-run", "--output", "json"]).await.success().json();
    assert_eq!((&tried["imported"], &tried["would_import"]), (&0.into(), &1.into()), "{tried}");
    for more in [&["--dry-run"][..], &[]] {
        let refused = import(&site, "bad.csv", &bad, &[more, &["--output", "json"]].concat()).await.exit(1);
        let told = refused.json();
        assert_eq!((&told["imported"], &told["rows"][0]["line"]), (&0.into(), &3.into()), "{told}");
    }
    let skipping = ["--dry-run", "--skip-bad"];
    assert_eq!(
        import(&site, "bad.csv", &bad, &skipping).await.success().stdout,
        "would import 1 keys, 1 bad rows left out\n"
    );
    assert_eq!(listed(&site).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_named_by_line_and_nothing_is_imported() {
    let (site, _origin) = scene::closed_shop().await;
    site.vault().keep("legacy-plaintext-0005");
    let good = "{\"name\":\"good\",\"scopes\":[],\"key\":\"legacy-plaintext-0005\"}";
    let rows = [
        ("{\"name\":\"no credential\",\"scopes\":[]}", "key"),
        ("{\"name\":\"both\",\"scopes\":[],\"key\":\"legacy-plaintext-0006\",\"hash\":\"sha256:00\"}", "hash"),
        ("{\"name\":\"short hash\",\"scopes\":[],\"hash\":\"sha256:00\"}", "hash"),
        ("{\"name\":\"unknown field\",\"scopes\":[],\"key\":\"legacy-plaintext-0007\",\"colour\":1}", "colour"),
        ("{\"name\":\"bad scope\",\"scopes\":[\"a b\"],\"key\":\"legacy-plaintext-0008\"}", "a b"),
        ("{\"name\":\"broken\"", ""),
    ];
    for (bad, word) in rows {
        let text = format!("{good}\n{bad}\n{}\n", good.replace("0005", "0009"));
        let outcome = import(&site, "keys.jsonl", &text, &[]).await;
        assert_ne!(outcome.code, 0, "{bad}");
        let _ = outcome.says(&["keys.jsonl:2", word]);
        assert_eq!(listed(&site).await, 0, "{bad}");
    }
    let twice = format!("{good}\n{good}\n");
    let outcome = import(&site, "keys.jsonl", &twice, &[]).await;
    assert_ne!(outcome.code, 0, "the same key twice");
    let _ = outcome.says(&["keys.jsonl:2"]);
    assert_eq!(listed(&site).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_can_be_skipped_and_are_still_named() {
    let (site, _origin) = scene::closed_shop().await;
    let text = format!("name,scopes,key,hash\none,,legacy-plaintext-0010,\ntwo,a b c,,\nthree,,,sha256:{HASH}\n");
    let outcome = import(&site, "keys.csv", &text, &["--skip-bad"]).await.success();
    let _ = outcome.says(&["keys.csv:3"]);
    assert_eq!(listed(&site).await, 2);
}
