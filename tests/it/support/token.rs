//! Issuers' keys, and tokens signed with them: good ones, and whatever else a test needs.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto, get_current_timestamp, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};

/// A secret that is long enough.
pub const SECRET: &str = "an example secret of more than 32 bytes";
pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "chat";

/// One key of an issuer.
pub struct Signer {
    pub algorithm: Algorithm,
    /// Its name in a set.
    pub kid: String,
    key: EncodingKey,
    /// The public half; of a secret, itself.
    pub jwk: Value,
    /// The public half; empty for a secret.
    pub pem: String,
}

impl Signer {
    /// [`SECRET`], for one of the HS algorithms.
    pub fn secret(algorithm: Algorithm) -> Self {
        let public = DecodingKey::from_secret(SECRET.as_bytes());
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        Self { algorithm, kid: "secret".into(), key, jwk: jwk(&public, "secret"), pem: String::new() }
    }

    /// A new pair for a public-key algorithm.
    pub fn pair(algorithm: Algorithm, kid: &str) -> Self {
        let kind = match algorithm {
            Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::ES384 => &PKCS_ECDSA_P384_SHA384,
            Algorithm::EdDSA => &PKCS_ED25519,
            _ => &PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).expect("a pair");
        let (private, pem) = (pair.serialize_pem(), pair.public_key_pem());
        let (key, public) = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                (EncodingKey::from_ec_pem(private.as_bytes()), DecodingKey::from_ec_pem(pem.as_bytes()))
            }
            Algorithm::EdDSA => {
                (EncodingKey::from_ed_pem(private.as_bytes()), DecodingKey::from_ed_pem(pem.as_bytes()))
            }
            _ => (EncodingKey::from_rsa_pem(private.as_bytes()), DecodingKey::from_rsa_pem(pem.as_bytes())),
        };
        let jwk = jwk(&public.expect("a public key"), kid);
        Self { algorithm, kid: kid.to_owned(), key: key.expect("a private key"), jwk, pem }
    }

    /// A token that ends in so many seconds, or did; `chat` is what it says of rooms.
    pub fn timed(&self, sub: &str, seconds: i64, chat: Value) -> String {
        let mut claims = claims(sub);
        let now = claims["iat"].as_i64().expect("a number");
        claims["iat"] = json!(now.min(now + seconds - 1));
        claims["exp"] = json!(now + seconds);
        claims["chat"] = chat;
        self.token(&claims)
    }

    /// The same key, used for another algorithm.
    pub fn with(&self, algorithm: Algorithm) -> Self {
        let Self { kid, key, jwk, pem, .. } = self;
        Self { algorithm, kid: kid.clone(), key: key.clone(), jwk: jwk.clone(), pem: pem.clone() }
    }

    /// The same key under another name.
    pub fn named(&self, kid: &str) -> Self {
        Self { kid: kid.to_owned(), ..self.with(self.algorithm) }
    }

    /// The header of a good token.
    pub fn header(&self) -> Value {
        json!({ "alg": self.algorithm, "typ": "JWT", "kid": self.kid })
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    /// A token with these changes to the usual claims; `null` takes one away.
    pub fn changed(&self, changes: &Value) -> String {
        self.token(&changed(&claims("alice"), changes))
    }

    /// Signs whatever is given.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).expect("a signature");
        format!("{message}.{signature}")
    }
}

/// The claims of a good token.
pub fn claims(sub: &str) -> Value {
    let now = get_current_timestamp();
    json!({ "sub": sub, "iat": now, "exp": now + 600, "iss": ISSUER, "aud": AUDIENCE })
}

/// An object with these members instead; `null` takes one away.
pub fn changed(object: &Value, changes: &Value) -> Value {
    let mut object = object.clone();
    for (name, value) in changes.as_object().expect("an object") {
        object[name] = value.clone();
    }
    object.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    object
}

pub fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|digit| char::from(DIGITS[bits >> (18 - 6 * digit) & 63])));
    }
    text
}

fn jwk(key: &DecodingKey, kid: &str) -> Value {
    let jwk = serde_json::to_value(Jwk::from_decoding_key(key, None).expect("a JWK")).expect("JSON");
    changed(&jwk, &json!({ "kid": kid, "use": "sig" }))
}
