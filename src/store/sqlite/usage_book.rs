//! What requests leave behind, in the file of last use.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, named_params, params};

use super::fault::Fault;
use super::seat::Open;
use super::usage::Usage;
use super::usage_findings::{add_findings, findings};
use super::usage_tidy::tidy;
use crate::domain::{KeyId, Timestamp};
use crate::store::api::Answer;
use crate::store::columns::{passage_number, passage_of, rows, signed, unsigned};
use crate::store::surplus::Surplus;
use crate::store::usage::{
    AdditionId, EventKind, EventQuery, Finding, KeyUsage, LastSeen, MAX_EVENTS, MAX_NETWORKS, NetworkSeen, NewEvent,
    NewNetwork, Passage, Sighting, Span, Tidied, UsageBook, UsageBucket, UsageCount, UsageEvent, UsageNotes,
    UsageQuery, at_hour,
};

impl UsageBook for Usage {
    fn note_usage(&self, notes: UsageNotes) -> Answer<'_, Vec<NewNetwork>> {
        Box::pin(self.insist("noting usage", move |open| note(open, &notes)))
    }

    fn note_events(&self, _: AdditionId, events: Vec<NewEvent>) -> Answer<'_, Vec<bool>> {
        Box::pin(self.insist("noting events", move |open| note_events(open, &events)))
    }

    fn tidy_usage(&self, retention: Duration, now: Timestamp) -> Answer<'_, Tidied> {
        Box::pin(async move {
            if !self.exists() {
                return Ok(Tidied::default());
            }
            self.insist("dropping old usage", move |open| tidy(open, retention, now)).await
        })
    }

    fn key_usage(&self, query: UsageQuery) -> Answer<'_, KeyUsage> {
        self.look("reading usage", move |open| key_usage(open, &query))
    }

    fn rules_passed(&self, keys: Vec<KeyId>) -> Answer<'_, Vec<(KeyId, Arc<str>)>> {
        self.look("reading the rules that keys passed", move |open| rules_passed(open, &keys))
    }

    fn findings(&self) -> Answer<'_, Vec<Finding>> {
        self.look("reading what report mode found", findings)
    }

    fn list_events(&self, query: EventQuery) -> Answer<'_, Vec<UsageEvent>> {
        self.look("listing events", move |open| list_events(open, query))
    }

    fn counted_since(&self) -> Answer<'_, Option<Timestamp>> {
        self.look("reading usage", |open| {
            // Each from the front of the index; over both at once it would be read whole.
            let oldest = |span: Span| -> Result<Option<i64>, Fault> {
                let sql = "SELECT min(begins) FROM counts WHERE span = ?1";
                Ok(open.connection.query_row(sql, [span.hours()], |row| row.get(0))?)
            };
            Ok([oldest(Span::Hour)?, oldest(Span::Day)?].into_iter().flatten().min().map(at_hour))
        })
    }
}

impl Usage {
    /// Reads; there is nothing to read where there is no file.
    fn look<T: Default + Send + 'static>(
        &self,
        doing: &'static str,
        job: impl Fn(&mut Open) -> Result<T, Fault> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move { if self.exists() { self.insist(doing, job).await } else { Ok(T::default()) } })
    }
}

fn note(open: &mut Open, notes: &UsageNotes) -> Result<Vec<NewNetwork>, Fault> {
    let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut rules = Rules::default();
    add_counts(&transaction, &notes.counts, &mut rules)?;
    let new = see(&transaction, &notes.sightings)?;
    add_findings(&transaction, &notes.findings, &mut rules)?;
    transaction.commit()?;
    Ok(new)
}

/// Numbers of rules, looked up or given once in a transaction.
#[derive(Default)]
pub(super) struct Rules(HashMap<Arc<str>, i64>);

impl Rules {
    pub(super) fn number(&mut self, connection: &Connection, text: &Arc<str>) -> Result<i64, Fault> {
        if let Some(number) = self.0.get(text) {
            return Ok(*number);
        }
        // Setting what is there already, so that there is a row to answer.
        let mut upsert = connection.prepare_cached(
            "INSERT INTO rules (text) VALUES (?1) ON CONFLICT (text) DO UPDATE SET text = text RETURNING rule",
        )?;
        let number = upsert.query_row([text.as_ref()], |row| row.get(0))?;
        self.0.insert(Arc::clone(text), number);
        Ok(number)
    }
}

