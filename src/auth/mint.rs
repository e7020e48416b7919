//! Making tokens, for `chat-api token`: trying things out, and services that hold the secret themselves.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Map, Value};

use super::key::{KeyError, secret};
use crate::{
    config::Auth,
    protocol::{InvalidName, UserId},
};

/// Claims that follow from the configuration and the command's own arguments.
const OWN: [&str; 5] = ["sub", "iat", "exp", "iss", "aud"];

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// No usable key.
    #[error("a token is signed with the configured secret: expected {0}")]
    Key(#[from] KeyError),
    /// The private half is elsewhere.
    #[error(
        "only a public key is configured: it verifies tokens and cannot sign them; ask the issuer for one, or set auth.secret"
    )]
    PublicKey,
    /// Not a user id.
    #[error("the subject cannot be used: {0}")]
    Subject(#[from] InvalidName),
    /// It would have expired already.
    #[error("the lifetime must be at least a second")]
    Lifetime,
    /// A claim that is ours to set.
    #[error("the claim `{0}` cannot be given: it follows from the configuration, the subject and the lifetime")]
    Claim(&'static str),
    /// The signer failed.
    #[error("the token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// An HS256 token for `sub` that lives `ttl`, with the configured issuer and audience.
///
/// Works with auth off too, as long as a secret is configured.
///
/// # Errors
/// When there is no secret, or the token would be refused by the server it is for.
pub fn mint(auth: &Auth, sub: &str, ttl: Duration) -> Result<String, MintError> {
    mint_with(auth, sub, ttl, Map::new())
}

/// As [`mint`], with `extra` claims.
///
/// # Errors
/// Also when an extra claim is one that follows from the configuration and the arguments.
pub fn mint_with(auth: &Auth, sub: &str, ttl: Duration, extra: Map<String, Value>) -> Result<String, MintError> {
    let secret = secret(auth)?.ok_or(MintError::PublicKey)?;
    let user = UserId::new(sub)?;
    if ttl.as_secs() == 0 {
        return Err(MintError::Lifetime);
    }
    if let Some(taken) = OWN.into_iter().find(|claim| extra.contains_key(*claim)) {
        return Err(MintError::Claim(taken));
    }
    let now = get_current_timestamp();
    let mut claims = extra;
    claims.insert("sub".to_owned(), user.as_str().into());
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), now.saturating_add(ttl.as_secs()).into());
    for (claim, value) in [("iss", &auth.issuer), ("aud", &auth.audience)] {
        if let Some(value) = value {
            claims.insert(claim.to_owned(), value.as_str().into());
        }
    }
    Ok(encode(&Header::default(), &claims, &EncodingKey::from_secret(&secret))?)
}
