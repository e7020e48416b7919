//! What a member makes of the frames that it gets: its position, what was acknowledged, and whether each message comes once and in order.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{self, Message};

use super::{
    machine,
    outbox::Outbox,
    plan::Pass,
    shared::Shared,
    window::{Arrival, Window},
    wire::{Event, Said},
};

/// Close codes after which a client does not come back by itself.
const FINAL: [u16; 6] = [1002, 1003, 1007, 1009, EXPIRED, 4403];
/// The token has expired: whoever mints has another one.
const EXPIRED: u16 = 4401;
/// Pause after an error that names none.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest silence of a server that has not told its heartbeat.
const SILENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a socket is over.
pub(super) enum End {
    /// The run is.
    Stop,
    /// It is to leave, and come back.
    Leave,
    /// What it is counted as, how long the server asks to wait, and whether it comes back.
    Lost { name: String, wait: Option<Duration>, returns: bool },
}

/// See the module.
pub(super) struct Ears {
    shared: Arc<Shared>,
    number: usize,
    room: usize,
    name: String,
    position: Option<String>,
    /// Whether the server has said so: with `welcome`, or with `subscribed` for whoever resumes.
    inside: bool,
    resuming: bool,
    /// By talker of its room.
    windows: Box<[Window]>,
    pub(super) outbox: Outbox,
    /// Highest number that was ever sent.
    sent: u64,
    heartbeat: Option<Duration>,
    /// Asked for before the close.
    wait: Option<Duration>,
    /// Something was refused for good.
    silenced: bool,
}

type Frame = Option<Result<Message, tungstenite::Error>>;

impl Ears {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Self {
        let plan = &shared.plan;
        let room = plan.room_of(number);
        let name = plan.room_name(room);
        let windows = vec![Window::default(); plan.talkers].into();
        Self {
            shared,
            number,
            room,
            name,
            position: None,
            inside: false,
            resuming: false,
            windows,
            outbox: Outbox::default(),
            sent: 0,
            heartbeat: None,
            wait: None,
            silenced: false,
        }
    }

