//! How requests are changed on their way: prefixes, header fields, bounds, CORS.

use http::header::{self, HeaderName, HeaderValue};

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::routes::{CorsFile, HeaderEditFile, RouteFile, UpgradeWord};
use super::super::node::shortened;
use super::super::shape::net::parse_header_name;
use super::super::shape::{At, Listed};
use super::network::timeout;
use super::{DAY, MINUTE, bounded};
use crate::gate::{Cors, ForwardSettings, RouteTimeouts};

/// Fields that frame a message or belong to one hop: setting or removing them would break the forwarded request.
const FRAMING: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether this field frames a message or belongs to one hop.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    FRAMING.contains(name)
}

/// Fields set and removed.
pub(super) struct HeaderEdit {
    pub(super) set: Vec<(HeaderName, HeaderValue)>,
    pub(super) remove: Vec<HeaderName>,
}

/// `headers: { set, remove }`; `ours` are the identity fields, which only the gateway sets.
pub(super) fn header_edit(file: Option<&HeaderEditFile>, ours: &[HeaderName], findings: &mut Findings) -> HeaderEdit {
    let mut edit = HeaderEdit { set: Vec::new(), remove: Vec::new() };
    let Some(file) = file else { return edit };
    for entry in file.set.iter().flat_map(|set| set.iter()) {
        let name = match parse_header_name(&entry.name) {
            Ok(name) => name,
            Err(flaw) => {
                let problem = Problem::new(
                    Code::BadValue,
                    entry.name_at,
                    format!("{:?} {}", shortened(&entry.name), flaw.problem),
                );
                findings.note(problem.fix(flaw.fix));
                continue;
            }
        };
        let reason = if name == header::HOST {
            Some("`host` on the upstream says what Host it is sent")
        } else if is_framing(&name) {
            Some("it belongs to the connection, not to the request")
        } else if ours.contains(&name) || name.as_str().starts_with("x-portcullis-") {
            Some("upstreams believe that only the gateway's own decision stands in it")
        } else {
            None
        };
        if let Some(reason) = reason {
            findings.note(Problem::new(Code::BadValue, entry.name_at, format!("`{name}` cannot be set: {reason}")));
            continue;
        }
        if edit.set.iter().any(|(other, _)| *other == name) {
            let problem = Problem::new(Code::Duplicate, entry.name_at, format!("`{name}` is set twice"));
            findings.note(problem.fix("Names of fields ignore case; remove one"));
            continue;
        }
        let Some(secret) = &entry.value else { continue };
        match HeaderValue::from_str(&secret.value.0) {
            Ok(mut value) => {
                value.set_sensitive(true);
                edit.set.push((name, value));
            }
            Err(_) => {
                let message = format!("the value of `{name}` holds characters that no header field can");
                let problem = Problem::new(Code::BadValue, secret.at, message);
                findings.note(problem.fix("Remove line ends and control characters"));
            }
        }
    }
    for name in file.remove.iter().flat_map(Listed::iter) {
        if is_framing(&name.value) {
            let message = format!("`{}` cannot be removed: it belongs to the connection", findings.written(name.at));
            findings.note(Problem::new(Code::BadValue, name.at, message));
        } else if edit.set.iter().any(|(set, _)| *set == name.value) {
            let message = format!("`{}` is both set and removed", findings.written(name.at));
            findings
                .note(Problem::new(Code::Conflict, name.at, message).fix("Setting a field replaces what stood there"));
        } else {
            edit.remove.push(name.value.clone());
        }
    }
    edit
}

