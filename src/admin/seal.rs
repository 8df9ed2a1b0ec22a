//! Answers kept for repetition, sealed so that only who asked can read them: the key to them is made from the caller's
//! own credential, which nobody keeps (AES-256-GCM, NIST SP 800-38D).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::domain::PresentedKey;

/// What this key is for, and nothing else.
const PURPOSE: &str = "portcullis: answers kept for repetition";

/// Seals and opens the answers of one caller.
pub(super) struct Seal(LessSafeKey);

impl Seal {
    /// That of whoever presented this credential. `None` when the library refuses the key, which it does not.
    pub(super) fn of(credential: &PresentedKey<'_>) -> Option<Self> {
        let key = credential.derive(PURPOSE);
        UnboundKey::new(&AES_256_GCM, &*key).ok().map(LessSafeKey::new).map(Self)
    }

    /// Seals `plain` under the name it is kept by. `None` when the operating system gives no random bytes.
    pub(super) fn close(&self, name: &[u8; 32], plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = nonce.to_vec();
        let mut body = plain.to_vec();
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut body).ok()?;
        sealed.append(&mut body);
        Some(sealed)
    }

    /// What was sealed under this name; `None` when it was not, or by somebody else.
    pub(super) fn open(&self, name: &[u8; 32], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_sealed_it_opens_it_and_only_under_its_name() {
        let seal = |text| Seal::of(&PresentedKey::new(text).unwrap()).unwrap();
        let sealed = seal("caller").close(&[1; 32], b"pc_live_sk_secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(seal("caller").open(&[1; 32], &sealed).unwrap().as_slice(), b"pc_live_sk_secret");
        assert!(seal("other").open(&[1; 32], &sealed).is_none());
        assert!(seal("caller").open(&[2; 32], &sealed).is_none());
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(seal("caller").open(&[1; 32], &changed).is_none());
        assert!(seal("caller").open(&[1; 32], &sealed[..5]).is_none());
    }
}
