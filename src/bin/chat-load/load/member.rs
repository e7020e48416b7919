//! One socket and its successors: in its room, talking if it is a talker, and back in it after every loss, as docs/protocol.md asks.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::{
    dial::{Refusal, Socket},
    hear::{Ears, End},
    machine,
    shared::Shared,
    wire,
};

/// First and longest wait before the next try, where nobody says how long; each with full jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long one that leaves stays away, at most.
const LEAVE: Duration = Duration::from_secs(3);
/// For the closing handshake.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a member is told to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// A message is due, at this time in nanoseconds.
    Say(u64),
    /// Leave, and come back soon.
    Leave,
}

/// See the module.
pub(super) struct Member {
    shared: Arc<Shared>,
    number: usize,
    ears: Ears,
    /// None: no more will come.
    orders: Option<mpsc::Receiver<Order>>,
    /// Held until it is in, or will never be.
    turn: Option<OwnedSemaphorePermit>,
    /// When the last socket ended, in nanoseconds.
    lost_at: Option<u64>,
    /// Sockets lost and upgrades refused so far.
    losses: usize,
}

impl Member {
    pub(super) fn new(
        shared: Arc<Shared>,
        number: usize,
        orders: mpsc::Receiver<Order>,
        turn: OwnedSemaphorePermit,
    ) -> Self {
        let ears = Ears::new(shared.clone(), number);
        Self { shared, number, ears, orders: Some(orders), turn: Some(turn), lost_at: None, losses: 0 }
    }

