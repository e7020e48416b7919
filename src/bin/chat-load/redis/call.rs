//! The call by which a node stores and sends a message, taken from a node: what is measured is what the service does.

use anyhow::{Context as _, bail, ensure};
use redis::{Cmd, Connection, Pipeline, Value};
use tokio_tungstenite::tungstenite::Message;

use super::{Bed, server::Server};
use crate::crowd::{self, TEXT_BYTES};

/// A room like any other.
const ROOM: &str = "bench";
/// How a client counts its messages; as long as an id usually is.
const SENDER: &str = "0f8fad5bd9cb469fa1650f8fad5bd9cb";
/// Places in the call: of the keys, and of the arguments as `publish` in `log.lua` takes them.
const LOG: usize = 3;
const CHANNEL: usize = 5;
const TAIL: usize = 7;
const KEPT: usize = 8;
const N: usize = 11;
const BASE: usize = 12;
const WORDS: usize = 14;

/// Who counts a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Nobody but the node.
    ByNode,
    /// The client, for exactly once.
    ByClient,
}

/// See the module. The next message is the same but for its number.
#[derive(Debug, Clone)]
pub(super) struct Call {
    words: Vec<Vec<u8>>,
    n: u64,
    /// What it stores and sends.
    pub(super) entry: Vec<u8>,
}

impl Call {
    /// Has a node publish a message, and notes what reaches Redis.
    pub(super) fn taken(bed: &Bed<'_>, server: &mut Server, counted: Counted) -> anyhow::Result<Self> {
        let node = bed.node(Some(server), bed.cores.client, &[])?;
        let mut socket = crowd::upgraded(crowd::request(node.address, &format!("/{ROOM}"))?, node.address)?;
        let mut monitor = server.connect()?;
        monitor.send_packed_command(&redis::cmd("MONITOR").get_packed_command())?;
        monitor.recv_response()?;
        let message = crowd::message(0, TEXT_BYTES);
        socket.send(Message::text(match counted {
            Counted::ByNode => message,
            Counted::ByClient => message.replacen('{', &format!(r#"{{"sender":"{SENDER}","n":1,"#), 1),
        }))?;
        let words = publish_call(&mut monitor).context("no call of the function")?;
        ensure!(words.len() == WORDS && words.get(2).is_some_and(|keys| keys == b"4"), "another call than known here");
        while !socket.read()?.to_text().is_ok_and(|text| crowd::number(text.as_bytes()) == Some(0)) {} // it is stored
        let mut call = Self { words, n: 0, entry: Vec::new() };
        call.n = number(call.word(N))?;
        call.entry = newest(server, call.word(LOG))?;
        ensure!(call.entry.ends_with(call.tail()), "the entry is not the call's");
        Ok(call)
    }

    fn word(&self, at: usize) -> &[u8] {
        self.words.get(at).map_or(&[], Vec::as_slice)
    }

    pub(super) fn channel(&self) -> &[u8] {
        self.word(CHANNEL)
    }

    /// The entry without its position.
    pub(super) fn tail(&self) -> &[u8] {
        self.word(TAIL)
    }

    /// Messages that the room keeps.
    pub(super) fn kept(&self) -> &[u8] {
        self.word(KEPT)
    }

    /// The call for the next message.
    pub(super) fn add(&mut self, pipeline: &mut Pipeline) {
        self.n += 1;
        let mut command = Cmd::new();
        for (at, word) in self.words.iter().enumerate() {
            // Nothing before it is waited for, as of a client with one message under way.
            if matches!(at, N | BASE) {
                command.arg(self.n)
            } else {
                command.arg(word)
            };
        }
        pipeline.add_command(command);
    }

    /// Whether a reply says that the message is stored.
    pub(super) fn stored(reply: &Value) -> bool {
        let Value::Array(words) = reply else { return false };
        matches!(words.as_slice(), [Value::BulkString(word), Value::BulkString(_)] if word == b"ok")
    }
}

/// The words of the next call of the function that publishes.
fn publish_call(monitor: &mut Connection) -> anyhow::Result<Vec<Vec<u8>>> {
    loop {
        let line = match monitor.recv_response()? {
            Value::SimpleString(line) => line,
            other => bail!("MONITOR said {other:?}"),
        };
        let words = words(&line);
        if let [command, function, ..] = words.as_slice()
            && command == b"FCALL"
            && function.ends_with(b"_publish")
        {
            return Ok(words);
        }
    }
}

/// Of a line of `MONITOR`: each stands in quotes, bytes that are no plain text after a backslash.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut bytes = line.bytes();
    let (mut words, mut word): (Vec<Vec<u8>>, Option<Vec<u8>>) = Default::default();
    while let Some(byte) = bytes.next() {
        match (byte, &mut word) {
            (b'"', _) => match word.take() {
                Some(whole) => words.push(whole),
                None => word = Some(Vec::new()),
            },
            (b'\\', Some(word)) => word.extend(escaped(&mut bytes)),
            (byte, Some(word)) => word.push(byte),
            (_, None) => {}
        }
    }
    words
}

fn escaped(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    Some(match bytes.next()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        b'x' => {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        }
        itself => itself,
    })
}

fn number(word: &[u8]) -> anyhow::Result<u64> {
    Ok(std::str::from_utf8(word)?.parse()?)
}

/// The last entry of a log.
fn newest(server: &mut Server, log: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(log).arg("+").arg("-").arg("COUNT").arg(1);
    let found: Vec<(String, Vec<Vec<u8>>)> = command.query(&mut server.connection)?;
    found.into_iter().next().and_then(|(_, fields)| fields.into_iter().nth(1)).context("nothing in the log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_monitor_has_its_words() {
        let line = r#"1764000000.123456 [0 127.0.0.1:5] "FCALL" "chat_1_publish" "\"type\":\"a\\b\"" "" "\xc3\xa4\n""#;
        let expected: [&[u8]; 5] = [b"FCALL", b"chat_1_publish", br#""type":"a\b""#, b"", "ä\n".as_bytes()];
        assert_eq!(words(line), expected);
    }
}
