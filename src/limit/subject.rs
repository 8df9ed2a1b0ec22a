//! Whose meter it is, and which rule it belongs to.

use std::net::{IpAddr, Ipv4Addr};

use sha2::{Digest, Sha256};

use crate::domain::{KeyId, OwnerId};

/// Whose requests a meter counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// A key and its successors by rotation, under the id of the first of them.
    Key(KeyId),
    /// All keys of an owner together.
    Owner(OwnerId),
    /// The clients of one network.
    Network(Network),
}

impl Subject {
    /// Different bytes for each: its kind and what tells it from others of that kind, and zeros behind. Also how many they are
    /// without these.
    pub(super) fn to_bytes(self) -> ([u8; 17], usize) {
        let mut bytes = [0; 17];
        let mut put = |kind, id: &[u8]| {
            bytes[0] = kind;
            bytes[1..=id.len()].copy_from_slice(id);
            1 + id.len()
        };
        let len = match self {
            Self::Key(id) => put(b'k', &id.to_bytes()),
            Self::Owner(id) => put(b'o', &id.to_bytes()),
            Self::Network(Network::V4(address)) => put(b'4', &address.octets()),
            Self::Network(Network::V6(prefix)) => put(b'6', &prefix.to_be_bytes()),
            Self::Network(Network::Local) => put(b'l', &[]),
        };
        (bytes, len)
    }
}

/// Clients that count as one: an IPv4 address, or the /64 that an IPv6 host can choose its addresses from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Network {
    /// One address.
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6(u64),
    /// Clients without an address: they come over a Unix socket, and all count as one.
    Local,
}

impl Network {
    /// The network of a client. IPv4 written as IPv6 (RFC 4291 §2.5.5.2) is IPv4.
    pub fn of(client: Option<IpAddr>) -> Self {
        match client.map(|address| address.to_canonical()) {
            None => Self::Local,
            Some(IpAddr::V4(address)) => Self::V4(address),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6(u64::from(a) << 48 | u64::from(b) << 32 | u64::from(c) << 16 | u64::from(d))
            }
        }
    }
}

/// Which rule a meter belongs to. A subject has a meter of its own for each.
///
/// It follows from the rule's name alone, so that it is the same after a reload, whatever else changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RuleId(u64);

impl RuleId {
    /// What a key or an owner may do everywhere, wherever the number comes from: its own, or its environment's.
    pub const OWN: Self = Self(0);

    /// What may be got wrong from an address, whichever route is asked.
    pub const FAILURES: Self = Self(1);

    /// Different bytes for each.
    pub(super) const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The rule of this name.
    pub fn named(name: &str) -> Self {
        let digest = Sha256::digest(name);
        Self(digest.first_chunk().map_or(2, |bytes| u64::from_le_bytes(*bytes)).max(2))
    }
}

/// What a subject's meter under a rule is called where other nodes look for it, too: the same for all of them, and it
/// says neither whose it is nor, to somebody who does not try every one, from which address.
pub fn meter_digest(meter: &(Subject, RuleId)) -> [u8; 16] {
    let (subject, rule) = meter;
    let mut digest = Sha256::new();
    let (told, len) = subject.to_bytes();
    digest.update(&told[..len]);
    digest.update(rule.to_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    let mut name = [0; 16];
    name.copy_from_slice(&digest[..16]);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_is_its_64_and_an_ipv4_client_itself_however_written() {
        let of = |text: &str| Network::of(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(Network::of(None), of("0.0.0.0"));
    }

    #[test]
    fn every_meter_has_a_name_of_its_own_among_nodes() {
        let subjects = [
            Subject::Key(KeyId::from_bytes([7; 16])),
            Subject::Owner(OwnerId::from_bytes([7; 16])),
            Subject::Network(Network::Local),
            Subject::Network(Network::of(Some("192.0.2.1".parse().unwrap()))),
            Subject::Network(Network::of(Some("2001:db8::".parse().unwrap()))),
        ];
        let rules = [RuleId::OWN, RuleId::named("orders")];
        let names: std::collections::HashSet<_> =
            subjects.iter().flat_map(|subject| rules.map(|rule| meter_digest(&(*subject, rule)))).collect();
        assert_eq!(names.len(), subjects.len() * rules.len());
        // What a name was once it has to stay: nodes of two releases share meters while one replaces the other.
        assert_eq!(meter_digest(&(subjects[3], rules[0]))[..4], [123, 69, 161, 30]);
        assert_eq!(meter_digest(&(subjects[0], rules[1]))[..4], [51, 211, 194, 251]);
        assert_eq!(meter_digest(&(subjects[1], rules[0]))[..4], [79, 3, 228, 166]);
        assert_eq!(meter_digest(&(subjects[2], rules[0]))[..4], [154, 135, 204, 48]);
        assert_eq!(meter_digest(&(subjects[4], rules[0]))[..4], [197, 118, 48, 42]);
    }

    #[test]
    fn rules_are_the_same_by_name_and_none_is_the_subjects_own() {
        assert_eq!(RuleId::named("orders"), RuleId::named("orders"));
        assert_ne!(RuleId::named("orders"), RuleId::named("order"));
        assert_ne!(RuleId::named(""), RuleId::OWN);
    }
}
