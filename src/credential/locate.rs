//! Finding exactly one credential among the places a route accepts (contract §2 "Credentials", §4).
//!
//! A place or scheme that the route does not accept is neither read nor counted. Two credentials are never
//! "the first that works": they are refused, because two servers may pick different ones.

use std::fmt;

use base64::Engine;
use http::HeaderName;
use zeroize::Zeroizing;

use super::location::{Place, Scheme};
use crate::domain::limits::MAX_CREDENTIAL_BYTES;
use crate::domain::{Fields, Known, PresentedKey};

/// What the accepted places of one request hold.
pub enum Located<'a> {
    /// No credential in any of them.
    None,
    /// Exactly one, in a form that can be looked up.
    One(Credential<'a>),
    /// Something that is no single credential.
    Malformed(Malformed),
}

/// Why the accepted places hold no single credential (400 `invalid_request`, RFC 6750 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// The field, cookie or parameter is there and empty.
    Empty,
    /// A scheme's name without a token after it.
    SchemeWithoutToken,
    /// Spaces, commas, or bytes outside visible ASCII where one token belongs.
    NotOneToken,
    /// More than [`MAX_CREDENTIAL_BYTES`].
    TooLong,
    /// `Basic` whose value is not base64 of `user:password` (RFC 7617 §2).
    BadBasic,
    /// A percent sign that two hexadecimal digits do not follow.
    BadEscape,
    /// The secret of a pair without its id.
    HalfOfAPair,
    /// More than one credential, in one place or in several.
    Several,
}

impl Malformed {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Empty,
        Self::SchemeWithoutToken,
        Self::NotOneToken,
        Self::TooLong,
        Self::BadBasic,
        Self::BadEscape,
        Self::HalfOfAPair,
        Self::Several,
    ];

    /// What the client is told.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Empty => "The credential is empty.",
            Self::SchemeWithoutToken => "The authentication scheme is not followed by a token.",
            Self::NotOneToken => "The credential is not a single token of visible ASCII characters.",
            Self::TooLong => "The credential is longer than 8 KiB.",
            Self::BadBasic => "The Basic credential is not the base64 form of `user:password`.",
            Self::BadEscape => "The credential holds a percent sign without two hexadecimal digits.",
            Self::HalfOfAPair => "The secret of a pair came without the id that belongs to it.",
            Self::Several => "The request carries more than one credential; send exactly one.",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

/// One credential, borrowed from the request where it can be. Printing it shows nothing; its memory is wiped.
pub struct Credential<'a> {
    text: Text<'a>,
}

enum Text<'a> {
    Borrowed(&'a str),
    Decoded(Zeroizing<String>),
}

impl Credential<'_> {
    fn text(&self) -> &str {
        match &self.text {
            Text::Borrowed(text) => text,
            Text::Decoded(text) => text.as_str(),
        }
    }

    /// The text to look up.
    pub fn key(&self) -> PresentedKey<'_> {
        #[expect(
            clippy::expect_used,
            reason = "`one_token` admitted it by the same rule before it became a Credential"
        )]
        PresentedKey::new(self.text()).expect("a credential is one token of visible ASCII")
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Looks in every place of `accept`, and in no other. Allocates only for `Basic` and escaped query values.
pub fn locate<'a>(fields: Fields<'a>, query: Option<&'a str>, accept: &[Place]) -> Located<'a> {
    let mut found: Option<Credential<'a>> = None;
    for place in accept {
        let outcome = match place {
            Place::Header { name, scheme } => match in_field(fields, name, scheme.as_ref()) {
                Some(credential) => keep_one(&mut found, credential),
                None => Ok(()),
            },
            Place::Pair { id, secret } => match in_two_fields(fields, id, secret) {
                Some(credential) => keep_one(&mut found, credential),
                None => Ok(()),
            },
            Place::Cookie { name } => cookies(fields)
                .filter(|(cookie, _)| *cookie == name.as_bytes())
                .try_for_each(|(_, value)| keep_one(&mut found, one_token(unquoted(value)).map(borrowed))),
            Place::Query { name } => parameters(query.unwrap_or_default())
                .filter(|parameter| is_named(parameter, name))
                .try_for_each(|parameter| keep_one(&mut found, in_query(parameter))),
        };
        if let Err(malformed) = outcome {
            return Located::Malformed(malformed);
        }
    }
    found.map_or(Located::None, Located::One)
}

fn keep_one<'a>(
    found: &mut Option<Credential<'a>>,
    credential: Result<Credential<'a>, Malformed>,
) -> Result<(), Malformed> {
    match found.replace(credential?) {
        None => Ok(()),
        Some(_) => Err(Malformed::Several),
    }
}

fn borrowed(text: &str) -> Credential<'_> {
    Credential { text: Text::Borrowed(text) }
}

/// The one credential of a field; `None` when no value of it speaks the accepted scheme. Such a field cannot be
/// combined (RFC 9110 §5.3): a second value, whatever it speaks, is one that another server may read instead.
fn in_field<'a>(
    fields: Fields<'a>,
    name: &HeaderName,
    scheme: Option<&Scheme>,
) -> Option<Result<Credential<'a>, Malformed>> {
    let (mut credential, mut values) = (None, 0);
    for value in fields.named(name) {
        values += 1;
        if credential.is_none() {
            credential = in_header(value, scheme);
        }
    }
    let credential = credential?;
    Some(if values > 1 { Err(Malformed::Several) } else { credential })
}

