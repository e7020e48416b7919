//! Any bytes on a socket, from an upgrade on: what the server makes of them and answers is what RFC 6455 says, read here a second time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime,
    task::yield_now,
    time::timeout,
};

use super::{Connection, ConnectionLimits, Ending, Receive};
use crate::{
    auth::Identity,
    config,
    fuzz::{any_text, fuzz, mutated},
    protocol::{ClientId, Close, Frame},
};

/// Longest message here: both forms of a short length are under it.
const LONGEST: usize = 300;
/// Small, so that writes stop in the middle of a frame.
const SOCKET_BUFFER: u32 = 4096;
/// A few milliseconds' work that takes so long was on a machine that stood still, and a closed connection lingers for no more than 2 s.
const STANDSTILL: Duration = Duration::from_secs(1);
/// How many deliveries run beside it.
const DELIVERIES: usize = 20;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

/// A client's frame, right or wrong.
fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = match payload.len() {
        short @ 0..=125 => vec![first, masked | short as u8],
        long => [&[first, masked | 126], &(long as u16).to_be_bytes()[..]].concat(),
    };
    bytes.extend(mask.into_iter().flatten());
    bytes.extend(payload.iter().zip(mask.unwrap_or_default().into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A message in pieces, with a ping between them.
fn fragments(kind: u8, message: &[u8], cuts: &[Index], mask: [u8; 4]) -> Vec<u8> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).chain([0, message.len()]).collect();
    cuts.sort_unstable();
    let last = cuts.len() - 2;
    let piece = |(n, ends): (usize, &[usize])| {
        let first = if n == 0 { kind } else { 0 } | if n == last { 0x80 } else { 0 };
        let ping = if n == 1 { frame(0x89, b"between", Some(mask)) } else { Vec::new() };
        [ping, frame(first, &message[ends[0]..ends[1]], Some(mask))].concat()
    };
    cuts.windows(2).enumerate().flat_map(piece).collect()
}

/// What clients send, more or less.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        8 => any_text().prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..20),
        1 => (0..LONGEST + 20).prop_map(|length| vec![b'x'; length]),
    ];
    let mask = any::<[u8; 4]>;
    let code = prop_oneof![select(&[1000, 1001, 1004, 1005, 1006, 1012, 1015, 3000, 4999][..]), any::<u16>()];
    let close = prop_oneof![
        4 => (code, any_text()).prop_map(|(code, reason)| [&code.to_be_bytes(), reason.as_bytes()].concat()),
        1 => vec(any::<u8>(), 0..5),
    ];
    let message = prop_oneof![
        8 => (text, vec(any::<Index>(), 0..3), mask()).prop_map(|(text, cuts, mask)| fragments(1, &text, &cuts, mask)),
        4 => (vec(any::<u8>(), 0..=125), mask()).prop_map(|(payload, mask)| frame(0x89, &payload, Some(mask))),
        1 => (5_u8..30, mask())
            .prop_map(|(count, mask)| (0..count).flat_map(|n| frame(0x89, &[n; 125], Some(mask))).collect()),
        1 => (vec(any::<u8>(), 0..=126), mask()).prop_map(|(payload, mask)| frame(0x8a, &payload, Some(mask))),
        1 => (vec(any::<u8>(), 0..9), vec(any::<Index>(), 0..2), mask())
            .prop_map(|(payload, cuts, mask)| fragments(2, &payload, &cuts, mask)),
        1 => (close, mask()).prop_map(|(payload, mask)| frame(0x88, &payload, Some(mask))),
        1 => (any::<u8>(), vec(any::<u8>(), 0..140), option::of(mask()))
            .prop_map(|(first, payload, mask)| frame(first, &payload, mask)),
    ];
    let messages = vec(message, 0..12).prop_map(|messages| messages.concat());
    let messages = messages.boxed();
    prop_oneof![4 => messages.clone(), 4 => mutated(messages), 1 => vec(any::<u8>(), 0..100)]
}

/// What a server must make of a client's bytes.
#[derive(Debug, Default)]
struct Reading {
    texts: Vec<String>,
    pings: Vec<Vec<u8>>,
    /// The code to close with, where one is due; absent in a close frame without any.
    close: Option<Option<u16>>,
}

impl Reading {
    fn of(bytes: &[u8]) -> Self {
        let mut reading = Self::default();
        reading.close = reading.read(bytes).err();
        reading
    }

