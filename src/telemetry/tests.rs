//! What goes through the subscriber, with the process's own left alone. Spans that really reach a collector are in `tests/it`.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::Value;
use tracing::Span;

use super::*;
use crate::{
    config::{LogFormat, OtlpProtocol, Sampler},
    protocol::{ClientId, MessageId, RoomName},
    telemetry::trace::TraceContext,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Log lines, kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.take()).unwrap()
    }
}

/// A collector that is not there.
fn nowhere(protocol: OtlpProtocol) -> Telemetry {
    let (endpoint, timeout) = (Some("http://127.0.0.1:1".to_owned()), Duration::from_millis(300));
    Telemetry { endpoint, protocol, timeout, ..Telemetry::default() }
}

fn counters() -> Counters {
    let counter = |name| IntCounter::new(name, "Counts.").unwrap();
    Counters { spans_dropped: counter("dropped"), lines_suppressed: counter("suppressed") }
}

fn start(format: LogFormat, telemetry: &Telemetry) -> (Dispatch, Guard, Lines) {
    start_counting(format, telemetry, counters())
}

fn start_counting(format: LogFormat, telemetry: &Telemetry, counters: Counters) -> (Dispatch, Guard, Lines) {
    let (log, lines) = (Log { filter: "info,chat_api=debug".to_owned(), format }, Lines::default());
    let writer = lines.clone();
    let (dispatch, guard) =
        build(&log, telemetry, &Kubernetes::default(), counters, false, move || writer.clone()).unwrap();
    (dispatch, guard, lines)
}

fn message_spans(tracing: &Tracing) -> [Span; 3] {
    let (room, id) = (RoomName::lobby(), MessageId { epoch: 1, seq: 2 });
    let parent: TraceContext = PARENT.parse().unwrap();
    let received = tracing.receive(Some(&parent), &room, ClientId::random());
    let published = trace::publish(&received, &room, 7, "redis");
    let delivered = trace::deliver(&trace::context_of(&published).unwrap_or(parent), &room, Some(id));
    trace::published(&published, id);
    [received, published, delivered]
}

