//! `store`: where keys are kept.

use std::path::Path;

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::{Driver, StoreFile};
use super::super::place::PlaceId;
use super::super::shape::At;
use super::{MINUTE, MS, Marks, SECOND, count, span};
use crate::store::{Pooler, PostgresAddress, PostgresSettings, StoreSettings};

pub(super) fn settings(
    file: Option<&StoreFile>,
    base: &Path,
    marks: &mut Marks,
    findings: &mut Findings,
) -> StoreSettings {
    let driver = file.and_then(|file| file.driver.as_ref()).map_or(Driver::Sqlite, |driver| driver.value);
    if let Some(file) = file {
        check_fields(file, driver, findings);
    }
    match (driver, file) {
        (Driver::Memory, _) => StoreSettings::Memory,
        (Driver::Sqlite, file) => {
            let path = file.and_then(|file| file.path.as_ref());
            StoreSettings::Sqlite {
                path: path.map_or_else(|| base.join("data/portcullis.db"), |path| path.value.0.clone()),
            }
        }
        (Driver::Postgres, file) => {
            // Without an address there are errors, and nothing is run.
            file.and_then(|file| postgres(file, base, marks, findings)).unwrap_or(StoreSettings::Memory)
        }
    }
}

fn postgres(file: &StoreFile, base: &Path, marks: &mut Marks, findings: &mut Findings) -> Option<StoreSettings> {
    let Some(url) = &file.url else {
        if let Some(driver) = file.driver.as_ref()
            && !findings.is_incomplete
        {
            let problem = Problem::new(Code::MissingField, driver.at, "`driver: postgres` needs a `url`");
            findings.note(problem.fix("Add `url: postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full`"));
        }
        return None;
    };
    let address = match PostgresAddress::parse(&url.value.0, base) {
        Ok(address) => address,
        Err(flaw) => {
            findings.note(Problem::new(Code::BadValue, url.at, flaw.problem).fix(flaw.fix));
            return None;
        }
    };
    if address.is_exposed() {
        let why =
            "the connection to the server can be read, or answered by somebody else; sslmode=verify-full ends that";
        marks.weakened.push((url.at, why.to_owned()));
    }
    let connections = count(file.connections.as_ref(), 8, 4..=200, findings);
    Some(StoreSettings::Postgres(Box::new(PostgresSettings {
        address,
        pooler: file.pooler.as_ref().map_or(Pooler::None, |pooler| pooler.value),
        connections: usize::try_from(connections).unwrap_or(usize::MAX),
        connect_timeout: span(file.connect_timeout.as_ref(), 5 * SECOND, 100 * MS..=MINUTE, findings),
        statement_timeout: span(file.statement_timeout.as_ref(), 30 * SECOND, SECOND..=60 * MINUTE, findings),
    })))
}

/// No field says something to a store that does not have it.
fn check_fields(file: &StoreFile, driver: Driver, findings: &mut Findings) {
    fn place<T>(field: Option<&At<T>>) -> Option<PlaceId> {
        field.map(|field| field.at)
    }
    let fields = [
        ("path", place(file.path.as_ref()), Driver::Sqlite),
        ("url", place(file.url.as_ref()), Driver::Postgres),
        ("pooler", place(file.pooler.as_ref()), Driver::Postgres),
        ("connections", place(file.connections.as_ref()), Driver::Postgres),
        ("connect_timeout", place(file.connect_timeout.as_ref()), Driver::Postgres),
        ("statement_timeout", place(file.statement_timeout.as_ref()), Driver::Postgres),
    ];
    for (name, at, of) in fields {
        let Some(at) = at.filter(|_| of != driver) else { continue };
        let message = match driver {
            Driver::Memory => format!("a store in memory has no `{name}`"),
            Driver::Sqlite => format!("a store in a file has no `{name}`"),
            Driver::Postgres => format!("a store in PostgreSQL has no `{name}`"),
        };
        let wanted = match of {
            Driver::Sqlite => "sqlite",
            Driver::Postgres => "postgres",
            Driver::Memory => "memory",
        };
        let problem = Problem::new(Code::Conflict, at, message);
        findings.note(problem.fix(format!("Remove `{name}`, or write `driver: {wanted}`")));
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
