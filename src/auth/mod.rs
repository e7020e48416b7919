//! Who a token speaks for.
//!
//! Owns the check of tokens and where one may stand in a request. What an identity may do, and when a socket whose
//! token has expired is closed, is not decided here.

mod key;
mod mint;
mod offer;
mod permissions;

use std::collections::HashSet;

use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::Value;

use crate::{config, protocol::UserId};

pub use key::{Key, KeyError};
pub use mint::{MintError, mint, mint_with};
pub use offer::{Offer, offer};
pub use permissions::{InvalidPermissions, Permissions};

/// The longest token that is looked at.
const LONGEST: usize = 8 << 10;
/// Seconds that the clocks of issuer and node may differ.
pub const LEEWAY: u64 = 5;
/// The end of the year 9999: later expiries count as this one, so that no clock arithmetic overflows.
const LATEST: u64 = 253_402_300_799;

/// Whom a valid token speaks for, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The token's `sub`.
    pub user: UserId,
    /// The token's `exp`, in seconds since 1970. May be up to five seconds ago, for the sake of clocks that differ.
    pub expires_at: u64,
}

/// Why a token was refused. Never holds the token or its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// None given.
    #[error("a token is required: send `Authorization: Bearer <jwt>`, or offer the subprotocol `bearer.<jwt>`")]
    Missing,
    /// No JWT.
    #[error("the token is not a JWT that this server reads: three parts with dots between them, and a known `alg`")]
    Malformed,
    /// `exp` has passed.
    #[error("the token has expired: get a new one")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet: its `nbf` is in the future; check the clocks")]
    NotYetValid,
    /// Not signed with the configured key, or not in a way that the key is for.
    #[error("the token's signature or algorithm does not fit the server's key")]
    BadSignature,
    /// `iss` is absent or another.
    #[error("the token's `iss` is not the issuer that this server trusts")]
    BadIssuer,
    /// `aud` is absent or names others only.
    #[error("the token's `aud` does not name this server")]
    BadAudience,
    /// A claim is absent or unusable.
    #[error("the token's claims are unusable: {0}")]
    BadClaims(&'static str),
    /// More than one token.
    #[error("more than one token was sent: use either the Authorization header or one `bearer.` subprotocol")]
    Ambiguous,
    /// Over 8 KiB.
    #[error("the token is longer than 8 KiB")]
    TooLarge,
}

impl AuthError {
    /// Every label that [`AuthError::reason`] gives.
    pub const REASONS: [&'static str; 10] = [
        "missing",
        "malformed",
        "expired",
        "not_yet_valid",
        "bad_signature",
        "bad_issuer",
        "bad_audience",
        "bad_claims",
        "ambiguous",
        "too_large",
    ];

    /// A stable label for metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::BadSignature => "bad_signature",
            Self::BadIssuer => "bad_issuer",
            Self::BadAudience => "bad_audience",
            Self::BadClaims(_) => "bad_claims",
            Self::Ambiguous => "ambiguous",
            Self::TooLarge => "too_large",
        }
    }
}

/// Checks tokens against one key.
#[derive(Debug, Clone)]
pub struct Authenticator {
    key: Key,
    validation: Validation,
}

/// What is read of a token; kept as JSON, so that a claim of the wrong type is named rather than lost in a parse error.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: Value,
    #[serde(default)]
    exp: Value,
}

impl Authenticator {
    /// Loads the key; `None` when auth is off.
    ///
    /// # Errors
    /// When there is not exactly one key, or it cannot be used.
    pub fn new(auth: &config::Auth) -> Result<Option<Self>, KeyError> {
        if !auth.enabled {
            return Ok(None);
        }
        let key = Key::load(auth)?;
        let validation = validation(&key, auth);
        Ok(Some(Self { key, validation }))
    }

    /// Whom a token speaks for.
    ///
    /// # Errors
    /// When it does not count, with the first reason found.
    pub fn verify(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > LONGEST {
            return Err(AuthError::TooLarge);
        }
        // An extension that must be understood (`crit`) is one that we do not.
        let header = decode_header(token).map_err(|_| AuthError::Malformed)?;
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let claims = decode::<Claims>(token, self.key.decoding(), &self.validation)
            .map_err(|error| refused(error.kind()))?
            .claims;
        let user = claims.sub.as_str().and_then(|sub| UserId::new(sub).ok()).ok_or(BAD_SUB)?;
        Ok(Identity { user, expires_at: seconds(&claims.exp).ok_or(BAD_EXP)? })
    }
}

const BAD_SUB: AuthError =
    AuthError::BadClaims("`sub` must be a user id of 1 to 128 characters without control characters");
const BAD_EXP: AuthError = AuthError::BadClaims("`exp` must be there, in seconds since 1970");

/// The defaults of `jsonwebtoken` are weaker: they ask for `exp` alone, forgive a minute, and ignore `nbf`.
fn validation(key: &Key, auth: &config::Auth) -> Validation {
    let required = [("exp", true), ("sub", true), ("aud", auth.audience.is_some()), ("iss", auth.issuer.is_some())];
    Validation {
        algorithms: key.algorithms().to_vec(), // from the key; the token's header only chooses among these
        leeway: LEEWAY,
        validate_nbf: true,
        validate_aud: auth.audience.is_some(),
        aud: auth.audience.clone().map(|audience| HashSet::from([audience])),
        iss: auth.issuer.clone().map(|issuer| HashSet::from([issuer])),
        required_spec_claims: required.into_iter().filter(|(_, on)| *on).map(|(claim, _)| claim.to_owned()).collect(),
        ..Validation::default()
    }
}

/// A date of the token in whole seconds; it may have a fraction.
fn seconds(date: &Value) -> Option<u64> {
    let whole = date.as_u64().or_else(|| date.as_f64().filter(|date| *date >= 0.0).map(|date| date as u64));
    whole.map(|seconds| seconds.min(LATEST))
}

fn refused(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::NotYetValid,
        ErrorKind::InvalidIssuer => AuthError::BadIssuer,
        ErrorKind::InvalidAudience => AuthError::BadAudience,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match claim.as_str() {
            "iss" => AuthError::BadIssuer,
            "aud" => AuthError::BadAudience,
            "sub" => BAD_SUB,
            "nbf" => AuthError::BadClaims("`nbf` must be in seconds since 1970"),
            _ => BAD_EXP,
        },
        ErrorKind::Json(_) => AuthError::BadClaims("they must be a JSON object with each name once"), // the header parsed
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => AuthError::Malformed,
        _ => AuthError::BadSignature,
    }
}

#[cfg(test)]
mod tests;
