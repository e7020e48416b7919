//! Rooms in which nothing happens: what a node and Redis do for them all the same, and what they keep. Subscriptions, leases of presence, checks
//! of positions. The same node and the same sockets before they join the rooms are what it is compared with.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    http::{HeaderValue, header},
};

use super::{Bed, metrics::Metrics, server::Server};
use crate::{cpu::Snapshot, crowd, process::Process};

/// Rooms of one session, so that there are many more rooms than sockets.
pub(super) const ROOMS_PER_SOCKET: usize = 100;
/// The lobby is one more. Joining at the rates that clients are allowed would take an hour.
const SETTINGS: [(&str, &str); 3] = [
    ("CHAT_LIMITS__ROOMS", "101"),
    ("CHAT_LIMITS__SUBSCRIBES_PER_SECOND", "0"),
    ("CHAT_LIMITS__NEW_ROOMS_PER_USER", "0"),
];
/// Between two looks at all sockets, for heartbeats.
const LOOK: Duration = Duration::from_millis(500);

/// What a while took, per minute of it.
#[derive(Debug, Serialize)]
struct Minute {
    node_cpu_ms: f64,
    redis_cpu_ms: f64,
    /// `FCALL`.
    functions: f64,
    /// Round trips of the node, by function.
    round_trips: BTreeMap<String, f64>,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct Idle {
    rooms: usize,
    sockets: usize,
    /// Without the rooms.
    before: Minute,
    with: Minute,
    /// Channels that Redis has more for them.
    channels: f64,
    node_bytes_per_room: f64,
    redis_bytes_per_room: f64,
}

pub(super) fn measure(bed: &Bed<'_>) -> anyhow::Result<Idle> {
    let mut scene = Scene::new(bed)?;
    scene.rest(bed.size.idle() / 4)?;
    let before = scene.minute(bed)?;
    let (channels, redis_bytes) = scene.server.size()?;
    let node_bytes = Metrics::of(&scene.node)?.resident_bytes()?;
    let rooms = bed.size.idle_rooms;
    scene.join(rooms)?;
    scene.rest(bed.size.idle() / 4)?;
    let with = scene.minute(bed)?;
    let (more_channels, more_redis_bytes) = scene.server.size()?;
    let more_node_bytes = Metrics::of(&scene.node)?.resident_bytes()?;
    Ok(Idle {
        rooms,
        sockets: scene.sockets.len(),
        before,
        with,
        channels: more_channels - channels,
        node_bytes_per_room: (more_node_bytes - node_bytes) / rooms as f64,
        redis_bytes_per_room: (more_redis_bytes - redis_bytes) / rooms as f64,
    })
}

/// A node over Redis, and sessions that listen.
struct Scene {
    server: Server,
    node: Process,
    sockets: Vec<WebSocket<TcpStream>>,
}

impl Scene {
    fn new(bed: &Bed<'_>) -> anyhow::Result<Self> {
        let server = bed.server(bed.cores.client)?;
        let node = bed.node(Some(&server), bed.cores.server, &SETTINGS)?;
        let mut sockets = Vec::new();
        for _ in 0..bed.size.idle_rooms.div_ceil(ROOMS_PER_SOCKET) {
            let mut request = crowd::request(node.address, "")?;
            request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat.v1"));
            let socket = crowd::upgraded(request, node.address)?;
            socket.get_ref().set_nonblocking(true)?;
            sockets.push(socket);
        }
        Ok(Self { server, node, sockets })
    }

