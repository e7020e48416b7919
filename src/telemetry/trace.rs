//! stub
use crate::protocol::{MessageId, RoomName};
use std::{fmt, str::FromStr};
use tracing::Span;
/// stub
#[derive(Debug, Clone)]
pub struct TraceContext(String);
impl FromStr for TraceContext {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Ok(Self(s.into()))
    }
}
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
/// stub
#[derive(Debug, Clone)]
pub struct Tracing;
impl Tracing {
    /// stub
    pub fn receive(&self, _: Option<&TraceContext>, _: &RoomName) -> Span {
        Span::none()
    }
}
/// stub
pub fn publish(_: &Span, _: &RoomName, _: &'static str) -> Span {
    Span::none()
}
/// stub
pub fn deliver(_: &TraceContext, _: &RoomName, _: MessageId) -> Span {
    Span::none()
}
/// stub
pub fn context_of(_: &Span) -> Option<TraceContext> {
    None
}