/// Everything about a route's way to its upstream.
pub(super) fn forward(route: &RouteFile, ours: &[HeaderName], findings: &mut Findings) -> ForwardSettings {
    let edit = header_edit(route.headers.as_ref().map(|headers| &headers.value), ours, findings);
    let timeouts = route.timeouts.as_ref().map(|timeouts| &timeouts.value);
    ForwardSettings {
        strip_prefix: route.strip_prefix.as_ref().and_then(|prefix| strip_prefix(prefix, route, findings)),
        add_prefix: route.add_prefix.as_ref().and_then(|prefix| prefix_text(prefix, findings)),
        set_headers: edit.set,
        remove_headers: edit.remove,
        max_body: route.max_body.map(|size| size.0),
        upgrade: route.upgrade.as_ref().map_or_else(
            || vec!["websocket".to_owned()],
            |list| {
                list.value
                    .iter()
                    .map(|word| match word.value {
                        UpgradeWord::Websocket => "websocket".to_owned(),
                    })
                    .collect()
            },
        ),
        timeouts: RouteTimeouts {
            connect: timeout(timeouts, |t| t.connect.as_ref(), 5 * MINUTE, findings),
            first_byte: timeout(timeouts, |t| t.first_byte.as_ref(), DAY, findings),
            idle: timeout(timeouts, |t| t.idle.as_ref(), DAY, findings),
        },
    }
}

/// `/a/b`: whole literal segments. `None`, and a note, when it is something else; `/` alone is nothing.
fn prefix_text(prefix: &At<String>, findings: &mut Findings) -> Option<String> {
    let text = prefix.value.strip_suffix('/').unwrap_or(&prefix.value);
    if text.is_empty() && prefix.value == "/" {
        return None;
    }
    let legal = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b))
    };
    if text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(legal)) {
        return Some(text.to_owned());
    }
    let message = format!("{:?} is no prefix of a path", findings.written(prefix.at));
    let fix = "Write whole segments that begin with `/`, such as /v1/shop, without `..`, `{…}` or escapes";
    findings.note(Problem::new(Code::BadValue, prefix.at, message).fix(fix));
    None
}

fn strip_prefix(prefix: &At<String>, route: &RouteFile, findings: &mut Findings) -> Option<String> {
    let text = prefix_text(prefix, findings)?;
    let pattern = route.path.value.as_str();
    let begins = pattern.strip_prefix(&text).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if begins {
        return Some(text);
    }
    let message = format!("the route's path does not begin with {:?}", findings.written(prefix.at));
    let problem = Problem::new(Code::Conflict, prefix.at, message);
    findings.note(problem.label(route.path.at, "the path").fix("Strip what every request of this route begins with"));
    None
}

/// `cors`.
pub(super) fn cors(file: &CorsFile, findings: &mut Findings) -> Cors {
    let origins = &file.origins.value;
    if origins.is_empty() {
        let problem = Problem::new(Code::BadValue, file.origins.at, "there is no origin");
        findings.note(problem.fix("Name one, such as https://app.example.com, or remove `cors`"));
    }
    let any = origins.iter().any(|origin| origin.value == "*");
    for origin in origins.iter() {
        let text = origin.value.as_str();
        if text == "*" {
            continue;
        }
        if any {
            let problem = Problem::new(Code::Conflict, origin.at, "`*` stands for every origin already");
            findings.note(problem.fix("Write `*` alone, or remove it"));
        } else if !is_origin(text) {
            let message = format!("{:?} is no origin as browsers send it", findings.written(origin.at));
            let fix = "Write scheme, host and port only, in lower case: https://app.example.com";
            findings.note(Problem::new(Code::BadValue, origin.at, message).fix(fix));
        }
    }
    let max_age = file.max_age.as_ref().map(|age| {
        let show = crate::domain::time::show_duration;
        bounded(Some(age), DAY, std::time::Duration::ZERO..=DAY, show, findings)
    });
    Cors {
        origins: origins.iter().map(|origin| origin.value.clone()).collect(),
        methods: file.methods.iter().flat_map(Listed::iter).map(|method| method.value.clone()).collect(),
        headers: file.headers.iter().flat_map(Listed::iter).map(|name| name.value.clone()).collect(),
        max_age,
    }
}

/// `scheme://host[:port]`, RFC 6454 §6.2.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let lower = |text: &str| !text.is_empty() && !text.bytes().any(|b| b.is_ascii_uppercase());
    lower(scheme)
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && lower(authority)
        && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}
