//! What happens to the trail behind the store's back is found: rows edited, removed, put in and moved by plain SQL.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;
use zeroize::Zeroizing;

use super::migrate::{KEYS, Schema};
use super::*;
use crate::store::fixtures::{NOW, by, key_id, keys, owner, owner_id};
use crate::store::seal::{AuditMac, AuditSeal};
use crate::store::verify::Breach;
use crate::store::{Actor, KeyWriter};

const DAY: Duration = Duration::from_secs(86_400);

/// A seal with keys of these names, the current one first.
fn seal(names: &[&'static str]) -> AuditSeal {
    AuditSeal::new(names.iter().map(|name| (*name, Zeroizing::new([name.as_bytes()[0]; 32]))))
}

/// A trail to tamper with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Plain,
    Keyed,
    /// Plain, then keyed with `one`, then with `two`.
    Rotated,
    /// Keyed, the front dropped in two steps.
    Dropped,
}

struct Trail {
    _directory: tempfile::TempDir,
    path: PathBuf,
    kind: Kind,
}

impl Trail {
    /// What a verifier has at hand.
    fn seal(kind: Kind) -> AuditSeal {
        match kind {
            Kind::Plain => seal(&[]),
            Kind::Keyed | Kind::Dropped => seal(&["one"]),
            Kind::Rotated => seal(&["two", "one"]),
        }
    }

    fn write(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("portcullis.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let first = if kind == Kind::Rotated { seal(&[]) } else { Self::seal(kind) };
            let sealed: SharedSeal = Arc::new(ArcSwap::from_pointee(first));
            let store = SqliteStore::open(&path, OpenMode::Create, sealed.clone()).unwrap();
            let remote = Actor { name: key_id(9).to_string(), address: Some("203.0.113.9".parse().unwrap()) };
            store.insert_keys(keys(0..3), by(), NOW).await.unwrap();
            if kind == Kind::Rotated {
                sealed.store(Arc::new(seal(&["one"])));
            }
            store.set_active(key_id(1), false, remote.clone(), NOW.plus(DAY)).await.unwrap();
            store.insert_owner(owner(1), remote, NOW.plus(2 * DAY)).await.unwrap();
            if kind == Kind::Dropped {
                for rows in [3, 1] {
                    let now = NOW.plus((4 - rows) * DAY + DAY / 2);
                    let retention = if rows == 3 { DAY } else { 2 * DAY };
                    let gone = store.forget_audit(retention, by(), now).await.unwrap();
                    assert_eq!(gone, u64::from(rows));
                }
            }
            sealed.store(Arc::new(Self::seal(kind)));
            store.revoke(key_id(2), by(), NOW.plus(5 * DAY)).await.unwrap();
            store.set_owner_suspended(owner_id(1), true, by(), NOW.plus(5 * DAY)).await.unwrap();
        });
        Self { _directory: directory, path, kind }
    }

    /// The same trail in a file of its own, to be spoilt.
    fn copy(&self, directory: &Path) -> PathBuf {
        let copy = directory.join("copy.db");
        std::fs::copy(&self.path, &copy).unwrap();
        copy
    }

    fn verify(&self, path: &Path, noted: Option<AuditHead>) -> Verification {
        let mut seat = Seat::new(path.to_owned(), Role::Reader);
        seat.run("testing", |open| trail::verify(open, &Self::seal(self.kind), noted)).unwrap()
    }
}

/// Every column of a row.
const COLUMNS: [&str; 11] =
    ["entry", "revision", "at", "actor", "address", "action", "subject", "before", "after", "mac", "sealed_with"];

/// What an intruder does; rows are counted from the first.
#[derive(Clone, Debug)]
enum Tampering {
    Edit {
        row: usize,
        column: &'static str,
        to: Odd,
    },
    Remove {
        row: usize,
    },
    /// A copy of one row right behind another; what follows moves up.
    PutIn {
        copy: usize,
        behind: usize,
    },
    /// Two rows change places, or only what stands in one column of theirs.
    Swap {
        one: usize,
        other: usize,
        column: Option<&'static str>,
    },
}

