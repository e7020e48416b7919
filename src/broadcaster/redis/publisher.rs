//! Sends messages to Redis: a few tasks, each with a bounded queue and one connection, rooms spread over them by hash.
//!
//! What waits while a batch is under way goes with the next one, so load makes larger pipelines by itself.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use deadpool_redis::{Connection, Pool};
use redis::{RedisError, Value};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Keys, entry, function, reason};
use crate::{
    broadcaster::{Counted, Draft, PublishError},
    protocol::MessageId,
    shutdown::Tasks,
};

/// Messages that may wait for one task; the next is refused.
const QUEUE: usize = 1024;
/// How long a connection is trusted without a look at it.
const QUIET: Duration = Duration::from_secs(1);
/// Most messages in one pipeline.
const BATCH: usize = 64;

/// What Redis keeps of a room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) messages: u64,
    pub(super) log: Duration,
    pub(super) meta: Duration,
}

/// What became of a message: its position, unless it repeats an older one.
type Outcome = Result<Option<MessageId>, PublishError>;

#[derive(Debug)]
pub(super) struct Publisher {
    queues: Vec<mpsc::Sender<Request>>,
    tasks: Tasks,
    hasher: RandomState,
    patience: Duration,
}

#[derive(Debug)]
struct Request {
    draft: Draft,
    /// Not sent any more after this: nobody waits for it.
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
}

impl Publisher {
    pub(super) fn start(pool: &Pool, tasks: usize, keys: &Keys, retention: Retention, timeout: Duration) -> Self {
        let tracker = Tasks::default();
        let queues = (0..tasks)
            .map(|_| {
                let (sender, requests) = mpsc::channel(QUEUE);
                let worker = Worker { pool: pool.clone(), keys: keys.clone(), retention, connection: None };
                let stopping = tracker.stopping();
                tracker.spawn(worker.run(requests, stopping));
                sender
            })
            .collect();
        Self { queues, tasks: tracker, hasher: RandomState::new(), patience: timeout * 2 }
    }

    pub(super) async fn publish(&self, draft: Draft) -> Outcome {
        let (reply, answer) = oneshot::channel();
        let shard = self.hasher.hash_one(&draft.room) % self.queues.len() as u64;
        let request = Request { draft, deadline: Instant::now() + self.patience, reply };
        let queue = self.queues.get(shard as usize).ok_or(PublishError::Refused)?;
        queue.try_send(request).map_err(|_| PublishError::Refused)?;
        answer.await.unwrap_or(Err(PublishError::Unknown))
    }

    pub(super) async fn finish(&self, limit: Duration) -> bool {
        self.tasks.stop(limit).await
    }
}

struct Worker {
    pool: Pool,
    keys: Keys,
    retention: Retention,
    /// Kept while it is in use: asking the pool costs a round trip. After a quiet moment that round trip is worth it: what is sent into a
    /// connection that died meanwhile has an unknown outcome.
    connection: Option<(Connection, Instant)>,
}

impl Worker {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, stopping: tokio_util::sync::CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                received = requests.recv_many(&mut batch, BATCH) => if received == 0 { return },
                // Takes no more, but still sends what is queued.
                () = stopping.cancelled(), if !requests.is_closed() => requests.close(),
            }
            self.handle(&mut batch).await;
        }
    }

    async fn handle(&mut self, batch: &mut Vec<Request>) {
        let now = Instant::now();
        for late in batch.extract_if(.., |request| request.deadline <= now) {
            let _ = late.reply.send(Err(PublishError::Refused));
        }
        if batch.is_empty() {
            return;
        }
        let results = self.append(batch).await;
        for (request, result) in batch.drain(..).zip(results) {
            // A sender that has gone does not mind.
            let _ = request.reply.send(result);
        }
    }

    async fn append(&mut self, batch: &[Request]) -> Vec<Outcome> {
        let Some(mut connection) = self.connect().await else {
            return vec![Err(PublishError::Refused); batch.len()];
        };
        let all: Vec<&Request> = batch.iter().collect();
        let Some(mut results) = self.send(&mut connection, &all).await else {
            drop(Connection::take(connection));
            return vec![Err(PublishError::Unknown); batch.len()];
        };
        let missing: Vec<usize> = (0..results.len())
            .filter(|&n| results.get(n).is_some_and(|result| result.as_ref().is_err_and(function::is_missing)))
            .collect();
        if !missing.is_empty() {
            if let Err(error) = function::load(&mut connection).await {
                tracing::error!(%error, "cannot load the function library into Redis; allow FUNCTION LOAD or load it beforehand");
            }
            let again: Vec<&Request> = missing.iter().filter_map(|&n| batch.get(n)).collect();
            let retried = self.send(&mut connection, &again).await;
            let Some(retried) = retried else {
                drop(Connection::take(connection));
                return results.into_iter().map(|reply| reply.map_or(Err(PublishError::Unknown), outcome)).collect();
            };
            for (n, result) in missing.into_iter().zip(retried) {
                if let Some(slot) = results.get_mut(n) {
                    *slot = result;
                }
            }
        }
        self.connection = Some((connection, Instant::now()));
        results.into_iter().map(|reply| reply.map_or_else(|error| Err(failure(&error)), outcome)).collect()
    }

    /// One reply for each request, or `None` when the connection failed and nothing is known.
    async fn send(&self, connection: &mut Connection, requests: &[&Request]) -> Option<Vec<Result<Reply, RedisError>>> {
        let mut pipeline = redis::pipe();
        for request in requests {
            pipeline.add_command(self.command(&request.draft));
        }
        pipeline.ignore_errors();
        let replies: Result<Vec<Result<Value, RedisError>>, _> = pipeline.query_async(connection).await;
        match replies {
            Ok(replies) => {
                Some(replies.into_iter().map(|reply| Ok(redis::from_redis_value::<Reply>(reply?)?)).collect())
            }
            Err(error) => {
                tracing::warn!(%error, messages = requests.len(), "Redis did not answer a publish");
                None
            }
        }
    }

    fn command(&self, draft: &Draft) -> redis::Cmd {
        let room = &draft.room;
        if draft.ephemeral {
            let mut call = function::ephemeral();
            call.arg(1).arg(self.keys.channel(room)).arg(entry::tail(draft));
            return call;
        }
        let mut call = function::publish();
        call.arg(if draft.counted.is_some() { 4 } else { 3 });
        call.arg(self.keys.log(room)).arg(self.keys.meta(room)).arg(self.keys.channel(room));
        if let Some(counted) = &draft.counted {
            call.arg(self.keys.sender(draft, counted));
        }
        call.arg(entry::tail(draft)).arg(self.retention.messages);
        call.arg(self.retention.log.as_millis() as u64).arg(self.retention.meta.as_millis() as u64);
        if let Some(Counted { count, keep, .. }) = &draft.counted {
            call.arg(count.n).arg(count.base).arg(keep.as_millis() as u64);
        }
        call
    }

    async fn connect(&mut self) -> Option<Connection> {
        if let Some((connection, used)) = self.connection.take()
            && used.elapsed() < QUIET
        {
            return Some(connection);
        }
        match self.pool.get().await {
            Ok(connection) => Some(connection),
            Err(error) => {
                tracing::debug!(error = reason(&error), "no connection to Redis for publishing");
                None
            }
        }
    }
}

/// A word and what belongs to it: see `publish` in `chat.lua`.
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
