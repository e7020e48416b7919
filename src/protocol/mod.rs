//! The words of the wire: names, positions, commands, events, frames, codes.
//!
//! Owns every rule about what bytes mean. Does no I/O and knows neither rooms nor sockets.

mod close;
mod command;
mod decode;
mod event;
mod frame;
#[cfg(test)]
mod fuzz;
mod name;
mod payload;
mod presence;
mod problem;
mod refusal;
pub mod schema;

pub use close::Close;
pub use command::{Command, Count, Publish, RESERVED_TYPES, Token};
pub(crate) use event::Delivery;
pub use event::{ErrorCode, Event, Limits, Message, Outcome};
pub use frame::Frame;
pub use name::{ClientId, InvalidId, InvalidName, MessageId, RoomName, UserId};
pub use presence::{Occupant, Roster};
pub use problem::ProblemCode;
pub use refusal::Refusal;
