//! Where keys are configured: exactly one of a secret, a PEM text, a key set and the issuer's address.

use std::path::Path;

use super::key::{self, Key, SHORTEST_SECRET};
use crate::config::Auth;

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Auth is on, and nothing says whose tokens count.
    #[error(
        "one of auth.secret, auth.secret_file, auth.public_key, auth.public_key_file, auth.jwks_file and auth.jwks_url, since auth.enabled is true"
    )]
    NoSource,
    /// More than one source.
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
    /// Not a key set that we verify with.
    #[error("a JSON Web Key Set with public keys, or secrets of {SHORTEST_SECRET} bytes: {problem}")]
    NotAKeySet {
        /// The key that names the file.
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
            Self::Unreadable { key, .. }
            | Self::TooShort { key, .. }
            | Self::NotAPublicKey { key, .. }
            | Self::NotAKeySet { key, .. } => key,
        }
    }
}

/// Loads the keys that are configured; `None`: the issuer has them.
///
/// # Errors
/// When there is not exactly one source, or it cannot be used.
pub fn load_keys(auth: &Auth) -> Result<Option<Vec<Key>>, KeyError> {
    let source = source(auth)?;
    let key = source.key;
    let keys = match source.kind {
        Kind::Secret => vec![Key::from_secret(&source.secret()?)],
        Kind::Public => {
            let pem = String::from_utf8_lossy(&source.bytes()?).replace("\\n", "\n"); // as one-line variables write line ends
            vec![Key::from_pem(&pem).map_err(|problem| KeyError::NotAPublicKey { key, problem })?]
        }
        Kind::Set => key::from_jwks(&source.bytes()?, true).map_err(|problem| KeyError::NotAKeySet { key, problem })?,
        Kind::Issuer => return Ok(None),
    };
    Ok(Some(keys))
}

/// The shared secret, if that is what is configured.
pub(super) fn secret(auth: &Auth) -> Result<Option<Vec<u8>>, KeyError> {
    let source = source(auth)?;
    (source.kind == Kind::Secret).then(|| source.secret()).transpose()
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
    Set,
    Issuer,
}

enum Place<'a> {
    Inline(&'a str),
    File(&'a Path),
}

fn source(auth: &Auth) -> Result<Source<'_>, KeyError> {
    let secret = auth.secret.as_ref().map(|secret| Place::Inline(secret.expose()));
    let sources = [
        ("auth.secret", Kind::Secret, secret),
        ("auth.secret_file", Kind::Secret, auth.secret_file.as_deref().map(Place::File)),
        ("auth.public_key", Kind::Public, auth.public_key.as_deref().map(Place::Inline)),
        ("auth.public_key_file", Kind::Public, auth.public_key_file.as_deref().map(Place::File)),
        ("auth.jwks_file", Kind::Set, auth.jwks_file.as_deref().map(Place::File)),
        ("auth.jwks_url", Kind::Issuer, auth.jwks_url.as_deref().map(Place::Inline)),
    ];
    let set = sources.into_iter().filter_map(|(key, kind, place)| Some(Source { key, kind, place: place? }));
    let mut set: Vec<_> = set.collect();
    match (set.pop(), set.is_empty()) {
        (None, _) => Err(KeyError::NoSource),
        (Some(only), true) => Ok(only),
        (Some(last), false) => Err(KeyError::ManySources(set.iter().chain([&last]).map(|source| source.key).collect())),
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
