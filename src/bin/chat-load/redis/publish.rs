//! A message at the Redis server: its CPU next to the plain transaction that would store and send the same, in pairs.
//!
//! One connection sends, another one subscribes and checks that each message arrives, once and in order.

use std::{
    fmt,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use redis::{Pipeline, Value};
use serde::Serialize;

use super::{
    Bed,
    call::{Call, Counted},
    server::Server,
};
use crate::{
    cpu::Usage,
    pairs::{Leg, Pair, SETTLE, Spread, clean},
    report::say,
};

/// Messages in one pipeline: one, as in a quiet chat, and as many as a node sends at most.
const PIPELINES: [usize; 2] = [1, 64];

/// Redis CPU of a message, against the plain transaction's. The "deliveries" of a leg are messages: each has one subscriber.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    what: &'static str,
    /// Messages in one pipeline.
    pipeline: usize,
    /// Of pairs.
    pub(super) clean: usize,
    pub(super) ratio: Option<Spread>,
    plain_ns: Option<Spread>,
    function_ns: Option<Spread>,
    pairs: Vec<Pair>,
}

/// The function as a node calls it, without a node.
pub(super) fn costs(bed: &Bed<'_>) -> anyhow::Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for (what, counted) in
        [("message counted by its node", Counted::ByNode), ("message counted by its client", Counted::ByClient)]
    {
        let mut server = bed.server(bed.cores.server)?;
        let mut call = Call::taken(bed, &mut server, counted).context("the call of a node")?;
        let mut plain = Plain::like(&call, &server);
        for pipeline in PIPELINES {
            let candidate = |server: &mut Server| leg(server, &mut call, pipeline, bed.size.leg());
            costs.push(Cost::measure(what, pipeline, bed, &mut server, &mut plain, candidate)?);
        }
    }
    Ok(costs)
}

impl Cost {
    /// Pairs until enough of them are clean.
    pub(super) fn measure(
        what: &'static str,
        pipeline: usize,
        bed: &Bed<'_>,
        server: &mut Server,
        plain: &mut Plain,
        mut candidate: impl FnMut(&mut Server) -> anyhow::Result<Leg>,
    ) -> anyhow::Result<Self> {
        let size = bed.size;
        say(format_args!("{what}, {pipeline} in a pipeline"))?;
        leg(server, plain, pipeline, size.leg())?;
        candidate(server)?; // both logs are full from here on
        let pairs = size.rules().collect(|| {
            let first = leg(server, plain, pipeline, size.leg())?;
            let middle = candidate(server)?;
            Ok(Pair::new(first, middle, leg(server, plain, pipeline, size.leg())?))
        })?;
        let good: Vec<&Pair> = clean(&pairs).collect();
        let references = good.iter().flat_map(|pair| pair.reference.map(|leg| leg.cpu_ns_per_delivery));
        Ok(Self {
            what,
            pipeline,
            clean: good.len(),
            ratio: Spread::of(good.iter().map(|pair| pair.ratio)),
            plain_ns: Spread::of(references),
            function_ns: Spread::of(good.iter().map(|pair| pair.candidate.cpu_ns_per_delivery)),
            pairs,
        })
    }
}

/// A way to store and send messages.
trait Way {
    fn channel(&self) -> &[u8];
    /// The commands of the next message; one reply is left.
    fn add(&mut self, pipeline: &mut Pipeline);
    fn stored(&self, reply: &Value) -> bool;
    /// How all that is sent ends.
    fn tail(&self) -> &[u8];
}

impl Way for Call {
    fn channel(&self) -> &[u8] {
        self.channel()
    }

    fn add(&mut self, pipeline: &mut Pipeline) {
        self.add(pipeline);
    }

    fn stored(&self, reply: &Value) -> bool {
        Self::stored(reply)
    }

    fn tail(&self) -> &[u8] {
        self.tail()
    }
}

/// What nothing less than storing, counting and sending a message takes.
pub(super) struct Plain {
    log: String,
    meta: String,
    channel: String,
    kept: Vec<u8>,
    entry: Vec<u8>,
    seq: u64,
}

