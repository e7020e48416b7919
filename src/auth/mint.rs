//! Making tokens, for `chat-api token`: trying things out, and services that hold the secret themselves.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Map, Value};

use super::{
    InvalidPermissions, Permissions,
    source::{KeyError, secret},
};
use crate::{
    config::Auth,
    protocol::{InvalidName, UserId},
};

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// No usable key.
    #[error("a token is signed with the configured secret: expected {0}")]
    Key(#[from] KeyError),
    /// The private half is elsewhere.
    #[error("no secret is configured, and public keys cannot sign: ask the issuer for a token, or set auth.secret")]
    PublicKey,
    /// Not a user id.
    #[error("the subject cannot be used: {0}")]
    Subject(#[from] InvalidName),
    /// It would have expired already, or would count for less.
    #[error("the lifetime must be at least a second, and at most auth.max_token_age")]
    Lifetime,
    /// The server would refuse it.
    #[error("{0}")]
    Permissions(#[from] InvalidPermissions),
    /// The signer failed.
    #[error("the token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// An HS256 token for `sub` that lives `ttl`, with the configured issuer and audience, and with `permissions` if given: the value of `auth.claim`.
///
/// Works with auth off too, as long as a secret is configured.
///
/// # Errors
/// When there is no secret, or the token would be refused by the server it is for.
pub fn mint(auth: &Auth, sub: &str, ttl: Duration, permissions: Option<Value>) -> Result<String, MintError> {
    let secret = secret(auth)?.ok_or(MintError::PublicKey)?;
    let user = UserId::new(sub)?;
    if ttl.as_secs() == 0 || ttl > auth.max_token_age {
        return Err(MintError::Lifetime);
    }
    let now = get_current_timestamp();
    let mut claims = Map::new();
    if let Some(permissions) = permissions {
        Permissions::from_claim(&permissions, &user)?;
        claims.insert(auth.claim.clone(), permissions);
    }
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
