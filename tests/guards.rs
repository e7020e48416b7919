//! What a delivery costs, counted rather than timed, so that no other load on the machine changes it: no allocation, no poll of the
//! member's task, no more than one write per flush; and nothing more for traces that are not kept.
//!
//! The hub runs here, in memory and over real sockets, on the test's own thread: allocations are counted per thread, and between two steps
//! of a test nothing else happens. Publications are pushed and flushed apart, as they come from Redis, where the size of a flush matters.

#![expect(clippy::expect_used, reason = "a test ends by panicking")]

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    pin::Pin,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use chat_api::{
    app::App,
    auth::Identity,
    broadcaster::{Draft, Outlet as _, Prepared, Stamp},
    config::{Config, Kubernetes, Log, Sampler, Telemetry},
    hub::{Connection, ConnectionLimits, Hub, Receive},
    metrics::Metrics,
    protocol::{ClientId, RoomName},
    shutdown::{Readiness, Signals, Tasks},
    telemetry::{self, Counters, Guard},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
    task::yield_now,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{
    Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

const FEW: usize = 10;
const MANY: usize = 1000;
/// The largest room that its publisher flushes.
const INLINE: usize = 64;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages after which every buffer has its size.
const WARM_UP: usize = 8;
/// Messages of which the cheapest is what one costs.
const ROUNDS: usize = 20;

#[test]
fn a_delivery_allocates_nothing() {
    // A large room is flushed by a task.
    let deliver = |hall: &Hall| {
        hall.publish(1);
        hall.flush(1);
    };
    assert_eq!(allocations(MANY, deliver), allocations(FEW, deliver), "for one message, to many and to few");
    // A small one by whoever publishes.
    let deliver = Hall::publish_and_flush;
    assert_eq!(allocations(INLINE, deliver), allocations(2, deliver), "for one message, to many and to few");
}

/// How many and how many bytes one message takes once the room has seen some.
fn allocations(members: usize, deliver: impl Fn(&Hall)) -> (u64, u64) {
    let mut hall = Hall::open(members);
    for _ in 0..WARM_UP {
        deliver(&hall);
        hall.read(1);
    }
    let allocated = allocation_counter::measure(|| deliver(&hall));
    (allocated.count_total, allocated.bytes_total)
}

#[test]
fn a_delivery_does_not_wake_the_members_task() {
    let mut hall = Hall::open(MANY);
    let before = hall.polls();
    for messages in [1, 1, 8] {
        hall.publish(messages);
        hall.flush(messages);
        hall.read(messages);
    }
    hall.idle();
    assert_eq!(hall.polls() - before, 0, "polls of the members' tasks");
}

#[test]
fn a_flush_is_one_write_to_each_member() {
    let mut hall = Hall::open(MANY);
    for messages in [1, 2, 16] {
        let before = hall.writes();
        hall.publish(messages);
        hall.flush(messages);
        assert_eq!(hall.writes() - before, MANY, "writes for {messages} messages");
        hall.read(messages);
    }
}

const MESSAGE: &str = r#"{"payload":{"text":"to everybody here"},"ref":"x"}"#;
/// The same from a client that does not keep its trace.
const NOT_KEPT: &str = r#"{"payload":{"text":"to everybody here"},"ref":"x","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}"#;

/// From the client's frame to what its socket reads: a message that is not traced costs what it does where tracing is off.
#[test]
fn a_message_that_is_not_traced_costs_nothing_for_it() {
    let off = Telemetry::default();
    let on = |sampler, sampler_arg| {
        let endpoint = Some("http://127.0.0.1:9".to_owned()); // nobody is there: what is made is counted as dropped
        Telemetry { endpoint, sampler, sampler_arg, ..Telemetry::default() }
    };
    let (without, none) = Front::costs(&off);
    assert_eq!(none, 0, "spans");
    for (sampler, arg) in [
        (Sampler::ParentBasedAlwaysOff, 0.0),
        (Sampler::ParentBasedTraceIdRatio, 0.0),
        (Sampler::TraceIdRatio, 0.01), // an id that is not in the share; without one it is not asked
    ] {
        let frames = if sampler == Sampler::TraceIdRatio { 1.. } else { 0.. };
        let (costs, spans) = Front::costs_of(&on(sampler, arg), frames.clone());
        assert_eq!((&costs[..], spans), (&without[frames], 0), "{sampler:?}: allocations and their bytes, and spans");
    }
    let (costs, spans) = Front::costs(&on(Sampler::AlwaysOn, 1.0));
    assert!(costs.iter().zip(&without).all(|(with, without)| with > without), "{costs:?} {without:?}");
    assert_eq!(spans, 3 * 2 * (WARM_UP + ROUNDS) as u64, "and one that is has its three spans");
}

/// A batch without a traced message, as it comes from Redis, on a node that exports traces.
#[test]
fn a_delivery_that_is_not_traced_costs_nothing_for_it() {
    let deliver = |hall: &Hall| {
        hall.publish(1);
        hall.flush(1);
    };
    let without = allocations(FEW, deliver);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let endpoint = Some("http://127.0.0.1:9".to_owned());
    let (dispatch, _guard, _) = prepare(&runtime, &Telemetry { endpoint, ..Telemetry::default() });
    assert_eq!(tracing::dispatcher::with_default(&dispatch, || allocations(FEW, deliver)), without);
}

/// A subscriber for this test alone, and what it drops.
fn prepare(runtime: &Runtime, telemetry: &Telemetry) -> (tracing::Dispatch, Guard, Counters) {
    let _runtime = runtime.enter();
    let metrics = Metrics::new().expect("metrics");
    let (spans_dropped, lines_suppressed) = (metrics.spans_dropped.clone(), metrics.log_lines_suppressed.clone());
    let counters = Counters { spans_dropped, lines_suppressed };
    let log = Log { filter: "error".to_owned(), ..Log::default() };
    let prepared = telemetry::prepare(&log, telemetry, &Kubernetes::default(), counters.clone());
    let (dispatch, guard) = prepared.expect("it is in order");
    (dispatch, guard, counters)
}

/// A whole node, and a client of it, on one thread.
struct Front {
    runtime: Runtime,
    socket: tokio::net::TcpStream,
    answer: [u8; 4096],
}

impl Front {
    /// What each kind of message costs, and how many spans were made for all of them.
    fn costs(telemetry: &Telemetry) -> (Vec<(u64, u64)>, u64) {
        Self::costs_of(telemetry, 0..)
    }

    fn costs_of(telemetry: &Telemetry, frames: std::ops::RangeFrom<usize>) -> (Vec<(u64, u64)>, u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (dispatch, guard, counters) = prepare(&runtime, telemetry);
        tracing::dispatcher::with_default(&dispatch, || {
            let mut front = Self::open(runtime, &guard);
            let costs = [MESSAGE, NOT_KEPT][frames].iter().map(|text| front.cost(&frame(text))).collect();
            front.runtime.block_on(guard.shutdown(PATIENCE));
            (costs, counters.spans_dropped.get())
        })
    }

    fn open(runtime: Runtime, guard: &Guard) -> Self {
        let mut config = Config::default();
        let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
        (config.server.address, config.server.management_address) = (anywhere, anywhere);
        (config.limits.messages_per_second, config.limits.bytes_per_second) = (0, 0);
        let socket = runtime.block_on(async {
            let metrics = Arc::new(Metrics::new().expect("metrics"));
            let app = App::build(config, metrics, guard.tracing()).await.expect("it starts");
            let address = app.public_addr().expect("bound");
            let mut signals = Signals::new().expect("signals");
            let socket = async {
                let socket = tokio::net::TcpStream::connect(address).await.expect("it listens");
                let request = format!("ws://{address}/api/chat-api/ws/hall");
                let (socket, _) = tokio_tungstenite::client_async(request, socket).await.expect("let in");
                socket.into_inner()
            };
            // What it runs goes on without it.
            tokio::select! {
                _ = app.run(&mut signals) => unreachable!("nobody stops it"),
                socket = socket => socket,
            }
        });
        Self { runtime, socket, answer: [0; 4096] }
    }

    /// Allocations and their bytes for one message, there and back.
    fn cost(&mut self, frame: &[u8]) -> (u64, u64) {
        (0..WARM_UP).for_each(|_| self.exchange(frame));
        let cost = |_| {
            let allocated = allocation_counter::measure(|| self.exchange(frame));
            (allocated.count_total, allocated.bytes_total)
        };
        // Now and then a task of the node's own has its turn in between.
        (0..ROUNDS).map(cost).min().expect("some")
    }

    /// Until the message and its ack are here.
    fn exchange(&mut self, frame: &[u8]) {
        let Self { runtime, socket, answer } = self;
        let exchange = async {
            socket.write_all(frame).await.expect("the socket is open");
            let mut read = 0;
            while !(answer[..read].ends_with(b"}") && answer[..read].windows(5).any(|word| word == b"\"ack\"")) {
                read += socket.read(&mut answer[read..]).await.expect("the socket is open");
            }
        };
        runtime.block_on(async { timeout(PATIENCE, exchange).await.expect("an answer in time") });
    }
}

/// A client's text frame, its mask all zero.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    let head = if length < 126 { vec![0x80 | length as u8] } else { [&[0xfe][..], &length.to_be_bytes()].concat() };
    [&[0x81][..], &head, &[0; 4], text.as_bytes()].concat()
}

/// A room full of members that only listen.
struct Hall {
    runtime: Runtime,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    room: RoomName,
    /// The members' own ends of their sockets.
    members: Vec<WebSocket<TcpStream>>,
    /// Where they connected to.
    port: u16,
    polls: Arc<AtomicUsize>,
}

impl Hall {
    fn open(size: usize) -> Self {
        // Both ends of each socket are this process's.
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).expect("up to the hard limit");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (config, tasks) = (Config::default(), Tasks::default());
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let readiness = Arc::new(Readiness::new(false, Duration::ZERO));
        let log = Prepared::new(&config).expect("it is in memory");
        let hub = Hub::start(log, config.presence.clone(), tasks.clone(), readiness, metrics.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let mut hall = Self {
            runtime,
            hub,
            metrics,
            room: RoomName::new("hall").expect("a name"),
            members: Vec::new(),
            port,
            polls: Arc::default(),
        };
        let limits = ConnectionLimits::new(&config.limits);
        let joined = Arc::new(AtomicUsize::new(0));
        let _runtime = hall.runtime.enter();
        for _ in 0..size {
            let member = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("somebody listens");
            member.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let small = WebSocketConfig::default().read_buffer_size(1024);
            hall.members.push(WebSocket::from_raw_socket(member, Role::Client, Some(small)));
            let (socket, _) = listener.accept().expect("a connection");
            socket.set_nonblocking(true).expect("a socket");
            let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
            let nobody = Identity { user: None, permissions: Arc::default(), voucher: None };
            let connection = Connection::new(socket, ClientId::random(), nobody, false, limits.clone());
            let connection = Arc::new(connection.expect("a socket"));
            let attached = hall.hub.attach(connection.clone(), vec![hall.room.clone()]);
            let joined = joined.clone();
            let life = async move {
                attached.join(None, |_| unreachable!("plain sockets get no welcome")).await;
                joined.fetch_add(1, Ordering::Relaxed);
                connection.run(Vec::new(), Nobody).await;
            };
            tasks.spawn(Counted { life: Box::pin(life), polls: hall.polls.clone() });
        }
        hall.runtime.block_on(async {
            while joined.load(Ordering::Relaxed) < size {
                yield_now().await;
            }
        });
        hall.idle();
        hall
    }

    fn draft(&self) -> Draft {
        let payload = RawValue::from_string(r#"{"text":"to everybody here"}"#.to_owned()).expect("JSON");
        Draft {
            room: self.room.clone(),
            kind: "chat".to_owned(),
            client: ClientId::random(),
            user: None,
            payload,
            counted: None,
            ephemeral: false,
            trace: None,
            received: Stamp::now(),
        }
    }

    /// Puts messages into the room and sends none.
    fn publish(&self, messages: usize) {
        for _ in 0..messages {
            let publish = self.hub.broadcaster().publish(self.draft());
            self.runtime.block_on(publish).expect("the log is in memory");
        }
    }

    /// Sends them to all members.
    fn flush(&self, messages: usize) {
        self.runtime.block_on(async {
            let all = self.metrics.messages_out.get() + (messages * self.members.len()) as u64;
            self.hub.flush(&self.room);
            let delivered = async {
                while self.metrics.messages_out.get() < all {
                    yield_now().await;
                }
            };
            timeout(PATIENCE, delivered).await.expect("it is delivered");
        });
    }

    /// As a connection's task does it.
    fn publish_and_flush(&self) {
        self.runtime.block_on(self.hub.publish(self.draft())).expect("the log is in memory");
    }

    /// Lets every task run that wants to, and the sockets be heard.
    fn idle(&self) {
        self.runtime.block_on(async { sleep(Duration::from_millis(50)).await });
    }

    /// Every member reads that many messages, the same ones as the others.
    fn read(&mut self, messages: usize) {
        let mut read = self.members.iter_mut().map(|member| {
            let read = (0..messages).map(|_| member.read().expect("the socket is open"));
            read.collect::<Vec<Message>>()
        });
        let first = read.next().expect("a member");
        assert!(first.iter().all(Message::is_text) && read.all(|other| other == first));
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }

    /// Segments that the kernel has sent to members: one per write, as each goes out at once and all are shorter than a segment.
    fn writes(&self) -> usize {
        let sockets = Command::new("ss").args(["-tinH", &format!("sport = :{}", self.port)]).output();
        let sockets = String::from_utf8(sockets.expect("`ss` is there: run `make tools`").stdout).expect("text");
        let segments = sockets.split_whitespace().filter_map(|word| word.strip_prefix("data_segs_out:"));
        segments.map(|segments| segments.parse::<usize>().expect("a number")).sum()
    }
}

/// A task whose polls are counted.
struct Counted<F> {
    life: Pin<Box<F>>,
    polls: Arc<AtomicUsize>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.life.as_mut().poll(cx)
    }
}

/// Takes no notice of what its client sends.
struct Nobody;

impl Receive for Nobody {
    async fn receive(&mut self, _text: &str) {}
}
