//! What requests leave behind.
//!
//! Who adds to it, of all gateways, holds a lock until it is written: what is new, and what is too much, is decided by what
//! all of them know.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::fault::Fault;
use super::rows::{get, moment, uuid};
use super::session::{Session, Sql};
use super::usage::{is_first, small};
use super::usage_findings::add_findings;
use super::usage_sightings::see;
use crate::domain::{KeyId, Timestamp};
use crate::store::columns::{passage_number, passage_of, rows as row_bound, signed, unsigned};
use crate::store::surplus::Surplus;
use crate::store::usage::{
    AdditionId, EventKind, EventQuery, KeyUsage, LastSeen, MAX_EVENTS, NetworkSeen, NewEvent, NewNetwork, Passage,
    Span, UsageBucket, UsageCount, UsageEvent, UsageNotes, UsageQuery, at_hour,
};

/// Held by whoever adds to the book.
const LOCK: i64 = i64::from_be_bytes(*b"pc-usage");
/// Rows in one statement.
const AT_ONCE: usize = 5_000;

/// A transaction of the only one who adds to the book.
pub(super) async fn begin_adding(session: &mut Session) -> Result<(), Fault> {
    session.begin().await?;
    session.run(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await
}

pub(super) async fn note(session: &mut Session, notes: &UsageNotes) -> Result<Vec<NewNetwork>, Fault> {
    begin_adding(session).await?;
    if !is_first(session, notes.id).await? {
        // What is new in it was told, or is lost with the answer.
        session.roll_back().await?;
        return Ok(Vec::new());
    }
    let texts = notes.counts.iter().map(|count| &count.rule).chain(notes.findings.iter().map(|found| &found.rule));
    let rules = Rules::find_or_make(session, texts).await?;
    add_counts(session, &notes.counts, &rules).await?;
    let new = see(session, &notes.sightings).await?;
    add_findings(session, &notes.findings, &rules).await?;
    session.commit().await?;
    Ok(new)
}

/// Numbers of rules.
pub(super) struct Rules(HashMap<Arc<str>, i64>);

impl Rules {
    async fn find_or_make<'t>(session: &mut Session, texts: impl Iterator<Item = &'t Arc<str>>) -> Result<Self, Fault> {
        const FIND: Sql =
            Sql::new("SELECT rule, text FROM portcullis.rules WHERE digest = ANY ($1)", &[Type::BYTEA_ARRAY]);
        const MAKE: Sql = Sql::new(
            "INSERT INTO portcullis.rules (digest, text) SELECT * FROM unnest($1::bytea[], $2::text[]) \
             RETURNING rule, text",
            &[Type::BYTEA_ARRAY, Type::TEXT_ARRAY],
        );
        let mut wanted: BTreeSet<&Arc<str>> = texts.collect();
        let mut rules = HashMap::new();
        if wanted.is_empty() {
            return Ok(Self(rules));
        }
        let digests: Vec<Vec<u8>> = wanted.iter().map(|text| digest(text)).collect();
        for row in session.rows(&FIND, &[&digests]).await? {
            let (number, text): (i64, &str) = (get(&row, 0)?, get(&row, 1)?);
            if let Some(text) = wanted.take(&Arc::from(text)) {
                rules.insert(Arc::clone(text), number);
            }
        }
        if !wanted.is_empty() {
            let digests: Vec<Vec<u8>> = wanted.iter().map(|text| digest(text)).collect();
            let texts: Vec<&str> = wanted.iter().map(|text| text.as_ref()).collect();
            for row in session.rows(&MAKE, &[&digests, &texts]).await? {
                rules.insert(Arc::from(get::<&str>(&row, 1)?), get(&row, 0)?);
            }
        }
        Ok(Self(rules))
    }

    pub(super) fn number(&self, text: &str) -> Result<i64, Fault> {
        self.0.get(text).copied().ok_or_else(|| Fault::Odd("a rule was not kept".to_owned()))
    }
}