/// Something that is not what stands there.
#[derive(Clone, Debug)]
enum Odd {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
    FlippedBit(usize),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let row = 0_usize..64;
    let column = proptest::sample::select(&COLUMNS[..]);
    let odd = prop_oneof![
        Just(Odd::Null),
        any::<i64>().prop_map(Odd::Number),
        (-3_i64..20).prop_map(Odd::Number),
        "[a-z:.]{0,9}".prop_map(Odd::Text),
        Just(Odd::Text("one".to_owned())),
        proptest::collection::vec(any::<u8>(), 32).prop_map(Odd::Bytes),
        (0_usize..4096).prop_map(Odd::FlippedBit),
    ];
    prop_oneof![
        6 => (row.clone(), column.clone(), odd).prop_map(|(row, column, to)| Tampering::Edit { row, column, to }),
        1 => row.clone().prop_map(|row| Tampering::Remove { row }),
        1 => (row.clone(), row.clone()).prop_map(|(copy, behind)| Tampering::PutIn { copy, behind }),
        2 => (row.clone(), row, proptest::option::of(column))
            .prop_map(|(one, other, column)| Tampering::Swap { one, other, column }),
    ]
}

fn flipped(value: &Value, bit: usize) -> Value {
    let flip = |bytes: &mut [u8]| {
        if let Some(count) = bytes.len().checked_mul(8).filter(|count| *count > 0) {
            bytes[bit % count / 8] ^= 1 << (bit % 8);
        }
    };
    match value.clone() {
        Value::Integer(number) => Value::Integer(number ^ (1 << (bit % 63))),
        Value::Blob(mut bytes) => {
            flip(&mut bytes);
            Value::Blob(bytes)
        }
        Value::Text(text) => {
            let mut bytes = text.into_bytes();
            flip(&mut bytes);
            Value::Text(String::from_utf8_lossy(&bytes).into_owned())
        }
        Value::Null | Value::Real(_) => Value::Text(String::new()),
    }
}

/// Does it; false when SQLite refuses, or when nothing is different afterwards.
fn spoil(raw: &Connection, tampering: &Tampering) -> bool {
    let rows = rows(raw);
    let at = |row: &usize| row % rows.len();
    let entry = |row: &usize| rows[at(row)][0].clone();
    let column_number = |name: &str| COLUMNS.iter().position(|column| *column == name).unwrap();
    let move_up = |behind: &Value| {
        raw.execute("UPDATE audit SET entry = -entry - 1 WHERE entry > ?1", [behind])?;
        raw.execute("UPDATE audit SET entry = -entry WHERE entry < 0", [])
    };
    let done = match tampering {
        Tampering::Edit { row, column, to } => {
            let to = match to {
                Odd::Null => Value::Null,
                Odd::Number(number) => Value::Integer(*number),
                Odd::Text(text) => Value::Text(text.clone()),
                Odd::Bytes(bytes) => Value::Blob(bytes.clone()),
                Odd::FlippedBit(bit) => flipped(&rows[at(row)][column_number(column)], *bit),
            };
            raw.execute(&format!("UPDATE audit SET {column} = ?2 WHERE entry = ?1"), params![entry(row), to])
        }
        // The last one is the business of heads.
        Tampering::Remove { row } if at(row) + 1 == rows.len() => return false,
        Tampering::Remove { row } => raw.execute("DELETE FROM audit WHERE entry = ?1", [entry(row)]),
        Tampering::PutIn { copy, behind } => {
            let Value::Integer(number) = entry(behind) else { panic!("numbers are numbers") };
            let names = COLUMNS[1..].join(", ");
            let insert = format!("INSERT INTO audit (entry, {names}) VALUES (?1{})", ", ?".repeat(COLUMNS.len() - 1));
            move_up(&entry(behind)).and_then(|_| {
                let mut values = rows[at(copy)].clone();
                values[0] = Value::Integer(number + 1);
                raw.execute(&insert, rusqlite::params_from_iter(values))
            })
        }
        Tampering::Swap { one, other, column } => {
            let columns = column.map_or_else(|| COLUMNS[1..].to_vec(), |column| vec![column]);
            let set: Vec<String> = columns.iter().map(|column| format!("{column} = ?")).collect();
            let update = format!("UPDATE audit SET {} WHERE entry = ?", set.join(", "));
            [(one, other), (other, one)].iter().try_fold(0, |_, (to, from)| {
                let mut values: Vec<Value> =
                    columns.iter().map(|column| rows[at(from)][column_number(column)].clone()).collect();
                values.push(entry(to));
                raw.execute(&update, rusqlite::params_from_iter(values))
            })
        }
    };
    done.is_ok() && self::rows(raw) != rows
}

