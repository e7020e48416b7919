//! What stands in a request's head besides its token: room, query and positions, each refused by name.

use axum::{
    extract::{Path, Query, rejection::PathRejection},
    http::Uri,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::Problem;
use crate::protocol::{MessageId, ProblemCode, RoomName};

/// The query of what takes none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// The room of the path.
pub(super) fn room_name(room: Result<Path<String>, PathRejection>) -> Result<RoomName, Problem> {
    let refuse = |detail| Problem::new(ProblemCode::InvalidRoom, detail);
    let Path(room) = room.map_err(|rejection| refuse(rejection.body_text()))?;
    RoomName::new(&room).map_err(|error| refuse(error.to_string()))
}

/// The query. A parameter that is not known is an error: it would be a typing mistake.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let Query(query) =
        Query::try_from_uri(uri).map_err(|rejection| Problem::new(ProblemCode::InvalidQuery, rejection.body_text()))?;
    Ok(query)
}

/// A position, under the name that it was given by.
pub(super) fn message_id(name: &str, text: &str) -> Result<MessageId, Problem> {
    text.parse().map_err(|error| Problem::new(ProblemCode::InvalidPosition, format!("`{name}`: {error}")))
}