/// An index holds no texts as long as some may be.
pub(super) fn digest(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

async fn add_counts(session: &mut Session, counts: &[UsageCount], rules: &Rules) -> Result<(), Fault> {
    const UPSERT: Sql = Sql::new(
        "INSERT INTO portcullis.counts AS known (id, begins, span, rule, status, passage, requests) \
         SELECT id, begins, 1, rule, status, passage, requests FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], \
         $4::integer[], $5::smallint[], $6::bigint[]) AS more (id, begins, rule, status, passage, requests) \
         ON CONFLICT (id, begins, span, rule, status, passage) \
         DO UPDATE SET requests = known.requests + excluded.requests",
        &[Type::UUID_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT4_ARRAY, Type::INT2_ARRAY, Type::INT8_ARRAY],
    );
    let mut more: BTreeMap<(Uuid, i64, i64, i32, i16), u64> = BTreeMap::new();
    for count in counts {
        let begins = Span::Hour.holding(count.at);
        let passage = small(passage_number(count.passage));
        let name = (uuid(count.key), begins, rules.number(&count.rule)?, i32::from(count.status), passage);
        let total = more.entry(name).or_default();
        *total = total.saturating_add(count.requests);
    }
    let more: Vec<_> = more.into_iter().collect();
    for some in more.chunks(AT_ONCE) {
        let ids: Vec<Uuid> = some.iter().map(|(name, _)| name.0).collect();
        let begins: Vec<i64> = some.iter().map(|(name, _)| name.1).collect();
        let rules: Vec<i64> = some.iter().map(|(name, _)| name.2).collect();
        let statuses: Vec<i32> = some.iter().map(|(name, _)| name.3).collect();
        let passages: Vec<i16> = some.iter().map(|(name, _)| name.4).collect();
        let requests: Vec<i64> = some.iter().map(|(_, requests)| signed(*requests)).collect();
        session.execute(&UPSERT, &[&ids, &begins, &rules, &statuses, &passages, &requests]).await?;
    }
    Ok(())
}

pub(super) async fn note_events(
    session: &mut Session,
    id: AdditionId,
    events: &[NewEvent],
) -> Result<Vec<bool>, Fault> {
    const LAST: Sql = Sql::new(
        "SELECT max(at) FROM portcullis.events WHERE kind = $1 AND id IS NOT DISTINCT FROM $2",
        &[Type::TEXT, Type::UUID],
    );
    const INSERT: Sql = Sql::new(
        "INSERT INTO portcullis.events (kind, id, address, at, detail) VALUES ($1, $2, $3, $4, $5)",
        &[Type::TEXT, Type::UUID, Type::TEXT, Type::INT8, Type::TEXT],
    );
    begin_adding(session).await?;
    if !is_first(session, id).await? {
        session.roll_back().await?;
        return Ok(vec![true; events.len()]);
    }
    let mut written = Vec::with_capacity(events.len());
    for NewEvent { event, apart } in events {
        let (kind, id) = (event.kind.text(), event.key.map(uuid));
        let last = moment(&session.only(&LAST, &[&kind, &id]).await?, 0)?;
        let is_told = last.is_some_and(|last| !apart.is_zero() && event.at < last.plus(*apart));
        if !is_told {
            let address = event.address.map(|address| address.to_string());
            session.execute(&INSERT, &[&kind, &id, &address, &event.at.unix_ms(), &event.detail]).await?;
        }
        written.push(!is_told);
    }
    forget_events(session).await?;
    session.commit().await?;
    Ok(written)
}

async fn forget_events(session: &mut Session) -> Result<(), Fault> {
    const KINDS: Sql = Sql::new("SELECT kind, count(*) FROM portcullis.events GROUP BY kind", &[]);
    const FORGET: Sql = Sql::new(
        "DELETE FROM portcullis.events WHERE event IN \
         (SELECT event FROM portcullis.events WHERE kind = $1 ORDER BY event LIMIT $2)",
        &[Type::TEXT, Type::INT8],
    );
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for row in session.rows(&KINDS, &[]).await? {
        kinds.push((get(&row, 0)?, usize::try_from(get::<i64>(&row, 1)?).unwrap_or(usize::MAX)));
    }
    for (kind, excess) in Surplus::of(kinds, MAX_EVENTS).into_kinds() {
        session.execute(&FORGET, &[&kind, &row_bound(excess)]).await?;
    }
    Ok(())
}

/// Which counts of a key.
macro_rules! asked {
    () => {
        "id = $1 AND begins + span > $2 AND begins < $3 AND requests > 0"
    };
}

pub(super) async fn key_usage(session: &mut Session, query: &UsageQuery) -> Result<KeyUsage, Fault> {
    const TOTALS: Sql = Sql::new(
        concat!(
            "SELECT passage, status, sum(requests)::bigint FROM portcullis.counts WHERE ",
            asked!(),
            " GROUP BY passage, status ORDER BY passage, status"
        ),
        &[Type::UUID, Type::INT8, Type::INT8],
    );
    const BUCKETS: Sql = Sql::new(
        concat!(
            "SELECT begins, span, text, status, passage, requests FROM portcullis.counts \
             JOIN portcullis.rules USING (rule) WHERE ",
            asked!(),
            " ORDER BY begins DESC, span, text, status, passage LIMIT $4"
        ),
        &[Type::UUID, Type::INT8, Type::INT8, Type::INT8],
    );
    const SEEN: Sql = Sql::new("SELECT at, address, agent FROM portcullis.seen WHERE id = $1", &[Type::UUID]);
    const NETWORKS: Sql = Sql::new(
        "SELECT network, first, last FROM portcullis.networks WHERE id = $1 ORDER BY last DESC, network",
        &[Type::UUID],
    );
    let id = uuid(query.key);
    let since = query.since.unix_seconds().div_euclid(3600);
    // A moment within an hour belongs to it.
    let until =
        query.until.unix_ms().div_euclid(3_600_000) + i64::from(query.until.unix_ms().rem_euclid(3_600_000) > 0);
    let limit = row_bound(query.limit).saturating_add(1);
    session.begin_snapshot().await?;
    let totals = session.rows(&TOTALS, &[&id, &since, &until]).await?;
    let total = |row| -> Result<_, Fault> { Ok((passage(row, 0)?, status(row, 1)?, unsigned(get(row, 2)?))) };
    let totals = totals.iter().map(total).collect::<Result<_, _>>()?;
    let found = session.rows(&BUCKETS, &[&id, &since, &until, &limit]).await?;
    let buckets = found.iter().take(query.limit).map(bucket).collect::<Result<_, _>>()?;
    let seen = session.row(&SEEN, &[&id]).await?.map(|row| last_seen(&row)).transpose()?;
    let networks = session.rows(&NETWORKS, &[&id]).await?.iter().map(network).collect::<Result<_, _>>()?;
    session.roll_back().await?;
    Ok(KeyUsage { totals, buckets, more: found.len() > query.limit, seen, networks })
}

fn bucket(row: &Row) -> Result<UsageBucket, Fault> {
    let span: i64 = get(row, 1)?;
    Ok(UsageBucket {
        begins: at_hour(get(row, 0)?),
        span: if span == Span::Hour.hours() { Span::Hour } else { Span::Day },
        rule: Arc::from(get::<&str>(row, 2)?),
        status: status(row, 3)?,
        passage: passage(row, 4)?,
        requests: unsigned(get(row, 5)?),
    })
}

fn last_seen(row: &Row) -> Result<LastSeen, Fault> {
    let address = get::<Option<&str>>(row, 1)?.map(parsed).transpose()?;
    Ok(LastSeen { at: Timestamp::from_unix_ms(get(row, 0)?), address, agent: get(row, 2)? })
}

fn network(row: &Row) -> Result<NetworkSeen, Fault> {
    Ok(NetworkSeen {
        network: parsed(get(row, 0)?)?,
        first: Timestamp::from_unix_ms(get(row, 1)?),
        last: Timestamp::from_unix_ms(get(row, 2)?),
    })
}

pub(super) async fn rules_passed(session: &mut Session, keys: &[KeyId]) -> Result<Vec<(KeyId, Arc<str>)>, Fault> {
    const SELECT: Sql = Sql::new(
        "SELECT asked.id, r.text FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, number) \
         CROSS JOIN LATERAL (SELECT DISTINCT rule FROM portcullis.counts c WHERE c.id = asked.id AND c.passage = $2) c \
         JOIN portcullis.rules r ON r.rule = c.rule ORDER BY asked.number, r.text",
        &[Type::UUID_ARRAY, Type::INT2],
    );
    let mut passed = Vec::new();
    for some in keys.chunks(AT_ONCE) {
        let some: Vec<Uuid> = some.iter().copied().map(uuid).collect();
        for row in session.rows(&SELECT, &[&some, &small(passage_number(Passage::Allowed))]).await? {
            passed.push((super::rows::key_id(&row, 0)?, Arc::from(get::<&str>(&row, 1)?)));
        }
    }
    Ok(passed)
}

pub(super) async fn list_events(session: &mut Session, query: EventQuery) -> Result<Vec<UsageEvent>, Fault> {
    const LIST: Sql = Sql::new(
        "SELECT kind, id, address, at, detail FROM portcullis.events WHERE $1 IS NULL OR id = $1 \
         ORDER BY event DESC LIMIT $2",
        &[Type::UUID, Type::INT8],
    );
    let mut events = Vec::new();
    for row in session.rows(&LIST, &[&query.key.map(uuid), &row_bound(query.limit)]).await? {
        let kind: &str = get(&row, 0)?;
        // A newer version may have told of what this one does not know.
        let Some(kind) = EventKind::ALL.into_iter().find(|known| known.text() == kind) else { continue };
        events.push(UsageEvent {
            kind,
            key: get::<Option<Uuid>>(&row, 1)?.map(|id| KeyId::from_bytes(id.into_bytes())),
            address: get::<Option<&str>>(&row, 2)?.map(parsed).transpose()?,
            at: Timestamp::from_unix_ms(get(&row, 3)?),
            detail: get(&row, 4)?,
        });
    }
    Ok(events)
}

pub(super) async fn counted_since(session: &mut Session) -> Result<Option<Timestamp>, Fault> {
    // Each from the front of the index.
    const OLDEST: Sql = Sql::new("SELECT min(begins) FROM portcullis.counts WHERE span = $1", &[Type::INT8]);
    let mut oldest: Option<i64> = None;
    for span in [Span::Hour, Span::Day] {
        let found: Option<i64> = get(&session.only(&OLDEST, &[&span.hours()]).await?, 0)?;
        oldest = oldest.into_iter().chain(found).min();
    }
    Ok(oldest.map(at_hour))
}

fn passage(row: &Row, column: usize) -> Result<Passage, Fault> {
    let number: i16 = get(row, column)?;
    passage_of(number.into()).ok_or_else(|| Fault::Odd(format!("{number} is nothing that becomes of a request")))
}

fn status(row: &Row, column: usize) -> Result<u16, Fault> {
    let number: i32 = get(row, column)?;
    u16::try_from(number).map_err(|_| Fault::Odd(format!("{number} is no status")))
}

/// A text that this program wrote.
pub(super) fn parsed<T: FromStr>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|_| Fault::Odd("a column holds a text that means nothing there".to_owned()))
}
