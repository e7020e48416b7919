//! Why a token was refused.

use super::InvalidPermissions;

/// Why a token was refused. Never holds the token or its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// None given.
    #[error("a token is required: send `Authorization: Bearer <jwt>`, or the subprotocols `chat.v1, bearer.<jwt>`")]
    Missing,
    /// No JWT.
    #[error("the token is not a JWT that this server reads: three parts with dots between them, and a known `alg`")]
    Malformed,
    /// `exp` has passed.
    #[error("the token has expired: get a new one")]
    Expired,
    /// `nbf` or `iat` is to come.
    #[error("the token is not valid yet: its `nbf` or `iat` is in the future; check the clocks")]
    NotYetValid,
    /// Issued longer ago than `auth.max_token_age`, or it does not say when.
    #[error("the token was issued too long ago, or does not say when (`iat`): get a new one")]
    TooOld,
    /// Its user's tokens from then were revoked.
    #[error("the user's tokens were revoked: get a new one")]
    Revoked,
    /// Not signed with the configured key, or not in a way that the key is for.
    #[error("the token's signature or algorithm does not fit the server's key")]
    BadSignature,
    /// Its `kid` names no key, or it names none where there are several.
    #[error("the token's `kid` names no key of its issuer")]
    UnknownKey,
    /// `iss` is absent or another.
    #[error("the token's `iss` is not the issuer that this server trusts")]
    BadIssuer,
    /// `aud` is absent or names others only.
    #[error("the token's `aud` does not name this server")]
    BadAudience,
    /// A claim is absent or unusable.
    #[error("the token's claims are unusable: {0}")]
    BadClaims(&'static str),
    /// The claim with the permissions is unusable.
    #[error("the token's permissions are unusable: {0}")]
    BadPermissions(InvalidPermissions),
    /// More than one token.
    #[error("more than one token was sent: use either the Authorization header or one `bearer.` subprotocol")]
    Ambiguous,
    /// In the URL, where it gets into logs.
    #[error("this server takes no token in the URL: send it as a header or as a subprotocol (or set auth.query_token)")]
    InUrl,
    /// Over 8 KiB.
    #[error("the token is longer than 8 KiB")]
    TooLarge,
    /// On a socket that another user opened.
    #[error("the token is another user's: open a socket for each")]
    AnotherUser,
    /// The issuer's keys could not be fetched: nothing is known about the token.
    #[error("the issuer's keys are not at hand, so no token can be checked: try again")]
    KeysAway,
}

impl AuthError {
    /// Its label in metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::TooOld => "too_old",
            Self::Revoked => "revoked",
            Self::BadSignature => "bad_signature",
            Self::UnknownKey => "unknown_key",
            Self::BadIssuer => "bad_issuer",
            Self::BadAudience => "bad_audience",
            Self::BadClaims(_) => "bad_claims",
            Self::BadPermissions(_) => "bad_permissions",
            Self::Ambiguous => "ambiguous",
            Self::InUrl => "in_url",
            Self::TooLarge => "too_large",
            Self::AnotherUser => "another_user",
            Self::KeysAway => "keys_away",
        }
    }
}
