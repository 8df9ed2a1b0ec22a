//! The chain of the audit trail: what each row's mac covers, and what it is keyed with.
//!
//! Owns the encoding of rows and the keys. Must not know where rows live, nor where the keys come from.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::trail::AuditEntry;

/// What an [`AuditMac`] is made with: the first key for new rows, and all of them to check rows that exist.
///
/// Without any key new rows are chained by plain SHA-256, which whoever can write to the store can compute as well.
#[derive(Clone, Default)]
pub struct AuditSeal {
    keys: Vec<(String, Hmac<Sha256>)>,
}

impl AuditSeal {
    /// A seal with these keys by their names, the current one first.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, Zeroizing<[u8; 32]>)>) -> Self {
        let keyed = |(name, key): (&str, Zeroizing<[u8; 32]>)| {
            // Every length is a key (RFC 2104 §2).
            Hmac::<Sha256>::new_from_slice(&*key).ok().map(|state| (name.to_owned(), state))
        };
        Self { keys: keys.into_iter().filter_map(keyed).collect() }
    }

    /// Whether new rows are keyed.
    pub(super) fn is_keyed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The name of the current key, and the mac that it makes of a backup with this digest; none without a key.
    pub(super) fn seal_backup(&self, digest: &[u8; 32]) -> Option<(String, AuditMac)> {
        self.keys.first().map(|(name, state)| (name.clone(), backup_mac(state, digest)))
    }

    /// Whether this is the mac that a key makes of a backup with this digest; `None` without the key.
    pub(super) fn check_backup(&self, key: &str, digest: &[u8; 32], mac: AuditMac) -> Option<bool> {
        let (_, state) = self.keys.iter().find(|(known, _)| known == key)?;
        Some(backup_mac(state, digest) == mac)
    }

    /// Seals a row behind the one with this mac.
    pub(super) fn close(&self, previous: AuditMac, row: &mut AuditEntry) {
        let key = self.keys.first();
        let key_name = key.map(|(name, _)| name.clone());
        let mac = mac_of(key.map(|(_, state)| state), previous, row, key_name.as_deref());
        row.sealed = Some(Sealed { mac, key: key_name });
    }

    /// Whether the mac of a row is the one it must have behind a row with this mac; `None` without the key.
    pub(super) fn check(&self, previous: AuditMac, row: &AuditEntry, sealed: &Sealed) -> Option<bool> {
        let state = match &sealed.key {
            None => None,
            Some(name) => Some(self.keys.iter().find(|(known, _)| known == name).map(|(_, state)| state)?),
        };
        Some(mac_of(state, previous, row, sealed.key.as_deref()) == sealed.mac)
    }
}

impl fmt::Debug for AuditSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(name, _)| name)).finish()
    }
}

fn mac_of(state: Option<&Hmac<Sha256>>, previous: AuditMac, row: &AuditEntry, key: Option<&str>) -> AuditMac {
    let text = encode(previous, row, key);
    AuditMac(match state {
        Some(state) => state.clone().chain_update(&text).finalize().into_bytes().into(),
        None => Sha256::digest(&text).into(),
    })
}

/// Begins what no row begins with, so that none can be passed off as the other.
const BACKUP: &[u8] = b"\x02portcullis backup";

fn backup_mac(state: &Hmac<Sha256>, digest: &[u8; 32]) -> AuditMac {
    AuditMac(state.clone().chain_update(BACKUP).chain_update(digest).finalize().into_bytes().into())
}

/// What a mac covers: the mac before it and every column, so that no two rows read the same. Numbers are eight bytes,
/// the most significant first; a text is its length as such a number and its bytes; what may be missing is led by 0
/// (missing) or 1. The first byte is the version of this form.
fn encode(previous: AuditMac, row: &AuditEntry, key: Option<&str>) -> Vec<u8> {
    let AuditEntry { entry, revision, at, actor, address, action, subject, before, after, sealed: _ } = row;
    let mut text = Vec::with_capacity(512);
    text.push(1);
    text.extend_from_slice(&previous.0);
    text.extend_from_slice(&entry.to_be_bytes());
    text.extend_from_slice(&revision.number().to_be_bytes());
    text.extend_from_slice(&at.unix_ms().to_be_bytes());
    for part in [actor, action, subject] {
        push_text(&mut text, part);
    }
    for part in [before.as_deref(), after.as_deref(), address.as_deref(), key] {
        text.push(u8::from(part.is_some()));
        if let Some(part) = part {
            push_text(&mut text, part);
        }
    }
    text
}

