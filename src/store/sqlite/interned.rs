//! Values that many keys share are rows of their own; a key has their numbers.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};

use super::fault::Fault;
use crate::domain::{Bounds, KeyRecord};
use crate::store::columns::to_json;

/// Row numbers of shared values, found or made once for each command.
pub(super) struct Interned<'a> {
    connection: &'a Connection,
    profiles: HashMap<(String, String), i64>,
    environments: HashMap<String, i64>,
    bounds: HashMap<Bounds, i64>,
}

impl<'a> Interned<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, profiles: HashMap::new(), environments: HashMap::new(), bounds: HashMap::new() }
    }

    /// Nothing for a key that nothing bounds.
    pub(super) fn bounds(&mut self, bounds: &Bounds) -> Result<Option<i64>, Fault> {
        if bounds.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.bounds.get(bounds) {
            return Ok(Some(*known));
        }
        let text = to_json(bounds)?;
        let found = find_or_make(
            self.connection,
            "SELECT bound FROM bounds WHERE text = ?1",
            "INSERT INTO bounds (text) VALUES (?1)",
            [&text],
        )?;
        self.bounds.insert(bounds.clone(), found);
        Ok(Some(found))
    }

    pub(super) fn profile(&mut self, record: &KeyRecord) -> Result<i64, Fault> {
        let texts = (to_json(&record.scopes)?, to_json(&record.roles)?);
        if let Some(known) = self.profiles.get(&texts) {
            return Ok(*known);
        }
        let found = find_or_make(
            self.connection,
            "SELECT profile FROM profiles WHERE scopes = ?1 AND roles = ?2",
            "INSERT INTO profiles (scopes, roles) VALUES (?1, ?2)",
            [&texts.0, &texts.1],
        )?;
        self.profiles.insert(texts, found);
        Ok(found)
    }

    pub(super) fn environment(&mut self, name: &str) -> Result<i64, Fault> {
        if let Some(known) = self.environments.get(name) {
            return Ok(*known);
        }
        let found = find_or_make(
            self.connection,
            "SELECT environment FROM environments WHERE name = ?1",
            "INSERT INTO environments (name) VALUES (?1)",
            [name],
        )?;
        self.environments.insert(name.to_owned(), found);
        Ok(found)
    }
}

fn find_or_make<const N: usize, T: rusqlite::ToSql>(
    connection: &Connection,
    find: &str,
    make: &str,
    values: [T; N],
) -> Result<i64, Fault>
where
    [T; N]: rusqlite::Params + Copy,
{
    let found = connection.prepare_cached(find)?.query_row(values, |row| row.get(0)).optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    Ok(connection.prepare_cached(make)?.insert(values)?)
}
