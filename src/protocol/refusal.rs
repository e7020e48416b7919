//! The answer to a frame that was not carried out.

use super::{ErrorCode, Event, Frame, Outcome, RoomName};

/// Why a frame was not carried out; the socket lives on.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the closed list.
    pub code: ErrorCode,
    /// What was wrong and what to do.
    pub message: String,
    /// For a publish that the log did not take: what is known of it.
    pub outcome: Option<Outcome>,
    /// For a retryable one: how long to wait.
    pub retry_after_ms: Option<u64>,
    /// For a subscribe: which room.
    pub room: Option<RoomName>,
    /// The frame's `ref`, where it could be read.
    pub reference: Option<String>,
    /// The frame's `n`, where it asked for exactly once.
    pub n: Option<u64>,
    /// For a gap: the last `n` that is settled; send on from the next.
    pub last_n: Option<u64>,
}

impl Refusal {
    /// A refusal of a frame that was understood well enough to say why.
    pub fn new(code: ErrorCode, message: impl Into<String>, reference: Option<&str>) -> Self {
        let reference = reference.map(str::to_owned);
        Self {
            code,
            message: message.into(),
            outcome: None,
            retry_after_ms: None,
            room: None,
            reference,
            n: None,
            last_n: None,
        }
    }

    /// The `error` frame that tells the client.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let retryable = self.code.retryable();
        let event = Event::Error {
            code: self.code,
            message: &self.message,
            retryable,
            retry_after_ms: self.retry_after_ms,
            outcome: self.outcome,
            room: self.room.as_ref().map(RoomName::as_str),
            r#ref: self.reference.as_deref(),
            n: self.n,
            last_n: self.last_n,
        };
        event.frame()
    }
}
