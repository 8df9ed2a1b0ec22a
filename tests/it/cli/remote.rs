//! `--server`: the same verbs on another machine, over its management API.

use portcullis_testkit::{Gateway, Key, KeySpec, Origin, Outcome, TestCa, key_text, patient};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::api::ALL;
use crate::scene;

/// The command line of somebody who has a key and no configuration.
struct Far {
    gateway: Gateway,
    _origin: Origin,
    key: Key,
    server: String,
}

impl Far {
    async fn open(sections: &str) -> Self {
        let (gateway, origin) = scene::shop_with("", sections).await;
        let key = gateway.key_of(KeySpec::new("operator", ALL).kind("management").option("--may-grant", "*")).await;
        let server = format!("http://{}", gateway.admin_address());
        Self { gateway, _origin: origin, key, server }
    }

    async fn say(&self, args: &[&str]) -> Outcome {
        self.feed(args, "").await
    }

    async fn feed(&self, args: &[&str], input: &str) -> Outcome {
        self.say_with(&self.key.text, args, input).await
    }

    async fn say_with(&self, key: &str, args: &[&str], input: &str) -> Outcome {
        let args = [args, &["--server", &self.server]].concat();
        self.gateway.far_cli(&[("PORTCULLIS_KEY", key)], &args, input).await
    }

    async fn json(&self, args: &[&str]) -> Value {
        self.say(&[args, &["--output", "json"]].concat()).await.success().json()
    }

    /// A verb that shows a key this once.
    async fn fresh(&self, args: &[&str]) -> Value {
        let mut record = self.json(args).await;
        let key = record["key"].take();
        self.gateway.site().vault().keep(key.as_str().expect("it is shown this once"));
        record
    }

