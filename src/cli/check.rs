//! `chat-api check`: is a running service a chat, from the outside?

use std::{fmt, time::Duration};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};
use uuid::Uuid;

use crate::https;

/// The most of a node's metrics that is read.
const METRICS_BYTES: usize = 4 << 20;

type Socket = WebSocketStream<TcpStream>;

/// Opens two sockets in a room of its own, sends a message from one to the other, and one more that the other gets when it comes back. Reads the
/// metrics too, where it is told where they are.
pub(super) async fn check(
    url: String,
    management: Option<String>,
    token: Option<String>,
    limit: Duration,
) -> anyhow::Result<()> {
    let checks = async {
        round_trip(&url, token.as_deref()).await?;
        match &management {
            Some(management) => metrics(management).await.with_context(|| format!("{management}/metrics")),
            None => Ok(()),
        }
    };
    timeout(limit, checks).await.with_context(|| format!("{url}: nothing within {limit:?}"))?
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
            say(format_args!("ok: message {id} went from one socket to another\n"))?;
            drop(bob);
            return resume(url, &room, token, alice, &id).await;
        }
    }
}

/// Sends one more, and comes back for it.
async fn resume(url: &str, room: &str, token: Option<&str>, mut alice: Socket, after: &str) -> anyhow::Result<()> {
    let text = Uuid::new_v4().to_string();
    alice.send(Message::text(json!({ "payload": text, "ref": "check" }).to_string())).await.context("cannot send")?;
    let id = answer(&mut alice).await?;
    let mut bob = open(url, &format!("{room}?after={after}"), token).await?;
    let message = hear(&mut bob, &text).await?;
    ensure!(message["id"] == id.as_str(), "another message than {id} was resumed with: {message}");
    say(format_args!("ok: message {id} was there for a socket that came back\n"))
}

async fn metrics(management: &str) -> anyhow::Result<()> {
    let address = format!("{}/metrics", management.trim_end_matches('/'));
    let client = Client::builder(TokioExecutor::new()).build(https::connector(false)?);
    let response = client.request(Request::get(&address).body(Empty::<Bytes>::new())?).await?;
    ensure!(response.status() == StatusCode::OK, "it answered {}", response.status());
    let body = Limited::new(response.into_body(), METRICS_BYTES).collect().await;
    let body = body.map_err(|error| anyhow!(error)).context("its answer cannot be read")?.to_bytes();
    let text = std::str::from_utf8(&body).context("its answer is no text")?;
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
    let series = text.lines().filter(|line| !line.starts_with('#'));
    ensure!(series.clone().all(|line| value(line).is_some()), "a line of it is no series and its value");
    ensure!(series.clone().any(|line| line.starts_with("chat_connections ")), "it has no chat_connections");
    say(format_args!("ok: {} series of metrics\n", series.count()))
}

fn say(line: fmt::Arguments<'_>) -> anyhow::Result<()> {
    Ok(std::io::Write::write_fmt(&mut std::io::stdout(), line)?)
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