impl Plain {
    /// For the same entries.
    pub(super) fn like(call: &Call, server: &Server) -> Self {
        let channel = format!("{{{}:plain}}", server.prefix);
        let (log, meta) = (format!("{channel}:log"), format!("{channel}:meta"));
        Self { log, meta, channel, kept: call.kept().to_owned(), entry: call.entry.clone(), seq: 0 }
    }
}

impl Way for Plain {
    fn channel(&self) -> &[u8] {
        self.channel.as_bytes()
    }

    fn add(&mut self, pipeline: &mut Pipeline) {
        self.seq += 1;
        pipeline.cmd("MULTI").ignore();
        pipeline.cmd("XADD").arg(&self.log).arg("MAXLEN").arg("~").arg(&self.kept);
        pipeline.arg("*").arg("d").arg(&self.entry).ignore();
        pipeline.cmd("HSET").arg(&self.meta).arg("s").arg(self.seq).ignore();
        pipeline.cmd("PUBLISH").arg(&self.channel).arg(&self.entry).ignore();
        pipeline.cmd("EXEC");
    }

    fn stored(&self, reply: &Value) -> bool {
        matches!(reply, Value::Array(replies) if replies.len() == 3)
    }

    fn tail(&self) -> &[u8] {
        &self.entry
    }
}

/// Sends pipelines for so long, the next one when the last has arrived.
fn leg(server: &mut Server, way: &mut impl Way, pipeline: usize, duration: Duration) -> anyhow::Result<Leg> {
    let mut connection = server.connect()?;
    let mut listener = connection.as_pubsub();
    listener.subscribe(way.channel())?;
    let mut messages = 0;
    let measured = Measured::begin(server)?;
    while measured.start.elapsed() < duration {
        let mut commands = Pipeline::with_capacity(pipeline);
        (0..pipeline).for_each(|_| way.add(&mut commands));
        let replies: Vec<Value> = commands.query(&mut measured.server.connection)?; // an error if there is one among them
        let stored = replies.iter().filter(|reply| way.stored(reply)).count();
        ensure!(stored == pipeline, "{stored} of {pipeline} messages are stored");
        for _ in 0..pipeline {
            let message = listener.get_message()?;
            ensure!(message.get_payload_bytes().ends_with(way.tail()), "another message has arrived");
        }
        messages += pipeline as u64;
    }
    let bytes = messages * way.tail().len() as u64;
    measured.end(messages, messages, bytes)
}

/// A leg under way.
pub(super) struct Measured<'a> {
    pub(super) server: &'a mut Server,
    before: super::server::Meter,
    start: Instant,
}

impl<'a> Measured<'a> {
    pub(super) fn begin(server: &'a mut Server) -> anyhow::Result<Self> {
        sleep(SETTLE);
        let before = server.meter()?;
        Ok(Self { server, before, start: Instant::now() })
    }

    /// After so many messages, which have arrived so often.
    pub(super) fn end(self, messages: u64, deliveries: u64, bytes: u64) -> anyhow::Result<Leg> {
        let wall_ns = u64::try_from(self.start.elapsed().as_nanos())?;
        sleep(SETTLE);
        let Usage { process, foreign } = self.before.until(&self.server.meter()?);
        let cpu_ns = u64::try_from(process.as_nanos())?;
        let cpu_ns_per_delivery = cpu_ns as f64 / messages.max(1) as f64;
        Ok(Leg { messages, deliveries, bytes, cpu_ns, wall_ns, foreign, cpu_ns_per_delivery })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |ns: Option<Spread>| ns.map_or("-".to_owned(), |ns| format!("{:.1}", ns.median / 1000.0));
        let Self { what, pipeline, clean, .. } = self;
        let (plain, function, tried) = (micros(self.plain_ns), micros(self.function_ns), self.pairs.len());
        let ratio =
            self.ratio.map_or("-".to_owned(), |Spread { median, min, max }| format!("{median:.2} [{min:.2}–{max:.2}]"));
        write!(f, "| {what} | {pipeline} | {ratio} | {plain} | {function} | {clean} of {tried} |")
    }
}
