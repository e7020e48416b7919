//! What a node says of itself: its `/metrics`, as a Prometheus would see them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, ensure};

use crate::{crowd::PATIENCE, process::Process};

/// Of the histogram of round trips to Redis, up to the function's name.
const ROUND_TRIPS: &str = "chat_redis_command_duration_seconds_count{command=\"";

/// All samples of one moment.
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) fn of(node: &Process) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(node.management)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", node.management)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "/metrics: {}", answer.lines().next().unwrap_or_default());
        Ok(Self(answer))
    }

    /// Resident memory of the node, in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<f64> {
        self.sample("process_resident_memory_bytes")?.context("no resident memory in /metrics")
    }

    /// One sample by its whole name, labels included; none if there is none yet.
    pub(crate) fn sample(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let sample = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(sample.map(str::parse).transpose()?)
    }

    /// Round trips to Redis so far, by function; one of `publish` is a whole pipeline.
    pub(crate) fn round_trips(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(ROUND_TRIPS)?.split_once("\"} "));
        samples.map(|(function, count)| Ok((function.to_owned(), count.parse()?))).collect()
    }
}
