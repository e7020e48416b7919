//! A redis-server process in a folder of its own.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{PATIENCE, eventually};

pub struct Redis {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

impl Redis {
    /// With its log flushed to disk every second, as the chart runs it.
    pub async fn start() -> Self {
        Self::start_with(&[""; 0]).await
    }

    /// With options of its own behind the usual ones: `--name`, `value`, …
    pub async fn start_with(options: &[impl AsRef<str> + std::fmt::Debug]) -> Self {
        for _ in 0..5 {
            let mut redis = Self::absent().with(options);
            if redis.launch().await {
                return redis;
            }
        }
        panic!("redis-server does not start with {options:?}");
    }

    /// A port and a folder, nothing running yet.
    pub fn absent() -> Self {
        let folder = TempDir::new().expect("a folder");
        Self { folder, port: free_port(), options: Vec::new(), process: None }
    }

    /// Options of its own for when it is started.
    pub fn with(mut self, options: &[impl AsRef<str>]) -> Self {
        self.options = options.iter().map(|option| option.as_ref().to_owned()).collect();
        self
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Starts it, with whatever its folder holds.
    pub async fn restart(&mut self) {
        assert!(self.launch().await, "somebody has taken port {}", self.port);
    }

    /// False: it has ended, as somebody else has taken the port meanwhile.
    async fn launch(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port"]).arg(self.port.to_string()).arg("--dir").arg(self.folder.path());
        command.args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--loglevel", "warning"]);
        command.args(["--repl-diskless-sync-delay", "0"]).args(&self.options);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("redis-server is installed: run `make tools`");
        let pid = child.id();
        self.process = Some(child);
        let started = Instant::now();
        while !self.answers(pid).await {
            if self.process.as_mut().is_some_and(|process| process.try_wait().expect("a child").is_some()) {
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "never: redis answers");
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Returns once what it has acknowledged is in its files: while an earlier part is flushed, writes wait.
    pub async fn written(&self) {
        let is_written = async || {
            let info = self.command(&["INFO", "persistence"]).await;
            info.contains("aof_buffer_length:0\r") || info.contains("aof_enabled:0\r")
        };
        eventually("its log is written", is_written).await;
    }

    /// A copy of its files.
    pub async fn backup(&self) -> TempDir {
        self.written().await;
        let backup = TempDir::new().expect("a folder");
        super::run(Command::new("cp").args(["-a", "--"]).arg(self.folder.path().join(".")).arg(backup.path()));
        backup
    }

    /// Puts a copy in the place of what it has. Not while it runs.
    pub fn restore(&mut self, backup: &TempDir) {
        self.folder = TempDir::new().expect("a folder");
        super::run(Command::new("cp").args(["-a", "--"]).arg(backup.path().join(".")).arg(self.folder.path()));
    }

    /// A crash after which it has no more than a copy has, or nothing.
    pub async fn lose(&mut self, backup: Option<&TempDir>) {
        self.kill();
        match backup {
            Some(backup) => self.restore(backup),
            None => self.folder = TempDir::new().expect("a folder"),
        }
        self.restart().await;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("a child");
        }
    }

    /// SIGSTOP: it takes connections and answers nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs");
        super::run(Command::new("kill").arg(format!("-{signal}")).arg(process.id().to_string()));
    }

    /// One command by hand; the raw reply. Redis cuts its connections when it changes its role: then once more.
    pub async fn command(&self, words: &[&str]) -> String {
        match command(self.address(), words).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => command(self.address(), words).await,
            answer => answer,
        }
        .expect("redis answers")
    }

    /// One line of `INFO`, by its name; empty if there is none.
    pub async fn info(&self, name: &str) -> String {
        let info = self.command(&["INFO", "everything"]).await;
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }

    /// Makes it a replica of `master`, and waits until it has everything.
    pub async fn follow(&self, master: &Self) {
        self.command(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]).await;
        eventually("the replica has caught up", || async { self.info("master_link_status").await == "up" }).await;
    }

    /// Makes it a replica of a server that is not there.
    pub async fn follow_nobody(&self) {
        self.command(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]).await;
        eventually("the link is down", || async { self.info("master_link_status").await == "down" }).await;
    }

    /// Makes it a master, with what it has.
    pub async fn promote(&self) {
        self.command(&["REPLICAOF", "NO", "ONE"]).await;
        eventually("it is a master", || async { self.info("role").await == "master" }).await;
    }

    /// This very process, not another one on its port.
    async fn answers(&self, pid: u32) -> bool {
        if TcpStream::connect(self.address()).await.is_err() {
            return false;
        }
        let own = self.command(&["INFO", "server"]).await.contains(&format!("process_id:{pid}\r"));
        own && self.command(&["PING"]).await.starts_with("+PONG") // it has read its log
    }
}

/// One command to a server; as much of the raw reply as comes in one piece.
pub async fn command(address: SocketAddr, words: &[&str]) -> std::io::Result<String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut reply = vec![0; 65536];
    let read = socket.read(&mut reply).await?;
    Ok(String::from_utf8_lossy(&reply[..read]).into_owned())
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
