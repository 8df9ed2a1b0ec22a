//! What the lines of a backup hold. A field that is not known is an error: what a line says is all of it.
//!
//! Whatever changes here gives the form a new number ([`FORMAT`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Stand;
use crate::domain::{
    Bounds, GrantedScope, KeyHash, KeyId, KeyKind, KeyRecord, OwnerId, OwnerRecord, Quota, QuotaHolder, QuotaPeriod,
    QuotaTerm, RateLimit, Revision, Timestamp,
};
use crate::store::seal::{AuditHead, AuditMac, Sealed};
use crate::store::trail::{Anchor, AuditEntry};

/// The form that is written, and the newest that can be read.
pub(super) const FORMAT: u32 = 1;

/// As much of the first line as every version can read.
#[derive(Deserialize)]
pub(super) struct AnyFirst {
    pub(super) portcullis_backup: AnyHeading,
}

/// See [`AnyFirst`].
#[derive(Deserialize)]
pub(super) struct AnyHeading {
    pub(super) format: u32,
    pub(super) made_by: String,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct First {
    pub(super) portcullis_backup: Heading,
}

/// What comes first.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heading {
    pub(super) format: u32,
    pub(super) made_by: String,
    pub(super) made_at: Timestamp,
    pub(super) revision: Revision,
    /// The last entry that was dropped from the front of the trail.
    pub(super) dropped: Option<DroppedLine>,
}

/// An anchor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DroppedLine {
    through: String,
    at: Timestamp,
}

impl Heading {
    pub(super) fn new(stand: Stand, made_at: Timestamp) -> Self {
        let dropped = |anchor: Anchor| DroppedLine { through: anchor.last.to_string(), at: anchor.at };
        Self {
            format: FORMAT,
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            made_at,
            revision: stand.revision,
            dropped: stand.anchor.map(dropped),
        }
    }

    /// The way back.
    pub(super) fn stand(&self) -> Result<Stand, String> {
        let anchor = |DroppedLine { through, at }: &DroppedLine| -> Result<Anchor, String> {
            let last = through.parse().map_err(|odd| format!("`dropped.through`: {odd}"))?;
            Ok(Anchor { last, at: *at })
        };
        Ok(Stand { revision: self.revision, anchor: self.dropped.as_ref().map(anchor).transpose()? })
    }
}

/// Every other line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    Owner(Box<OwnerLine>),
    Key(Box<KeyLine>),
    Entry(EntryLine),
    Quota(QuotaLine),
    /// The last one.
    End(EndLine),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnerLine {
    id: OwnerId,
    name: String,
    suspended: bool,
    rate_limit: Option<RateLimit>,
    quota: Option<Quota>,
    max_keys: Option<u32>,
    may_grant: Option<Vec<GrantedScope>>,
    created_at: Timestamp,
    metadata: BTreeMap<String, Value>,
}

impl From<OwnerRecord> for OwnerLine {
    fn from(record: OwnerRecord) -> Self {
        let OwnerRecord {
            id,
            name,
            suspended,
            rate_limit,
            quota,
            max_keys,
            may_grant,
            created_at,
            metadata,
            revision: _,
        } = record;
        Self { id, name, suspended, rate_limit, quota, max_keys, may_grant, created_at, metadata }
    }
}

