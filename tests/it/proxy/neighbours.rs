//! A real server behind the gateway: whatever it makes of a path or a frame, nobody gets at what is protected.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use portcullis_testkit::eventually;

use crate::{scene, tools};

/// nginx with a public and a protected place, writing down every request it reads.
struct Nginx {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Nginx {
    fn start(program: &PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // nginx cannot say which port it took; one that was free a moment ago almost certainly is.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = directory.path().display();
        let config = format!(
            "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 128; }}\n\
             http {{\n\
               log_format seen '$request_method $uri'; access_log {here}/access.log seen;\n\
               client_body_temp_path {here}/t1; proxy_temp_path {here}/t2; fastcgi_temp_path {here}/t3;\n\
               uwsgi_temp_path {here}/t4; scgi_temp_path {here}/t5;\n\
               server {{\n\
                 listen 127.0.0.1:{port};\n\
                 location / {{ return 200 'ROOT'; }}\n\
                 location /public/ {{ return 200 'PUBLIC'; }}\n\
                 location ~* admin {{ return 200 'ADMIN'; }}\n\
               }}\n\
             }}\n"
        );
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new(program)
            .args(["-c", path.to_str().unwrap(), "-p", directory.path().to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, directory, port }
    }

    fn seen(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An orderly end takes its workers along.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.process),
            rustix::process::Signal::TERM,
        );
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_public_path_shows_what_nginx_has_behind_a_protected_one() {
    let Some(program) = tools::find("nginx") else { return };
    let nginx = Nginx::start(&program);
    eventually!("nginx listens", tokio::net::TcpStream::connect(("127.0.0.1", nginx.port)).await);
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { web: { targets: [{ url: "http://127.0.0.1:{{port}}" }] } }
scopes: { admin: { title: Administration } }
routes:
  - { path: "/public/**", upstream: web, auth: none }
  - { path: "/public/admin/**", upstream: web, scopes: admin }
  - { path: "/admin/**", upstream: web, scopes: admin }
"#;
    let gateway = scene::site(config).fill("port", nginx.port).start().await;
    assert_eq!(gateway.get("/public/x").facts(portcullis_testkit::Facts::none()).await.text(), "PUBLIC");
    let admin = gateway.key("admin", "admin").await;
    let shown = gateway.get("/admin").bearer(&admin).facts(portcullis_testkit::Facts::none()).await;
    assert_eq!(shown.text(), "ADMIN");

    let dots =
        ["..", "%2e%2e", ".%2e", "%2E.", "..;", "..;x", "%252e%252e", "..%00", "..%5c", "..%2f", "...", ".", "%2e", ""];
    let slashes = ["/", "//", "%2f", "%2F", "%5c", "\\", "/./", "/;/", "%252f"];
    let words = ["admin", "ADMIN", "%61dmin", "%2561dmin", "admin;x", "admin%20", "admin%3b", "admin.json", "admin/"];
    for dot in dots {
        for slash in slashes {
            for word in words {
                let mut raw = gateway.raw().await.facts(portcullis_testkit::Facts::none());
                raw.send(format!(
                    "GET /public/{dot}{slash}{word} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"
                ))
                .await;
                let answer = raw.response().await;
                // `.json`, `%20` and the like make other names of other things, which nginx here calls admin, too;
                // only what the gateway itself calls public may come through.
                let told = answer.text();
                let own_name = dot == "..." || word.starts_with("admin%20") || word == "admin.json";
                assert!(told != "ADMIN" || own_name, "{dot}{slash}{word}: {answer:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_sees_no_request_that_the_gateway_does_not_know_of() {
    let Some(program) = tools::find("nginx") else { return };
    let nginx = Nginx::start(&program);
    eventually!("nginx listens", tokio::net::TcpStream::connect(("127.0.0.1", nginx.port)).await);
    let gateway = scene::open_door(&format!("127.0.0.1:{}", nginx.port), "").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked, cow",
        "Content-Length: 0\r\nContent-Length: 44",
        "Content-Length: 0, 44",
        "X: 1\nTransfer-Encoding: chunked",
        "Content_Length: 44",
        "Connection: Content-Length\r\nContent-Length: 44",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
        "Expect: 100-continue\r\nContent-Length: 0",
    ] {
        let mut raw = gateway.raw().await.facts(portcullis_testkit::Facts::none());
        raw.send(format!("POST /outer HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n\r\n0\r\n\r\n{smuggled}")).await;
        raw.half_close().await;
        raw.rest().await;
    }
    gateway.get("/last").facts(portcullis_testkit::Facts::none()).await.expect(200);
    eventually!("nginx has written the last line", nginx.seen().iter().any(|line| line == "GET /last"));
    let unknown = || {
        let logs = gateway.logs();
        let mut unknown = nginx.seen();
        for line in logs.access().iter().filter(|line| line["upstream"] == "far") {
            let line = format!("{} {}", line["method"].as_str().unwrap(), line["path"].as_str().unwrap());
            if let Some(at) = unknown.iter().position(|seen| *seen == line) {
                unknown.swap_remove(at);
            }
        }
        unknown
    };
    // Every worker writes its lines within a tenth of a second.
    eventually!("every request that nginx read is one that the gateway says it forwarded", unknown().is_empty());
}
