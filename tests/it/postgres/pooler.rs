//! A pooler that gives each transaction another connection.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use portcullis_testkit::{Database, Origin, PostgresServer, eventually, postgres_or_left_out};

use super::{prepare, site};
use crate::tools;

/// PgBouncer in front of a database, ended when it is dropped.
struct Pooler {
    child: Child,
    port: u16,
}

impl Pooler {
    /// With fewer connections than a gateway has, so that they change hands.
    async fn start(server: &PostgresServer, database: &Database) -> Option<Self> {
        let program = tools::find("pgbouncer")?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let Database { name, password, port: behind, .. } = database;
        let users = server.give(&format!("{name}.users"), &format!("\"{name}\" \"{password}\"\n"));
        let text = format!(
            "[databases]\n{name} = host=127.0.0.1 port={behind}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 2\n",
            users.display()
        );
        let file = server.give(&format!("{name}.ini"), &text);
        let mut command = server.companion(&program);
        command.arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let pooler = Self { child: command.spawn().unwrap(), port };
        eventually!("the pooler answers", TcpStream::connect(("127.0.0.1", port)));
        Some(pooler)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ended = (self.child.kill(), self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_changes_are_found_by_polling() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let Some(pooler) = Pooler::start(server, &database).await else { return };
    let origin = Origin::start().await;
    let url = database.url_at(&format!("127.0.0.1:{}", pooler.port));
    let pooled = site(&url, ", pooler: transaction", "sync: { last_used_flush: 1s }");
    let gateway = prepare(pooled, &database, &origin).start().await;
    for number in 0..5 {
        let key = gateway.create_key(&format!("key {number}"), "").await;
        eventually!("the key is known", gateway.get("/me").bearer(&key).await.status == 200);
        let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
        eventually!("the key is revoked", gateway.get("/me").bearer(&key).await.status == 401);
    }
    let _ = gateway.cli(&["audit", "verify"]).await.success();
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND usename = ";
    assert_eq!(server.sql("postgres", &format!("{listening}'{}'", database.name)), "0");
    assert!(gateway.logs().events_saying("does not answer").is_empty(), "{}", gateway.logs().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_nobody_told_of_is_recognised() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let Some(pooler) = Pooler::start(server, &database).await else { return };
    let origin = Origin::start().await;
    let url = database.url_at(&format!("127.0.0.1:{}", pooler.port));
    let site = prepare(site(&url, "", ""), &database, &origin);
    let mut refused = None;
    for _ in 0..10 {
        let outcome = site.cli(&["owners", "create", "--name", "somebody"]).await;
        if outcome.code != 0 {
            refused = Some(outcome);
            break;
        }
    }
    let _ = refused.expect("statements of one process meet those of another").exit(4).says(&["pooler: transaction"]);
}
