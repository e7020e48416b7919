//! A client as docs/protocol.md tells clients to be, that writes down everything it does and sees.
//!
//! A session counts its messages, sends again what was not acknowledged or what the log asks for, and after every loss resumes each room from its
//! position on another node. A plain socket sends each message once and resumes the path's room.

mod hear;
mod outbox;
mod plan;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Map, Value, json};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep_until, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use self::outbox::Outbox;
pub use self::{
    hear::entries,
    plan::{Board, Control, Kind, Nap, Pass, Phase, Plan},
};
use crate::{
    history::{Event, Outcome, START, Told, What},
    support::{self, client::OpenError},
};

/// Messages of one client that may be without an answer.
const WINDOW: usize = 8;
/// How often a client looks at its clocks.
const TICK: Duration = Duration::from_millis(200);
/// First and longest wait before the next try to connect; each with full jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// What the key of a last message begins with.
const MARK: &str = "end-";
/// Clients that speak in the lobby at times, where everybody listens.
const SPEAKERS: usize = 10;
/// The room that everybody is in.
pub const LOBBY: &str = "lobby";

/// A room as one client sees it.
#[derive(Debug, Default)]
struct Room {
    name: String,
    position: Option<String>,
    joined: bool,
    outbox: Outbox,
    marked: bool,
}

/// A message without an answer yet.
#[derive(Debug)]
struct Flying {
    key: String,
    room: usize,
    n: Option<u64>,
    since: Instant,
}

/// Why a socket is over.
enum End {
    Stop,
    /// Lost; with the code of the close frame, and how long to wait before the next.
    Lost {
        code: Option<u16>,
        wait: Option<Duration>,
    },
}

impl End {
    fn broken() -> Self {
        Self::Lost { code: None, wait: None }
    }
}

type Socket = WebSocketStream<TcpStream>;

pub struct Client {
    plan: Plan,
    rng: fastrand::Rng,
    board: Arc<Board>,
    control: watch::Receiver<Control>,
    started: Instant,
    events: Vec<Event>,
    /// The path's first, the lobby last.
    rooms: Vec<Room>,
    flying: VecDeque<Flying>,
    keys: usize,
    next_message: Instant,
    /// Something ephemeral is due.
    typing: bool,
    rejoin_at: Option<Instant>,
    opened: Instant,
    heard: Instant,
    pinged: bool,
    phase: Phase,
    inside: bool,
    settled: bool,
    napped: bool,
}

impl Client {
    pub fn new(plan: Plan, board: Arc<Board>, control: watch::Receiver<Control>, started: Instant) -> Self {
        let mut rng = fastrand::Rng::with_seed(plan.seed ^ ((plan.number as u64 + 1) << 32));
        // Half of the sessions want all that there is, the others only what is new.
        let from_start = plan.kind == Kind::Plain || rng.bool();
        let position = from_start.then(|| START.to_owned());
        let room = |name: &str, position| Room { name: name.to_owned(), position, ..Room::default() };
        let mut rooms: Vec<_> = plan.rooms.iter().map(|name| room(name, position.clone())).collect();
        rooms.push(room(LOBBY, None));
        Self {
            rng,
            board,
            control,
            started,
            events: Vec::new(),
            rooms,
            flying: VecDeque::new(),
            keys: 0,
            next_message: Instant::now(),
            typing: false,
            rejoin_at: None,
            opened: Instant::now(),
            heard: Instant::now(),
            pinged: false,
            phase: Phase::Send,
            inside: false,
            settled: false,
            napped: false,
            plan,
        }
    }

    /// Runs until it is told to stop; returns what it wrote down.
    pub async fn run(mut self) -> Vec<Event> {
        let mut door = self.plan.number;
        let mut failures = 0;
        loop {
            while self.nap() == Nap::Offline && self.control.changed().await.is_ok() {}
            if self.control.borrow().phase == Phase::Stop {
                return self.events;
            }
            let address = self.plan.doors[door % self.plan.doors.len()];
            let wait = match self.connect(address).await {
                Ok(socket) => match self.talk(socket, address).await {
                    End::Stop => return self.events,
                    End::Lost { code, wait } => {
                        self.lost(code);
                        failures = if self.heard > self.opened { 0 } else { failures + 1 };
                        wait
                    }
                },
                Err(wait) => {
                    failures += 1;
                    wait
                }
            };
            door += 1;
            let longest = (BACKOFF.0 * 2_u32.pow(failures.min(5))).min(BACKOFF.1);
            let wait = wait.unwrap_or_else(|| longest.mul_f64(self.rng.f64()));
            let _ = timeout(wait, self.control.wait_for(|control| control.phase == Phase::Stop)).await;
        }
    }

