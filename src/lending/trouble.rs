//! Why a server cannot be asked, in words for an operator and without any secret.

use std::path::PathBuf;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing listens there, or the connection broke.
    Io(std::io::Error),
    /// The connection ended.
    Ended,
    /// No answer came for so long.
    Silence(Duration),
    /// The server answers with an error.
    Refused {
        /// What it was asked to do.
        doing: &'static str,
        /// What it says.
        said: String,
    },
    /// What answers is no such server.
    Foreign,
    /// The authorities cannot be read.
    Authorities(Option<PathBuf>, String),
    /// TLS cannot be spoken.
    Tls(String),
}

/// Longest part of a server's words that is told.
const LONGEST_SAID: usize = 200;

impl Trouble {
    /// Whether nobody answers, in whichever way: that ends by itself.
    pub(super) const fn is_absence(&self) -> bool {
        match self {
            Self::Io(_) | Self::Ended | Self::Silence(_) => true,
            Self::Refused { .. } | Self::Foreign | Self::Authorities(..) | Self::Tls(_) => false,
        }
    }

    /// What a server said, printable, and without `secret`, which it may repeat.
    pub(super) fn refused(doing: &'static str, said: &str, secret: Option<&str>) -> Self {
        let said = match secret {
            Some(secret) => said.replace(secret, "…"),
            None => said.to_owned(),
        };
        let said = said.chars().filter(|c| !c.is_control()).take(LONGEST_SAID).collect();
        Self::Refused { doing, said }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Ended => f.write_str("the server ended the connection"),
            Self::Silence(span) => write!(f, "no answer within {span:?}"),
            Self::Refused { doing, said } => write!(f, "the server refuses {doing}: {said}"),
            Self::Foreign => f.write_str("what answers is neither Redis nor Valkey"),
            Self::Authorities(Some(file), error) => {
                write!(f, "`{}` (`rate_limits.shared.ca`) cannot be used: {error}", file.display())
            }
            Self::Authorities(None, error) => write!(f, "the authorities of the system cannot be read: {error}"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}
