//! Who is in a room, as clients are told.

use serde::Serialize;
use utoipa::ToSchema;

use super::{ClientId, UserId};

/// Somebody in a room: a user, however many connections they have, or an anonymous connection by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
pub enum Occupant {
    /// As in a message's `from`.
    #[serde(rename = "from")]
    User(UserId),
    /// As in a message's `client_id`.
    #[serde(rename = "client_id")]
    Anonymous(ClientId),
}

/// Everybody in a room, over all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Roster {
    /// How many.
    pub count: usize,
    /// Who, in order; absent where they are more than `presence.events_max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub here: Option<Vec<Occupant>>,
}

impl Roster {
    /// Of these, listed if they are at most `most`.
    #[must_use]
    pub fn of(mut here: Vec<Occupant>, most: usize) -> Self {
        here.sort_unstable();
        here.dedup();
        Self { count: here.len(), here: (here.len() <= most).then_some(here) }
    }

    /// The same with `occupant` among them, if they are listed.
    #[must_use]
    pub fn with(mut self, occupant: &Occupant) -> Self {
        if let Some(here) = &mut self.here
            && let Err(index) = here.binary_search(occupant)
        {
            here.insert(index, occupant.clone());
            self.count += 1;
        }
        self
    }

    /// Who is listed here and not in `other`.
    #[must_use]
    pub fn without<'a>(&'a self, other: &Self) -> Vec<&'a Occupant> {
        let there = other.here.as_deref().unwrap_or_default();
        self.here.iter().flatten().filter(|occupant| there.binary_search(occupant).is_err()).collect()
    }
}
