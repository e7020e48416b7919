//! The reference: OpenAPI for HTTP and AsyncAPI for the sockets, as documents for programs and as one page for people.

use std::sync::LazyLock;

use axum::{
    Router,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{
    Problem, asyncapi,
    files::{CSS, HTML, JS, JSON, file},
    openapi,
    page::strict,
};
use crate::protocol::ProblemCode;

/// Made once: they say the same as long as the process lives.
static OPENAPI: LazyLock<serde_json::Result<String>> = LazyLock::new(openapi::document);
static ASYNCAPI: LazyLock<serde_json::Result<String>> = LazyLock::new(asyncapi::document);

/// `/docs` with its files, and what it shows.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let index = async |headers: HeaderMap| strict(file(&headers, HTML, include_str!("docs/docs.html")));
    let script = async |headers: HeaderMap| strict(file(&headers, JS, include_str!("docs/docs.js")));
    let schemas = async |headers: HeaderMap| strict(file(&headers, JS, include_str!("docs/schemas.js")));
    let style = async |headers: HeaderMap| strict(file(&headers, CSS, include_str!("docs/docs.css")));
    let openapi = async |headers: HeaderMap| document(&headers, &OPENAPI);
    let asyncapi = async |headers: HeaderMap| document(&headers, &ASYNCAPI);
    Router::new()
        .route("/docs", get(index))
        .route("/assets/docs.js", get(script))
        .route("/assets/schemas.js", get(schemas))
        .route("/assets/docs.css", get(style))
        .route("/api/chat-api/openapi.json", get(openapi))
        .route("/api/chat-api/asyncapi.json", get(asyncapi))
}

/// What a reader of a document wants to see first.
const FIRST: [&str; 8] = ["openapi", "asyncapi", "id", "info", "tags", "servers", "channels", "paths"];

/// A document, ready to print.
pub(super) fn print(document: &Value) -> serde_json::Result<String> {
    struct Ordered<'a>(&'a Value);
    impl Serialize for Ordered<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let first = FIRST.iter().filter_map(|key| Some((*key, self.0.get(key)?)));
            let all = self.0.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value));
            serializer.collect_map(first.chain(all.filter(|(key, _)| !FIRST.contains(key))))
        }
    }
    serde_json::to_string_pretty(&Ordered(document))
}

fn document(headers: &HeaderMap, json: &'static serde_json::Result<String>) -> Response {
    match json {
        Ok(json) => file(headers, JSON, json.as_str()),
        Err(error) => Problem::new(ProblemCode::Bug, error.to_string()).into_response(),
    }
}
