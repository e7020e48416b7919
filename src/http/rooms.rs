//! REST beside the sockets: publishing into a room's log and reading it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes, to_bytes},
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{Problem, Service, access, gate, ws};
use crate::{
    broadcaster::{Counted, Draft, Publication, PublishError, Relation, Sender, Stretch},
    hub::ConnectionLimits,
    protocol::{ClientId, Command, Count, ErrorCode, MessageId, Occupant, Publish, RoomName, UserId},
    telemetry::trace::TraceContext,
};

/// How long an `Idempotency-Key` is remembered.
const KEY_AGE: Duration = Duration::from_secs(15 * 60);
/// Longest `Idempotency-Key`, in characters.
const LONGEST_KEY: usize = 64;
/// Messages in an answer, unless asked for less, and at most.
const PAGE: (usize, usize) = (50, 200);
/// Longest that a read of the log may take.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes of messages in an answer: what a client that does not read can hold here.
const PAGE_BYTES: usize = 512 * 1024;
/// Seconds until another try makes sense.
const RETRY_AFTER_S: u64 = 1;

/// A message to publish.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "for the document only: bodies are decoded as the sockets' frames are")]
pub(super) struct NewMessage {
    /// The sender's own word; `chat` when absent.
    #[serde(rename = "type")]
    #[schema(example = "chat")]
    kind: Option<String>,
    /// Any JSON.
    #[schema(value_type = Value)]
    payload: serde_json::Value,
    /// W3C trace context; the header of that name does as well.
    traceparent: Option<String>,
}

/// Where a message stands in its room's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Published {
    /// Its position; absent where only that it was stored is still known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1764000000000-42")]
    id: Option<MessageId>,
}

/// A stretch of a room's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History<'a> {
    /// Oldest first, each as on a socket.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<&'a RawValue>,
    /// Whether they touch the position asked for exactly. If not: after a position they begin with the oldest kept, before it there are none.
    recovered: bool,
    /// What the client has after this position was lost; the messages follow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1764000000000-39")]
    rollback: Option<MessageId>,
    /// The log's last position: `?after=` for a socket that goes on from here, when nothing newer was left out.
    #[schema(value_type = String, example = "1764000000000-42")]
    top: MessageId,
}

/// The query of a read: one position at most.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    after: Option<String>,
    before: Option<String>,
    through: Option<String>,
    limit: Option<usize>,
}

/// Publish a message into a room.
///
/// `201` once the room's log has it. With an `Idempotency-Key`, a repetition within 15 minutes is stored once and answered with the same id.
#[utoipa::path(
    post,
    path = "/api/chat-api/rooms/{room}/messages",
    tag = "Rooms",
    params(
        ("room" = String, Path, description = "The room", pattern = "^[A-Za-z0-9_.-]{1,128}$", example = "general"),
        ("Idempotency-Key" = Option<String>, Header, description = "The caller's own word for this message, 1 to 64 characters; a secret where callers are anonymous"),
    ),
    request_body = NewMessage,
    responses(
        (status = 201, description = "Stored", body = Published),
        (status = 400, description = "No message, or no room name", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Authentication is required and the token is missing or not valid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The page's origin is not allowed, or the token does not allow this room", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Longer than a message may be", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too fast: `Retry-After` says how long to wait", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The log could not take it: `outcome` says whether it may be stored", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = [])),
)]
pub(super) async fn publish(
    State(service): State<Arc<Service>>,
    room: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (_, identity) = access::check(&service, &headers, None).await?;
    let room = room_name(room)?;
    if !identity.permissions.publishes(&room) {
        return Err(access::forbidden("publish to", &room));
    }
    let client = ClientId::random();
    let user = identity.user;
    allow(&service, &room, client, user.as_ref())?;
    let body = read(body, &service.limits).await?;
    let text = std::str::from_utf8(&body).map_err(|_| bad_request("invalid_json", "the body is not UTF-8"))?;
    let message = message(text)?;
    let counted = idempotency_key(&headers)?.map(|key| Counted {
        sender: Sender::Key(key.to_owned()),
        count: Count { n: 1, base: 1 },
        keep: KEY_AGE,
    });

    service.metrics.messages_in.inc();
    let parent = message.traceparent.as_deref().or_else(|| headers.get("traceparent")?.to_str().ok());
    let parent: Option<TraceContext> = parent.and_then(|text| text.parse().ok());
    let draft = Draft {
        room,
        kind: message.kind.into_owned(),
        client,
        user,
        payload: message.payload.to_owned(),
        counted,
        ephemeral: false,
        trace: None,
    };
    let id = service.publish(parent.as_ref(), draft).await.map_err(|error| not_stored(&service, &error))?;
    Ok((StatusCode::CREATED, Json(Published { id })).into_response())
}

