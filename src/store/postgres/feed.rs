//! Following changes: the head, the whole set, and what happened since.

use tokio::sync::mpsc;
use tokio_postgres::types::Type;

use super::fault::Fault;
use super::rows::{self, Names, facts, get, number};
use super::session::{Session, Sql};
use crate::domain::{KeyHash, StoreHead};
use crate::store::api::{Changes, KeyFacts, LoadBatch, MAX_CHANGED_KEYS, OwnerFacts, Removed};
use crate::store::columns::rows as row_bound;

/// Rows handed over at a time.
const BATCH: usize = 4_096;

/// The newest revision.
pub(super) async fn head(session: &mut Session) -> Result<StoreHead, Fault> {
    const HEAD: Sql = Sql::new("SELECT revision, token FROM portcullis.head", &[]);
    rows::read_head(&session.only(&HEAD, &[]).await?)
}

/// Sends the whole set in one snapshot; ends early when nobody listens any more.
pub(super) async fn load_all(session: &mut Session, batches: mpsc::Sender<LoadBatch>) -> Result<StoreHead, Fault> {
    const COUNT: Sql = Sql::new("SELECT count(*) FROM portcullis.keys", &[]);
    session.begin_snapshot().await?;
    let head = head(session).await?;
    let count: i64 = get(&session.only(&COUNT, &[]).await?, 0)?;
    let expect = LoadBatch::Expect { keys: usize::try_from(count).unwrap_or(0) };
    let heard = batches.send(expect).await.is_ok()
        && send_owners(session, &batches).await?
        && send_keys(session, &batches).await?;
    session.roll_back().await?;
    Ok(if heard { head } else { StoreHead::default() })
}

async fn send_owners(session: &mut Session, batches: &mpsc::Sender<LoadBatch>) -> Result<bool, Fault> {
    session.run("DECLARE all_owners NO SCROLL CURSOR FOR SELECT id, suspended, terms FROM portcullis.owners").await?;
    loop {
        let found = session.rows_once(&format!("FETCH {BATCH} FROM all_owners")).await?;
        let batch: Vec<OwnerFacts> = found.iter().map(rows::read_owner_facts).collect::<Result<_, _>>()?;
        if batches.send(LoadBatch::Owners(batch)).await.is_err() {
            return Ok(false);
        }
        if found.len() < BATCH {
            return Ok(true);
        }
    }
}

async fn send_keys(session: &mut Session, batches: &mpsc::Sender<LoadBatch>) -> Result<bool, Fault> {
    session.run(concat!("DECLARE all_keys NO SCROLL CURSOR FOR SELECT ", facts!(), " FROM portcullis.keys k")).await?;
    let mut names = Names::default();
    loop {
        let found = session.rows_once(&format!("FETCH {BATCH} FROM all_keys")).await?;
        names.learn(session, &found).await?;
        let batch: Vec<KeyFacts> =
            found.iter().map(|row| rows::read_facts(row, &mut names)).collect::<Result<_, _>>()?;
        if batches.send(LoadBatch::Keys(batch)).await.is_err() {
            return Ok(false);
        }
        if found.len() < BATCH {
            return Ok(true);
        }
    }
}

/// What changed after `since`, in one snapshot.
pub(super) async fn changes_since(session: &mut Session, since: StoreHead) -> Result<Changes, Fault> {
    session.begin_search().await?;
    let changes = read_changes(session, since).await?;
    session.roll_back().await?;
    Ok(changes)
}

async fn read_changes(session: &mut Session, since: StoreHead) -> Result<Changes, Fault> {
    const TOKEN: Sql = Sql::new("SELECT token FROM portcullis.revisions WHERE revision = $1", &[Type::INT8]);
    const KEYS: Sql = Sql::new(
        concat!(
            "SELECT ",
            facts!(),
            " FROM portcullis.keys k WHERE k.revision > $1 \
             ORDER BY k.revision, (k.revoked_at IS NOT NULL OR NOT k.active), k.id LIMIT $2"
        ),
        &[Type::INT8, Type::INT8],
    );
    const OWNERS: Sql = Sql::new(
        "SELECT id, suspended, terms FROM portcullis.owners WHERE revision > $1 ORDER BY revision",
        &[Type::INT8],
    );
    const REMOVED: Sql =
        Sql::new("SELECT id, hash FROM portcullis.removed WHERE revision > $1 ORDER BY revision", &[Type::INT8]);
    let head = head(session).await?;
    let after = number(since.revision);
    let token = session.row(&TOKEN, &[&after]).await?.map(|row| get::<i64>(&row, 0)).transpose()?;
    match token {
        Some(token) if token.cast_unsigned() == since.token.0 => {}
        Some(_) => return Ok(Changes::OtherHistory),
        None if since.revision > head.revision => return Ok(Changes::OtherHistory),
        None => return Ok(Changes::TooOld),
    }
    let most = row_bound(MAX_CHANGED_KEYS).saturating_add(1);
    let found = session.rows(&KEYS, &[&after, &most]).await?;
    if found.len() > MAX_CHANGED_KEYS {
        return Ok(Changes::TooOld);
    }
    let mut names = Names::default();
    names.learn(session, &found).await?;
    let keys = found.iter().map(|row| rows::read_facts(row, &mut names)).collect::<Result<_, _>>()?;
    let owners = session.rows(&OWNERS, &[&after]).await?;
    let removed = session.rows(&REMOVED, &[&after]).await?;
    let removal = |row| -> Result<Removed, Fault> {
        Ok(Removed { id: rows::key_id(row, 0)?, hash: KeyHash::from_bytes(rows::bytes32(row, 1)?) })
    };
    Ok(Changes::Since {
        owners: owners.iter().map(rows::read_owner_facts).collect::<Result<_, _>>()?,
        keys,
        removed: removed.iter().map(removal).collect::<Result<_, _>>()?,
        head,
    })
}
