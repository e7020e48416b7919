//! Writes into Redis all the time, so that it is known what Redis itself kept of what it acknowledged.
//!
//! With `appendfsync everysec` Redis may put off writing while it flushes. A kill in that moment takes acknowledged writes with it, whoever made
//! them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use crate::support::{Redis, eventually};

const KEY: &str = "witness";
/// So many replies are hardly ever between the last one and the end.
const PAUSE: Duration = Duration::from_millis(1);

pub struct Witness {
    acked: Arc<AtomicU64>,
    tasks: JoinSet<std::io::Result<()>>,
}

impl Witness {
    /// Counts up until the server goes.
    pub async fn start(address: SocketAddr) -> Self {
        let (reader, mut writer) = TcpStream::connect(address).await.expect("redis listens").into_split();
        let (acked, mut tasks) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let last = acked.clone();
        tasks.spawn(async move {
            let mut replies = BufReader::new(reader).lines();
            while let Some(reply) = replies.next_line().await? {
                last.fetch_max(number(&reply), Ordering::Relaxed);
            }
            Ok(())
        });
        tasks.spawn(async move {
            loop {
                writer.write_all(format!("INCR {KEY}\r\n").as_bytes()).await?;
                sleep(PAUSE).await;
            }
        });
        eventually("the witness writes", || async { acked.load(Ordering::Relaxed) > 0 }).await;
        Self { acked, tasks }
    }

    /// How many of the acknowledged writes the server does not have any more, now that it is back.
    pub async fn lost(mut self, redis: &Redis) -> u64 {
        self.tasks.shutdown().await;
        let reply = redis.command(&["GET", KEY]).await;
        let kept = reply.lines().nth(1).map_or(0, number);
        self.acked.load(Ordering::Relaxed).saturating_sub(kept)
    }
}

/// Of `:42` or `42`.
fn number(reply: &str) -> u64 {
    reply.trim_start_matches(':').parse().unwrap_or(0)
}
