//! Real-time chat on Kubernetes: rooms are logs, replicas are one chat, clients resume without loss.
//!
//! The way of a message:
//!
//! ```text
//!  client ── http::ws (upgrade, checks) ── hub::Connection ─┐ text frame → protocol::Command
//!                                                           ▼
//!                                             hub.publish(room, message)
//!                                                           ▼
//!                                  broadcaster { Local | Redis }   appends to the room's log, assigns the id
//!                                                           │ Publication, once per node that has the room
//!                                                           ▼
//!                  hub (Outlet) → Room: inbox → one flusher → one write per member's socket
//! ```
//!
//! Arrows of use point one way only:
//!
//! ```text
//!  cli → { app, preflight } → reload → { http, cluster } → revocation → hub → { auth, broadcaster } → { metrics, shutdown, telemetry } → { protocol, config, limits, https }
//! ```
//!
//! Publishing always goes through the broadcaster, on one node too, so that one node and many are the same code. A hole in what the
//! broadcaster delivers is read again from the log, by the same read that resumes a client.

pub mod app;
pub mod auth;
pub mod broadcaster;
pub mod cli;
pub mod cluster;
pub mod config;
#[cfg(test)]
mod fuzz;
pub mod http;
pub mod https;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod preflight;
pub mod protocol;
pub mod reload;
pub mod revocation;
pub mod shutdown;
pub mod telemetry;
