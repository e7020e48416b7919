//! Keys to verify tokens with.
//!
//! Owns which algorithms a key is for; a token's header has no say in that. Where keys come from is `source`'s and `issuer`'s.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

/// The shortest secret, in bytes: what HS256 gives for brute force to try.
pub(super) const SHORTEST_SECRET: usize = 32;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// Tells keys apart within this process: the same key has the same id each time it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(u64);

impl KeyId {
    fn of(key: &DecodingKey) -> Self {
        // Keyed anew by each process, so that it says nothing about the key.
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let family = std::mem::discriminant(&key.family());
        let id = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => HASHER.hash_one((family, bytes)),
            DecodingKeyKind::RsaModulusExponent { n, e } => HASHER.hash_one((family, n, e)),
        };
        Self(id)
    }
}

/// A key, and the algorithms it is for.
#[derive(Debug, Clone)]
pub struct Key {
    id: KeyId,
    /// As its set calls it.
    kid: Option<String>,
    decoding: DecodingKey,
    algorithms: &'static [Algorithm],
}

impl Key {
    fn new(decoding: DecodingKey, algorithms: &'static [Algorithm]) -> Self {
        Self { id: KeyId::of(&decoding), kid: None, decoding, algorithms }
    }

    /// A secret shared with the issuer.
    pub(super) fn from_secret(secret: &[u8]) -> Self {
        Self::new(DecodingKey::from_secret(secret), HMAC)
    }

    /// The issuer's public key.
    pub(super) fn from_pem(pem: &str) -> Result<Self, &'static str> {
        if pem.contains("PRIVATE KEY-----") {
            return Err("this is a private key; give the public half: openssl pkey -in key.pem -pubout");
        }
        if pem.contains("BEGIN CERTIFICATE") {
            return Err("this is a certificate; give its key: openssl x509 -in cert.pem -noout -pubkey");
        }
        if pem.contains("BEGIN RSA PUBLIC KEY") {
            return rsa_pem(pem);
        }
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "there is no -----BEGIN PUBLIC KEY----- in it")?;
        of_kind(pem, &key)
    }

    /// One of a key set. Secrets are taken only where nobody else can read the set.
    fn from_jwk(value: Value, secrets: bool) -> Result<Self, &'static str> {
        if value.get("d").is_some() {
            return Err("it is a private key");
        }
        let jwk = Jwk::deserialize(value).map_err(|_| "it is damaged")?;
        let common = &jwk.common;
        let another_use = common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature);
        let another_operation =
            common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify));
        if another_use || another_operation {
            return Err("it is for another use");
        }
        let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| "it is of another kind, or damaged")?;
        let bytes = decoding.try_get_as_bytes().map_or(0, <[u8]>::len);
        let algorithms = match (&jwk.algorithm, bytes) {
            (AlgorithmParameters::RSA(_), _) if is_strong_rsa(&decoding) => RSA,
            (AlgorithmParameters::EllipticCurve(key), 65) if key.curve == EllipticCurve::P256 => P256,
            (AlgorithmParameters::EllipticCurve(key), 97) if key.curve == EllipticCurve::P384 => P384,
            (AlgorithmParameters::OctetKeyPair(key), 32) if key.curve == EllipticCurve::Ed25519 => ED25519,
            (AlgorithmParameters::OctetKey(_), SHORTEST_SECRET..) if secrets => HMAC,
            _ => return Err("it is of another kind or length"),
        };
        let algorithms = match common.key_algorithm {
            None => Some(algorithms),
            Some(only) => {
                let index = algorithms.iter().position(|algorithm| Algorithm::try_from(only) == Ok(*algorithm));
                index.and_then(|index| algorithms.get(index..=index))
            }
        };
        let algorithms = algorithms.ok_or("it is for another algorithm")?;
        Ok(Self { kid: jwk.common.key_id, ..Self::new(decoding, algorithms) })
    }

    /// Tells it from others.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
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

/// The keys in force at one time.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    /// When they are too old to be used; absent: never.
    until: Option<Instant>,
}