fn add_counts(connection: &Connection, counts: &[UsageCount], rules: &mut Rules) -> Result<(), Fault> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO counts (id, begins, span, rule, status, passage, requests) VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6) \
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
    )?;
    for count in counts {
        let rule = rules.number(connection, &count.rule)?;
        let begins = Span::Hour.holding(count.at);
        let requests = signed(count.requests);
        upsert.execute(params![
            count.key.to_bytes(),
            begins,
            rule,
            count.status,
            passage_number(count.passage),
            requests
        ])?;
    }
    Ok(())
}

fn see(connection: &Connection, sightings: &[Sighting]) -> Result<Vec<NewNetwork>, Fault> {
    let mut last = connection.prepare_cached(
        "INSERT INTO seen (id, at, address, agent) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE \
         SET at = excluded.at, address = excluded.address, agent = excluded.agent WHERE excluded.at >= at",
    )?;
    let mut again = connection.prepare_cached(
        "UPDATE networks SET first = min(first, ?3), last = max(last, ?4) WHERE id = ?1 AND network = ?2",
    )?;
    let mut known = connection.prepare_cached("SELECT count(*) FROM networks WHERE id = ?1")?;
    let mut forget = connection.prepare_cached(
        "DELETE FROM networks WHERE id = ?1 AND network = \
         (SELECT network FROM networks WHERE id = ?1 ORDER BY last, network LIMIT 1)",
    )?;
    let mut add =
        connection.prepare_cached("INSERT INTO networks (id, network, first, last) VALUES (?1, ?2, ?3, ?4)")?;
    let mut new = Vec::new();
    for sighting in sightings {
        let id = sighting.key.to_bytes();
        let address = sighting.address.map(|address| address.to_string());
        last.execute(params![id, sighting.at.unix_ms(), address, sighting.agent])?;
        for NetworkSeen { network, first, last } in &sighting.networks {
            let row = params![id, network.to_string(), first.unix_ms(), last.unix_ms()];
            if again.execute(row)? > 0 {
                continue;
            }
            let known: i64 = known.query_row([id], |row| row.get(0))?;
            if known >= rows(MAX_NETWORKS) {
                forget.execute([id])?;
            }
            add.execute(row)?;
            if known > 0 {
                let others = usize::try_from(known).unwrap_or(usize::MAX);
                new.push(NewNetwork { key: sighting.key, network: *network, others });
            }
        }
    }
    Ok(new)
}

fn note_events(open: &mut Open, events: &[NewEvent]) -> Result<Vec<bool>, Fault> {
    let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut written = Vec::with_capacity(events.len());
    {
        let mut last = transaction.prepare_cached("SELECT max(at) FROM events WHERE kind = ?1 AND id IS ?2")?;
        let mut insert = transaction
            .prepare_cached("INSERT INTO events (kind, id, address, at, detail) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for NewEvent { event, apart } in events {
            let (kind, id) = (event.kind.text(), event.key.map(KeyId::to_bytes));
            let last: Option<i64> = last.query_row(params![kind, id], |row| row.get(0))?;
            let is_told =
                last.is_some_and(|last| !apart.is_zero() && event.at < Timestamp::from_unix_ms(last).plus(*apart));
            if !is_told {
                let address = event.address.map(|address| address.to_string());
                insert.execute(params![kind, id, address, event.at.unix_ms(), event.detail])?;
            }
            written.push(!is_told);
        }
    }
    forget_events(&transaction)?;
    transaction.commit()?;
    Ok(written)
}

fn forget_events(connection: &Connection) -> Result<(), Fault> {
    let mut kinds = connection.prepare_cached("SELECT kind, count(*) FROM events GROUP BY kind")?;
    let kinds = kinds.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    let kinds: Vec<(String, i64)> = kinds.collect::<Result<_, _>>()?;
    let kinds = kinds.into_iter().map(|(kind, events)| (kind, usize::try_from(events).unwrap_or(usize::MAX)));
    for (kind, excess) in Surplus::of(kinds, MAX_EVENTS).into_kinds() {
        let forget =
            "DELETE FROM events WHERE event IN (SELECT event FROM events WHERE kind = ?1 ORDER BY event LIMIT ?2)";
        connection.prepare_cached(forget)?.execute(params![kind, rows(excess)])?;
    }
    Ok(())
}

