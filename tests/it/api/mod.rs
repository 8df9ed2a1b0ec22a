//! The management API, as its clients use it.

mod authority;
mod config;
mod crash;
mod description;
mod import;
mod keys;
mod limits;
mod owners;
mod pages;
mod self_service;
mod usage;

use portcullis_testkit::{Call, Gateway, Key, KeySpec, Origin, Response};
use serde_json::Value;

use crate::scene;

/// The running shop with an operator who may do everything.
pub struct Shop {
    pub gateway: Gateway,
    pub origin: Origin,
    pub operator: Key,
}

/// Every scope of the gateway.
pub const ALL: &str =
    "portcullis:keys:read,portcullis:keys,portcullis:verify,portcullis:usage,portcullis:audit,portcullis:config";

impl Shop {
    pub async fn open() -> Self {
        Self::open_with("", "").await
    }

    pub async fn open_with(routes: &str, sections: &str) -> Self {
        let (gateway, origin) = scene::shop_with(routes, sections).await;
        Self::of(gateway, origin).await
    }

    /// The management of a shop that runs.
    pub async fn of(gateway: Gateway, origin: Origin) -> Self {
        let operator = KeySpec::new("operator", ALL).kind("management").option("--may-grant", "*");
        let operator = gateway.key_of(operator).await;
        Self { gateway, origin, operator }
    }

    /// A request to the API, by nobody.
    pub fn ask(&self, method: &str, target: &str) -> Call {
        Call::to(self.gateway.admin_address(), method, target)
    }

    /// A request with a body, by the operator.
    pub fn tell(&self, method: &str, target: &str, body: &Value) -> Call {
        self.tell_as(&self.operator, method, target, body)
    }

    pub fn tell_as(&self, caller: &Key, method: &str, target: &str, body: &Value) -> Call {
        let call = self.ask(method, target).bearer(caller);
        if body.is_null() { call } else { call.header("content-type", "application/json").body(body.to_string()) }
    }

    /// Makes a key by the operator.
    pub async fn make(&self, body: Value) -> Key {
        self.taken(self.tell("POST", "/v1/keys", &body).await.expect(201))
    }

    /// The key that an answer shows, which must never be seen again.
    pub fn taken(&self, answer: Response) -> Key {
        let record = answer.json();
        let text_of = |field: &str| record[field].as_str().unwrap_or_else(|| panic!("no {field}: {record}")).to_owned();
        let key = Key { id: text_of("id"), text: text_of("key"), prefix: text_of("prefix"), record: record.clone() };
        self.gateway.site().vault().keep(&key.text);
        key
    }

    /// The record of a key, as the operator sees it.
    pub async fn show(&self, key: &Key) -> Value {
        let answer =
            self.tell("GET", &format!("/v1/keys/{}", key.id), &Value::Null).watching(self.gateway.site().vault());
        answer.await.expect(200).json()
    }
}
