//! `headers`: which fields are the gateway's own, and which are not believed.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::{File, HeadersFile, IdentityFile};
use super::super::shape::At;
use super::super::shape::net::UNUSUAL_NAMES;
use super::Marks;
use super::forward::is_framing;
use crate::proxy::{HeaderSettings, IdentityNames, NamePattern};

/// What only trusted proxies may send unless configured (contract of `headers.untrusted`).
const DEFAULT_UNTRUSTED: [&str; 21] = [
    UNUSUAL_NAMES,
    "X-Forwarded-*",
    "Forwarded",
    "X-Real-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "Proxy",
    "Proxy-Authorization",
    "Remote-User",
    "X-Remote-User",
    "X-Consumer-*",
    "X-Authenticated-Userid",
    "X-User-Id",
    "X-Credential-Identifier",
    "Client-Cert",
    "X-Client-Cert",
    "X-SSL-*",
    "X-ARR-ClientCert",
];

fn default_untrusted() -> Vec<NamePattern> {
    let pattern = |text: &str| {
        let lower = text.to_ascii_lowercase();
        match lower.strip_suffix('*') {
            _ if text == UNUSUAL_NAMES => NamePattern::Unusual,
            Some(start) => NamePattern::Prefix(start.to_owned()),
            None => NamePattern::Exact(lower),
        }
    };
    DEFAULT_UNTRUSTED.into_iter().map(pattern).collect()
}

/// `headers`, and the names of the identity fields, which nobody else may set.
pub(super) fn headers(file: &File, marks: &mut Marks, findings: &mut Findings) -> (HeaderSettings, Vec<HeaderName>) {
    let headers = file.headers.0.as_ref();
    let identity = headers.and_then(|headers: &HeadersFile| headers.identity.as_ref());
    type Pick = fn(&IdentityFile) -> Option<&At<HeaderName>>;
    let fields: [(Pick, &'static str); 5] = [
        (|names| names.key_id.as_ref(), "x-portcullis-key-id"),
        (|names| names.owner.as_ref(), "x-portcullis-owner"),
        (|names| names.environment.as_ref(), "x-portcullis-environment"),
        (|names| names.scopes.as_ref(), "x-portcullis-scopes"),
        (|names| names.auth.as_ref(), "x-portcullis-auth"),
    ];
    let mut names: Vec<HeaderName> = Vec::new();
    for (pick, usual) in fields {
        let configured = identity.and_then(pick);
        let name = configured.map_or_else(|| HeaderName::from_static(usual), |name| name.value.clone());
        if let Some(configured) = configured {
            check_identity_name(configured, &names, findings);
        }
        names.push(name);
    }
    let [key_id, owner, environment, scopes, auth] = [0, 1, 2, 3, 4].map(|index| names[index].clone());
    let untrusted = headers.and_then(|headers| headers.untrusted.as_ref());
    let untrusted_list = untrusted.map_or_else(default_untrusted, |list| {
        let list_values: Vec<NamePattern> = list.value.iter().map(|name| name.value.clone()).collect();
        let missing = default_untrusted().into_iter().filter(|usual| !list_values.contains(usual)).count();
        if missing > 0 {
            let message = format!("{missing} of the fields that are not believed by default are believed from anyone");
            marks.weakened.push((list.at, message));
        }
        list_values
    });
    let identity = IdentityNames { key_id, owner, environment, scopes, auth };
    (HeaderSettings { identity, untrusted: untrusted_list }, names)
}

fn check_identity_name(name: &At<HeaderName>, others: &[HeaderName], findings: &mut Findings) {
    if is_framing(&name.value) || name.value == AUTHORIZATION || name.value == COOKIE {
        let message = format!("`{}` cannot be an identity field: it means something else", findings.written(name.at));
        findings.note(
            Problem::new(Code::BadValue, name.at, message).fix("Choose a name of your own, such as X-Caller-Key-Id"),
        );
    }
    if others.contains(&name.value) {
        let message = format!("two identity fields are called `{}`", findings.written(name.at));
        findings.note(Problem::new(Code::Duplicate, name.at, message).fix("Give each its own name"));
    }
}
