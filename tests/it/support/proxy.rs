//! A TCP proxy that breaks what goes through it, on command: cuts, delays, throttles, slices and holds each direction.
//!
//! Rules apply to connections that are open and to those to come, to all of them or to those on which a word was seen.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

const CHUNK: usize = 16 * 1024;
/// Bytes that may be on their way in one direction of one connection.
const IN_FLIGHT: usize = 256 * 1024;

/// A direction, seen from whoever connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// Which connections a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    All,
    /// Those on which the word went up.
    Saying(&'static str),
    /// Those on which it did not.
    NotSaying(&'static str),
}

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flow {
    /// Nothing passes, and nothing is lost: the connection looks alive.
    pub hold: bool,
    pub delay: Duration,
    /// At most this much more delay, by chance.
    pub jitter: Duration,
    pub bytes_per_second: Option<u32>,
    /// The first so many bytes of each piece pass one by one.
    pub slices: usize,
    /// Both ends see a reset after this many more bytes, at once.
    pub reset_after: Option<usize>,
}

/// Sees the bytes of one connection and may change them.
pub trait Tamper: Send {
    fn up(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    fn down(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }
}

type TamperFactory = dyn Fn() -> Box<dyn Tamper> + Send + Sync;

/// Runs until dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    rules: watch::Sender<Vec<Rule>>,
    links: Mutex<Vec<Weak<Link>>>,
    /// Words that rules may ask for.
    words: &'static [&'static str],
    tamper: Option<Box<TamperFactory>>,
}

/// The last that fits a connection counts.
#[derive(Clone, Copy)]
struct Rule {
    which: Which,
    way: Way,
    flow: Flow,
    /// Not for connections that are younger.
    before: Instant,
}

/// One connection through the proxy.
struct Link {
    born: Instant,
    said: Mutex<HashSet<&'static str>>,
    ended: CancellationToken,
}

impl Proxy {
    /// To `target`; rules may ask for one of `words`.
    pub async fn start(target: SocketAddr, words: &'static [&'static str]) -> Self {
        Self::with(target, words, None).await
    }

    /// To `target`, through a new tamperer for each connection.
    pub async fn tampering(target: SocketAddr, tamper: Box<TamperFactory>) -> Self {
        Self::with(target, &[], Some(tamper)).await
    }

    async fn with(target: SocketAddr, words: &'static [&'static str], tamper: Option<Box<TamperFactory>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            rules: watch::channel(Vec::new()).0,
            links: Mutex::default(),
            words,
            tamper,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Self { address, shared, _tasks: tasks }
    }

    /// Where new connections go.
    pub fn retarget(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// From now on; a later rule goes before an earlier one.
    pub fn rule(&self, which: Which, way: Way, flow: Flow) {
        let before = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        self.shared.rules.send_modify(|rules| rules.push(Rule { which, way, flow, before }));
    }

    /// The same for the connections that there are, and not for those to come.
    pub fn rule_for_open(&self, which: Which, way: Way, flow: Flow) {
        let before = Instant::now();
        self.shared.rules.send_modify(|rules| rules.push(Rule { which, way, flow, before }));
    }

    /// Bytes pass as they come again.
    pub fn heal(&self) {
        self.shared.rules.send_modify(Vec::clear);
    }

    /// Resets the connections that there are. Returns how many.
    pub fn cut(&self, which: Which) -> usize {
        let links: Vec<_> = self.shared.links.lock().iter().filter_map(Weak::upgrade).collect();
        let cut = links.iter().filter(|link| link.is(which) && !link.ended.is_cancelled());
        cut.map(|link| link.ended.cancel()).count()
    }

    /// The connections that there are.
    pub fn connections(&self, which: Which) -> usize {
        self.shared.links.lock().iter().filter_map(Weak::upgrade).filter(|link| link.is(which)).count()
    }
}

