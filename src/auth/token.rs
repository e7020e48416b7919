//! One token against one key: the rules.

use std::{collections::BTreeMap, collections::HashSet, sync::Arc};

use jsonwebtoken::{Header, Validation, decode, decode_header, errors::ErrorKind, get_current_timestamp};

use super::{
    AuthError, Identity, InvalidPermissions, Key, KeySet, Permissions, Voucher,
    claims::{BAD_EXP, BAD_SUB, Claims},
};
use crate::{config, protocol::UserId};

/// The longest token that is looked at.
const LONGEST: usize = 8 << 10;
/// Seconds that the clocks of issuer and node may differ.
pub(super) const LEEWAY: u64 = config::Auth::LEEWAY.as_secs();
/// What a token may say that it is (RFC 8725 §3.11); others of the same issuer are not meant for us, such as those that end a session.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// A text that looks like a token; nothing in it is verified.
pub(super) struct Token<'a> {
    text: &'a str,
    header: Header,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, AuthError> {
        if text.len() > LONGEST {
            return Err(AuthError::TooLarge);
        }
        let header = decode_header(text).map_err(|_| AuthError::Malformed)?;
        let of_type = |kind: &str| {
            let kind = kind.to_ascii_lowercase();
            TYPES.contains(&kind.strip_prefix("application/").unwrap_or(&kind))
        };
        // An extension that must be understood (`crit`) is one that we do not.
        if header.crit.is_some() || !header.typ.as_deref().is_none_or(of_type) {
            return Err(AuthError::Malformed);
        }
        Ok(Self { text, header })
    }

    /// The key that it says it is signed with.
    pub(super) fn key<'k>(&self, keys: &'k KeySet) -> Option<&'k Key> {
        keys.find(self.header.kid.as_deref(), self.header.alg)
    }
}

/// What is asked of a token, and what it gives.
#[derive(Debug)]
pub(super) struct Rules {
    validation: Validation,
    /// In seconds.
    max_age: u64,
    /// The claim with the permissions.
    claim: String,
    default_rooms: BTreeMap<String, String>,
    /// Those of an anonymous user, and of every user without the claim unless it matters who that is.
    default: Arc<Permissions>,
}

impl Rules {
    pub(super) fn new(auth: &config::Auth) -> Result<Self, InvalidPermissions> {
        Ok(Self {
            validation: validation(auth),
            max_age: auth.max_token_age.as_secs(),
            claim: auth.claim.clone(),
            default: Arc::new(Permissions::new(&auth.default_rooms, None)?),
            default_rooms: auth.default_rooms.clone(),
        })
    }

    /// Where everybody is let in.
    pub(super) fn anonymous(&self) -> Identity {
        Identity { user: None, permissions: self.default.clone(), voucher: None }
    }

    /// Whom a token speaks for.
    pub(super) fn check(&self, token: &Token<'_>, key: &Key) -> Result<Identity, AuthError> {
        // From the key; the token's header only chooses among these.
        let validation = Validation { algorithms: key.algorithms().to_vec(), ..self.validation.clone() };
        let claims: Claims =
            decode(token.text, key.decoding(), &validation).map_err(|error| refused(error.kind()))?.claims;
        if !claims.issuer_is_single() {
            return Err(AuthError::BadIssuer);
        }
        let user = claims.user()?;
        let issued_at = claims.issued_at()?;
        let now = get_current_timestamp();
        if issued_at > now + LEEWAY {
            return Err(AuthError::NotYetValid);
        }
        let oldest = issued_at.saturating_add(self.max_age);
        if oldest < now.saturating_sub(LEEWAY) {
            return Err(AuthError::TooOld);
        }
        let expires_at = claims.expires_at()?.min(oldest) + LEEWAY;
        let permissions = self.permissions(&claims, &user)?;
        let voucher = Voucher { expires_at, issued_at, key: key.id() };
        Ok(Identity { user: Some(user), permissions, voucher: Some(voucher) })
    }

    fn permissions(&self, claims: &Claims, user: &UserId) -> Result<Arc<Permissions>, AuthError> {
        let permissions = match claims.get(&self.claim) {
            Some(claim) => Permissions::from_claim(claim, user),
            None if Permissions::are_common(&self.default_rooms) => return Ok(self.default.clone()),
            None => Permissions::new(&self.default_rooms, Some(user)),
        };
        permissions.map(Arc::new).map_err(AuthError::BadPermissions)
    }
}

/// The defaults of `jsonwebtoken` are weaker: they ask for `exp` alone, forgive a minute, and ignore `nbf`.
fn validation(auth: &config::Auth) -> Validation {
    let required = [("exp", true), ("sub", true), ("aud", auth.audience.is_some()), ("iss", auth.issuer.is_some())];
    Validation {
        leeway: LEEWAY,
        validate_nbf: true,
        validate_aud: auth.audience.is_some(),
        aud: auth.audience.clone().map(|audience| HashSet::from([audience])),
        iss: auth.issuer.clone().map(|issuer| HashSet::from([issuer])),
        required_spec_claims: required.into_iter().filter(|(_, on)| *on).map(|(claim, _)| claim.to_owned()).collect(),
        ..Validation::default()
    }
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
