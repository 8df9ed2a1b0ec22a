//! A real server behind the gateway: whatever it makes of a path, nobody gets at what is protected.

use crate::scene;
use crate::servers::{Server, free_port};

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_public_path_shows_what_nginx_has_behind_a_protected_one() {
    let places = "location / { return 200 'ROOT'; } location /public/ { return 200 'PUBLIC'; } \
                  location ~* admin { return 200 'ADMIN'; }";
    let Some(nginx) = Server::nginx(free_port(), places, "").await else { return };
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { web: { targets: [{ url: "http://{{nginx}}" }] } }
scopes: { admin: { title: Administration } }
routes:
  - { path: "/public/**", upstream: web, auth: none }
  - { path: "/public/admin/**", upstream: web, scopes: admin }
  - { path: "/admin/**", upstream: web, scopes: admin }
"#;
    let gateway = scene::site(config).fill("nginx", nginx.address()).start().await;
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
