//! Who clients are, what they are told, and what they let others know.

use std::{net::SocketAddr, sync::atomic::AtomicUsize, time::Duration};

use crate::support::client::Offer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Session,
    Plain,
}

/// Who a client is and what it does.
#[derive(Debug, Clone)]
pub struct Plan {
    pub number: usize,
    pub kind: Kind,
    /// The first is the path's; the lobby comes by itself.
    pub rooms: Vec<String>,
    /// Of the nodes; it begins with the one of its number.
    pub doors: Vec<SocketAddr>,
    /// Pause between two messages, on average; absent: sends none of them.
    pub every: Option<Duration>,
    /// Sends the last message of each of its rooms.
    pub closes: bool,
    /// Largest payload, about.
    pub padding: usize,
    /// Longest wait for anything before it gives up the socket.
    pub patience: Duration,
    pub seed: u64,
    /// Does as [`Control::nap`] says.
    pub naps: bool,
    /// Absent where nobody asks for it.
    pub pass: Option<Pass>,
}

/// What a client shows as it comes in: a session as browsers do, a plain socket as programs do.
#[derive(Debug, Clone)]
pub struct Pass {
    pub token: String,
    pub origin: String,
}

impl Pass {
    /// The header that programs send.
    pub fn header(&self) -> (&'static str, String) {
        ("authorization", format!("Bearer {}", self.token))
    }
}

impl Plan {
    /// What it sends along with its upgrade.
    pub fn offer(&self) -> Offer {
        let protocol = |offered: &str| Offer::default().header("sec-websocket-protocol", offered);
        match (self.kind, &self.pass) {
            (Kind::Session, None) => protocol("chat.v1"),
            (Kind::Session, Some(pass)) => {
                protocol(&format!("chat.v1, bearer.{}", pass.token)).header("origin", &pass.origin)
            }
            (Kind::Plain, None) => protocol("chat.plain"),
            (Kind::Plain, Some(pass)) => {
                let (name, value) = pass.header();
                protocol("chat.plain").header(name, value)
            }
        }
    }
}

/// What all clients are told by whoever runs them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Control {
    pub phase: Phase,
    pub nap: Nap,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Send,
    /// One more to each room, and wait for the last acknowledgement.
    Finish,
    /// The last message of each room is sent.
    Mark,
    Stop,
}

/// What some clients do for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nap {
    #[default]
    Awake,
    /// Keep the socket and read nothing.
    Stall,
    /// Have no socket.
    Offline,
}

/// What clients let others know while they run.
#[derive(Debug, Default)]
pub struct Board {
    pub acked: AtomicUsize,
    /// Clients that are in all their rooms at the moment.
    pub inside: AtomicUsize,
    /// Clients that wait for nothing any more.
    pub settled: AtomicUsize,
    /// Last messages that have reached a client.
    pub marks: AtomicUsize,
}
