//! The usual arrangement: a shop behind the gateway.

use portcullis_testkit::{Gateway, Origin, Site, SiteBuilder};

/// The executable under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// The shop's routes. `orders` needs scopes, `/me` and `any` a key, `/status` and `open` nothing.
const SHOP: &str = r#"
listeners:
  - { bind: "127.0.0.1:0", name: front }
upstreams:
  shop: { targets: [{ url: "http://{{shop}}" }] }
scopes:
  read:orders: { title: Read orders }
  write:orders: { title: Create and change orders }
routes:
  - path: /v1/orders/**
    name: orders
    upstream: shop
    methods:
      GET: { scopes: read:orders }
      POST: { scopes: write:orders }
  - path: /me
    upstream: shop
    auth: any_key
    methods: { GET: {} }
  - path: /status
    upstream: shop
    auth: none
    methods: { GET: {} }
  - { path: "/any/**", name: any, upstream: shop, auth: any_key }
  - { path: "/open/**", name: open, upstream: shop, auth: none }
"#;

/// A configuration text for the executable, or for the one that `PORTCULLIS_TEST_BINARY` names: figures are taken of the
/// one that is released.
pub fn site(config: &str) -> SiteBuilder {
    Site::with(std::env::var_os("PORTCULLIS_TEST_BINARY").unwrap_or_else(|| BINARY.into())).config(config)
}

/// The shop's configuration with more routes and more sections.
pub fn shop_config(routes: &str, sections: &str) -> String {
    format!("{sections}\n{SHOP}{routes}\n")
}

/// The running shop.
pub async fn shop() -> (Gateway, Origin) {
    shop_with("", "").await
}

/// The running shop with more routes and more sections.
pub async fn shop_with(routes: &str, sections: &str) -> (Gateway, Origin) {
    let origin = Origin::start().await;
    let gateway = site(&shop_config(routes, sections)).upstream("shop", &origin).start().await;
    (gateway, origin)
}

/// The shop before anything runs: for the command line and for keys that exist before the first start.
pub async fn closed_shop() -> (Site, Origin) {
    let origin = Origin::start().await;
    let site = site(&shop_config("", "")).upstream("shop", &origin).prepare();
    (site, origin)
}

/// A gateway that forwards everything, without asking for a key, to one address.
pub async fn open_door(authority: &str, sections: &str) -> Gateway {
    let config = format!(
        r#"
{sections}
listeners: [{{ bind: "127.0.0.1:0", name: front }}]
upstreams:
  far: {{ targets: [{{ url: "http://{{{{far}}}}" }}] }}
routes:
  - {{ path: "/**", name: all, upstream: far, auth: none }}
"#
    );
    site(&config).fill("far", authority).start().await
}
