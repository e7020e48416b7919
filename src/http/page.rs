//! The chat page under a strict content security policy, and the client that it is built on.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::{
    Problem,
    files::{CSS, HTML, JS, SVG, TYPES, file},
};
use crate::protocol::ProblemCode;

/// Nothing but our own files, and nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/` and `/assets/…`.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let index = async |headers: HeaderMap| strict(file(&headers, HTML, include_str!("page/index.html")));
    Router::new().route("/", get(index)).route("/assets/{name}", get(asset))
}

/// For other pages too: `client.js` and `client.d.ts`.
pub(super) fn client<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let script = async |headers: HeaderMap| file(&headers, JS, include_str!("client/client.js"));
    let types = async |headers: HeaderMap| file(&headers, TYPES, include_str!("client/client.d.ts"));
    Router::new().route("/api/chat-api/client.js", get(script)).route("/api/chat-api/client.d.ts", get(types))
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let (content_type, body) = match name.as_str() {
        "chat.js" => (JS, include_str!("page/chat.js")),
        "conversation.js" => (JS, include_str!("page/conversation.js")),
        "frames.js" => (JS, include_str!("page/frames.js")),
        "panel.js" => (JS, include_str!("page/panel.js")),
        "people.js" => (JS, include_str!("page/people.js")),
        "rows.js" => (JS, include_str!("page/rows.js")),
        "session.js" => (JS, include_str!("page/session.js")),
        "status.js" => (JS, include_str!("page/status.js")),
        "store.js" => (JS, include_str!("page/store.js")),
        "timeline.js" => (JS, include_str!("page/timeline.js")),
        "token.js" => (JS, include_str!("page/token.js")),
        "palette.css" => (CSS, include_str!("page/palette.css")),
        "chat.css" => (CSS, include_str!("page/chat.css")),
        "timeline.css" => (CSS, include_str!("page/timeline.css")),
        "icon.svg" => (SVG, include_str!("page/icon.svg")),
        _ => return Problem::new(ProblemCode::NotFound, "the page has no such file").into_response(),
    };
    strict(file(&headers, content_type, body))
}

/// Under the policy.
pub(super) fn strict(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
