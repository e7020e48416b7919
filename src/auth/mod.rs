//! Who a client is, and what it may do.
//!
//! Owns the check of tokens, the keys they are checked with, where a token may stand in a request, and what its permissions mean. When a command
//! is refused for want of one, and when a socket whose token has expired is closed, is not decided here.

mod claims;
mod error;
mod issuer;
mod key;
mod mint;
mod offer;
mod permissions;
mod revocations;
mod source;
mod token;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::watch;

use self::{
    issuer::Issuer,
    revocations::Revocations,
    token::{Rules, Token},
};
use crate::{
    config,
    metrics::Metrics,
    protocol::UserId,
    shutdown::{Readiness, Tasks},
};

pub use self::{
    error::AuthError,
    key::{Key, KeyId, KeySet},
    mint::{MintError, mint},
    offer::{Offer, offer},
    permissions::{InvalidPermissions, Permissions},
    source::{KeyError, load_keys},
};

/// Who a client is, what it may do, and for how long.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The token's `sub`; absent where everybody is let in.
    pub user: Option<UserId>,
    /// What it may do.
    pub permissions: Arc<Permissions>,
    /// What vouches for it; absent where everybody is let in.
    pub voucher: Option<Voucher>,
}

/// The token behind an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voucher {
    /// When it ends, in seconds since 1970: the clocks' difference is allowed for, and `auth.max_token_age` counted.
    pub expires_at: u64,
    /// Its `iat`, in seconds since 1970.
    pub issued_at: u64,
    /// The key that it was checked with.
    pub key: KeyId,
}

/// Lets clients in.
#[derive(Debug)]
pub struct Authenticator {
    rules: Rules,
    /// Absent: everybody is let in.
    keys: Option<Keys>,
    revocations: Revocations,
}

/// The keys in force, replaced as a whole.
#[derive(Debug)]
struct Keys {
    set: watch::Sender<Arc<KeySet>>,
    /// Who has them, where they are not configured.
    issuer: Option<Issuer>,
}

impl Authenticator {
    /// Loads the keys, or begins to fetch them: until they are here, the node is not ready.
    ///
    /// # Errors
    /// When the configuration has no usable key.
    pub fn start(
        auth: &config::Auth,
        tasks: &Tasks,
        readiness: &Arc<Readiness>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Arc<Self>> {
        let rules = Rules::new(auth)?;
        let revocations = Revocations::new(auth.longest_life());
        if !auth.enabled {
            return Ok(Arc::new(Self { rules, keys: None, revocations }));
        }
        let keys = load_keys(auth)?;
        let issuer = auth.jwks_url.as_deref().map(|url| Issuer::new(url, auth.jwks_max_age)).transpose();
        let issuer = issuer.context("auth.jwks_url")?;
        let set = watch::Sender::new(Arc::new(KeySet::new(keys.unwrap_or_default(), None)));
        let authenticator = Arc::new(Self { rules, keys: Some(Keys { set, issuer }), revocations });
        if auth.jwks_url.is_some() {
            readiness.keys(false);
            let (authenticator, readiness, metrics) = (authenticator.clone(), readiness.clone(), metrics.clone());
            tasks.spawn_until_stopped(async move { authenticator.keep_fresh(&readiness, &metrics).await });
        }
        Ok(authenticator)
    }

    async fn keep_fresh(&self, readiness: &Readiness, metrics: &Metrics) {
        if let Some(Keys { set, issuer: Some(issuer) }) = &self.keys {
            issuer.keep_fresh(set, readiness, metrics).await;
        }
    }

    /// Takes the keys that are configured now, if they are configured at all; sockets of those that are gone are closed by whoever watches.
    ///
    /// # Errors
    /// When there is not exactly one source, or it cannot be used. The old keys stay.
    pub fn replace_keys(&self, auth: &config::Auth) -> Result<(), KeyError> {
        let Some(Keys { set, issuer: None }) = &self.keys else { return Ok(()) };
        let Some(keys) = load_keys(auth)? else { return Ok(()) };
        let new = KeySet::new(keys, None);
        set.send_if_modified(|old| {
            let same = old.is(&new);
            if !same {
                *old = Arc::new(new);
            }
            !same
        });
        Ok(())
    }

    /// Whether clients need a token.
    #[must_use]
    pub fn asks_for_tokens(&self) -> bool {
        self.keys.is_some()
    }

    /// Who comes with this token. Waits for the issuer a short while, if the token's key is not known.
    ///
    /// # Errors
    /// When the token does not count, with the first reason found.
    pub async fn identify(&self, token: Option<&str>) -> Result<Identity, AuthError> {
        let Some(Keys { set, issuer }) = &self.keys else { return Ok(self.rules.anonymous()) };
        let token = Token::parse(token.ok_or(AuthError::Missing)?)?;
        let mut keys = set.borrow().clone();
        let known = |keys: &KeySet| keys.is_usable() && token.key(keys).is_some();
        if let Some(issuer) = issuer
            && !known(&keys)
            && issuer.ask().await
        {
            keys = set.borrow().clone();
        }
        if !keys.is_usable() {
            return Err(AuthError::KeysAway);
        }
        let identity = self.rules.check(&token, token.key(&keys).ok_or(AuthError::UnknownKey)?)?;
        match &identity.voucher {
            Some(voucher) => self.refuses(identity.user.as_ref(), voucher).map_or(Ok(identity), Err),
            None => Ok(identity),
        }
    }

    /// Why a token that was good no longer counts: its key was taken away, or its user's tokens were. That it has expired is not looked at.
    #[must_use]
    pub fn refuses(&self, user: Option<&UserId>, voucher: &Voucher) -> Option<AuthError> {
        let keys = self.keys.as_ref()?;
        if !keys.set.borrow().has(voucher.key) {
            return Some(AuthError::UnknownKey);
        }
        let revoked = user.is_some_and(|user| self.revocations.covers(user, voucher));
        revoked.then_some(AuthError::Revoked)
    }

    /// Tokens of `user` that were issued at `at` (seconds since 1970) or before do not count from now on.
    pub fn revoke(&self, user: UserId, at: u64) {
        self.revocations.revoke(user, at, jiff::Timestamp::now().as_second().unsigned_abs());
    }

    /// Returns when the keys have changed since the last call, or since `watch` was made.
    #[must_use]
    pub fn watch_keys(&self) -> Option<watch::Receiver<Arc<KeySet>>> {
        Some(self.keys.as_ref()?.set.subscribe())
    }
}

#[cfg(test)]
mod tests;
