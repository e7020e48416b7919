//! The harness does what it says: a proxy breaks links as it is told, a replica becomes a master, sentinels fail over.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::{
    PATIENCE, Redis, eventually,
    proxy::{Flow, Proxy, Way, Which},
    sentinel::Sentinels,
};

const WORD: &str = "magic";
const MOMENT: Duration = Duration::from_millis(200);

/// A proxy in front of a server that sends back what it gets.
async fn echo() -> Proxy {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let target = listener.local_addr().expect("it is bound");
    tokio::task::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::task::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    Proxy::start(target, &[WORD]).await
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address).await.expect("the proxy listens")
}

/// Sends some bytes and waits for them to come back.
async fn exchange(socket: &mut TcpStream, text: &str) -> String {
    socket.write_all(text.as_bytes()).await.expect("open");
    let mut buffer = vec![0; text.len()];
    timeout(PATIENCE, socket.read_exact(&mut buffer)).await.expect("in time").expect("open");
    String::from_utf8_lossy(&buffer).into_owned()
}

#[tokio::test]
async fn a_proxy_holds_one_direction_and_loses_nothing() {
    let proxy = echo().await;
    let (mut old, mut magic) = (connect(&proxy).await, connect(&proxy).await);
    assert_eq!(exchange(&mut old, "one").await, "one");
    // The word is noticed across two pieces.
    exchange(&mut magic, "mag").await;
    exchange(&mut magic, "ic").await;
    let hold = Flow { hold: true, ..Flow::default() };
    proxy.rule_for_open(Which::Saying(WORD), Way::Down, hold);
    magic.write_all(b"held").await.expect("open");
    let mut held = [0; 4];
    assert!(timeout(MOMENT, magic.read(&mut held)).await.is_err());
    exchange(&mut old, "the other did not say it").await;
    let mut young = connect(&proxy).await;
    exchange(&mut young, WORD).await; // the rule is for those that were open
    proxy.heal();
    timeout(PATIENCE, magic.read_exact(&mut held)).await.expect("in time").expect("open");
    assert_eq!(&held, b"held");
}

#[tokio::test]
async fn a_proxy_delays_throttles_slices_and_resets() {
    let proxy = echo().await;
    let mut socket = connect(&proxy).await;
    let mut timed = async |flow: Flow| {
        proxy.heal();
        proxy.rule(Which::NotSaying(WORD), Way::Up, flow);
        let start = Instant::now();
        socket.write_all(&[b'x'; 1000]).await.expect("open");
        let mut back = [0; 1000];
        let read = timeout(PATIENCE, socket.read_exact(&mut back)).await.expect("in time");
        read.map(|_| start.elapsed())
    };
    assert!(timed(Flow { delay: MOMENT, ..Flow::default() }).await.expect("open") >= MOMENT);
    assert!(timed(Flow { bytes_per_second: Some(4000), ..Flow::default() }).await.expect("open") >= MOMENT);
    timed(Flow { slices: 100, ..Flow::default() }).await.expect("open");
    let error = timed(Flow { reset_after: Some(300), ..Flow::default() }).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_proxy_cuts_and_goes_elsewhere() {
    let (proxy, other) = (echo().await, echo().await);
    let mut socket = connect(&proxy).await;
    exchange(&mut socket, WORD).await;
    assert_eq!((proxy.cut(Which::NotSaying(WORD)), proxy.cut(Which::Saying(WORD))), (0, 1));
    let mut rest = [0; 1];
    assert!(timeout(PATIENCE, socket.read(&mut rest)).await.expect("in time").is_err(), "a reset, not an end");
    eventually("it is forgotten", || async { proxy.connections(Which::All) == 0 }).await;
    proxy.retarget(other.address);
    let mut socket = connect(&proxy).await;
    exchange(&mut socket, "hello").await;
    assert_eq!(other.connections(Which::All), 1);
    // Nobody listens where it goes.
    proxy.retarget(([127, 0, 0, 1], crate::support::redis::free_port()).into());
    let mut socket = connect(&proxy).await;
    assert!(timeout(PATIENCE, socket.read(&mut rest)).await.expect("in time").is_err());
}

#[tokio::test]
async fn sentinels_fail_over() {
    let (mut master, replica) = (Redis::start().await, Redis::start().await);
    master.command(&["SET", "key", "value"]).await;
    replica.follow(&master).await;
    let sentinels = Sentinels::start(&master).await;
    assert_eq!(sentinels.master().await, Some(master.address()));
    master.kill();
    eventually("the replica is the master", || async {
        sentinels.master().await == Some(replica.address()) && replica.info("role").await == "master"
    })
    .await;
    assert!(replica.command(&["GET", "key"]).await.contains("value"));
}
