//! What a client makes of the frames that it gets.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Client, End, Flying, Kind, LOBBY, MARK, Pass, Socket, TICK};
use crate::{
    history::{Entry, Outcome, START, Told, What},
    support::http,
};

impl Client {
    /// Takes in what comes out of the socket; its end, if this was it.
    pub(super) async fn take(&mut self, frame: Option<Result<Message, Error>>, address: SocketAddr) -> Option<End> {
        match frame {
            Some(Ok(Message::Close(frame))) => {
                let wait = frame.as_ref().and_then(|frame| asked_to_wait(&frame.reason));
                return Some(End::Lost { code: frame.map(|frame| frame.code.into()), wait });
            }
            Some(Ok(frame)) => {
                (self.heard, self.pinged) = (Instant::now(), false);
                if let Message::Text(text) = frame {
                    self.hear(&text, address).await;
                }
            }
            Some(Err(_)) | None => return Some(End::broken()),
        }
        None
    }

    /// What the node said before the socket would take no more is still there to read, why it closed above all: a proxy may be gone by then.
    pub(super) async fn last_words(&mut self, socket: &mut Socket, address: SocketAddr) -> End {
        let reading = async {
            loop {
                if let Some(end) = self.take(socket.next().await, address).await {
                    return end;
                }
            }
        };
        timeout(TICK, reading).await.unwrap_or_else(|_| End::broken())
    }

    async fn hear(&mut self, text: &str, address: SocketAddr) {
        let event: Value = serde_json::from_str(text).unwrap_or_default();
        match event["type"].as_str() {
            Some("welcome") => self.welcomed(&event),
            Some("subscribed") => self.subscribed(&event, address).await,
            Some("ack") => {
                let id = event["id"].as_str().map(str::to_owned);
                self.answered(&event, Outcome::Stored(id));
            }
            Some("error") => {
                let unknown = event["outcome"] == "unknown";
                self.answered(&event, if unknown { Outcome::Unknown } else { Outcome::Refused });
            }
            // The first frame is answered once the node has the socket in its rooms.
            Some("pong") => self.enter(),
            Some("reconnect" | "presence" | "unsubscribed") => {}
            _ => self.received(&event),
        }
    }

    fn room(&self, event: &Value) -> Option<usize> {
        self.rooms.iter().position(|room| event["room"] == room.name.as_str())
    }

    fn welcomed(&mut self, event: &Value) {
        for room in [0, self.rooms.len() - 1] {
            let id = event["rooms"][&self.rooms[room].name].as_str();
            if let Some(id) = id.filter(|_| self.rooms[room].position.is_none() || self.rooms[room].name == LOBBY) {
                self.join(room, None, Told::Live(Some(id.to_owned())));
            }
        }
        self.rejoin_at = (self.rooms.len() > 2).then(Instant::now);
    }

    async fn subscribed(&mut self, event: &Value, address: SocketAddr) {
        let Some(room) = self.room(event) else { return };
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        let before = self.rooms[room].position.clone();
        let after = before.clone().filter(|_| !self.rooms[room].joined);
        let told = match (event["recovered"].as_bool(), &before) {
            (Some(true), _) => Told::Recovered { rollback: event["rollback"].as_str().map(str::to_owned) },
            (_, None) => Told::Live(Some(id.clone())),
            _ => Told::Reset(id.clone()),
        };
        let reset = matches!(told, Told::Reset(_));
        self.join(room, after, told);
        if reset && id != START {
            self.read_history(room, &id, address).await;
        }
    }

    pub(super) fn join(&mut self, room: usize, after: Option<String>, told: Told) {
        let place = &mut self.rooms[room];
        place.joined = true;
        match &told {
            // Of the lobby no position is kept: a socket is live in there.
            _ if place.name == LOBBY => {}
            Told::Live(Some(id)) | Told::Reset(id) | Told::Recovered { rollback: Some(id) } => {
                place.position = Some(id.clone());
            }
            Told::Recovered { rollback: None } | Told::Live(None) | Told::Nothing => {}
        }
        let name = place.name.clone();
        self.note(What::Join { room: name, after, told });
        if self.plan.kind == Kind::Session {
            self.enter();
        }
    }

    /// Is in all its rooms now, if that is so.
    fn enter(&mut self) {
        if !self.inside && self.rooms.iter().all(|room| room.joined) {
            self.inside = true;
            self.board.inside.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn leave(&mut self) {
        if std::mem::take(&mut self.inside) {
            self.board.inside.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What a client shows that has to start over: the newest page, up to where live begins.
    async fn read_history(&mut self, room: usize, through: &str, address: SocketAddr) {
        let room = self.rooms[room].name.clone();
        let path = format!("/api/chat-api/rooms/{room}/messages?through={through}&limit=50");
        let pass = self.plan.pass.as_ref().map(Pass::header);
        let headers: Vec<_> = pass.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = http::try_send(address, hyper::Method::GET, &path, &headers, String::new());
        let answer = timeout(self.plan.patience, answer);
        if let Ok(Ok(answer)) = answer.await
            && answer.status == 200
        {
            self.note(What::Page { room, entries: entries(&answer.json()) });
        }
    }

    fn answered(&mut self, event: &Value, outcome: Outcome) {
        let after = event["retry_after_ms"].as_u64().unwrap_or(100);
        let until = Instant::now() + Duration::from_millis(after).mul_f64(0.5 + self.rng.f64() / 2.0);
        if event["ref"] == "join" {
            self.rejoin_at = Some(until);
            return;
        }
        let Some(at) = self.flying.iter().position(|flying| event["ref"] == flying.key.as_str()) else { return };
        let Some(Flying { key, room, n, .. }) = self.flying.remove(at) else { return };
        if let Outcome::Stored(_) = outcome {
            self.board.acked.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(n) = n {
            let outbox = &mut self.rooms[room].outbox;
            match (&outcome, event["last_n"].as_u64()) {
                (Outcome::Stored(_), _) => outbox.acked(n, Instant::now()),
                (_, Some(last_n)) => {
                    outbox.gap(last_n);
                    let room = self.rooms[room].name.clone();
                    self.note(What::Gap { room, last_n });
                }
                _ => outbox.failed(n, until),
            }
        }
        self.note(What::Answer { key, outcome });
    }

    fn received(&mut self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let key = event["payload"]["k"].as_str().unwrap_or("?").to_owned();
        let id = event["id"].as_str().map(str::to_owned);
        if let Some(at) = self.room(event) {
            let room = &mut self.rooms[at];
            if room.name != LOBBY && id.is_some() {
                room.position.clone_from(&id);
            }
            if key.starts_with(MARK) && !room.marked {
                room.marked = true;
                self.board.marks.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.note(What::Receive { room: text("room"), id, key, n: event["n"].as_u64() });
    }
}

/// The wait that a close frame asks for.
fn asked_to_wait(reason: &str) -> Option<Duration> {
    let millis = reason.strip_prefix("reconnect after ")?.strip_suffix(" ms")?;
    millis.parse().ok().map(Duration::from_millis)
}

/// The entries of a page of history.
pub fn entries(page: &Value) -> Vec<Entry> {
    let messages = page["messages"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    messages.map(|message| Entry { id: text(&message["id"]), key: text(&message["payload"]["k"]) }).collect()
}
