//! The way over Redis: a message at its sender, who is a member like others, with one node alone and with two over Redis; and at a member on
//! the other node.
//!
//! One message at a time, by turns with and without Redis, so that nothing waits in a queue and all see the same machine.

use std::{
    fmt,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::Bed;
use crate::crowd::{self, PATIENCE, TEXT_BYTES};

/// Messages before the first that counts.
const WARM_UP: u64 = 20;

/// Microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

impl Quantiles {
    /// Exact: all values are kept.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN);
        Self { p50: at(50), p99: at(99) }
    }
}

/// From before a message is sent until it is received; differences message by message.
#[derive(Debug, Serialize)]
pub(super) struct Hop {
    /// Of either kind, each received wherever it should be.
    messages: usize,
    /// One node, no Redis.
    local_us: Quantiles,
    /// Over Redis, on the sender's node.
    same_node_us: Quantiles,
    /// Over Redis, on the other node.
    other_node_us: Quantiles,
    /// The second less the first.
    redis_adds_us: Quantiles,
    /// The third less the second; negative where it came to the other node first.
    other_node_adds_us: Quantiles,
}

type Socket = WebSocket<TcpStream>;

pub(super) fn measure(bed: &Bed<'_>) -> anyhow::Result<Hop> {
    let (server, cores) = (bed.server(bed.cores.client)?, bed.cores);
    let alone = bed.node(None, cores.server, &[])?;
    let (a, b) = (bed.node(Some(&server), cores.server, &[])?, bed.node(Some(&server), cores.client, &[])?);
    let mut local = [open(alone.address)?];
    let mut both = [open(a.address)?, open(b.address)?];
    let (mut near, mut same, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..WARM_UP + bed.size.hops {
        let ([at_home], [at_a, at_b]) = (said(&mut local, n)?, said(&mut both, n)?);
        if n >= WARM_UP {
            near.push(at_home);
            same.push(at_a);
            other.push(at_b);
        }
    }
    let less = |later: &[f64], earlier: &[f64]| {
        Quantiles::of(later.iter().zip(earlier).map(|(later, earlier)| later - earlier).collect())
    };
    Ok(Hop {
        messages: near.len(),
        redis_adds_us: less(&same, &near),
        other_node_adds_us: less(&other, &same),
        local_us: Quantiles::of(near),
        same_node_us: Quantiles::of(same),
        other_node_us: Quantiles::of(other),
    })
}

fn open(address: SocketAddr) -> anyhow::Result<Socket> {
    crowd::upgraded(crowd::request(address, "/bench")?, address)
}

/// Sends a message on the first socket; returns after how many microseconds each one has it.
fn said<const N: usize>(sockets: &mut [Socket; N], n: u64) -> anyhow::Result<[f64; N]> {
    let mut arrived = [None; N];
    let start = Instant::now();
    sockets[0].send(Message::text(crowd::message(n, TEXT_BYTES)))?;
    while arrived.iter().any(Option::is_none) {
        ensure!(start.elapsed() < PATIENCE, "message {n} does not arrive");
        let ready = readable(sockets)?;
        let now = start.elapsed();
        for ((socket, at), ready) in sockets.iter_mut().zip(&mut arrived).zip(ready) {
            if ready && is_message(&socket.read()?, n)? {
                ensure!(at.replace(now).is_none(), "message {n} has arrived twice");
            }
        }
    }
    Ok(arrived.map(|at| at.unwrap_or(Duration::MAX).as_secs_f64() * 1e6))
}

/// Waits until there is something to read.
fn readable<const N: usize>(sockets: &[Socket; N]) -> anyhow::Result<[bool; N]> {
    let mut watched = sockets.each_ref().map(|socket| PollFd::new(socket.get_ref(), PollFlags::IN));
    poll(&mut watched, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }))?;
    Ok(watched.map(|socket| !socket.revents().is_empty()))
}

/// Heartbeats come in between; they are answered by being read.
fn is_message(frame: &Message, n: u64) -> anyhow::Result<bool> {
    match frame {
        Message::Text(text) if crowd::number(text.as_bytes()) == Some(n) => Ok(true),
        Message::Ping(_) => Ok(false),
        other => bail!("not message {n}: {other}"),
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("one node, without Redis", self.local_us),
            ("over Redis, on the sender's node", self.same_node_us),
            ("over Redis, on the other node", self.other_node_us),
            ("what Redis adds", self.redis_adds_us),
            ("what the other node adds to that", self.other_node_adds_us),
        ];
        writeln!(f, "| {} messages, one at a time | p50, µs | p99, µs |\n| --- | --- | --- |", self.messages)?;
        rows.iter().try_for_each(|(name, Quantiles { p50, p99 })| writeln!(f, "| {name} | {p50:.0} | {p99:.0} |"))
    }
}
