//! What is shown once, and asking for it again: under the same `Idempotency-Key` the same is shown.

use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::api::Api;
use super::call::Call;
use super::exchange::{ApiAnswer, ApiError};
use super::fleet::Wait;
use super::seal::Seal;
use super::table::Repeat;
use crate::credential::{self, Located};
use crate::domain::{KeyId, OwnerId, Revision};
use crate::manage::{Desk, Made, NewKey, NewOwner, Refused, Rotation, owner_json};
use crate::store::{Command, RepeatName, Repeatable, StoreError};

/// What is shown once.
pub(super) enum Making {
    Key(Box<NewKey>),
    Successor(KeyId, Rotation),
    Secret(KeyId),
}

/// What makes a request the same as one before.
struct Repeated {
    name: RepeatName,
    request: [u8; 32],
    seal: Seal,
}

/// Longest `Idempotency-Key`, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

impl Api {
    /// Makes something that is shown once; asked again under the same `Idempotency-Key`, shows the same again.
    pub(super) async fn make(
        &self,
        call: &Call<'_>,
        desk: &Desk<'_>,
        wait: Wait,
        making: Making,
    ) -> Result<ApiAnswer, ApiError> {
        let (repeat, seen) = (call.repeat()?, call.if_match()?);
        // What was made under the name before has changed the record that `If-Match` meant.
        if let Some(answer) = self.answered_before(call, wait, repeat.as_ref()).await? {
            return Ok(answer);
        }
        let seen = seen.as_deref();
        // A change of the same record in between makes it out of date; then it is made from what is there now.
        for _ in 0..8 {
            let Made { record, key, command } = match &making {
                Making::Key(asked) => desk.make_key(NewKey::clone(asked)).await?,
                Making::Successor(id, asked) => desk.make_successor(*id, asked.clone(), seen).await?,
                Making::Secret(id) => desk.make_secret(*id, seen).await?,
            };
            let mut body = call.shown(&record);
            if let Some(object) = body.as_object_mut() {
                object.insert("key".to_owned(), key.reveal().into());
            }
            let body = Zeroizing::new(body.to_string());
            match self.store_once(call, wait, command, repeat.as_ref(), &body).await {
                Err(ApiError::PreconditionFailed) => {}
                answer => return answer,
            }
        }
        Err(ApiError::PreconditionFailed)
    }

    pub(super) async fn make_owner(&self, call: &Call<'_>, desk: &Desk<'_>, wait: Wait) -> Result<ApiAnswer, ApiError> {
        let repeat = call.repeat()?;
        if let Some(answer) = self.answered_before(call, wait, repeat.as_ref()).await? {
            return Ok(answer);
        }
        let record = desk.make_owner(call.body::<NewOwner>()?)?;
        let body = owner_json(&record).to_string();
        self.store_once(call, wait, Command::InsertOwner { record }, repeat.as_ref(), &body).await
    }

    /// Stores what was made together with the answer, and gives it.
    async fn store_once(
        &self,
        call: &Call<'_>,
        wait: Wait,
        command: Command,
        repeat: Option<&Repeated>,
        body: &str,
    ) -> Result<ApiAnswer, ApiError> {
        let repeatable = match repeat {
            None => None,
            Some(repeat) => {
                let sealed = repeat.seal.close(&repeat.name, body.as_bytes());
                let sealed = sealed.ok_or_else(|| ApiError::Internal { reason: "nothing random".to_owned() })?;
                Some((repeat.name, Repeatable { request: repeat.request, sealed }))
            }
        };
        match call.desk(&self.store).submit(command, repeatable).await {
            Ok(Some(revision)) => self.made(call, wait, body, revision).await,
            Ok(None) => Err(ApiError::NotFound { detail: "the record is gone".to_owned() }),
            // Somebody with the same Idempotency-Key was quicker.
            Err(Refused::Store(StoreError::Repeated)) => {
                let answer = self.answered_before(call, wait, repeat).await?;
                answer.ok_or(ApiError::Conflict { detail: "the same request was carried out before".to_owned() })
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// What was answered when the same was asked before. How far the fleet is was not kept with it: that is looked at anew.
    async fn answered_before(
        &self,
        call: &Call<'_>,
        wait: Wait,
        repeat: Option<&Repeated>,
    ) -> Result<Option<ApiAnswer>, ApiError> {
        let Some(repeat) = repeat else { return Ok(None) };
        let Some((kept, revision)) = self.store.reader().find_repeatable(repeat.name, call.now).await? else {
            return Ok(None);
        };
        if kept.request != repeat.request {
            return Err(ApiError::IdempotencyKeyReused);
        }
        let opened = repeat.seal.open(&repeat.name, &kept.sealed);
        // It was sealed under another secret of the same key.
        let changed =
            || ApiError::Conflict { detail: "the secret of the key that asked was replaced since".to_owned() };
        let opened = opened.ok_or_else(changed)?;
        let body = std::str::from_utf8(&opened).map_err(|error| ApiError::Internal { reason: error.to_string() })?;
        self.made(call, wait, body, revision).await.map(Some)
    }

    async fn made(&self, call: &Call<'_>, wait: Wait, body: &str, revision: Revision) -> Result<ApiAnswer, ApiError> {
        let settled = self.settle(call, wait, revision).await;
        let mut body: Value =
            serde_json::from_str(body).map_err(|error| ApiError::Internal { reason: error.to_string() })?;
        let status = settled.status(StatusCode::CREATED);
        let id = body["id"].as_str().unwrap_or_default().to_owned();
        if let Some(object) = body.as_object_mut() {
            object.insert("revision".to_owned(), json!(revision));
        }
        let collection = if id.starts_with(OwnerId::PREFIX) { "owners" } else { "keys" };
        Ok(call.json(status, settled.told_in(body), None).tagged(revision).located(format!("/v1/{collection}/{id}")))
    }
}

impl Call<'_> {
    /// What the request is kept under, when it carries an `Idempotency-Key`.
    fn repeat(&self) -> Result<Option<Repeated>, ApiError> {
        if self.row.effect_repeat() != Some(Repeat::MakesAnother) {
            return Ok(None);
        }
        let name = http::HeaderName::from_static("idempotency-key");
        let mut values = self.request.fields.named(&name);
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(None),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(ApiError::field("Idempotency-Key", "stands more than once")),
        };
        let is_well_formed = (1..=MAX_IDEMPOTENCY_KEY).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        if !is_well_formed {
            let detail =
                format!("has 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters; a random UUID is a good one");
            return Err(ApiError::field("Idempotency-Key", detail));
        }
        let located = credential::locate(self.request.fields, None, &self.door.accept);
        let Located::One(found) = located else {
            return Err(ApiError::Internal { reason: "a caller without a credential".to_owned() });
        };
        let seal = Seal::of(&found.key()).ok_or_else(|| ApiError::Internal { reason: "no seal".to_owned() })?;
        let digest = |parts: &[&[u8]]| -> [u8; 32] {
            let mut digest = Sha256::new();
            for part in parts {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            digest.finalize().into()
        };
        let (method, path) = (self.request.method.as_str().as_bytes(), self.request.path.as_bytes());
        let caller = self.authority.actor().name;
        Ok(Some(Repeated {
            name: digest(&[b"portcullis idempotency", caller.as_bytes(), value]),
            request: digest(&[method, path, self.request.body]),
            seal,
        }))
    }
}