    /// From which to take its room up.
    pub(super) fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }

    /// A new socket.
    pub(super) fn enter(&mut self) {
        (self.inside, self.resuming, self.wait) = (false, self.position.is_some(), None);
    }

    pub(super) fn inside(&self) -> bool {
        self.inside
    }

    /// Whether something was refused for good since this was last asked.
    pub(super) fn silenced(&mut self) -> bool {
        std::mem::take(&mut self.silenced)
    }

    /// How long a living server says nothing, at most.
    pub(super) fn longest_silence(&self) -> Duration {
        self.heartbeat.map_or(SILENCE, |heartbeat| heartbeat.mul_f64(2.5))
    }

    /// Whether a message is sent for the first time.
    pub(super) fn is_first(&mut self, n: u64) -> bool {
        let first = n > self.sent;
        self.sent = self.sent.max(n);
        first
    }

    /// Takes one frame.
    pub(super) fn hear(&mut self, frame: Frame) -> Result<(), End> {
        match frame {
            Some(Ok(Message::Text(text))) => self.text(&text),
            Some(Ok(Message::Ping(_))) => self.shared.state.lock().tally.counts.pings += 1,
            Some(Ok(Message::Close(close))) => {
                let code = close.as_ref().map_or(1005, |close| u16::from(close.code));
                let asked = close.as_ref().and_then(|close| asked_to_wait(&close.reason));
                let renewable = code == EXPIRED && matches!(self.shared.plan.pass, Pass::Minted(_));
                let returns = renewable || !FINAL.contains(&code);
                return Err(End::Lost { name: code.to_string(), wait: asked.or(self.wait), returns });
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => {
                return Err(End::Lost { name: "cut".to_owned(), wait: self.wait, returns: true });
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if self.shared.plan.frame.is_some() {
            if let Some(said) = Said::find(text, &self.shared.plan) {
                self.arrived(said);
            }
            return;
        }
        match serde_json::from_str::<Event<'_>>(text) {
            Ok(event) => self.event(&event),
            Err(_) => self.error("unreadable frame"),
        }
    }

    fn error(&self, code: &str) {
        *self.shared.state.lock().tally.errors.entry(code.to_owned()).or_default() += 1;
    }

    fn event(&mut self, event: &Event<'_>) {
        match event.kind {
            "welcome" => {
                self.heartbeat = event.heartbeat_ms.map(Duration::from_millis);
                if !self.resuming {
                    self.position = event.rooms.get(self.name.as_str()).map(|id| (*id).to_owned());
                    self.inside = true;
                }
            }
            "subscribed" if event.room == Some(&self.name) => self.subscribed(event),
            "ack" => self.stored(event.n.unwrap_or(0), machine::now()),
            "error" => self.refused(event),
            "reconnect" => self.wait = event.after_ms.map(Duration::from_millis),
            _ if event.room == Some(&self.name) => {
                if let Some(said) = event.payload.and_then(|payload| Said::find(payload.get(), &self.shared.plan)) {
                    self.arrived(said);
                }
                if let Some(id) = event.id {
                    let position = self.position.get_or_insert_default();
                    position.clear();
                    position.push_str(id);
                }
            }
            _ => {}
        }
    }

    fn subscribed(&mut self, event: &Event<'_>) {
        self.inside = true;
        if let Some(rollback) = event.rollback {
            self.position = Some(rollback.to_owned());
        } else if !event.recovered {
            self.position = event.id.map(str::to_owned);
            self.shared.state.lock().tally.counts.unrecovered += 1;
        }
    }

    /// All up to `n` are stored.
    pub(super) fn stored(&mut self, n: u64, now: u64) {
        let mut state = self.shared.state.lock();
        let mut stored = 0;
        for at in self.outbox.stored(n) {
            stored += 1;
            if self.shared.plan.frame.is_none() {
                state.tally.ack.record(at, now);
            }
        }
        state.tally.counts.stored += stored;
        state.pending = state.pending.saturating_sub(stored);
        if let Some(room) = state.rooms.get_mut(self.room) {
            room.stored += stored;
        }
    }

    fn refused(&mut self, event: &Event<'_>) {
        let until = Instant::now() + event.retry_after_ms.map_or(PAUSE, Duration::from_millis);
        match (event.n, event.last_n) {
            (_, Some(last_n)) => {
                self.stored(last_n, machine::now()); // its acknowledgement did not reach us
                let lost = self.outbox.gap(last_n);
                self.shared.state.lock().tally.counts.rolled_back += lost;
                return; // `gap` is how a log asks for more, and no failure
            }
            (Some(n), _) if event.retryable => self.outbox.refused(n, until),
            (Some(_), _) => self.silenced = true,
            _ => {}
        }
        self.error(event.code.unwrap_or("?"));
    }

    fn arrived(&mut self, said: Said) {
        let now = machine::now();
        let plan = &self.shared.plan;
        let Some(window) = self.windows.get_mut(said.talker) else { return };
        let arrival = window.take(said.n);
        let mut state = self.shared.state.lock();
        let tally = &mut state.tally;
        tally.counts.delivered += 1;
        if arrival != Arrival::Again && !(plan.cross && plan.talker(self.number).is_some()) {
            tally.deliver.record(said.at, now); // over both URLs, where that is the question
        }
        tally.counts.duplicates += u64::from(arrival == Arrival::Again);
        tally.counts.reordered += u64::from(arrival == Arrival::Late);
        if let Some(room) = state.rooms.get_mut(self.room) {
            room.arrived += u64::from(arrival != Arrival::Again);
            room.duplicates += u64::from(arrival == Arrival::Again);
            room.reordered += u64::from(arrival == Arrival::Late);
        }
    }
}

/// The wait that a close frame asks for.
fn asked_to_wait(reason: &str) -> Option<Duration> {
    let millis = reason.strip_prefix("reconnect after ")?.strip_suffix(" ms")?;
    millis.parse().ok().map(Duration::from_millis)
}