    /// To the end of the bytes, or to what ends the connection.
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Option<u16>> {
        let fail = |close: Close| Err(Some(close.code()));
        let mut begun: Option<(u8, Vec<u8>)> = None;
        while let Some(Head { first, length, mask, rest }) = Head::of(bytes) {
            let (opcode, last) = (first & 0x0f, first & 0x80 != 0);
            if !matches!(opcode, 0..=2 | 8..=10) {
                return fail(Close::Protocol);
            }
            if length > LONGEST as u64 {
                return fail(Close::TooBig);
            }
            let Some((payload, rest)) = rest.split_at_checked(length as usize) else { return Ok(()) };
            bytes = rest;
            let Some(mask) = mask else { return fail(Close::Protocol) };
            let payload: Vec<u8> =
                payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            if first & 0x70 != 0 || (opcode >= 8 && (!last || payload.len() > 125)) {
                return fail(Close::Protocol);
            }
            match opcode {
                8 => return Err(answer(&payload)),
                9 => self.pings.push(payload),
                10 => {}
                _ => {
                    let (kind, mut message) = match (opcode, begun.take()) {
                        (0, Some(begun)) => begun,
                        (1 | 2, None) => (opcode, Vec::new()),
                        _ => return fail(Close::Protocol),
                    };
                    message.extend(payload);
                    if message.len() > LONGEST {
                        return fail(Close::TooBig);
                    }
                    let text = std::str::from_utf8(&message);
                    match (kind, text) {
                        (1, Err(error)) if last || error.error_len().is_some() => return fail(Close::NotUtf8),
                        (1, Ok(text)) if last => self.texts.push(text.to_owned()),
                        (2, _) if last => return fail(Close::Binary),
                        _ => begun = Some((kind, message)),
                    }
                }
            }
        }
        Ok(())
    }
}

/// The head of a frame, and what follows it.
struct Head<'a> {
    first: u8,
    length: u64,
    mask: Option<[u8; 4]>,
    rest: &'a [u8],
}

impl<'a> Head<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (&[first, second], bytes) = bytes.split_first_chunk()?;
        let (length, bytes) = match second & 0x7f {
            126 => bytes.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest))?,
            127 => bytes.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            short => (short.into(), bytes),
        };
        let (mask, rest) = match second & 0x80 {
            0 => (None, bytes),
            _ => bytes.split_first_chunk().map(|(mask, rest)| (Some(*mask), rest))?,
        };
        Some(Self { first, length, mask, rest })
    }
}

/// A close frame is answered in kind.
fn answer(payload: &[u8]) -> Option<u16> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return (!payload.is_empty()).then_some(Close::Protocol.code());
    };
    match u16::from_be_bytes(*code) {
        _ if std::str::from_utf8(reason).is_err() => Some(Close::NotUtf8.code()),
        code @ (1000..=1003 | 1007..=1013 | 3000..=4999) => Some(code),
        _ => Some(Close::Protocol.code()),
    }
}

/// Everything that a client was sent.
#[derive(Debug, Default)]
struct Answers {
    echoes: Vec<String>,
    deliveries: usize,
    pongs: Vec<Vec<u8>>,
    close: Option<Option<u16>>,
    /// A frame was cut off.
    cut: bool,
}

impl Answers {
    fn of(mut bytes: &[u8]) -> Self {
        let mut answers = Self::default();
        while let Some(Head { first, length, mask, rest }) = Head::of(bytes) {
            assert_eq!((mask, answers.close), (None, None), "unmasked, and nothing behind a close frame");
            let Some((payload, rest)) = rest.split_at_checked(length as usize) else { break };
            bytes = rest;
            match (first, payload.split_first_chunk::<2>()) {
                (TEXT, _) if payload == delivery(answers.deliveries) => answers.deliveries += 1,
                (TEXT, _) => answers.echoes.push(String::from_utf8(payload.to_vec()).unwrap()),
                (PONG, _) => answers.pongs.push(payload.to_vec()),
                (CLOSE, code) => answers.close = Some(code.map(|(code, _)| u16::from_be_bytes(*code))),
                other => panic!("{other:?}"),
            }
        }
        answers.cut = !bytes.is_empty();
        answers
    }
}

/// What others send meanwhile: longer than any echo, and each of its own length.
fn delivery(n: usize) -> Vec<u8> {
    vec![b'd'; LONGEST + 1000 * n + 1]
}

struct Echo<'a> {
    connection: &'a Connection,
    texts: &'a mut Vec<String>,
}

