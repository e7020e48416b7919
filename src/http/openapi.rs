//! The OpenAPI document, derived from the handlers.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{Problem, docs::print, presence, rooms, users, ws};
use crate::protocol::schema;

#[derive(OpenApi)]
#[openapi(
    info(title = "chat-api", description = "Real-time chat over WebSockets. The frames on the socket are in asyncapi.json; docs/protocol.md has both in words."),
    paths(ws::lobby, ws::room, rooms::publish, rooms::history, presence::presence, users::revoke),
    components(schemas(Problem)),
    tags(
        (name = "WebSocket", description = "Sockets: one message, one text frame of JSON"),
        (name = "Rooms", description = "Publishing and reading without a socket"),
        (name = "Users", description = "For administrators"),
    ),
    modifiers(&Bearer),
)]
struct Document;

/// Tokens, where the server asks for them.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The document as JSON, ready to print.
pub fn document() -> serde_json::Result<String> {
    let mut document = serde_json::to_value(Document::openapi())?;
    schema::without_null(&mut document);
    print(&document)
}