#[test]
fn without_an_endpoint_nothing_is_a_span() {
    let (dispatch, guard, lines) = start(LogFormat::Text, &Telemetry::default());
    tracing::dispatcher::with_default(&dispatch, || {
        // Not the third: with the subscribers of other tests beside this one, what nobody wants is found out too late.
        let [received, published, delivered] = message_spans(&guard.tracing());
        assert!(received.is_none() && published.is_none(), "{received:?} {published:?}");
        assert_eq!(trace::context_of(&delivered), None);
        delivered.in_scope(|| tracing::info!("hello"));
    });
    let line = lines.take();
    assert!(line.ends_with("INFO chat_api::telemetry::tests: hello\n"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_from_the_client_to_the_receivers() {
    let (dispatch, guard, _lines) = start(LogFormat::Text, &nowhere(OtlpProtocol::HttpProtobuf));
    let contexts = tracing::dispatcher::with_default(&dispatch, || {
        message_spans(&guard.tracing()).map(|span| trace::context_of(&span).unwrap().to_string())
    });
    assert!(
        contexts.iter().all(|context| context.starts_with(&PARENT[..36]) && context.ends_with("-01")),
        "{contexts:?}"
    );
    assert!(contexts[0] != contexts[1] && contexts[1] != contexts[2] && contexts[0] != PARENT, "{contexts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_within_a_span_name_its_trace() {
    let (dispatch, guard, lines) = start(LogFormat::Json, &nowhere(OtlpProtocol::HttpProtobuf));
    tracing::dispatcher::with_default(&dispatch, || {
        let [span, ..] = message_spans(&guard.tracing());
        let context = trace::context_of(&span).unwrap().to_string();
        span.in_scope(|| tracing::warn!(answer = 42, "with \"quotes\"\nand a line"));
        let line = lines.json();
        assert_eq!(
            format!("00-{}-{}-01", line["trace_id"].as_str().unwrap(), line["span_id"].as_str().unwrap()),
            context
        );
        assert_eq!((&line["message"], &line["answer"]), (&"with \"quotes\"\nand a line".into(), &42.into()));
        assert_eq!((&line["level"], &line["target"]), (&"WARN".into(), &"chat_api::telemetry::tests".into()));
        tracing::info!("outside");
        let line = lines.json();
        assert_eq!((&line["message"], &line["trace_id"]), (&"outside".into(), &Value::Null));
    });

    let (dispatch, guard, lines) = start(LogFormat::Text, &nowhere(OtlpProtocol::HttpProtobuf));
    tracing::dispatcher::with_default(&dispatch, || {
        let [span, ..] = message_spans(&guard.tracing());
        span.in_scope(|| tracing::warn!(answer = 42, "inside"));
        let line = lines.take();
        assert!(line.contains("inside answer=42 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id="), "{line}");
        assert!(line.ends_with('\n'), "{line}");
    });
}

/// One place floods; the others, the record and what was asked for do not suffer for it.
#[test]
fn a_flood_is_held_back_and_counted() {
    const FLOOD: u64 = 1000;
    for format in [LogFormat::Text, LogFormat::Json] {
        let counters = counters();
        let suppressed = counters.lines_suppressed.clone();
        let (dispatch, _guard, lines) = start_counting(format, &Telemetry::default(), counters);
        tracing::dispatcher::with_default(&dispatch, || {
            let flood = || tracing::warn!("a flood");
            let begun = Instant::now();
            (0..FLOOD).for_each(|_| flood());
            let seconds = begun.elapsed().as_secs();
            let written = lines.take().lines().count() as u64;
            assert!((10..=11 + seconds).contains(&written), "{written}");
            let held_back = FLOOD - written;
            assert_eq!(suppressed.get(), held_back);

            tracing::warn!("of another place");
            (0..FLOOD).for_each(|_| tracing::info!(target: RECORD, "somebody came"));
            (0..FLOOD).for_each(|_| tracing::debug!("asked for"));
            assert_eq!((lines.take().lines().count() as u64, suppressed.get()), (1 + 2 * FLOOD, held_back));

            // The next line of the place says what was held back before it.
            let next = loop {
                std::thread::sleep(Duration::from_millis(100));
                flood();
                let text = lines.take();
                if !text.is_empty() {
                    break text;
                }
            };
            let expected = match format {
                LogFormat::Text => format!(" a flood suppressed={}\n", suppressed.get()),
                LogFormat::Json => format!(",\"suppressed\":{}}}\n", suppressed.get()),
            };
            assert!(next.ends_with(&expected), "{next} {expected}");
        });
    }
}

#[test]
fn the_filter_can_be_changed_and_a_bad_one_is_refused() {
    let (dispatch, guard, lines) = start(LogFormat::Text, &Telemetry::default());
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::trace!("before");
        guard.log_filter().set("warn,chat_api=trace").unwrap();
        tracing::trace!("after");
        let error = guard.log_filter().set("chat_api=loud").unwrap_err().to_string();
        assert!(error.contains("chat_api=loud"), "{error}");
        tracing::trace!("still");
    });
    let lines = lines.take();
    assert!(!lines.contains("before") && lines.contains("after") && lines.contains("still"), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_costs_spans_and_no_time() {
    for protocol in [OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc] {
        let counters = counters();
        let lost = counters.spans_dropped.clone();
        let (log, telemetry, nobody) = (Log::default(), nowhere(protocol), Kubernetes::default());
        let (dispatch, guard) = build(&log, &telemetry, &nobody, counters, false, std::io::sink).unwrap();
        let (room, tracing) = (RoomName::lobby(), guard.tracing());
        let start = Instant::now();
        let traced = tracing::dispatcher::with_default(&dispatch, || {
            (0..10_000).filter(|_| !tracing.receive(None, &room, ClientId::random()).is_disabled()).count()
        });
        assert_eq!(traced, 10_000);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let start = Instant::now();
        guard.shutdown(Duration::MAX).await;
        assert!(start.elapsed() < FLUSH_DEADLINE * 2, "{:?}", start.elapsed());
        assert_eq!(lost.get(), 10_000, "{protocol:?}");
    }
}

#[test]
fn a_sampler_without_traces_makes_no_exporter() {
    let telemetry = Telemetry { sampler: Sampler::AlwaysOff, ..nowhere(OtlpProtocol::Grpc) };
    let (dispatch, guard, _lines) = start(LogFormat::Text, &telemetry);
    assert!(guard.provider.is_none());
    tracing::dispatcher::with_default(&dispatch, || {
        assert!(message_spans(&guard.tracing())[..2].iter().all(Span::is_none));
    });
}
