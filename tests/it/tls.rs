//! TLS at the edge: names, protocols, versions, certificates of clients, and new files without a restart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis_testkit::{
    Call, Connection, Gateway, KeySpec, Origin, RawClient, Site, SiteBuilder, TestCa, TlsClient, eventually,
};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{scene, tools};

fn edge(origin: &Origin, tls: &str) -> SiteBuilder {
    edge_with(origin, tls, "")
}

fn edge_with(origin: &Origin, tls: &str, sections: &str) -> SiteBuilder {
    scene::site(&edge_config(tls, sections)).upstream("shop", origin)
}

fn edge_config(tls: &str, sections: &str) -> String {
    format!(
        r#"
{sections}
listeners: [{{ bind: "127.0.0.1:0", name: edge, tls: edge }}]
tls: {{ edge: {tls} }}
upstreams: {{ shop: {{ targets: [{{ url: "http://{{{{shop}}}}" }}] }} }}
routes: [{{ path: "/**", upstream: shop, auth: none }}]
"#
    )
}

const ONE: &str = "{ certificates: [{ cert: one.pem, key: one.key }] }";
const TWO: &str = "{ certificates: [{ cert: one.pem, key: one.key }, { cert: two.pem, key: two.key }] }";

/// A gateway with certificates for `localhost` and `two.test`, and the authority behind them.
async fn two_names() -> (Gateway, Origin, TestCa) {
    let (ca, origin) = (TestCa::new("test authority"), Origin::start().await);
    let (one, two) = (ca.server(&["localhost"]), ca.server(&["two.test", "*.two.test"]));
    let gateway = edge(&origin, TWO)
        .file("one.pem", one.cert)
        .file("one.key", one.key)
        .file("two.pem", two.cert)
        .file("two.key", two.key)
        .start()
        .await;
    (gateway, origin, ca)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_chosen_by_the_name_asked_for() {
    let (gateway, _origin, ca) = two_names().await;
    let client = ca.believer();
    for name in ["localhost", "two.test", "a.two.test"] {
        gateway.get("/").tls(&client.clone().server_name(name)).await.expect(200);
    }
    let other = gateway.get("/").tls(&client.server_name("three.test")).attempt().await;
    assert!(other.is_err(), "the first certificate is no certificate for three.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_agreed_by_alpn() {
    let (gateway, origin, ca) = two_names().await;
    let client = ca.believer();
    let answer = gateway.get("/").tls(&client).h2().await.expect(200);
    assert_eq!(answer.version, http::Version::HTTP_2);
    let answer = gateway.get("/").tls(&client.clone().alpn(&["http/1.1"])).await.expect(200);
    assert_eq!(answer.version, http::Version::HTTP_11);
    gateway.get("/").tls(&client).await.expect(200);
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_are_served_after_a_reload_and_old_connections_live_on() {
    let (ca, next) = (TestCa::new("this year's"), TestCa::new("next year's"));
    let origin = Origin::start().await;
    let one = ca.server(&["localhost"]);
    let gateway = edge(&origin, ONE).file("one.pem", one.cert).file("one.key", one.key).start().await;
    let mut old = Connection::tls(gateway.data(), &ca.believer()).await.unwrap();
    old.send(gateway.get("/")).await.expect(200);

    let fresh = next.server(&["localhost"]);
    gateway.write("one.pem", &fresh.cert);
    gateway.write("one.key", &fresh.key);
    let _ = gateway.cli(&["reload"]).await.success();
    eventually!("the new certificate is served", gateway.get("/").tls(&next.believer()).attempt().await.is_ok());
    assert!(gateway.get("/").tls(&ca.believer()).attempt().await.is_err());
    old.send(gateway.get("/")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_fit_its_key_is_refused_and_the_old_one_stays() {
    let ca = TestCa::new("test authority");
    let origin = Origin::start().await;
    let (one, other) = (ca.server(&["localhost"]), ca.server(&["localhost"]));
    let gateway = edge(&origin, ONE).file("one.pem", one.cert).file("one.key", one.key).start().await;
    gateway.write("one.key", &other.key);
    let refused = gateway.cli(&["reload"]).await;
    assert_ne!(refused.code, 0, "{refused:?}");
    let _ = refused.says(&["one.key"]);
    gateway.get("/").tls(&ca.believer()).await.expect(200);

    let missing = edge(&origin, ONE).file("one.pem", other.cert.clone()).prepare();
    let _ = missing.cli(&["check"]).await.exit(3).says(&["one.key"]);
    // `check` looks into the files and says where they are named.
    let third = ca.server(&["localhost"]);
    for (cert, key, says) in [
        (other.cert.as_str(), third.key.as_str(), "does not belong"),
        ("garbage", other.key.as_str(), "holds no certificate"),
        (other.cert.as_str(), "garbage", "holds no private key"),
    ] {
        let site = edge(&origin, ONE).file("one.pem", cert).file("one.key", key).prepare();
        let _ = site.cli(&["check"]).await.exit(3).says(&["bad-certificate", says, "portcullis.yaml:"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oldest_version_can_be_set() {
    let ca = TestCa::new("test authority");
    let origin = Origin::start().await;
    for (version, old_client_is_served) in [("\"1.2\"", true), ("\"1.3\"", false)] {
        let one = ca.server(&["localhost"]);
        let tls = format!("{{ certificates: [{{ cert: one.pem, key: one.key }}], min_version: {version} }}");
        let gateway = edge(&origin, &tls).file("one.pem", one.cert).file("one.key", one.key).start().await;
        gateway.get("/").tls(&ca.believer()).await.expect(200);
        let old = gateway.get("/").tls(&ca.believer().only_tls12()).attempt().await;
        assert_eq!(old.is_ok(), old_client_is_served, "{version}: {old:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_can_be_asked_for_a_certificate() {
    let (ca, strangers) = (TestCa::new("ours"), TestCa::new("theirs"));
    let origin = Origin::start().await;
    for (required, anonymous_is_served) in [(true, false), (false, true)] {
        let one = ca.server(&["localhost"]);
        let tls = format!(
            "{{ certificates: [{{ cert: one.pem, key: one.key }}], client_certificates: {{ ca: ca.pem, required: {required} }} }}"
        );
        let gateway = edge(&origin, &tls)
            .file("one.pem", one.cert)
            .file("one.key", one.key)
            .file("ca.pem", ca.pem())
            .start()
            .await;
        let client = ca.believer();
        gateway.get("/").tls(&client.clone().showing(&ca.client("me"))).await.expect(200);
        let stranger = gateway.get("/").tls(&client.clone().showing(&strangers.client("me"))).attempt().await;
        assert!(stranger.is_err(), "a certificate that is shown must be signed by ours");
        let anonymous = gateway.get("/").tls(&client).attempt().await;
        assert_eq!(anonymous.is_ok(), anonymous_is_served, "{anonymous:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleartext_listener_can_send_everybody_to_https() {
    let origin = Origin::start().await;
    let config = r#"
listeners: [{ bind: "127.0.0.1:0", redirect_https: true }]
upstreams: { shop: { targets: [{ url: "http://{{shop}}" }] } }
routes: [{ path: "/**", upstream: shop, auth: none }]
"#;
    let gateway = scene::site(config).upstream("shop", &origin).start().await;
    let answer = gateway.get("/a/b?c=d").host("shop.example.com").await;
    assert!(matches!(answer.status, 301 | 307 | 308), "{answer:?}");
    assert_eq!(answer.header("location"), Some("https://shop.example.com/a/b?c=d"));
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_shakes_hands_is_let_go() {
    let ca = TestCa::new("test authority");
    let origin = Origin::start().await;
    let one = ca.server(&["localhost"]);
    let config = format!(
        r#"
limits: {{ handshake_timeout: 500ms }}
listeners: [{{ bind: "127.0.0.1:0", tls: edge }}]
tls: {{ edge: {ONE} }}
upstreams: {{ shop: {{ targets: [{{ url: "http://{{{{shop}}}}" }}] }} }}
routes: [{{ path: "/**", upstream: shop, auth: none }}]
"#
    );
    let gateway =
        scene::site(&config).upstream("shop", &origin).file("one.pem", one.cert).file("one.key", one.key).start().await;
    let mut silent = RawClient::connect(gateway.data()).await;
    assert!(silent.is_closed_within(Duration::from_secs(5)).await);
    let mut talker = RawClient::connect(gateway.data()).await;
    talker.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let said = talker.rest().await;
    assert!(!said.starts_with(b"HTTP/1.1 200"), "cleartext on a TLS listener: {said:?}");
    gateway.get("/").tls(&ca.believer()).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_certificate_is_a_metric() {
    let (gateway, _origin, _ca) = two_names().await;
    let metrics = gateway.metrics().await;
    let ends: Vec<f64> = metrics
        .matching("portcullis_tls_certificate_not_after_timestamp_seconds", &[])
        .map(|sample| sample.value)
        .collect();
    assert!(!ends.is_empty() && ends.iter().all(|end| *end > 1.7e9), "{}", metrics.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_is_read_from_listed_peers_and_from_nobody_else() {
    let config = |from: &str| {
        format!(
            r#"
listeners: [{{ bind: "127.0.0.1:0", proxy_protocol: {{ from: [{from}] }} }}]
upstreams: {{ shop: {{ targets: [{{ url: "http://{{{{shop}}}}" }}] }} }}
routes: [{{ path: "/**", upstream: shop, auth: none }}]
"#
        )
    };
    let origin = Origin::start().await;
    let gateway = scene::site(&config("127.0.0.0/8")).upstream("shop", &origin).start().await;
    let mut raw = gateway.raw().await;
    raw.send("PROXY TCP4 203.0.113.7 127.0.0.1 5000 80\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    raw.response().await.expect(200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("203.0.113.7"));
    assert!(Call::to(gateway.data(), "GET", "/").attempt().await.is_err(), "a listed peer must begin with one");
    assert_eq!(origin.count(), 1);

    let gateway = scene::site(&config("10.0.0.0/8")).upstream("shop", &origin).start().await;
    let mut raw = gateway.raw().await;
    raw.send("PROXY TCP4 203.0.113.7 127.0.0.1 5000 80\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let said = raw.rest().await;
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{said:?}");
    assert_eq!(origin.count(), 1);
}

/// A resumed or full handshake, one request, and the connection, which stays open.
async fn open_and_ask(gateway: &Gateway, client: &TlsClient) -> (HandshakeKind, RawClient) {
    let socket = TcpStream::connect(gateway.data()).await.unwrap();
    let stream = client.handshake(socket).await.unwrap();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    let mut raw = RawClient::over(stream);
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    raw.response().await.expect(200);
    (kind, raw)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_by_every_worker_and_after_every_reload() {
    let (ca, origin) = (TestCa::new("test authority"), Origin::start().await);
    let one = ca.server(&["localhost"]);
    let gateway = edge_with(&origin, ONE, "workers: 2").file("one.pem", one.cert).file("one.key", one.key);
    let gateway = gateway.start().await;
    for client in [ca.believer(), ca.believer().only_tls12()] {
        let client = client.remembering();
        // A connection goes to the worker with the fewest: of those that stay open, each worker has half.
        let mut open = Vec::new();
        for number in 0..6 {
            let (kind, connection) = open_and_ask(&gateway, &client).await;
            let expected = if number == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(kind, expected, "connection {number}");
            open.push(connection);
        }
        // Another certificate of the same authority: a renewal.
        let renewed = ca.server(&["localhost"]);
        gateway.write("one.pem", &renewed.cert);
        gateway.write("one.key", &renewed.key);
        let _ = gateway.cli(&["reload"]).await.success();
        for number in 0..2 {
            let (kind, connection) = open_and_ask(&gateway, &client).await;
            assert_eq!(kind, HandshakeKind::Resumed, "connection {number} after the reload");
            open.push(connection);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_brings_one_ticket() {
    let (gateway, _origin, ca) = two_names().await;
    let socket = TcpStream::connect(gateway.data()).await.unwrap();
    let mut stream = ca.believer().handshake(socket).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // Tickets come before the answer.
    stream.read_exact(&mut [0]).await.unwrap();
    assert_eq!(stream.get_ref().1.tls13_tickets_received(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stands_in_for_no_client_certificate() {
    let (ca, origin) = (TestCa::new("test authority"), Origin::start().await);
    let one = ca.server(&["localhost"]);
    let asked = |required: bool| {
        format!(
            "{{ certificates: [{{ cert: one.pem, key: one.key }}], client_certificates: {{ ca: ca.pem, required: {required} }} }}"
        )
    };
    let site = edge_with(&origin, ONE, "").file("one.pem", one.cert).file("one.key", one.key).file("ca.pem", ca.pem());
    let gateway = site.start().await;
    for client in [ca.believer(), ca.believer().only_tls12()] {
        assert!(gateway.reload_with(&edge_config(ONE, "")).await);
        let anonymous = client.remembering();
        open_and_ask(&gateway, &anonymous).await;
        assert_eq!(open_and_ask(&gateway, &anonymous).await.0, HandshakeKind::Resumed);
        assert!(gateway.reload_with(&edge_config(&asked(false), "")).await);
        for _ in 0..2 {
            assert_eq!(open_and_ask(&gateway, &anonymous).await.0, HandshakeKind::Full, "clients are asked");
        }
        assert!(gateway.reload_with(&edge_config(&asked(true), "")).await);
        assert!(gateway.get("/").tls(&anonymous).attempt().await.is_err(), "its ticket stands in for no certificate");
    }
}

/// Makes `FILE` a response of the authority about `cert`, valid for a day. `state` is as in an index of `openssl ca`.
async fn respond(openssl: &Path, site: &Site, cert: &str, state: &str, file: &str) {
    let path = |name: &str| site.path(name).display().to_string();
    let (code, serial) = tools::run(openssl, &["x509", "-noout", "-serial", "-in", &path(cert)], "").await;
    assert_eq!(code, 0, "{serial}");
    let serial = serial.trim().trim_start_matches("serial=");
    let (revoked, kind) = if state == "R" { ("200101000000Z", "R") } else { ("", "V") };
    site.write("index.txt", format!("{kind}\t991231235959Z\t{revoked}\t{serial}\tunknown\t/CN=localhost\n"));
    let (ca, key, index) = (path("ca.pem"), path("ca.key"), path("index.txt"));
    let made = tools::run(
        openssl,
        &[
            "ocsp",
            "-index",
            &index,
            "-CA",
            &ca,
            "-rsigner",
            &ca,
            "-rkey",
            &key,
            "-issuer",
            &ca,
            "-cert",
            &path(cert),
            "-ndays",
            "1",
            "-noverify",
            "-respout",
            &path(file),
        ],
        "",
    )
    .await;
    assert_eq!(made.0, 0, "{}", made.1);
}

/// What openssl's client says about the response it asked for.
async fn shown(openssl: &Path, gateway: &Gateway, version: &str) -> String {
    let address = gateway.data().to_string();
    let args = ["s_client", "-connect", &address, "-servername", "localhost", "-status", version];
    let (_, said) = tools::run(openssl, &args, "").await;
    let lines = said.lines().filter(|line| line.contains("OCSP response") || line.contains("Cert Status"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ocsp_response_is_stapled_while_it_is_good() {
    let Some(openssl) = tools::find("openssl") else { return };
    let (ca, origin) = (TestCa::new("test authority"), Origin::start().await);
    let (one, renewed) = (ca.server(&["localhost"]), ca.server(&["localhost"]));
    let site = edge(&origin, "{ certificates: [{ cert: one.pem, key: one.key, ocsp: one.ocsp }] }")
        .file("one.pem", one.cert)
        .file("one.key", one.key)
        .file("renewed.pem", renewed.cert)
        .file("ca.pem", ca.pem())
        .file("ca.key", ca.key())
        .prepare();
    let missing = site.cli(&["check"]).await.exit(0);
    let _ = missing.says(&["tls.edge.certificates[0].ocsp", "cannot read the OCSP response", "one.ocsp"]);
    let _ = site.cli(&["check", "--strict"]).await.exit(6);
    respond(&openssl, &site, "one.pem", "V", "good.der").await;
    respond(&openssl, &site, "one.pem", "R", "revoked.der").await;
    respond(&openssl, &site, "renewed.pem", "V", "other.der").await;
    let _ = site.cli(&["check"]).await.exit(0);

    // It starts without one, says so, and staples nothing.
    let gateway = site.start().await;
    eventually!("the log says so", gateway.logs().text().contains("no OCSP response is stapled"));
    assert_eq!(shown(&openssl, &gateway, "-tls1_3").await, "OCSP response: no response sent");
    for (file, stapled, said) in [
        ("good.der", true, ""),
        ("revoked.der", false, "says that the certificate is revoked"),
        ("good.der", true, ""),
        ("other.der", false, "is about another certificate"),
        ("good.der", true, ""),
        ("one.pem", false, "is no OCSP response in DER"),
    ] {
        std::fs::copy(site.path(file), site.path("one.ocsp")).unwrap();
        let _ = gateway.cli(&["reload"]).await.success();
        for version in ["-tls1_2", "-tls1_3"] {
            let shown = shown(&openssl, &gateway, version).await;
            let expected = if stapled { "OCSP response: Cert Status: good" } else { "OCSP response: no response sent" };
            assert_eq!(shown, expected, "{file} {version}");
        }
        gateway.get("/").tls(&ca.believer()).await.expect(200);
        if stapled {
            let _ = site.cli(&["check", "--strict"]).await.success();
        } else {
            eventually!("the log says why", gateway.logs().text().contains(said));
            let _ = site.cli(&["check"]).await.exit(0).says(&["one.ocsp", said]);
        }
    }
}

/// Asks over one connection, one request after the other, until `over`; how long each took, the shortest first.
async fn ask_until(mut connection: RawClient, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        connection.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        connection.response().await.expect(200);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took
}

/// Without turns one worker worked the whole flood off in one go: each of the two connections got one or two answers
/// meanwhile, after 230 to 350 ms, which is all the time the flood took. With turns each got about 150 answers, half of
/// them within 4 to 8 ms. (A debug build on two busy processors; a handshake cost it 0.6 ms.)
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_handshakes_leaves_those_who_are_in_alone() {
    const FLOOD: usize = 400;
    let (ca, origin) = (TestCa::new("test authority"), Origin::start().await);
    let one = ca.server(&["localhost"]);
    let config =
        edge_config(ONE, "workers: 1").replace("listeners: [", "listeners: [{ bind: \"127.0.0.1:0\", name: clear }, ");
    let site = scene::site(&config).upstream("shop", &origin).file("one.pem", one.cert).file("one.key", one.key);
    let gateway = site.start().await;
    let (clear, edge) = (gateway.listener("clear").await, gateway.listener("edge").await);
    let inside = RawClient::over(ca.believer().handshake(TcpStream::connect(edge).await.unwrap()).await.unwrap());
    let clear = RawClient::connect(clear).await;
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        flood.push(TcpStream::connect(edge).await.unwrap());
    }
    let over = Arc::new(AtomicBool::new(false));
    let askers = [inside, clear].map(|connection| tokio::spawn(ask_until(connection, Arc::clone(&over))));
    // The clients do no work, and each has the server compute a whole full handshake.
    let hello = ca.believer().hello();
    let begun = Instant::now();
    for client in &mut flood {
        client.write_all(&hello).await.unwrap();
    }
    for client in &mut flood {
        client.read_exact(&mut [0]).await.unwrap();
    }
    let flooded = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    for asker in askers {
        let took = asker.await.unwrap();
        let usual = took[took.len() / 2];
        assert!(
            took.len() >= 20 && usual < flooded / 10,
            "{} answers in {flooded:?}, half within {usual:?}",
            took.len()
        );
    }
}

/// Whether there is no end behind what can be read now.
fn is_open(client: &TcpStream) -> bool {
    let mut read = [0; 4096];
    loop {
        match client.try_read(&mut read) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_begin_handshakes_and_fall_silent_keep_nobody_out() {
    let (ca, origin) = (TestCa::new("test authority"), Origin::start().await);
    let one = ca.server(&["localhost"]);
    let site = edge_with(&origin, ONE, "workers: 1\nlimits: { tls_handshakes: 16, handshake_timeout: 5m }");
    let gateway = site.file("one.pem", one.cert).file("one.key", one.key).start().await;
    let hello = ca.believer().hello();
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(gateway.data()).await.unwrap();
        client.write_all(&hello).await.unwrap();
        // It was answered, so its turn comes before the next one's.
        client.read_exact(&mut [0]).await.unwrap();
        silent.push(client);
    }
    gateway.get("/").tls(&ca.believer()).await.expect(200);
    let (oldest, newest) = silent.split_at(4);
    for client in oldest {
        eventually!("it gives way", !is_open(client));
    }
    assert!(is_open(&newest[15]), "the newest is waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_listener_speaks_tls_with_the_certificates_that_it_names() {
    let (ca, next) = (TestCa::new("this year's"), TestCa::new("next year's"));
    let one = ca.server(&["localhost"]);
    let tls = format!("tls: {{ edge: {ONE} }}\nadmin: {{ bind: \"127.0.0.1:0\", socket: s.sock, tls: edge }}");
    let origin = Origin::start().await;
    let gateway = scene::site(&scene::shop_config("", &tls))
        .upstream("shop", &origin)
        .file("one.pem", one.cert)
        .file("one.key", one.key)
        .start()
        .await;
    let spec = KeySpec::new("operator", "portcullis:keys:read").kind("management");
    let operator = gateway.key_of(spec).await;
    let ask = || Call::to(gateway.admin_address(), "GET", "/v1/keys").bearer(&operator);
    let client = ca.believer();
    for (call, version) in [
        (ask().tls(&client.clone().alpn(&["http/1.1"])), http::Version::HTTP_11),
        (ask().tls(&client).h2(), http::Version::HTTP_2),
    ] {
        let answer = call.await.expect(200);
        assert_eq!(answer.version, version);
        assert_eq!(answer.json()["data"].as_array().unwrap().len(), 1);
    }
    assert!(ask().attempt().await.is_err(), "nothing is said in the clear");

    let fresh = next.server(&["localhost"]);
    gateway.write("one.pem", &fresh.cert);
    gateway.write("one.key", &fresh.key);
    let _ = gateway.cli(&["reload"]).await.success();
    eventually!("the new certificate is served", ask().tls(&next.believer()).attempt().await.is_ok());
    assert!(ask().tls(&client).attempt().await.is_err());
}
