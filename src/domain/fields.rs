//! The header fields of one message as they came: in their order, names in the sender's case, values without the white
//! space around them.
//!
//! A message has a dozen fields and is asked for a dozen names, most of which it lacks. So the names that anyone here
//! asks for are recognised once, while the head is read, and what is absent is answered from one word of bits. Nothing
//! is copied: a [`Fields`] is a view of the bytes the head arrived in.

use http::{HeaderMap, HeaderName};

macro_rules! known {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// A field name that somebody here asks for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum Known {
            /// Any name that is not listed here.
            Other,
            /// Every name that begins with `sec-fetch-` (Fetch Metadata Request Headers §2).
            SecFetch,
            $(#[doc = concat!("`", $text, "`")] $variant,)+
        }

        impl Known {
            /// The name in lower case; none where it stands for many.
            pub const fn text(self) -> Option<&'static str> {
                match self {
                    Self::Other | Self::SecFetch => None,
                    $(Self::$variant => Some($text),)+
                }
            }

            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant),+];
        }
    };
}

known! {
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlRequestMethod = "access-control-request-method",
    AccessControlRequestHeaders = "access-control-request-headers",
    Authorization = "authorization",
    Connection = "connection",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Expect = "expect",
    Forwarded = "forwarded",
    Host = "host",
    Http2Settings = "http2-settings",
    KeepAlive = "keep-alive",
    Origin = "origin",
    ProxyConnection = "proxy-connection",
    Te = "te",
    Traceparent = "traceparent",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    XApiKey = "x-api-key",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedProto = "x-forwarded-proto",
    XRequestId = "x-request-id",
}

impl Known {
    /// Recognises `name`, which is a token, whatever its case. The length and one letter sort out nearly all names before
    /// the rest is compared.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let letter = |at: usize| name.get(at).map_or(0, |byte| byte | 0x20);
        let candidate = match (name.len(), letter(0)) {
            (2, b't') => Self::Te,
            (3, b'v') => Self::Via,
            (4, b'h') => Self::Host,
            (4, b'd') => Self::Date,
            (4, b'v') => Self::Vary,
            (6, b'c') => Self::Cookie,
            (6, b'o') => Self::Origin,
            (6, b'e') => Self::Expect,
            (7, b'u') => Self::Upgrade,
            (7, b't') => Self::Trailer,
            (9, b'x') => Self::XApiKey,
            (9, b'f') => Self::Forwarded,
            (10, b'c') => Self::Connection,
            (10, b'k') => Self::KeepAlive,
            (10, b'u') => Self::UserAgent,
            (11, b't') => Self::Traceparent,
            (12, b'c') => Self::ContentType,
            (12, b'x') => Self::XRequestId,
            (13, b'a') => Self::Authorization,
            (14, b'c') => Self::ContentLength,
            (14, b'h') => Self::Http2Settings,
            (15, b'x') => Self::XForwardedFor,
            (16, b'x') => Self::XForwardedHost,
            (16, b'p') => Self::ProxyConnection,
            (17, b't') => Self::TransferEncoding,
            (17, b'x') => Self::XForwardedProto,
            (27, b'a') => Self::AccessControlAllowOrigin,
            (29, b'a') => Self::AccessControlRequestMethod,
            (30, b'a') => Self::AccessControlRequestHeaders,
            (10.., b's') => {
                let is_fetch = is_name(&name[..b"sec-fetch-".len()], b"sec-fetch-");
                return if is_fetch { Self::SecFetch } else { Self::Other };
            }
            _ => return Self::Other,
        };
        match candidate.text() {
            Some(text) if is_name(name, text.as_bytes()) => candidate,
            Some(_) | None => Self::Other,
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Whether the token `name` is `lower`, whatever the case of `name`; `lower` is a token of lower-case letters, digits and
/// hyphens. Eight bytes at a time: setting the bit that tells cases apart maps no other byte of a token to one of those.
#[inline]
fn is_name(name: &[u8], lower: &[u8]) -> bool {
    const CASE: u64 = u64::from_ne_bytes([0x20; 8]);
    if name.len() != lower.len() {
        return false;
    }
    let (words, rest) = name.as_chunks::<8>();
    let (lower_words, lower_rest) = lower.as_chunks::<8>();
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let differ = |(a, b): (&[u8; 8], &[u8; 8])| (word(a) | CASE) ^ (word(b) | CASE);
    let differs = words.iter().zip(lower_words).fold(0, |all, pair| all | differ(pair));
    differs == 0 && rest.eq_ignore_ascii_case(lower_rest)
}

/// Where one field stands in the bytes of its head.
#[derive(Clone, Copy, Debug)]
struct At {
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
    known: Known,
}

/// Where every field of a head stands. Kept and cleared, so that it is allocated once.
#[derive(Clone, Debug, Default)]
pub struct FieldTable {
    at: Vec<At>,
    present: u64,
}

impl FieldTable {
    /// A table without fields.
    pub const fn new() -> Self {
        Self { at: Vec::new(), present: 0 }
    }

    /// A table without fields, with room for so many.
    pub fn with_capacity(fields: usize) -> Self {
        Self { at: Vec::with_capacity(fields), present: 0 }
    }

    /// How many fields it knows.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Whether it holds memory, used or not.
    pub fn has_memory(&self) -> bool {
        self.at.capacity() > 0
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.at.clear();
        self.present = 0;
    }

    /// Notes a field: its name at `name`, its value at `value`, each with its offset in the head. Heads are far smaller
    /// than 4 GiB: the bound of their bytes sees to it.
    #[inline]
    pub fn push(&mut self, name: (usize, &[u8]), value: (usize, &[u8])) -> Known {
        let known = Known::of(name.1);
        self.present |= known.bit();
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.at.push(At {
            name: number(name.0),
            name_len: number(name.1.len()),
            value: number(value.0),
            value_len: number(value.1.len()),
            known,
        });
        known
    }

    /// The fields, in the head they stand in.
    pub fn of<'a>(&'a self, head: &'a [u8]) -> Fields<'a> {
        Fields { head, table: self }
    }
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Which name it is, when it is one of those asked for.
    pub known: Known,
    /// The name as it was sent.
    pub name: &'a [u8],
    /// The value as it was sent, without white space around it.
    pub value: &'a [u8],
}

/// The fields of one head. A view: copying it copies three words.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    head: &'a [u8],
    table: &'a FieldTable,
}

static NONE: FieldTable = FieldTable::new();

impl<'a> Fields<'a> {
    /// No fields.
    pub fn none() -> Self {
        Fields { head: &[], table: &NONE }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.table.at.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.table.at.is_empty()
    }