fn push_text(text: &mut Vec<u8>, part: &str) {
    text.extend_from_slice(&(part.len() as u64).to_be_bytes());
    text.extend_from_slice(part.as_bytes());
}

/// The link from a row to the one before it: HMAC-SHA-256 (RFC 2104), or SHA-256 where there was no key. No secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuditMac([u8; 32]);

impl AuditMac {
    /// The mac with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for AuditMac {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How a row is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Its link to the row before it.
    pub mac: AuditMac,
    /// The name of the key; none for plain SHA-256.
    pub key: Option<String>,
}

/// Where the trail ends. Kept elsewhere, it shows whether the trail was cut or written anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuditHead {
    /// The number of the newest entry; 0 before the first.
    pub entry: u64,
    /// Its mac; zeros before the first, and while no entry is sealed.
    pub mac: AuditMac,
}

impl fmt::Display for AuditHead {
    /// `ENTRY:MAC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.entry, self.mac)
    }
}

/// Why a text is not a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAHead;

impl fmt::Display for NotAHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected ENTRY:MAC, a number and 64 hexadecimal digits, as the gateway logs it")
    }
}

impl std::error::Error for NotAHead {}

impl FromStr for AuditHead {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let (entry, digits) = text.split_once(':').ok_or(NotAHead)?;
        let digits = digits.as_bytes();
        if digits.len() != 64 || !entry.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAHead);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(NotAHead);
        let mut mac = [0; 32];
        for (byte, pair) in mac.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).map_err(|_| NotAHead)?;
        }
        Ok(Self { entry: entry.parse().map_err(|_| NotAHead)?, mac: AuditMac(mac) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Revision, Timestamp};

    fn row() -> AuditEntry {
        AuditEntry {
            entry: 7,
            revision: Revision::new(3),
            at: Timestamp::from_unix_ms(5),
            actor: "local:a".to_owned(),
            address: None,
            action: "key.create".to_owned(),
            subject: "b".to_owned(),
            before: None,
            after: Some("{}".to_owned()),
            sealed: None,
        }
    }

    #[test]
    fn a_head_reads_back_as_it_was_written() {
        let head = AuditHead { entry: 12, mac: AuditMac([0xa5; 32]) };
        let text = head.to_string();
        assert_eq!(text, format!("12:{}", "a5".repeat(32)));
        assert_eq!(text.parse(), Ok(head));
        for odd in ["", "12", "12:", &text[1..][1..], &format!("{text}0"), &text.replace("a5a5", "a5g5"), "+1:00"] {
            assert_eq!(odd.parse::<AuditHead>(), Err(NotAHead), "{odd}");
        }
    }

    #[test]
    fn no_two_rows_read_the_same() {
        let move_text = |row: &mut AuditEntry| (row.actor, row.subject) = ("local:ak".to_owned(), "b".to_owned());
        let changes: [&dyn Fn(&mut AuditEntry); 9] = [
            &|row| row.entry = 8,
            &|row| row.revision = Revision::new(4),
            &|row| row.at = Timestamp::from_unix_ms(-5),
            &move_text,
            &|row| row.action = "ey.create".to_owned(),
            &|row| (row.before, row.after) = (row.after.take(), None),
            &|row| row.after = None,
            &|row| row.after = Some(String::new()),
            &|row| row.address = Some(String::new()),
        ];
        let mut seen = vec![encode(AuditMac::default(), &row(), None)];
        seen.push(encode(AuditMac([1; 32]), &row(), None));
        seen.push(encode(AuditMac::default(), &row(), Some("")));
        for change in changes {
            let mut changed = row();
            change(&mut changed);
            seen.push(encode(AuditMac::default(), &changed, None));
        }
        for (index, text) in seen.iter().enumerate() {
            assert!(!seen[..index].contains(text), "{index}");
        }
    }

    /// Computed with Python's `hashlib` and `hmac` over the form that `docs/audit.md` describes: rows that exist must
    /// verify for ever.
    #[test]
    fn the_form_stays_as_it_was() {
        let sealed = |seal: &AuditSeal| {
            let mut row = row();
            seal.close(AuditMac::default(), &mut row);
            row.sealed.unwrap().mac.to_string()
        };
        assert_eq!(sealed(&AuditSeal::default()), "251fdd981017b8178f44811090e3b077e9ae699762dd332701023ad4dfa625d0");
        assert_eq!(
            sealed(&AuditSeal::new([("2026", Zeroizing::new([9; 32]))])),
            "ce8c0992cab5a64d2601b53e24adda7ea715d4237db59be212729a2acd56df72"
        );
    }
}
