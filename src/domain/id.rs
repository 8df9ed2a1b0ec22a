//! Public identifiers. They are safe to log and to show.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Why a text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnId {
    /// The prefix an identifier of this kind begins with.
    pub expected_prefix: &'static str,
}

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an id: expected `{}` followed by 32 hexadecimal digits", self.expected_prefix)
    }
}

impl std::error::Error for NotAnId {}

macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new identifier, ordered by creation time (UUIDv7, RFC 9562 §5.7).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The identifier with these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The text form, without allocating: the prefix, then 32 lower-case hexadecimal digits.
            pub fn text(self) -> [u8; $prefix.len() + 32] {
                let mut text = [0; $prefix.len() + 32];
                let (prefix, digits) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                self.0.as_simple().encode_lower(digits);
                text
            }

            /// The 16 bytes.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.as_simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            /// Reads the text form: the prefix, then 32 lower-case hexadecimal digits without hyphens.
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let refused = NotAnId { expected_prefix: $prefix };
                let digits = text.strip_prefix($prefix).ok_or(refused.clone())?;
                let canonical = digits.len() == 32
                    && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if !canonical {
                    return Err(refused);
                }
                Uuid::try_parse(digits).map(Self).map_err(|_| refused)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

prefixed_id!(
    /// Names a key for as long as its record lives. Public: it appears in logs, metrics never, answers always.
    KeyId,
    "key_"
);
prefixed_id!(
    /// Names the account a key belongs to.
    OwnerId,
    "own_"
);
prefixed_id!(
    /// Names a process that enforces keys, among all that share a store.
    NodeId,
    "node_"
);
