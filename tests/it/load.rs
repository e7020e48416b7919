//! `chat-load`'s scenarios against real nodes: each runs, what it counts is right, and it can fail.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{net::TcpListener, sync::broadcast, task::spawn_blocking};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use crate::support::{
    Chat, Node, Over, eventually,
    proxy::{Proxy, Tamper},
    redis::free_port,
    tls::Authority,
    token::SECRET,
};

/// A run that has ended.
struct Ran {
    code: i32,
    /// Null where it wrote none.
    report: Value,
    printed: String,
}

impl Ran {
    fn count(&self, name: &str) -> u64 {
        self.report["counts"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {}", self.printed))
    }

    /// It went well, with as many deliveries as there should have been.
    fn passed(&self, sockets: u64) {
        assert_eq!(self.code, 0, "{}", self.printed);
        assert_eq!((self.count("joined"), self.count("failed")), (sockets, 0), "{}", self.printed);
        assert_eq!(self.report["expected"], self.count("delivered"), "{}", self.printed);
        assert_eq!(self.report["missing"], 0);
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-load"));
    command.env_clear().args(arguments);
    command
}

/// Runs to the end.
async fn load(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let folder = tempfile::TempDir::new().expect("a folder");
    let json = folder.path().join("load.json");
    let mut command = command(arguments);
    command.envs(environment.iter().copied()).arg("--json").arg(&json);
    let output = spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends");
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read(json).map(|json| serde_json::from_slice(&json).expect("JSON")).unwrap_or_default();
    Ran { code: output.status.code().expect("no signal"), report, printed }
}

fn url(address: impl std::fmt::Display) -> String {
    format!("ws://{address}")
}

#[tokio::test]
async fn one_talks_and_everybody_listens() {
    let node = Node::builder().start().await;
    let url = url(node.public);
    let metrics = format!("http://{}/metrics", node.management);
    let arguments = ["fanout", "--url", &url, "--sockets", "30", "--talkers", "2", "--rate", "100", "--duration", "1s"];
    let ran = load(&[&arguments[..], &["--metrics", &metrics, "--payload-bytes", "300"]].concat(), &[]).await;
    ran.passed(30);
    assert_eq!((ran.count("sent"), ran.count("stored")), (100, 100), "{}", ran.printed);
    assert_eq!(ran.count("delivered"), 3000, "each to each");
    for times in ["handshake", "join"] {
        assert_eq!(ran.report["times"][times]["count"], 30);
    }
    for (times, count) in [("deliver", 3000), ("ack", 100), ("lag", 100)] {
        assert_eq!(ran.report["times"][times]["count"], count, "{times}");
    }
    assert!(node.metric("chat_messages_received_total").await >= 100.0, "the node has seen them");
    assert!(ran.report["servers"][0]["rss_bytes"][1].as_f64() > Some(1e6), "{}", ran.report["servers"]);
}

#[tokio::test]
async fn all_talk_from_two_processes_and_two_addresses() {
    let node = Node::builder().start().await;
    let url = url(node.public);
    let arguments = ["rooms", "--url", &url, "--sockets", "24", "--rooms", "3", "--rate", "96", "--duration", "1s"];
    let ran =
        load(&[&arguments[..], &["--processes", "2", "--source-addresses", "127.0.0.2,127.0.0.3"]].concat(), &[]).await;
    ran.passed(24);
    assert_eq!(ran.count("stored"), 96, "{}", ran.printed);
    assert_eq!(ran.count("delivered"), 96 * 8);
    assert_eq!(ran.report["workers"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn sockets_stay_and_answer_heartbeats() {
    let node = Node::builder().env("CHAT_LIMITS__HEARTBEAT", "1s").start().await;
    let url = url(node.public);
    let ran = load(&["idle", "--url", &url, "--sockets", "20", "--duration", "4s"], &[]).await;
    ran.passed(20);
    assert!(ran.count("pings") >= 20, "{}", ran.printed);
    assert_eq!(ran.report["closes"], serde_json::json!({}), "who is silent for two heartbeats is closed");
}

#[tokio::test]
async fn a_storm_is_let_in_by_and_by() {
    let node = Node::builder().env("CHAT_LIMITS__UPGRADES_PER_SECOND", "5").start().await;
    let url = url(node.public);
    let ran = load(&["storm", "--url", &url, "--sockets", "30", "--rounds", "2", "--patience", "1m"], &[]).await;
    ran.passed(60);
    assert!(ran.report["refusals"]["503 busy"].as_u64() > Some(0), "{}", ran.printed);
    assert!(ran.printed.contains("hint: 503 busy"), "{}", ran.printed);
    for round in 0..2 {
        assert_eq!(ran.report["rounds"][round]["joined"], 30, "{}", ran.printed);
    }
    node.wait_for_metric("chat_connections", 0.0).await;
}

#[tokio::test]
async fn from_one_node_to_the_other() {
    let chat = Chat::start(Over::Redis).await;
    let urls = [url(chat.nodes[0].public), url(chat.nodes[1].public)];
    let arguments = ["cross", "--url", &urls[0], "--url", &urls[1], "--sockets", "12", "--rooms", "4"];
    let ran = load(&[&arguments[..], &["--rate", "40", "--duration", "1s"]].concat(), &[]).await;
    ran.passed(12);
    assert_eq!(ran.report["times"]["deliver"]["count"], 40 * 2, "the talkers' own copies are not timed");
    assert!(chat.nodes[1].metric("chat_messages_received_total").await < 1.0);
    assert!(chat.nodes[0].metric("chat_messages_received_total").await >= 40.0);
}

#[tokio::test]
async fn a_rolled_node_is_survived() {
    let mut chat = Chat::start(Over::Redis).await;
    let urls = [url(chat.nodes[0].public), url(chat.nodes[1].public)];
    let arguments = ["drain", "--url", &urls[0], "--url", &urls[1], "--sockets", "20", "--rooms", "4"];
    let arguments = [&arguments[..], &["--rate", "50", "--duration", "6s"]].concat();
    let drained = async {
        let node = &mut chat.nodes[0];
        eventually("they talk", || async { node.metric("chat_messages_received_total").await > 20.0 }).await;
        node.signal("TERM");
        node.wait(crate::support::PATIENCE).await
    };
    let (ran, status) = tokio::join!(load(&arguments, &[]), drained);
    assert!(status.success());
    ran.passed(20);
    assert_eq!(ran.report["closes"]["1012"], 10, "{}", ran.printed);
    assert_eq!(ran.count("reconnects"), 10, "{}", ran.printed);
    for times in ["away", "closed_at"] {
        assert_eq!(ran.report["times"][times]["count"], 10, "{times}: {}", ran.printed);
    }
}

#[tokio::test]
async fn coming_and_going_loses_nothing() {
    let node = Node::builder().start().await;
    let url = url(node.public);
    let arguments = ["soak", "--url", &url, "--sockets", "20", "--rooms", "4", "--rate", "50", "--duration", "5s"];
    let ran = load(&[&arguments[..], &["--churn", "900", "--interval", "1s"]].concat(), &[]).await;
    ran.passed(20);
    assert!(ran.count("reconnects") > 0, "{}", ran.printed);
    assert!(ran.report["rows"].as_array().is_some_and(|rows| rows.len() >= 3), "{}", ran.printed);
    assert!(ran.printed.contains("growth"), "{}", ran.printed);
}

/// Makes one delivery of the whole proxy vanish, or come twice.
struct Vandal {
    upgraded: bool,
    rest: Vec<u8>,
    seen: Arc<AtomicUsize>,
    copies: usize,
}

/// Of all deliveries, the one that it is about.
const VICTIM: usize = 17;

impl Tamper for Vandal {
    fn down(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let mut out = Vec::new();
        if !self.upgraded {
            let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") else { return out };
            out.extend(self.rest.drain(..end + 4));
            self.upgraded = true;
        }
        while let [_, length, rest @ ..] = self.rest.as_slice() {
            let end = match (length, rest) {
                (126, [high, low, ..]) => 4 + usize::from(u16::from_be_bytes([*high, *low])),
                (126, _) => break,
                (short, _) => 2 + usize::from(*short),
            };
            if self.rest.len() < end {
                break;
            }
            let frame: Vec<u8> = self.rest.drain(..end).collect();
            let delivery = String::from_utf8_lossy(&frame).contains("chat-load/");
            let victim = delivery && self.seen.fetch_add(1, Ordering::Relaxed) == VICTIM;
            (0..if victim { self.copies } else { 1 }).for_each(|_| out.extend(&frame));
        }
        out
    }
}

#[tokio::test]
async fn a_lost_or_doubled_delivery_is_found() {
    let node = Node::builder().start().await;
    for (copies, missing, doubled) in [(0, 1, 0), (2, 0, 1)] {
        let seen = Arc::new(AtomicUsize::new(0));
        let vandal = move || -> Box<dyn Tamper> {
            Box::new(Vandal { upgraded: false, rest: Vec::new(), seen: seen.clone(), copies })
        };
        let proxy = Proxy::tampering(node.public, Box::new(vandal)).await;
        let url = url(proxy.address);
        let arguments = ["rooms", "--url", &url, "--sockets", "6", "--rooms", "2", "--rate", "40", "--duration", "1s"];
        let ran = load(&[&arguments[..], &["--patience", "2s"]].concat(), &[]).await;
        assert_eq!(ran.code, 1, "{}", ran.printed);
        assert_eq!((&ran.report["missing"], ran.count("duplicates")), (&missing.into(), doubled), "{}", ran.printed);
        assert_eq!(ran.report["bad_rooms"].as_array().map(Vec::len), Some(1), "it is named: {}", ran.printed);
        assert!(ran.printed.contains("FAILED: 1 deliveries"), "{}", ran.printed);
    }
}

#[tokio::test]
async fn what_cannot_work_is_said_in_one_line() {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET).start().await;
    let (good, nobody) = (url(node.public), format!("ws://127.0.0.1:{}", free_port()));
    let cases: [(&[&str], i32, &str); 7] = [
        (&["idle", "--url", &nobody], 1, "Connection refused"),
        (&["idle", "--url", &good], 1, "401: give `--token`"),
        (&["idle", "--url", &good, "--path", "/ws/{room}"], 1, "404: no chat at this path"),
        (&["idle", "--url", "http://a"], 2, "expected `ws://host:port`"),
        (&["cross", "--url", &good], 2, "two URLs"),
        (&["rooms", "--url", &good, "--sockets", "7", "--rooms", "2"], 2, "no multiple"),
        (&["rooms", "--url", &good, "--sockets", "100000000"], 1, "`--processes`"),
    ];
    for (arguments, code, text) in cases {
        let ran = load(arguments, &[]).await;
        assert!(ran.code == code && ran.printed.contains(text), "{arguments:?}: {} {}", ran.code, ran.printed);
        assert!(code == 2 || ran.printed.lines().count() == 1, "{}", ran.printed);
    }
    let arguments = ["rooms", "--url", &good, "--sockets", "30", "--rooms", "1", "--rate", "60", "--duration", "1s"];
    let ran = load(&[&arguments[..], &["--mint"]].concat(), &[("CHAT_AUTH__SECRET", SECRET)]).await;
    ran.passed(30);
}

#[tokio::test]
async fn an_interrupt_ends_it_early_with_a_report() {
    let node = Node::builder().start().await;
    let url = url(node.public);
    let mut command = command(&["rooms", "--url", &url, "--sockets", "10", "--rooms", "2", "--duration", "1h"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("it talks", || async { node.metric("chat_messages_received_total").await > 10.0 }).await;
    crate::support::run(Command::new("kill").arg("-INT").arg(child.id().to_string()));
    let output = spawn_blocking(|| child.wait_with_output()).await.expect("a thread").expect("it ends");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("ended early"), "{printed}");
    assert!(printed.contains(" 0 missing"), "{printed}");
}

/// A server of another make: it passes on what comes, in an envelope of its own.
async fn other_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (everybody, _) = broadcast::channel::<String>(1024);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tell, mut told) = (everybody.clone(), everybody.subscribe());
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else { return };
                loop {
                    tokio::select! {
                        frame = socket.next() => match frame {
                            Some(Ok(Message::Text(text))) => drop(tell.send(format!("[1,{text}]"))),
                            Some(Ok(_)) => {}
                            _ => return,
                        },
                        Ok(text) = told.recv() => if socket.send(Message::text(text)).await.is_err() { return },
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn another_server_can_be_asked_too() {
    let node = Node::builder().start().await;
    let urls = [url(node.public), url(other_server().await)];
    for (url, path, frame) in [
        (&urls[0], "/api/chat-api/ws/{room}", r#"{"payload":{message}}"#),
        (&urls[1], "/socket?room={room}", r#"{"event":"say","data":{message}}"#),
    ] {
        let arguments = ["fanout", "--url", url, "--sockets", "10", "--rate", "50", "--duration", "1s"];
        let ran = load(&[&arguments[..], &["--plain", "--path", path, "--frame", frame]].concat(), &[]).await;
        ran.passed(10);
        assert_eq!((ran.count("stored"), ran.count("delivered")), (50, 500), "{}", ran.printed);
    }
}

/// TLS in front of a node, as an ingress ends it.
struct Front {
    process: std::process::Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Front {
    async fn start(node: std::net::SocketAddr, authority: &Authority) -> Self {
        let (folder, port) = (tempfile::TempDir::new().expect("a folder"), free_port());
        let certified = authority.certify("localhost");
        let read = |path| std::fs::read_to_string(path).expect("a file");
        let pem = folder.path().join("pair.pem");
        std::fs::write(&pem, read(certified.certificate) + &read(certified.key)).expect("written");
        let config = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout tunnel 1h\n\
             frontend front\n bind 127.0.0.1:{port} ssl crt {}\n default_backend nodes\n\
             backend nodes\n server node {node}\n",
            pem.display()
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("haproxy is installed: run `make tools`");
        let front = Self { process, port, _folder: folder };
        eventually("it listens", || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() }).await;
        front
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn over_tls() {
    let node = Node::builder().start().await;
    let authority = Authority::new();
    let front = Front::start(node.public, &authority).await;
    let url = format!("wss://localhost:{}", front.port);
    let trusted = authority.file();
    let arguments = ["rooms", "--url", &url, "--sockets", "10", "--rooms", "2", "--duration", "1s"];
    load(&arguments, &[("SSL_CERT_FILE", trusted.to_str().expect("text"))]).await.passed(10);
    let stranger = Authority::new();
    let ran = load(&arguments, &[("SSL_CERT_FILE", stranger.file().to_str().expect("text"))]).await;
    assert!(ran.code == 1 && ran.printed.contains("invalid peer certificate"), "{}", ran.printed);
    assert_eq!(ran.printed.lines().count(), 1, "{}", ran.printed);
}