    /// Joins rooms, each with one member, and waits until they are joined.
    fn join(&mut self, rooms: usize) -> anyhow::Result<()> {
        let names: Vec<String> = (0..rooms).map(|n| format!("idle-{n}")).collect();
        for (n, names) in names.chunks(ROOMS_PER_SOCKET).enumerate() {
            let rooms: Map<String, Value> = names.iter().map(|name| (name.clone(), json!(""))).collect();
            let command = json!({ "type": "subscribe", "rooms": rooms }).to_string();
            if let Some(socket) = self.sockets.get_mut(n) {
                socket.send(Message::text(command))?;
            }
            let (mut joined, start) = (0, Instant::now());
            while joined < names.len() {
                ensure!(start.elapsed() < crowd::PATIENCE, "{joined} of {} rooms are joined", names.len());
                joined += self.look()?;
                sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// What a while takes.
    fn minute(&mut self, bed: &Bed<'_>) -> anyhow::Result<Minute> {
        let node = |node: &Process| Snapshot::take(node.id(), bed.cores.server);
        let (trips, calls) = (Metrics::of(&self.node)?.round_trips()?, self.server.calls()?);
        let (node_before, redis_before, start) = (node(&self.node)?, self.server.meter()?, Instant::now());
        self.rest(bed.size.idle())?;
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        let (node_after, redis_after) = (node(&self.node)?, self.server.meter()?);
        let functions = self.server.calls()?.of("fcall") - calls.of("fcall");
        let later = Metrics::of(&self.node)?.round_trips()?;
        let more = later.into_iter().map(|(function, count)| {
            let count = count - trips.get(&function).copied().unwrap_or(0);
            (function, count as f64 / minutes)
        });
        let millis = |used: Duration| used.as_secs_f64() * 1000.0 / minutes;
        Ok(Minute {
            node_cpu_ms: millis(node_before.until(&node_after).process),
            redis_cpu_ms: millis(redis_before.until(&redis_after).process),
            functions: functions as f64 / minutes,
            round_trips: more.filter(|(_, count)| *count > 0.0).collect(),
        })
    }

    /// Only reads what comes, for so long.
    fn rest(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.look()?;
            sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Reads what has come, and answers pings by that. Returns how many rooms it says are joined.
    fn look(&mut self) -> anyhow::Result<usize> {
        let mut joined = 0;
        for socket in &mut self.sockets {
            loop {
                match socket.read() {
                    Ok(Message::Text(text)) => joined += usize::from(is_joined(&text)?),
                    Ok(Message::Close(frame)) => bail!("closed: {frame:?}"),
                    Ok(_) => {}
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(joined)
    }
}

/// Whether a room is joined by this; presence is told, too.
fn is_joined(frame: &str) -> anyhow::Result<bool> {
    let frame: Value = serde_json::from_str(frame)?;
    match frame.get("type").and_then(Value::as_str) {
        Some("subscribed") => Ok(true),
        Some("error" | "unsubscribed") => bail!("not joined: {frame}"),
        _ => Ok(false),
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rooms, sockets, before, with, .. } = self;
        let per_room = |with: f64, before: f64| (with - before) * 1000.0 / *rooms as f64;
        writeln!(f, "| {sockets} sockets, per minute | in no room | in {rooms} rooms | one room |")?;
        writeln!(f, "| --- | --- | --- | --- |")?;
        for (name, [before, with]) in [
            ("CPU of the node", [before.node_cpu_ms, with.node_cpu_ms]),
            ("CPU of Redis", [before.redis_cpu_ms, with.redis_cpu_ms]),
        ] {
            writeln!(f, "| {name} | {before:.0} ms | {with:.0} ms | {:.1} µs |", per_room(with, before))?;
        }
        let (few, many) = (before.functions, with.functions);
        writeln!(f, "| calls of functions | {few:.0} | {many:.0} | {:.2} |", per_room(many, few) / 1000.0)?;
        for (function, many) in &with.round_trips {
            let few = before.round_trips.get(function).copied().unwrap_or(0.0);
            writeln!(f, "| of `{function}` | {few:.0} | {many:.0} | {:.3} |", per_room(*many, few) / 1000.0)?;
        }
        let (node, redis) = (self.node_bytes_per_room / 1024.0, self.redis_bytes_per_room);
        writeln!(f, "\n| kept for one room | |\n| --- | --- |\n| memory of the node | {node:.1} KiB |")?;
        writeln!(f, "| memory of Redis | {redis:.0} bytes |")?;
        writeln!(f, "| channels of Redis | {:.2} |", self.channels / *rooms as f64)
    }
}
