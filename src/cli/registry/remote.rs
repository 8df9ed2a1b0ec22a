//! The management API of another machine.

use std::cell::RefCell;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::client::{Ask, Client};
use super::local::state_word;
use super::shipment::{Piece, Shipment, broken_off};
use super::{Arrival, Fresh, Progress, Registry, Rows, Sample, See, Verified};
use crate::authn::Rejection;
use crate::cli::failure::Failure;
use crate::cli::keys::Switch;
use crate::domain::key_text::{Brand, KeyTextForm, inspect};
use crate::domain::time::show_duration;
use crate::domain::{KeyId, OwnerId, Timestamp, secret_of_pair};
use crate::manage::{BadRow, KeyChange, KeyFilter, NewKey, NewOwner, OwnerChange, Rotation};
use crate::store::{AuditOrder, AuditQuery};
use crate::usage::Period;

/// See the module.
pub(super) struct Remote {
    client: Client,
    /// How long changes wait for the fleet; none: not at all.
    wait: Option<Duration>,
    /// What the last change said of the fleet.
    fleet: RefCell<Option<Value>>,
}

/// Records asked for at a time.
const PAGE: u64 = 1_000;

impl Remote {
    pub(super) fn new(client: Client, wait: Option<Duration>) -> Self {
        Self { client, wait, fleet: RefCell::default() }
    }

    /// Changes something, and waits for the fleet where that was said.
    fn change(&self, ask: Ask) -> Result<Value, Failure> {
        let ask = match self.wait {
            None => ask,
            Some(patience) => ask.waiting(patience),
        };
        let mut answer = self.client.send(&ask)?;
        let fleet = answer.as_object_mut().and_then(|members| members.remove("fleet"));
        self.fleet.replace(fleet);
        Ok(answer)
    }

    fn get(&self, target: &str) -> Result<Value, Failure> {
        self.client.send(&Ask::bare(Method::GET, target))
    }

    fn make(&self, ask: Ask) -> Result<Fresh, Failure> {
        let mut record = self.change(ask.repeatable())?;
        let key = record.as_object_mut().and_then(|members| members.remove("key"));
        match key {
            Some(Value::String(key)) => Ok(Fresh { record, key: Zeroizing::new(key) }),
            _ => Err(Failure::runtime("it was done, and the answer shows no key; is a proxy in between?")),
        }
    }

