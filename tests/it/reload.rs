//! Files that change while the node runs, as Kubernetes changes them: by swapping a link above them.

use std::{fs, os::unix::fs::symlink, path::Path};

use tokio::net::TcpListener;

use crate::support::{
    Client, Node,
    client::Offer,
    eventually,
    token::{SECRET, Signer, claims},
};

const PATH: &str = "/api/chat-api/ws/general";

/// A mounted ConfigMap: `..data` is a link to a folder, the files are links through it.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(files: &[(&str, &str)]) -> Self {
        let mount = Self(tempfile::tempdir().expect("a folder"));
        mount.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mount.0.path().join(name)).expect("a link");
        }
        mount
    }

    fn swap(&self, files: &[(&str, &str)]) {
        let version = self.0.path().join(format!("..{}", uuid::Uuid::new_v4()));
        fs::create_dir(&version).expect("a folder");
        for (name, text) in files {
            fs::write(version.join(name), text).expect("a file");
        }
        let link = self.0.path().join("..data_tmp");
        symlink(&version, &link).expect("a link");
        fs::rename(link, self.0.path().join("..data")).expect("swapped");
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

async fn open(node: &Node, signer: &Signer, user: &str) -> Result<Client, u16> {
    let offer = Offer::default()
        .header("authorization", format!("Bearer {}", signer.token(&claims(user))))
        .header("origin", "https://new.example");
    Client::open(node.public, PATH, offer).await.map_err(|refused| refused.status)
}

/// A message by request, for which there is a line at `debug`.
async fn say_elsewhere(node: &Node, signer: &Signer) {
    let token = format!("Bearer {}", signer.token(&claims("alice")));
    let path = "/api/chat-api/rooms/elsewhere/messages";
    assert_eq!(node.post(path, r#"{"payload":"hi"}"#, &[("authorization", &token)]).await.status, 201);
}

fn published(node: &Node) -> Option<serde_json::Value> {
    node.line(|line| line["level"] == "DEBUG" && line["message"] == "published")
}

#[tokio::test]
async fn keys_origins_and_the_log_filter_change_without_a_dropped_socket() {
    let [old, new] = ["old", "new"].map(|kid| Signer::pair(jsonwebtoken::Algorithm::ES256, kid));
    let jwks = |signers: &[&Signer]| {
        let keys: Vec<_> = signers.iter().map(|signer| &signer.jwk).collect();
        serde_json::json!({ "keys": keys }).to_string()
    };
    let config = |origin: &str, filter: &str| {
        format!("[server]\norigins = [\"{origin}\"]\n[log]\nfilter = \"{filter}\"\n[limits]\nrooms = 50\n")
    };
    let first = config("https://old.example", "info");
    let mount = Mount::new(&[("config.toml", &first), ("jwks.json", &jwks(&[&old]))]);
    let node = Node::builder()
        .env("AUTH_ENABLED", "true")
        .env("CHAT_CONFIG", &mount.path("config.toml"))
        .env("CHAT_AUTH__JWKS_FILE", &mount.path("jwks.json"))
        .env("CHAT_LIMITS__CONNECTIONS_PER_USER", "0")
        .env("CHAT_LIMITS__ROOMS", "60")
        .start()
        .await;
    assert_eq!(open(&node, &old, "alice").await.err(), Some(403), "of another origin");
    say_elsewhere(&node, &old).await;

    // Another origin, another filter, a second key: everybody stays.
    let second = config("https://new.example", "info,chat_api=debug");
    mount.swap(&[("config.toml", &second), ("jwks.json", &jwks(&[&old, &new]))]);
    node.wait_for_metric(r#"chat_config_reloads_total{outcome="applied"}"#, 1.0).await;
    let mut sockets = Vec::new();
    for n in 0..500 {
        let signer = if n % 2 == 0 { &old } else { &new };
        sockets.push(open(&node, signer, &format!("user-{n}")).await.expect("let in"));
    }
    let shadowed =
        node.line(|line| line["message"].as_str().is_some_and(|text| text.contains("environment sets them")));
    assert_eq!(shadowed.expect("told of it")["keys"], "limits.rooms");
    assert!(published(&node).is_none(), "not by the first filter");
    say_elsewhere(&node, &old).await;
    eventually("the new filter is in force", || async { published(&node).is_some() }).await;

    // Mistakes are refused as a whole, told and counted.
    let third = config("nonsense", "info");
    mount.swap(&[("config.toml", &third), ("jwks.json", &jwks(&[&old, &new]))]);
    node.wait_for_metric(r#"chat_config_reloads_total{outcome="refused"}"#, 1.0).await;
    mount.swap(&[("config.toml", &second), ("jwks.json", "{}")]);
    node.wait_for_metric(r#"chat_config_reloads_total{outcome="refused"}"#, 2.0).await;
    sockets.push(open(&node, &old, "late").await.expect("the old ones stay in force"));
    node.wait_for_metric("chat_connections", 501.0).await;
    for socket in sockets.iter_mut().step_by(50) {
        socket.ping().await;
    }

    // A key is taken away: its sockets are closed, the others stay.
    mount.swap(&[("config.toml", &second), ("jwks.json", &jwks(&[&new]))]);
    assert_eq!(sockets[0].closed().await.0, 4401);
    node.wait_for_metric("chat_connections", 250.0).await;
    sockets[1].ping().await;
    assert_eq!(open(&node, &old, "alice").await.err(), Some(401));
}

/// The same key under another name, as its issuer calls it by now: tokens that name it so are good, and its sockets stay.
#[tokio::test]
async fn a_key_of_a_set_is_renamed() {
    let signer = Signer::pair(jsonwebtoken::Algorithm::ES256, "old");
    let renamed = signer.named("new");
    let jwks = |kid: &str| {
        let mut jwk = signer.jwk.clone();
        jwk["kid"] = kid.into();
        serde_json::json!({ "keys": [jwk] }).to_string()
    };
    let mount = Mount::new(&[("jwks.json", &jwks("old"))]);
    let node = Node::builder()
        .env("AUTH_ENABLED", "true")
        .env("CHAT_AUTH__JWKS_FILE", &mount.path("jwks.json"))
        .env("CHAT_SERVER__ORIGINS", "https://new.example")
        .start()
        .await;
    let mut socket = open(&node, &signer, "alice").await.expect("let in");
    assert_eq!(open(&node, &renamed, "bob").await.err(), Some(401), "nobody has heard of it yet");
    mount.swap(&[("jwks.json", &jwks("new"))]);
    node.wait_for_metric(r#"chat_config_reloads_total{outcome="applied"}"#, 1.0).await;
    open(&node, &renamed, "bob").await.expect("let in");
    assert_eq!(open(&node, &signer, "alice").await.err(), Some(401), "by a name that is gone");
    socket.ping().await;
}

/// A secret in a file of its own, without a configuration file.
#[tokio::test]
async fn a_mounted_secret_is_rotated() {
    let mount = Mount::new(&[("secret", SECRET)]);
    let node = Node::builder()
        .env("AUTH_ENABLED", "true")
        .env("CHAT_AUTH__SECRET_FILE", &mount.path("secret"))
        .env("CHAT_SERVER__ORIGINS", "https://new.example")
        .start()
        .await;
    let signer = Signer::secret(jsonwebtoken::Algorithm::HS256);
    let mut socket = open(&node, &signer, "alice").await.expect("let in");
    mount.swap(&[("secret", "another secret of more than 32 bytes, too")]);
    assert_eq!(socket.closed().await.0, 4401);
    assert_eq!(open(&node, &signer, "alice").await.err(), Some(401));
}

/// It is swapped between the moment at which the node reads it and the moment at which the node listens: here a Redis that says nothing comes between.
#[tokio::test]
async fn a_secret_that_changes_during_the_start_is_taken() {
    let mount = Mount::new(&[("secret", "another secret of more than 32 bytes, too")]);
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let node = Node::builder()
        .env("AUTH_ENABLED", "true")
        .env("CHAT_AUTH__SECRET_FILE", &mount.path("secret"))
        .env("CHAT_SERVER__ORIGINS", "https://new.example")
        .env("CHAT_REDIS__TIMEOUT", "3s")
        .env("CHAT_PRESENCE__ENABLED", "false")
        .env("REDIS_URL", &format!("redis://{}", silent.local_addr().expect("it is bound")));
    let swap = async {
        let connection = silent.accept().await.expect("the node has read its keys, and asks Redis");
        mount.swap(&[("secret", SECRET)]);
        connection
    };
    let (node, _connection) = tokio::join!(node.launch(), swap);
    let signer = Signer::secret(jsonwebtoken::Algorithm::HS256);
    eventually("its tokens count", || async { open(&node, &signer, "alice").await.is_ok() }).await;
}
