//! REST beside the sockets: publishing into a room's log and reading it.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes, to_bytes},
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use http_body_util::LengthLimitError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;
use tracing::Instrument as _;
use utoipa::{IntoResponses, ToSchema};

use super::{
    Problem, Service, access,
    error::{Responses, responses},
    gate,
    request::{Nothing, message_id, query, room_name},
};
use crate::{
    broadcaster::{Counted, Draft, Publication, PublishError, Relation, Sender, Stamp, Stretch},
    hub::ConnectionLimits,
    protocol::{
        ClientId, Command, Count, Delivery, ErrorCode, MessageId, Occupant, ProblemCode, Publish, RoomName, UserId,
    },
    telemetry::trace::{self, TraceContext},
};

/// How long an `Idempotency-Key` is remembered.
const KEY_AGE: Duration = Duration::from_secs(15 * 60);
/// Longest `Idempotency-Key`, in characters.
const LONGEST_KEY: usize = 64;
/// Messages in an answer, unless asked for less, and at most.
const PAGE: (usize, usize) = (50, 200);
/// Longest that a read of the log may take.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes of messages in an answer: what a client that does not read can hold here, as long as `limits.outbox_age` lets it.
const PAGE_BYTES: usize = 512 * 1024;

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
    /// W3C trace context; goes before the header of that name.
    traceparent: Option<String>,
}

/// Where a message stands in its room's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Published {
    /// Its position; absent where only that it was stored is still known.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<MessageId>,
}

/// A stretch of a room's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History<'a> {
    /// Oldest first, each as on a socket.
    #[schema(value_type = Vec<Delivery<'static>>)]
    messages: Vec<&'a RawValue>,
    /// Whether they touch the position asked for exactly. If not: after a position they begin with the oldest kept, before it there are none.
    recovered: bool,
    /// What the client has after this position was lost; the messages follow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback: Option<MessageId>,
    /// The log's last position: `?after=` for a socket that goes on from here, when nothing newer was left out.
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

/// What a publish may be refused with.
struct PublishRefusals;

impl IntoResponses for PublishRefusals {
    fn responses() -> Responses {
        responses(&ProblemCode::OF_PUBLISHES)
    }
}

/// What a read may be refused with.
struct ReadRefusals;

impl IntoResponses for ReadRefusals {
    fn responses() -> Responses {
        responses(&ProblemCode::OF_READS)
    }
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
        ("Idempotency-Key" = Option<String>, Header, description = "The caller's own word for this message; a secret where callers are anonymous", min_length = 1, max_length = 64),
        ("traceparent" = Option<String>, Header, description = "W3C trace context that the server's spans continue"),
    ),
    request_body(content = NewMessage, example = json!({"type": "note", "payload": {"text": "hi"}})),
    responses((status = 201, description = "Stored", body = Published), PublishRefusals),
    security((), ("bearer" = [])),
)]
pub(super) async fn publish(
    State(service): State<Arc<Service>>,
    room: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (_, identity) = access::check(&service, &headers, None).await?;
    let room = room_name(room)?;
    if !identity.permissions.publishes(&room) {
        return Err(access::forbidden("publish to", &room));
    }
    let Nothing {} = query(&uri)?;
    check_content_type(&headers)?;
    let client = ClientId::random();
    let user = identity.user;
    allow(&service, &room, client, user.as_ref())?;
    let body = read(body, &service.limits).await?;
    let text =
        std::str::from_utf8(&body).map_err(|_| Problem::new(ProblemCode::InvalidJson, "the body is not UTF-8"))?;
    let message = message(text)?;
    let counted = idempotency_key(&headers)?.map(|key| Counted {
        sender: Sender::Key(key.to_owned()),
        count: Count { n: 1, base: 1 },
        keep: KEY_AGE,
    });

    service.metrics.messages_in.inc();
    service.metrics.bytes_in.inc_by(message.payload.get().len() as u64);
    let parent = message.traceparent.as_deref().or_else(|| headers.get("traceparent")?.to_str().ok());
    let parent: Option<TraceContext> = parent.and_then(|text| text.parse().ok());
    let span = service.tracing.receive(parent.as_ref(), &room, client);
    let draft = Draft {
        room: room.clone(),
        kind: message.kind.into_owned(),
        client,
        user,
        payload: message.payload.to_owned(),
        counted,
        ephemeral: false,
        trace: None,
        received: Stamp::now(),
    };
    let stored = service.publish(&span, draft).instrument(span.clone()).await;
    let id = stored
        .map_err(|error| not_stored(&service, &error))
        .inspect_err(|problem| trace::failed(&span, problem.code().as_str()))?;
    service.gate.published_to(&room);
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
        ("limit" = Option<usize>, Query, description = "At most so many, 50 by default", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Oldest first", body = History<'_>), ReadRefusals),
    security((), ("bearer" = [])),
)]
pub(super) async fn history(
    State(service): State<Arc<Service>>,
    room: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, identity) = access::check(&service, &headers, None).await?;
    let room = room_name(room)?;
    if !identity.permissions.reads(&room) {
        return Err(access::forbidden("read", &room));
    }
    let (stretch, limit) = query::<Part>(&uri)?.stretch()?;
    let unavailable = |detail: String| Problem::new(ProblemCode::Unavailable, detail);
    let page = timeout(READ_DEADLINE, service.hub.history(&room, stretch, limit)).await;
    let page = page.map_err(|_| unavailable("the message log did not answer in time".into()))?;
    let mut page = page.map_err(|error| unavailable(error.to_string()))?;
    fit(&mut page.publications, matches!(stretch, Stretch::After(_)));
    let texts = page.publications.iter().map(|publication| serde_json::from_slice(publication.frame.json_text()));
    let messages = texts.collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(%room, %error, "a message of the log is no JSON");
        Problem::new(ProblemCode::Bug, "a message of the log cannot be read")
    })?;
    let rollback = match page.relation {
        Relation::Rollback(to) => Some(to),
        Relation::Exact | Relation::Reset => None,
    };
    let recovered = page.relation != Relation::Reset;
    let history = History { messages, recovered, rollback, top: page.top };
    let text = serde_json::to_vec(&history).map_err(|error| {
        tracing::error!(%room, %error, "a page of the log cannot be written");
        Problem::new(ProblemCode::Bug, "the messages cannot be written as JSON")
    })?;
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ];
    Ok((headers, service.gate.answer(text)?).into_response())
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
        let refuse = |detail: String| Err(Problem::new(ProblemCode::InvalidQuery, detail));
        let stretch = match (self.after.as_deref(), self.before.as_deref(), self.through.as_deref()) {
            (None, None, None) => Stretch::Newest,
            (Some(after), None, None) => Stretch::After(message_id("after", after)?),
            (None, Some(before), None) => Stretch::Before(message_id("before", before)?),
            (None, None, Some(through)) => {
                let MessageId { epoch, seq } = message_id("through", through)?;
                Stretch::Before(MessageId { epoch, seq: seq + 1 })
            }
            _ => return refuse("give one of `after`, `before` and `through`".into()),
        };
        let limit = self.limit.unwrap_or(PAGE.0);
        if !(1..=PAGE.1).contains(&limit) {
            return refuse(format!("`limit` is 1 to {}", PAGE.1));
        }
        Ok((stretch, limit))
    }
}

