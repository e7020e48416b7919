//! Plays one conversation: clients on real sockets, each step in its turn, and every frame that comes held against the one that is documented.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use futures_util::SinkExt as _;
use hyper::Method;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::{
    DOCUMENT,
    names::Names,
    transcript::{Conversation, Get, Receipt, Step},
};
use crate::{
    asyncapi::Heard,
    support::{Chat, Client, Node, Over, Signer, client::Offer, http, token::SECRET},
};

/// A client's token, in the document.
const TOKEN: &str = "eyJ…";
/// Longest wait for what a client gets.
const SOON: Duration = Duration::from_secs(10);

/// What one client is to get, with the lines: acknowledgements and presence apart.
type Frames<'a> = [VecDeque<(usize, &'a Value)>; 3];

/// One conversation on a chat of its own.
pub struct Player {
    chat: Chat,
    tokens: HashMap<String, String>,
    sockets: BTreeMap<String, Client>,
    opened: usize,
    /// What Redis had at one time.
    backup: Option<TempDir>,
    /// Answers over HTTP that have come and not been read yet.
    answers: Vec<(String, http::Answer)>,
    names: Names,
    /// All frames that came.
    heard: Vec<Heard>,
}

impl Player {
    /// Returns all frames that came.
    pub async fn play(
        conversation: &Conversation,
        over: Over,
        tokens: HashMap<String, String>,
    ) -> Result<Vec<Heard>, String> {
        let chat = Chat::start_with(over, |node| {
            let node = node.env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET);
            conversation.settings.iter().fold(node, |node, (key, value)| {
                node.env(&format!("CHAT_{}", key.to_uppercase().replace('.', "__")), value)
            })
        })
        .await;
        let (sockets, answers, names, heard) = (BTreeMap::new(), Vec::new(), Names::default(), Vec::new());
        let mut player = Self { chat, tokens, sockets, opened: 0, backup: None, answers, names, heard };
        for (line, step) in &conversation.steps {
            player.step(step).await.map_err(|error| match step {
                Step::Get(_) => format!("{DOCUMENT}, {error}"), // which of its lines, it says itself
                _ => format!("{DOCUMENT}, line {line}: {error}"),
            })?;
        }
        let last = conversation.steps.last().map_or(0, |(line, _)| *line);
        player.end().await.map_err(|error| format!("{DOCUMENT}, after line {last}: {error}"))
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::May { client, claim } => {
                let token = Signer::secret(Algorithm::HS256).changed(&json!({ "sub": client, "chat": claim }));
                self.tokens.insert(client.clone(), token);
                Ok(())
            }
            Step::Open { client, path, kind } => self.open(client, &self.names.real(path), kind.as_deref()).await,
            Step::Leave { client } => {
                let closed = self.socket(client)?.leave().await;
                self.sockets.remove(client);
                let normal = Some((1000, String::new()));
                if closed == normal { Ok(()) } else { Err(format!("the close was answered {closed:?}")) }
            }
            Step::Happens(event) => self.happens(event).await,
            Step::Send { client, text } => {
                let token = self.tokens.get(client).map_or("", String::as_str);
                let text = self.names.real(text).replace(TOKEN, token);
                self.socket(client)?.send_text(&text).await;
                Ok(())
            }
            Step::SendBinary { client, bytes } => {
                let sent = self.socket(client)?.socket.send(Message::binary(bytes.clone())).await;
                sent.map_err(|error| error.to_string())
            }
            Step::Ask { client, method, path, headers, body } => {
                let method: Method = method.parse().map_err(|_| "no method")?;
                let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let bearer = self.bearer(client);
                headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
                let (address, path) = (self.node(self.opened).public, self.names.real(path));
                let answer = http::send(address, method, &path, &headers, self.names.real(body)).await;
                self.answers.push((client.clone(), answer));
                Ok(())
            }
            Step::Get(receipts) => self.get(receipts).await,
        }
    }

    fn node(&self, n: usize) -> &Node {
        &self.chat.nodes[n % self.chat.nodes.len()]
    }

    fn bearer(&self, client: &str) -> Option<String> {
        self.tokens.get(client).map(|token| format!("Bearer {token}"))
    }

    fn socket(&mut self, client: &str) -> Result<&mut Client, String> {
        self.sockets.get_mut(client).ok_or_else(|| format!("{client} has no socket"))
    }

    /// Each on the nodes in turn, so that a client comes back to another one.
    async fn open(&mut self, client: &str, path: &str, kind: Option<&str>) -> Result<(), String> {
        let mut offer = Offer::default();
        if let Some(bearer) = self.bearer(client) {
            offer = offer.header("authorization", bearer);
        }
        if let Some(kind) = kind {
            offer = offer.header("sec-websocket-protocol", kind);
        }
        self.opened += 1;
        match Client::open(self.node(self.opened).public, path, offer).await {
            Ok(mut socket) => {
                if kind.is_none() && !path.contains("after=") {
                    socket.ping().await; // a session says by itself that it is in its rooms, and a replay shows it
                }
                self.sockets.insert(client.to_owned(), socket);
            }
            Err(refused) => self.answers.push((client.to_owned(), refused.into())),
        }
        Ok(())
    }

    async fn happens(&mut self, event: &str) -> Result<(), String> {
        match (event, self.chat.redis.as_mut()) {
            ("the node goes away", _) => self.chat.nodes.iter().for_each(|node| node.signal("TERM")),
            ("Redis goes away", Some(redis)) => {
                redis.kill();
                for node in &self.chat.nodes {
                    node.wait_for_metric("chat_redis_up", 0.0).await;
                }
            }
            ("Redis comes back empty", Some(redis)) => {
                redis.command(&["FLUSHALL"]).await;
                redis.written().await;
                redis.kill();
                redis.restart().await;
            }
            ("Redis is backed up", Some(redis)) => self.backup = Some(redis.backup().await),
            ("Redis comes back from the backup", Some(redis)) => {
                redis.kill();
                redis.restore(self.backup.as_ref().ok_or("there is no backup")?);
                redis.restart().await;
            }
            _ => return Err("no such event".into()),
        }
        Ok(())
    }

    /// One client's frames are in order, but for acknowledgements, which may come before or after messages, and for presence: that is told when it is
    /// time, and what else is told of it is no part of the conversation.
    async fn get(&mut self, receipts: &[Receipt]) -> Result<(), String> {
        let mut frames: BTreeMap<&str, Frames<'_>> = BTreeMap::new();
        for Receipt { line, client, what } in receipts {
            let at = |error| format!("line {line}: {client} {error}");
            match what {
                Get::Frame(frame) => frames.entry(client).or_default()[kind(frame)].push_back((*line, frame)),
                Get::Answer { status, headers, body } => self.answer(client, *status, headers, body).map_err(at)?,
                Get::Close { code, reason } => {
                    self.frames(client, frames.remove(client.as_str()).unwrap_or_default()).await?;
                    self.close(client, *code, reason).await.map_err(at)?;
                }
            }
        }
        for (client, documented) in frames {
            self.frames(client, documented).await?;
        }
        Ok(())
    }

    async fn frames(&mut self, client: &str, mut documented: Frames<'_>) -> Result<(), String> {
        let mut passed = String::new();
        while let Some(first) = documented.iter().filter_map(VecDeque::front).map(|(line, _)| *line).min() {
            let at = |line: usize, error: String| format!("line {line}: {client} {error}");
            let real = match self.next(client).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(close)) => return Err(at(first, format!("is closed: {close:?}"))),
                Err(error) => return Err(at(first, format!("{error}{passed}"))),
            };
            let kind = kind(&real);
            match (documented[kind].front(), kind) {
                (Some((line, frame)), _) => match self.compare(frame, &real) {
                    Ok(()) => drop(documented[kind].pop_front()),
                    Err(error) if kind == PRESENCE => passed = format!("; at last it {error}"),
                    Err(error) => return Err(at(*line, error)),
                },
                (None, PRESENCE) => {}
                (None, _) => return Err(at(first, format!("gets something else: {real}"))),
            }
        }
        Ok(())
    }

    async fn next(&mut self, client: &str) -> Result<Result<Value, Option<(u16, String)>>, String> {
        let socket = self.socket(client)?;
        let session = socket.protocol.as_deref() == Some("chat.v1");
        let next = timeout(SOON, socket.next_or_close()).await.map_err(|_| "gets nothing more".to_owned())?;
        if let Ok(frame) = &next {
            self.heard.push(Heard { session, frame: frame.clone() });
        }
        Ok(next)
    }

    fn compare(&mut self, documented: &Value, real: &Value) -> Result<(), String> {
        let mut names = self.names.clone();
        names
            .learn("", documented, real)
            .map_err(|error| format!("gets another one: {error}\n  documented: {documented}\n  real:       {real}"))?;
        self.names = names;
        Ok(())
    }

    fn answer(&mut self, client: &str, status: u16, headers: &[(String, String)], body: &Value) -> Result<(), String> {
        let index = self.answers.iter().position(|(asked, _)| asked == client).ok_or("asked for nothing")?;
        let (_, real) = self.answers.remove(index);
        if real.status != status {
            return Err(format!("is answered {} {}", real.status, real.body));
        }
        for (name, value) in headers {
            if real.header(name) != value {
                return Err(format!("`{name}` is {:?}", real.header(name)));
            }
        }
        let real = if real.body.is_empty() { Value::Null } else { real.json() };
        self.compare(body, &real)
    }

    async fn close(&mut self, client: &str, code: u16, reason: &str) -> Result<(), String> {
        let documented = Err(Some((code, self.names.real(reason))));
        let mut next = self.next(client).await?;
        while next.as_ref().is_ok_and(|frame| kind(frame) == PRESENCE) {
            next = self.next(client).await?;
        }
        self.sockets.remove(client);
        if next == documented { Ok(()) } else { Err(format!("gets {next:?}, not {documented:?}")) }
    }

    /// Nobody got more than was said.
    async fn end(mut self) -> Result<Vec<Heard>, String> {
        if let Some((client, answer)) = self.answers.first() {
            return Err(format!("{client} is also answered {} {}", answer.status, answer.body));
        }
        let clients: Vec<String> = self.sockets.keys().cloned().collect();
        for client in clients {
            self.socket(&client)?.send_text(r#"{"type":"ping","ref":"the end"}"#).await;
            loop {
                match self.next(&client).await? {
                    Ok(frame) if frame["ref"] == "the end" => break,
                    Ok(frame) if kind(&frame) == PRESENCE => {}
                    more => return Err(format!("{client} also gets {more:?}")),
                }
            }
        }
        Ok(self.heard)
    }
}

const PRESENCE: usize = 2;

/// Which queue of [`Frames`].
fn kind(frame: &Value) -> usize {
    match frame["type"].as_str() {
        Some("ack") => 1,
        Some("presence") => PRESENCE,
        _ => 0,
    }
}
