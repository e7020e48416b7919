//! RFC 6455, case by case: the suite that WebSocket libraries are held to, against an echo over the same accept loop, upgrade and
//! connection as the product.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use axum::{Router, routing::get};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config,
    http::listener,
    hub::{ConnectionLimits, Receive},
    protocol::Close,
    shutdown::Tasks,
};

/// Of a client of the suite.
const PATIENCE: listener::Patience =
    listener::Patience { head: Duration::from_secs(5), answer: Duration::from_secs(10) };
/// Largest message of the suite.
const LARGEST: usize = 16 << 20;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;

struct Echo<'a>(&'a Connection);

impl Receive for Echo<'_> {
    async fn receive(&mut self, text: &str) {
        self.0.send(&Frame::data(TEXT, text.as_bytes()));
    }

    fn binary(&mut self, bytes: &[u8]) -> Option<Close> {
        self.0.send(&Frame::data(BINARY, bytes));
        None
    }
}

async fn echo(State(tasks): State<Tasks>, mut request: Request) -> Result<Response, Problem> {
    let response = handshake(&request)?;
    let upgrade = hyper::upgrade::on(&mut request);
    tasks.spawn(async move {
        let (socket, leftover) = take(upgrade).await.unwrap();
        let limits = config::Limits {
            message_bytes: LARGEST,
            outbox_bytes: 2 * LARGEST,
            messages_per_second: 0,
            bytes_per_second: 0,
            ..config::Limits::default()
        };
        let limits = ConnectionLimits::new(&limits);
        let nobody = Identity { user: None, permissions: Arc::default(), voucher: None };
        let connection = Arc::new(Connection::new(socket, ClientId::random(), nobody, false, limits).unwrap());
        connection.run(leftover, Echo(&connection)).await;
    });
    Ok(response)
}

/// A case's verdict on the messages, then on the close.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    behavior: String,
    behavior_close: String,
}

/// All cases but those of compression, which is not offered. Few at a time: the suite waits one second for each answer, by the clock.
#[tokio::test(flavor = "multi_thread")]
async fn every_case_passes() {
    let (tasks, stop) = (Tasks::default(), CancellationToken::new());
    let listener = listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().route("/", get(echo)).with_state(tasks.clone());
    tasks.spawn_until_stopped(listener::serve(listener, router, PATIENCE, tasks.clone(), stop));

    let reports = tempfile::tempdir().unwrap();
    let mut suite = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/venv/bin/kosoku"));
    suite.args(["-x", "12.*", "-x", "13.*", "-p", "4", "-o"]).arg(reports.path()).arg(address);
    let output = tokio::task::spawn_blocking(move || suite.output()).await.unwrap().expect("run `make tools`");

    let index = std::fs::read_to_string(reports.path().join("index.json")).unwrap();
    let by_agent: BTreeMap<String, BTreeMap<String, Verdict>> = serde_json::from_str(&index).unwrap();
    let cases: BTreeMap<String, Verdict> = by_agent.into_values().flatten().collect();
    let verdicts = cases.iter().map(|(case, verdict)| (case.as_str(), &*verdict.behavior, &*verdict.behavior_close));
    let noted: Vec<_> = verdicts.filter(|(_, messages, close)| (*messages, *close) != ("OK", "OK")).collect();
    let expected = [
        // Invalid UTF-8 in the middle of a frame is found at the end of that frame, not at the byte, which the suite takes as well.
        ("6.4.3", "NON-STRICT", "OK"),
        ("6.4.4", "NON-STRICT", "OK"),
        // Behavior that the RFC leaves open.
        ("7.1.6", "INFORMATIONAL", "INFORMATIONAL"),
        ("7.13.1", "INFORMATIONAL", "INFORMATIONAL"),
        ("7.13.2", "INFORMATIONAL", "INFORMATIONAL"),
    ];
    assert_eq!((cases.len(), noted), (301, expected.to_vec()), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
}