/// The limits of sockets, as far as there is somebody to count for.
fn allow(service: &Service, room: &RoomName, client: ClientId, user: Option<&UserId>) -> Result<(), Problem> {
    let too_fast = |wait| {
        let detail = "messages come faster than they may: wait a moment";
        Problem::new(ProblemCode::RateLimited, detail).retry_after(wait)
    };
    if let Some(user) = user {
        service.gate.request(user).map_err(too_fast)?;
    }
    if room.as_str() == RoomName::LOBBY {
        return service.gate.lobby_message().map_err(too_fast);
    }
    if service.hub.has_room(room) || service.gate.was_published_to(room) {
        return Ok(());
    }
    let occupant = user.cloned().map_or(Occupant::Anonymous(client), Occupant::User);
    service.gate.new_room(&occupant).map_err(gate::new_rooms)
}

/// JSON, or nothing said. A form or plain text would be a mistake somewhere; browsers also send those without asking first.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    if kind.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = "the body is JSON: send `Content-Type: application/json`, or none";
    Err(Problem::new(ProblemCode::ContentType, detail))
}

/// A body within its limit and in time: whoever sends it slowly holds a socket for as long.
async fn read(body: Body, limits: &ConnectionLimits) -> Result<Bytes, Problem> {
    let (longest, deadline) = (limits.message_bytes(), limits.message_deadline());
    match timeout(deadline, to_bytes(body, longest)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) => {
            Err(Problem::new(ProblemCode::TooLarge, format!("the body is longer than {longest} bytes")))
        }
        Ok(Err(error)) => Err(Problem::new(ProblemCode::InvalidJson, format!("the body broke off: {error}"))),
        Err(_) => Err(Problem::new(ProblemCode::Timeout, format!("the body did not arrive within {deadline:?}"))),
    }
}

/// The body is a socket's frame without what only a socket needs.
fn message(text: &str) -> Result<Publish<'_>, Problem> {
    let command = Command::decode(text).map_err(|refusal| Problem::new(refusal.code.into(), refusal.message))?;
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
        _ => {
            let detail = "a message has `payload`, and may have `type` and `traceparent`";
            Err(Problem::new(ProblemCode::InvalidMessage, detail))
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    let detail = format!("`Idempotency-Key` is 1 to {LONGEST_KEY} characters of ASCII");
    key.map(Some).ok_or_else(|| Problem::new(ProblemCode::InvalidKey, detail))
}

fn not_stored(service: &Service, error: &PublishError) -> Problem {
    service.metrics.refusal(ErrorCode::Unavailable).inc();
    Problem::new(ProblemCode::Unavailable, error.to_string()).outcome(error.outcome())
}
