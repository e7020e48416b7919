//! A WebSocket frame, encoded once and then only counted references.
//!
//! Only this module makes a [`Frame`], so what reaches a socket is framed by construction.

use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;

use super::Close;

/// Longest frame header a server sends: 2 bytes and a length of 8 (RFC 6455 §5.2; a server does not mask).
const HEADER: usize = 10;
const FIN_TEXT: u8 = 0x81;
const FIN_CLOSE: u8 = 0x88;
const FIN_PING: u8 = 0x89;

/// One or more whole server frames, ready for the socket; cloning counts a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// A text frame around `value` as JSON, of about so many bytes: what is kept in a log should not be twice as large as it is long.
    pub(super) fn json(value: &impl Serialize, about: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEADER + about);
        buffer.resize(HEADER, 0);
        // Writing to memory cannot fail, and our own types all serialize.
        let encoded = serde_json::to_writer(&mut buffer, value);
        debug_assert!(encoded.is_ok());
        Self::finish(FIN_TEXT, buffer)
    }

    /// A text or binary frame around any payload: what an echo sends.
    #[cfg(test)]
    pub(crate) fn data(first: u8, payload: &[u8]) -> Self {
        Self::finish(first, [&[0; HEADER], payload].concat())
    }

    /// A close frame.
    #[must_use]
    pub(crate) fn close(close: Close) -> Self {
        Self::closing(Some((close.code(), &close.reason())))
    }

    /// A close frame in answer to one: with its code and reason, if it has any.
    #[must_use]
    pub(crate) fn closing(status: Option<(u16, &str)>) -> Self {
        let mut buffer = vec![0; HEADER];
        if let Some((code, reason)) = status {
            buffer.extend(code.to_be_bytes());
            buffer.extend(reason.bytes());
        }
        Self::finish(FIN_CLOSE, buffer)
    }

    /// The heartbeat.
    #[must_use]
    pub(crate) fn ping() -> Self {
        Self(Bytes::from_static(&[FIN_PING, 0]))
    }

    /// Frames one after the other, as one piece.
    #[must_use]
    pub(crate) fn join<'a>(frames: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let mut first = frames.clone();
        if let (Some(one), None) = (first.next(), first.next()) {
            return one.clone();
        }
        let mut bytes = Vec::with_capacity(frames.clone().map(Self::wire_len).sum());
        frames.for_each(|frame| bytes.extend_from_slice(&frame.0));
        Self(bytes.into())
    }

    /// Length on the wire in bytes.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.0.len()
    }

    /// The JSON in a single text frame.
    #[must_use]
    pub fn json_text(&self) -> &[u8] {
        let header = match self.0.get(1) {
            Some(126) => 4,
            Some(127) => HEADER,
            _ => 2,
        };
        self.0.get(header..).unwrap_or_default()
    }

    /// What goes to the socket.
    #[must_use]
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Writes the header into the room left in front of the payload.
    fn finish(first: u8, mut buffer: Vec<u8>) -> Self {
        let payload = buffer.len() - HEADER;
        let mut header = [0_u8; HEADER];
        header[0] = first;
        let used = match payload {
            0..=125 => {
                header[1] = payload as u8;
                2
            }
            126..=0xffff => {
                header[1] = 126;
                header[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
                4
            }
            _ => {
                header[1] = 127;
                header[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        let start = HEADER - used;
        let written = (&mut buffer[start..HEADER]).write(&header[..used]);
        debug_assert!(written.is_ok());
        Self(Bytes::from(buffer).slice(start..))
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::{
        CloseFrame,
        frame::{
            Frame as Reference,
            coding::{Data, OpCode},
        },
    };

    use super::*;

    /// What tungstenite would send.
    fn encoded(reference: Reference) -> Vec<u8> {
        let mut bytes = Vec::new();
        reference.format(&mut bytes).unwrap();
        bytes
    }

    fn text(payload: &str) -> Vec<u8> {
        encoded(Reference::message(payload.to_owned(), OpCode::Data(Data::Text), true))
    }

    #[test]
    fn text_frames_equal_tungstenites_at_each_length_of_header() {
        for length in [0, 1, 123, 124, 65_533, 65_534, 70_000] {
            let value = "x".repeat(length);
            let payload = format!("\"{value}\"");
            let frame = Frame::json(&value, 100);
            assert!(frame.bytes() == &text(&payload), "length {length}");
            assert!(frame.json_text() == payload.as_bytes(), "length {length}");
        }
    }

    #[test]
    fn control_frames_equal_tungstenites() {
        assert_eq!(Frame::ping().bytes(), &encoded(Reference::ping(Vec::new())));
        for close in Close::ALL.into_iter().chain([Close::Restart { after_ms: u64::MAX }]) {
            let reference = CloseFrame { code: close.code().into(), reason: close.reason().into() };
            assert_eq!(Frame::close(close).bytes(), &encoded(Reference::close(Some(reference))), "{close:?}");
        }
    }

    #[test]
    fn joined_frames_equal_tungstenites_one_after_the_other() {
        let values = ["a".to_owned(), "b".repeat(200), "c".repeat(70_000)];
        let frames = values.each_ref().map(|value| Frame::json(value, value.len()));
        let expected = values.each_ref().map(|value| text(&format!("\"{value}\"")));
        for n in 1..=frames.len() {
            assert!(Frame::join(frames[..n].iter()).bytes() == &expected[..n].concat(), "{n} frames");
        }
    }
}
