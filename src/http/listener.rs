//! The public accept loop.
//!
//! hyper's own HTTP/1 connection rather than `axum::serve`: only it closes silent, half-sent and idle connections on time.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::timed::Timed;
use crate::shutdown::Tasks;

/// Connections that may wait to be accepted: a whole node's clients can come at once.
const BACKLOG: u32 = 4096;
/// Largest request head: a token of 8 KiB and room beside it.
const HEAD_BYTES: usize = 16 * 1024;
/// Most header lines.
const HEADERS: usize = 64;
/// Wait after a failed accept, which means that the process is out of files.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Binds an address. `[::]` takes IPv4 too, and that alone where the kernel has no IPv6.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() != Ipv6Addr::UNSPECIFIED {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        return listen(socket?, address);
    }
    match TcpSocket::new_v6() {
        Ok(socket) => {
            SockRef::from(&socket).set_only_v6(false)?;
            listen(socket, address)
        }
        Err(_) => listen(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, address.port()).into()),
    }
}

fn listen(socket: TcpSocket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How long a client may take over its side of plain HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To send the head of a request.
    pub head: Duration,
    /// To take anything of an answer that waits for it.
    pub answer: Duration,
}

/// Accepts until `stop`; connections go on in `tasks` and end once idle.
pub async fn serve(listener: TcpListener, router: Router, patience: Patience, tasks: Tasks, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                tasks.spawn(connection(socket, peer, router.clone(), patience, stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, peer: SocketAddr, router: Router, patience: Patience, stop: CancellationToken) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let serving = builder.serve_connection(TokioIo::new(Timed::new(socket, patience.answer)), service).with_upgrades();
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %peer, "HTTP connection ended");
    }
}