impl Receive for Echo<'_> {
    async fn receive(&mut self, text: &str) {
        self.connection.send(&Frame::data(TEXT, text.as_bytes()));
        self.texts.push(text.to_owned());
    }
}

/// A client: what it sends, in which pieces (the first came with the upgrade), and whether it reads only afterwards.
#[derive(Debug)]
struct Client {
    bytes: Vec<u8>,
    pieces: Vec<usize>,
    lazy: bool,
}

impl Client {
    fn pieces(&self) -> Vec<&[u8]> {
        let (mut rest, mut pieces) = (self.bytes.as_slice(), Vec::new());
        for length in self.pieces.iter().cycle() {
            let (piece, more) = rest.split_at(rest.len().min(*length));
            pieces.push(piece);
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        pieces
    }

    /// Sends everything, ends its side, and reads to the end of the other.
    async fn run(&self, socket: TcpStream) -> Vec<u8> {
        let (mut from, mut to) = socket.into_split();
        let write = async {
            for piece in self.pieces().into_iter().skip(1) {
                to.write_all(piece).await?;
                yield_now().await;
            }
            to.shutdown().await
        };
        let mut received = Vec::new();
        let read = from.read_to_end(&mut received);
        // A connection that was given up may end in a reset, and what counts is what was received.
        let _ = if self.lazy { (write.await, read.await) } else { tokio::join!(write, read) };
        received
    }
}

/// Both ends of a connection.
async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
    let (theirs, ours) = tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
    let ours = ours.unwrap().0;
    SockRef::from(&ours).set_send_buffer_size(SOCKET_BUFFER as usize).unwrap();
    (ours, theirs.unwrap())
}

/// The connection of one client. Returns the messages that were handled, how it ended, and what the client received.
async fn serve(listener: &TcpListener, client: &Client, deliveries: usize) -> (Vec<String>, Ending, Vec<u8>) {
    let (ours, theirs) = pair(listener).await;
    let limits = config::Limits {
        message_bytes: LONGEST,
        outbox_bytes: 1 << 30,
        messages_per_second: 0,
        bytes_per_second: 0,
        ..config::Limits::default()
    };
    let limits = ConnectionLimits::new(&limits);
    let nobody = Identity { user: None, permissions: Arc::default(), voucher: None };
    let connection = Arc::new(Connection::new(ours, ClientId::random(), nobody, false, limits).unwrap());
    let others = connection.clone();
    let delivering = async move {
        for n in 0..deliveries {
            others.send(&Frame::data(TEXT, &delivery(n)));
            yield_now().await;
        }
    };
    let running = async move {
        let (mut texts, leftover) = (Vec::new(), client.pieces()[0].to_vec());
        let ending = connection.run(leftover, Echo { connection: &connection, texts: &mut texts }).await;
        (texts, ending)
    };
    let everybody = async { tokio::join!(delivering, running, client.run(theirs)) };
    let ((), (texts, ending), received) = timeout(Duration::from_secs(20), everybody).await.expect("an end");
    (texts, ending, received)
}

/// Whether all of `some` are in `all`, in that order.
fn is_among<T: PartialEq>(some: &[T], all: &[T]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| other == one))
}

#[test]
fn fuzz_connection() {
    let client = (messages(), vec(1_usize..200, 1..6), any::<bool>()).prop_map(|(bytes, pieces, lazy)| Client {
        bytes,
        pieces,
        lazy,
    });
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
    fuzz(file!(), (client, prop_oneof![Just(0), 1..DELIVERIES]), |(client, deliveries)| {
        let start = Instant::now();
        let (texts, ending, received) = runtime.block_on(serve(&listener, &client, deliveries));
        if start.elapsed() > STANDSTILL {
            return;
        }
        let (expected, answers) = (Reading::of(&client.bytes), Answers::of(&received));
        assert_eq!(texts, expected.texts, "what was taken for a message");
        assert!(is_among(&answers.pongs, &expected.pings) && answers.deliveries <= deliveries, "{answers:?}");
        match expected.close {
            Some(close) => {
                assert_eq!((answers.cut, &answers.echoes), (false, &expected.texts), "all of it is answered");
                assert_eq!((answers.close, ending.code), (Some(close), close.unwrap_or(1000)));
            }
            None => {
                assert!(expected.texts.starts_with(&answers.echoes), "{answers:?}");
                assert_eq!((answers.close, ending.code), (None, 1006));
            }
        }
    });
}
