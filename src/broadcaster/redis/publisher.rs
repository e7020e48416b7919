//! Sends messages to Redis: a few tasks, each with a bounded queue and one connection, rooms spread over them by hash.
//!
//! What waits while a batch is under way goes with the next one, so load makes larger pipelines by itself. A batch that got no answer is sent
//! again, whole and in order: every message stands under a counter, its sender's or the node's own, so Redis stores each once.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use deadpool_redis::Connection;
use redis::{RedisError, Value};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Keys, entry,
    function::{self, Function},
    master::{Master, Site},
    trouble::is_demoted,
};
use crate::{
    broadcaster::{Counted, Draft, PublishError},
    metrics::Metrics,
    protocol::{Count, MessageId, RoomName},
    shutdown::Tasks,
    telemetry::trace,
};

/// Messages that may wait for one task; the next is refused.
const QUEUE: usize = 1024;
/// How long a connection is trusted without a look at it.
const QUIET: Duration = Duration::from_secs(1);
/// Most messages in one pipeline.
const BATCH: usize = 64;
/// Longest wait before a batch without an answer is sent again; taken with full jitter.
const RETRY: Duration = Duration::from_millis(200);
/// Rooms below which none is looked at for being quiet.
const FEW: usize = 1024;

/// What Redis keeps of a room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) messages: u64,
    pub(super) log: Duration,
    pub(super) meta: Duration,
}

/// What became of a message: its position, unless it repeats an older one.
type Outcome = Result<Option<MessageId>, PublishError>;

/// What one try to store a message came to, where Redis answered.
#[derive(Debug)]
enum Try {
    Settled(Outcome),
    /// This try stored nothing, and another one may.
    NotStored,
}

#[derive(Debug)]
pub(super) struct Publisher {
    queues: Vec<mpsc::Sender<Request>>,
    tasks: Tasks,
    hasher: RandomState,
    deadline: Duration,
}

#[derive(Debug)]
struct Request {
    draft: Draft,
    /// Not sent any more after this.
    deadline: Instant,
    /// What it was sent under, once it was; from then on Redis may have it.
    sent: Option<Turn>,
    /// How often it was sent before without an answer.
    unanswered: u32,
    reply: oneshot::Sender<Outcome>,
}

/// A message's place in its sender's sequence, as Redis keeps it.
#[derive(Debug, Clone)]
struct Turn {
    key: Arc<str>,
    count: Count,
    keep: Duration,
}

/// The node as a sender, in one room: for messages that nobody else counts.
#[derive(Debug)]
struct Own {
    key: Arc<str>,
    n: u64,
    used: Instant,
}

impl Publisher {
    pub(super) fn start(
        master: &Arc<Master>,
        tasks: usize,
        keys: &Keys,
        retentions: (Retention, Retention),
        deadline: Duration,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let tracker = Tasks::default();
        let queues = (0..tasks)
            .map(|_| {
                let (sender, requests) = mpsc::channel(QUEUE);
                let worker = Worker {
                    master: master.clone(),
                    keys: keys.clone(),
                    retention: retentions.0,
                    internal: retentions.1,
                    deadline,
                    own: HashMap::new(),
                    sweep_at: FEW,
                    connection: None,
                    metrics: metrics.clone(),
                };
                let stopping = tracker.stopping();
                tracker.spawn(worker.run(requests, stopping));
                sender
            })
            .collect();
        Self { queues, tasks: tracker, hasher: RandomState::new(), deadline }
    }

    pub(super) async fn publish(&self, draft: Draft) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let shard = self.hasher.hash_one(&draft.room) % self.queues.len() as u64;
        let request = Request { draft, deadline: Instant::now() + self.deadline, sent: None, unanswered: 0, reply };
        let queue = self.queues.get(shard as usize).ok_or(PublishError::Refused)?;
        queue.try_send(request).map_err(|_| PublishError::Refused)?;
        answer.await.unwrap_or(Err(PublishError::Unknown))
    }

    pub(super) async fn finish(&self, limit: Duration) -> bool {
        self.tasks.stop(limit).await
    }
}

/// A connection, and where it goes.
struct Link {
    site: Arc<Site>,
    connection: Connection,
}

struct Worker {
    master: Arc<Master>,
    keys: Keys,
    retention: Retention,
    /// For what nodes say to each other.
    internal: Retention,
    deadline: Duration,
    own: HashMap<RoomName, Own>,
    /// With so many the quiet ones are dropped.
    sweep_at: usize,
    /// Kept while it is in use: asking the pool costs a round trip. After a quiet moment that round trip is worth it: what is sent into a
    /// connection that died meanwhile has to be sent again.
    connection: Option<(Link, Instant)>,
    metrics: Arc<Metrics>,
}

