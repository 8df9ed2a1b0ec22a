//! One order in one transaction: the head is locked first, moved last, and told when it is committed.

use tokio_postgres::types::Type;

use super::commands;
use super::fault::Fault;
use super::listen::CHANNEL;
use super::migrate;
use super::rows::{get, number, revision};
use super::session::{Session, Sql};
use crate::domain::{Revision, StoreHead};
use crate::store::command::{Effect, Order, draw_token};
use crate::store::error::StoreError;
use crate::store::seal::AuditSeal;

/// Applies one order; answers where the store stands if that changed something. An order that is refused leaves nothing.
///
/// Locking the head before anything is read makes writers of the whole fleet come one after the other: what one of them
/// checked holds until it commits, and the audit trail is one chain. Locking it last would let revisions be stamped before
/// their order is known.
pub(super) async fn write(
    session: &mut Session,
    order: &Order,
    seal: &AuditSeal,
) -> Result<(Effect, Option<StoreHead>), Fault> {
    let token = draw_token()?;
    session.begin().await?;
    let newest = lock_head(session).await?;
    let next = order.command.revision_behind(newest);
    let effect = commands::apply(session, order, newest, next, seal).await?;
    let head = match effect {
        Effect::Changed(..) => Some(StoreHead { revision: next, token }),
        Effect::NotFound | Effect::Unchanged(_) => None,
    };
    if let Some(head) = head {
        move_head(session, order, head).await?;
    }
    session.commit().await?;
    Ok((effect, head))
}

/// The newest revision, which stays so until this transaction ends. Somebody may have changed the schema since this
/// connection was made: then nothing is written by rules that hold no more.
async fn lock_head(session: &mut Session) -> Result<Revision, Fault> {
    const LOCK: Sql = Sql::new("SELECT revision FROM portcullis.head FOR UPDATE", &[]);
    // A statement of its own: it sees what was committed while the lock was waited for.
    const VERSION: Sql = Sql::new("SELECT max(version) FROM portcullis.migrations", &[]);
    let row = session.only(&LOCK, &[]).await?;
    let version = session.only(&VERSION, &[]).await?;
    let (found, known) = (get::<Option<i64>>(&version, 0)?.unwrap_or_default(), migrate::known());
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => revision(&row, 0),
        std::cmp::Ordering::Greater => Err(StoreError::Newer { found, known }.into()),
        std::cmp::Ordering::Less => Err(StoreError::Older { found, known }.into()),
    }
}

async fn move_head(session: &mut Session, order: &Order, head: StoreHead) -> Result<(), Fault> {
    const MOVE: Sql = Sql::new(
        "WITH remembered AS (INSERT INTO portcullis.revisions (revision, token, at) VALUES ($1, $2, $3)), \
         moved AS (UPDATE portcullis.head SET revision = $1, token = $2) SELECT pg_notify($4, $5)",
        &[Type::INT8, Type::INT8, Type::INT8, Type::TEXT, Type::TEXT],
    );
    let (revision, token, at) = (number(head.revision), head.token.0.cast_signed(), order.now.unix_ms());
    session.rows(&MOVE, &[&revision, &token, &at, &CHANNEL, &head.revision.to_string()]).await?;
    Ok(())
}
