//! Keys that were made elsewhere: rows become records, all of them or none.
//!
//! Owns how rows are read, which are bad, and why. Whoever imports may do no more than by making each key by itself. Start
//! at [`Batch`].

mod row;
mod rows;
mod shape;

use std::collections::{HashMap, HashSet};
use std::io::BufRead;

use serde::Serialize;

use super::desk::Desk;
use super::fault::Refused;
use crate::domain::{KeyHash, KeyId, KeyRecord, OwnerId, Revision, without_keys};
use crate::store::{Command, Holding, Origin, Taken};

pub use row::RowReader;
pub use rows::{Format, Row, read_rows};
pub use shape::RowShape;

/// Rows that are held against what is known before other tasks have their turn.
const ROWS_AT_ONCE: usize = 256;

/// A row that cannot be imported.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct BadRow {
    /// The line it begins on, from 1.
    pub line: u64,
    /// What is wrong, and how to mend it.
    pub problem: String,
}

/// Rows, sorted by whether they can be imported.
#[derive(Default, Debug)]
pub struct Batch {
    good: Vec<(u64, KeyRecord)>,
    bad: Vec<BadRow>,
    hashes: HashMap<KeyHash, u64>,
    ids: HashMap<KeyId, u64>,
}

impl Batch {
    /// Reads at most `most` rows; `seen` is told how many there are by now.
    ///
    /// # Errors
    /// When the input cannot be read, is no table at all, or has more rows.
    pub fn read(
        format: Format,
        input: &mut dyn BufRead,
        reader: &RowReader<'_>,
        most: usize,
        mut seen: impl FnMut(usize),
    ) -> Result<Self, String> {
        let mut batch = Self::default();
        let mut count = 0;
        read_rows(format, input, |row| {
            count += 1;
            if count > most {
                return false;
            }
            seen(count);
            batch.add(row.line, row.fields.and_then(|fields| reader.record(fields)));
            true
        })?;
        if count > most { Err(format!("it has more than {most} rows; import it in parts")) } else { Ok(batch) }
    }

    fn add(&mut self, line: u64, record: Result<KeyRecord, String>) {
        let record = match record {
            Ok(record) => record,
            Err(problem) => return self.refuse(line, &problem),
        };
        let first = self.hashes.get(&record.hash).map(|first| ("key", *first));
        if let Some((what, first)) = first.or_else(|| self.ids.get(&record.id).map(|first| ("id", *first))) {
            return self.refuse(line, &format!("line {first} has the same {what}; keep one of them"));
        }
        self.hashes.insert(record.hash, line);
        self.ids.insert(record.id, line);
        self.good.push((line, record));
    }

    /// What stands in a wrong column may be a key.
    fn refuse(&mut self, line: u64, problem: &str) {
        self.bad.push(BadRow { line, problem: without_keys(problem).into_owned() });
    }

    /// How many rows can be imported.
    pub fn len(&self) -> usize {
        self.good.len()
    }

    /// Whether none can.
    pub fn is_empty(&self) -> bool {
        self.good.is_empty()
    }

    /// Those that cannot, in order of lines once [`Desk::sort_out`] has looked.
    pub fn bad(&self) -> &[BadRow] {
        &self.bad
    }

    /// The same, to keep.
    pub fn into_bad(self) -> Vec<BadRow> {
        self.bad
    }
}

/// What the store has already, of what a batch names.
struct Known {
    taken: Taken,
    owners: HashMap<OwnerId, Holding>,
}

impl Desk<'_> {
    /// Sorts out rows that the store would refuse, or that hold more than the caller may grant, so that all are told at
    /// once. Looks up what the rows name and nothing else.
    ///
    /// # Errors
    /// The store's.
    pub async fn sort_out(&self, batch: &mut Batch) -> Result<(), Refused> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut known = self.look_up(batch).await?;
        for (count, (line, record)) in std::mem::take(&mut batch.good).into_iter().enumerate() {
            if count % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            match self.check_row(&record, &mut known) {
                Ok(()) => batch.good.push((line, record)),
                Err(problem) => batch.refuse(line, &problem),
            }
        }
        batch.bad.sort_by_key(|bad| bad.line);
        Ok(())
    }

    async fn look_up(&self, batch: &Batch) -> Result<Known, Refused> {
        let reader = self.store.reader();
        let (ids, hashes) = (batch.ids.keys().copied().collect(), batch.hashes.keys().copied().collect());
        let taken = reader.find_taken(ids, hashes).await?;
        let owners: HashSet<OwnerId> = batch.good.iter().filter_map(|(_, record)| record.owner).collect();
        let holdings = reader.find_holdings(owners.into_iter().collect()).await?;
        Ok(Known { taken, owners: holdings.into_iter().map(|holding| (holding.owner.id, holding)).collect() })
    }

    fn check_row(&self, record: &KeyRecord, known: &mut Known) -> Result<(), String> {
        if known.taken.hashes.contains_key(&record.hash) {
            return Err("this key is in the store already".to_owned());
        }
        if known.taken.ids.contains(&record.id) {
            return Err("a key with this id is in the store already".to_owned());
        }
        let holding = match record.owner {
            None => None,
            Some(id) => Some(known.owners.get_mut(&id).ok_or_else(|| Refused::NoSuchOwner(id).to_string())?),
        };
        let owner = holding.as_ref().map(|holding| &holding.owner);
        self.authority.check_grant(record, owner, self.settings).map_err(|refused| refused.to_string())?;
        if let Some(Holding { owner, keys }) = holding
            && let Some(most) = owner.max_keys.filter(|_| record.revoked_at.is_none())
        {
            if *keys >= most {
                return Err(format!("the owner may have {most} keys and has as many"));
            }
            *keys += 1;
        }
        Ok(())
    }

    /// Writes the good rows, in one transaction. `None` when there are none.
    ///
    /// # Errors
    /// The store's; what it refuses now was changed by others since [`Self::sort_out`] looked.
    pub async fn import(&self, batch: Batch) -> Result<Option<Revision>, Refused> {
        if batch.is_empty() {
            return Ok(None);
        }
        let records = batch.good.into_iter().map(|(_, record)| record).collect();
        self.submit(Command::InsertKeys { records, origin: Origin::Imported }, None).await
    }
}
