//! What the servers under load use, as their metrics say.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use chat_api::https;
use http::Uri;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::Serialize;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 4 << 20;

/// One server at one time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Server {
    url: String,
    rss_bytes: f64,
    cpu_seconds: f64,
    open_files: f64,
}

/// How a server changed between two looks.
#[derive(Debug, Serialize)]
pub(super) struct Change {
    pub(super) url: String,
    pub(super) rss_bytes: [f64; 2],
    pub(super) open_files: [f64; 2],
    pub(super) cpu_seconds: f64,
}

/// Reads the process metrics at each address.
pub(super) async fn look(urls: &[Uri]) -> anyhow::Result<Vec<Server>> {
    let mut servers = Vec::new();
    for url in urls {
        let text = timeout(DEADLINE, fetch(url)).await.context("no answer in time").flatten();
        let text = text.with_context(|| format!("--metrics {url}"))?;
        let value = |series: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
        };
        servers.push(Server {
            url: url.to_string(),
            rss_bytes: value("process_resident_memory_bytes"),
            cpu_seconds: value("process_cpu_seconds_total"),
            open_files: value("process_open_fds"),
        });
    }
    Ok(servers)
}

async fn fetch(url: &Uri) -> anyhow::Result<String> {
    let connector = https::connector(url.scheme_str() == Some("https"))?;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client.get(url.clone()).await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

impl Change {
    pub(super) fn between(before: &[Server], after: &[Server]) -> Vec<Self> {
        let change = |(before, after): (&Server, &Server)| Self {
            url: after.url.clone(),
            rss_bytes: [before.rss_bytes, after.rss_bytes],
            open_files: [before.open_files, after.open_files],
            cpu_seconds: ((after.cpu_seconds - before.cpu_seconds) * 1000.0).round() / 1000.0,
        };
        before.iter().zip(after).map(change).collect()
    }
}
