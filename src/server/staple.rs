//! OCSP responses on disk, to be stapled to a handshake (RFC 6066 §8, RFC 8446 §4.4.2.1).
//!
//! Owns reading such a file and telling whether it may be shown. Fetching responses is somebody else's work, and so is
//! checking their signature: clients do that, with the issuer's key. Start at [`Staple::read`].

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::prelude::X509Certificate;

use crate::domain::Timestamp;
use crate::proxy::certificate::read_certificates;

/// Largest file read. A response with its signer's certificate has two or three KiB, and every handshake carries it.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1 (RFC 6960 §4.2.1).
const BASIC_RESPONSE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// A response that says that its certificate is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Staple {
    /// DER, as it is sent.
    pub(super) response: Vec<u8>,
    /// From then on it must not be shown; none: the responder names no end.
    pub(super) until: Option<Timestamp>,
}

/// Why an OCSP response is not stapled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StapleFault {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub kind: StapleFaultKind,
}

/// What is wrong with an OCSP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StapleFaultKind {
    /// It cannot be read.
    Unreadable(io::ErrorKind),
    /// It is far larger than a response is.
    TooLarge,
    /// It is no basic OCSP response in DER.
    Malformed,
    /// The responder answered with an error instead of a status (RFC 6960 §4.2.1, `OCSPResponseStatus`).
    NotSuccessful(u8),
    /// It is about other certificates.
    OtherCertificate,
    /// It says that the certificate is revoked.
    Revoked,
    /// It says that the responder does not know the certificate.
    Unknown,
    /// Its time is over.
    Expired {
        /// Since when.
        next_update: Timestamp,
    },
    /// Its time has not come.
    NotYetValid {
        /// Until when.
        this_update: Timestamp,
    },
}

impl fmt::Display for StapleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.kind {
            StapleFaultKind::Unreadable(kind) => write!(
                f,
                "cannot read the OCSP response {file} ({kind}): let whatever fetches it write it there, readable for \
                 the gateway's user, or remove `ocsp`"
            ),
            StapleFaultKind::TooLarge => write!(
                f,
                "{file} is larger than 16 KiB: name a file that holds one OCSP response in DER and nothing else"
            ),
            StapleFaultKind::Malformed => {
                write!(f, "{file} is no OCSP response in DER (RFC 6960): write it with `openssl ocsp -respout FILE …`")
            }
            StapleFaultKind::NotSuccessful(status) => write!(
                f,
                "the OCSP response {file} is the responder's error `{}`, and no status: fetch it again",
                status_word(*status)
            ),
            StapleFaultKind::OtherCertificate => write!(
                f,
                "the OCSP response {file} is about another certificate: fetch it for the one beside it in `cert`, as \
                 after every renewal"
            ),
            StapleFaultKind::Revoked => write!(
                f,
                "the OCSP response {file} says that the certificate is revoked: clients refuse it; replace the \
                 certificate and its key"
            ),
            StapleFaultKind::Unknown => write!(
                f,
                "the OCSP response {file} says that the responder does not know the certificate: ask the responder of \
                 the authority that issued it"
            ),
            StapleFaultKind::Expired { next_update } => write!(
                f,
                "the OCSP response {file} expired at {next_update}: fetch it again, and look why that did not happen"
            ),
            StapleFaultKind::NotYetValid { this_update } => {
                write!(f, "the OCSP response {file} is not valid before {this_update}: check it and this host's clock")
            }
        }
    }
}

impl std::error::Error for StapleFault {}

/// RFC 6960 §4.2.1.
fn status_word(status: u8) -> &'static str {
    match status {
        1 => "malformedRequest",
        2 => "internalError",
        3 => "tryLater",
        5 => "sigRequired",
        6 => "unauthorized",
        _ => "of an unknown kind",
    }
}

/// What would keep the OCSP response in `file` from being stapled to the first certificate of `cert` at `now`. Nothing
/// is said where the certificate itself cannot be read. Blocks on the disk.
pub fn staple_fault(file: &Path, cert: &Path, now: Timestamp) -> Option<StapleFault> {
    let chain = read_certificates(cert).ok()?;
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    Staple::read(file, leaf.raw_serial(), now).err()
}

impl Staple {
    /// The response in `file`, if it says at `now` that the certificate with this serial number is good. `serial` is the
    /// content of the certificate's INTEGER. The issuer is not compared: serial numbers are 64 random bits or more, and
    /// the file was named for this certificate. Blocks on the disk.
    ///
    /// # Errors
    /// Anything that would make clients refuse it, as far as it can be told without the issuer's key.
    pub(super) fn read(file: &Path, serial: &[u8], now: Timestamp) -> Result<Self, StapleFault> {
        let read = || {
            let response = read_bounded(file)?;
            let until = check(&response, serial, now)?;
            Ok(Self { response, until })
        };
        read().map_err(|kind| StapleFault { file: file.to_owned(), kind })
    }
}

fn read_bounded(file: &Path) -> Result<Vec<u8>, StapleFaultKind> {
    let unreadable = |error: io::Error| StapleFaultKind::Unreadable(error.kind());
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(StapleFaultKind::TooLarge);
    }
    Ok(bytes)
}