    /// Asserts that a verb says the same here and there.
    async fn same(&self, args: &[&str]) {
        let (far, near) = (self.say(args).await, self.gateway.cli(args).await);
        assert_eq!((far.code, &far.stdout), (near.code, &near.stdout), "{args:?}: {}", far.stderr);
        assert_eq!(far.stderr, near.stderr, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_its_whole_life_over_the_network() {
    for sections in ["", "api: { profile: success }"] {
        let far = Far::open(sections).await;
        let made =
            far.fresh(&["keys", "create", "--name", "erp", "--scopes", "read:orders", "--metadata", "team=a"]).await;
        let id = made["id"].as_str().unwrap();
        assert_eq!((&made["scopes"], &made["metadata"]["team"]), (&json!(["read:orders"]), &json!("a")));
        assert_eq!(made["created_by"], far.key.id.as_str());

        let change = ["keys", "update", id, "--scopes", "", "--allowed-ips", "10.0.0.0/8", "--rate-limit", "10/1s+20"];
        let changed = far.json(&change).await;
        assert_eq!((&changed["scopes"], &changed["allowed_ips"]), (&json!([]), &json!(["10.0.0.0/8"])));
        assert_eq!(changed["rate_limit"], json!({ "requests": 10, "per": "1s", "burst": 20 }));
        assert_eq!(far.json(&["keys", "update", id, "--no-rate-limit"]).await["rate_limit"], Value::Null);

        assert_eq!(far.json(&["keys", "disable", id]).await["state"], "disabled");
        assert_eq!(far.json(&["keys", "enable", id]).await["state"], "active");
        let successor = far.fresh(&["keys", "rotate", id, "--grace", "1h"]).await;
        assert_eq!(successor["replaces"], id);
        let successor = successor["id"].as_str().unwrap();
        let replaced = far.fresh(&["keys", "replace-secret", successor]).await;
        assert_eq!(replaced["id"], successor);
        let revoked = far.json(&["keys", "revoke", id]).await;
        assert!(revoked["revoked_at"].is_string() && revoked.get("message").is_none(), "{revoked}");
        let listed = far.json(&["keys", "list", "--name", "erp", "--state", "active"]).await;
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed[0]["id"], successor);
        let _ = far.say(&["keys", "enable", id]).await.exit(5).says(&["revoked", "conflict", "request id"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_the_same_here_and_there() {
    let far = Far::open("").await;
    let create = ["owners", "create", "--name", "ACME", "--max-keys", "9", "--may-grant", "read:*", "--quota", "5/day"];
    let acme = far.json(&create).await;
    let acme = acme["id"].as_str().unwrap();
    let bounds = ["--owner", acme, "--rate-limit", "10/1s", "--expires-in", "90d", "--description", "über \u{202e}"];
    let create = [&["keys", "create", "--name", "erp", "--scopes", "read:orders"][..], &bounds].concat();
    let made = far.fresh(&create).await;
    let id = made["id"].as_str().unwrap();
    let web = ["keys", "create", "--name", "web", "--scopes", "", "--kind", "publishable", "--environment", "test"];
    let _ = far.fresh(&[&web[..], &["--allowed-origins", "https://a.example"]].concat()).await;
    for verb in [
        &["keys", "list", "--kind", "secret"][..],
        &["keys", "list", "--owner", acme],
        &["keys", "list", "--scope", "read:orders"],
        &["keys", "list", "--kind", "secret", "--unused-since", "0"],
        &["keys", "list", "--unused-since", "90d"],
        &["keys", "list", "--environment", "test", "--kind", "publishable"],
        &["keys", "list", "--prefix", made["prefix"].as_str().unwrap()],
        &["keys", "list", "--prefix", "nothing"],
        &["keys", "show", id],
        &["keys", "usage", id, "--since", "2026-01-15", "--until", "2026-01-16"],
        &["usage", "report"],
        &["owners", "list"],
        &["owners", "show", acme],
        &["audit", "list"],
        &["audit", "list", "--limit", "2"],
        &["audit", "list", "--action", "owner.*"],
        &["audit", "list", "--subject", id, "--since", "24h"],
    ] {
        far.same(verb).await;
        far.same(&[verb, &["--output", "json"]].concat()).await;
    }
    far.same(&["audit", "export", "--action", "key.*"]).await;
    for flawed in [
        &["keys", "list", "--unused-since", "soon"][..],
        &["keys", "list", "--owner", "nobody"],
        &["audit", "list", "--since", "soon"],
        &["keys", "update", id],
    ] {
        assert_eq!(far.say(flawed).await.exit(2).stdout, "", "{flawed:?}");
    }
    assert_eq!(far.json(&["owners", "suspend", acme]).await["suspended"], true);
    assert_eq!(far.json(&["owners", "resume", acme]).await["suspended"], false);
    let freed = far.json(&["owners", "update", acme, "--name", "Acme", "--without", "quota,max-keys"]).await;
    assert_eq!((&freed["name"], &freed["quota"], &freed["max_keys"]), (&json!("Acme"), &Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_verified_over_the_network_as_it_is_here() {
    let far = Far::open("").await;
    let key = far.gateway.create_key("reader", "read:orders").await;
    let mut mistyped = key.text.clone();
    let last = if mistyped.pop() == Some('0') { '1' } else { '0' };
    mistyped.push(last);
    let compare = async |text: &str, code: i32| {
        for output in ["text", "json"] {
            let verb = ["keys", "verify", "--output", output];
            let (there, here) = (far.feed(&verb, text).await, far.gateway.cli_with_input(&verb, text).await);
            assert_eq!((there.code, &there.stdout), (code, &here.stdout), "{}", there.stderr);
            assert_eq!(there.stderr, here.stderr);
        }
    };
    portcullis_testkit::eventually!("the gateway knows it", far.feed(&["keys", "verify"], &key.text).await.code == 0);
    compare(&key.text, 0).await;
    compare(&mistyped, 1).await;
    compare(&key_text::forged("pc_live_sk_", 'R'), 1).await;
    compare("some-key-of-old", 1).await;
    let _ = far.say(&["keys", "revoke", &key.id]).await.success();
    compare(&key.text, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_why_and_where_and_ends_with_5() {
    let far = Far::open("").await;
    let misspelt = ["keys", "create", "--name", "x", "--scopes", "raed:orders"];
    let said = far.say(&misspelt).await.exit(5);
    let said = said.says(&["Did you mean \"read:orders\"?", "code: invalid_value", "field: scopes", "request id: "]);
    assert_eq!(said.stdout, "");
    let missing = "key_0190a0b0c0d07e0f8000000000000000";
    let _ = far.say(&["keys", "show", missing]).await.exit(5).says(&[missing, "not_found"]);

    let low = KeySpec::new("low", "portcullis:keys").kind("management").option("--may-grant", "read:orders");
    let low = far.gateway.key_of(low).await;
    let grant = ["keys", "create", "--name", "x", "--scopes", "write:orders"];
    let _ = far.say_with(&low.text, &grant, "").await.exit(5).says(&["grant_exceeded", "missing scopes: write:orders"]);
    let _ = far.say_with(&low.text, &["audit", "list"], "").await.exit(5).says(&["insufficient_scope"]);
    let forged = key_text::forged("pc_live_mk_", 'F');
    let _ = far.say_with(&forged, &["keys", "list"], "").await.exit(5).says(&["invalid_key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_said_before_anything_is_sent() {
    let far = Far::open("").await;
    let (site, key) = (far.gateway.site(), far.key.text.as_str());
    let asked = async |env: &[(&str, &str)], args: &[&str]| site.far_cli(env, args, "").await.exit(2);
    let list = ["keys", "list", "--server", &far.server];
    let _ = asked(&[], &list).await.says(&["PORTCULLIS_KEY"]);
    let _ = asked(&[("PORTCULLIS_KEY", " ")], &list).await.says(&["PORTCULLIS_KEY"]);
    let _ = asked(&[("PORTCULLIS_KEY", "two words")], &list).await.says(&["PORTCULLIS_KEY"]);
    let key = [("PORTCULLIS_KEY", key)];
    let config = site.config_path();
    let both = [&list[..], &["--config", config.to_str().unwrap()]].concat();
    let _ = asked(&key, &both).await.says(&["--config"]);
    let _ = asked(&key, &["audit", "verify", "--server", &far.server]).await.says(&["audit verify"]);
    let _ = asked(&key, &["keys", "list", "--server", "gate.example"]).await.says(&["management API"]);
    let _ = asked(&key, &["keys", "list", "--server", "http://192.0.2.1"]).await.says(&["--insecure-http"]);
    let _ = asked(&key, &["keys", "list", "--insecure-http"]).await.says(&["--server"]);
    let _ = asked(&key, &[&list[..], &["--server-ca", "ca.pem"]].concat()).await.says(&["https"]);
    let https = ["keys", "list", "--server", "https://127.0.0.1:1", "--server-ca", "nowhere.pem"];
    let _ = asked(&key, &https).await.says(&["nowhere.pem"]);
    let before = ["keys", "--server", &far.server, "list"];
    let _ = site.far_cli(&key, &before, "").await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_not_there() {
    let far = Far::open("").await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}", taken.local_addr().unwrap());
    drop(taken);
    let key = [("PORTCULLIS_KEY", far.key.text.as_str())];
    let said = far.gateway.far_cli(&key, &["keys", "list", "--server", &nowhere], "").await;
    let _ = said.exit(4).says(&["cannot reach", &nowhere]);
}

/// What a server that answers only some requests was asked.
async fn deaf_server(answers: &'static str, deaf_to: usize) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        while let Ok(Ok((mut stream, _))) =
            tokio::time::timeout(patient(std::time::Duration::from_secs(4)), listener.accept()).await
        {
            let mut bytes = vec![0; 64 * 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            asked.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
            if asked.len() > deaf_to {
                let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{answers}", answers.len());
                stream.write_all(head.as_bytes()).await.unwrap();
                break;
            }
        }
        asked
    });
    (url, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_only_where_that_makes_nothing_twice() {
    let (site, _origin) = scene::closed_shop().await;
    let env = [("PORTCULLIS_KEY", "some-management-key")];
    let (url, asked) = deaf_server(r#"{"id":"own_1","name":"ACME"}"#, 2).await;
    let create = ["owners", "create", "--name", "ACME", "--output", "json", "--server", &url];
    let made = site.far_cli(&env, &create, "").await.success().json();
    assert_eq!(made["name"], "ACME");
    let asked = asked.await.unwrap();
    assert_eq!(asked.len(), 3);
    let key_of = |request: &String| {
        let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with("idempotency-key:"));
        line.map(str::to_owned)
    };
    assert!(key_of(&asked[0]).is_some() && asked.iter().all(|request| key_of(request) == key_of(&asked[0])));
    assert!(asked.iter().all(|request| request.contains("authorization: Bearer some-management-key")));

    let (url, asked) = deaf_server("{}", 9).await;
    let revoke = ["keys", "revoke", "key_0190a0b0c0d07e0f8000000000000000", "--server", &url];
    let _ = site.far_cli(&env, &revoke, "").await.exit(4).says(&["no answer", "not known"]);
    let asked = asked.await.unwrap();
    assert!(asked.len() == 1 && key_of(&asked[0]).is_none(), "{}", asked.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_imported_over_the_network_as_they_are_here() {
    let far = Far::open("").await;
    let vault = far.gateway.site().vault();
    for secret in ["legacy-far-away-0001", "legacy-far-away-0002"] {
        vault.keep(secret);
    }
    let file = |name: &str, text: &str| far.gateway.write(name, text).to_str().unwrap().to_owned();
    let csv = file("a.csv", "name,scopes,key\none,read:orders,legacy-far-away-0001\n");
    let said = far.say(&["keys", "import", &csv, "--dry-run"]).await.success();
    assert_eq!(said.stdout, "would import 1 keys\n");
    let said = far.say(&["keys", "import", &csv]).await.success();
    assert_eq!(said.stdout, "imported 1 keys\n");
    far.gateway.get("/v1/orders/1").header("x-api-key", "legacy-far-away-0001").await.expect(200);

    let lines = "{\"name\":\"good\",\"scopes\":[],\"key\":\"legacy-far-away-0002\"}\n\n\
                 {\"name\":\"bad\",\"scopes\":[\"raed:orders\"],\"key\":\"legacy-far-away-0003\"}\n\
                 {\"name\":\"taken\",\"scopes\":[],\"key\":\"legacy-far-away-0001\"}\n{\"broken\n";
    let jsonl = file("b.jsonl", lines);
    let refused = far.say(&["keys", "import", &jsonl]).await.exit(1);
    let refused =
        refused.says(&["b.jsonl:3: ", "b.jsonl:4: this key is in the store already", "b.jsonl:5: ", "3 bad rows"]);
    assert_eq!(refused.stdout, "");
    let done = far.feed(&["keys", "import", "-", "--format", "jsonl", "--skip-bad", "--output", "json"], lines).await;
    let done = done.success().says(&["standard input:3: ", "standard input:5: "]).json();
    assert_eq!((&done["imported"], &done["skipped"]), (&json!(1), &json!(3)), "{done}");
    far.same(&["keys", "import", &jsonl, "--skip-bad"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_arrives_in_pieces_all_or_none() {
    let far = Far::open("").await;
    let text = "x".repeat(2_000);
    let row = |n: usize, scope: &str| {
        let row = json!({ "name": "n", "scopes": [scope], "hash": format!("sha256:{n:064x}"), "description": text });
        format!("{row}\n")
    };
    let good: String = (1..=4_100).map(|n| row(n, "read:orders")).collect();
    let bad = format!("{good}{}", row(9_999, "raed:orders"));
    let import = async |text: &str| {
        let file = far.gateway.write("large.jsonl", text);
        far.say(&["keys", "import", file.to_str().unwrap()]).await
    };
    let _ = import(&bad).await.exit(1).says(&["large.jsonl:4101: ", "1 bad row"]);
    assert_eq!(far.json(&["keys", "list", "--name", "n"]).await, json!([]), "nothing of the first piece was imported");
    assert_eq!(import(&good).await.success().stdout, "imported 4100 keys\n");
    let listed = far.json(&["keys", "list", "--name", "n"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 4_100, "more than a page");
}

#[tokio::test(flavor = "multi_thread")]
async fn https_believes_the_authority_that_is_named_and_no_other() {
    let far = Far::open("").await;
    let ca = TestCa::new("ours");
    let identity = ca.server(&["localhost"]);
    // TLS in front of the management listener, as docs/api.md recommends.
    let front = front(&far, &identity.cert, &identity.key).await;
    let url = format!("https://localhost:{}", front.data().port());
    let key = [("PORTCULLIS_KEY", far.key.text.as_str())];
    let authority = far.gateway.write("ca.pem", ca.pem());
    let stranger = far.gateway.write("stranger.pem", TestCa::new("theirs").pem());
    let list = async |ca: &std::path::Path, url: &str| {
        let args = ["keys", "list", "--output", "json", "--server", url, "--server-ca", ca.to_str().unwrap()];
        far.gateway.far_cli(&key, &args, "").await
    };
    let listed = list(&authority, &url).await.success().json();
    assert_eq!(listed[0]["id"], far.key.id.as_str());
    let _ = list(&stranger, &url).await.exit(4).says(&["cannot reach", "--server-ca"]);
    let other_name = url.replace("localhost", "127.0.0.1");
    let _ = list(&authority, &other_name).await.exit(4).says(&["cannot reach"]);
}

async fn front(far: &Far, cert: &str, key: &str) -> Gateway {
    let config = r#"
listeners: [{ bind: "127.0.0.1:0", name: front, tls: edge }]
tls: { edge: { certificates: [{ cert: cert.pem, key: key.pem }] } }
upstreams:
  api: { targets: [{ url: "http://{{api}}" }] }
routes:
  - { path: "/**", name: all, upstream: api, auth: none, accept: [] }
"#;
    let builder = scene::site(config).fill("api", far.gateway.admin_address());
    builder.file("cert.pem", cert).file("key.pem", key).start().await
}
