//! Certificates, keys and authorities on disk.
//!
//! Owns reading PEM files within bounds and saying what is wrong with them. Must not know which side of a connection
//! they are for. The contents of a key file never reach an error.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::settings::CertificateFiles;

/// Largest file read; the bundle of a whole operating system has a quarter of that.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The one source of cryptography, chosen here so that no process-wide default is needed.
///
/// AES with 128-bit keys comes first: its handshakes hash with SHA-256, for which processors have instructions, and not
/// with SHA-384, which took a sixth of a handshake's time; and 128 bits are out of reach (RFC 8446 §9.1 has it as the one
/// that everybody must speak). The order within each kind stays the library's.
pub(crate) fn crypto() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let name = suite.suite().as_str().unwrap_or_default();
        let cost = match () {
            () if name.contains("AES_128") => 0,
            () if name.contains("CHACHA20") => 1,
            () => 2,
        };
        (suite.tls13().is_none(), cost)
    });
    Arc::new(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_must_speak_comes_first_in_every_version_and_nothing_is_lost() {
        let names: Vec<_> = crypto().cipher_suites.iter().map(|suite| suite.suite().as_str().unwrap()).collect();
        assert_eq!(names[0], "TLS13_AES_128_GCM_SHA256");
        let ranks: Vec<_> = names
            .iter()
            .map(|name| (!name.starts_with("TLS13_"), name.contains("AES_256"), !name.contains("AES_128")))
            .collect();
        assert!(ranks.is_sorted(), "{names:?}");
        assert_eq!(names.len(), aws_lc_rs::default_provider().cipher_suites.len());
    }
}

/// Why TLS cannot be set up from the files named.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is far larger than what it should hold.
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// A file is damaged PEM.
    Damaged {
        /// The file.
        file: PathBuf,
    },
    /// A file holds no certificate.
    NoCertificate {
        /// The file.
        file: PathBuf,
    },
    /// A file holds no private key that can be used as it is.
    NoKey {
        /// The file.
        file: PathBuf,
        /// Whether it holds one that is encrypted.
        is_encrypted: bool,
    },
    /// A certificate is no X.509 certificate that can be used.
    BadCertificate {
        /// The file.
        file: PathBuf,
    },
    /// A key is of a kind or size that is not supported.
    BadKey {
        /// The file.
        file: PathBuf,
    },
    /// A key is not the one its certificate was made for.
    WrongKey {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A `tls` entry has no certificate.
    NoCertificates {
        /// The entry's name.
        name: String,
    },
    /// The host system has no certificate authorities.
    NoSystemAuthorities {
        /// What the verifier says.
        source: rustls::Error,
    },
    /// A name cannot be the name of a server.
    BadServerName {
        /// The name.
        name: String,
    },
    /// The pieces are fine and cannot be put together.
    Refused {
        /// What the TLS library says.
        reason: String,
    },
}

