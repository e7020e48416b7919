//! Servers that are broken on purpose: a node behind a proxy that drops, doubles, swaps or leaks one delivered message.
//!
//! It understands as much of WebSocket as it needs: the end of the upgrade's answer, and the frames behind it, which a server never masks.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::Value;

use crate::support::proxy::Tamper;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    Drop,
    Duplicate,
    /// With the next message of its room on the same connection.
    Swap,
    /// A copy comes to a connection that is not in its room.
    Leak,
}

/// All connections of all nodes together: which delivery is to be changed, and what became of it.
pub struct Plot {
    mutation: Mutation,
    /// Counted from 0 over all connections.
    victim: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    deliveries: usize,
    /// A frame to be leaked, and its room.
    leaking: Option<(Vec<u8>, String)>,
    done: bool,
}

impl Plot {
    pub fn new(mutation: Mutation, victim: usize) -> Arc<Self> {
        Arc::new(Self { mutation, victim, state: Mutex::default() })
    }

    /// The change was made.
    pub fn is_done(&self) -> bool {
        self.state.lock().done
    }

    pub fn tamper(self: &Arc<Self>) -> Box<dyn Tamper> {
        Box::new(Mutant { plot: self.clone(), upgraded: false, rest: Vec::new(), rooms: HashSet::new(), held: None })
    }
}

/// One connection.
struct Mutant {
    plot: Arc<Plot>,
    upgraded: bool,
    /// The begun frame.
    rest: Vec<u8>,
    /// All rooms that were ever named on it.
    rooms: HashSet<String>,
    /// A frame that waits for the next of its room.
    held: Option<(Vec<u8>, String)>,
}

impl Tamper for Mutant {
    fn down(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(bytes.len());
        if !self.upgraded {
            let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") else { return out };
            out.extend(self.rest.drain(..end + 4));
            self.upgraded = true;
        }
        while let Some(length) = frame_length(&self.rest) {
            let frame: Vec<u8> = self.rest.drain(..length).collect();
            self.pass(frame, &mut out);
        }
        out
    }
}

impl Mutant {
    fn pass(&mut self, frame: Vec<u8>, out: &mut Vec<u8>) {
        let Some((room, message)) = self.look(&frame) else { return out.extend(frame) };
        if let Some((held, _)) = self.held.take_if(|(_, of)| message && *of == room) {
            out.extend(frame);
            return out.extend(held);
        }
        let state = &mut *self.plot.state.lock();
        if let Some((leaked, _)) = state.leaking.take_if(|(_, of)| self.rooms.len() > 1 && !self.rooms.contains(of)) {
            out.extend(leaked);
            state.done = true;
        }
        let victim = message && state.deliveries == self.plot.victim;
        state.deliveries += usize::from(message);
        if !victim {
            return out.extend(frame);
        }
        match self.plot.mutation {
            Mutation::Drop => {}
            Mutation::Duplicate => out.extend([&frame[..], &frame[..]].concat()),
            Mutation::Swap => self.held = Some((frame, room)),
            Mutation::Leak => {
                out.extend(&frame);
                state.leaking = Some((frame, room));
                return;
            }
        }
        state.done = true;
    }

    /// The room that a frame names, and whether it is a stored message.
    fn look(&mut self, frame: &[u8]) -> Option<(String, bool)> {
        let json: Value = serde_json::from_slice(payload(frame)?).ok()?;
        let named = json["rooms"].as_object().into_iter().flatten().map(|(room, _)| room.clone());
        self.rooms.extend(named);
        let room = json["room"].as_str()?.to_owned();
        self.rooms.insert(room.clone());
        let lobby = room == crate::client::LOBBY;
        Some((room, !json["payload"].is_null() && json["id"].is_string() && !lobby))
    }
}

/// Where the payload of an unmasked frame begins and ends; `None`: the head is not there yet.
fn extent(bytes: &[u8]) -> Option<(usize, usize)> {
    let (head, length) = match *bytes.get(1)? {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short & 0x7f)),
    };
    Some((head, head + usize::try_from(length).ok()?))
}

/// The length of the whole frame that the bytes begin with.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    extent(bytes).map(|(_, end)| end).filter(|end| *end <= bytes.len())
}

fn payload(frame: &[u8]) -> Option<&[u8]> {
    let text = *frame.first()? == 0x81;
    let (start, end) = extent(frame)?;
    frame.get(start..end).filter(|_| text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn frame(json: &Value) -> Vec<u8> {
        let text = json.to_string();
        let mut frame = vec![0x81];
        match text.len() {
            short @ ..=125 => frame.push(short as u8),
            long => frame.extend([&[126_u8][..], &(long as u16).to_be_bytes()].concat()),
        }
        frame.extend(text.as_bytes());
        frame
    }

    fn message(room: &str, n: usize) -> Vec<u8> {
        frame(&json!({ "id": format!("1-{n}"), "room": room, "payload": { "pad": "x".repeat(n * 60) } }))
    }

    /// What comes out, whatever the pieces in which it went in.
    fn mutate(plot: &Arc<Plot>, rooms: &[&str], frames: &[Vec<u8>], piece: usize) -> Vec<u8> {
        let mut tamper = plot.tamper();
        let mut out = Vec::new();
        let rooms: HashMap<_, _> = rooms.iter().map(|room| (*room, "0-0")).collect();
        let bytes = [b"HTTP/1.1 101 x\r\n\r\n".to_vec(), frame(&json!({ "rooms": rooms })), frames.concat()].concat();
        bytes.chunks(piece).for_each(|piece| out.extend(tamper.down(piece)));
        let head = bytes.len() - frames.concat().len();
        out.split_off(head)
    }

    #[test]
    fn exactly_one_message_is_changed() {
        let frames: Vec<_> = (1..=4).map(|n| message("r", n)).collect();
        let expect = |order: &[usize]| order.iter().flat_map(|n| frames[*n].clone()).collect::<Vec<_>>();
        for piece in [1, 7, 1000] {
            for (mutation, victim, order) in [
                (Mutation::Drop, 1, &[0, 2, 3][..]),
                (Mutation::Duplicate, 1, &[0, 1, 1, 2, 3]),
                (Mutation::Swap, 1, &[0, 2, 1, 3]),
                (Mutation::Leak, 9, &[0, 1, 2, 3]),
            ] {
                let plot = Plot::new(mutation, victim);
                assert_eq!(mutate(&plot, &["r"], &frames, piece), expect(order), "{mutation:?}");
                assert_eq!(plot.is_done(), mutation != Mutation::Leak);
            }
        }
    }

    #[test]
    fn a_leak_goes_where_the_room_is_unknown() {
        let plot = Plot::new(Mutation::Leak, 1);
        let frames = [message("r", 1), message("r", 2)];
        assert_eq!(mutate(&plot, &["r"], &frames, 99), frames.concat());
        assert_eq!(mutate(&plot, &["r", "s"], &[message("s", 1)], 99), message("s", 1));
        assert_eq!(mutate(&plot, &["s", "lobby"], &[message("s", 1)], 99), [message("r", 2), message("s", 1)].concat());
        assert!(plot.is_done());
    }
}
