//! What report mode let pass, in the file of last use.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::fault::Fault;
use super::seat::Open;
use super::usage_book::{Rules, strange};
use crate::domain::Timestamp;
use crate::store::columns::{caller_of, caller_text, rows, signed, unsigned};
use crate::store::usage::{Finding, FoundCaller, MAX_FINDINGS, MAX_FOUND_NETWORKS, MAX_KEYLESS_FINDINGS};

/// What the text of a key's id looks like.
const KEYS: &str = "key_*";

pub(super) fn add_findings(connection: &Connection, findings: &[Finding], rules: &mut Rules) -> Result<(), Fault> {
    if findings.is_empty() {
        return Ok(());
    }
    let mut upsert = connection.prepare_cached(
        "INSERT INTO findings (rule, reason, caller, missing, requests, first, last) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, first = min(first, excluded.first), \
         last = max(last, excluded.last)",
    )?;
    for finding in findings {
        let rule = rules.number(connection, &finding.rule)?;
        let requests = signed(finding.requests);
        let caller = if is_too_many(connection, rule, finding)? { FoundCaller::Other } else { finding.caller };
        let (caller, missing) = (caller_text(caller), finding.missing.join(" "));
        let (first, last) = (finding.first.unix_ms(), finding.last.unix_ms());
        upsert.execute(params![rule, finding.reason, caller, missing, requests, first, last])?;
    }
    let excess = |of_key: &str| {
        format!(
            "DELETE FROM findings WHERE (rule, reason, caller, missing) IN (SELECT rule, reason, caller, missing \
             FROM findings WHERE caller {of_key} GLOB '{KEYS}' ORDER BY last DESC LIMIT -1 OFFSET ?1)"
        )
    };
    connection.prepare_cached(&excess(""))?.execute([rows(MAX_FINDINGS)])?;
    connection.prepare_cached(&excess("NOT"))?.execute([rows(MAX_KEYLESS_FINDINGS)])?;
    Ok(())
}

/// Whether a network is another one, beyond those that are told apart.
fn is_too_many(connection: &Connection, rule: i64, finding: &Finding) -> Result<bool, Fault> {
    let FoundCaller::Network(network) = finding.caller else { return Ok(false) };
    // What names networks is in order before what names keys and all else: so only networks are read.
    let mut crowd = connection.prepare_cached(
        "SELECT count(*) >= ?4 AND NOT EXISTS (SELECT 1 FROM findings WHERE rule = ?1 AND reason = ?2 AND caller = ?3) \
         FROM (SELECT 1 FROM findings WHERE rule = ?1 AND reason = ?2 AND caller < 'g' LIMIT ?4)",
    )?;
    let asked = params![rule, finding.reason, network.to_string(), rows(MAX_FOUND_NETWORKS)];
    Ok(crowd.query_row(asked, |row| row.get(0))?)
}

pub(super) fn findings(open: &mut Open) -> Result<Vec<Finding>, Fault> {
    let mut select = open.connection.prepare_cached(
        "SELECT text, reason, caller, missing, requests, first, last FROM findings JOIN rules USING (rule) \
         ORDER BY text, last DESC, reason, caller, missing",
    )?;
    let found = select.query_map([], |row| {
        let (reason, missing): (String, String) = (row.get(1)?, row.get(3)?);
        Ok(Finding {
            rule: row.get(0)?,
            reason: reason.into(),
            caller: caller(row, 2)?,
            missing: missing.split_whitespace().map(str::to_owned).collect(),
            requests: unsigned(row.get(4)?),
            first: Timestamp::from_unix_ms(row.get(5)?),
            last: Timestamp::from_unix_ms(row.get(6)?),
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn caller(row: &Row<'_>, column: usize) -> rusqlite::Result<FoundCaller> {
    let text: String = row.get(column)?;
    caller_of(&text).ok_or_else(|| strange(column, Type::Text))
}
