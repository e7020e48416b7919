//! Refusals over HTTP: each one that is documented is given, and nothing else.

use std::collections::BTreeSet;

use chat_api::protocol::ProblemCode;
use futures_util::future::join_all;
use hyper::Method;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::{
    Chat, Client, Issuer, Node, Over, Signer,
    client::Offer,
    eventually, fill,
    http::{self, Answer},
    mint, repository,
    token::{AUDIENCE, ISSUER, SECRET},
};

const PAGE: &str = "https://app.example";
const LOBBY: &str = "/api/chat-api/ws";
const ROOM: &str = "/api/chat-api/ws/r";
const MESSAGES: &str = "/api/chat-api/rooms/r/messages";
const LONG: &str = "/api/chat-api/rooms/r/messages?limit=200";
const MESSAGE: &str = r#"{"payload":1}"#;
const UPGRADE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Reads a refusal to its code; its status is the one that belongs to it.
fn code(answer: &Answer) -> ProblemCode {
    let problem = answer.json();
    let code = ProblemCode::ALL.into_iter().find(|code| problem["code"] == code.as_str());
    let code = code.unwrap_or_else(|| panic!("a code that is none: {problem}"));
    assert_eq!((answer.status, &problem["status"]), (code.status(), &json!(code.status())), "{problem}");
    assert_eq!((answer.header("content-type"), &problem["type"]), ("application/problem+json", &json!("about:blank")));
    assert!(["title", "detail"].iter().all(|key| !problem[key].as_str().expect("text").is_empty()), "{problem}");
    let expected = |status: u16, value: &'static str| if answer.status == status { value } else { "" };
    assert_eq!(answer.header("www-authenticate"), expected(401, "Bearer"));
    let retry_after = answer.header("retry-after").parse::<u64>().ok();
    assert_eq!(retry_after.is_some_and(|seconds| seconds > 0), matches!(answer.status, 429 | 503), "{retry_after:?}");
    assert_eq!(answer.header("upgrade"), expected(426, "websocket"));
    code
}

/// The codes seen of one operation.
#[derive(Default)]
struct Seen(Vec<ProblemCode>);

impl Seen {
    fn take(&mut self, answer: &Answer, expected: ProblemCode) {
        assert_eq!(code(answer), expected, "{}", answer.body);
        self.0.push(expected);
    }

    /// All of these were seen, no other, and the statuses are those of the OpenAPI document.
    fn is_all_of(&self, codes: &[ProblemCode], path: &str, method: &str, good: u16) {
        let missing: Vec<_> = codes.iter().filter(|code| !self.0.contains(code)).collect();
        let more: Vec<_> = self.0.iter().filter(|code| !codes.contains(code)).collect();
        assert!(missing.is_empty() && more.is_empty(), "{method} {path}: not seen {missing:?}, not listed {more:?}");
        let document = std::fs::read_to_string(repository("docs/openapi.json")).expect("the document");
        let document: Value = serde_json::from_str(&document).expect("JSON");
        let documented = document["paths"][path][method]["responses"].as_object().expect("an operation");
        let documented: BTreeSet<_> = documented.keys().cloned().collect();
        let real: BTreeSet<_> = codes.iter().map(|code| code.status()).chain([good]).map(|n| n.to_string()).collect();
        assert_eq!(documented, real, "{method} {path}");
    }
}

fn bearer(user: &str) -> String {
    format!("Bearer {}", mint(SECRET, user))
}

/// A token that allows nothing.
fn powerless() -> String {
    let claims = json!({ "chat": { "rooms": {} } });
    format!("Bearer {}", Signer::secret(Algorithm::HS256).changed(&claims))
}

fn admin() -> String {
    let claims = json!({ "sub": "root", "chat": { "rooms": {}, "admin": true } });
    format!("Bearer {}", Signer::secret(Algorithm::HS256).changed(&claims))
}

