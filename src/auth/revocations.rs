//! Users whose tokens from before some moment do not count.

use std::{collections::HashMap, time::Duration};

use parking_lot::RwLock;

use super::Voucher;
use crate::protocol::UserId;

/// See the module. Each is remembered for as long as a token from before it could count.
#[derive(Debug)]
pub(super) struct Revocations {
    /// Seconds since 1970.
    revoked_at: RwLock<HashMap<UserId, u64>>,
    keep: Duration,
}

impl Revocations {
    pub(super) fn new(keep: Duration) -> Self {
        Self { revoked_at: RwLock::default(), keep }
    }

    /// Tokens of `user` that were issued at `at` or before do not count from now on.
    pub(super) fn revoke(&self, user: UserId, at: u64, now: u64) {
        let mut revoked_at = self.revoked_at.write();
        let latest = revoked_at.entry(user).or_default();
        *latest = at.max(*latest);
        let horizon = now.saturating_sub(self.keep.as_secs());
        revoked_at.retain(|_, at| *at >= horizon);
    }

    pub(super) fn covers(&self, user: &UserId, voucher: &Voucher) -> bool {
        self.revoked_at.read().get(user).is_some_and(|at| voucher.issued_at <= *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Key;

    #[test]
    fn older_tokens_are_covered_for_as_long_as_they_could_count() {
        let revocations = Revocations::new(Duration::from_secs(100));
        let [alice, bob] = ["alice", "bob"].map(|name| UserId::new(name).unwrap());
        let key = Key::from_secret(&[0; 32]);
        let covers = |user: &UserId, issued_at| {
            revocations.covers(user, &Voucher { expires_at: 9999, issued_at, key: key.id() })
        };
        revocations.revoke(alice.clone(), 1000, 1000);
        revocations.revoke(alice.clone(), 900, 1000);
        assert!(covers(&alice, 1000) && covers(&alice, 0) && !covers(&alice, 1001) && !covers(&bob, 0));
        revocations.revoke(bob.clone(), 1101, 1101);
        assert_eq!(revocations.revoked_at.read().len(), 1, "alice's tokens from then are too old anyway");
    }
}
