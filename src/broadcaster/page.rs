//! What is asked of a room's log, and what it answers.

use super::Publication;
use crate::protocol::MessageId;

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// What follows a position; [`MessageId::START`] for the log's beginning.
    After(MessageId),
    /// What comes right before a position.
    Before(MessageId),
    /// The newest.
    Newest,
}

/// How what was read relates to the position asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It touches the position exactly.
    Exact,
    /// The log lost what stood at the position: it follows this earlier one exactly, where the lost part began.
    Rollback(MessageId),
    /// The log does not know the position, or no longer has what is next to it. What is asked for after it begins with the oldest kept; before it
    /// there is nothing.
    Reset,
}

impl Relation {
    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "recovered",
            Self::Rollback(_) => "rollback",
            Self::Reset => "reset",
        }
    }
}

/// A stretch of a log.
#[derive(Debug)]
pub struct Page {
    /// In order, without holes.
    pub publications: Vec<Publication>,
    /// To the position asked for.
    pub relation: Relation,
    /// The position up to which the page goes; `top` when nothing follows.
    pub through: MessageId,
    /// The log's last position when it was read.
    pub top: MessageId,
}

/// The log could not be read; worth another try.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the message log cannot be read: {0}")]
pub struct ReadError(pub(super) String);