    /// Shows the records of a list, page by page, up to `most`.
    fn pages(
        &self,
        path: &str,
        filters: &[(&str, Option<String>)],
        most: Option<u64>,
        see: See<'_>,
    ) -> Result<(), Failure> {
        let mut left = most.unwrap_or(u64::MAX);
        let mut cursor: Option<String> = None;
        while left > 0 {
            let mut query = form_urlencoded::Serializer::new(format!("{path}?"));
            query.append_pair("limit", &left.min(PAGE).to_string());
            for (name, value) in filters.iter().chain([&("cursor", cursor.clone())]) {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
            let mut page = self.get(&query.finish())?;
            let Value::Array(items) = page["data"].take() else {
                return Err(Failure::runtime("the answer is no list; does --server name a management API?"));
            };
            left = left.saturating_sub(items.len() as u64);
            see(items)?;
            match page["next_cursor"].as_str() {
                // One that leads nowhere would be followed for ever.
                Some(next) if cursor.as_deref() != Some(next) => cursor = Some(next.to_owned()),
                _ => break,
            }
        }
        Ok(())
    }

    /// Has every piece checked.
    fn try_out(&self, mut shipment: Shipment, skip_bad: bool) -> Result<Arrival, Failure> {
        let mut good = 0;
        for piece in &shipment.pieces {
            let options = if skip_bad { "?dry_run=true&skip_bad=true" } else { "?dry_run=true" };
            match self.ship(piece, options)? {
                Shipped::Bad(bad) => shipment.bad.extend(bad),
                Shipped::Taken(answer) => {
                    let skipped = skipped_of(&answer, piece);
                    good += piece.rows() - skipped.len().min(piece.rows());
                    shipment.bad.extend(skipped);
                }
            }
        }
        let is_refused = !skip_bad && !shipment.bad.is_empty();
        let bad = shipment.into_bad();
        Ok(if is_refused { Arrival::Refused(bad) } else { Arrival::Tried { good, skipped: bad } })
    }

    /// Checks or imports one piece.
    fn ship(&self, piece: &Piece, options: &str) -> Result<Shipped, Failure> {
        // Whoever only looks waits for nobody.
        let is_change = !options.contains("dry_run");
        let ask = piece.ask(options);
        match if is_change { self.change(ask) } else { self.client.send(&ask) } {
            Ok(answer) => Ok(Shipped::Taken(answer)),
            Err(Failure::Refused(refusal)) if refusal.code == "bad_rows" && !refusal.rows.is_empty() => {
                Ok(Shipped::Bad(refusal.rows.into_iter().map(|row| piece.in_file(row)).collect()))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// What came of one piece.
enum Shipped {
    /// The answer of a success.
    Taken(Value),
    /// Nothing of it was imported, because of these rows.
    Bad(Vec<BadRow>),
}

impl Registry for Remote {
    fn create_key(&self, asked: NewKey) -> Result<Fresh, Failure> {
        self.make(Ask::json(Method::POST, "/v1/keys", &asked)?)
    }

    fn sample_call(&self, _id: KeyId) -> Result<Sample, Failure> {
        Ok(Sample::Unknown)
    }

    fn list_keys(&self, filter: KeyFilter, see: See<'_>) -> Result<(), Failure> {
        let KeyFilter { after: _, limit: _, owner, environment, kind, states, scope, unused_since, name, prefix } =
            filter;
        let filters = [
            ("owner", owner.map(|owner| owner.to_string())),
            ("environment", environment),
            ("kind", kind.map(|kind| kind.to_string())),
            (
                "state",
                Some(states.iter().map(|state| state.name()).collect::<Vec<_>>().join(","))
                    .filter(|all| !all.is_empty()),
            ),
            ("scope", scope.map(|scope| scope.to_string())),
            ("unused_since", unused_since.map(|moment| moment.to_string())),
            ("name", name),
            ("prefix", prefix),
        ];
        self.pages("/v1/keys", &filters, None, see)
    }

    fn key(&self, id: KeyId) -> Result<Value, Failure> {
        self.get(&format!("/v1/keys/{id}"))
    }

    fn change_key(&self, id: KeyId, change: &KeyChange) -> Result<Value, Failure> {
        self.change(Ask::json(Method::PATCH, format!("/v1/keys/{id}"), change)?)
    }

    fn rotate_key(&self, id: KeyId, asked: Rotation) -> Result<Fresh, Failure> {
        self.make(Ask::json(Method::POST, format!("/v1/keys/{id}/rotate"), &asked)?)
    }

    fn replace_secret(&self, id: KeyId) -> Result<Fresh, Failure> {
        self.make(Ask::bare(Method::POST, format!("/v1/keys/{id}/secret")))
    }

    fn switch_key(&self, id: KeyId, switch: Switch) -> Result<Value, Failure> {
        self.change(match switch {
            Switch::Enable => Ask::bare(Method::POST, format!("/v1/keys/{id}/enable")),
            Switch::Disable => Ask::bare(Method::POST, format!("/v1/keys/{id}/disable")),
            Switch::Revoke => Ask::bare(Method::DELETE, format!("/v1/keys/{id}")),
        })
    }

    fn verify_key<'t>(&self, text: &'t str) -> Result<Verified<'t>, Failure> {
        let mut answer = self.client.send(&Ask::json(Method::POST, "/v1/keys/verify", &json!({ "key": text }))?)?;
        let state = match answer["reason"].as_str() {
            None => "active".to_owned(),
            Some(reason) => {
                let known = Rejection::ALL.into_iter().find(|rejection| rejection.reason() == reason);
                known.map_or(reason, |rejection| state_word(Some(rejection))).to_owned()
            }
        };
        let form = match answer["form"].as_str() {
            Some("bad_checksum") => KeyTextForm::BadChecksum,
            Some("ours") => form_of_ours(text),
            _ => KeyTextForm::Foreign,
        };
        Ok(Verified { state, form, record: Some(answer["record"].take()).filter(|record| !record.is_null()) })
    }

    fn check_import(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// A file of several pieces is checked whole before the first of it is imported.
    fn import(&self, mut rows: Rows<'_>) -> Result<Arrival, Failure> {
        let mut shipment = Shipment::pack(&mut rows)?;
        let total = shipment.rows();
        if rows.dry_run {
            return self.try_out(shipment, rows.skip_bad);
        }
        if !rows.skip_bad && (shipment.pieces.len() > 1 || !shipment.bad.is_empty()) {
            for piece in &shipment.pieces {
                if let Shipped::Bad(bad) = self.ship(piece, "?dry_run=true")? {
                    shipment.bad.extend(bad);
                }
            }
            if !shipment.bad.is_empty() {
                return Ok(Arrival::Refused(shipment.into_bad()));
            }
        }
        let (mut imported, mut shipped, mut revision) = (0, 0, Value::Null);
        (rows.progress)(Progress::Written(0, total));
        for piece in &shipment.pieces {
            let options = if rows.skip_bad { "?skip_bad=true" } else { "" };
            let answer = match self.ship(piece, options) {
                Ok(Shipped::Taken(answer)) => answer,
                Ok(Shipped::Bad(bad)) if imported == 0 => {
                    shipment.bad.extend(bad);
                    return Ok(Arrival::Refused(shipment.into_bad()));
                }
                Ok(Shipped::Bad(_)) => return Err(broken_off(imported, "others changed the same meanwhile")),
                Err(failure) if imported == 0 => return Err(failure),
                Err(failure) => return Err(broken_off(imported, &failure.to_string())),
            };
            imported += answer["imported"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            shipment.bad.extend(skipped_of(&answer, piece));
            if !answer["revision"].is_null() {
                revision = answer["revision"].clone();
            }
            shipped += piece.rows();
            (rows.progress)(Progress::Written(shipped, total));
        }
        Ok(Arrival::Done { imported, skipped: shipment.into_bad(), revision })
    }

    fn key_usage(&self, id: KeyId, Period { since, until }: Period) -> Result<Value, Failure> {
        let mut query = form_urlencoded::Serializer::new(format!("/v1/keys/{id}/usage?"));
        query.append_pair("since", &since.to_string()).append_pair("until", &until.to_string());
        self.get(&query.finish())
    }

    fn usage_report(&self, unused_for: Duration) -> Result<Value, Failure> {
        self.get(&format!("/v1/usage/report?unused_for={}", show_duration(unused_for)))
    }

    fn create_owner(&self, asked: NewOwner) -> Result<Value, Failure> {
        self.change(Ask::json(Method::POST, "/v1/owners", &asked)?.repeatable())
    }

    fn list_owners(&self, see: See<'_>) -> Result<(), Failure> {
        self.pages("/v1/owners", &[], None, see)
    }

    fn owner(&self, id: OwnerId) -> Result<Value, Failure> {
        self.get(&format!("/v1/owners/{id}"))
    }

    fn change_owner(&self, id: OwnerId, change: &OwnerChange) -> Result<Value, Failure> {
        self.change(Ask::json(Method::PATCH, format!("/v1/owners/{id}"), change)?)
    }

    fn set_suspended(&self, id: OwnerId, suspended: bool) -> Result<Value, Failure> {
        let verb = if suspended { "suspend" } else { "resume" };
        self.change(Ask::bare(Method::POST, format!("/v1/owners/{id}/{verb}")))
    }

    fn fleet(&self) -> Result<Option<Value>, Failure> {
        Ok(self.fleet.take())
    }

    fn list_audit(&self, query: AuditQuery, most: Option<u64>, see: See<'_>) -> Result<(), Failure> {
        let AuditQuery { order, after: _, limit: _, since, until, actor, action, subject } = query;
        let order = match order {
            // What servers do unless told.
            AuditOrder::NewestFirst => None,
            AuditOrder::OldestFirst => Some("oldest_first".to_owned()),
        };
        let moment = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
        let filters = [
            ("order", order),
            ("since", moment(since)),
            ("until", moment(until)),
            ("actor", actor),
            ("action", action),
            ("subject", subject),
        ];
        self.pages("/v1/audit", &filters, most, see)
    }
}

/// The rows of a piece that an answer says were left out.
fn skipped_of(answer: &Value, piece: &Piece) -> Vec<BadRow> {
    let skipped = answer["skipped"].as_array().into_iter().flatten().map(|row| {
        let (line, problem) = (row["line"].as_u64().unwrap_or_default(), row["problem"].as_str());
        piece.in_file(BadRow { line, problem: problem.unwrap_or_default().to_owned() })
    });
    skipped.collect()
}

/// What the text of a key says that is of the server's brand, which is the word it begins with.
fn form_of_ours(text: &str) -> KeyTextForm<'_> {
    let text = secret_of_pair(text);
    let brand = text.split('_').next().and_then(|word| Brand::new(word).ok());
    brand.map_or(KeyTextForm::Foreign, |brand| inspect(text, &brand))
}
