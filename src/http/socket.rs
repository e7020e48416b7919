//! One client's side of the protocol: its frames become commands, answers go to its connection.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tracing::{Instrument as _, Span};

use super::{Service, joins::Joins};
use crate::{
    auth::{AuthError, Identity},
    broadcaster::{Counted, Draft, PublishError, SENDER_AGE, Sender, Stamp},
    config,
    hub::{Attached, Connection, Receive},
    limits::{Bucket, Rate},
    metrics::Limit,
    protocol::{Close, Command, ErrorCode, Event, Frame, MessageId, Outcome, Publish, Refusal, RoomName, Token},
    telemetry::trace::{self, TraceContext},
};

/// What a refused publish is told to wait.
const RETRY_AFTER_MS: u64 = 1000;

/// See the module.
pub(super) struct Socket<'a> {
    service: &'a Service,
    connection: &'a Connection,
    attached: &'a Attached,
    joins: &'a Joins<'a>,
    /// Of the path: where a frame without a room goes.
    room: RoomName,
    /// Of the upgrade request; a message's own goes before it.
    trace: Option<TraceContext>,
    /// As the client calls itself when it counts; given once.
    sender: Option<String>,
    messages: u64,
    frames: Bucket,
    /// Of what was refused for its rate: who goes on is flooding.
    refused: Bucket,
}

/// How fast one connection may send.
#[derive(Debug, Clone, Copy)]
pub struct FrameRates {
    frames: Rate,
    /// Rooms to join.
    pub(super) subscribes: Rate,
}

impl FrameRates {
    /// As configured.
    #[must_use]
    pub fn new(limits: &config::Limits) -> Self {
        Self { frames: limits.message_rate(), subscribes: limits.subscribe_rate() }
    }
}