/// Until when `response` may be shown (RFC 6960 §4.2.1 and §4.2.2.1).
fn check(response: &[u8], serial: &[u8], now: Timestamp) -> Result<Option<Timestamp>, StapleFaultKind> {
    let status = read_status(response).ok_or(StapleFaultKind::Malformed)?;
    if status != 0 {
        return Err(StapleFaultKind::NotSuccessful(status));
    }
    let all = read_single_responses(response).ok_or(StapleFaultKind::Malformed)?;
    let ours = all.iter().find(|single| single.serial == serial).ok_or(StapleFaultKind::OtherCertificate)?;
    match ours.status {
        CertStatus::Good => {}
        CertStatus::Revoked => return Err(StapleFaultKind::Revoked),
        CertStatus::Unknown => return Err(StapleFaultKind::Unknown),
    }
    if ours.this_update > now {
        return Err(StapleFaultKind::NotYetValid { this_update: ours.this_update });
    }
    match ours.next_update {
        Some(next_update) if next_update <= now => Err(StapleFaultKind::Expired { next_update }),
        next_update => Ok(next_update),
    }
}

/// What a response says about one certificate.
struct Single<'a> {
    serial: &'a [u8],
    status: CertStatus,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
}

#[derive(Clone, Copy)]
enum CertStatus {
    Good,
    Revoked,
    Unknown,
}

/// `responseStatus` of an `OCSPResponse` that is the whole of `response`.
fn read_status(response: &[u8]) -> Option<u8> {
    let mut outer = whole(response)?;
    let status = outer.take(Class::Universal, Tag::Enumerated.0)?;
    <[u8; 1]>::try_from(status).ok().map(|[status]| status)
}

/// Every `SingleResponse` of a response of the basic kind.
fn read_single_responses(response: &[u8]) -> Option<Vec<Single<'_>>> {
    let mut outer = whole(response)?;
    outer.take(Class::Universal, Tag::Enumerated.0)?;
    let mut bytes = Fields(outer.take(Class::ContextSpecific, 0)?).sequence()?;
    if bytes.take(Class::Universal, Tag::Oid.0)? != BASIC_RESPONSE {
        return None;
    }
    let mut basic = whole(bytes.take(Class::Universal, Tag::OctetString.0)?)?;
    let mut data = basic.sequence()?;
    // A version, which may be left out, and the responder's name or key.
    let _version = data.take(Class::ContextSpecific, 0);
    data.take(Class::ContextSpecific, 1).or_else(|| data.take(Class::ContextSpecific, 2))?;
    data.take(Class::Universal, Tag::GeneralizedTime.0)?;
    let mut singles = data.sequence()?;
    let mut all = Vec::new();
    while !singles.0.is_empty() {
        all.push(read_single(singles.sequence()?)?);
    }
    // A signature is there; whether it is the issuer's is for clients to see.
    basic.sequence()?;
    basic.take(Class::Universal, Tag::BitString.0)?;
    Some(all)
}

fn read_single(mut single: Fields<'_>) -> Option<Single<'_>> {
    let mut id = single.sequence()?;
    id.sequence()?;
    id.take(Class::Universal, Tag::OctetString.0)?;
    id.take(Class::Universal, Tag::OctetString.0)?;
    let serial = id.take(Class::Universal, Tag::Integer.0)?;
    let status = if single.take(Class::ContextSpecific, 0).is_some() {
        CertStatus::Good
    } else if single.take(Class::ContextSpecific, 1).is_some() {
        CertStatus::Revoked
    } else {
        single.take(Class::ContextSpecific, 2)?;
        CertStatus::Unknown
    };
    let this_update = single.time()?;
    let next_update = match single.take(Class::ContextSpecific, 0) {
        Some(explicit) => Some(Fields(explicit).time()?),
        None => None,
    };
    Some(Single { serial, status, this_update, next_update })
}

/// The fields of the one SEQUENCE that is the whole of `der`.
fn whole(der: &[u8]) -> Option<Fields<'_>> {
    let mut outer = Fields(der);
    let fields = outer.sequence()?;
    outer.0.is_empty().then_some(fields)
}

/// What is left of the content of a constructed value.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The content of the next field if it has this tag; otherwise the field stays.
    fn take(&mut self, class: Class, tag: u32) -> Option<&'a [u8]> {
        let (rest, field) = Any::from_der(self.0).ok()?;
        if field.class() != class || field.tag().0 != tag {
            return None;
        }
        self.0 = rest;
        Some(field.data)
    }

    fn sequence(&mut self) -> Option<Self> {
        self.take(Class::Universal, Tag::Sequence.0).map(Self)
    }

    fn time(&mut self) -> Option<Timestamp> {
        let (rest, time) = x509_parser::asn1_rs::GeneralizedTime::from_der(self.0).ok()?;
        self.0 = rest;
        time.utc_datetime().ok().map(|moment| Timestamp::from_unix_seconds(moment.unix_timestamp()))
    }
}
