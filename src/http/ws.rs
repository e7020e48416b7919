//! The WebSocket endpoints: who may upgrade, and the life of a socket from there.
//!
//! Everything that can refuse a client does so before the 101. What a client says after it is `socket`'s.

use std::{
    io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use utoipa::IntoResponses;

use super::{
    Problem, Service, access, address,
    error::{Responses, responses},
    gate::{self, Place},
    joins::Joins,
    request::{message_id, query, room_name},
    socket::Socket,
    timed::Timed,
};
use crate::{
    auth::{Identity, Offer},
    hub::{Connection, Ending, Joined},
    metrics::Metrics,
    protocol::{ClientId, Close, Event, Frame, Limits, MessageId, Occupant, ProblemCode, RoomName, UserId},
    telemetry::{
        RECORD,
        trace::{self, TraceContext},
    },
};

/// The kinds of sockets: messages and answers only; or many rooms, and told of everything.
pub(super) const PLAIN: &str = "chat.plain";
pub(super) const SESSION: &str = "chat.v1";

/// The query of an upgrade. Never printed: a token may stand in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Id of the last message that the client has: what followed it is sent first.
    after: Option<String>,
    /// Taken only where `auth.query_token` says so.
    token: Option<String>,
}

/// What an upgrade may be refused with.
struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> Responses {
        responses(&ProblemCode::OF_UPGRADES)
    }
}

/// Open a socket in the lobby.
///
/// What is sent here reaches everyone, whatever room they opened. Frames are JSON text: asyncapi.json.
#[utoipa::path(
    get,
    path = "/api/chat-api/ws",
    tag = "WebSocket",
    params(
        ("after" = Option<String>, Query, description = "Id of the last message the client has; what followed it is sent first"),
        ("token" = Option<String>, Query, description = "The token, for clients that can send it in no other way; refused unless `auth.query_token` is on"),
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "`chat.plain` (the default) or `chat.v1`; browsers add their token as a second one, `bearer.<jwt>`"),
    ),
    responses((status = 101, description = "Switching protocols: the socket is open"), Refusals),
    security((), ("bearer" = [])),
)]
pub(super) async fn lobby(State(service): State<Arc<Service>>, request: Request) -> Response {
    respond(&service, Ok(RoomName::lobby()), request).await
}

/// Open a socket in a room.
///
/// What is sent here reaches that room only; what is sent to the lobby is received too.
#[utoipa::path(
    get,
    path = "/api/chat-api/ws/{room}",
    tag = "WebSocket",
    params(
        ("room" = String, Path, description = "The room", pattern = "^[A-Za-z0-9_.-]{1,128}$", example = "general"),
        ("after" = Option<String>, Query, description = "Id of the last message the client has; what followed it is sent first"),
        ("token" = Option<String>, Query, description = "The token, for clients that can send it in no other way; refused unless `auth.query_token` is on"),
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "`chat.plain` (the default) or `chat.v1`; browsers add their token as a second one, `bearer.<jwt>`"),
    ),
    responses((status = 101, description = "Switching protocols: the socket is open"), Refusals),
    security((), ("bearer" = [])),
)]
pub(super) async fn room(
    State(service): State<Arc<Service>>,
    room: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    respond(&service, room_name(room), request).await
}

async fn respond(service: &Arc<Service>, room: Result<RoomName, Problem>, request: Request) -> Response {
    let trace = traceparent(request.headers());
    let upgraded = async { upgrade(service, room?, request).await };
    upgraded.await.unwrap_or_else(|problem| {
        let code = problem.code().as_str();
        service.metrics.upgrade_failure(problem.code()).inc();
        trace::within(trace.as_ref(), || tracing::info!(code, reason = problem.reason(), "an upgrade was refused"));
        problem.into_response()
    })
}

/// What a client was let in as.
struct Admission {
    client: ClientId,
    session: bool,
    identity: Identity,
    room: RoomName,
    after: Option<MessageId>,
    trace: Option<TraceContext>,
    /// Held until the socket ends.
    place: Place,
}

