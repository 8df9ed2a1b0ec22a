//! What goes wrong between here and the server, and how it is told to people.

use std::error::Error;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::address::PostgresAddress;
use crate::store::columns::Odd;
use crate::store::error::StoreError;

/// Trouble on the way to an answer. All but the last still lack a place.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server's, or the connection's.
    Server(tokio_postgres::Error),
    /// No answer came in this time.
    Silence(Duration),
    /// The connection ended when a transaction was about to commit: whether it did is not known.
    Unknown,
    /// The tables hold what no version of this program writes.
    Odd(String),
    /// An error that is worded already.
    Told(StoreError),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl From<Odd> for Fault {
    fn from(Odd(found): Odd) -> Self {
        Self::Odd(found)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Told(error)
    }
}

impl Fault {
    /// Whether the connection is of no more use.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Silence(_) | Self::Unknown => true,
            // What the server says about a statement leaves the connection as it is; other errors are the connection's.
            Self::Server(error) => match error.as_db_error() {
                // A server that has become a standby, or is set to read only, is not the one to stay at.
                Some(said) => is_last_word(said) || *said.code() == SqlState::READ_ONLY_SQL_TRANSACTION,
                None => is_of_connection(error),
            },
            Self::Odd(_) | Self::Told(_) => false,
        }
    }

    /// Whether a commit that was answered like this may have happened all the same: a pooler tells the loss of its own
    /// connection in the server's words.
    pub(super) fn leaves_commit_open(&self) -> bool {
        match self {
            Self::Server(error) => error.as_db_error().is_none_or(|said| {
                let code = said.code();
                is_last_word(said)
                    || code.code().starts_with("08")
                    || code.code().starts_with("57P")
                    || *code == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
            }),
            Self::Silence(_) | Self::Unknown => true,
            Self::Odd(_) | Self::Told(_) => false,
        }
    }

    /// Whether this statement never reached a server that is there: it may be said again over another connection.
    pub(super) fn lost_connection(&self) -> bool {
        match self {
            Self::Server(error) => match error.code() {
                Some(code) => *code == SqlState::ADMIN_SHUTDOWN || *code == SqlState::CRASH_SHUTDOWN,
                None => is_of_connection(error),
            },
            Self::Silence(_) | Self::Unknown | Self::Odd(_) | Self::Told(_) => false,
        }
    }

    /// Why the server will not do this, when it would say so again: it is another server, or the role may not.
    pub(super) fn refusal(&self) -> Option<String> {
        let Self::Server(error) = self else { return None };
        let said = error.as_db_error()?;
        let fix = match said.code().code().get(..2)? {
            "25" => READ_ONLY,
            "42" => "give the role of `store.url` what docs/postgresql.md lists",
            _ => return None,
        };
        Some(format!("{} ({}); {fix}", said.message(), said.code().code()))
    }

    /// The server's code for what is wrong.
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server(error) => error.code(),
            Self::Silence(_) | Self::Unknown | Self::Odd(_) | Self::Told(_) => None,
        }
    }

    /// The error for the caller, with what was tried, where, and how to mend it.
    pub(super) fn tell(self, doing: &str, address: &PostgresAddress) -> StoreError {
        let place = address.place();
        let doing = format!("{doing} in {place}");
        match self {
            Self::Told(error) => error,
            Self::Odd(found) => StoreError::Damaged { found: format!("{place}: {found}") },
            Self::Silence(after) => StoreError::unavailable(
                doing,
                format!("no answer within {after:?}; see whether the server, and the network to it, are well"),
            ),
            Self::Unknown => StoreError::Uncertain { doing },
            Self::Server(error) if is_conversion(&error) => {
                StoreError::Damaged { found: format!("{place} while {doing}: {}", chain(&error)) }
            }
            Self::Server(error) => StoreError::unavailable(doing, explain(&error, address)),
        }
    }
}

/// Whether the server ends the connection with this.
fn is_last_word(said: &tokio_postgres::error::DbError) -> bool {
    said.severity() == "FATAL" || said.severity() == "PANIC"
}

/// A column of a type or a length that the schema does not allow.
pub(super) fn is_conversion(error: &tokio_postgres::Error) -> bool {
    // The library has no name for these but their texts' beginning.
    error.as_db_error().is_none() && error.to_string().starts_with("error deserializing column")
}

fn is_of_connection(error: &tokio_postgres::Error) -> bool {
    !is_conversion(error) && !error.to_string().starts_with("error serializing parameter")
}

const READ_ONLY: &str = "this server is a standby, or set to read only: name the primary in `store.url`";

/// What the server says, with a way to mend it. Its details are left out: they may quote a row.
fn explain(error: &tokio_postgres::Error, address: &PostgresAddress) -> String {
    let Some(said) = error.as_db_error() else {
        let said = chain(error);
        // The library's words for a server that is not the one that `target_session_attrs` asks for, or speaks no TLS.
        let fix = if said.contains("does not allow writes") {
            READ_ONLY
        } else if said.contains("does not support TLS") {
            "switch `ssl` on there, or lower `sslmode` in `store.url`"
        } else {
            "start the server, or correct `store.url`"
        };
        return format!("{said}; {fix}");
    };
    let PostgresAddress { user, database, .. } = address;
    let code = said.code();
    let fix = if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        format!("correct user and password in `store.url`, or let `{user}` in with pg_hba.conf")
    } else if *code == SqlState::INVALID_CATALOG_NAME {
        format!("create it (CREATE DATABASE), or correct `store.url`, which names `{database}`")
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        format!("grant the role `{user}` what docs/postgresql.md lists")
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        "lower `store.connections`, or raise the server's max_connections".to_owned()
    } else if *code == SqlState::CANNOT_CONNECT_NOW || *code == SqlState::ADMIN_SHUTDOWN {
        "wait until the server has started".to_owned()
    } else if *code == SqlState::QUERY_CANCELED {
        "the server is busy, or `store.statement_timeout` is too short for it".to_owned()
    } else if *code == SqlState::LOCK_NOT_AVAILABLE {
        "another change, a large import say, takes long; try again".to_owned()
    } else if *code == SqlState::DISK_FULL {
        "free some space on the server".to_owned()
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        READ_ONLY.to_owned()
    } else if *code == SqlState::DUPLICATE_PSTATEMENT || *code == SqlState::INVALID_SQL_STATEMENT_NAME {
        "a pooler in between gives each transaction another connection: write `pooler: transaction`".to_owned()
    } else if code.code().starts_with("42") || code.code().starts_with("3F") {
        "the tables are not those that this portcullis made; see `portcullis migrate status`".to_owned()
    } else {
        "see the server's log".to_owned()
    };
    format!("{} ({}); {fix}", said.message(), code.code())
}

/// An error and its causes in a line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