impl Worker {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, stopping: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                received = requests.recv_many(&mut batch, BATCH) => if received == 0 { return },
                // Takes no more, but still sends what is queued.
                () = stopping.cancelled(), if !requests.is_closed() => requests.close(),
            }
            self.settle(&mut batch).await;
        }
    }

    /// Sends a batch until each message has its answer, or no time is left.
    async fn settle(&mut self, batch: &mut Vec<Request>) {
        loop {
            answer_late(batch);
            if batch.is_empty() {
                return;
            }
            let Some(link) = self.connect().await else {
                // What was never sent has an answer; what was is not known until Redis is back.
                for request in batch.extract_if(.., |request| request.sent.is_none()) {
                    let _ = request.reply.send(Err(PublishError::Refused));
                }
                sleep(RETRY.mul_f64(fastrand::f64())).await;
                continue;
            };
            match self.append(link, batch).await {
                Some(tries) => answer(batch, tries),
                None => keep_for_retry(batch),
            }
            if batch.is_empty() {
                return;
            }
            self.metrics.publish_retries.inc_by(batch.len() as u64);
            sleep(RETRY.mul_f64(fastrand::f64())).await;
        }
    }

    /// What each message's try came to, or `None` when Redis did not answer and nothing is known. Loads the library where it is missing.
    async fn append(&mut self, mut link: Link, batch: &mut [Request]) -> Option<Vec<Try>> {
        self.assign(batch);
        let sent = link.site.clone().stay_for(self.send(&mut link.connection, batch)).await.flatten();
        let Some(results) = sent else {
            drop(Connection::take(link.connection));
            return None;
        };
        let has = |kind: fn(&RedisError) -> bool| results.iter().any(|result| result.as_ref().is_err_and(kind));
        let loaded = has(function::is_missing) && load(&mut link.connection).await;
        if has(is_demoted) {
            self.master.doubt(&link.site);
        } else {
            self.connection = Some((link, Instant::now()));
        }
        let judge = |(reply, request): (Result<Reply, RedisError>, &Request)| {
            trace::within(request.draft.trace.as_ref(), || match reply {
                Ok(reply) => Try::Settled(outcome(reply)),
                Err(error) if loaded && function::is_missing(&error) => Try::NotStored,
                Err(error) => match failure(&error) {
                    // What an earlier try came to is not known: that Redis refuses it now, say as it is loading, is no answer.
                    PublishError::Refused if request.unanswered > 0 => Try::NotStored,
                    failure => Try::Settled(Err(failure)),
                },
            })
        };
        Some(results.into_iter().zip(&*batch).map(judge).collect())
    }

    /// Gives each message of a batch its turn, the one it had if it was sent before.
    fn assign(&mut self, batch: &mut [Request]) {
        let now = Instant::now();
        for request in batch.iter_mut().filter(|request| request.sent.is_none() && !request.draft.ephemeral) {
            let draft = &request.draft;
            request.sent = Some(match &draft.counted {
                Some(counted) => {
                    let Counted { count, keep, .. } = *counted;
                    Turn { key: self.keys.sender(draft, counted).into(), count, keep }
                }
                None => self.own_turn(&draft.room, now),
            });
        }
    }

    fn own_turn(&mut self, room: &RoomName, now: Instant) -> Turn {
        let keep = self.deadline * 2;
        if self.own.len() >= self.sweep_at {
            self.own.retain(|_, own| own.used + keep > now);
            self.sweep_at = (self.own.len() * 2).max(FEW);
        }
        // After a pause the key may be forgotten, so a new one begins.
        let keys = &self.keys;
        let begin = || Own { key: keys.own(room, Uuid::new_v4()).into(), n: 0, used: now };
        let own = self.own.entry(room.clone()).or_insert_with(begin);
        if own.used + keep <= now {
            *own = begin();
        }
        own.n += 1;
        own.used = now;
        // Its own base: what was given up before it is not waited for.
        Turn { key: own.key.clone(), count: Count { n: own.n, base: own.n }, keep: keep * 2 }
    }

    /// One reply for each request, or `None` when the connection failed and nothing is known.
    async fn send(&self, connection: &mut Connection, requests: &[Request]) -> Option<Vec<Result<Reply, RedisError>>> {
        let mut pipeline = redis::pipe();
        for request in requests {
            pipeline.add_command(self.command(request));
        }
        pipeline.ignore_errors();
        let begun = Instant::now();
        let replies: Result<Vec<Result<Value, RedisError>>, _> = pipeline.query_async(connection).await;
        self.metrics.redis_command(Function::Publish.as_str(), begun.elapsed(), replies.is_ok());
        match replies {
            Ok(replies) => {
                Some(replies.into_iter().map(|reply| Ok(redis::from_redis_value::<Reply>(reply?)?)).collect())
            }
            Err(error) => {
                tracing::warn!(%error, messages = pipeline.len(), "Redis did not answer a publish; sending it again");
                None
            }
        }
    }

    fn command(&self, Request { draft, sent, .. }: &Request) -> redis::Cmd {
        let room = &draft.room;
        let Some(Turn { key, count, keep }) = sent else {
            let mut call = Function::Ephemeral.call();
            call.arg(1).arg(self.keys.channel(room)).arg(entry::tail(draft));
            return call.into_command();
        };
        let mut call = Function::Publish.call();
        call.arg(4).arg(self.keys.log(room)).arg(self.keys.meta(room)).arg(self.keys.channel(room)).arg(&**key);
        let Retention { messages, log, meta } = if room.is_internal() { self.internal } else { self.retention };
        call.arg(entry::tail(draft)).arg(messages).arg(log.as_millis() as u64).arg(meta.as_millis() as u64);
        call.arg(count.n).arg(count.base).arg(keep.as_millis() as u64);
        call.into_command()
    }

    async fn connect(&mut self) -> Option<Link> {
        if let Some((link, used)) = self.connection.take()
            && used.elapsed() < QUIET
            && !link.site.is_left()
        {
            return Some(link);
        }
        let site = self.master.site().ok()?;
        match site.writer().await {
            Ok(connection) => Some(Link { site, connection }),
            Err(trouble) => {
                tracing::debug!(%trouble, "no connection to Redis for publishing");
                self.master.look();
                None
            }
        }
    }
}

