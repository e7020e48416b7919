//! `chat-api check`: is a running service a chat, from the outside?

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};
use uuid::Uuid;

type Socket = WebSocketStream<TcpStream>;

/// Opens two sockets in a room of its own and sends a message from one to the other.
pub(super) async fn check(url: String, token: Option<String>, limit: Duration) -> anyhow::Result<()> {
    let round = round_trip(&url, token.as_deref());
    timeout(limit, round).await.with_context(|| format!("{url}: nothing within {limit:?}"))?
}

async fn round_trip(url: &str, token: Option<&str>) -> anyhow::Result<()> {
    let room = format!("check-{}", Uuid::new_v4().simple());
    let (mut alice, mut bob) = (open(url, &room, token).await?, open(url, &room, token).await?);
    // An answered ping means that the socket is served; the room is joined by the time the ack is here, so send until Bob hears.
    let text = Uuid::new_v4().to_string();
    let frame = json!({ "payload": text, "ref": "check" }).to_string();
    loop {
        alice.send(Message::text(frame.clone())).await.context("cannot send")?;
        let id = answer(&mut alice).await?;
        let heard = timeout(Duration::from_secs(1), hear(&mut bob, &text)).await;
        if let Ok(message) = heard {
            let message = message?;
            ensure!(message["room"] == room.as_str(), "the message came with another room: {message}");
            let mut out = std::io::stdout();
            std::io::Write::write_fmt(&mut out, format_args!("ok: message {id} went from one socket to another\n"))?;
            return Ok(());
        }
    }
}

async fn open(url: &str, room: &str, token: Option<&str>) -> anyhow::Result<Socket> {
    let Some(base) = url.strip_prefix("http://") else { bail!("{url}: give http://host:port; TLS ends at the edge") };
    let base = base.trim_end_matches('/');
    let address = if base.contains(':') { base.to_owned() } else { format!("{base}:80") };
    let mut request = format!("ws://{base}/api/chat-api/ws/{room}").into_client_request()?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).context("the token has odd characters")?;
        request.headers_mut().insert("authorization", value);
    }
    let tcp = TcpStream::connect(&address).await.with_context(|| format!("cannot connect to {address}"))?;
    let (socket, _) = client_async(request, tcp).await.with_context(|| format!("{url} did not upgrade"))?;
    Ok(socket)
}

async fn next(socket: &mut Socket) -> anyhow::Result<Value> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text)?),
            Some(Ok(Message::Close(frame))) => bail!("closed: {frame:?}"),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => bail!("the connection ended"),
        }
    }
}

/// The id in the answer to `ref`.
async fn answer(socket: &mut Socket) -> anyhow::Result<String> {
    loop {
        let event = next(socket).await?;
        match event["type"].as_str() {
            Some("ack") => return Ok(event["id"].as_str().unwrap_or_default().to_owned()),
            Some("error") => bail!("refused: {event}"),
            _ => {}
        }
    }
}

async fn hear(socket: &mut Socket, text: &str) -> anyhow::Result<Value> {
    loop {
        let event = next(socket).await?;
        if event["payload"] == text {
            return Ok(event);
        }
    }
}