/// Checks everything, answers 101, and leaves the socket to a task of its own.
async fn upgrade(service: &Arc<Service>, room: RoomName, mut request: Request) -> Result<Response, Problem> {
    if !service.accepting.load(Ordering::Acquire) {
        return Err(Problem::new(ProblemCode::Draining, "this node is going away; another one takes you"));
    }
    let mut response = handshake(&request)?;
    let (after, token) = parameters(&request)?;
    let headers = request.headers();
    let (offer, identity) = access::check(service, headers, token.as_deref()).await?;
    let protocol = negotiate(&offer)?;
    let session = protocol == Some(SESSION);
    // A session can do without the lobby: it subscribes to other rooms.
    let needed = !session || room.as_str() != RoomName::LOBBY;
    if needed && !identity.permissions.reads(&room) {
        return Err(access::forbidden("read", &room));
    }
    if service.hub.connection_count() >= service.connections_max {
        let detail = "this node holds as many connections as it may; another one takes you";
        return Err(Problem::new(ProblemCode::Full, detail));
    }
    // After all that tells whether it may: who is refused must not use up what the others need.
    service.gate.upgrade()?;
    let client = ClientId::random();
    if room.as_str() != RoomName::LOBBY && !service.hub.has_room(&room) {
        let occupant = identity.user.clone().map_or(Occupant::Anonymous(client), Occupant::User);
        service.gate.new_room(&occupant).map_err(gate::new_rooms)?;
    }
    let address = address::client(peer(&request), headers, &service.trusted_proxies);
    let place = service.gate.admit(identity.user.as_ref(), address)?;
    if let Some(protocol) = protocol {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let trace = traceparent(headers);
    let admission = Admission { client, session, identity, room, after, trace, place };
    let socket = hyper::upgrade::on(&mut request);
    service.tasks.spawn(open(service.clone(), socket, admission));
    Ok(response)
}

fn peer(request: &Request) -> SocketAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(SocketAddr::from(([0; 4], 0)), |peer| peer.0)
}

fn handshake(request: &Request) -> Result<Response, Problem> {
    let upgrades =
        request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !upgrades {
        let detail = "this is a WebSocket endpoint: open it with a WebSocket client";
        return Err(Problem::new(ProblemCode::Upgrade, detail));
    }
    create_response_with_body(request, Body::empty)
        .map_err(|error| Problem::new(ProblemCode::InvalidHandshake, error.to_string()))
}

/// The subprotocol to answer with.
fn negotiate(offer: &Offer) -> Result<Option<&'static str>, Problem> {
    let refuse = |detail: &str| Err(Problem::new(ProblemCode::InvalidProtocol, detail));
    let known = |offered: &String| [PLAIN, SESSION].into_iter().find(|kind| kind == offered);
    if let Some(kind) = offer.protocols.iter().find_map(known) {
        return Ok(Some(kind));
    }
    if offer.bearer_only {
        return refuse(
            "offer `chat.v1` or `chat.plain` beside `bearer.<jwt>`: a browser drops a socket whose offer was not answered",
        );
    }
    if offer.protocols.is_empty() {
        return Ok(None);
    }
    refuse("the subprotocols are `chat.v1` and `chat.plain`; or offer none")
}

/// Where to resume, and a token.
fn parameters(request: &Request) -> Result<(Option<MessageId>, Option<String>), Problem> {
    let Parameters { after, token } = query(request.uri())?;
    let after = after.map(|after| message_id("after", &after)).transpose()?;
    Ok((after, token))
}

