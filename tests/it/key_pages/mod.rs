//! What five services promise their customers about keys, kept by the gateway in front of them: a page, a test.

mod bearer;
mod environments;
mod kinds;
mod over_http;
mod pairs;

use portcullis_testkit::{Gateway, Key, Origin, Response};
use serde_json::Value;

use crate::scene;

/// A service behind the gateway.
pub struct Service {
    pub gateway: Gateway,
    pub origin: Origin,
}

impl Service {
    /// With an upstream `app`.
    pub async fn start(config: &str) -> Self {
        let origin = Origin::start().await;
        let upstreams = "listeners: [{ bind: \"127.0.0.1:0\", name: front }]\n\
                         upstreams: { app: { targets: [{ url: \"http://{{app}}\" }] } }\n";
        let gateway = scene::site(&format!("{upstreams}{config}")).upstream("app", &origin).start().await;
        Self { gateway, origin }
    }

    /// An account of a customer.
    pub async fn account(&self, name: &str) -> String {
        let made = self.gateway.site().cli(&["owners", "create", "--name", name, "--output", "json"]).await.success();
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// The key that an answer shows, which must never be seen again.
    pub fn taken(&self, answer: &Response, record: &Value) -> Key {
        let text = |field: &str| {
            record[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", answer.text())).to_owned()
        };
        let key = Key { id: text("id"), text: text("key"), prefix: text("prefix"), record: record.clone() };
        self.gateway.site().vault().keep(&key.text);
        key
    }
}