impl Receive for &mut Socket<'_> {
    async fn receive(&mut self, text: &str) {
        if self.messages == 0 {
            self.attached.joined().await;
        }
        self.messages += 1;
        self.service.metrics.messages_in.inc();
        self.service.metrics.bytes_in.inc_by(text.len() as u64);
        let command = Command::decode(text);
        let (reference, n) = command.as_ref().map(Command::tags).unwrap_or_default();
        if let Err(wait) = self.frames.take(self.service.frame_rates.frames, Instant::now()) {
            return self.too_fast(wait, reference, n);
        }
        let answer = match command {
            Ok(Command::Auth { token, reference }) => Box::pin(self.renew(&token, reference.as_deref())).await,
            Ok(Command::Ping { reference }) => Ok(Some(Event::Pong { r#ref: reference.as_deref() }.frame())),
            Ok(Command::Publish(publish)) => self.publish(&publish).await,
            Ok(Command::Subscribe { rooms, reference }) => self.subscribe(rooms, reference.as_deref()),
            Ok(Command::Unsubscribe { room, reference }) => self.unsubscribe(&room, reference.as_deref()).await,
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(Some(frame)) => self.connection.send(&frame),
            Ok(None) => {}
            Err(refusal) => refuse(self.service, self.connection, &refusal),
        }
    }
}

impl<'a> Socket<'a> {
    pub(super) fn new(
        service: &'a Service,
        connection: &'a Connection,
        attached: &'a Attached,
        joins: &'a Joins<'a>,
        room: RoomName,
        trace: Option<TraceContext>,
    ) -> Self {
        Self {
            service,
            connection,
            attached,
            joins,
            room,
            trace,
            sender: None,
            messages: 0,
            frames: Bucket::default(),
            refused: Bucket::default(),
        }
    }

    /// Answers a frame over the rate; who does not mind the answers is closed.
    fn too_fast(&mut self, wait: Duration, reference: Option<&str>, n: Option<u64>) {
        self.service.metrics.limited(Limit::Messages).inc();
        if self.refused.take(self.service.frame_rates.frames, Instant::now()).is_err() {
            return self.connection.close(Close::Flooding);
        }
        let refusal = rate_limited("you send faster than one connection may".into(), wait, reference);
        refuse(self.service, self.connection, &Refusal { n, ..refusal });
    }

    /// What only a session may ask for.
    fn for_sessions(&self, what: &str, reference: Option<&str>) -> Result<(), Refusal> {
        if self.connection.is_session() {
            return Ok(());
        }
        let message = format!("a plain socket cannot `{what}`: open a session with the subprotocol `chat.v1`");
        Err(Refusal::new(ErrorCode::InvalidMessage, message, reference))
    }

    /// The answers come with the joins.
    fn subscribe(
        &self,
        rooms: Vec<(RoomName, Option<MessageId>)>,
        reference: Option<&str>,
    ) -> Result<Option<Frame>, Refusal> {
        self.for_sessions("subscribe", reference)?;
        self.joins.ask(rooms, reference);
        Ok(None)
    }

    async fn unsubscribe(&self, room: &RoomName, reference: Option<&str>) -> Result<Option<Frame>, Refusal> {
        self.for_sessions("unsubscribe", reference)?;
        self.joins.forget(room);
        if self.attached.leave(room).await {
            return Ok(Some(Event::Unsubscribed { room: room.as_str(), reason: None, r#ref: reference }.frame()));
        }
        let message = format!("this session is not in `{room}`");
        Err(Refusal::new(ErrorCode::NotSubscribed, message, reference))
    }

    /// Goes on with a newer token of the same user. Once this is answered, nothing comes from rooms that it does not allow.
    async fn renew(&self, token: &Token<'_>, reference: Option<&str>) -> Result<Option<Frame>, Refusal> {
        let authenticator = &self.service.authenticator;
        if !authenticator.asks_for_tokens() {
            let message = "this server asks for no token: there is none to renew";
            return Err(Refusal::new(ErrorCode::InvalidMessage, message, reference));
        }
        match authenticator.identify(Some(token.expose())).await {
            Ok(identity) if identity.user.as_ref() == self.connection.user() => {
                self.adopt(identity).await;
                Ok(Some(Event::Ack { r#ref: reference, n: None, id: None }.frame()))
            }
            Ok(_) => Ok(self.unauthorized(AuthError::AnotherUser)),
            Err(AuthError::KeysAway) => {
                self.service.metrics.auth_failure(AuthError::KeysAway.reason()).inc();
                Err(unavailable(AuthError::KeysAway.to_string(), Outcome::Refused, reference))
            }
            Err(error) => Ok(self.unauthorized(error)),
        }
    }

    /// Its token does not count: it has to come back with another.
    fn unauthorized(&self, error: AuthError) -> Option<Frame> {
        self.service.metrics.auth_failure(error.reason()).inc();
        self.connection.close(Close::Unauthorized { reason: error.reason() });
        None
    }

    /// From now on the client may do what this identity may: rooms are left that it may not read, and the lobby is joined if it now may.
    async fn adopt(&self, identity: Identity) {
        let lobby = RoomName::lobby();
        let lobby_opens = !self.connection.permissions().reads(&lobby) && identity.permissions.reads(&lobby);
        let allowed = identity.permissions.clone();
        self.attached.renew(identity);
        let lost: Vec<_> = self.attached.rooms().into_iter().filter(|room| !allowed.reads(room)).collect();
        lost.iter().for_each(|room| self.joins.forget(room));
        join_all(lost.iter().map(|room| self.attached.leave(room))).await;
        for room in &lost {
            if self.connection.is_session() {
                let reason = Some(ErrorCode::Forbidden);
                self.connection.send(&Event::Unsubscribed { room: room.as_str(), reason, r#ref: None }.frame());
            } else if *room == self.room {
                self.connection.close(Close::Forbidden);
            }
        }
        if lobby_opens && !self.attached.is_in(&lobby) {
            self.joins.ask(vec![(lobby.clone(), None)], None);
            self.attached.ready(&lobby).await;
        }
    }

    /// Frames so far.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Everything that happens to the message here is in its span, if it is traced: a refusal too.
    async fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<Frame>, Refusal> {
        let room = publish.room.clone().unwrap_or_else(|| self.room.clone());
        let span = {
            let own: Option<TraceContext> = publish.traceparent.as_deref().and_then(|text| text.parse().ok());
            self.service.tracing.receive(own.as_ref().or(self.trace.as_ref()), &room, self.connection.id())
        };
        let answer = self.check_and_append(publish, room, &span).instrument(span.clone()).await;
        if let Err(refusal) = &answer {
            trace::failed(&span, refusal.code.as_str());
        }
        answer
    }

    async fn check_and_append(
        &mut self,
        publish: &Publish<'_>,
        room: RoomName,
        span: &Span,
    ) -> Result<Option<Frame>, Refusal> {
        let reference = publish.reference.as_deref();
        let n = publish.count.map(|count| count.n);
        let refuse = |code, message: String| Refusal { n, ..Refusal::new(code, message, reference) };
        if !self.connection.permissions().publishes(&room) {
            return Err(refuse(ErrorCode::Forbidden, format!("you may not publish to `{room}`")));
        }
        if !self.attached.is_in(&room) {
            let message = if self.connection.is_session() {
                format!("this session is not in `{room}`: subscribe first")
            } else {
                format!("this socket is in `{}` and the lobby only: open one in `{room}`", self.room)
            };
            return Err(refuse(ErrorCode::NotSubscribed, message));
        }
        if room.as_str() == RoomName::LOBBY
            && let Err(wait) = self.service.gate.lobby_message()
        {
            let message = "the lobby takes no more messages at the moment: everyone hears them";
            return Err(Refusal { n, ..rate_limited(message.into(), wait, reference) });
        }
        self.attached.ready(&room).await; // its own message is to reach it
        let counted = self.counted(publish).map_err(|message| refuse(ErrorCode::InvalidMessage, message.into()))?;
        match self.append(publish, room, counted, span).await {
            Ok(id) if reference.is_some() || n.is_some() => Ok(Some(Event::Ack { r#ref: reference, n, id }.frame())),
            Ok(_) => Ok(None),
            Err(error) => Err(not_stored(&error, reference, n)),
        }
    }

    /// The sender is said once per connection, before or with its first counted message.
    fn counted(&mut self, publish: &Publish<'_>) -> Result<Option<Counted>, &'static str> {
        match (&self.sender, publish.sender.as_deref()) {
            (Some(known), Some(said)) if known != said => {
                return Err("`sender` is another one than before: one per socket");
            }
            (None, Some(said)) => self.sender = Some(said.to_owned()),
            _ => {}
        }
        match (&self.sender, publish.count) {
            (_, None) => Ok(None),
            (Some(sender), Some(count)) => {
                let sender = Sender::Client(sender.clone());
                Ok(Some(Counted { sender, count, keep: SENDER_AGE }))
            }
            (None, Some(_)) => Err("`n` counts a sender's messages: give `sender` once before or with it"),
        }
    }

    /// Hands the message to the hub.
    async fn append(
        &self,
        publish: &Publish<'_>,
        room: RoomName,
        counted: Option<Counted>,
        span: &Span,
    ) -> Result<Option<MessageId>, PublishError> {
        let draft = Draft {
            room,
            kind: publish.kind.clone().into_owned(),
            client: self.connection.id(),
            user: self.connection.user().cloned(),
            payload: publish.payload.to_owned(),
            counted,
            ephemeral: publish.ephemeral,
            trace: None,
            received: Stamp::now(),
        };
        self.service.publish(span, draft).await
    }
}

/// Of what comes too fast.
pub(super) fn rate_limited(message: String, wait: Duration, reference: Option<&str>) -> Refusal {
    let mut refusal = Refusal::new(ErrorCode::RateLimited, message, reference);
    refusal.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1));
    refusal
}

/// Tells a client that something was refused.
pub(super) fn refuse(service: &Service, connection: &Connection, refusal: &Refusal) {
    service.metrics.refusal(refusal.code).inc();
    connection.send(&refusal.frame());
}

/// Refused, and worth another try.
pub(super) fn unavailable(message: String, outcome: Outcome, reference: Option<&str>) -> Refusal {
    let mut refusal = Refusal::new(ErrorCode::Unavailable, message, reference);
    refusal.outcome = Some(outcome);
    refusal.retry_after_ms = Some(RETRY_AFTER_MS);
    refusal
}

/// Why the log did not take a message, for its sender.
fn not_stored(error: &PublishError, reference: Option<&str>, n: Option<u64>) -> Refusal {
    let mut refusal = match error {
        PublishError::Gap { last_n } => {
            let mut refusal = Refusal::new(ErrorCode::Gap, error.to_string(), reference);
            refusal.last_n = Some(*last_n);
            refusal
        }
        PublishError::Refused | PublishError::Unknown => unavailable(error.to_string(), error.outcome(), reference),
    };
    refusal.n = n;
    refusal
}