impl TlsError {
    /// Whether another user might find nothing wrong.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether it is this file that is at fault.
    pub(crate) fn is_about(&self, path: &Path) -> bool {
        match self {
            Self::Unreadable { file, .. }
            | Self::TooLarge { file }
            | Self::Damaged { file }
            | Self::NoCertificate { file }
            | Self::NoKey { file, .. }
            | Self::BadCertificate { file }
            | Self::BadKey { file }
            | Self::WrongKey { key: file, .. } => file == path,
            Self::NoCertificates { .. }
            | Self::NoSystemAuthorities { .. }
            | Self::BadServerName { .. }
            | Self::Refused { .. } => false,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, source } => write!(
                f,
                "cannot read {} ({source}): check the path and that the gateway's user may read it",
                file.display()
            ),
            Self::TooLarge { file } => {
                write!(f, "{} is larger than 1 MiB: name a PEM file with certificates or a key only", file.display())
            }
            Self::Damaged { file } => {
                write!(f, "{} is damaged PEM: a BEGIN or END line or the base64 between them is wrong", file.display())
            }
            Self::NoCertificate { file } => {
                write!(f, "{} holds no certificate: a PEM file with BEGIN CERTIFICATE is needed", file.display())
            }
            Self::NoKey { file, is_encrypted: true } => write!(
                f,
                "the private key in {} is encrypted: decrypt it with `openssl pkey -in FILE -out FILE`, mode 0600",
                file.display()
            ),
            Self::NoKey { file, is_encrypted: false } => write!(
                f,
                "{} holds no private key: a PEM file with BEGIN PRIVATE KEY (PKCS#8, PKCS#1 or SEC1) is needed",
                file.display()
            ),
            Self::BadCertificate { file } => {
                write!(
                    f,
                    "a certificate in {} is not a valid X.509 version 3 certificate: export it again",
                    file.display()
                )
            }
            Self::BadKey { file } => write!(
                f,
                "the private key in {} is not supported: use RSA of 2048 to 8192 bits, ECDSA P-256, P-384, P-521 or Ed25519",
                file.display()
            ),
            Self::WrongKey { cert, key } => write!(
                f,
                "the key {} does not belong to the certificate {}: name the pair that was issued together, and put the \
                 server's certificate first in its file",
                key.display(),
                cert.display()
            ),
            Self::NoCertificates { name } => {
                write!(f, "tls.{name} has no certificate: add `certificates: [{{ cert: FILE, key: FILE }}]`")
            }
            Self::NoSystemAuthorities { source } => write!(
                f,
                "the host system has no usable certificate authorities ({source}): install the package \
                 `ca-certificates`, or name a file in `tls.ca` of the upstream"
            ),
            Self::BadServerName { name } => {
                write!(f, "{name:?} is not the name of a server: use a DNS name or an IP address without a port")
            }
            Self::Refused { reason } => write!(f, "TLS cannot be set up: {reason}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::NoSystemAuthorities { source } => Some(source),
            Self::TooLarge { .. }
            | Self::Damaged { .. }
            | Self::NoCertificate { .. }
            | Self::NoKey { .. }
            | Self::BadCertificate { .. }
            | Self::BadKey { .. }
            | Self::WrongKey { .. }
            | Self::NoCertificates { .. }
            | Self::BadServerName { .. }
            | Self::Refused { .. } => None,
        }
    }
}

/// The certificates of `file`, in its order; at least one.
pub(crate) fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, PemError>>()
        .map_err(|_| TlsError::Damaged { file: file.to_owned() })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { file: file.to_owned() });
    }
    Ok(certificates)
}

/// The first private key of `file`.
fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = zeroize::Zeroizing::new(read(file)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        PemError::NoItemsFound => {
            TlsError::NoKey { file: file.to_owned(), is_encrypted: memchr::memmem::find(&pem, b"ENCRYPTED").is_some() }
        }
        _ => TlsError::Damaged { file: file.to_owned() },
    })
}

/// The certificate chain and the key of `files`, which belong together.
pub(crate) fn read_pair(files: &CertificateFiles, crypto: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(&files.cert)?;
    let key = read_key(&files.key)?;
    let key = crypto.key_provider.load_private_key(key).map_err(|_| TlsError::BadKey { file: files.key.clone() })?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        // Keys that cannot tell their public half are believed.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::WrongKey { cert: files.cert.clone(), key: files.key.clone() })
        }
        Err(_) => Err(TlsError::BadCertificate { file: files.cert.clone() }),
    }
}

/// Why a certificate and its key cannot be used, for whoever looks before they leap.
pub(crate) fn pair_fault(files: &CertificateFiles) -> Option<TlsError> {
    read_pair(files, &crypto()).err()
}

/// As [`pair_fault`], for a file of certificate authorities.
pub(crate) fn authorities_fault(file: &Path) -> Option<TlsError> {
    read_authorities(file).err()
}

/// The certificate authorities of `file`, every one of them usable.
pub(crate) fn read_authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        store.add(certificate).map_err(|_| TlsError::BadCertificate { file: file.to_owned() })?;
    }
    Ok(store)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { file: file.to_owned(), source };
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge { file: file.to_owned() });
    }
    Ok(bytes)
}
