//! Revocations: messages in a room of their own, which every node follows like any other room's log.
//!
//! Says one, and keeps this node's authenticator and sockets in agreement with what was said on any node, and with the keys in force. A client
//! cannot name the room.

use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    auth::{AuthError, Authenticator},
    broadcaster::{Draft, Publication, PublishError, Stamp},
    hub::Hub,
    protocol::{ClientId, RoomName, UserId},
    shutdown::Readiness,
};

/// The payload of such a message.
#[derive(Serialize, Deserialize)]
struct Revocation {
    user: String,
    /// Seconds since 1970: tokens issued then or earlier do not count.
    before: u64,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Closes a user's sockets on every node and refuses their tokens up to now. Done on this node; on the others within a second of its return.
pub async fn revoke(hub: &Hub, authenticator: &Authenticator, user: UserId, by: Option<UserId>) -> anyhow::Result<()> {
    let before = jiff::Timestamp::now().as_second().unsigned_abs();
    let payload = to_raw_value(&Revocation { user: user.as_str().to_owned(), before }).context("a revocation")?;
    let draft = Draft {
        room: RoomName::revocations(),
        kind: "revoke".to_owned(),
        client: ClientId::random(),
        user: by,
        payload,
        counted: None,
        ephemeral: false,
        trace: None,
        received: Stamp::now(),
    };
    hub.publish(draft).await.map_err(|error: PublishError| anyhow::anyhow!(error))?;
    apply(hub, authenticator, user, before);
    Ok(())
}

/// Follows what is said on any node; for ever. The node is ready once it knows all that was said before it started.
pub async fn follow(hub: Arc<Hub>, authenticator: Arc<Authenticator>, readiness: Arc<Readiness>) {
    if !authenticator.asks_for_tokens() {
        return;
    }
    readiness.revocations(false);
    let take = |publications: &[Publication]| {
        for publication in publications {
            match decode(publication) {
                Some((user, before)) => apply(&hub, &authenticator, user, before),
                None => tracing::warn!("a revocation that cannot be read was ignored"),
            }
        }
    };
    hub.follow(&RoomName::revocations(), take, || readiness.revocations(true)).await;
}

/// Closes the sockets of keys that are taken away; for ever.
pub async fn enforce_keys(hub: Arc<Hub>, authenticator: Arc<Authenticator>) {
    let Some(mut keys) = authenticator.watch_keys() else { return };
    while keys.changed().await.is_ok() {
        let closed = close_refused(&hub, &authenticator);
        if closed > 0 {
            tracing::warn!(connections = closed, "connections were closed as the key of their token was taken away");
        }
    }
}

fn close_refused(hub: &Hub, authenticator: &Authenticator) -> usize {
    hub.close_refused(|user, voucher| authenticator.refuses(user, voucher).map(AuthError::reason))
}

fn decode(publication: &Publication) -> Option<(UserId, u64)> {
    let message: Message<'_> = serde_json::from_slice(publication.frame.json_text()).ok()?;
    let Revocation { user, before } = serde_json::from_str(message.payload.get()).ok()?;
    Some((UserId::new(&user).ok()?, before))
}

fn apply(hub: &Hub, authenticator: &Authenticator, user: UserId, before: u64) {
    authenticator.revoke(user, before);
    let closed = close_refused(hub, authenticator);
    if closed > 0 {
        tracing::info!(connections = closed, "a user's connections were revoked");
    }
}
