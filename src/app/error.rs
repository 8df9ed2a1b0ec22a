//! Why a gateway does not start.

use std::fmt;
use std::io;

use crate::gate::RulesError;
use crate::proxy::{TlsError, UpstreamError};
use crate::server::ListenError;
use crate::store::{OtherSecret, StoreError};

/// Why a gateway does not start, or not take over a configuration.
#[derive(Debug)]
pub enum RunError {
    /// The store.
    Store(StoreError),
    /// A pepper.
    Secret(OtherSecret),
    /// A socket.
    Listen(ListenError),
    /// The route map.
    Rules(RulesError),
    /// An upstream.
    Upstream {
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: UpstreamError,
    },
    /// Certificates.
    Tls {
        /// The name of the `tls` entry.
        name: String,
        /// What is wrong with it.
        problems: Vec<TlsError>,
    },
    /// The operating system: threads, signals, event queues.
    System {
        /// What was tried.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A change that needs a restart.
    NeedsRestart {
        /// Which setting.
        setting: &'static str,
    },
}

impl RunError {
    /// The process's exit code (contract §1).
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Store(_) => 4,
            Self::Secret(_) | Self::Rules(_) | Self::Upstream { .. } | Self::Tls { .. } | Self::NeedsRestart { .. } => {
                3
            }
            Self::Listen(_) | Self::System { .. } => 1,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::Rules(error) => error.fmt(f),
            Self::Upstream { name, source } => write!(f, "upstreams.{name}: {source}"),
            Self::Tls { name, problems } => {
                for (i, problem) in problems.iter().enumerate() {
                    write!(f, "{}tls.{name}: {problem}", if i > 0 { "; " } else { "" })?;
                }
                Ok(())
            }
            Self::System { doing, source } => write!(f, "cannot {doing}: {source}"),
            Self::NeedsRestart { setting } => {
                write!(f, "{setting} cannot change while the gateway runs; restart it to take the new value over")
            }
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Secret(error) => Some(error),
            Self::Listen(error) => Some(error),
            Self::Rules(error) => Some(error),
            Self::Upstream { source, .. } => Some(source),
            Self::System { source, .. } => Some(source),
            Self::Tls { .. } | Self::NeedsRestart { .. } => None,
        }
    }
}