impl KeySet {
    pub(super) fn new(keys: Vec<Key>, until: Option<Instant>) -> Self {
        Self { keys, until }
    }

    /// The one key that verifies a token with this header: the one it names, or, if it or the keys have no names, the only one for its algorithm.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let fits = |key: &&Key| key.algorithms.contains(&algorithm);
        let mut named = self.keys.iter().filter(|key| kid.is_some() && key.kid.as_deref() == kid);
        if let Some(key) = named.clone().find(fits).or_else(|| named.next()) {
            return Some(key);
        }
        let mut unnamed = self.keys.iter().filter(|key| kid.is_none() || key.kid.is_none()).filter(fits);
        match (unnamed.next(), unnamed.next(), self.keys.as_slice()) {
            (Some(only), None, _) => Some(only),
            (None, _, [only]) if only.kid.is_none() => Some(only), // the one configured: said to be the wrong one, rather than unknown
            _ => None,
        }
    }

    /// Whether tokens can be verified with them.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.keys.is_empty() && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// Whether a key is among them.
    #[must_use]
    pub fn has(&self, id: KeyId) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Whether the other has the same keys, under the same names and for the same algorithms.
    pub(super) fn is(&self, other: &Self) -> bool {
        let same = |(one, two): (&Key, &Key)| (one.id, &one.kid, one.algorithms) == (two.id, &two.kid, two.algorithms);
        self.keys.len() == other.keys.len() && self.keys.iter().zip(&other.keys).all(same)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(Key::id)
    }
}

/// The keys in a JSON Web Key Set (RFC 7517). What is no key of ours is passed over, as that asks; secrets, where others can read the set.
pub(super) fn from_jwks(text: &[u8], secrets: bool) -> Result<Vec<Key>, &'static str> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|_| "it is not JSON with a list `keys`")?;
    let keys = set.keys.into_iter().map(|key| Key::from_jwk(key, secrets));
    let keys: Vec<_> = keys
        .filter_map(|key| key.inspect_err(|problem| tracing::debug!(problem, "a key of the set is not used")).ok())
        .collect();
    if keys.is_empty() { Err("none of its keys can be used") } else { Ok(keys) }
}

/// Chooses by the object identifiers that begin every public key.
fn of_kind(pem: &str, der: &[u8]) -> Result<Key, &'static str> {
    const RSA_OID: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    let start = der.get(..32.min(der.len())).unwrap_or_default();
    let is = |kind: &[u8]| start.windows(kind.len()).any(|window| window == kind);
    let (decoding, algorithms) = if is(RSA_OID) {
        return rsa_pem(pem);
    } else if is(P256_OID) {
        (DecodingKey::from_ec_pem(pem.as_bytes()), P256)
    } else if is(P384_OID) {
        (DecodingKey::from_ec_pem(pem.as_bytes()), P384)
    } else if is(ED25519_OID) {
        (DecodingKey::from_ed_pem(pem.as_bytes()), ED25519)
    } else {
        return Err("it is of another kind");
    };
    Ok(Key::new(decoding.map_err(|_| "it is damaged")?, algorithms))
}

fn rsa_pem(pem: &str) -> Result<Key, &'static str> {
    let decoding = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| "it is damaged")?;
    if !is_strong_rsa(&decoding) {
        return Err("the RSA key is too short or too long");
    }
    Ok(Key::new(decoding, RSA))
}

/// Whether the modulus has 2048 to 8192 bits.
fn is_strong_rsa(key: &DecodingKey) -> bool {
    let bytes = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.iter().skip_while(|byte| **byte == 0).count(),
        DecodingKeyKind::SecretOrDer(der) => modulus_bytes(der),
    };
    (256..=1024).contains(&bytes)
}

/// The length of an RSA public key's modulus; 0 for one so short that its length is written in another form.
fn modulus_bytes(der: &[u8]) -> usize {
    match der {
        [0x30, 0x82, _, _, 0x02, 0x82, high, low, 0x00, ..] => usize::from(u16::from_be_bytes([*high, *low])) - 1,
        _ => 0,
    }
}