fn key_usage(open: &mut Open, query: &UsageQuery) -> Result<KeyUsage, Fault> {
    let snapshot = open.connection.transaction()?;
    let id = query.key.to_bytes();
    let since = query.since.unix_seconds().div_euclid(3600);
    // A moment within an hour belongs to it.
    let until =
        query.until.unix_ms().div_euclid(3_600_000) + i64::from(query.until.unix_ms().rem_euclid(3_600_000) > 0);
    let which = "id = :id AND begins + span > :since AND begins < :until AND requests > 0";
    let asked = named_params! { ":id": id, ":since": since, ":until": until };
    let mut totals = snapshot.prepare_cached(&format!(
        "SELECT passage, status, sum(requests) FROM counts WHERE {which} GROUP BY passage, status ORDER BY passage, status"
    ))?;
    let totals = totals.query_map(asked, |row| Ok((passage(row, 0)?, row.get(1)?, unsigned(row.get(2)?))))?;
    let totals = totals.collect::<Result<_, _>>()?;
    let mut buckets = snapshot.prepare_cached(&format!(
        "SELECT begins, span, text, status, passage, requests FROM counts JOIN rules USING (rule) WHERE {which} \
         ORDER BY begins DESC, span, text, status, passage LIMIT :limit"
    ))?;
    let limit = rows(query.limit).saturating_add(1);
    let asked = named_params! { ":id": id, ":since": since, ":until": until, ":limit": limit };
    let buckets = buckets.query_map(asked, |row| {
        let span: i64 = row.get(1)?;
        Ok(UsageBucket {
            begins: at_hour(row.get(0)?),
            span: if span == Span::Hour.hours() { Span::Hour } else { Span::Day },
            rule: row.get(2)?,
            status: row.get(3)?,
            passage: passage(row, 4)?,
            requests: unsigned(row.get(5)?),
        })
    })?;
    let mut buckets: Vec<UsageBucket> = buckets.collect::<Result<_, _>>()?;
    let more = buckets.len() > query.limit;
    buckets.truncate(query.limit);
    let mut seen = snapshot.prepare_cached("SELECT at, address, agent FROM seen WHERE id = ?1")?;
    let seen = seen.query_row([id], |row| {
        Ok(LastSeen { at: Timestamp::from_unix_ms(row.get(0)?), address: parsed(row, 1)?, agent: row.get(2)? })
    });
    let seen = seen.optional()?;
    let mut networks = snapshot
        .prepare_cached("SELECT network, first, last FROM networks WHERE id = ?1 ORDER BY last DESC, network")?;
    let networks = networks.query_map([id], |row| {
        Ok(NetworkSeen {
            network: text_of(row, 0)?,
            first: Timestamp::from_unix_ms(row.get(1)?),
            last: Timestamp::from_unix_ms(row.get(2)?),
        })
    })?;
    let networks = networks.collect::<Result<_, _>>()?;
    Ok(KeyUsage { totals, buckets, more, seen, networks })
}

fn rules_passed(open: &mut Open, keys: &[KeyId]) -> Result<Vec<(KeyId, Arc<str>)>, Fault> {
    let snapshot = open.connection.transaction()?;
    let mut select = snapshot.prepare_cached(
        "SELECT text FROM rules WHERE rule IN (SELECT DISTINCT rule FROM counts WHERE id = ?1 AND passage = ?2) \
         ORDER BY text",
    )?;
    let mut passed = Vec::new();
    for key in keys {
        let asked = params![key.to_bytes(), passage_number(Passage::Allowed)];
        for rule in select.query_map(asked, |row| row.get(0))? {
            passed.push((*key, rule?));
        }
    }
    Ok(passed)
}

fn list_events(open: &mut Open, query: EventQuery) -> Result<Vec<UsageEvent>, Fault> {
    let mut select = open.connection.prepare_cached(
        "SELECT kind, id, address, at, detail FROM events WHERE ?1 IS NULL OR id = ?1 ORDER BY event DESC LIMIT ?2",
    )?;
    let asked = params![query.key.map(KeyId::to_bytes), rows(query.limit)];
    let mut rows = select.query(asked)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let kind: String = row.get(0)?;
        let id: Option<[u8; 16]> = row.get(1)?;
        // A newer version may have told of what this one does not know.
        let Some(kind) = EventKind::ALL.into_iter().find(|known| known.text() == kind) else { continue };
        events.push(UsageEvent {
            kind,
            key: id.map(KeyId::from_bytes),
            address: parsed(row, 2)?,
            at: Timestamp::from_unix_ms(row.get(3)?),
            detail: row.get(4)?,
        });
    }
    Ok(events)
}

fn passage(row: &Row<'_>, column: usize) -> rusqlite::Result<Passage> {
    let number: i64 = row.get(column)?;
    passage_of(number).ok_or_else(|| strange(column, Type::Integer))
}

fn text_of<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    parsed(row, column)?.ok_or_else(|| strange(column, Type::Text))
}

fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|_| strange(column, Type::Text))).transpose()
}

/// A value that this file was never given.
pub(super) fn strange(column: usize, kind: Type) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "a value of the usage file".to_owned(), kind)
}
