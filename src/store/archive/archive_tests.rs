//! The form of backups: what is written reads back, and what is not as it was written is refused, with the reason.

use zeroize::Zeroizing;

use super::*;
use crate::domain::{QuotaHolder, QuotaPeriod};
use crate::store::fixtures::{NOW, key, key_id, owner, owner_id};
use crate::store::seal::AuditSeal;

fn seal(id: &str, byte: u8) -> AuditSeal {
    AuditSeal::new([(id, Zeroizing::new([byte; 32]))])
}

fn entry(number: u64) -> AuditEntry {
    let mut entry = AuditEntry {
        entry: number,
        revision: Revision::new(number),
        at: NOW,
        actor: "local:tester".to_owned(),
        address: Some("192.0.2.1".to_owned()),
        action: "key.create".to_owned(),
        subject: key_id(1).to_string(),
        before: None,
        after: Some(r#"{"b": 1,"a":"\u00e9"}"#.to_owned()),
        sealed: None,
    };
    AuditSeal::default().close(Default::default(), &mut entry);
    entry
}

/// A backup with something of everything.
fn archive() -> Archive {
    let last = AuditHead { entry: 4, mac: Default::default() };
    Archive {
        made_at: NOW,
        digest: String::new(),
        stand: Stand { revision: Revision::new(9), anchor: Some(Anchor { last, at: NOW }) },
        owners: vec![owner(1)],
        keys: vec![KeyRecord { owner: Some(owner_id(1)), last_used_at: Some(NOW), ..key(1) }, key(2)],
        entries: vec![entry(5), entry(6)],
        quotas: vec![(
            QuotaTerm { holder: QuotaHolder::Owner(owner_id(1)), period: QuotaPeriod::Month, begins: NOW },
            7,
        )],
    }
}

fn write(archive: Archive, seal: &AuditSeal) -> String {
    let mut file = Vec::new();
    let mut writer = ArchiveWriter::new(&mut file, archive.made_at);
    writer.write(Piece::Stand(archive.stand)).unwrap();
    writer.write(Piece::Owners(archive.owners)).unwrap();
    writer.write(Piece::Keys(archive.keys)).unwrap();
    writer.write(Piece::Entries(archive.entries)).unwrap();
    writer.write_quotas(archive.quotas).unwrap();
    writer.finish(seal).unwrap();
    String::from_utf8(file).unwrap()
}

fn read(file: &str, seal: &AuditSeal, proof: Proof) -> Result<Archive, NotRead> {
    read_archive(&mut file.as_bytes(), seal, proof)
}

/// Why it is refused.
#[track_caller]
fn refused(file: &str, seal: &AuditSeal) -> String {
    match read(file, seal, Proof::Sealed) {
        Ok(_) => panic!("was read:\n{file}"),
        Err(error) => error.to_string(),
    }
}

/// The file with another last line that fits what comes before it.
fn resealed(body: &str, end: &str) -> String {
    use sha2::Digest;
    let digest: [u8; 32] = sha2::Sha256::digest(body).into();
    format!(
        "{body}{}\n",
        end.replace("{}", &AuditHead { entry: 0, mac: crate::store::AuditMac::from_bytes(digest) }.to_string()[2..])
    )
}

#[test]
fn what_is_written_reads_back() {
    for seal in [AuditSeal::default(), seal("one", 1)] {
        let file = write(archive(), &seal);
        let read = read(&file, &seal, Proof::Sealed).unwrap();
        assert_eq!(read, Archive { digest: read.digest.clone(), ..archive() });
        assert_eq!(read.digest.len(), 64);
        assert_eq!(file.lines().count(), 1 + 1 + 2 + 2 + 1 + 1);
    }
}

#[test]
fn a_file_that_was_cut_off_is_never_taken_for_a_whole_one() {
    let file = write(archive(), &AuditSeal::default());
    for len in 0..file.len() {
        let said = refused(&file[..len], &AuditSeal::default());
        let cut = if file[..len].contains('\n') { "cut off" } else { "no backup" };
        assert!(said.contains(cut), "{len}: {said}");
    }
}

#[test]
fn a_file_in_which_a_byte_was_changed_is_refused() {
    let (seal, file) = (seal("one", 1), write(archive(), &seal("one", 1)));
    for at in 0..file.len() {
        let mut bytes = file.clone().into_bytes();
        bytes[at] ^= 1;
        assert!(read_archive(&mut &*bytes, &seal, Proof::Sealed).is_err(), "byte {at}");
    }
}

#[test]
fn what_is_no_backup_is_called_so() {
    for file in [
        "",
        "\n",
        "{}\n",
        "[]\n",
        "SQLite format 3\0\n",
        "{\"name\":\"a\",\"key\":\"b\"}\n",
        "{\"portcullis_backup\":1}\n",
    ] {
        assert!(refused(file, &AuditSeal::default()).contains("store backup"), "{file:?}");
    }
}

#[test]
fn a_newer_form_is_named_with_the_version_that_made_it() {
    let file = "{\"portcullis_backup\":{\"format\":2,\"made_by\":\"9.8.7\",\"later\":true}}\n";
    let said = refused(file, &AuditSeal::default());
    for word in ["9.8.7", "form 2", "install a newer"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn a_seal_is_asked_for_where_peppers_are_configured() {
    let (plain, sealed) = (write(archive(), &AuditSeal::default()), write(archive(), &seal("one", 1)));
    assert!(refused(&plain, &seal("one", 1)).contains("no seal"));
    assert!(refused(&sealed, &seal("one", 2)).contains("pepper `one`"));
    assert!(refused(&sealed, &seal("two", 1)).contains("pepper `one`"));
    assert!(refused(&sealed, &AuditSeal::default()).contains("pepper `one`"));
    for (file, seal) in [(&plain, seal("one", 1)), (&sealed, seal("two", 1))] {
        assert!(read(file, &seal, Proof::Taken).is_ok());
    }
    // The digest is looked at nevertheless.
    let changed = plain.replacen("key 1", "key 7", 1);
    assert!(matches!(read(&changed, &AuditSeal::default(), Proof::Taken), Err(NotRead::Changed)));
    // A seal that was taken off is missed, and one that was copied to other content does not fit.
    let (body, end) = sealed.trim_end().rsplit_once('\n').map(|(body, end)| (format!("{body}\n"), end)).unwrap();
    let (_, mac) = end.split_once("\"mac\":\"").unwrap();
    let bare = r#"{"end":{"owners":1,"keys":2,"entries":2,"quotas":1,"sha256":"{}","pepper":null,"mac":null}}"#;
    assert!(refused(&resealed(&body, bare), &seal("one", 1)).contains("no seal"));
    let copied = bare.replace(r#""pepper":null,"mac":null"#, &format!(r#""pepper":"one","mac":"{}""#, &mac[..64]));
    assert!(read(&resealed(&body, &copied), &seal("one", 1), Proof::Sealed).is_ok());
    let more = body.replacen("key 1", "key 7", 1);
    assert!(refused(&resealed(&more, &copied), &seal("one", 1)).contains("does not fit"));
}

#[test]
fn lines_that_do_not_fit_together_are_told_by_number() {
    let file = write(archive(), &AuditSeal::default());
    let lines: Vec<&str> = file.lines().collect();
    let with = |order: &[usize]| -> String { order.iter().map(|number| format!("{}\n", lines[*number])).collect() };
    for (file, line, word) in [
        (with(&[0, 1, 1]), 3, "owner with its id"),
        (with(&[0, 2]), 2, "owner does not come before"),
        (with(&[0, 1, 2, 2]), 4, "its id or its hash"),
        (with(&[0, 4, 4]), 3, "number"),
        (with(&[0, 0]), 2, "portcullis_backup"),
        (file.clone() + "{}\n", 9, "behind the last line"),
        (with(&[0, 1]).replace("\"suspended\":false", "\"suspended\":false,\"colour\":1"), 2, "colour"),
        (with(&[0, 1, 2]).replace("\"hash\":\"", "\"hash\":\"z"), 3, "64 hexadecimal digits"),
        (with(&[0]).replace("\"revision\":9", "\"revision\":18446744073709551615"), 1, "out of bounds"),
    ] {
        let said = refused(&file, &AuditSeal::default());
        assert!(said.contains(&format!("line {line}: ")) && said.contains(word), "{word}: {said}");
    }
    // Lines that were left out, with a last line that fits the rest.
    let end = r#"{"end":{"owners":1,"keys":2,"entries":2,"quotas":1,"sha256":"{}","pepper":null,"mac":null}}"#;
    assert!(matches!(
        read(&resealed(&with(&[0, 1, 2, 4, 5, 6]), end), &AuditSeal::default(), Proof::Sealed),
        Err(NotRead::Changed)
    ));
}

#[test]
fn no_key_and_no_hash_stands_in_what_is_said_of_a_restoration() {
    let restoration = Restoration { archive: archive(), replace: true };
    let said = format!("{restoration:?}");
    assert!(!said.contains("key 1"), "{said}");
}
