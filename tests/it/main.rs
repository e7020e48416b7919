//! Everything through the front door: real binaries, real sockets, real Redis.

mod auth;
mod chart;
mod drain;
mod e2e;
mod fanout;
mod operations;
mod page;
mod redis_loss;
mod resume;
mod socket;
mod support;
// mod tracing;
