//! The close codes: one closed table, with what a client may do next as data.

/// Why a socket is closed, as the close frame says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The peer closed, or asked to.
    Normal,
    /// The peer broke RFC 6455.
    Protocol,
    /// A binary message; this protocol is text.
    Binary,
    /// A text message that is not UTF-8.
    NotUtf8,
    /// A message that was not whole within `limits.message_deadline`.
    TooLong,
    /// A message over `limits.message_bytes`.
    TooBig,
    /// A fault of ours.
    Bug,
    /// This node goes away, or the room has to start over: come back after the hint and resume.
    Restart {
        /// Milliseconds to wait before the next socket.
        after_ms: u64,
    },
    /// The outbox was over its limit: come back and resume.
    Slow,
    /// The token does not count any more, or the one sent to renew it: get a new one.
    Unauthorized {
        /// Why.
        reason: &'static str,
    },
    /// The token does not allow the room any more.
    Forbidden,
    /// Silent for two heartbeats.
    Heartbeat,
    /// Went on sending what was refused for its rate, or too many WebSocket pings.
    Flooding,
}

impl Close {
    /// One of each, in the order of their codes.
    pub const ALL: [Self; 13] = [
        Self::Normal,
        Self::Protocol,
        Self::Binary,
        Self::NotUtf8,
        Self::TooLong,
        Self::TooBig,
        Self::Bug,
        Self::Restart { after_ms: 0 },
        Self::Slow,
        Self::Unauthorized { reason: "expired" },
        Self::Forbidden,
        Self::Heartbeat,
        Self::Flooding,
    ];

    /// The number on the wire (RFC 6455 §7.4; 4000 and up are ours).
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::Protocol => 1002,
            Self::Binary => 1003,
            Self::NotUtf8 => 1007,
            Self::TooLong => 1008,
            Self::TooBig => 1009,
            Self::Bug => 1011,
            Self::Restart { .. } => 1012,
            Self::Slow => 1013,
            Self::Unauthorized { .. } => 4401,
            Self::Forbidden => 4403,
            Self::Heartbeat => 4408,
            Self::Flooding => 4429,
        }
    }

    /// The text on the wire, at most 123 bytes.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::Normal => String::new(),
            Self::Protocol => "not valid WebSocket".into(),
            Self::Binary => "send text frames: the protocol is JSON".into(),
            Self::NotUtf8 => "text frames must be UTF-8".into(),
            Self::TooLong => "a message took too long to arrive".into(),
            Self::TooBig => "message too big".into(),
            Self::Bug => "internal error".into(),
            Self::Restart { after_ms } => format!("reconnect after {after_ms} ms"),
            Self::Slow => "reading too slowly: reconnect and resume".into(),
            Self::Unauthorized { reason } => format!("get a new token: {reason}"),
            Self::Forbidden => "the token does not allow this room any more".into(),
            Self::Heartbeat => "no sign of life for two heartbeats".into(),
            Self::Flooding => "too many frames: slow down".into(),
        }
    }

    /// What it means, for the reference.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Normal => "you closed",
            Self::Protocol => "not valid WebSocket",
            Self::Binary => "a binary message",
            Self::NotUtf8 => "a text message that is not UTF-8",
            Self::TooLong => {
                "a message took longer than `limits.message_deadline` to arrive, as over a network that stalled: resume"
            }
            Self::TooBig => "a message over `limits.message_bytes`",
            Self::Bug => "a fault of the server",
            Self::Restart { .. } => {
                "this node goes away, or the room starts over: the reason is `reconnect after <n> ms`; wait that long, then resume"
            }
            Self::Slow => "you read too slowly: resume",
            Self::Unauthorized { .. } => "the token expired, or the one sent to renew it does not count: get a new one",
            Self::Forbidden => "the token does not allow this room any more",
            Self::Heartbeat => "no sign of life for two heartbeats",
            Self::Flooding => "too many frames, or WebSocket pings: come back slower",
        }
    }

    /// Whether a client should come back by itself.
    #[must_use]
    pub fn may_reconnect(self) -> bool {
        matches!(
            self,
            Self::Normal
                | Self::TooLong
                | Self::Bug
                | Self::Restart { .. }
                | Self::Slow
                | Self::Heartbeat
                | Self::Flooding
        )
    }

    /// Whether what still waits in the outbox is dropped. Only for a peer that does not take it anyway.
    #[must_use]
    pub(crate) fn discards_outbox(self) -> bool {
        matches!(self, Self::Slow | Self::Heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_differ_and_reasons_fit_a_control_frame() {
        for pair in Close::ALL.windows(2) {
            assert!(pair[0].code() < pair[1].code());
        }
        assert!(Close::ALL.iter().all(|close| close.reason().len() <= 123));
        assert!(Close::Restart { after_ms: u64::MAX }.reason().len() <= 123);
    }
}