    /// All of them, in their order.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = Field<'a>> {
        let head = self.head;
        self.table.at.iter().map(move |at| Field {
            known: at.known,
            name: slice(head, at.name, at.name_len),
            value: slice(head, at.value, at.value_len),
        })
    }

    /// Whether there is a field of this name. One test of a bit.
    #[inline]
    pub fn has(self, known: Known) -> bool {
        self.table.present & known.bit() != 0
    }

    /// The values of every field of this name, in their order.
    #[inline]
    pub fn all(self, known: Known) -> impl Iterator<Item = &'a [u8]> {
        let at = if self.has(known) { &self.table.at[..] } else { &[] };
        let head = self.head;
        at.iter().filter(move |at| at.known == known).map(move |at| slice(head, at.value, at.value_len))
    }

    /// The first value of this name.
    #[inline]
    pub fn first(self, known: Known) -> Option<&'a [u8]> {
        self.all(known).next()
    }

    /// The one value of a field that must occur at most once.
    ///
    /// # Errors
    /// [`Repeated`] when it occurs more often.
    pub fn single(self, known: Known) -> Result<Option<&'a [u8]>, Repeated> {
        let mut values = self.all(known);
        let first = values.next();
        if values.next().is_some() { Err(Repeated) } else { Ok(first) }
    }

    /// The values of every field with a name that the configuration gives.
    #[inline]
    pub fn named<'n>(self, name: &'n HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let (name, head) = (name.as_str().as_bytes(), self.head);
        let known = Known::of(name);
        let at = if self.has(known) { &self.table.at[..] } else { &[] };
        // What is told apart by the fast comparison is passed over without a look at its name.
        let is_it = move |at: &&At| at.known == known && slice(head, at.name, at.name_len).eq_ignore_ascii_case(name);
        at.iter().filter(is_it).map(move |at| slice(head, at.value, at.value_len))
    }
}

impl std::fmt::Debug for Fields<'_> {
    /// Names only: values may be credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|field| String::from_utf8_lossy(field.name).into_owned())).finish()
    }
}

