//! What a delivery costs, counted rather than timed, so that no other load on the machine changes it: no allocation, no poll of the
//! member's task, no more than one write per flush.
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
    auth::Identity,
    broadcaster::{Draft, Outlet as _, Prepared, Stamp},
    config::Config,
    hub::{Connection, ConnectionLimits, Hub, Receive},
    metrics::Metrics,
    protocol::{ClientId, RoomName},
    shutdown::{Readiness, Tasks},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::value::RawValue;
use tokio::{
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
