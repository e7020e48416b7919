//! Names, ids and positions as JSON schemas.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use crate::protocol::{ClientId, MessageId, RoomName, UserId};

/// The pattern of a room's name, but for `.` and `..`.
const ROOM: &str = "^(?!\\.{1,2}$)[A-Za-z0-9_.-]{1,128}$";
/// Where a message of a log stands, as in its `id`.
const POSITION: &str = "^[0-9]{1,16}-[0-9]{1,16}$";
/// The same, or nothing.
const MAYBE_POSITION: &str = "^([0-9]{1,16}-[0-9]{1,16})?$";

/// A text with a grammar.
fn text(description: &str, pattern: Option<&str>, example: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description)).pattern(pattern);
    Schema::from(text.examples([example]).build()).into()
}

/// Rooms with their positions.
pub(in crate::protocol) fn positions() -> Schema {
    let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some(ROOM));
    let position = ObjectBuilder::new().schema_type(Type::String).pattern(Some(MAYBE_POSITION));
    let rooms = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("Rooms, each with the position from which to take it up again, or with an empty text."))
        .min_properties(Some(1))
        .property_names(Some(Schema::from(name.build())))
        .additional_properties(Some(Schema::from(position.build())));
    rooms.build().into()
}

impl PartialSchema for RoomName {
    fn schema() -> RefOr<Schema> {
        text("The name of a room; case counts.", Some(ROOM), "general")
    }
}

impl PartialSchema for UserId {
    fn schema() -> RefOr<Schema> {
        text("A user: `sub` of the token. 1 to 128 characters without control characters.", None, "alice")
    }
}

impl PartialSchema for ClientId {
    fn schema() -> RefOr<Schema> {
        text(
            "One connection, unique over all nodes and time.",
            Some("^[0-9a-f]{32}$"),
            "019346a7d8f27c3e8a51b2c3d4e5f607",
        )
    }
}

impl PartialSchema for MessageId {
    fn schema() -> RefOr<Schema> {
        let description = "A position in a room's log, and what `after` takes. An opaque text: compare it for equality only, and only within \
                           its room. `0-0` is before the first message.";
        text(description, Some(POSITION), "1764000000000-42")
    }
}

impl ToSchema for RoomName {}
impl ToSchema for UserId {}
impl ToSchema for ClientId {}
impl ToSchema for MessageId {}