/// A field that must occur at most once occurs more often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repeated;

#[inline]
fn slice(head: &[u8], at: u32, len: u32) -> &[u8] {
    head.get(at as usize..at as usize + len as usize).unwrap_or_default()
}

/// Fields with bytes of their own: for requests that did not arrive as text.
#[derive(Clone, Debug, Default)]
pub struct OwnedFields {
    bytes: Vec<u8>,
    table: FieldTable,
}

impl OwnedFields {
    /// The fields of a map, behind what `memory` holds.
    pub fn in_memory(headers: &HeaderMap, memory: Vec<u8>) -> Self {
        let mut fields = Self { bytes: memory, table: FieldTable::with_capacity(headers.len()) };
        headers.iter().for_each(|(name, value)| fields.push(name.as_str().as_bytes(), trimmed(value.as_bytes())));
        fields
    }

    /// The memory, for something else.
    pub fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds a field behind the others.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.table.push((at, name), (at + name.len(), value));
    }

    /// The fields.
    pub fn view(&self) -> Fields<'_> {
        self.table.of(&self.bytes)
    }
}

/// A value without the white space around it: none of it belongs to it (RFC 9110 §5.5), and HTTP/2 libraries leave it
/// there although it must not be sent (RFC 9113 §8.2.1).
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_value_is_none_of_it() {
        let mut headers = HeaderMap::new();
        for value in [" Bearer a", "\tBearer a \t", "Bearer a", " \t "] {
            headers.append("authorization", value.parse().unwrap());
        }
        let fields = OwnedFields::in_memory(&headers, Vec::new());
        let values: Vec<&[u8]> = fields.view().all(Known::Authorization).collect();
        assert_eq!(values, [b"Bearer a".as_slice(), b"Bearer a", b"Bearer a", b""]);
    }

    #[test]
    fn every_known_name_is_recognised_in_any_case_and_nothing_else_is() {
        for known in Known::ALL {
            let text = known.text().unwrap();
            assert_eq!(Known::of(text.as_bytes()), *known, "{text}");
            assert_eq!(Known::of(text.to_ascii_uppercase().as_bytes()), *known, "{text}");
            let altered = format!("{}!", &text[..text.len() - 1]);
            assert_eq!(Known::of(altered.as_bytes()), Known::Other, "{altered}");
        }
        assert_eq!(Known::of(b"Sec-Fetch-Site"), Known::SecFetch);
        assert_eq!(Known::of(b"sec-fetch-"), Known::SecFetch);
        assert_eq!(Known::of(b"sec-fetc"), Known::Other);
        assert_eq!(Known::of(b"cont^nt-type"), Known::Other);
        assert_eq!(Known::of(b""), Known::Other);
    }

    #[test]
    fn fields_keep_their_order_and_are_found_by_either_name() {
        let mut owned = OwnedFields::default();
        for (name, value) in [("X-A", "1"), ("Cookie", "a=1"), ("x-a", "2"), ("COOKIE", "b=2"), ("Host", "h")] {
            owned.push(name.as_bytes(), value.as_bytes());
        }
        let fields = owned.view();
        assert_eq!(fields.len(), 5);
        assert_eq!(fields.all(Known::Cookie).collect::<Vec<_>>(), [&b"a=1"[..], b"b=2"]);
        assert_eq!(fields.single(Known::Cookie), Err(Repeated));
        assert_eq!(fields.single(Known::Host), Ok(Some(&b"h"[..])));
        assert_eq!(fields.single(Known::Expect), Ok(None));
        assert!(!fields.has(Known::Origin) && fields.has(Known::Host));
        let name = HeaderName::from_static("x-a");
        assert_eq!(fields.named(&name).collect::<Vec<_>>(), [&b"1"[..], b"2"]);
        assert_eq!(fields.named(&http::header::COOKIE).count(), 2);
        let mut odd = OwnedFields::default();
        odd.push(b"x-ab^cdef", b"1");
        assert_eq!(odd.view().named(&HeaderName::from_static("x-ab~cdef")).count(), 0);
        assert!(Fields::none().is_empty() && Fields::none().first(Known::Host).is_none());
        assert_eq!(format!("{fields:?}"), r#"["X-A", "Cookie", "x-a", "COOKIE", "Host"]"#, "no value is printed");
    }
}
