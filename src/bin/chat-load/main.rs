//! `chat-load`: puts load on a chat, checks that nothing is lost on the way, and measures what it costs.
//!
//! Not part of the service: what is shared with it is the wire, and what makes tokens and TLS connections.

mod bench;
mod cpu;
mod crowd;
mod frames;
mod load;
mod pairs;
mod process;
mod redis;
mod reference;
mod report;
mod scenario;
mod sockets;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load on a chat, and what it costs.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare chat-api with the least that the kernel takes and with a plain axum chat, on this machine: CPU, memory, latency.
    Bench(bench::Options),
    /// Measure what Redis costs: a message, the hop to a second node, idle rooms.
    Redis(redis::Options),
    #[command(flatten)]
    Load(Box<load::Scenario>),
    /// The sockets of the scenarios.
    #[command(hide = true)]
    Worker,
    /// The server that `bench` compares with: the least that the kernel takes.
    #[command(hide = true)]
    Reference(reference::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Bench(options) => bench::run(&options),
        Command::Redis(options) => redis::run(&options),
        Command::Load(scenario) => load::run(*scenario),
        Command::Worker => load::work(),
        Command::Reference(options) => reference::run(&options),
    }
}
