//! One trace from the client's frame on one node to the deliveries on all, decoded from real OTLP.

use std::collections::HashSet;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use crate::support::{
    Chat, Over,
    collector::{Collector, Span},
    eventually,
};

async fn traced(collector: &Collector, sampler: &str) -> Chat {
    Chat::start_with(Over::Redis, |node| {
        node.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
            .env("OTEL_TRACES_SAMPLER", sampler)
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
    })
    .await
}

/// The spans of a trace, once there are so many.
async fn trace(collector: &Collector, trace_id: &str, count: usize) -> Vec<Span> {
    let spans = || collector.spans().into_iter().filter(|span| span.trace_id == trace_id).collect::<Vec<_>>();
    eventually(&format!("{count} spans of {trace_id}"), || async { spans().len() >= count }).await;
    spans()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test]
async fn one_trace_spans_both_nodes() {
    let collector = Collector::start().await;
    let chat = traced(&collector, "parentbased_always_on").await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let mut member = chat.client(1, "/api/chat-api/ws/r").await;
    let (trace_id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traceparent = format!("00-{trace_id}-{parent}-01");
    sender.send(json!({ "payload": "canary-payload", "traceparent": traceparent })).await;
    let message = member.message().await;
    assert!(message["payload"] == "canary-payload" && message["traceparent"].is_null(), "{message}");

    let spans = trace(&collector, trace_id, 4).await;
    let (receive, publish, deliver) =
        (named(&spans, "chat.receive"), named(&spans, "chat.publish"), named(&spans, "chat.deliver"));
    assert_eq!((receive.len(), publish.len(), deliver.len()), (1, 1, 2), "{spans:#?}");
    assert_eq!(receive[0].parent_span_id, parent, "the client's trace goes on");
    assert_eq!((&publish[0].parent_span_id, publish[0].kind), (&receive[0].span_id, SpanKind::Producer));
    for span in &deliver {
        assert_eq!((&span.parent_span_id, span.kind), (&publish[0].span_id, SpanKind::Consumer));
        assert_eq!(span.attributes["messaging.message.id"], message["id"].as_str().expect("an id"));
    }
    let nodes: HashSet<_> = deliver.iter().map(|span| &span.service_instance).collect();
    assert_eq!(nodes.len(), 2, "a delivery on each node");
    assert_eq!(receive[0].service_instance, publish[0].service_instance);
    assert_eq!(publish[0].attributes["messaging.destination.name"], "r");
    assert_eq!(publish[0].attributes["messaging.message.id"], message["id"].as_str().expect("an id"));
    assert!(!format!("{spans:?}").contains("canary-payload"), "no payloads in spans");
}

#[tokio::test]
async fn what_is_not_sampled_makes_no_span() {
    let collector = Collector::start().await;
    let chat = traced(&collector, "parentbased_always_off").await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    sender.publish(json!("no parent")).await;
    sender.send(json!({ "payload": "a parent that does not keep it", "traceparent": format!("00-{}-{}-00", "1".repeat(32), "2".repeat(16)) })).await;
    sender.send(json!({ "payload": "not a traceparent", "traceparent": "nonsense" })).await;
    let kept = "3".repeat(32);
    sender
        .send(json!({ "payload": "a parent that keeps it", "traceparent": format!("00-{kept}-{}-01", "4".repeat(16)) }))
        .await;
    trace(&collector, &kept, 3).await;
    assert!(collector.spans().iter().all(|span| span.trace_id == kept), "{:#?}", collector.spans());
}

/// A collector that is away costs spans, never messages; they are counted.
#[tokio::test]
async fn a_dead_collector_costs_no_message() {
    let chat = Chat::start_with(Over::Local, |node| {
        node.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9").env("OTEL_BSP_SCHEDULE_DELAY", "50")
    })
    .await;
    let mut client = chat.client(0, "/api/chat-api/ws/r").await;
    for n in 0..50 {
        client.publish(json!(n)).await;
    }
    let node = &chat.nodes[0];
    eventually("the spans are counted", || async { node.metric("chat_spans_dropped_total").await > 0.0 }).await;
    let mut chat = chat;
    chat.nodes[0].signal("TERM");
    assert!(chat.nodes[0].wait(std::time::Duration::from_secs(15)).await.success(), "and the end is not held up");
}