fn rows(raw: &Connection) -> Vec<Vec<Value>> {
    let mut select = raw.prepare(&format!("SELECT {} FROM audit ORDER BY entry", COLUMNS.join(", "))).unwrap();
    let row = |row: &rusqlite::Row<'_>| (0..COLUMNS.len()).map(|column| row.get(column)).collect();
    select.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The first row that is not as it was, by its number.
fn first_difference(before: &[Vec<Value>], after: &[Vec<Value>]) -> i64 {
    let differs = before.iter().zip(after).position(|(before, after)| before != after);
    let number = |row: &[Value]| match row[0] {
        Value::Integer(number) => number,
        _ => panic!("numbers are numbers"),
    };
    match differs {
        // Where the first row is due, whatever number stands there.
        Some(0) => number(&before[0]),
        Some(row) => number(&before[row]).min(number(&after[row])),
        None => number(&after[before.len().min(after.len() - 1)]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn no_row_is_edited_removed_put_in_or_moved_unseen(tamperings in proptest::collection::vec(tampering(), 24)) {
        static TRAILS: std::sync::LazyLock<Vec<Trail>> = std::sync::LazyLock::new(|| {
            [Kind::Plain, Kind::Keyed, Kind::Rotated, Kind::Dropped].map(Trail::write).into()
        });
        for trail in TRAILS.iter() {
            let raw = Connection::open(&trail.path).unwrap();
            let before = rows(&raw);
            for tampering in &tamperings {
                let undone = raw.unchecked_transaction().unwrap();
                if !spoil(&raw, tampering) {
                    continue;
                }
                let first = first_difference(&before, &rows(&raw));
                let found = trail::walk(&raw, &Trail::seal(trail.kind), None).unwrap();
                drop(undone);
                prop_assert!(!found.is_sound(&[]), "{:?} {tampering:?} went unseen: {found:?}", trail.kind);
                match found.breach {
                    // The mark of what was dropped, and a number below all others, are told by where they belong.
                    Some((_, Breach::Anchor | Breach::Extra)) => {}
                    // An entry that claims a key nobody has is counted as such, a first one without mac as from before
                    // the chain; what follows does not fit to it.
                    Some((entry, _)) if found.unsealed > 0 || !found.unverifiable.is_empty() => {
                        prop_assert!([first, first + 1].contains(&entry.cast_signed()), "{:?} {tampering:?}", trail.kind);
                    }
                    Some((entry, _)) => prop_assert_eq!(entry.cast_signed(), first, "{:?} {:?}", trail.kind, tampering),
                    // It claims a key that is not at hand.
                    None => {}
                }
            }
        }
    }
}

#[test]
fn every_kind_of_trail_is_sound_as_it_is_written() {
    for kind in [Kind::Plain, Kind::Keyed, Kind::Rotated, Kind::Dropped] {
        let trail = Trail::write(kind);
        let found = trail.verify(&trail.path, None);
        assert!(found.is_sound(&[]), "{kind:?}: {found:?}");
        let dropped = found.dropped.map(|dropped| (dropped.through, found.first));
        assert_eq!(dropped, (kind == Kind::Dropped).then_some((4, Some(5))), "{kind:?}");
    }
}

#[test]
fn a_cut_end_shows_with_a_head_alone() {
    for kind in [Kind::Plain, Kind::Keyed, Kind::Rotated] {
        let trail = Trail::write(kind);
        let head = trail.verify(&trail.path, None).head;
        let raw = Connection::open(&trail.path).unwrap();
        raw.execute("DELETE FROM audit WHERE entry = ?1", [head.entry.cast_signed()]).unwrap();
        assert!(trail.verify(&trail.path, None).is_sound(&[]), "the chain ends somewhere");
        let found = trail.verify(&trail.path, Some(head)).breach;
        assert_eq!(found, Some((head.entry, Breach::CutOff { end: head.entry - 1 })), "{kind:?}");
    }
}

#[test]
fn a_trail_written_anew_without_a_key_is_found_out_unless_there_never_was_one() {
    for (kind, expected) in [(Kind::Plain, None), (Kind::Keyed, Some(5)), (Kind::Rotated, Some(5))] {
        let trail = Trail::write(kind);
        let noted = trail.verify(&trail.path, None).head;
        // Someone without the pepper rewrites the end from the fifth entry on.
        let mut open = Seat::new(trail.path.clone(), Role::Writer);
        open.run("testing", |open| {
            let page = trail::list(&open.connection, &AuditQuery { limit: 1_000, ..AuditQuery::default() })?;
            let (mut rows, mut head) = (page.items, AuditHead::default());
            rows.reverse();
            open.connection.execute("DELETE FROM audit", [])?;
            for mut row in rows {
                if row.entry == 5 {
                    row.actor = "local:somebody-else".to_owned();
                }
                if row.entry >= 5 {
                    AuditSeal::default().close(head.mac, &mut row);
                }
                head = trail::insert(&open.connection, &row)?;
            }
            Ok(())
        })
        .unwrap();
        let breach = trail.verify(&trail.path, None).breach;
        assert_eq!(breach, expected.map(|entry| (entry, Breach::Unkeyed)), "{kind:?}");
        let against_head = trail.verify(&trail.path, Some(noted)).breach.expect("the head shows it");
        assert!(matches!(against_head.1, Breach::OtherHead | Breach::Unkeyed), "{kind:?}: {against_head:?}");
    }
}

#[test]
fn more_dropped_than_the_trail_tells_is_found() {
    let trail = Trail::write(Kind::Dropped);
    for (spoil, why) in [
        ("DELETE FROM audit_anchor", Breach::Missing { through: 4 }),
        ("UPDATE audit_anchor SET at = at + 1", Breach::Anchor),
        ("UPDATE audit_anchor SET mac = randomblob(32)", Breach::Changed),
        ("UPDATE audit_anchor SET mac = NULL", Breach::Changed),
        ("UPDATE audit_anchor SET entry = 3", Breach::Missing { through: 4 }),
        ("DELETE FROM audit WHERE entry = (SELECT min(entry) FROM audit)", Breach::Missing { through: 5 }),
        (
            "UPDATE audit_anchor SET (entry, at, mac) = (SELECT entry, at, mac FROM audit ORDER BY entry LIMIT 1);
             DELETE FROM audit WHERE entry = (SELECT min(entry) FROM audit)",
            Breach::Anchor,
        ),
        // The front, put back in from an old backup, is more than there should be.
        (
            "INSERT INTO audit (entry, revision, at, actor, action, subject, mac) VALUES (4, 1, 1, '', '', '', zeroblob(32))",
            Breach::Extra,
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let copy = trail.copy(directory.path());
        Connection::open(&copy).unwrap().execute_batch(spoil).unwrap();
        let found = trail.verify(&copy, None);
        assert_eq!(found.breach.as_ref().map(|(_, breach)| breach), Some(&why), "{spoil}: {found:?}");
    }
}

#[test]
fn entries_that_tell_of_dropping_too_much_are_found() {
    let trail = Trail::write(Kind::Keyed);
    let mut seat = Seat::new(trail.path.clone(), Role::Writer);
    // Even with the pepper: an entry of this kind that the store itself would not have written.
    let text = format!(
        r#"{{"through":"1:{}","newest":"{}","retention_seconds":{}}}"#,
        AuditMac::from_bytes([7; 32]),
        NOW,
        DAY.as_secs()
    );
    seat.run("testing", |open| {
        let head = trail::read_head(&open.connection)?;
        let query = AuditQuery { limit: 1, ..AuditQuery::default() };
        let mut row = trail::list(&open.connection, &query)?.items.remove(0);
        row.entry = head.entry + 1;
        row.action = "audit.forget".to_owned();
        row.at = NOW.plus(DAY / 2);
        row.after = Some(text);
        Trail::seal(Kind::Keyed).close(head.mac, &mut row);
        trail::insert(&open.connection, &row)?;
        Ok(())
    })
    .unwrap();
    let found = trail.verify(&trail.path, None);
    assert!(matches!(found.breach, Some((_, Breach::DroppedEarly))), "{found:?}");
}

#[tokio::test]
async fn entries_from_before_the_chain_are_counted_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portcullis.db");
    let mut raw = Connection::open(&path).unwrap();
    let second = Schema { application_id: KEYS.application_id, migrations: &KEYS.migrations[..2] };
    migrate::migrate(&mut raw, &second).unwrap();
    let old =
        "INSERT INTO audit (revision, at, actor, action, subject) VALUES (1, 5, 'local:x', 'key.create', 'key_1')";
    raw.execute_batch(&format!("{old};{old};{old};")).unwrap();
    let sealed: SharedSeal = Arc::new(ArcSwap::from_pointee(seal(&["one"])));
    let store = SqliteStore::open(&path, OpenMode::Existing, sealed).unwrap();
    assert_eq!(
        store.audit_extent().await.unwrap(),
        AuditExtent { head: AuditHead { entry: 3, ..AuditHead::default() }, entries: 3 }
    );
    store.insert_keys(keys([1, 2]), by(), NOW).await.unwrap();
    // A process of the old version, which has had the file open all the time.
    let refused = raw.execute_batch(old).unwrap_err();
    assert!(refused.to_string().contains("restart"), "{refused}");
    let found = store.verify_audit(None).await.unwrap();
    assert!(found.is_sound(&[]), "{found:?}");
    assert_eq!((found.entries, found.unsealed, found.keyed["one"]), (5, 3, 2));

    // Their end is fixed: neither can they grow, nor can one be missing.
    raw.execute_batch("UPDATE audit SET mac = NULL WHERE entry = 5").unwrap();
    assert_eq!(store.verify_audit(None).await.unwrap().breach, Some((5, Breach::Unsealed)));
    raw.execute_batch("UPDATE audit SET mac = NULL WHERE entry = 4").unwrap();
    assert_eq!(store.verify_audit(None).await.unwrap().unsealed, 5, "all of it: only a head shows that");
    raw.execute_batch("DELETE FROM audit WHERE entry = 2").unwrap();
    assert_eq!(store.verify_audit(None).await.unwrap().breach, Some((2, Breach::Missing { through: 2 })));
    // They go like all others, and leave nothing to build on.
    raw.execute_batch("UPDATE audit SET entry = 2 WHERE entry = 3; UPDATE audit SET entry = entry - 1 WHERE entry > 3")
        .unwrap();
    assert_eq!(store.forget_audit(DAY, by(), NOW).await.unwrap(), 2);
    let found = store.verify_audit(None).await.unwrap();
    assert!(found.is_sound(&[]), "{found:?}");
}

#[tokio::test]
async fn two_processes_append_to_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portcullis.db");
    let open = |names| {
        let sealed: SharedSeal = Arc::new(ArcSwap::from_pointee(seal(names)));
        Arc::new(SqliteStore::open(&path, OpenMode::Create, sealed).unwrap())
    };
    // One of them has heard of the new pepper, the other has not.
    let stores = [open(&["one"]), open(&["two", "one"])];
    let writing: Vec<_> = (0..60)
        .map(|n| {
            let store = stores[n as usize % 2].clone();
            tokio::spawn(async move { store.insert_keys(keys([n, n + 1_000]), by(), NOW).await.unwrap() })
        })
        .collect();
    for task in writing {
        task.await.unwrap();
    }
    let found = stores[1].verify_audit(None).await.unwrap();
    assert!(found.is_sound(&[]), "{found:?}");
    assert_eq!((found.entries, found.keyed["one"], found.keyed["two"]), (120, 60, 60));
}

#[test]
fn an_order_that_is_refused_leaves_no_gap_in_the_chain() {
    let trail = Trail::write(Kind::Keyed);
    let mut seat = Seat::new(trail.path.clone(), Role::Writer);
    let order = |command| Order::new(command, by(), NOW);
    let insertion = |numbers: &[u32]| {
        let records = keys(numbers.iter().copied());
        order(crate::store::Command::InsertKeys { records, origin: crate::store::Origin::Minted })
    };
    // The second one fails at its last row, with entries written already.
    let orders = [insertion(&[20]), insertion(&[21, 22, 20]), insertion(&[23])];
    let seal = Trail::seal(Kind::Keyed);
    let (answers, _) =
        seat.run("testing", |open| writer::transact(open, &orders, crate::domain::RevisionToken(1), &seal)).unwrap();
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok(), "{answers:?}");
    let before = 7;
    let found = trail.verify(&trail.path, None);
    assert!(found.is_sound(&[]) && found.entries == before + 2, "{found:?}");
}