/// Read a room's log.
///
/// Without a position: the newest messages. `after` and `before` exclude the position given, `through` includes it.
#[utoipa::path(
    get,
    path = "/api/chat-api/rooms/{room}/messages",
    tag = "Rooms",
    params(
        ("room" = String, Path, description = "The room", pattern = "^[A-Za-z0-9_.-]{1,128}$", example = "general"),
        ("after" = Option<String>, Query, description = "What follows this message; `0-0`: from the beginning"),
        ("before" = Option<String>, Query, description = "What comes right before this message"),
        ("through" = Option<String>, Query, description = "The same, and this message"),
        ("limit" = Option<usize>, Query, description = "At most so many: 1 to 200, 50 by default"),
    ),
    responses(
        (status = 200, description = "Oldest first", body = History<'_>),
        (status = 400, description = "No room name, or no position", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Authentication is required and the token is missing or not valid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The page's origin is not allowed, or the token does not allow this room", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read at the moment", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("bearer" = [])),
)]
pub(super) async fn history(
    State(service): State<Arc<Service>>,
    room: Result<Path<String>, PathRejection>,
    part: Result<Query<Part>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, identity) = access::check(&service, &headers, None).await?;
    let room = room_name(room)?;
    if !identity.permissions.reads(&room) {
        return Err(access::forbidden("read", &room));
    }
    let Query(part) = part.map_err(|rejection| bad_request("query", rejection.body_text()))?;
    let (stretch, limit) = part.stretch()?;
    let page = timeout(READ_DEADLINE, service.hub.history(&room, stretch, limit)).await;
    let page = page.map_err(|_| unavailable("the message log did not answer in time".into()))?;
    let mut page = page.map_err(|error| unavailable(error.to_string()))?;
    fit(&mut page.publications, matches!(stretch, Stretch::After(_)));
    let texts = page.publications.iter().map(|publication| serde_json::from_slice(publication.frame.json_text()));
    let messages = texts.collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(%room, %error, "a message of the log is no JSON");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "a message of the log cannot be read")
    })?;
    let rollback = match page.relation {
        Relation::Rollback(to) => Some(to),
        Relation::Exact | Relation::Reset => None,
    };
    let recovered = page.relation != Relation::Reset;
    let history = History { messages, recovered, rollback, top: page.top };
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, Json(history)).into_response())
}

/// Cuts a page to its bytes, at the end that is farther from the position; never to nothing.
fn fit(publications: &mut Vec<Publication>, from_start: bool) {
    let mut bytes = 0;
    let mut fits = |publication: &Publication| {
        bytes += publication.frame.wire_len();
        bytes <= PAGE_BYTES
    };
    let count = if from_start {
        publications.iter().take_while(|publication| fits(publication)).count()
    } else {
        publications.iter().rev().take_while(|publication| fits(publication)).count()
    };
    let count = count.max(1).min(publications.len());
    if from_start {
        publications.truncate(count);
    } else {
        publications.drain(..publications.len() - count);
    }
}

impl Part {
    fn stretch(&self) -> Result<(Stretch, usize), Problem> {
        let position = |key: &str, text: &str| {
            text.parse::<MessageId>().map_err(|error| bad_request("position", format!("`{key}`: {error}")))
        };
        let stretch = match (self.after.as_deref(), self.before.as_deref(), self.through.as_deref()) {
            (None, None, None) => Stretch::Newest,
            (Some(after), None, None) => Stretch::After(position("after", after)?),
            (None, Some(before), None) => Stretch::Before(position("before", before)?),
            (None, None, Some(through)) => {
                let MessageId { epoch, seq } = position("through", through)?;
                Stretch::Before(MessageId { epoch, seq: seq + 1 })
            }
            _ => return Err(bad_request("query", "give one of `after`, `before` and `through`")),
        };
        let limit = self.limit.unwrap_or(PAGE.0);
        if !(1..=PAGE.1).contains(&limit) {
            return Err(bad_request("query", format!("`limit` is 1 to {}", PAGE.1)));
        }
        Ok((stretch, limit))
    }
}

/// The limits of sockets, as far as there is somebody to count for.
fn allow(service: &Service, room: &RoomName, client: ClientId, user: Option<&UserId>) -> Result<(), Problem> {
    let too_fast = |wait| {
        let detail = "messages come faster than they may: wait a moment";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(gate::seconds(wait))
    };
    if let Some(user) = user {
        service.gate.request(user).map_err(too_fast)?;
    }
    if room.as_str() == RoomName::LOBBY {
        return service.gate.lobby_message().map_err(too_fast);
    }
    if service.hub.has_room(room) {
        return Ok(());
    }
    let occupant = user.cloned().map_or(Occupant::Anonymous(client), Occupant::User);
    service.gate.new_room(&occupant).map_err(ws::new_rooms)
}

/// A body within its limit and in time: whoever sends it slowly holds a socket for as long.
async fn read(body: Body, limits: &ConnectionLimits) -> Result<Bytes, Problem> {
    let longest = limits.message_bytes();
    match timeout(limits.message_deadline(), to_bytes(body, longest)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => {
            let detail = format!("the body is longer than {longest} bytes, or broke off");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", detail))
        }
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body", "the body did not arrive in time")),
    }
}

fn bad_request(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail)
}

pub(super) fn unavailable(detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(RETRY_AFTER_S)
}

pub(super) fn room_name(room: Result<Path<String>, PathRejection>) -> Result<RoomName, Problem> {
    let Path(room) = room.map_err(|rejection| bad_request("room", rejection.body_text()))?;
    RoomName::new(&room).map_err(|error| bad_request("room", error.to_string()))
}

/// The body is a socket's frame without what only a socket needs.
fn message(text: &str) -> Result<Publish<'_>, Problem> {
    let command = Command::decode(text).map_err(|refusal| bad_request(refusal.code.as_str(), refusal.message))?;
    match command {
        Command::Publish(message)
            if message.room.is_none()
                && message.reference.is_none()
                && !message.ephemeral
                && message.sender.is_none()
                && message.count.is_none() =>
        {
            Ok(message)
        }
        _ => Err(bad_request("invalid_message", "a message has `payload`, and may have `type` and `traceparent`")),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    let detail = format!("`Idempotency-Key` is 1 to {LONGEST_KEY} characters of ASCII");
    key.map(Some).ok_or_else(|| bad_request("idempotency_key", detail))
}

fn not_stored(service: &Service, error: &PublishError) -> Problem {
    service.metrics.refusal(ErrorCode::Unavailable).inc();
    unavailable(error.to_string()).outcome(error.outcome())
}
