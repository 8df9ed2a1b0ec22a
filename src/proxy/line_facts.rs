//! What is known of a request for its access line alone, while it is under way.

use std::net::IpAddr;
use std::sync::Arc;

use super::request_id::{Digits, RequestId};
use crate::domain::{KeyId, OwnerId, Scope, Timestamp};
use crate::telemetry::DecisionMode;

/// What only an access line needs.
pub(super) struct LineFacts {
    pub(super) ts: Timestamp,
    pub(super) request_id: RequestId,
    pub(super) client_request_id: Option<String>,
    pub(super) host: Option<String>,
    pub(super) path: String,
    pub(super) route: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) code: Option<&'static str>,
    pub(super) reason: Option<&'static str>,
    pub(super) missing: Vec<Scope>,
    pub(super) mode: Option<DecisionMode>,
    pub(super) key_id: Option<KeyId>,
    pub(super) key_prefix: Option<String>,
    pub(super) owner: Option<OwnerId>,
    pub(super) environment: Option<Arc<str>>,
    pub(super) client_ip: Option<IpAddr>,
}

impl LineFacts {
    pub(super) fn empty() -> Self {
        Self {
            ts: Timestamp::default(),
            request_id: RequestId::Ours(Digits([b'0'; 32])),
            client_request_id: None,
            host: None,
            path: String::new(),
            route: None,
            upstream: None,
            code: None,
            reason: None,
            missing: Vec::new(),
            mode: None,
            key_id: None,
            key_prefix: None,
            owner: None,
            environment: None,
            client_ip: None,
        }
    }
}