    fn nap(&self) -> Nap {
        if self.plan.naps { self.control.borrow().nap } else { Nap::Awake }
    }

    fn note(&mut self, what: What) {
        let event = Event { at: self.started.elapsed(), client: self.plan.number, what };
        self.events.push(event);
    }

    /// A socket, or how long the node asks to wait.
    async fn connect(&mut self, address: SocketAddr) -> Result<Socket, Option<Duration>> {
        let path = &self.rooms[0];
        let after = path.position.as_deref().map(|id| format!("?after={id}")).unwrap_or_default();
        let path = format!("/api/chat-api/ws/{}{after}", path.name);
        let offer = self.plan.offer();
        match support::Client::try_open(address, &path, offer, self.plan.patience).await {
            Ok(client) => {
                if self.plan.naps && !self.napped {
                    let _ = SockRef::from(client.socket.get_ref()).set_recv_buffer_size(4096);
                }
                Ok(client.socket)
            }
            Err(error) => {
                let status = if let OpenError::Refused(refused) = error { Some(refused.status) } else { None };
                self.note(What::Refused { status });
                Err(None)
            }
        }
    }

    fn lost(&mut self, code: Option<u16>) {
        for flying in std::mem::take(&mut self.flying) {
            self.note(What::Answer { key: flying.key, outcome: Outcome::Unknown });
        }
        for room in &mut self.rooms {
            room.joined = false;
            room.outbox.restart();
        }
        self.rejoin_at = None;
        self.leave();
        self.note(What::Close { code });
    }

    /// Everything over one socket.
    async fn talk(&mut self, mut socket: Socket, address: SocketAddr) -> End {
        self.note(What::Open);
        self.opened = Instant::now();
        (self.heard, self.pinged) = (self.opened, false);
        if self.plan.kind == Kind::Plain {
            let after = self.rooms[0].position.clone();
            self.join(0, after, Told::Nothing);
            self.join(self.rooms.len() - 1, None, Told::Live(None));
            if !knock(&mut socket).await {
                return End::broken();
            }
        }
        loop {
            match self.nap() {
                Nap::Awake => {}
                Nap::Stall => {
                    self.napped = true;
                    let _ = self.control.changed().await;
                    // Whether the node still has this socket is to be seen.
                    self.heard = Instant::now();
                    self.leave();
                    if !knock(&mut socket).await {
                        return End::broken();
                    }
                    continue;
                }
                Nap::Offline => return End::broken(),
            }
            if self.control.borrow().phase == Phase::Stop {
                let _ = timeout(TICK, socket.close(None)).await;
                return End::Stop;
            }
            if let Err(end) = self.push(&mut socket, address).await {
                return end;
            }
            let tick = Instant::now() + TICK;
            let until = if self.may_write() { tick.min(self.next_message) } else { tick };
            tokio::select! {
                frame = socket.next() => if let Some(end) = self.take(frame, address).await { return end },
                () = sleep_until(until.into()) => {}
                changed = self.control.changed() => if changed.is_err() { return End::Stop },
            }
        }
    }

