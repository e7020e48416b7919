//! Why an HTTP request is refused: one closed table, beside those of the sockets.

use serde::{Serialize, Serializer};

use super::ErrorCode;

/// The closed list of problem codes. Each has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemCode {
    /// The body is no JSON object.
    InvalidJson,
    /// JSON, but no message.
    InvalidMessage,
    /// `type` is one of the server's own.
    ReservedType,
    /// The path's room is no room name.
    InvalidRoom,
    /// The path's user is no user id, or there are no users.
    InvalidUser,
    /// A position that is no message id.
    InvalidPosition,
    /// The query string has something else wrong with it.
    InvalidQuery,
    /// `Idempotency-Key` is too long, or no text.
    InvalidKey,
    /// No subprotocol that can be answered.
    InvalidProtocol,
    /// A WebSocket request with a fault.
    InvalidHandshake,
    /// No token that counts.
    Auth,
    /// A page from elsewhere.
    Origin,
    /// The token does not allow it.
    Forbidden,
    /// Nothing at this path.
    NotFound,
    /// Not with this method.
    Method,
    /// The body did not arrive in time.
    Timeout,
    /// The body is longer than a message may be.
    TooLarge,
    /// The body is said to be something else than JSON.
    ContentType,
    /// No WebSocket request.
    Upgrade,
    /// Messages come too fast.
    RateLimited,
    /// The user has as many connections as one may.
    UserConnections,
    /// The address has as many connections as one may.
    AddressConnections,
    /// The user opens rooms too fast.
    NewRooms,
    /// A fault of ours.
    Bug,
    /// This node goes away.
    Draining,
    /// This node holds as many connections as it may.
    Full,
    /// This node opens sockets as fast as it may.
    Busy,
    /// The log cannot be reached.
    Unavailable,
}

impl ProblemCode {
    /// One of each, in the order of their statuses.
    pub const ALL: [Self; 28] = [
        Self::InvalidJson,
        Self::InvalidMessage,
        Self::ReservedType,
        Self::InvalidRoom,
        Self::InvalidUser,
        Self::InvalidPosition,
        Self::InvalidQuery,
        Self::InvalidKey,
        Self::InvalidProtocol,
        Self::InvalidHandshake,
        Self::Auth,
        Self::Origin,
        Self::Forbidden,
        Self::NotFound,
        Self::Method,
        Self::Timeout,
        Self::TooLarge,
        Self::ContentType,
        Self::Upgrade,
        Self::RateLimited,
        Self::UserConnections,
        Self::AddressConnections,
        Self::NewRooms,
        Self::Bug,
        Self::Draining,
        Self::Full,
        Self::Busy,
        Self::Unavailable,
    ];

    /// What a request for a socket may be refused with.
    pub const OF_UPGRADES: [Self; 16] = [
        Self::InvalidRoom,
        Self::InvalidPosition,
        Self::InvalidQuery,
        Self::InvalidProtocol,
        Self::InvalidHandshake,
        Self::Auth,
        Self::Origin,
        Self::Forbidden,
        Self::Upgrade,
        Self::UserConnections,
        Self::AddressConnections,
        Self::NewRooms,
        Self::Draining,
        Self::Full,
        Self::Busy,
        Self::Unavailable,
    ];

    /// What a publish may be refused with.
    pub const OF_PUBLISHES: [Self; 15] = [
        Self::InvalidJson,
        Self::InvalidMessage,
        Self::ReservedType,
        Self::InvalidRoom,
        Self::InvalidQuery,
        Self::InvalidKey,
        Self::Auth,
        Self::Origin,
        Self::Forbidden,
        Self::Timeout,
        Self::TooLarge,
        Self::ContentType,
        Self::RateLimited,
        Self::NewRooms,
        Self::Unavailable,
    ];

    /// What a read may be refused with.
    pub const OF_READS: [Self; 8] = [
        Self::InvalidRoom,
        Self::InvalidPosition,
        Self::InvalidQuery,
        Self::Auth,
        Self::Origin,
        Self::Forbidden,
        Self::Busy,
        Self::Unavailable,
    ];