/// What two fields hold together: the text that `Basic` would carry. The first alone is a key; the second alone is half of
/// something.
fn in_two_fields<'a>(
    fields: Fields<'a>,
    id: &HeaderName,
    secret: &HeaderName,
) -> Option<Result<Credential<'a>, Malformed>> {
    let (id, secret) = (in_field(fields, id, None), in_field(fields, secret, None));
    let (id, secret) = match (id, secret) {
        (id, None) => return id,
        (None, Some(_)) => return Some(Err(Malformed::HalfOfAPair)),
        (Some(Err(malformed)), _) | (_, Some(Err(malformed))) => return Some(Err(malformed)),
        (Some(Ok(id)), Some(Ok(secret))) => (id, secret),
    };
    let parts = [id.text(), ":", secret.text()];
    // Made in one piece: memory that grew would leave parts of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| text.push_str(part));
    Some(one_token(text.as_bytes()).map(|_| ()).map(|()| Credential { text: Text::Decoded(text) }))
}

/// `None` when the value speaks another scheme than the accepted one.
fn in_header<'a>(value: &'a [u8], scheme: Option<&Scheme>) -> Option<Result<Credential<'a>, Malformed>> {
    let Some(scheme) = scheme else {
        return Some(one_token(value).map(borrowed));
    };
    if value.is_empty() {
        return Some(Err(Malformed::Empty));
    }
    let token = after_scheme(value, scheme)?;
    Some(match (token, scheme) {
        (b"", _) => Err(Malformed::SchemeWithoutToken),
        (token, Scheme::Basic) => basic(token),
        (token, Scheme::Bearer | Scheme::Named(_)) => one_token(token).map(borrowed),
    })
}

/// What follows `scheme` and its spaces (RFC 9110 §11.4: one or more); `None` for another scheme.
pub(super) fn after_scheme<'a>(value: &'a [u8], scheme: &Scheme) -> Option<&'a [u8]> {
    let name = scheme.name().as_bytes();
    let (head, rest) = value.split_at_checked(name.len())?;
    if !head.eq_ignore_ascii_case(name) || !matches!(rest.first(), None | Some(b' ' | b'\t')) {
        return None;
    }
    Some(rest.trim_ascii_start())
}

/// RFC 7617: `user:` is a key, `id:secret` a pair whose credential is the whole text.
fn basic(token: &[u8]) -> Result<Credential<'static>, Malformed> {
    if token.len() > MAX_CREDENTIAL_BYTES {
        return Err(Malformed::TooLong);
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(token).map_err(|_| Malformed::BadBasic)?;
    let text = String::from_utf8(decoded).map_err(|_| Malformed::BadBasic)?;
    let mut text = Zeroizing::new(text);
    let colon = text.find(':').ok_or(Malformed::BadBasic)?;
    if colon == 0 {
        return Err(Malformed::Empty);
    }
    if colon + 1 == text.len() {
        text.truncate(colon);
    }
    one_token(text.as_bytes())?;
    Ok(Credential { text: Text::Decoded(text) })
}

fn in_query(parameter: &str) -> Result<Credential<'_>, Malformed> {
    let value = parameter.split_once('=').map_or("", |(_, value)| value);
    if !value.contains('%') {
        return one_token(value.as_bytes()).map(borrowed);
    }
    if value.len() > 3 * MAX_CREDENTIAL_BYTES {
        return Err(Malformed::TooLong);
    }
    let decoded = percent_decoded(value).ok_or(Malformed::BadEscape)?;
    let text = Zeroizing::new(String::from_utf8(decoded).map_err(|_| Malformed::NotOneToken)?);
    one_token(text.as_bytes())?;
    Ok(Credential { text: Text::Decoded(text) })
}

fn one_token(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.is_empty() {
        return Err(Malformed::Empty);
    }
    if bytes.len() > MAX_CREDENTIAL_BYTES {
        return Err(Malformed::TooLong);
    }
    // Without a branch for each byte, so that many are looked at together.
    if bytes.iter().fold(false, |odd, byte| odd | !byte.is_ascii_graphic() | (*byte == b',')) {
        return Err(Malformed::NotOneToken);
    }
    std::str::from_utf8(bytes).map_err(|_| Malformed::NotOneToken)
}

/// Every `name=value` of every `Cookie` field (RFC 6265 §4.2.1). A piece without `=` is a nameless value.
fn cookies<'a>(fields: Fields<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields.all(Known::Cookie).flat_map(cookies_of)
}

/// The same of one field's value.
fn cookies_of(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    cookie_pieces(value).map(split_cookie)
}

/// What stands between the semicolons of a `Cookie` field.
pub(super) fn cookie_pieces(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b';').map(<[u8]>::trim_ascii)
}

/// Name and value of a piece.
pub(super) fn split_cookie(piece: &[u8]) -> (&[u8], &[u8]) {
    match piece.iter().position(|b| *b == b'=') {
        Some(at) => (piece[..at].trim_ascii_end(), piece[at + 1..].trim_ascii_start()),
        None => (&b""[..], piece),
    }
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value)
}

/// The `name=value` pieces of a query, empty ones left out.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|piece| !piece.is_empty())
}

/// Whether a query piece carries the parameter `name`, percent-encoded or not. `+` stands for itself.
pub(super) fn is_named(parameter: &str, name: &str) -> bool {
    let written = parameter.split_once('=').map_or(parameter, |(written, _)| written);
    if written.contains('%') {
        percent_decoded(written).is_some_and(|decoded| decoded == name.as_bytes())
    } else {
        written == name
    }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(decoded)
}
