//! The closed sets that labels come from. None holds anything that a user chose.

/// Close codes that no close of ours has: gone (a page left), no close frame at all, and any other.
pub(super) const PEER_CODES: [&str; 3] = ["1001", "1006", "other"];
/// How a resume was answered.
pub(super) const RESUMES: [&str; 3] = ["recovered", "rollback", "reset"];
/// Why a token was refused.
pub(crate) const AUTH_FAILURES: [&str; 17] = [
    "missing",
    "malformed",
    "expired",
    "not_yet_valid",
    "too_old",
    "bad_signature",
    "unknown_key",
    "bad_issuer",
    "bad_audience",
    "bad_claims",
    "bad_permissions",
    "ambiguous",
    "in_url",
    "too_large",
    "another_user",
    "revoked",
    "keys_away",
];
/// What became of a changed configuration.
pub(super) const RELOADS: [&str; 2] = ["applied", "refused"];
/// How a fetch of the issuer's keys ended.
pub(super) const FETCHES: [&str; 2] = ["ok", "failed"];
/// What of the durability of Redis can be found out.
pub(super) const DURABILITIES: [&str; 4] = ["none", "everysec", "always", "unknown"];
/// What Redis is asked to do: the functions of its library, `publish` for whole pipelines of it and of `ephemeral`.
pub(super) const REDIS_COMMANDS: [&str; 9] =
    ["publish", "read", "fence", "attend", "recede", "renew", "roster", "tops", "canary"];

/// How a call of the Kubernetes API ended.
pub(super) const KUBERNETES_OUTCOMES: [&str; 3] = ["ok", "forbidden", "failed"];

/// What a limit was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Frames of one connection, or messages of one user by request.
    Messages,
    /// Rooms that one session asked for.
    Subscribes,
    /// Messages to the lobby.
    Lobby,
    /// Rooms that one user opened.
    NewRooms,
    /// Connections of one user.
    UserConnections,
    /// Connections of one address.
    AddressConnections,
    /// Sockets opened on the node.
    Upgrades,
    /// Bytes of history that wait for their readers.
    Answers,
}

impl Limit {
    /// One of each.
    pub const ALL: [Self; 8] = [
        Self::Messages,
        Self::Subscribes,
        Self::Lobby,
        Self::NewRooms,
        Self::UserConnections,
        Self::AddressConnections,
        Self::Upgrades,
        Self::Answers,
    ];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Subscribes => "subscribes",
            Self::Lobby => "lobby",
            Self::NewRooms => "new_rooms",
            Self::UserConnections => "user_connections",
            Self::AddressConnections => "address_connections",
            Self::Upgrades => "upgrades",
            Self::Answers => "answers",
        }
    }
}

/// What is asked of the Kubernetes API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubernetesCall {
    /// An Event about this pod.
    Event,
    /// How little this pod would be missed.
    DeletionCost,
}

impl KubernetesCall {
    /// One of each.
    pub const ALL: [Self; 2] = [Self::Event, Self::DeletionCost];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::DeletionCost => "deletion_cost",
        }
    }
}

/// Why a room read its log again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairCause {
    /// The subscription was interrupted, and the log has gone on meanwhile.
    Reconnect,
    /// A message came whose predecessor had not.
    Hole,
    /// More came at once than waits for a flush.
    Overflow,
    /// A client had seen more elsewhere.
    Behind,
    /// The regular look at the log found more in it.
    Check,
}

impl RepairCause {
    /// One of each.
    pub const ALL: [Self; 5] = [Self::Reconnect, Self::Hole, Self::Overflow, Self::Behind, Self::Check];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reconnect => "reconnect",
            Self::Hole => "hole",
            Self::Overflow => "overflow",
            Self::Behind => "behind",
            Self::Check => "check",
        }
    }
}