    /// What a look at who is there may be refused with.
    pub const OF_PRESENCE: [Self; 7] = [
        Self::InvalidRoom,
        Self::InvalidQuery,
        Self::Auth,
        Self::Origin,
        Self::Forbidden,
        Self::NotFound,
        Self::Unavailable,
    ];

    /// What taking a user's access away may be refused with.
    pub const OF_REVOCATIONS: [Self; 6] =
        [Self::InvalidUser, Self::InvalidQuery, Self::Auth, Self::Origin, Self::Forbidden, Self::Unavailable];

    /// What any request may be refused with.
    pub const OF_ANY: [Self; 3] = [Self::NotFound, Self::Method, Self::Bug];

    /// The word on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// What it means, for the reference.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::InvalidJson => ("invalid_json", 400, "the body is not a JSON object"),
            Self::InvalidMessage => ("invalid_message", 400, "JSON, but no message"),
            Self::ReservedType => ("reserved_type", 400, "`type` is one of the server's own"),
            Self::InvalidRoom => ("invalid_room", 400, "the path's room is no room name"),
            Self::InvalidUser => {
                ("invalid_user", 400, "the path's user is no user id; or this service asks for no tokens")
            }
            Self::InvalidPosition => ("invalid_position", 400, "a position is no message id"),
            Self::InvalidQuery => ("invalid_query", 400, "a query parameter is unknown, out of range, or there twice"),
            Self::InvalidKey => ("invalid_key", 400, "`Idempotency-Key` is not 1 to 64 characters of ASCII"),
            Self::InvalidProtocol => ("invalid_protocol", 400, "none of the subprotocols can be answered"),
            Self::InvalidHandshake => ("invalid_handshake", 400, "a WebSocket request with a fault"),
            Self::Auth => ("auth", 401, "a token is required, and there is none that counts"),
            Self::Origin => ("origin", 403, "pages of this origin may not connect"),
            Self::Forbidden => ("forbidden", 403, "the token does not allow this"),
            Self::NotFound => ("not_found", 404, "there is nothing at this path; presence: it is not kept"),
            Self::Method => ("method", 405, "not with this method: `Allow` has those that work"),
            Self::Timeout => ("timeout", 408, "the body did not arrive in time"),
            Self::TooLarge => ("too_large", 413, "the body is longer than a message may be"),
            Self::ContentType => ("content_type", 415, "the body is said to be something else than JSON"),
            Self::Upgrade => ("upgrade", 426, "a request for a socket that is no WebSocket request"),
            Self::RateLimited => ("rate_limited", 429, "messages come faster than they may"),
            Self::UserConnections => ("user_connections", 429, "this user has as many connections as one user may"),
            Self::AddressConnections => {
                ("address_connections", 429, "this address has as many connections as one address may")
            }
            Self::NewRooms => ("new_rooms", 429, "this user opens new rooms faster than one user may"),
            Self::Bug => ("bug", 500, "a fault of the server"),
            Self::Draining => ("draining", 503, "this node goes away; another one takes you"),
            Self::Full => ("full", 503, "this node holds as many connections as it may; another one takes you"),
            Self::Busy => (
                "busy",
                503,
                "this node opens as many sockets a second as it may, or holds as many answers that nobody takes; another one takes you",
            ),
            Self::Unavailable => {
                ("unavailable", 503, "the log, or the token's issuer, cannot be reached; for a publish see `outcome`")
            }
        }
    }
}

impl From<ErrorCode> for ProblemCode {
    /// For a body that would have been refused as a frame. What no body can be refused for counts as no message.
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidJson => Self::InvalidJson,
            ErrorCode::ReservedType => Self::ReservedType,
            ErrorCode::Forbidden => Self::Forbidden,
            ErrorCode::RateLimited => Self::RateLimited,
            ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::InvalidMessage
            | ErrorCode::InvalidRoom
            | ErrorCode::NotSubscribed
            | ErrorCode::TooManyRooms
            | ErrorCode::Gap => Self::InvalidMessage,
        }
    }
}

impl Serialize for ProblemCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_nothing_twice() {
        assert!(ProblemCode::ALL.is_sorted_by_key(|code| code.status()));
        for (n, code) in ProblemCode::ALL.iter().enumerate() {
            assert!(ProblemCode::ALL[..n].iter().all(|other| other.as_str() != code.as_str()), "{code:?}");
        }
    }
}