impl From<OwnerLine> for OwnerRecord {
    fn from(line: OwnerLine) -> Self {
        let OwnerLine { id, name, suspended, rate_limit, quota, max_keys, may_grant, created_at, metadata } = line;
        let revision = Revision::ZERO;
        Self { id, name, suspended, rate_limit, quota, max_keys, may_grant, created_at, metadata, revision }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyLine {
    id: KeyId,
    /// 64 hexadecimal digits: SHA-256, or HMAC-SHA-256 with `pepper`.
    hash: String,
    pepper: Option<String>,
    name: String,
    description: String,
    owner: Option<OwnerId>,
    environment: String,
    kind: KeyKind,
    prefix: String,
    last4: String,
    paired: bool,
    scopes: Vec<GrantedScope>,
    roles: Vec<String>,
    may_grant: Vec<GrantedScope>,
    bounds: Bounds,
    active: bool,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    created_by: String,
    last_used_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    replaces: Option<KeyId>,
    lineage: KeyId,
    ends_on_use: bool,
    grace_until: Option<Timestamp>,
    metadata: BTreeMap<String, Value>,
}

impl From<KeyRecord> for KeyLine {
    fn from(record: KeyRecord) -> Self {
        Self {
            id: record.id,
            hash: hex(record.hash.as_bytes()),
            pepper: record.pepper,
            name: record.name,
            description: record.description,
            owner: record.owner,
            environment: record.environment,
            kind: record.kind,
            prefix: record.prefix,
            last4: record.last4,
            paired: record.paired,
            scopes: record.scopes,
            roles: record.roles,
            may_grant: record.may_grant,
            bounds: record.bounds,
            active: record.active,
            expires_at: record.expires_at,
            created_at: record.created_at,
            created_by: record.created_by,
            last_used_at: record.last_used_at,
            revoked_at: record.revoked_at,
            replaces: record.replaces,
            lineage: record.lineage,
            ends_on_use: record.ends_on_use,
            grace_until: record.grace_until,
            metadata: record.metadata,
        }
    }
}

impl KeyLine {
    /// The way back.
    pub(super) fn record(self) -> Result<KeyRecord, String> {
        let hash = bytes_of(&self.hash).map(KeyHash::from_bytes).ok_or("`hash`: expected 64 hexadecimal digits")?;
        Ok(KeyRecord {
            id: self.id,
            hash,
            pepper: self.pepper,
            name: self.name,
            description: self.description,
            owner: self.owner,
            environment: self.environment,
            kind: self.kind,
            prefix: self.prefix,
            last4: self.last4,
            paired: self.paired,
            scopes: self.scopes,
            roles: self.roles,
            may_grant: self.may_grant,
            bounds: self.bounds,
            active: self.active,
            expires_at: self.expires_at,
            created_at: self.created_at,
            created_by: self.created_by,
            last_used_at: self.last_used_at,
            revoked_at: self.revoked_at,
            replaces: self.replaces,
            lineage: self.lineage,
            ends_on_use: self.ends_on_use,
            grace_until: self.grace_until,
            metadata: self.metadata,
            revision: Revision::ZERO,
        })
    }
}

/// `before` and `after` are texts, as a mac covers them to the letter.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryLine {
    entry: u64,
    revision: Revision,
    at: Timestamp,
    actor: String,
    address: Option<String>,
    action: String,
    subject: String,
    before: Option<String>,
    after: Option<String>,
    mac: Option<String>,
    pepper: Option<String>,
}

impl From<AuditEntry> for EntryLine {
    fn from(row: AuditEntry) -> Self {
        let AuditEntry { entry, revision, at, actor, address, action, subject, before, after, sealed } = row;
        let (mac, pepper) = sealed.map(|Sealed { mac, key }| (mac.to_string(), key)).unzip();
        let pepper = pepper.flatten();
        Self { entry, revision, at, actor, address, action, subject, before, after, mac, pepper }
    }
}

impl EntryLine {
    /// The way back.
    pub(super) fn entry(self) -> Result<AuditEntry, String> {
        let Self { entry, revision, at, actor, address, action, subject, before, after, mac, pepper } = self;
        let mac = mac.map(|mac| mac_of(&mac)).transpose()?;
        let sealed = mac.map(|mac| Sealed { mac, key: pepper });
        Ok(AuditEntry { entry, revision, at, actor, address, action, subject, before, after, sealed })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaLine {
    holder: Holder,
    period: Period,
    begins: Timestamp,
    requests: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Holder {
    Key(KeyId),
    Owner(OwnerId),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Period {
    Day,
    Month,
}

impl From<(QuotaTerm, u64)> for QuotaLine {
    fn from((QuotaTerm { holder, period, begins }, requests): (QuotaTerm, u64)) -> Self {
        let holder = match holder {
            QuotaHolder::Key(id) => Holder::Key(id),
            QuotaHolder::Owner(id) => Holder::Owner(id),
        };
        let period = match period {
            QuotaPeriod::Day => Period::Day,
            QuotaPeriod::Month => Period::Month,
        };
        Self { holder, period, begins, requests }
    }
}

impl From<QuotaLine> for (QuotaTerm, u64) {
    fn from(QuotaLine { holder, period, begins, requests }: QuotaLine) -> Self {
        let holder = match holder {
            Holder::Key(id) => QuotaHolder::Key(id),
            Holder::Owner(id) => QuotaHolder::Owner(id),
        };
        let period = match period {
            Period::Day => QuotaPeriod::Day,
            Period::Month => QuotaPeriod::Month,
        };
        (QuotaTerm { holder, period, begins }, requests)
    }
}

/// What comes last: how much there was, and what shows that it is as it was written.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) owners: u64,
    pub(super) keys: u64,
    pub(super) entries: u64,
    pub(super) quotas: u64,
    /// SHA-256 of every byte before this line, 64 hexadecimal digits.
    pub(super) sha256: String,
    /// The name of the pepper that `mac` was made with.
    pub(super) pepper: Option<String>,
    /// HMAC-SHA-256 of that digest; none where there was no pepper.
    pub(super) mac: Option<String>,
}

/// The mac with these digits.
pub(super) fn mac_of(digits: &str) -> Result<AuditMac, String> {
    // A head is written with the same digits behind a number.
    let head: Result<AuditHead, _> = format!("0:{digits}").parse();
    head.map(|head| head.mac).map_err(|_| "`mac`: expected 64 hexadecimal digits".to_owned())
}

fn bytes_of(digits: &str) -> Option<[u8; 32]> {
    mac_of(digits).ok().map(|mac| *mac.as_bytes())
}

/// 64 hexadecimal digits.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    AuditMac::from_bytes(*bytes).to_string()
}
