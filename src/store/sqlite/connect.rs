//! Opening the files: created private, recognised before they are touched, checked as far as that is cheap.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::fault::Fault;
use super::migrate::{self, Schema};
use crate::store::OpenMode;
use crate::store::error::StoreError;

/// How long a write waits for another process's: longer than any import that is not absurd.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to switch a new file to a write-ahead log.
const SWITCH_PAUSE: Duration = Duration::from_millis(10);
/// Files up to this size are checked whole when they are opened: a tenth of a second at most, where a million keys would
/// take two. In larger ones pages are checked as they are read, and loading the key set reads every page that holds keys.
const CHECKED_WHOLE_BYTES: u64 = 32 << 20;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// The one that changes records.
    Writer,
    /// Reads only.
    Reader,
    /// Notes last use, in the file beside.
    Usage,
}

/// The file that notes last use for a store at `path`.
pub(super) fn usage_path(path: &Path) -> PathBuf {
    path.with_extension("usage.db")
}

/// The file behind a path, to notice when another takes its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileIdentity(u64, u64);

impl FileIdentity {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        path.metadata().map(|data| Self(data.dev(), data.ino()))
    }
}

/// Makes the file and its directory unless they exist: the directory 0700, the file 0600.
fn create_file(path: &Path) -> Result<(), StoreError> {
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|source| {
            StoreError::unavailable(format!("creating the store's directory `{}`", directory.display()), source)
        })?;
    }
    // Only a new file is opened here: closing any descriptor of a file drops the locks that SQLite holds on it for the
    // whole process (POSIX `fcntl`).
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {
            keep_entries(path);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(StoreError::unavailable(format!("creating the store `{}`", path.display()), source)),
    }
}

/// A new file is not there after a power cut unless the directories that lead to it were written too. Where that cannot
/// be asked for (no permission to read one, a file system that refuses), it happens when the system gets to it.
fn keep_entries(path: &Path) {
    let directories = path.ancestors().skip(1).take(2);
    let named = directories.map(|directory| if directory.as_os_str().is_empty() { Path::new(".") } else { directory });
    for directory in named.filter_map(|directory| File::open(directory).ok()) {
        drop(directory.sync_all());
    }
}

/// Its size in bytes. Fails with the operating system's words when the file cannot be read at all, where SQLite would
/// only say "unable to open". Looks without opening, see [`create_file`].
fn check_readable(path: &Path) -> Result<u64, StoreError> {
    let doing = || format!("opening the store `{}`", path.display());
    let data = path.metadata().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => StoreError::unavailable(
            doing(),
            "there is no such file; `portcullis init` or `portcullis keys create` makes one",
        ),
        _ => StoreError::unavailable(doing(), source),
    })?;
    if !data.is_file() {
        return Err(StoreError::unavailable(doing(), "it is not a file"));
    }
    rustix::fs::access(path, rustix::fs::Access::READ_OK)
        .map_err(|source| StoreError::unavailable(doing(), io::Error::from(source)))?;
    Ok(data.len())
}

/// Held while a file is created and first opened, so that no other thread has it open when `create_file` closes it.
static PREPARING: Mutex<()> = Mutex::new(());

/// Opens the store for the first time in this process: creates, recognises, migrates and checks it.
pub(super) fn open_first(path: &Path, mode: OpenMode) -> Result<Connection, StoreError> {
    let _alone = PREPARING.lock();
    if mode == OpenMode::Create {
        create_file(path)?;
    }
    let connection = prepare(path, &migrate::KEYS, Role::Writer)?;
    if check_readable(path)? <= CHECKED_WHOLE_BYTES {
        check_whole(&connection).map_err(|fault| fault.tell("checking the store", path))?;
    }
    Ok(connection)
}

/// Opens a store to look at its schema, whatever that is; none where there is no file. Changes nothing.
pub(super) fn open_to_look(path: &Path) -> Result<Option<Connection>, StoreError> {
    if !path.exists() {
        return Ok(None);
    }
    check_readable(path)?;
    let opened = connect(path).and_then(|connection| {
        migrate::recognise(&connection, &migrate::KEYS)?;
        Ok(connection)
    });
    opened.map(Some).map_err(|fault| fault.tell("looking at the store", path))
}

/// Opens one more connection, or one in place of a connection that had trouble.
pub(super) fn open_again(path: &Path, role: Role) -> Result<Connection, StoreError> {
    match role {
        // A file that took the place of the old one may be of an older schema, so these prepare it as the first did.
        Role::Writer | Role::Reader => prepare(path, &migrate::KEYS, role),
        Role::Usage => {
            let _alone = PREPARING.lock();
            create_file(path)?;
            prepare(path, &migrate::USAGE, role)
        }
    }
}

/// Opens a file of a kind, its schema brought up to date.
fn prepare(path: &Path, schema: &Schema, role: Role) -> Result<Connection, StoreError> {
    check_readable(path)?;
    let prepared = connect(path).and_then(|mut connection| {
        migrate::recognise(&connection, schema)?;
        use_write_ahead_log(&connection)?;
        migrate::migrate(&mut connection, schema)?;
        tune(&connection, role)?;
        Ok(connection)
    });
    prepared.map_err(|fault| fault.tell("opening the store", path))
}

fn connect(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Readers and the writer do not wait for each other. The switch is remembered in the file.
fn use_write_ahead_log(connection: &Connection) -> Result<(), Fault> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    // SQLite does not wait by itself for another process that switches at the same moment.
    let mut waited = Duration::ZERO;
    let mode: String = loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && waited < BUSY_TIMEOUT => {
                std::thread::park_timeout(SWITCH_PAUSE);
                waited += SWITCH_PAUSE;
            }
            result => break result?,
        }
    };
    if mode == "wal" {
        return Ok(());
    }
    Err(StoreError::unavailable(
        "switching the store to a write-ahead log",
        format!("its file system does not support it (mode stays `{mode}`); put the store on a local disk"),
    )
    .into())
}

fn tune(connection: &Connection, role: Role) -> Result<(), Fault> {
    // What is acknowledged survives a power cut; noted uses may lose the last seconds.
    let settings = match role {
        Role::Writer => "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 67108864;",
        Role::Reader => "PRAGMA query_only = ON;",
        Role::Usage => "PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 8388608;",
    };
    connection.execute_batch(settings)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")?;
    Ok(())
}

fn check_whole(connection: &Connection) -> Result<(), Fault> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(Fault::Odd(format!("{verdict}; restore it from a backup, it is not repaired in place")))
}
