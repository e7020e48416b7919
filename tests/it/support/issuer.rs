//! An issuer's HTTP server: hands out its key set, well or badly, and counts who asks.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

use super::Signer;

/// How it answers.
#[derive(Debug, Clone)]
pub enum Manner {
    /// With this body.
    Body(String),
    /// With this status and nothing else.
    Status(StatusCode),
    /// By sending the asker on.
    Redirect(String),
    /// Never.
    Silence,
}

#[derive(Clone)]
struct Shared {
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
}

/// Runs until stopped or dropped.
pub struct Issuer {
    address: SocketAddr,
    shared: Shared,
    server: JoinSet<()>,
}

impl Issuer {
    /// Has no keys to hand out at first.
    pub async fn start() -> Self {
        let mut issuer = Self::absent();
        issuer.restart().await;
        issuer
    }

    /// An address, and nobody there yet.
    pub fn absent() -> Self {
        let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = reserved.local_addr().expect("bound");
        let manner = Arc::new(Mutex::new(Manner::Status(StatusCode::NOT_FOUND)));
        Self { address, shared: Shared { manner, asked: Arc::default() }, server: JoinSet::new() }
    }

    pub async fn restart(&mut self) {
        let listener = bind(self.address);
        let router = Router::new().route("/keys", get(answer)).with_state(self.shared.clone());
        self.server.spawn(async move { axum::serve(listener, router).await.expect("the issuer serves") });
    }

    /// Nobody listens any more.
    pub async fn stop(&mut self) {
        self.server.shutdown().await;
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// From now on hands out these keys.
    pub fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| &signer.jwk).collect();
        self.answer(Manner::Body(json!({ "keys": keys }).to_string()));
    }

    pub fn answer(&self, manner: Manner) {
        *self.shared.manner.lock() = manner;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

fn bind(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option"); // there may be remains of the last one
    socket.bind(address).expect("the port is still free");
    socket.listen(64).expect("it listens")
}

async fn answer(State(shared): State<Shared>) -> Response {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let manner = shared.manner.lock().clone();
    match manner {
        Manner::Body(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Manner::Status(status) => status.into_response(),
        Manner::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Manner::Silence => std::future::pending().await,
    }
}
