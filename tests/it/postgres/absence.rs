//! The database is away for long, under load: stopped, cut off without a word, or until another takes its place.
//!
//! `PORTCULLIS_TEST_ABSENCE` says for how many seconds (default 3).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_testkit::{
    Database, Gateway, Key, Origin, PostgresServer, Wire, eventually, key_text, own_postgres_or_left_out, patient,
};

use super::load::{Load, Wish};
use super::{prepare, revoke_by_sql, site};
use crate::besieged::scaled;
use crate::figures;

/// Clients at each gateway.
const CLIENTS: usize = 2;
/// How long each waits before it asks again.
const REST: Duration = Duration::from_millis(15);
/// How long after its return every gateway is as current as before.
const CURRENT: Duration = Duration::from_secs(5);

/// Three gateways on a database that they reach at `authority`, and what their clients ask for.
struct Fleet {
    gateways: Vec<Gateway>,
    wishes: Vec<Wish>,
    good: Key,
    gone: Key,
    /// To be revoked when the database is back.
    late: Key,
    database: Database,
    _origin: Origin,
}

impl Fleet {
    async fn open(server: &PostgresServer, authority: &str) -> Self {
        let (database, origin) = (server.database(), Origin::start().await);
        let url = database.url_at(authority);
        let mut gateways = Vec::new();
        for _ in 0..3 {
            let site = prepare(site(&url, ", connect_timeout: 1s, statement_timeout: 2s", ""), &database, &origin);
            gateways.push(site.start().await);
        }
        let good = gateways[0].create_key("good", "read:orders").await;
        let weak = gateways[0].create_key("weak", "").await;
        let gone = gateways[0].create_key("gone", "read:orders").await;
        let late = gateways[0].create_key("late", "read:orders").await;
        let _ = gateways[0].cli(&["keys", "revoke", &gone.id]).await.success();
        let wishes = vec![
            Wish::get(&good, 200),
            Wish::post(&weak, 200),
            Wish::get(&weak, 403),
            Wish::get(&gone, 401),
            Wish::get(&late, 200),
            Wish::unknown(&key_text::forged("pc_live_sk_", 'U')),
        ];
        let fleet = Self { gateways, wishes, good, gone, late, database, _origin: origin };
        for gateway in &fleet.gateways {
            fleet.knows(gateway).await;
        }
        eventually!("all of it is on their disks", fleet.all_say("portcullis_snapshot_up", 1.0).await);
        fleet
    }

    /// Returns once a gateway knows of every change so far.
    async fn knows(&self, gateway: &Gateway) {
        let status = async |key: &Key| gateway.get("/v1/orders/1").bearer(key).await.status;
        eventually!("the keys are known", {
            (status(&self.late).await, status(&self.good).await, status(&self.gone).await) == (200, 200, 401)
        });
    }

    async fn stores_are_up(&self, up: bool) -> bool {
        self.all_say("portcullis_store_up", if up { 1.0 } else { 0.0 }).await
    }

    async fn all_say(&self, metric: &str, value: f64) -> bool {
        for gateway in &self.gateways {
            if gateway.metrics().await.value(metric, &[]) != Some(value) {
                return false;
            }
        }
        true
    }

    /// The database goes and comes back, while clients ask and a gateway is killed and started again.
    async fn lives_through<'a>(
        mut self,
        what: &str,
        go: impl AsyncFnOnce(),
        back: impl AsyncFnOnce() -> &'a PostgresServer,
    ) {
        let seconds = scaled("PORTCULLIS_TEST_ABSENCE", 3);
        let busy: Vec<SocketAddr> = self.gateways[..2].iter().map(Gateway::data).collect();
        // Asked until the database is back: then one of its keys is revoked.
        let load = Load::start(&busy, CLIENTS, REST, &self.wishes);
        tokio::time::sleep(Duration::from_millis(300)).await;
        go().await;
        let gone_at = Instant::now();
        eventually!("every gateway has noticed", within Duration::from_secs(30), self.stores_are_up(false).await);
        let left = self.gateways.pop().unwrap();
        left.kill();
        let started = Instant::now();
        let again = left.site().start().await;
        let took = started.elapsed();
        self.knows(&again).await;
        let rest = Load::start(&[again.data()], CLIENTS, REST, &self.wishes);
        self.gateways.push(again);
        while gone_at.elapsed() < Duration::from_secs(seconds) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(self.stores_are_up(false).await, "nobody gave it back before its time");
        let away = (load.end().await, rest.end().await);

        let steady: Vec<Wish> = self.wishes.iter().filter(|wish| !wish.is_for(&self.late)).cloned().collect();
        let all: Vec<SocketAddr> = self.gateways.iter().map(Gateway::data).collect();
        let load = Load::start(&all, CLIENTS, REST, &steady);
        let server = back().await;
        let returned = Instant::now();
        revoke_by_sql(server, &self.database, &self.late);
        for gateway in &self.gateways {
            eventually!("a change arrives everywhere", within CURRENT * 2, {
                gateway.get("/v1/orders/1").bearer(&self.late).await.status == 401
            });
        }
        eventually!("the store is back for all", within CURRENT * 2, self.stores_are_up(true).await);
        let current = returned.elapsed();
        let after = self.gateways[0].create_key("after", "read:orders").await;
        for gateway in &self.gateways {
            eventually!("changes are made and heard of again", {
                gateway.get("/v1/orders/1").bearer(&after).await.status == 200
            });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let counted = load.end().await;
        let event = format!("the database {what} for {:.0} s", (returned - gone_at).as_secs_f64());
        away.0.note(&event);
        away.1.note(&format!("{event}, of a gateway started meanwhile"));
        counted.note(&format!("{event}, at its return"));
        figures::note(&event, "a gateway starts again within", format!("{took:.1?}"), "", true);
        let wanted = format!("<= {CURRENT:?}");
        figures::note(&event, "all current after its return", format!("{current:.1?}"), &wanted, current <= CURRENT);
        assert!(current <= patient(CURRENT), "{current:?}");
        away.0.all_was_as_wished(20 * seconds);
        away.1.all_was_as_wished(1);
        counted.all_was_as_wished(20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_stopped_for_long_is_missed_by_nobody() {
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    let fleet = Fleet::open(&server, &format!("127.0.0.1:{}", server.port())).await;
    fleet
        .lives_through(
            "stopped",
            async || server.stop(),
            async || {
                server.launch().unwrap();
                &server
            },
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_cut_off_without_a_word_is_missed_by_nobody() {
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    let wire = Wire::to(([127, 0, 0, 1], server.port()).into()).await;
    let fleet = Fleet::open(&server, &wire.address().to_string()).await;
    let back = async || {
        // What is frozen stays so, as behind a router that forgot: only new connections help.
        wire.cut();
        wire.mend();
        &server
    };
    fleet.lives_through("cut off", async || wire.freeze(), back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_takes_the_place_of_one_that_died() {
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    let standby = server.standby();
    let both = format!("127.0.0.1:{},127.0.0.1:{}", server.port(), standby.port());
    let fleet = Fleet::open(&server, &both).await;
    let go = async || {
        server.followed_by(&standby);
        server.stop();
    };
    fleet
        .lives_through("without its first server", go, async || {
            standby.promote();
            &standby
        })
        .await;
}
