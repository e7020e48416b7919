//! Keys: from a secret or a PEM text, given directly or as a file.
//!
//! Owns which algorithms a key is for; a token's header has no say in that.

use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use crate::config::Auth;

/// The shortest secret: what HS256 gives for brute force to try.
const SHORTEST_SECRET: usize = 32;

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Auth is on, and nothing says whose tokens count.
    #[error(
        "one of auth.secret, auth.secret_file, auth.public_key and auth.public_key_file, since auth.enabled is true"
    )]
    NoSource,
    /// More than one key.
    #[error("one key only, but {} are set", .0.join(" and "))]
    ManySources(Vec<&'static str>),
    /// The file is not there, or not for us.
    #[error("a file that can be read: {error}")]
    Unreadable {
        /// The key that names the file.
        key: &'static str,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A secret that can be guessed.
    #[error("a secret of at least {SHORTEST_SECRET} bytes, not {length}; make one with: openssl rand -hex 32")]
    TooShort {
        /// The key that holds or names the secret.
        key: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// Not a public key that we verify with.
    #[error("a public key in PEM form (RSA of 2048 to 8192 bits, EC P-256 or P-384, or Ed25519): {problem}")]
    NotAPublicKey {
        /// The key that holds or names the PEM text.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl KeyError {
    /// The configuration key to change.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::NoSource => "auth.secret",
            Self::ManySources(keys) => keys.last().copied().unwrap_or("auth.secret"),
            Self::Unreadable { key, .. } | Self::TooShort { key, .. } | Self::NotAPublicKey { key, .. } => key,
        }
    }
}

/// A key to verify with, and the algorithms it is for.
#[derive(Debug, Clone)]
pub struct Key {
    decoding: DecodingKey,
    algorithms: &'static [Algorithm],
}

/// The one source that is set.
struct Source<'a> {
    /// The configuration key.
    key: &'static str,
    kind: Kind,
    place: Place<'a>,
}

#[derive(PartialEq, Eq)]
enum Kind {
    Secret,
    Public,
}

enum Place<'a> {
    Inline(&'a str),
    File(&'a Path),
}

impl Key {
    /// Loads the one key that is configured.
    ///
    /// # Errors
    /// When there is not exactly one, or it cannot be used.
    pub fn load(auth: &Auth) -> Result<Self, KeyError> {
        let source = source(auth)?;
        match source.kind {
            Kind::Secret => {
                let algorithms = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
                Ok(Self { decoding: DecodingKey::from_secret(&source.secret()?), algorithms })
            }
            Kind::Public => {
                let pem = String::from_utf8_lossy(&source.bytes()?).replace("\\n", "\n"); // as one-line variables write line ends
                public_key(&pem).map_err(|problem| KeyError::NotAPublicKey { key: source.key, problem })
            }
        }
    }

    /// The key as the verifier takes it.
    #[must_use]
    pub fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// The algorithms that tokens may be signed with.
    #[must_use]
    pub fn algorithms(&self) -> &'static [Algorithm] {
        self.algorithms
    }
}

impl Source<'_> {
    fn bytes(&self) -> Result<Vec<u8>, KeyError> {
        match self.place {
            Place::Inline(text) => Ok(text.as_bytes().to_vec()),
            Place::File(path) => std::fs::read(path).map_err(|error| KeyError::Unreadable { key: self.key, error }),
        }
    }

    fn secret(&self) -> Result<Vec<u8>, KeyError> {
        let mut secret = self.bytes()?;
        secret.truncate(secret.trim_ascii_end().len()); // editors and `echo` end a file with a line end
        if secret.len() < SHORTEST_SECRET {
            return Err(KeyError::TooShort { key: self.key, length: secret.len() });
        }
        Ok(secret)
    }
}

/// The shared secret, if that is what is configured.
pub(super) fn secret(auth: &Auth) -> Result<Option<Vec<u8>>, KeyError> {
    let source = source(auth)?;
    (source.kind == Kind::Secret).then(|| source.secret()).transpose()
}

fn source(auth: &Auth) -> Result<Source<'_>, KeyError> {
    let secret = auth.secret.as_ref().map(|secret| Place::Inline(secret.expose()));
    let sources = [
        ("auth.secret", Kind::Secret, secret),
        ("auth.secret_file", Kind::Secret, auth.secret_file.as_deref().map(Place::File)),
        ("auth.public_key", Kind::Public, auth.public_key.as_deref().map(Place::Inline)),
        ("auth.public_key_file", Kind::Public, auth.public_key_file.as_deref().map(Place::File)),
    ];
    let set = sources.into_iter().filter_map(|(key, kind, place)| Some(Source { key, kind, place: place? }));
    let mut set: Vec<_> = set.collect();
    match (set.pop(), set.is_empty()) {
        (None, _) => Err(KeyError::NoSource),
        (Some(only), true) => Ok(only),
        (Some(last), false) => Err(KeyError::ManySources(set.iter().chain([&last]).map(|source| source.key).collect())),
    }
}

fn public_key(pem: &str) -> Result<Key, &'static str> {
    if pem.contains("PRIVATE KEY-----") {
        return Err("this is a private key; give the public half: openssl pkey -in key.pem -pubout");
    }
    if pem.contains("BEGIN CERTIFICATE") {
        return Err("this is a certificate; give its key: openssl x509 -in cert.pem -noout -pubkey");
    }
    if pem.contains("BEGIN RSA PUBLIC KEY") {
        return rsa(pem);
    }
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| "there is no -----BEGIN PUBLIC KEY----- in it")?;
    of_kind(pem, &key)
}

/// Chooses by the object identifiers that begin every public key.
fn of_kind(pem: &str, der: &[u8]) -> Result<Key, &'static str> {
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    let start = der.get(..32.min(der.len())).unwrap_or_default();
    let is = |kind: &[u8]| start.windows(kind.len()).any(|window| window == kind);
    let (decoding, algorithms): (_, &'static [Algorithm]) = if is(RSA) {
        return rsa(pem);
    } else if is(P256) {
        (DecodingKey::from_ec_pem(pem.as_bytes()), &[Algorithm::ES256])
    } else if is(P384) {
        (DecodingKey::from_ec_pem(pem.as_bytes()), &[Algorithm::ES384])
    } else if is(ED25519) {
        (DecodingKey::from_ed_pem(pem.as_bytes()), &[Algorithm::EdDSA])
    } else {
        return Err("it is of another kind");
    };
    Ok(Key { decoding: decoding.map_err(|_| "it is damaged")?, algorithms })
}

fn rsa(pem: &str) -> Result<Key, &'static str> {
    let decoding = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| "it is damaged")?;
    let bytes = decoding.try_get_as_bytes().ok().and_then(modulus_bytes).ok_or("the RSA key is too short")?;
    if !(256..=1024).contains(&bytes) {
        return Err("the RSA key is too short or too long");
    }
    Ok(Key { decoding, algorithms: &[Algorithm::RS256, Algorithm::PS256] })
}

/// The length of an RSA public key's modulus; `None` for one so short that its length is written in another form.
fn modulus_bytes(der: &[u8]) -> Option<usize> {
    match der {
        [0x30, 0x82, _, _, 0x02, 0x82, high, low, 0x00, ..] => Some(usize::from(u16::from_be_bytes([*high, *low])) - 1),
        _ => None,
    }
}
