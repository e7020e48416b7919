//! What kinds of Redis a chat works over, and which it refuses and says so.

use serde_json::{Value, json};

use crate::support::{
    Node, NodeBuilder, Redis, eventually,
    redis::free_port,
    sentinel::{MASTER, Sentinels},
    tls::{Authority, Certified},
};

const PATH: &str = "/api/chat-api/ws/r";

fn over(url: &str) -> NodeBuilder {
    Node::builder().env("REDIS_URL", url).env("CHAT_PRESENCE__ENABLED", "false")
}

/// A message goes from one node to another.
async fn is_one_chat(first: &Node, second: &Node) {
    let mut reader = second.client(PATH).await;
    let id = first.client(PATH).await.publish(json!("hi")).await;
    let message = reader.message().await;
    assert_eq!((&message["payload"], &message["id"]), (&json!("hi"), &json!(id)));
}

/// The only reason that a node has against traffic, once it begins like this.
async fn waits_for(node: &Node, reason: &str) {
    let reasons = || async { node.manage("/readyz").await.json()["reasons"].clone() };
    let fits = |reasons: &Value| reasons.as_array().is_some_and(|all| all.len() == 1) && begins(&reasons[0], reason);
    eventually(&format!("it is not ready: {reason}"), || async { fits(&reasons().await) }).await;
    assert_eq!(node.manage("/livez").await.status, 200);
}

fn begins(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|value| value.starts_with(text))
}

async fn is_ready(node: &Node) {
    eventually("the node is ready", || async { node.manage("/readyz").await.status == 200 }).await;
}

#[tokio::test]
async fn a_unix_socket() {
    let redis = Redis::start_with(&["--unixsocket", "redis.sock"]).await;
    let node = || over(&format!("unix://{}/redis.sock", redis.folder().display())).start();
    let nodes = (node().await, node().await);
    is_one_chat(&nodes.0, &nodes.1).await;
}

#[tokio::test]
async fn tls_with_an_authority_and_certificates_of_ones_own() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (server, ours) = (authority.certify("127.0.0.1"), authority.certify("chat-api"));
    let text = |path: &std::path::PathBuf| path.display().to_string();
    let ca = text(&authority.file());
    let files = [
        ["tls-cert-file", &text(&server.certificate)],
        ["tls-key-file", &text(&server.key)],
        ["tls-ca-cert-file", &ca],
    ];
    let port = free_port();
    let options = [["--tls-port", &port.to_string()].map(str::to_owned)];
    let options = options.into_iter().chain(files.map(|[name, value]| [format!("--{name}"), value.to_owned()]));
    let _redis = Redis::start_with(&options.flatten().collect::<Vec<_>>()).await;
    let url = format!("rediss://127.0.0.1:{port}");
    let showing = |own: &Certified| {
        let node = over(&url).env("CHAT_REDIS__TLS_CERT_FILE", &text(&own.certificate));
        node.env("CHAT_REDIS__TLS_KEY_FILE", &text(&own.key))
    };
    let trusting = |node: NodeBuilder| node.env("CHAT_REDIS__TLS_CA_FILE", &ca);
    // Sentinels are reached like the servers.
    let watching = free_port();
    let settings = files.map(|words| words.join(" ")).join("\n");
    let settings = format!("port 0\ntls-port {watching}\ntls-replication yes\n{settings}");
    let _sentinel = Sentinels::alone(port, watching, settings);
    let by_sentinel = trusting(showing(&ours)).env("REDIS_URL", &format!("rediss://{MASTER}"));
    let by_sentinel = by_sentinel.env("CHAT_REDIS__SENTINELS", &format!("127.0.0.1:{watching}"));
    let nodes = (trusting(showing(&ours)).start().await, by_sentinel.start().await);
    is_one_chat(&nodes.0, &nodes.1).await;

    // No certificate, none that counts, or a server that is not trusted: no chat, and it is said why.
    let no_chat = async |node: NodeBuilder, why: &str| {
        let node = node.launch().await;
        let said = |line: &Value| line["trouble"].as_str().is_some_and(|trouble| trouble.contains(why));
        eventually(why, || async { node.line(said).is_some() }).await;
        waits_for(&node, "redis: not reached yet").await;
        node
    };
    no_chat(trusting(over(&url)), "CertificateRequired").await;
    no_chat(showing(&ours), "invalid peer certificate").await;
    let theirs = stranger.certify("chat-api");
    let node = no_chat(trusting(showing(&theirs)), "received fatal alert").await;
    // Certificates are renewed under a running node.
    for (from, to) in [(&ours.key, &theirs.key), (&ours.certificate, &theirs.certificate)] {
        std::fs::copy(from, to).expect("copied");
    }
    is_ready(&node).await;
    is_one_chat(&node, &nodes.0).await;
}