/// Loads the library; whether it is there now.
async fn load(connection: &mut Connection) -> bool {
    let loaded = function::load(connection).await;
    if let Err(trouble) = &loaded {
        tracing::error!(%trouble, "cannot publish");
    }
    loaded.is_ok()
}

/// Answers a batch. What was not stored stays in it for another try.
fn answer(batch: &mut Vec<Request>, tries: Vec<Try>) {
    let done = tries.iter().all(|tried| matches!(tried, Try::Settled(_)));
    let overtaken = if done { Vec::new() } else { overtaken(batch, &tries) };
    for (index, (request, tried)) in std::mem::take(batch).into_iter().zip(tries).enumerate() {
        let outcome = match tried {
            Try::Settled(outcome) => outcome,
            Try::NotStored if overtaken.get(index) == Some(&false) => {
                batch.push(request);
                continue;
            }
            Try::NotStored if request.unanswered > 0 => Err(PublishError::Unknown),
            Try::NotStored => Err(PublishError::Refused),
        };
        let _ = request.reply.send(outcome); // a sender that has gone does not mind
    }
}

/// Which messages stand before one of the same sequence that may have moved it on: sent again, Redis would take them for stored.
fn overtaken(requests: &[Request], tries: &[Try]) -> Vec<bool> {
    let mut sequences: HashSet<&str> = HashSet::new();
    let mut overtaken: Vec<bool> = Vec::with_capacity(requests.len());
    for (request, tried) in requests.iter().zip(tries).rev() {
        let stays =
            matches!(tried, Try::NotStored | Try::Settled(Err(PublishError::Refused | PublishError::Gap { .. })));
        let sequence = request.sent.as_ref().map(|turn| &*turn.key);
        overtaken.push(sequence.is_some_and(|sequence| sequences.contains(sequence)));
        sequences.extend(sequence.filter(|_| !stays));
    }
    overtaken.reverse();
    overtaken
}

/// A batch got no answer. An ephemeral message is nobody's loss and must not come twice.
fn keep_for_retry(batch: &mut Vec<Request>) {
    for request in batch.extract_if(.., |request| request.draft.ephemeral) {
        let _ = request.reply.send(Err(PublishError::Unknown));
    }
    batch.iter_mut().for_each(|request| request.unanswered += 1);
}

/// Answers what has no time left.
fn answer_late(batch: &mut Vec<Request>) {
    let now = Instant::now();
    for late in batch.extract_if(.., |request| request.deadline <= now) {
        let error = if late.sent.is_some() { PublishError::Unknown } else { PublishError::Refused };
        let _ = late.reply.send(Err(error));
    }
}

/// A word and what belongs to it: see `publish` in `log.lua`.
type Reply = (String, String);

fn outcome((word, rest): Reply) -> Outcome {
    let id = rest.parse().ok();
    match (word.as_str(), rest.parse()) {
        ("ok", _) if id.is_some() => Ok(id),
        ("again" | "sent", _) => Ok(id),
        ("gap", Ok(last_n)) => Err(PublishError::Gap { last_n }),
        _ => {
            tracing::error!(word, rest, "Redis gave a reply that the function never gives");
            Err(PublishError::Unknown)
        }
    }
}

/// What an error of Redis' own means. Before the function ran: nothing was stored. Inside it: what it wrote until then stays.
fn failure(error: &RedisError) -> PublishError {
    tracing::warn!(%error, "Redis refused a message");
    // How Redis ends the text of an error inside a function: "… script: chat_…_publish, on @user_function:37."
    let inside = error.detail().is_none_or(|detail| detail.contains("script: "));
    if inside { PublishError::Unknown } else { PublishError::Refused }
}