impl Link {
    fn is(&self, which: Which) -> bool {
        match which {
            Which::All => true,
            Which::Saying(word) => self.said.lock().contains(word),
            Which::NotSaying(word) => !self.said.lock().contains(word),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => { connections.spawn(connect(socket, shared.clone())); }
                Err(_) => sleep(Duration::from_millis(10)).await, // out of file descriptors: some will be free again
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(client: TcpStream, shared: Arc<Shared>) {
    let target = *shared.target.lock();
    let Ok(server) = TcpStream::connect(target).await else { return reset(&client) };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let link = Arc::new(Link { born: Instant::now(), said: Mutex::default(), ended: CancellationToken::new() });
    {
        let mut links = shared.links.lock();
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&link));
    }
    let tamper = shared.tamper.as_ref().map(|tamper| Mutex::new(tamper()));
    let ((client_reader, client_writer), (server_reader, server_writer)) = (client.into_split(), server.into_split());
    let up = Pump { way: Way::Up, link: link.clone(), shared: shared.clone() };
    let down = Pump { way: Way::Down, link: link.clone(), shared };
    let tamper = tamper.as_ref();
    tokio::join!(up.run(client_reader, server_writer, tamper), down.run(server_reader, client_writer, tamper));
}

/// Closing sends a reset instead of what is left.
fn reset(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// One direction of one connection.
struct Pump {
    way: Way,
    link: Arc<Link>,
    shared: Arc<Shared>,
}

/// Bytes, and when they may go on.
type Piece = (Instant, Vec<u8>);

impl Pump {
    async fn run(
        &self,
        mut reader: OwnedReadHalf,
        mut writer: OwnedWriteHalf,
        tamper: Option<&Mutex<Box<dyn Tamper>>>,
    ) {
        let (pieces, queue) = mpsc::unbounded_channel();
        let room = Semaphore::new(IN_FLIGHT);
        let passing = async {
            tokio::try_join!(self.read(&mut reader, pieces, &room, tamper), self.write(&mut writer, queue, &room))
        };
        let broken = tokio::select! {
            () = self.link.ended.cancelled() => true,
            passed = passing => passed.is_err(),
        };
        if broken {
            self.link.ended.cancel();
            reset(reader.as_ref());
            reset(writer.as_ref());
            writer.forget(); // its end would be a tidy one
        }
    }

    fn flow(&self) -> Flow {
        let rules = self.shared.rules.borrow();
        let fits = |rule: &&Rule| rule.way == self.way && self.link.born <= rule.before && self.link.is(rule.which);
        rules.iter().rev().find(fits).map(|rule| rule.flow).unwrap_or_default()
    }

    async fn passable(&self) {
        let mut rules = self.shared.rules.subscribe();
        while self.flow().hold && rules.changed().await.is_ok() {}
    }

    async fn read(
        &self,
        reader: &mut OwnedReadHalf,
        pieces: mpsc::UnboundedSender<Piece>,
        room: &Semaphore,
        tamper: Option<&Mutex<Box<dyn Tamper>>>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut due = Instant::now();
        let mut tail = Vec::new();
        loop {
            self.passable().await;
            let count = reader.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            let mut bytes = buffer[..count].to_vec();
            if self.way == Way::Up {
                self.listen(&mut tail, &bytes);
            }
            if let Some(tamper) = tamper {
                let mut tamper = tamper.lock();
                bytes = if self.way == Way::Up { tamper.up(&bytes) } else { tamper.down(&bytes) };
            }
            let flow = self.flow();
            // Never overtakes what went before it.
            due = due.max(Instant::now() + flow.delay + flow.jitter.mul_f64(fastrand::f64()));
            if let Ok(permit) = room.acquire_many(bytes.len() as u32).await {
                permit.forget();
            }
            if pieces.send((due, bytes)).is_err() {
                return Ok(());
            }
        }
    }

    /// Notes the words that rules may ask for, also across two pieces.
    fn listen(&self, tail: &mut Vec<u8>, bytes: &[u8]) {
        tail.extend_from_slice(bytes);
        for word in self.shared.words {
            if tail.windows(word.len()).any(|window| window == word.as_bytes()) {
                self.link.said.lock().insert(word);
            }
        }
        let longest = self.shared.words.iter().map(|word| word.len()).max().unwrap_or(0);
        tail.drain(..tail.len().saturating_sub(longest));
    }

    async fn write(
        &self,
        writer: &mut OwnedWriteHalf,
        mut pieces: mpsc::UnboundedReceiver<Piece>,
        room: &Semaphore,
    ) -> io::Result<()> {
        let mut passed = 0;
        while let Some((due, bytes)) = pieces.recv().await {
            sleep_until(due).await;
            self.passable().await;
            let flow = self.flow();
            if let Some(limit) = flow.reset_after
                && passed + bytes.len() > limit
            {
                writer.write_all(&bytes[..limit.saturating_sub(passed)]).await?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            passed = if flow.reset_after.is_some() { passed + bytes.len() } else { 0 };
            let (single, rest) = bytes.split_at(flow.slices.min(bytes.len()));
            for byte in single {
                writer.write_all(std::slice::from_ref(byte)).await?;
            }
            match flow.bytes_per_second {
                None => writer.write_all(rest).await?,
                Some(rate) => {
                    for some in rest.chunks((rate as usize / 20).max(1)) {
                        writer.write_all(some).await?;
                        sleep(Duration::from_secs_f64(some.len() as f64 / f64::from(rate))).await;
                    }
                }
            }
            room.add_permits(bytes.len());
        }
        writer.shutdown().await
    }
}