fn traceparent(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

/// Takes the socket back from the HTTP stack and leaves it to a task that has room for serving it and nothing else.
async fn open(service: Arc<Service>, upgrade: OnUpgrade, admission: Admission) {
    let opened = take(upgrade).await.and_then(|(socket, leftover)| {
        let connection = connect(&service, socket, &admission).map_err(|error| error.to_string())?;
        Ok((connection, leftover))
    });
    match opened {
        Ok((connection, leftover)) => {
            let tasks = service.tasks.clone();
            tasks.spawn(serve(service, connection, leftover, admission));
        }
        Err(error) => tracing::debug!(error, client_id = %admission.client, "the upgrade was not completed"),
    }
}

/// The socket, and what was read from it behind the request.
async fn take(upgrade: OnUpgrade) -> Result<(TcpStream, Vec<u8>), String> {
    let upgraded = upgrade.await.map_err(|error| error.to_string())?;
    let parts = upgraded.downcast::<TokioIo<Timed>>().map_err(|_| "not a TCP socket")?;
    // Copied, so that hyper's own buffer is not kept for the life of the socket.
    Ok((parts.io.into_inner().into_inner(), parts.read_buf.to_vec()))
}

fn connect(service: &Service, socket: TcpStream, admission: &Admission) -> io::Result<Connection> {
    let identity = admission.identity.clone();
    Connection::new(socket, admission.client, identity, admission.session, service.limits.clone())
}

/// The life of a socket. Not an `async fn`, which would carry each argument twice.
fn serve(
    service: Arc<Service>,
    connection: Connection,
    leftover: Vec<u8>,
    admission: Admission,
) -> impl Future<Output = ()> + Send {
    let Admission { client: client_id, room, after, trace, place, .. } = admission;
    let connection = Arc::new(connection);
    let opened = Instant::now();
    let user_id = connection.user().map_or("-", UserId::as_str);
    trace::within(trace.as_ref(), || tracing::info!(target: RECORD, %client_id, user_id, %room, "connected"));

    let mut rooms = vec![RoomName::lobby()];
    rooms.retain(|lobby| connection.permissions().reads(lobby) && *lobby != room);
    if connection.permissions().reads(&room) {
        rooms.push(room.clone());
    }
    let attached = service.hub.attach(connection.clone(), rooms);
    // What was taken away between the check and this moment.
    if let Some(error) =
        connection.voucher().and_then(|voucher| service.authenticator.refuses(connection.user(), &voucher))
    {
        connection.close(Close::Unauthorized { reason: error.reason() });
    }
    async move {
        let joins = Joins::new(&service, &connection, &attached);
        let mut socket = Socket::new(&service, &connection, &attached, &joins, room.clone(), trace);
        let running = async {
            let joined = async {
                let welcome = |rooms: &[Joined]| welcome(&service, &connection, rooms);
                Box::pin(attached.join(after, welcome)).await; // boxed: its memory is given back once the rooms are joined
                joins.run().await
            };
            tokio::select! {
                biased; // into the rooms before the first frame is read
                never = joined => match never {},
                ending = connection.run(leftover, &mut socket) => ending,
            }
        };
        // A bug in handling one client's message is that client's 1011 and nobody else's concern.
        let Ending { code, reason } = match AssertUnwindSafe(running).catch_unwind().await {
            Ok(ending) => ending,
            Err(_) => connection.fail().await,
        };
        let messages = socket.messages();
        drop((attached, place));
        note_end(&service.metrics, &connection, code, opened.elapsed());
        let user_id = connection.user().map_or("-", UserId::as_str);
        let seconds = opened.elapsed().as_secs_f64();
        tracing::info!(target: RECORD, %client_id, user_id, %room, code, reason = ?reason, seconds, messages, "disconnected");
    }
}

fn note_end(metrics: &Metrics, connection: &Connection, code: u16, open: Duration) {
    metrics.closed(code).inc();
    metrics.connection_seconds.observe(open.as_secs_f64());
    if code == Close::Slow.code() {
        metrics.slow_close_bytes.observe(connection.evicted() as f64);
    }
}

/// A session's first frame.
fn welcome(service: &Service, connection: &Connection, rooms: &[Joined]) -> Frame {
    let welcome = Event::Welcome {
        client_id: connection.id(),
        from: connection.user().map(UserId::as_str),
        node: &service.node,
        heartbeat_ms: u64::try_from(service.heartbeat.as_millis()).unwrap_or(u64::MAX),
        limits: Limits { message_bytes: service.limits.message_bytes(), rooms: service.rooms_max },
        rooms: rooms.iter().map(|joined| (joined.room.as_str(), joined.position)).collect(),
        presence: rooms.iter().filter_map(|joined| Some((joined.room.as_str(), joined.roster.clone()?))).collect(),
    };
    welcome.frame()
}

#[cfg(test)]
mod conformance;
