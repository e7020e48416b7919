//! A chat client on a real socket.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        http::{HeaderName, HeaderValue, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{PATIENCE, http::Answer};

/// What a client sends along with its upgrade.
#[derive(Debug, Default, Clone)]
pub struct Offer {
    pub headers: Vec<(&'static str, String)>,
}

impl Offer {
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// How an upgrade was refused.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub problem: Value,
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        let headers = refused.headers.iter();
        let headers = headers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        Self { status: refused.status, headers: headers.collect(), body: refused.problem.to_string() }
    }
}

/// Why there is no socket.
#[derive(Debug)]
pub enum OpenError {
    Refused(Refused),
    /// No HTTP answer at all.
    Broken(String),
}

pub struct Client {
    pub socket: WebSocketStream<TcpStream>,
    pub protocol: Option<String>,
    /// What the close frame said.
    close: Option<(u16, String)>,
}

impl Client {
    pub async fn open(address: SocketAddr, path: &str, offer: Offer) -> Result<Self, Refused> {
        match Self::try_open(address, path, offer, PATIENCE).await {
            Ok(client) => Ok(client),
            Err(OpenError::Refused(refused)) => Err(refused),
            Err(OpenError::Broken(error)) => panic!("{path}: {error}"),
        }
    }

    /// The same where the node may not be there.
    pub async fn try_open(
        address: SocketAddr,
        path: &str,
        offer: Offer,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
        for (name, value) in offer.headers {
            request
                .headers_mut()
                .append(HeaderName::from_static(name), HeaderValue::from_str(&value).expect("a value"));
        }
        let opening = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            client_async(request, tcp).await
        };
        match timeout(patience, opening).await {
            Ok(Ok((socket, response))) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                let protocol = protocol.map(|value| value.to_str().expect("text").to_owned());
                Ok(Self { socket, protocol, close: None })
            }
            Ok(Err(Error::Http(response))) => Err(OpenError::Refused(refused(&response))),
            Ok(Err(error)) => Err(OpenError::Broken(error.to_string())),
            Err(_) => Err(OpenError::Broken("no answer to the upgrade".into())),
        }
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text.to_owned())).await.expect("the socket is open");
    }

    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    /// Sends a message and returns the id of its ack, passing over everything else.
    pub async fn publish(&mut self, payload: Value) -> String {
        let reference = uuid::Uuid::new_v4().to_string();
        self.send(json!({ "payload": payload, "ref": reference })).await;
        loop {
            let event = self.next().await;
            if event["ref"] == reference.as_str() {
                assert_eq!(event["type"], "ack", "{event}");
                return event["id"].as_str().expect("an id").to_owned();
            }
        }
    }

    /// The next frame of the protocol; pings are answered on the way.
    pub async fn next(&mut self) -> Value {
        match self.next_or_close().await {
            Ok(event) => event,
            Err(close) => panic!("closed: {close:?}"),
        }
    }

    /// The next message with a payload.
    pub async fn message(&mut self) -> Value {
        loop {
            let event = self.next().await;
            if !event["payload"].is_null() {
                return event;
            }
        }
    }

    /// The next frame, or the code and reason of the close; `None`: none was sent. May be dropped and called again.
    pub async fn next_or_close(&mut self) -> Result<Value, Option<(u16, String)>> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(Message::Close(frame))) => {
                    self.close = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(_)) => {}
                // After the closing handshake, or without one.
                Some(Err(_)) | None => return Err(self.close.take()),
            }
        }
    }

    /// Reads to the close.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(close) = self.next_or_close().await {
                return close.expect("a close frame");
            }
        }
    }

    /// Closes and returns the server's answer.
    pub async fn leave(&mut self) -> Option<(u16, String)> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.socket.close(Some(frame)).await.expect("the socket is open");
        loop {
            if let Err(close) = self.next_or_close().await {
                return close;
            }
        }
    }

    /// Returns once the socket has joined its rooms. What arrives meanwhile is passed over: the node may still be on its way to a message that
    /// is acknowledged already.
    pub async fn joined(&mut self) {
        self.send(json!({ "type": "ping", "ref": "joined" })).await;
        while self.next().await != json!({ "type": "pong", "ref": "joined" }) {}
    }

    /// Returns once the server has answered; by then the socket has joined its rooms. Nothing else may arrive meanwhile.
    pub async fn ping(&mut self) {
        self.send(json!({ "type": "ping", "ref": "joined" })).await;
        assert_eq!(self.next().await, json!({ "type": "pong", "ref": "joined" }));
    }

    /// Nothing is there: a pong is the next thing to arrive, and nothing within a moment after it.
    pub async fn quiet(&mut self) {
        self.ping().await;
        let moment = tokio::time::sleep(Duration::from_millis(200));
        tokio::pin!(moment);
        loop {
            tokio::select! {
                () = &mut moment => return,
                more = self.socket.next() => {
                    let heartbeat = matches!(more, Some(Ok(Message::Ping(_))));
                    assert!(heartbeat, "{more:?}");
                }
            }
        }
    }
}

fn refused(response: &Response<Option<Vec<u8>>>) -> Refused {
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect();
    // The client library keeps what came with the head, which is all of so small a body.
    let body = response.body().clone().unwrap_or_default();
    Refused { status: response.status().as_u16(), headers, problem: serde_json::from_slice(&body).unwrap_or_default() }
}
