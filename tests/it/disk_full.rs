//! A disk without room: requests are decided as ever, changes are refused whole and say so, and room is all it takes to go on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use portcullis_testkit::{Call, Gateway, Key, KeySpec, Response, eventually};
use serde_json::{Value, json};

use crate::besieged::during;
use crate::{scene, tools};

/// How much the gateway may grow meanwhile.
const GROWTH: u64 = 64 << 20;
/// How many refusals are enough.
const REFUSALS: usize = 6;

/// A disk of its own for a directory. Dropping it takes it away.
struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// Puts a small one in this place; none where that needs rights that the test lacks.
    async fn small(directory: &Path) -> Option<Self> {
        let mount = tools::find("mount")?;
        std::fs::create_dir_all(directory).unwrap();
        let place = directory.to_str().unwrap();
        let (code, _said) = tools::run(&mount, &["-t", "tmpfs", "-o", "size=24m,mode=700", "none", place], "").await;
        if code != 0 {
            tools::leave_out("a disk of its own (`mount`)");
            return None;
        }
        Some(Self { directory: directory.to_owned() })
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join("ballast")
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    /// Gives back what `fill` took.
    fn clear(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever is still open there goes on.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.directory).status();
    }
}

/// What an operator does while the disk is full.
#[derive(Clone)]
struct Operator {
    key: Key,
    address: std::net::SocketAddr,
}

impl Operator {
    async fn tell(&self, method: &str, target: &str, body: &Value) -> Response {
        let call = Call::to(self.address, method, target).bearer(&self.key);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        call.header("content-type", "application/json").body(body).await
    }

    /// Makes a key; its id and its text, or nothing if it is refused as a full disk is told of.
    async fn make(&self, name: &str) -> Option<(String, String)> {
        let answer = self.tell("POST", "/v1/keys", &json!({ "name": name, "scopes": ["read:orders"] })).await;
        if answer.status != 201 {
            refused_for_now(answer);
            return None;
        }
        let record = answer.json();
        Some((record["id"].as_str().unwrap().to_owned(), record["key"].as_str().unwrap().to_owned()))
    }

    /// The names of all keys, by the store.
    async fn names(&self) -> BTreeSet<String> {
        let (mut names, mut cursor) = (BTreeSet::new(), String::new());
        loop {
            let page = self.tell("GET", &format!("/v1/keys?limit=1000{cursor}"), &Value::Null).await.expect(200).json();
            let keys = page["data"].as_array().unwrap();
            names.extend(keys.iter().map(|key| key["name"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { return names };
            cursor = format!("&cursor={next}");
        }
    }
}

fn refused_for_now(answer: Response) {
    let answer = answer.refused(503, "store_unavailable");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(answer.text().contains("Nothing was changed"), "{answer:?}");
}

/// What became of everything that was tried.
struct Tried {
    /// Names of keys that were acknowledged, and the texts.
    made: Vec<(String, String)>,
    /// Names of keys that were refused.
    refused: Vec<String>,
    /// Whether each of the keys to be revoked was.
    revoked: Vec<bool>,
}

/// Makes and revokes keys on a disk without room until enough was refused.
async fn try_everything(operator: &Operator, disk: &Disk, to_revoke: &[Key]) -> Tried {
    let mut tried = Tried { made: Vec::new(), refused: Vec::new(), revoked: Vec::new() };
    for number in 0.. {
        // What the gateway gives up for lack of room is taken, too.
        disk.fill();
        let name = format!("late {number}");
        match operator.make(&name).await {
            Some((_, text)) => tried.made.push((name, text)),
            None => tried.refused.push(name),
        }
        if tried.refused.len() >= REFUSALS {
            break;
        }
        assert!(number < 5_000, "nothing is refused: {} keys were made", tried.made.len());
    }
    for key in to_revoke {
        disk.fill();
        let answer = operator.tell("DELETE", &format!("/v1/keys/{}", key.id), &Value::Null).await;
        tried.revoked.push(answer.status == 200);
        if answer.status != 200 {
            refused_for_now(answer);
        }
    }
    tried
}

async fn status(gateway: &Gateway, key: &str) -> u16 {
    gateway.get("/v1/orders/1").header("authorization", &format!("Bearer {key}")).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_noticed_by_changes_alone_and_needs_room_and_no_restart() {
    let (site, _origin) = scene::closed_shop().await;
    let Some(disk) = Disk::small(&site.path("data")).await else { return };
    let operator = KeySpec::new("operator", "portcullis:keys,portcullis:audit").kind("management");
    let operator = site.create(operator.option("--may-grant", "*")).await;
    let known = site.create(KeySpec::new("known", "read:orders")).await;
    let mut leaving = Vec::new();
    for number in 0..4 {
        leaving.push(site.create(KeySpec::new(&format!("leaving {number}"), "read:orders")).await);
    }
    let gateway = site.start().await;
    eventually!("a snapshot is on the disk", {
        gateway.metrics().await.value("portcullis_snapshot_up", &[]) == Some(1.0)
    });
    let operator = Operator { key: operator, address: gateway.admin_address() };
    let before = operator.names().await;

    let (busy, to_revoke) = (operator.clone(), leaving.clone());
    let attack = async move {
        let tried = try_everything(&busy, &disk, &to_revoke).await;
        (disk, tried)
    };
    let ((disk, tried), noticed) = during(&gateway, &known, attack).await;
    noticed.holds("a full disk", GROWTH);
    assert_eq!(gateway.health("/readyz").await.0, 200);
    let said = gateway.cli(&["keys", "create", "--name", "by hand", "--scopes", "read:orders"]).await;
    if said.code != 0 {
        let _ = said.exit(4).says(&["the disk is full"]);
    }
    assert!(gateway.logs().text().contains("the disk is full"), "the operator is told why");

    // Whatever was refused has left nothing behind, and whatever was acknowledged is there and decides.
    let holds = async |gateway: &Gateway, operator: &Operator| {
        let mut expected = before.clone();
        expected.extend(tried.made.iter().map(|(name, _)| name.clone()));
        let found: BTreeSet<String> = operator.names().await.into_iter().filter(|name| name != "by hand").collect();
        assert_eq!(found, expected, "refused: {:?}", tried.refused);
        for (_, text) in &tried.made {
            assert_eq!(status(gateway, text).await, 200);
        }
        for (key, is_revoked) in leaving.iter().zip(&tried.revoked) {
            assert_eq!(status(gateway, &key.text).await, if *is_revoked { 401 } else { 200 }, "{}", key.id);
        }
    };
    holds(&gateway, &operator).await;

    disk.clear();
    let later = eventually!("there is room again", operator.make("later").await);
    eventually!("it is known", status(&gateway, &later.1).await == 200);
    operator.tell("DELETE", &format!("/v1/keys/{}", later.0), &Value::Null).await.expect(200);
    assert_eq!(status(&gateway, &later.1).await, 401);
    eventually!("a snapshot is kept again", {
        gateway.metrics().await.value("portcullis_snapshot_up", &[]) == Some(1.0)
    });
    let _ = gateway.cli(&["audit", "verify"]).await.success();

    // Its names are those of now, so a restart finds nothing else.
    let now = operator.names().await;
    assert_eq!(gateway.stop().await, 0);
    let again = site.start().await;
    let operator = Operator { address: again.admin_address(), ..operator };
    assert_eq!((operator.names().await, status(&again, &later.1).await), (now, 401));
}