/// The refusal of a node that cannot check tokens yet.
async fn an_issuer_that_is_away(upgrades: &mut Seen) {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__JWKS_URL", &Issuer::absent().url());
    let node = node.env("CHAT_AUTH__ISSUER", ISSUER).env("CHAT_AUTH__AUDIENCE", AUDIENCE).launch().await;
    let token = format!("Bearer {}", Signer::pair(Algorithm::ES256, "key").changed(&json!({})));
    let answer = http::get(node.public, LOBBY, &[&UPGRADE[..], &[("authorization", token.as_str())]].concat()).await;
    upgrades.take(&answer, ProblemCode::Unavailable);
}

/// The refusals of a node with small limits.
async fn too_many_and_too_fast(upgrades: &mut Seen, publishes: &mut Seen) {
    use ProblemCode::{AddressConnections, Busy, NewRooms, RateLimited, UserConnections};
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET);
    let limits = ["CONNECTIONS_PER_USER", "CONNECTIONS_PER_ADDRESS", "NEW_ROOMS_PER_USER", "MESSAGES_PER_SECOND"];
    let node = limits.iter().fold(node, |node, limit| node.env(&format!("CHAT_LIMITS__{limit}"), "1"));
    let node = node.env("CHAT_LIMITS__UPGRADES_PER_SECOND", "4").start().await;
    let users = ["alice", "bob", "carol"].map(bearer);
    let [alice, bob, carol] = users.each_ref().map(|token| ("authorization", token.as_str()));

    let offer = Offer::default().header("authorization", alice.1);
    let _socket = Client::open(node.public, LOBBY, offer).await.expect("the first");
    let upgrade = async |path: &str, user| http::get(node.public, path, &[&UPGRADE[..], &[user]].concat()).await;
    upgrades.take(&upgrade(LOBBY, alice).await, UserConnections);
    upgrades.take(&upgrade(LOBBY, bob).await, AddressConnections);
    let publish = async |room: &str| {
        let path = format!("/api/chat-api/rooms/{room}/messages");
        http::send(node.public, Method::POST, &path, &[carol], MESSAGE.to_owned()).await
    };
    assert_eq!(publish("a").await.status, 201);
    publishes.take(&publish("b").await, NewRooms);
    publishes.take(&publish("b").await, RateLimited);
    upgrades.take(&upgrade(ROOM, carol).await, NewRooms);
    let crowd = join_all((0..32).map(|_| upgrade(LOBBY, bob))).await;
    upgrades.take(crowd.iter().find(|answer| code(answer) == Busy).expect("more than four in a second"), Busy);
}

/// The refusal of a node whose answers nobody takes.
async fn answers_that_nobody_takes(reads: &mut Seen) {
    let node = Node::builder().env("CHAT_LIMITS__OUTBOX_AGE", "60s").start().await;
    fill(&node, "r").await;
    let _unread = join_all((0..150).map(|_| http::unread(node.public, LONG))).await;
    let refused = r#"chat_limited_total{limit="answers"}"#;
    eventually("all is taken", || async { node.metric(refused).await > 0.0 }).await;
    reads.take(&node.get(LONG).await, ProblemCode::Busy);
}

