//! The secrets a test has used, so that every instrument can look for them where they must not be.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// How many bytes at its end a secret is looked for by: what keys have in common stands at their beginning.
const END: usize = 8;

/// A shared list of secret texts.
#[derive(Clone, Default)]
pub struct Vault {
    secrets: Arc<RwLock<Secrets>>,
}

/// Tests may have ten thousands of them, and look for all in every answer: one pass finds whichever there is.
#[derive(Default)]
struct Secrets {
    by_end: HashMap<u64, Vec<String>>,
    /// By the last two bytes, whether any ends so; empty while there is none at all.
    ends: Vec<bool>,
}

impl Secrets {
    /// Those whose last bytes these are.
    fn ending_with(&self, last: u64) -> &[String] {
        let may = self.ends.get(usize::from(two_of(last))).is_some_and(|may| *may);
        if may { self.by_end.get(&last).map_or(&[], Vec::as_slice) } else { &[] }
    }
}

/// The last two bytes.
fn two_of(last: u64) -> u16 {
    u16::try_from(last >> 48).expect("16 bits are left")
}

impl Vault {
    /// From now on `secret` must not be seen anywhere it does not belong.
    pub fn keep(&self, secret: &str) {
        let bytes = secret.as_bytes();
        let end = bytes.last_chunk::<END>().unwrap_or_else(|| {
            panic!("a secret of {} characters would be found by accident", secret.len());
        });
        let last = u64::from_le_bytes(*end);
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.ends.resize(1 << 16, false);
        secrets.ends[usize::from(two_of(last))] = true;
        let alike = secrets.by_end.entry(last).or_default();
        if !alike.iter().any(|known| known == secret) {
            alike.push(secret.to_owned());
        }
    }

    /// The first secret that occurs in `haystack`, shortened so that a report does not repeat it.
    pub fn find_in(&self, haystack: &[u8]) -> Option<String> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        let mut last = 0_u64;
        for (at, byte) in haystack.iter().enumerate() {
            last = last >> 8 | u64::from(*byte) << 56;
            let found = secrets.ending_with(last).iter().find(|secret| haystack[..=at].ends_with(secret.as_bytes()));
            if let Some(secret) = found {
                let shown: String = secret.chars().take(14).collect();
                return Some(format!("{shown}…"));
            }
        }
        None
    }

    /// Every file below `directory` in which a secret occurs, with the secret.
    pub fn find_below(&self, directory: &Path) -> Vec<String> {
        let mut hits = Vec::new();
        let mut open = vec![directory.to_owned()];
        while let Some(next) = open.pop() {
            let Ok(entries) = std::fs::read_dir(&next) else { continue };
            for entry in entries.flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(entry.path()),
                    Ok(kind) if kind.is_file() => {
                        if let Some(secret) = std::fs::read(entry.path()).ok().and_then(|bytes| self.find_in(&bytes)) {
                            hits.push(format!("{secret} in {}", entry.path().display()));
                        }
                    }
                    _ => {}
                }
            }
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_bytes_and_in_files_and_not_repeated_in_the_report() {
        let vault = Vault::default();
        vault.keep("pc_live_sk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        assert_eq!(vault.find_in(b"nothing here"), None);
        let hit = vault.find_in(b"\0\0Bearer pc_live_sk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").unwrap();
        assert!(hit.len() < 20, "{hit}");

        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("deep")).unwrap();
        std::fs::write(dir.path().join("deep/x.db-wal"), b"..pc_live_sk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..").unwrap();
        assert_eq!(vault.find_below(dir.path()).len(), 1);
    }

    #[test]
    fn secrets_that_end_alike_are_told_apart() {
        let vault = Vault::default();
        let secrets = ["aaaa-same-end", "bbbb-same-end", "same-end"];
        secrets.iter().for_each(|secret| vault.keep(secret));
        vault.keep("another1");
        for (text, found) in
            [("xbbbb-same-end", "bbbb-same-end…"), ("a\0same-end", "same-end…"), ("another1x", "another1…")]
        {
            assert_eq!(vault.find_in(text.as_bytes()).as_deref(), Some(found), "{text}");
        }
        vault.keep("aaaaaaaab");
        assert!(vault.find_in(b"aaaaaaaaaab").is_some());
        assert_eq!(vault.find_in(b"another2, anothe, nother1, aaaaaaab"), None);
    }
}
