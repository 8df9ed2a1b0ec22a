//! Where keys were seen: what is known of these keys is read at once, gone through here, and written at once.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::fault::Fault;
use super::rows::{get, uuid};
use super::session::{Session, Sql};
use super::usage_book::parsed;
use crate::domain::{KeyId, Timestamp};
use crate::store::usage::{MAX_NETWORKS, NetworkSeen, NewNetwork, Sighting};

/// Keys in one statement.
const AT_ONCE: usize = 1_000;

/// Adds sightings; answers the networks that are new for a key that was known from others.
pub(super) async fn see(session: &mut Session, sightings: &[Sighting]) -> Result<Vec<NewNetwork>, Fault> {
    let mut new = Vec::new();
    for some in sightings.chunks(AT_ONCE) {
        note_last(session, some).await?;
        let mut known = Known::read(session, some).await?;
        for sighting in some {
            known.see(sighting, &mut new);
        }
        known.write(session).await?;
    }
    Ok(new)
}

async fn note_last(session: &mut Session, sightings: &[Sighting]) -> Result<(), Fault> {
    const UPSERT: Sql = Sql::new(
        "INSERT INTO portcullis.seen AS known (id, at, address, agent) \
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[]) ON CONFLICT (id) DO UPDATE \
         SET at = excluded.at, address = excluded.address, agent = excluded.agent WHERE excluded.at >= known.at",
        &[Type::UUID_ARRAY, Type::INT8_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY],
    );
    let mut latest: BTreeMap<KeyId, &Sighting> = BTreeMap::new();
    for sighting in sightings {
        let known = latest.entry(sighting.key).or_insert(sighting);
        if sighting.at >= known.at {
            *known = sighting;
        }
    }
    let ids: Vec<Uuid> = latest.keys().copied().map(uuid).collect();
    let moments: Vec<i64> = latest.values().map(|seen| seen.at.unix_ms()).collect();
    let addresses: Vec<Option<String>> =
        latest.values().map(|seen| seen.address.map(|address| address.to_string())).collect();
    let agents: Vec<Option<&str>> = latest.values().map(|seen| seen.agent.as_deref()).collect();
    session.execute(&UPSERT, &[&ids, &moments, &addresses, &agents]).await?;
    Ok(())
}

/// The networks of some keys.
struct Known {
    by_key: HashMap<KeyId, Vec<NetworkSeen>>,
    changed: BTreeMap<(KeyId, String), (Timestamp, Timestamp)>,
    forgotten: Vec<(KeyId, String)>,
}

impl Known {
    async fn read(session: &mut Session, sightings: &[Sighting]) -> Result<Self, Fault> {
        const SELECT: Sql = Sql::new(
            "SELECT id, network, first, last FROM portcullis.networks WHERE id = ANY ($1)",
            &[Type::UUID_ARRAY],
        );
        let ids: Vec<Uuid> = sightings.iter().map(|sighting| uuid(sighting.key)).collect();
        let mut by_key: HashMap<KeyId, Vec<NetworkSeen>> = HashMap::new();
        for row in session.rows(&SELECT, &[&ids]).await? {
            let seen = NetworkSeen {
                network: parsed(get(&row, 1)?)?,
                first: Timestamp::from_unix_ms(get(&row, 2)?),
                last: Timestamp::from_unix_ms(get(&row, 3)?),
            };
            by_key.entry(super::rows::key_id(&row, 0)?).or_default().push(seen);
        }
        Ok(Self { by_key, changed: BTreeMap::new(), forgotten: Vec::new() })
    }

    fn see(&mut self, sighting: &Sighting, new: &mut Vec<NewNetwork>) {
        let key = sighting.key;
        let known = self.by_key.entry(key).or_default();
        for seen in &sighting.networks {
            let name = (key, seen.network.to_string());
            if let Some(again) = known.iter_mut().find(|known| known.network == seen.network) {
                again.first = again.first.min(seen.first);
                again.last = again.last.max(seen.last);
                self.changed.insert(name, (again.first, again.last));
                continue;
            }
            let others = known.len();
            let longest_ago = known.iter().enumerate().min_by_key(|(_, known)| (known.last, known.network.to_string()));
            if others >= MAX_NETWORKS
                && let Some((at, _)) = longest_ago
            {
                let gone = (key, known.swap_remove(at).network.to_string());
                self.changed.remove(&gone);
                self.forgotten.push(gone);
            }
            known.push(*seen);
            self.changed.insert(name, (seen.first, seen.last));
            if others > 0 {
                new.push(NewNetwork { key, network: seen.network, others });
            }
        }
    }

    async fn write(self, session: &mut Session) -> Result<(), Fault> {
        const FORGET: Sql = Sql::new(
            "DELETE FROM portcullis.networks WHERE (id, network) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))",
            &[Type::UUID_ARRAY, Type::TEXT_ARRAY],
        );
        const UPSERT: Sql = Sql::new(
            "INSERT INTO portcullis.networks (id, network, first, last) \
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[]) \
             ON CONFLICT (id, network) DO UPDATE SET first = excluded.first, last = excluded.last",
            &[Type::UUID_ARRAY, Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY],
        );
        if !self.forgotten.is_empty() {
            let (ids, networks): (Vec<Uuid>, Vec<String>) =
                self.forgotten.into_iter().map(|(key, network)| (uuid(key), network)).unzip();
            session.execute(&FORGET, &[&ids, &networks]).await?;
        }
        if !self.changed.is_empty() {
            let ids: Vec<Uuid> = self.changed.keys().map(|(key, _)| uuid(*key)).collect();
            let networks: Vec<&str> = self.changed.keys().map(|(_, network)| network.as_str()).collect();
            let firsts: Vec<i64> = self.changed.values().map(|(first, _)| first.unix_ms()).collect();
            let lasts: Vec<i64> = self.changed.values().map(|(_, last)| last.unix_ms()).collect();
            session.execute(&UPSERT, &[&ids, &networks, &firsts, &lasts]).await?;
        }
        Ok(())
    }
}
