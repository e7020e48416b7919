//! A node: the real binary on ports of its own.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

use super::{Client, chat_api, client::Offer, eventually, http};

pub struct NodeBuilder {
    command: Command,
}

impl NodeBuilder {
    /// Somebody else's command, with addresses and settings of its own; it has to log JSON.
    pub fn of(command: Command) -> Self {
        Self { command }
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// Starts it and waits until it listens; not until it is ready.
    pub async fn launch(mut self) -> Node {
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("piped"), log.clone());
        collect(child.stderr.take().expect("piped"), log.clone());
        let mut node = Node { child, log, public: ([0; 4], 0).into(), management: ([0; 4], 0).into() };
        let listening = || node.line(|line| line["message"] == "listening");
        eventually("the node listens", || async { listening().is_some() || node.exited() }).await;
        let line = listening().unwrap_or_else(|| panic!("the node ended:\n{}", node.log().join("\n")));
        let address = |key: &str| line[key].as_str().expect("an address").parse().expect("an address");
        (node.public, node.management) = (address("public"), address("management"));
        node
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Node {
        let node = self.launch().await;
        eventually("the node is ready", || async { node.manage("/readyz").await.status == 200 }).await;
        node
    }
}

pub struct Node {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub public: SocketAddr,
    pub management: SocketAddr,
}

impl Node {
    /// Quick to drain; ports of the system's choice; JSON logs; tests are faster than people.
    pub fn builder() -> NodeBuilder {
        let mut command = chat_api();
        command.env("CHAT_SERVER__ADDRESS", "127.0.0.1:0").env("CHAT_SERVER__MANAGEMENT_ADDRESS", "127.0.0.1:0");
        command.env("CHAT_LOG__FORMAT", "json").env("CHAT_DRAIN__DELAY", "0s").env("CHAT_DRAIN__WINDOW", "1s");
        for limit in ["MESSAGES_PER_SECOND", "SUBSCRIBES_PER_SECOND", "LOBBY_MESSAGES_PER_SECOND", "NEW_ROOMS_PER_USER"]
        {
            command.env(format!("CHAT_LIMITS__{limit}"), "0");
        }
        command.env("CHAT_LIMITS__BYTES_PER_SECOND", "0");
        NodeBuilder { command }
    }

    /// A socket that has joined its rooms.
    pub async fn client(&self, path: &str) -> Client {
        let mut client = self.connect(path).await;
        client.joined().await;
        client
    }

    /// A socket that may still be joining.
    pub async fn connect(&self, path: &str) -> Client {
        Client::open(self.public, path, Offer::default()).await.expect("the upgrade succeeds")
    }

    pub async fn get(&self, path: &str) -> http::Answer {
        http::get(self.public, path, &[]).await
    }

    pub async fn post(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> http::Answer {
        http::send(self.public, hyper::Method::POST, path, headers, body.to_owned()).await
    }

    pub async fn manage(&self, path: &str) -> http::Answer {
        http::get(self.management, path, &[]).await
    }

    /// The value of one series of `/metrics`.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.manage("/metrics").await.body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().expect("a number")
    }

    /// The sum of a family's series.
    pub async fn total(&self, family: &str) -> f64 {
        let text = self.manage("/metrics").await.body;
        let series = text.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'));
        let values: Vec<f64> = series.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
        assert!(!values.is_empty(), "{family} is not in\n{text}");
        values.iter().sum()
    }

    pub async fn wait_for_metric(&self, series: &str, value: f64) {
        eventually(&format!("{series} is {value}"), || async { (self.metric(series).await - value).abs() < 1e-9 })
            .await;
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("the collector lives").clone()
    }

    /// The first JSON log line that fits.
    pub fn line(&self, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        self.log().iter().filter_map(|line| serde_json::from_str(line).ok()).find(|line| fits(line))
    }

    pub fn signal(&self, signal: &str) {
        super::run(Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()));
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory in use.
    pub fn rss(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it ever had.
    pub fn peak_rss(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    pub fn exited(&self) -> bool {
        let id = self.child.id();
        let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        state.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    }

    /// Waits for its end.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(start.elapsed() < limit, "still running after {limit:?}:\n{}", self.log().join("\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("--- log of the node on {} ---\n{}", self.public, log[log.len().saturating_sub(60)..].join("\n"));
        }
    }
}

fn collect(stream: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            log.lock().expect("nobody panics with it").push(line);
        }
    });
}