    /// Until it is told to stop, or has no reason to come back.
    pub(super) async fn live(mut self, stop: CancellationToken) {
        let give_up = Instant::now() + self.patience();
        let mut failures = 0;
        loop {
            let Some(entered) = stop.run_until_cancelled(self.enter()).await else { break };
            let wait = match entered {
                Ok(mut socket) => {
                    failures = 0;
                    self.shared.state.lock().open += 1;
                    let end = self.talk(&mut socket, &stop).await;
                    self.shared.state.lock().open -= 1;
                    match self.ended(end, socket).await {
                        Some(wait) => wait,
                        None => break,
                    }
                }
                Err(refusal) => {
                    *self.shared.state.lock().tally.refusals.entry(refusal.name()).or_default() += 1;
                    if !refusal.is_passing() || (self.turn.is_some() && Instant::now() > give_up) {
                        break;
                    }
                    failures += 1;
                    refusal.retry_after().map(|wait| wait.mul_f64(1.0 + fastrand::f64()))
                }
            };
            self.losses += 1;
            let longest = (BACKOFF.0 * 2_u32.pow(failures.min(8))).min(BACKOFF.1);
            let wait = wait.unwrap_or_else(|| longest.mul_f64(fastrand::f64()));
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                break;
            }
        }
        if stop.is_cancelled() {
            return; // what it still holds is without an answer
        }
        if self.turn.take().is_some() {
            self.shared.state.lock().tally.counts.failed += 1;
        }
        self.fall_silent();
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.shared.plan.patience_ms)
    }

    async fn dial(&self) -> Result<Socket, Refusal> {
        self.shared.dialler.dial(&self.shared.plan, self.number, self.losses, self.ears.position()).await
    }

    /// A socket that is in its room.
    async fn enter(&mut self) -> Result<Socket, Refusal> {
        let start = machine::now();
        let deadline = Instant::now() + self.patience();
        let mut socket = self.dial().await?;
        let upgraded = machine::now();
        if self.shared.plan.frame.is_none() {
            self.ears.enter();
            while !self.ears.inside() {
                let frame = timeout_at(deadline, socket.next()).await.map_err(|_| Refusal::Silent)?;
                if let Err(End::Lost { name, .. }) = self.ears.hear(frame) {
                    return Err(Refusal::Unreachable(format!("closed before it was in its room: {name}")));
                }
            }
        }
        let now = machine::now();
        let mut state = self.shared.state.lock();
        state.tally.handshake.record(start, upgraded);
        state.tally.join.record(start, now);
        if self.turn.take().is_some() {
            state.tally.counts.joined += 1;
            if let Some(room) = state.rooms.get_mut(self.shared.plan.room_of(self.number)) {
                room.members += 1;
            }
        } else {
            state.tally.counts.reconnects += 1;
        }
        if let Some(lost_at) = self.lost_at.take() {
            state.tally.away.record(lost_at, now);
        }
        drop(state);
        Ok(socket)
    }

    /// What comes after a socket's end: how long to wait for the next, or nothing.
    async fn ended(&mut self, end: End, mut socket: Socket) -> Option<Option<Duration>> {
        match end {
            End::Stop | End::Leave => {
                let goodbye = async {
                    let _ = socket.close(None).await;
                    while let Some(Ok(_)) = socket.next().await {}
                };
                let _ = timeout(GOODBYE, goodbye).await;
                matches!(end, End::Leave).then(|| Some(LEAVE.mul_f64(fastrand::f64())))
            }
            End::Lost { name, wait, returns } => {
                let now = machine::now();
                self.lost_at = Some(now);
                self.shared.closed(name, now);
                returns.then_some(wait)
            }
        }
    }

    /// Everything over one socket.
    async fn talk(&mut self, socket: &mut Socket, stop: &CancellationToken) -> End {
        self.ears.outbox.restart();
        let silence = self.ears.longest_silence();
        let mut heard = Instant::now();
        let mut stopped = pin!(stop.cancelled());
        let mut alarm = pin!(sleep_until(heard + silence));
        loop {
            if let Err(error) = self.push(socket).await {
                return self.last_words(socket, &error).await;
            }
            let pause = self.ears.outbox.paused_until();
            let takes_orders = self.ears.outbox.has_room();
            tokio::select! {
                biased;
                () = &mut stopped => return End::Stop,
                frame = socket.next() => {
                    heard = Instant::now();
                    if let Err(end) = self.ears.hear(frame) {
                        return end;
                    }
                }
                order = order(&mut self.orders), if takes_orders => match order {
                    Some(Order::Say(at)) => self.ears.outbox.push(at),
                    Some(Order::Leave) => return End::Leave,
                    None => self.orders = None,
                },
                () = sleep_until(pause.unwrap_or(heard)), if pause.is_some() => {}
                () = &mut alarm => {
                    if heard + silence <= Instant::now() {
                        return End::Lost { name: "silent".to_owned(), wait: None, returns: true };
                    }
                    alarm.as_mut().reset(heard + silence);
                }
            }
            if self.ears.silenced() {
                self.fall_silent();
            }
        }
    }

    /// Sends whatever is due.
    async fn push(&mut self, socket: &mut Socket) -> Result<(), tungstenite::Error> {
        let plan = &self.shared.plan;
        let (Some(talker), room) = (plan.talker(self.number), plan.room_of(self.number)) else { return Ok(()) };
        let mut fed = false;
        while let Some(due) = self.ears.outbox.next() {
            let frame = wire::frame(plan, room, talker, due);
            timeout(self.patience(), socket.feed(Message::text(frame))).await.map_err(|_| no_way_out())??;
            fed = true;
            let now = machine::now();
            let mut state = self.shared.state.lock();
            state.tally.counts.sent += 1;
            if self.ears.is_first(due.n) {
                state.tally.lag.record(due.at, now);
            }
            drop(state);
            if plan.frame.is_some() {
                self.ears.stored(due.n, now);
            }
        }
        if fed {
            timeout(self.patience(), socket.flush()).await.map_err(|_| no_way_out())??;
        }
        Ok(())
    }

    /// What the server still said on a socket that takes nothing any more.
    async fn last_words(&mut self, socket: &mut Socket, error: &tungstenite::Error) -> End {
        let read = async {
            loop {
                if let Err(end) = self.ears.hear(socket.next().await) {
                    return end;
                }
            }
        };
        let cut = || End::Lost { name: format!("cut: {error}"), wait: None, returns: true };
        timeout(GOODBYE, read).await.unwrap_or_else(|_| cut())
    }

    /// Says nothing more; what was due is given up.
    fn fall_silent(&mut self) {
        let mut given_up = self.ears.outbox.clear();
        if let Some(mut orders) = self.orders.take() {
            orders.close();
            while let Ok(order) = orders.try_recv() {
                given_up += u64::from(matches!(order, Order::Say(_)));
            }
        }
        let mut state = self.shared.state.lock();
        state.tally.counts.abandoned += given_up;
        state.pending = state.pending.saturating_sub(given_up);
    }
}

fn no_way_out() -> tungstenite::Error {
    tungstenite::Error::Io(std::io::ErrorKind::TimedOut.into())
}

async fn order(orders: &mut Option<mpsc::Receiver<Order>>) -> Option<Order> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}
