//! What is told about a pod: each Event's words.

/// What may not be lost on whoever looks at the pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ClusterEvent {
    /// The pod was asked to go.
    DrainStarted {
        /// Open then.
        connections: usize,
    },
    /// It is about to end.
    DrainCompleted {
        /// Connections that were closed in order.
        closed: usize,
        /// Connections that had to be cut.
        forced: usize,
        /// How long it took.
        seconds: f64,
    },
    /// Redis does not answer any more.
    RedisLost,
    /// It does again.
    RedisRestored,
    /// A changed configuration was taken over.
    ConfigReloaded,
    /// One with a mistake was not.
    ConfigRejected,
    /// The node refuses sockets, as it holds as many as it may.
    ConnectionLimitReached {
        /// So many.
        limit: i64,
    },
}

impl ClusterEvent {
    /// One word, for machines.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::DrainStarted { .. } => "DrainStarted",
            Self::DrainCompleted { .. } => "DrainCompleted",
            Self::RedisLost => "RedisLost",
            Self::RedisRestored => "RedisRestored",
            Self::ConfigReloaded => "ConfigReloaded",
            Self::ConfigRejected => "ConfigRejected",
            Self::ConnectionLimitReached { .. } => "ConnectionLimitReached",
        }
    }

    /// What was done or happened.
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::DrainStarted { .. } | Self::DrainCompleted { .. } => "Drain",
            Self::RedisLost | Self::RedisRestored => "Connect",
            Self::ConfigReloaded | Self::ConfigRejected => "Reload",
            Self::ConnectionLimitReached { .. } => "Refuse",
        }
    }

    /// The API knows only these two words.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::DrainCompleted { forced: 1.., .. }
            | Self::RedisLost
            | Self::ConfigRejected
            | Self::ConnectionLimitReached { .. } => "Warning",
            Self::DrainStarted { .. } | Self::DrainCompleted { .. } | Self::RedisRestored | Self::ConfigReloaded => {
                "Normal"
            }
        }
    }

    /// A sentence, for people.
    pub(super) fn note(self) -> String {
        match self {
            Self::DrainStarted { connections } => format!("Draining {connections} connections"),
            Self::DrainCompleted { closed, forced, seconds } => {
                format!("Drained in {seconds:.1} s: {closed} connections closed, {forced} cut")
            }
            Self::RedisLost => "Redis does not answer: sockets stay, publishes are refused as retryable".to_owned(),
            Self::RedisRestored => "Redis answers again: what was missed is read from the log".to_owned(),
            Self::ConfigReloaded => "A changed configuration was taken over".to_owned(),
            Self::ConfigRejected => {
                "A changed configuration has mistakes: the old one stays in force; the log says which".to_owned()
            }
            Self::ConnectionLimitReached { limit } => {
                format!("{limit} connections, as many as this node takes: it refuses more")
            }
        }
    }
}
