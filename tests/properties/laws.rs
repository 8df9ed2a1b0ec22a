//! Laws for any bytes. `tests/fuzz/run` looks for bytes that break one; `corpus` holds every kept input against its law.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::HeaderName;
use portcullis::config::{self, Severity};
use portcullis::credential::{Located, Place, Scheme, Stripped, locate, strip_field, strip_query};
use portcullis::domain::fields::FieldTable;
use portcullis::domain::key_text::{Brand, KeyTextForm, checksum, inspect};
use portcullis::domain::{OwnedFields, PresentedKey};
use portcullis::framing::{RequestHeads, RequestLimits, RequestRead};
use portcullis::route::NormalizedPath;
use portcullis::server::{ProxyProtocolError, read_client_address};
use tokio::io::{AsyncRead, ReadBuf};

use crate::route;

/// A law, and what it is called on the command line and in `tests/fuzz/corpus`.
pub(crate) type Law = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const LAWS: [Law; 7] = [
    ("paths", paths),
    ("routes", routes),
    ("credentials", credentials),
    ("key_text", key_text),
    ("configuration", configuration),
    ("proxy_protocol", proxy_protocol),
    ("request_heads", request_heads),
];

/// A path has the normal form that the contract gives it, or none; normal form is a fixed point.
pub(crate) fn paths(bytes: &[u8]) {
    let Ok(raw) = std::str::from_utf8(bytes) else { return };
    let path = NormalizedPath::parse(raw).ok();
    assert_eq!(path.as_ref().map(|path| path.as_str().to_owned()), route::normal_form(raw));
    if let Some(path) = path {
        let again = NormalizedPath::parse(path.as_str()).expect("normal form is legal");
        assert!(!again.is_changed() && again.as_str() == path.as_str());
    }
}

/// Routes answer as scoring every rule would, and allow nothing that one of six readings denies.
pub(crate) fn routes(bytes: &[u8]) {
    route::check_attack(bytes);
}

/// Where a credential is accepted there is none once it is taken out, and what is found is one token.
pub(crate) fn credentials(bytes: &[u8]) {
    let name = |name: &'static str| HeaderName::from_static(name);
    let accept = [
        Place::Header { name: name("authorization"), scheme: Some(Scheme::Bearer) },
        Place::Header { name: name("authorization"), scheme: Some(Scheme::Basic) },
        Place::Header { name: name("x-api-key"), scheme: None },
        Place::Pair { id: name("x-key-id"), secret: name("x-key-secret") },
        Place::Cookie { name: "session".to_owned() },
        Place::Query { name: "api_key".to_owned() },
    ];
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let query = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let mut fields = OwnedFields::default();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line[colon..].strip_prefix(b":").unwrap_or_default());
        if HeaderName::from_bytes(name).is_ok() {
            fields.push(name, value.trim_ascii());
        }
    }
    if let Located::One(credential) = locate(fields.view(), query, &accept) {
        let _one_token = credential.key();
    }
    let mut left = OwnedFields::default();
    for field in fields.view().iter() {
        match strip_field(&field, &accept) {
            Stripped::Unchanged => left.push(field.name, field.value),
            Stripped::Rewritten(value) => left.push(field.name, &value),
            Stripped::Removed => {}
        }
    }
    let kept = query.map(|query| strip_query(query, &accept).unwrap_or_else(|| query.to_owned()));
    let after = locate(left.view(), kept.as_deref(), &accept);
    assert!(matches!(after, Located::None), "a credential is left, or what may be one");
}

/// A key in our format is exact: no other last or first character has its checksum, and only the checksum makes it ours.
pub(crate) fn key_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(key) = PresentedKey::new(text) {
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?} is no token");
        assert_eq!(key.form(&Brand::default()), inspect(text, &Brand::default()));
    }
    match inspect(text, &Brand::default()) {
        KeyTextForm::Foreign => {}
        KeyTextForm::Ours { prefix, environment, .. } => {
            assert!(text.starts_with(prefix) && prefix.contains(environment) && prefix.len() + 6 < text.len());
            for at in [prefix.len() - 1, text.len() - 1] {
                let mut other = text.as_bytes().to_vec();
                other[at] = if other[at] == b'0' { b'1' } else { b'0' };
                let other = String::from_utf8(other).expect("it is ASCII");
                assert_eq!(inspect(&other, &Brand::default()), KeyTextForm::BadChecksum, "{other}");
            }
        }
        KeyTextForm::BadChecksum => {
            let (body, _) = text.split_at(text.len() - 6);
            let sum = checksum(body.as_bytes());
            let mended = format!("{body}{}", std::str::from_utf8(&sum).expect("base62 is ASCII"));
            assert!(matches!(inspect(&mended, &Brand::default()), KeyTextForm::Ours { .. }), "{mended}");
        }
    }
}

