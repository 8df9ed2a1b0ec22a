//! How a verb ends when it does not end well: what a person is told, and the exit code a script sees.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::registry::ApiRefusal;
use crate::manage::Refused;
use crate::store::StoreError;

/// Why a verb did not do what it was asked. Each has its exit code (contract §1).
#[derive(Debug)]
pub(super) enum Failure {
    /// 1: it went wrong while it ran.
    Runtime(String),
    /// 2: it was asked for something that makes no sense.
    Usage(String),
    /// 3: the configuration cannot be used. The findings, rendered.
    Configuration(String),
    /// 4: the store cannot be used.
    Store(StoreError),
    /// 4: the management API of another machine does not answer.
    Unreachable(String),
    /// 5: it answers, and refuses.
    Refused(Box<ApiRefusal>),
    /// 6: `check --strict` found warnings, which were shown.
    Warnings,
    /// 7: it was done, and is not known to be enforced by every gateway. Which are missing, and until when.
    Incomplete(String),
    /// 0: whoever read our output has left, as `head` does.
    ReaderLeft,
}

impl Failure {
    /// Something that went wrong while the verb ran.
    pub(super) fn runtime(message: impl Into<String>) -> Self {
        Self::Runtime(message.into())
    }

    /// Something that makes no sense to ask.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The number a script sees.
    pub(super) const fn code(&self) -> u8 {
        match self {
            Self::ReaderLeft => 0,
            Self::Runtime(_) => 1,
            Self::Usage(_) => 2,
            Self::Configuration(_) => 3,
            Self::Store(_) | Self::Unreachable(_) => 4,
            Self::Refused(_) => 5,
            Self::Warnings => 6,
            Self::Incomplete(_) => 7,
        }
    }

    /// The same for the operating system.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

impl fmt::Display for Failure {
    /// What a person is told; empty where everything was said already.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(message) | Self::Usage(message) | Self::Unreachable(message) => {
                writeln!(f, "error: {message}")
            }
            Self::Incomplete(message) => writeln!(f, "warning: {message}"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Configuration(findings) => f.write_str(findings),
            Self::Store(error) => writeln!(f, "error: {error}"),
            Self::Warnings | Self::ReaderLeft => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderLeft,
            _ => Self::Runtime(format!("cannot write the output: {error}")),
        }
    }
}

impl From<Refused> for Failure {
    /// What makes no sense to ask is 2.
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Flawed(flaw) => Self::Usage(flaw.problem),
            Refused::Store(error) => error.into(),
            Refused::NoSuchKey(id) => {
                Self::Runtime(format!("there is no key {id}; `portcullis keys list` shows those there are"))
            }
            Refused::NoSuchOwner(id) => {
                Self::Runtime(format!("there is no owner {id}; `portcullis owners list` shows those there are"))
            }
            refused => Self::Runtime(refused.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    /// Trouble of the store itself is 4; what it refused to do is 1.
    fn from(error: StoreError) -> Self {
        if error.is_trouble() { Self::Store(error) } else { Self::Runtime(error.to_string()) }
    }
}