#[tokio::test]
async fn every_documented_refusal_is_real() {
    use ProblemCode::{
        Auth, ContentType, Draining, Forbidden, Full, InvalidHandshake, InvalidJson, InvalidKey, InvalidMessage,
        InvalidPosition, InvalidProtocol, InvalidQuery, InvalidRoom, InvalidUser, NotFound, Origin, ReservedType,
        Timeout, TooLarge, Unavailable, Upgrade,
    };
    let mut chat = Chat::start_with(Over::Redis, |node| {
        let node = node.env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET).env("CHAT_SERVER__ORIGINS", PAGE);
        let node = node.env("CHAT_LIMITS__MESSAGE_DEADLINE", "1s").env("CHAT_LIMITS__CONNECTIONS", "4");
        node.env("CHAT_DRAIN__WINDOW", "6s")
    })
    .await;
    let address = chat.nodes[0].public;
    let bearer = bearer("alice");
    let auth = ("authorization", bearer.as_str());
    let (mut upgrades, mut publishes, mut reads) = (Seen::default(), Seen::default(), Seen::default());
    let (mut looks, mut revocations) = (Seen::default(), Seen::default());

    let upgrade =
        async |path: &str, headers: &[(&str, &str)]| http::get(address, path, &[&UPGRADE, headers].concat()).await;
    assert_eq!(upgrade(ROOM, &[auth]).await.status, 101);
    upgrades.take(&upgrade("/api/chat-api/ws/a%20b", &[auth]).await, InvalidRoom);
    upgrades.take(&upgrade("/api/chat-api/ws?after=yesterday", &[auth]).await, InvalidPosition);
    upgrades.take(&upgrade("/api/chat-api/ws?before=0-0", &[auth]).await, InvalidQuery);
    upgrades.take(&upgrade("/api/chat-api/ws?after=0-0&after=0-0", &[auth]).await, InvalidQuery);
    upgrades.take(&upgrade(LOBBY, &[auth, ("sec-websocket-protocol", "mqtt")]).await, InvalidProtocol);
    upgrades.take(&http::get(address, LOBBY, &[auth, ("upgrade", "websocket")]).await, InvalidHandshake);
    upgrades.take(&upgrade(LOBBY, &[]).await, Auth);
    upgrades.take(&upgrade(LOBBY, &[auth, ("origin", "https://evil.example")]).await, Origin);
    upgrades.take(&http::get(address, LOBBY, &[auth]).await, Upgrade);
    let powerless = powerless();
    let powerless = ("authorization", powerless.as_str());
    upgrades.take(&upgrade(ROOM, &[powerless]).await, Forbidden);

    let publish = async |path: &str, body: &str, headers: &[(&str, &str)]| {
        http::send(address, Method::POST, path, headers, body.to_owned()).await
    };
    assert_eq!(publish(MESSAGES, MESSAGE, &[auth]).await.status, 201);
    publishes.take(&publish(MESSAGES, "{", &[auth]).await, InvalidJson);
    publishes.take(&publish(MESSAGES, "{}", &[auth]).await, InvalidMessage);
    publishes.take(&publish(MESSAGES, r#"{"room":"a b","payload":1}"#, &[auth]).await, InvalidMessage);
    publishes.take(&publish(MESSAGES, r#"{"type":"ack","payload":1}"#, &[auth]).await, ReservedType);
    publishes.take(&publish("/api/chat-api/rooms/%ff/messages", MESSAGE, &[auth]).await, InvalidRoom);
    publishes.take(&publish(&format!("{MESSAGES}?retry=1"), MESSAGE, &[auth]).await, InvalidQuery);
    publishes.take(&publish(MESSAGES, MESSAGE, &[auth, ("idempotency-key", &"k".repeat(65))]).await, InvalidKey);
    publishes.take(&publish(MESSAGES, MESSAGE, &[]).await, Auth);
    publishes.take(&publish(MESSAGES, MESSAGE, &[powerless]).await, Forbidden);
    publishes.take(&publish(MESSAGES, MESSAGE, &[auth, ("origin", "https://evil.example")]).await, Origin);
    publishes.take(&publish(MESSAGES, &format!("\"{}\"", "x".repeat(33_000)), &[auth]).await, TooLarge);
    publishes.take(&publish(MESSAGES, MESSAGE, &[auth, ("content-type", "text/plain")]).await, ContentType);
    // Bodies that never come, or never end. The connection is given up with the answer.
    let head = format!("POST {MESSAGES} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n");
    for part in ["content-length: 13\r\n\r\n{\"payl", "transfer-encoding: chunked\r\n\r\n6\r\n{\"payl\r\n"] {
        let answer = http::raw(address, &format!("{head}{part}")).await;
        assert_eq!(answer.header("connection"), "close");
        publishes.take(&answer, Timeout);
    }

    let read =
        async |query: &str, headers: &[(&str, &str)]| http::get(address, &format!("{MESSAGES}{query}"), headers).await;
    assert_eq!(read("", &[auth]).await.status, 200);
    reads.take(&http::get(address, "/api/chat-api/rooms/a%2Fb/messages", &[auth]).await, InvalidRoom);
    reads.take(&read("?after=yesterday", &[auth]).await, InvalidPosition);
    for query in ["?limit=0", "?limit=201", "?limit=x", "?colour=red", "?after=0-0&before=0-0", "?limit=1&limit=2"] {
        reads.take(&read(query, &[auth]).await, InvalidQuery);
    }
    reads.take(&read("", &[]).await, Auth);
    reads.take(&read("", &[powerless]).await, Forbidden);
    reads.take(&read("", &[auth, ("origin", "null")]).await, Origin);

    let look = async |path: &str, headers: &[(&str, &str)]| {
        http::get(address, &format!("/api/chat-api/rooms/{path}"), headers).await
    };
    assert_eq!(look("r/presence", &[auth]).await.status, 200);
    looks.take(&look("a*/presence", &[auth]).await, InvalidRoom);
    looks.take(&look("r/presence?limit=1", &[auth]).await, InvalidQuery);
    looks.take(&look("r/presence", &[]).await, Auth);
    looks.take(&look("r/presence", &[powerless]).await, Forbidden);
    looks.take(&look("r/presence", &[auth, ("origin", "https://evil.example")]).await, Origin);
    looks.take(&look("lobby/presence", &[auth]).await, NotFound);

    let admin = admin();
    let admin = ("authorization", admin.as_str());
    let revoke = async |user: &str, headers: &[(&str, &str)]| {
        let path = format!("/api/chat-api/users/{user}");
        http::send(address, Method::DELETE, &path, headers, String::new()).await
    };
    assert_eq!(revoke("mallory/connections", &[admin]).await.status, 204);
    revocations.take(&revoke("%00/connections", &[admin]).await, InvalidUser);
    revocations.take(&revoke("bob/connections?now=1", &[admin]).await, InvalidQuery);
    revocations.take(&revoke("bob/connections", &[]).await, Auth);
    revocations.take(&revoke("bob/connections", &[auth]).await, Forbidden);
    revocations.take(&revoke("bob/connections", &[admin, ("origin", "https://evil.example")]).await, Origin);

    chat.redis.as_mut().expect("redis").kill();
    chat.nodes[0].wait_for_metric("chat_redis_up", 0.0).await;
    publishes.take(&publish(MESSAGES, MESSAGE, &[auth]).await, Unavailable);
    reads.take(&read("", &[auth]).await, Unavailable);
    looks.take(&look("r/presence", &[auth]).await, Unavailable);
    revocations.take(&revoke("bob/connections", &[admin]).await, Unavailable);

    let open = async || {
        let offer = Offer::default().header("authorization", bearer.clone());
        Client::open(address, LOBBY, offer).await.expect("open")
    };
    let _sockets = [open().await, open().await, open().await, open().await];
    eventually("the node is full", || async { upgrade(LOBBY, &[auth]).await.status == 503 }).await;
    upgrades.take(&upgrade(LOBBY, &[auth]).await, Full);
    chat.nodes[0].signal("TERM");
    eventually("the drain", || async { code(&upgrade(LOBBY, &[auth]).await) == Draining }).await;
    upgrades.take(&upgrade(LOBBY, &[auth]).await, Draining);

    an_issuer_that_is_away(&mut upgrades).await;
    too_many_and_too_fast(&mut upgrades, &mut publishes).await;
    upgrades.is_all_of(&ProblemCode::OF_UPGRADES, LOBBY, "get", 101);
    upgrades.is_all_of(&ProblemCode::OF_UPGRADES, "/api/chat-api/ws/{room}", "get", 101);
    publishes.is_all_of(&ProblemCode::OF_PUBLISHES, "/api/chat-api/rooms/{room}/messages", "post", 201);
    answers_that_nobody_takes(&mut reads).await;
    reads.is_all_of(&ProblemCode::OF_READS, "/api/chat-api/rooms/{room}/messages", "get", 200);
    let path = "/api/chat-api/users/{user}/connections";
    revocations.is_all_of(&ProblemCode::OF_REVOCATIONS, path, "delete", 204);
    looks.is_all_of(&ProblemCode::OF_PRESENCE, "/api/chat-api/rooms/{room}/presence", "get", 200);
}

#[tokio::test]
async fn methods_and_paths_that_are_not_there() {
    let node = Node::builder().start().await;
    let send = async |method: Method, path: &str| http::send(node.public, method, path, &[], String::new()).await;
    for (path, allow) in [
        (LOBBY, "GET,HEAD"),
        (ROOM, "GET,HEAD"),
        (MESSAGES, "GET,HEAD,POST"),
        ("/api/chat-api/openapi.json", "GET,HEAD"),
        ("/api/chat-api/asyncapi.json", "GET,HEAD"),
        ("/docs", "GET,HEAD"),
    ] {
        let refused = send(Method::DELETE, path).await;
        assert_eq!((code(&refused), refused.header("allow")), (ProblemCode::Method, allow), "{path}");
    }
    for path in ["/api/chat-api", "/api/chat-api/ws/a/b", "/api/chat-api/rooms/r", "/nothing"] {
        assert_eq!(code(&send(Method::GET, path).await), ProblemCode::NotFound, "{path}");
    }
    let head = send(Method::HEAD, MESSAGES).await;
    assert_eq!((head.status, head.header("content-type"), head.body.as_str()), (200, "application/json", ""));
    assert_eq!(send(Method::HEAD, LOBBY).await.status, 426);
}

#[tokio::test]
async fn a_body_is_json_whatever_is_said_of_it() {
    let node = Node::builder().start().await;
    for (said, status) in [
        ("application/json", 201),
        ("Application/JSON; charset=utf-8", 201),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
        ("", 415),
    ] {
        assert_eq!(node.post(MESSAGES, MESSAGE, &[("content-type", said)]).await.status, status, "{said}");
    }
    assert_eq!(node.post(MESSAGES, MESSAGE, &[]).await.status, 201, "nothing said");
}

/// What a browser asks before it lets a page publish, and what the page may then read.
#[tokio::test]
async fn pages_of_the_allowed_origins_may_ask() {
    let node = Node::builder().env("CHAT_SERVER__ORIGINS", PAGE).start().await;
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type,idempotency-key"),
        ];
        http::send(node.public, Method::OPTIONS, MESSAGES, &headers, String::new()).await
    };
    let allowed = preflight(PAGE).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, PAGE));
    assert_eq!(allowed.header("access-control-allow-methods"), "GET,POST,DELETE");
    let headers: BTreeSet<_> = allowed.header("access-control-allow-headers").split(',').collect();
    assert_eq!(headers, BTreeSet::from(["authorization", "content-type", "idempotency-key", "traceparent"]));
    assert!(allowed.header("vary").contains("origin"), "caches keep origins apart: {}", allowed.header("vary"));
    assert_eq!(preflight("https://evil.example").await.header("access-control-allow-origin"), "");
    let refused = http::get(node.public, &format!("{MESSAGES}?limit=0"), &[("origin", PAGE)]).await;
    assert_eq!((code(&refused), refused.header("access-control-allow-origin")), (ProblemCode::InvalidQuery, PAGE));
    assert_eq!(refused.header("access-control-expose-headers"), "retry-after");
}
