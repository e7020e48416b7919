//! The chat page: static files in the binary, under a strict content security policy.

use axum::{
    Router,
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use super::Problem;
use crate::protocol::ProblemCode;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
/// Nothing but our own files, and nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/` and `/assets/…`.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let index = || async { file(HTML, include_str!("page/index.html")) };
    Router::new().route("/", get(index)).route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>) -> Response {
    match name.as_str() {
        "chat.js" => file(JS, include_str!("page/chat.js")),
        "rows.js" => file(JS, include_str!("page/rows.js")),
        "store.js" => file(JS, include_str!("page/store.js")),
        "connection.js" => file(JS, include_str!("page/connection.js")),
        "chat.css" => file(CSS, include_str!("page/chat.css")),
        "icon.svg" => file(SVG, include_str!("page/icon.svg")),
        _ => Problem::new(ProblemCode::NotFound, "the page has no such file").into_response(),
    }
}

fn file(content_type: &'static str, body: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, body).into_response()
}
