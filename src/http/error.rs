//! The one error of the HTTP edge: a problem body (RFC 9457).

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{self, ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, ResponseBuilder, Schema, schema::Type},
};

use crate::protocol::{Outcome, ProblemCode};

/// What whoever is refused for now is told to wait, in seconds, where nothing better is known.
const RETRY_AFTER_S: u64 = 1;

/// Why a request was refused, as `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` says the kind.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Unauthorized")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 401)]
    status: u16,
    /// A word for programs, from a closed list.
    #[schema(schema_with = codes)]
    code: ProblemCode,
    /// What was wrong and what to do, for people.
    #[schema(
        example = "a token is required: send `Authorization: Bearer <jwt>`, or the subprotocols `chat.v1, bearer.<jwt>`"
    )]
    detail: String,
    /// For a publish: `refused`, or `unknown` when it may be stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = outcomes, required = false)]
    outcome: Option<Outcome>,
    /// Seconds until another try makes sense, where one does.
    #[serde(skip)]
    retry_after: u64,
    /// What the code leaves open, for the log: a word from a closed list.
    #[serde(skip)]
    reason: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let status = status(code);
        let title = status.canonical_reason().unwrap_or_default();
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            code,
            detail: detail.into(),
            outcome: None,
            retry_after: RETRY_AFTER_S,
            reason: None,
        }
    }

    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = (wait.as_secs_f64().ceil() as u64).max(RETRY_AFTER_S);
        self
    }

    pub(super) fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    pub(super) fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(super) fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    pub(super) fn code(&self) -> ProblemCode {
        self.code
    }
}

fn status(code: ProblemCode) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (status(self.code), self.retry_after);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::UNAUTHORIZED => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::UPGRADE_REQUIRED => headers.insert(header::UPGRADE, HeaderValue::from_static("websocket")),
            // The rest of the body is not wanted.
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => close(headers),
            StatusCode::TOO_MANY_REQUESTS => headers.insert(header::RETRY_AFTER, retry_after.into()),
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, retry_after.into());
                close(headers) // the next try should reach another node
            }
            _ => None,
        };
        response
    }
}

fn close(headers: &mut axum::http::HeaderMap) -> Option<HeaderValue> {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"))
}

fn codes() -> Schema {
    words(ProblemCode::ALL.map(ProblemCode::as_str))
}

fn outcomes() -> Schema {
    words([Outcome::Refused, Outcome::Unknown].map(Outcome::as_str))
}

/// The schema of a closed list.
fn words<const N: usize>(words: [&str; N]) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
}

/// Answers by status, for the OpenAPI document.
pub(super) type Responses = BTreeMap<String, RefOr<openapi::Response>>;

/// What an operation may be refused with.
pub(super) fn responses(codes: &[ProblemCode]) -> Responses {
    let mut meanings: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for code in codes {
        meanings.entry(code.status()).or_default().push(format!("`{}`: {}", code.as_str(), code.meaning()));
    }
    let described = meanings.into_iter().map(|(status, meanings)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let mut response =
            ResponseBuilder::new().description(meanings.join("; ")).content("application/problem+json", content);
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].iter().any(|again| *again == status) {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer);
            let header = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds until another try"));
            response = response.header("Retry-After", header.build());
        }
        (status.to_string(), response.build().into())
    });
    described.collect()
}
