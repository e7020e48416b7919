//! Everything through the front door: real binaries, real sockets, real Redis.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test ends by panicking, its tasks with it"
)]
#![expect(unreachable_pub, reason = "this crate is one program")]

mod acl;
mod asyncapi;
mod auth;
mod bench;
mod chart;
mod client;
mod docs;
mod docs_page;
mod drain;
mod e2e;
mod exactly_once;
mod fanout;
mod fork;
mod harness;
mod hostile;
mod issuer;
mod limits;
mod load;
mod logs;
mod memory;
mod operations;
mod order;
mod page;
mod permissions;
mod presence;
mod problems;
mod prometheus;
mod redis_kinds;
mod redis_loss;
mod reference;
mod releases;
mod reload;
mod rest;
mod resume;
mod revocation;
mod secrets;
mod session;
mod socket;
mod storm;
#[expect(dead_code, reason = "tests/chaos uses the rest")]
mod support;
mod tokens;
mod topology;
mod tracing;
