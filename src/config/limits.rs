//! `[limits]`: what one connection and one node may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value;
use crate::limits::Rate;

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest frame a client may send.
    #[serde(with = "value::bytes")]
    pub message_bytes: usize,
    /// The most that may wait for one slow client before it is closed with 1013.
    #[serde(with = "value::bytes")]
    pub outbox_bytes: usize,
    /// The longest a frame may wait for one slow client before it is closed with 1013.
    #[serde(with = "value::duration")]
    pub outbox_age: Duration,
    /// How often a quiet connection is pinged; silent for two of these, it is closed with 4408.
    #[serde(with = "value::duration")]
    pub heartbeat: Duration,
    /// The rooms that one session may be in at a time, the lobby and the path's room among them.
    pub rooms: usize,
    /// Frames of one connection, and WebSocket pings; twice as many at once. Here and below, 0 is no limit.
    pub messages_per_second: u32,
    /// Bytes read from one connection; more wait in its socket. Twice as many at once.
    #[serde(with = "value::bytes")]
    pub bytes_per_second: usize,
    /// The longest one message may take to arrive.
    #[serde(with = "value::duration")]
    pub message_deadline: Duration,
    /// Rooms that one session may ask for; five times as many at once.
    pub subscribes_per_second: u32,
    /// Connections of this node; unset: see [`Limits::max_connections`].
    pub connections: Option<u64>,
    /// How long a connection may last, give or take a tenth; 0: as long as it likes.
    #[serde(with = "value::duration")]
    pub connection_age: Duration,
    /// Connections of one user.
    pub connections_per_user: u32,
    /// Connections of one address. Behind a proxy `server.trusted_proxies` has to name it.
    pub connections_per_address: u32,
    /// Sockets opened on this node; twice as many at once.
    pub upgrades_per_second: u32,
    /// Messages to the lobby, where everyone hears them; twice as many at once.
    pub lobby_messages_per_second: u32,
    /// Rooms that nobody on this node was in, opened by one user in a minute.
    pub new_rooms_per_user: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 32 << 10,
            outbox_bytes: 256 << 10,
            outbox_age: Duration::from_secs(10),
            heartbeat: Duration::from_secs(25),
            rooms: 100,
            messages_per_second: 20,
            bytes_per_second: 128 << 10,
            message_deadline: Duration::from_secs(10),
            subscribes_per_second: 20,
            connections: None,
            connection_age: Duration::ZERO,
            connections_per_user: 20,
            connections_per_address: 0,
            upgrades_per_second: 500,
            lobby_messages_per_second: 10,
            new_rooms_per_user: 60,
        }
    }
}

impl Limits {
    /// Of one connection's frames.
    #[must_use]
    pub fn message_rate(&self) -> Rate {
        Rate::per_second(self.messages_per_second, self.messages_per_second.saturating_mul(2))
    }

    /// Of one connection's bytes.
    #[must_use]
    pub fn byte_rate(&self) -> Rate {
        let bytes = u32::try_from(self.bytes_per_second).unwrap_or(u32::MAX);
        Rate::per_second(bytes, bytes.saturating_mul(2))
    }

    /// Of the rooms that one session asks for.
    #[must_use]
    pub fn subscribe_rate(&self) -> Rate {
        Rate::per_second(self.subscribes_per_second, self.subscribes_per_second.saturating_mul(5))
    }

    /// Of the node's upgrades.
    #[must_use]
    pub fn upgrade_rate(&self) -> Rate {
        Rate::per_second(self.upgrades_per_second, self.upgrades_per_second.saturating_mul(2))
    }

    /// Of the lobby's messages.
    #[must_use]
    pub fn lobby_rate(&self) -> Rate {
        Rate::per_second(self.lobby_messages_per_second, self.lobby_messages_per_second.saturating_mul(2))
    }

    /// Of one user's new rooms.
    #[must_use]
    pub fn new_room_rate(&self) -> Rate {
        Rate::per_minute(self.new_rooms_per_user)
    }

    /// How many connections this node takes: as set, or the smaller of 50,000 and nine tenths of the process's file limit.
    #[must_use]
    pub fn max_connections(&self) -> u64 {
        const USUAL: u64 = 50_000;
        let files = || rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.connections.unwrap_or_else(|| files().map_or(USUAL, |files| USUAL.min(files / 10 * 9)))
    }
}