/// A configuration is accepted, or refused with an error that says where; what is accepted is shown in a form that is
/// accepted, and means the same.
pub(crate) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Other files are no part of the input.
    if text.contains("file") || text.contains("include") {
        return;
    }
    let loaded = config::load_text(Path::new("portcullis.yaml"), text, &|_| None);
    let errors = loaded.diagnostics.iter().filter(|found| found.severity() == Severity::Error).count();
    for found in &loaded.diagnostics {
        assert!(!found.to_string().is_empty());
    }
    assert_eq!(loaded.settings.is_some(), errors == 0, "{:?}", loaded.diagnostics);
    let Some(settings) = loaded.settings else { return };
    let shown = config::effective_text(&settings);
    // What is left out is written as what it is not.
    if shown.contains(config::REDACTED) {
        return;
    }
    let again = config::load_text(Path::new("portcullis.yaml"), &shown, &|_| None);
    let meant = again.settings.unwrap_or_else(|| panic!("{shown}\nis refused: {:?}", again.diagnostics));
    assert_eq!(config::effective_text(&meant), shown);
}

/// What a listed peer announces does not depend on how its bytes arrive, and not a byte behind the header is read; of any
/// other peer not a byte is.
pub(crate) fn proxy_protocol(bytes: &[u8]) {
    let peer = SocketAddr::from(([10, 0, 0, 1], 4711));
    let listed = ["10.0.0.0/8".parse().expect("a network")];
    let mut whole = bytes;
    let at_once = at_rest(read_client_address(&mut whole, peer, &listed));
    let mut trickle = Trickle(bytes);
    let by_byte = at_rest(read_client_address(&mut trickle, peer, &listed));
    let said = |announced: &Result<_, ProxyProtocolError>| match announced {
        Ok(announced) => format!("{announced:?}"),
        Err(error) => error.to_string(),
    };
    assert_eq!(
        (said(&at_once), at_once.is_ok().then_some(whole)),
        (said(&by_byte), by_byte.is_ok().then_some(trickle.0))
    );
    let mut unread = bytes;
    let stranger = at_rest(read_client_address(&mut unread, SocketAddr::from(([192, 0, 2, 1], 1)), &listed));
    assert!(stranger.is_ok() && unread == bytes, "a stranger's bytes are not read");
}

/// A request head reads the same however it is cut, and nothing of it can end a line behind the gateway.
pub(crate) fn request_heads(bytes: &[u8]) {
    let (mut table, mut again) = (FieldTable::new(), FieldTable::new());
    let mut heads = RequestHeads::new(RequestLimits::default());
    let at_once = heads.read(bytes, &mut table);
    let mut heads = RequestHeads::new(RequestLimits::default());
    let mut by_byte = Ok(None);
    for end in 0..=bytes.len() {
        by_byte = heads.read(&bytes[..end], &mut again);
        if !matches!(by_byte, Ok(None)) {
            break;
        }
    }
    let said = |read: &Result<Option<RequestRead>, _>| format!("{read:?}");
    assert_eq!(said(&at_once), said(&by_byte));
    if let Ok(Some(read)) = at_once {
        let head = &bytes[..read.len];
        let is_line = |part: &[u8]| !part.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        assert!(is_line(&head[read.method.clone()]) && is_line(&head[read.target.clone()]));
        for field in table.of(head).iter() {
            assert!(is_line(field.name) && is_line(field.value) && HeaderName::from_bytes(field.name).is_ok());
        }
    }
}

/// The end of a future that waits for nobody.
fn at_rest<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("everything has arrived"),
    }
}

/// Bytes that arrive one by one.
struct Trickle<'a>(&'a [u8]);

impl AsyncRead for Trickle<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if let (Some((first, rest)), true) = (self.0.split_first(), into.remaining() > 0) {
            into.put_slice(&[*first]);
            self.0 = rest;
        }
        Poll::Ready(Ok(()))
    }
}
