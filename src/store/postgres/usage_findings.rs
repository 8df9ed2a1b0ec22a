//! What report mode let pass.

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::rows::get;
use super::session::{Session, Sql};
use super::usage_book::{Rules, digest};
use crate::domain::Timestamp;
use crate::store::columns::{caller_of, caller_text, rows as row_bound, signed, unsigned};
use crate::store::usage::{Finding, FoundCaller, MAX_FINDINGS, MAX_FOUND_NETWORKS, MAX_KEYLESS_FINDINGS};

pub(super) async fn add_findings(session: &mut Session, findings: &[Finding], rules: &Rules) -> Result<(), Fault> {
    const UPSERT: Sql = Sql::new(
        "INSERT INTO portcullis.findings AS known (rule, reason, caller, digest, missing, requests, first, last) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (rule, reason, caller, digest) DO UPDATE \
         SET requests = known.requests + excluded.requests, first = least(known.first, excluded.first), \
         last = greatest(known.last, excluded.last)",
        &[Type::INT8, Type::TEXT, Type::TEXT, Type::BYTEA, Type::TEXT, Type::INT8, Type::INT8, Type::INT8],
    );
    const FORGET: Sql = Sql::new(
        "DELETE FROM portcullis.findings WHERE (rule, reason, caller, digest) IN (SELECT rule, reason, caller, digest \
         FROM portcullis.findings WHERE starts_with(caller, 'key_') = $1 ORDER BY last DESC OFFSET $2)",
        &[Type::BOOL, Type::INT8],
    );
    if findings.is_empty() {
        return Ok(());
    }
    for finding in findings {
        let rule = rules.number(&finding.rule)?;
        let is_too_many = is_too_many(session, rule, finding).await?;
        let caller = caller_text(if is_too_many { FoundCaller::Other } else { finding.caller });
        let missing = finding.missing.join(" ");
        let (first, last) = (finding.first.unix_ms(), finding.last.unix_ms());
        let requests = signed(finding.requests);
        let reason = finding.reason.as_ref();
        session
            .execute(&UPSERT, &[&rule, &reason, &caller, &digest(&missing), &missing, &requests, &first, &last])
            .await?;
    }
    session.execute(&FORGET, &[&true, &row_bound(MAX_FINDINGS)]).await?;
    session.execute(&FORGET, &[&false, &row_bound(MAX_KEYLESS_FINDINGS)]).await?;
    Ok(())
}

/// Whether a network is another one, beyond those that are told apart.
async fn is_too_many(session: &mut Session, rule: i64, finding: &Finding) -> Result<bool, Fault> {
    // What names networks is in order before what names keys and all else: so only networks are read.
    const CROWD: Sql = Sql::new(
        "SELECT count(*) >= $4 AND NOT EXISTS \
         (SELECT 1 FROM portcullis.findings WHERE rule = $1 AND reason = $2 AND caller = $3) FROM \
         (SELECT 1 FROM portcullis.findings WHERE rule = $1 AND reason = $2 AND caller < 'g' LIMIT $4) found",
        &[Type::INT8, Type::TEXT, Type::TEXT, Type::INT8],
    );
    let FoundCaller::Network(network) = finding.caller else { return Ok(false) };
    let (reason, most) = (finding.reason.as_ref(), row_bound(MAX_FOUND_NETWORKS));
    get(&session.only(&CROWD, &[&rule, &reason, &network.to_string(), &most]).await?, 0)
}

pub(super) async fn findings(session: &mut Session) -> Result<Vec<Finding>, Fault> {
    const LIST: Sql = Sql::new(
        "SELECT text, reason, caller, missing, requests, first, last FROM portcullis.findings \
         JOIN portcullis.rules USING (rule) ORDER BY text, last DESC, reason, caller, missing",
        &[],
    );
    let mut found = Vec::new();
    for row in session.rows(&LIST, &[]).await? {
        let (caller, missing): (&str, &str) = (get(&row, 2)?, get(&row, 3)?);
        found.push(Finding {
            rule: get::<&str>(&row, 0)?.into(),
            reason: get::<String>(&row, 1)?.into(),
            caller: caller_of(caller).ok_or_else(|| Fault::Odd("a finding is about nobody".to_owned()))?,
            missing: missing.split_whitespace().map(str::to_owned).collect(),
            requests: unsigned(get(&row, 4)?),
            first: Timestamp::from_unix_ms(get(&row, 5)?),
            last: Timestamp::from_unix_ms(get(&row, 6)?),
        });
    }
    Ok(found)
}