    /// Sends whatever is due.
    async fn push(&mut self, socket: &mut Socket, address: SocketAddr) -> Result<(), End> {
        let now = Instant::now();
        self.write_messages(now);
        let mut frames = Vec::new();
        if self.rejoin_at.is_some_and(|at| at <= now) {
            self.rejoin_at = None;
            frames.push(self.subscribe());
        }
        for room in 0..self.rooms.len() {
            while self.rooms[room].joined && self.flying.len() < WINDOW {
                let Some((n, base, key)) = self.rooms[room].outbox.next(now) else { break };
                if self.plan.kind == Kind::Plain {
                    self.rooms[room].outbox.acked(n, now); // it is not sent again, whatever becomes of it
                }
                let counted = (self.plan.kind == Kind::Session).then_some((n, base));
                frames.push(self.frame(room, counted, key, now));
            }
        }
        if std::mem::take(&mut self.typing) && self.rooms[0].joined {
            frames.push(self.ephemeral());
        }
        if self.flying.front().is_some_and(|oldest| now - oldest.since > self.plan.patience)
            || now - self.heard > self.plan.patience
        {
            return Err(End::broken());
        }
        if now - self.heard > self.plan.patience / 3 && !self.pinged {
            self.pinged = true;
            frames.push(json!({ "type": "ping" }));
        }
        for frame in frames {
            match timeout(self.plan.patience, socket.send(Message::text(frame.to_string()))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.last_words(socket, address).await),
                Err(_) => return Err(End::broken()),
            }
        }
        Ok(())
    }

    /// Whether it goes on thinking of messages.
    fn may_write(&self) -> bool {
        self.plan.every.is_some() && self.control.borrow().phase == Phase::Send && self.flying.len() < WINDOW
    }

    /// Thinks of messages that are due in this phase.
    fn write_messages(&mut self, now: Instant) {
        let phase = self.control.borrow().phase;
        let rooms = self.rooms.len();
        if let Some(every) = self.plan.every
            && self.may_write()
            && self.next_message <= now
        {
            self.next_message = now + every.mul_f64(self.rng.f64() * 2.0);
            let own = rooms - 1;
            let lobby = self.plan.number < SPEAKERS && self.rng.u32(..30) == 0;
            let room = if lobby { own } else { self.rng.usize(..own) };
            self.write(room, "");
            self.typing = self.rng.u32(..20) == 0;
        }
        if phase > self.phase {
            let last = match phase {
                Phase::Finish if self.plan.kind == Kind::Session => 0..rooms,
                Phase::Mark if self.plan.closes => 0..rooms,
                _ => 0..0,
            };
            let mark = if phase == Phase::Mark { MARK } else { "" };
            for room in last {
                // Not all have something to say to the lobby; those who had learn from one more whether the log still has it.
                if phase == Phase::Mark || room < rooms - 1 || self.rooms[room].outbox.was_used() {
                    self.write(room, mark);
                }
            }
            self.phase = phase;
        }
        let settled = self.phase >= Phase::Finish
            && self.flying.is_empty()
            && (self.plan.kind == Kind::Plain || self.rooms.iter().all(|room| room.outbox.is_settled()));
        if settled && !self.settled {
            self.settled = true;
            self.board.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&mut self, room: usize, mark: &str) {
        self.keys += 1;
        let key = format!("{mark}{}-{}", self.plan.number, self.keys);
        self.rooms[room].outbox.push(key);
    }

    /// A message as a frame, written down.
    fn frame(&mut self, room: usize, counted: Option<(u64, u64)>, key: String, now: Instant) -> Value {
        let padding = "x".repeat(self.rng.usize(..=self.plan.padding));
        let name = self.rooms[room].name.clone();
        let mut frame = json!({ "room": name, "ref": key, "payload": { "k": key, "pad": padding } });
        let n = counted.map(|(n, base)| {
            frame["sender"] = format!("{:x}-{}", self.plan.seed, self.plan.number).into();
            (frame["n"], frame["base"]) = (n.into(), base.into());
            n
        });
        self.flying.push_back(Flying { key: key.clone(), room, n, since: now });
        self.note(What::Send { room: name, key, n, ephemeral: false });
        frame
    }

    /// Somebody types in the path's room.
    fn ephemeral(&mut self) -> Value {
        self.keys += 1;
        let key = format!("{}-{}", self.plan.number, self.keys);
        let room = self.rooms[0].name.clone();
        let frame = json!({ "type": "typing", "room": room, "ephemeral": true, "payload": { "k": key } });
        self.note(What::Send { room, key, n: None, ephemeral: true });
        frame
    }

    fn subscribe(&self) -> Value {
        // The path's room and the lobby come with the socket.
        let missing = self.rooms[1..self.rooms.len() - 1].iter().filter(|room| !room.joined);
        let rooms: Map<_, _> =
            missing.map(|room| (room.name.clone(), room.position.clone().unwrap_or_default().into())).collect();
        json!({ "type": "subscribe", "rooms": rooms, "ref": "join" })
    }
}

/// Asks for a sign that the node has the socket in its rooms. False: it is broken.
async fn knock(socket: &mut Socket) -> bool {
    socket.send(Message::text(r#"{"type":"ping"}"#)).await.is_ok()
}
