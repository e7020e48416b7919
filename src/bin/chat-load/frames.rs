//! WebSocket frames out of a stream of bytes, and into one. The format itself is tungstenite's.

use std::io::Cursor;

use anyhow::Context as _;
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame, FrameHeader,
    coding::{Data, OpCode},
};

/// What is left of a stream after its last whole frame.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    /// Takes what was read and hands over each whole frame: its header, its payload as on the wire, its length with both.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&FrameHeader, &[u8], usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.rest.is_empty() {
            let used = split(bytes, &mut each)?;
            self.rest.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            self.rest.extend_from_slice(bytes);
            let used = split(&self.rest, &mut each)?;
            self.rest.drain(..used);
        }
        Ok(())
    }
}

/// Returns the length of the whole frames.
fn split(
    bytes: &[u8],
    each: &mut impl FnMut(&FrameHeader, &[u8], usize) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let mut used = 0;
    while let Some(rest) = bytes.get(used..) {
        let mut cursor = Cursor::new(rest);
        let Some((header, length)) = FrameHeader::parse(&mut cursor)? else { break };
        let start = usize::try_from(cursor.position())?;
        let end = start.checked_add(usize::try_from(length)?).context("a frame longer than memory")?;
        let Some(payload) = rest.get(start..end) else { break };
        each(&header, payload, end)?;
        used += end;
    }
    Ok(used)
}

/// Appends a client's text frame.
pub(crate) fn masked_text(text: String, into: &mut Vec<u8>) -> anyhow::Result<()> {
    append(Frame::message(text, OpCode::Data(Data::Text), true), Some(fastrand::u32(..).to_ne_bytes()), into)
}

/// Appends a client's pong.
pub(crate) fn masked_pong(payload: Vec<u8>, into: &mut Vec<u8>) -> anyhow::Result<()> {
    append(Frame::pong(payload), Some(fastrand::u32(..).to_ne_bytes()), into)
}

/// Appends a client's close frame, without a code.
pub(crate) fn masked_close(into: &mut Vec<u8>) -> anyhow::Result<()> {
    append(Frame::close(None), Some(fastrand::u32(..).to_ne_bytes()), into)
}

/// Appends a server's text frame.
pub(crate) fn text(text: Vec<u8>, into: &mut Vec<u8>) -> anyhow::Result<()> {
    append(Frame::message(text, OpCode::Data(Data::Text), true), None, into)
}

/// Length of the text in a server's frame of that length.
pub(crate) fn text_bytes(frame_bytes: usize) -> usize {
    let headers = [2, 4, 10];
    let text = headers.map(|header| frame_bytes.saturating_sub(header));
    let fits = text.into_iter().find(|text| FrameHeader::default().len(*text as u64) + text == frame_bytes);
    fits.unwrap_or(text[2])
}

fn append(mut frame: Frame, mask: Option<[u8; 4]>, into: &mut Vec<u8>) -> anyhow::Result<()> {
    frame.header_mut().mask = mask;
    Ok(frame.format(into)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_and_its_frame_tell_each_others_length() {
        for length in [0, 125, 126, 0xffff, 0x10000] {
            let mut frame = Vec::new();
            text(vec![b'x'; length], &mut frame).unwrap();
            assert_eq!(text_bytes(frame.len()), length);
        }
    }

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let texts = ["a".to_owned(), "b".repeat(125), "c".repeat(126), "d".repeat(70_000)];
        let mut stream = Vec::new();
        texts.iter().for_each(|some| text(some.clone().into_bytes(), &mut stream).unwrap());
        for piece in [1, 3, 127, 4096, stream.len()] {
            let (mut frames, mut found, mut bytes) = (Frames::default(), Vec::new(), 0);
            for some in stream.chunks(piece) {
                let take = |_: &FrameHeader, payload: &[u8], length| {
                    found.push(String::from_utf8(payload.to_vec())?);
                    bytes += length;
                    Ok(())
                };
                frames.feed(some, take).unwrap();
            }
            assert_eq!(found, texts, "pieces of {piece}");
            assert_eq!(bytes, stream.len());
        }
    }
}