#[tokio::test]
async fn a_replica_is_refused_until_it_is_the_master() {
    let (master, replica) = (Redis::start().await, Redis::start().await);
    replica.follow(&master).await;
    let node = over(&replica.url()).launch().await;
    waits_for(&node, "redis: it is a replica, not the master").await;
    assert!(node.line(|line| line["level"] == "ERROR" && begins(&line["trouble"], "it is a replica")).is_some());
    replica.promote().await;
    is_ready(&node).await;
    is_one_chat(&node, &node).await;
}

#[tokio::test]
async fn a_cluster_stops_the_start_and_is_noticed_later() {
    let bus = free_port().to_string(); // else 10,000 above its port, which may be too high
    let mut late = Redis::absent().with(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let node = over(&late.url()).launch().await;
    waits_for(&node, "redis: not reached yet").await;
    late.restart().await;
    waits_for(&node, "redis: it is part of a Redis Cluster, which is not supported").await;
    let mut command = crate::support::chat_api();
    command.env("PORT", "0").env("MANAGEMENT_PORT", "0").env("REDIS_URL", late.url());
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("redis.url: it is part of a Redis Cluster"), "{text}");
}

/// What Redis shows of its durability is compared with what is declared.
#[tokio::test]
async fn durability_is_looked_at() {
    let lasting = Redis::start().await;
    let forgetful = Redis::start_with(&["--appendonly", "no"]).await;
    let evicting = Redis::start_with(&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]).await;
    for (redis, declared, found, warning) in [
        (&lasting, "everysec", "everysec", ""),
        (&lasting, "always", "unknown", ""),
        (&lasting, "none", "everysec", ""),
        (&forgetful, "everysec", "none", "set appendonly yes"),
        (&forgetful, "none", "none", ""),
        (&evicting, "everysec", "none", "set maxmemory-policy noeviction"),
    ] {
        let node = over(&redis.url()).env("CHAT_REDIS__DURABILITY", declared).start().await;
        for other in ["none", "everysec", "always", "unknown"] {
            let series = format!(r#"chat_redis_durability{{declared="{declared}",found="{other}"}}"#);
            assert_eq!(node.metric(&series).await > 0.0, found == other, "{series}");
        }
        redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        eventually("it has looked again", || async { node.metric("chat_redis_reconnects_total").await > 0.0 }).await;
        let warnings: Vec<_> = node.log().into_iter().filter(|line| line.contains(r#""declared""#)).collect();
        assert_eq!(warnings.len(), 1, "said once: {warnings:?}");
        assert_eq!(warnings[0].contains("WARN"), !warning.is_empty(), "{warnings:?}");
        assert!(warnings[0].contains(warning), "{warnings:?}");
    }
}

/// A peer that vanishes is noticed by the kernel: its timer runs on every connection to Redis, also on those that are quiet.
#[tokio::test]
async fn every_connection_is_kept_alive() {
    let redis = Redis::start().await;
    let node = over(&redis.url()).start().await;
    node.client(PATH).await.publish(json!("hi")).await;
    let there = format!(":{:04X}", redis.address().port());
    eventually("a timer on each", || async {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        let words = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let open = words.filter(|words| words[2].ends_with(&there) && words[3] == "01");
        let timers: Vec<_> = open.map(|words| words[5].to_owned()).collect();
        timers.len() >= 3 && timers.iter().all(|timer| timer.starts_with("02:")) // 02: keepalive
    })
    .await;
}
