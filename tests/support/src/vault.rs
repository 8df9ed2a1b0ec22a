//! The secrets a test has used, so that every instrument can look for them where they must not be.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// A shared list of secret texts.
#[derive(Clone, Default)]
pub struct Vault {
    secrets: Arc<RwLock<Vec<String>>>,
}

impl Vault {
    /// From now on `secret` must not be seen anywhere it does not belong.
    pub fn keep(&self, secret: &str) {
        assert!(secret.len() >= 8, "a secret of {} characters would be found by accident", secret.len());
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        if !secrets.iter().any(|known| known == secret) {
            secrets.push(secret.to_owned());
        }
    }

    /// The first secret that occurs in `haystack`, shortened so that a report does not repeat it.
    pub fn find_in(&self, haystack: &[u8]) -> Option<String> {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().find(|secret| contains(haystack, secret.as_bytes())).map(|secret| {
            let shown: String = secret.chars().take(14).collect();
            format!("{shown}…")
        })
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

/// Whether `needle` occurs in `haystack`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((&first, rest)) = needle.split_first() else { return true };
    let mut from = 0;
    while let Some(offset) = haystack[from..].iter().position(|&byte| byte == first) {
        let start = from + offset + 1;
        if haystack[start..].starts_with(rest) {
            return true;
        }
        from = start;
    }
    false
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
    fn a_needle_whose_first_bytes_repeat_is_found() {
        assert!(contains(b"aaab", b"aab"));
        assert!(!contains(b"aaa", b"aab"));
    }
}
