//! Many clients at once: who they are, how they are started, told and ended.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    client::{Board, Client, Control, Kind, LOBBY, Nap, Pass, Phase, Plan, entries},
    history::{Entry, Event, Logs, START},
    support::{PATIENCE, http},
};

/// What a load consists of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub sessions: usize,
    pub plain: usize,
    /// Half of them sessions, half plain: nap when they are told, and send nothing.
    pub nappers: usize,
    pub rooms: usize,
    /// Of one session.
    pub rooms_each: usize,
    /// Messages per second, all together.
    pub rate: u32,
    /// Largest payload, in bytes.
    pub padding: usize,
    /// Longest wait of a client before it gives up a socket.
    pub patience: Duration,
}

impl Shape {
    /// The rig of the scorecard: three nodes' worth of clients in 20 rooms.
    pub const USUAL: Self = Self {
        sessions: 42,
        plain: 22,
        nappers: 0,
        rooms: 20,
        rooms_each: 3,
        rate: 500,
        padding: 120,
        patience: Duration::from_secs(15),
    };

    pub fn clients(&self) -> usize {
        self.sessions + self.plain + 1
    }

    fn room(n: usize) -> String {
        format!("room-{n}")
    }

    /// The rooms that everybody together is in, once each and the lobby.
    pub fn all_rooms(&self) -> Vec<String> {
        (0..self.rooms).map(Self::room).chain([LOBBY.to_owned()]).collect()
    }

    fn plans(&self, ways: &Ways<'_>, seed: u64) -> Vec<Plan> {
        let talking = (self.sessions + self.plain - self.nappers) as u32;
        let every = Duration::from_secs(1) * talking / self.rate.max(1);
        let plan = |number: usize| {
            let kind = if number < self.sessions { Kind::Session } else { Kind::Plain };
            let count = if kind == Kind::Session { self.rooms_each } else { 1 };
            let rooms = (0..count).map(|k| Self::room((number + k * 7) % self.rooms)).collect();
            let naps = number.abs_diff(self.sessions) * 2 < self.nappers;
            let doors = if naps { ways.nap_doors } else { ways.doors }.to_vec();
            let pass = (ways.pass)(number);
            let (every, padding, patience) = ((!naps).then_some(every), self.padding, self.patience);
            Plan { number, kind, rooms, doors, every, closes: false, padding, patience, seed, naps, pass }
        };
        let mut plans: Vec<_> = (0..self.sessions + self.plain).map(plan).collect();
        // Speaks last, in all rooms.
        let rooms = (0..self.rooms).map(Self::room).collect();
        let last = plan(self.clients() - 1);
        plans.push(Plan { kind: Kind::Session, rooms, every: None, closes: true, naps: false, ..last });
        plans
    }
}

/// Where clients go, and what they show there.
pub struct Ways<'a> {
    pub doors: &'a [SocketAddr],
    /// Of those who nap: nothing on their way holds anything for them.
    pub nap_doors: &'a [SocketAddr],
    /// Of each client by its number.
    pub pass: &'a dyn Fn(usize) -> Option<Pass>,
}

/// Clients that run.
pub struct Load {
    pub board: Arc<Board>,
    pub started: Instant,
    shape: Shape,
    /// Last messages that are to arrive: one in each room of each client.
    marks: usize,
    control: watch::Sender<Control>,
    clients: JoinSet<Vec<Event>>,
}

impl Load {
    pub fn start(shape: Shape, ways: &Ways<'_>, seed: u64) -> Self {
        let (control, receiver) = watch::channel(Control::default());
        let (board, started) = (Arc::new(Board::default()), Instant::now());
        let plans = shape.plans(ways, seed);
        let marks = plans.iter().map(|plan| plan.rooms.len() + 1).sum();
        let mut clients = JoinSet::new();
        for plan in plans {
            clients.spawn(Client::new(plan, board.clone(), receiver.clone(), started).run());
        }
        Self { board, started, shape, marks, control, clients }
    }

    pub fn nap(&self, nap: Nap) {
        self.control.send_modify(|control| control.nap = nap);
    }

    pub fn acked(&self) -> usize {
        self.board.acked.load(Ordering::Relaxed)
    }

    /// Waits for a condition; false: not in time. The checker says what that means.
    async fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        while !holds() {
            if start.elapsed() > limit {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Everybody is in all rooms.
    pub async fn joined(&self, limit: Duration) -> bool {
        Self::until(limit, || self.board.inside.load(Ordering::Relaxed) >= self.shape.clients()).await
    }

    /// So many messages are acknowledged.
    pub async fn acked_to(&self, count: usize, limit: Duration) -> bool {
        Self::until(limit, || self.acked() >= count).await
    }

    fn phase(&self, phase: Phase) {
        self.control.send_modify(|control| control.phase = phase);
    }

    /// Everybody says its last, gets what it still has to get, and ends. Returns what they wrote down, in order.
    pub async fn finish(mut self, limit: Duration) -> Vec<Event> {
        self.phase(Phase::Finish);
        let settled = Self::until(limit, || self.board.settled.load(Ordering::Relaxed) >= self.shape.clients()).await;
        self.joined(limit).await;
        self.phase(Phase::Mark);
        // Once something is missing for good, there is no use in waiting as long again.
        let limit = if settled { limit } else { limit / 10 };
        Self::until(limit, || self.board.marks.load(Ordering::Relaxed) >= self.marks).await;
        self.phase(Phase::Stop);
        let mut events = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            events.append(&mut client.expect("a client does not panic"));
        }
        events.sort_by_key(|event| event.at);
        events
    }
}

/// Every room's whole log, from each node.
pub async fn logs(shape: &Shape, nodes: impl Iterator<Item = SocketAddr> + Clone, pass: Option<&Pass>) -> Logs {
    let mut logs = Logs::new();
    for room in shape.all_rooms() {
        let mut copies = Vec::new();
        for node in nodes.clone() {
            copies.push(log(node, &room, pass).await);
        }
        logs.insert(room, copies);
    }
    logs
}

async fn log(node: SocketAddr, room: &str, pass: Option<&Pass>) -> Vec<Entry> {
    let pass = pass.map(Pass::header);
    let headers: Vec<_> = pass.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut log: Vec<Entry> = Vec::new();
    loop {
        let after = log.last().map_or(START, |entry| entry.id.as_str());
        let path = format!("/api/chat-api/rooms/{room}/messages?after={after}&limit=200");
        let mut answer = http::get(node, &path, &headers).await;
        let start = Instant::now();
        while answer.status != 200 {
            assert!(start.elapsed() < PATIENCE, "{path}: {}", answer.body);
            sleep(Duration::from_millis(100)).await;
            answer = http::get(node, &path, &headers).await;
        }
        let mut more = entries(&answer.json());
        if more.is_empty() {
            return log;
        }
        let last = |entries: &[Entry]| entries.last().map(|entry| entry.id.clone());
        assert_ne!(last(&log), last(&more), "{path}: a page goes on");
        log.append(&mut more);
    }
}
