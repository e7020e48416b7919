//! What chat-api is compared with: a chat as one writes it with axum's `WebSocket`, a task and a queue for each connection.
//!
//! It passes a message on as it came: no checks, no envelope, no log, no positions, no heartbeats, no limits, no metrics. What it has is the
//! better form of the usual loop: what has gathered in the queue is written with one flush.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{
        Path, State,
        ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    },
    response::Response,
    routing::get,
    serve::ListenerExt as _,
};
use clap::Parser;
use futures_util::SinkExt as _;
use tokio::{net::TcpListener, sync::mpsc};

/// Messages that may wait for one connection; more end it.
const QUEUE: usize = 256;
/// Messages written with one flush.
const AT_ONCE: usize = 64;

/// A plain chat on axum's WebSocket, for comparison.
#[derive(Debug, Parser)]
struct Options {
    /// Bytes of each connection's read buffer [default: axum's own, 128 KiB].
    #[arg(long, value_name = "BYTES")]
    read_buffer: Option<usize>,
}

type Members = HashMap<u64, mpsc::Sender<Utf8Bytes>>;

#[derive(Default)]
struct Chat {
    read_buffer: Option<usize>,
    next: AtomicU64,
    rooms: Mutex<HashMap<String, Members>>,
}

/// Says where it listens, and serves until it is killed.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Options { read_buffer } = Options::parse();
    let chat = Arc::new(Chat { read_buffer, ..Chat::default() });
    let router = Router::new()
        .route("/api/chat-api/ws/{room}", get(upgrade))
        .route("/api/chat-api/ws", get(upgrade_to_lobby))
        .with_state(chat);
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await.context("cannot serve")
}

async fn upgrade(State(chat): State<Arc<Chat>>, Path(room): Path<String>, request: WebSocketUpgrade) -> Response {
    let request = match chat.read_buffer {
        Some(bytes) => request.read_buffer_size(bytes),
        None => request,
    };
    request.on_upgrade(move |socket| async move {
        let member = chat.next.fetch_add(1, Ordering::Relaxed);
        let (queue, waiting) = mpsc::channel(QUEUE);
        chat.with(|rooms| rooms.entry(room.clone()).or_default().insert(member, queue));
        // A socket that broke ends like one that was closed.
        let _ = chat.attend(&room, socket, waiting).await;
        chat.with(|rooms| {
            if let Some(members) = rooms.get_mut(&room) {
                members.remove(&member);
                if members.is_empty() {
                    rooms.remove(&room);
                }
            }
        });
    })
}

async fn upgrade_to_lobby(chat: State<Arc<Chat>>, request: WebSocketUpgrade) -> Response {
    upgrade(chat, Path("lobby".to_owned()), request).await
}

impl Chat {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Members>) -> T) -> T {
        work(&mut self.rooms.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One connection, until it ends or falls behind.
    async fn attend(
        &self,
        room: &str,
        mut socket: WebSocket,
        mut waiting: mpsc::Receiver<Utf8Bytes>,
    ) -> Result<(), axum::Error> {
        let mut some = Vec::new();
        loop {
            tokio::select! {
                count = waiting.recv_many(&mut some, AT_ONCE) => {
                    if count == 0 {
                        return Ok(()); // it fell behind
                    }
                    for text in some.drain(..) {
                        socket.feed(Message::Text(text)).await?;
                    }
                    socket.flush().await?;
                }
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) if text.as_str() == r#"{"type":"ping"}"# => {
                        socket.send(Message::Text(Utf8Bytes::from_static(r#"{"type":"pong"}"#))).await?;
                    }
                    Some(Ok(Message::Text(text))) => self.publish(room, &text),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
            }
        }
    }

    fn publish(&self, room: &str, text: &Utf8Bytes) {
        self.with(|rooms| {
            if let Some(members) = rooms.get_mut(room) {
                members.retain(|_, queue| queue.try_send(text.clone()).is_ok());
            }
        });
    }
}
