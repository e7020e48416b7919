//! One trace from the client's frame on one node to the deliveries on all, decoded from real OTLP; and what a collector that fails costs.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use crate::support::{
    Chat, Client, Node, Over, PATIENCE, Redis,
    client::Offer,
    collector::{Collector, Otlp, Span},
    eventually,
};

/// Runs tests that take an [`Otlp`] over each protocol.
macro_rules! over_both_protocols {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use crate::support::collector::Otlp;

            #[tokio::test]
            async fn over_grpc() {
                super::$test(Otlp::Grpc).await;
            }

            #[tokio::test]
            async fn over_http() {
                super::$test(Otlp::Http).await;
            }
        }
    )+};
}

over_both_protocols! {
    one_trace_holds_a_message_on_all_its_nodes,
    a_collector_that_never_answers_costs_spans_only,
    the_last_spans_arrive_before_the_end,
}

const PATH: &str = "/api/chat-api/ws/r";
const MESSAGES: &str = "/api/chat-api/rooms/r/messages";
/// Whatever nobody may find in a span.
const CANARY: &str = "canary-payload";

/// Of a client that keeps its trace, here by its id and that of its span.
fn traceparent(trace_id: &str, span_id: &str) -> String {
    format!("00-{trace_id}-{span_id}-01")
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

/// The one span of that name.
fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Three pods, `a`, `b` and `c`, on one Redis.
async fn pods(collector: &Collector) -> Chat {
    let redis = Redis::start().await;
    let mut nodes = Vec::new();
    for pod in ["a", "b", "c"] {
        let node = collector.configure(Node::builder()).env("REDIS_URL", &redis.url());
        let node = node
            .env("CHAT_KUBERNETES__NAMESPACE", "talk")
            .env("CHAT_KUBERNETES__POD_NAME", pod)
            .env("CHAT_KUBERNETES__POD_UID", &format!("uid-{pod}"))
            .env("CHAT_KUBERNETES__NODE_NAME", "machine");
        let node = node
            .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,k8s.node.name=other")
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=chat")
            .env("CHAT_LOG__FILTER", "info,chat_api=debug");
        nodes.push(node.start().await);
    }
    Chat { nodes, redis: Some(redis) }
}

async fn one_trace_holds_a_message_on_all_its_nodes(otlp: Otlp) {
    let collector = Collector::start(otlp).await;
    let chat = pods(&collector).await;
    let mut members = Vec::new();
    for n in 0..3 {
        members.push(chat.client(n, PATH).await);
    }
    let (trace_id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    members[0].send(json!({ "payload": CANARY, "traceparent": traceparent(trace_id, parent) })).await;
    let mut id = String::new();
    for member in &mut members {
        let message = member.message().await;
        assert!(message["payload"] == CANARY && message["traceparent"].is_null(), "{message}");
        id = message["id"].as_str().expect("an id").to_owned();
    }

    let spans = trace(&collector, trace_id, 5).await;
    let (receive, publish, deliver) =
        (only(&spans, "chat.receive"), only(&spans, "chat.publish"), named(&spans, "chat.deliver"));
    assert_eq!((spans.len(), deliver.len()), (5, 3), "{spans:#?}");
    assert_eq!((&*receive.parent_span_id, receive.kind), (parent, SpanKind::Server), "the client's trace goes on");
    assert_eq!((&publish.parent_span_id, publish.kind), (&receive.span_id, SpanKind::Producer));
    assert!(receive.start <= publish.start && publish.start <= publish.end && publish.end <= receive.end);
    for span in &deliver {
        assert_eq!((&span.parent_span_id, span.kind), (&publish.span_id, SpanKind::Consumer));
        assert!(span.start >= publish.start, "they share a clock");
    }
    check_attributes(receive, publish, &deliver, &id);
    check_resources(receive, publish, &deliver);
    check_lines(&chat, trace_id, publish, &deliver, &id);
    assert!(!collector.has_read(CANARY) && collector.has_read("chat.members"), "no payloads in spans");
    assert!(collector.header("x-tenant").iter().any(|tenant| tenant == "chat"), "credentials go along");
}

/// All there are: what is said by the conventions for messaging, and nothing else.
fn check_attributes(receive: &Span, publish: &Span, deliver: &[&Span], id: &str) {
    let client = receive.attributes["messaging.client.id"].clone();
    assert_eq!(client.len(), 32);
    let received = map([
        ("messaging.system", "chat-api"),
        ("messaging.operation.name", "receive"),
        ("messaging.operation.type", "receive"),
        ("messaging.destination.name", "r"),
        ("messaging.client.id", &client),
    ]);
    let published = map([
        ("messaging.system", "redis"),
        ("messaging.operation.name", "publish"),
        ("messaging.operation.type", "send"),
        ("messaging.destination.name", "r"),
        ("messaging.message.body.size", &(CANARY.len() + 2).to_string()),
        ("messaging.message.id", id),
    ]);
    let delivered = map([
        ("messaging.system", "chat-api"),
        ("messaging.operation.name", "deliver"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "r"),
        ("messaging.message.id", id),
        ("chat.members", "1"),
    ]);
    assert_eq!((&receive.attributes, &publish.attributes), (&received, &published));
    for span in deliver {
        assert_eq!(span.attributes, delivered);
    }
    for span in deliver.iter().chain([&receive, &publish]) {
        assert!(span.extras == 0 && !span.failed, "{span:?}");
    }
}

/// Each span says which pod made it.
fn check_resources(receive: &Span, publish: &Span, deliver: &[&Span]) {
    let of = |pod: &str| {
        map([
            ("service.name", "chat-api"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", &format!("uid-{pod}")),
            ("k8s.namespace.name", "talk"),
            ("k8s.pod.name", pod),
            ("k8s.pod.uid", &format!("uid-{pod}")),
            ("k8s.node.name", "other"), // who sets the attributes knows better
            ("deployment.environment.name", "test"),
        ])
    };
    let own = |span: &Span| {
        let mut resource = span.resource.clone();
        resource.retain(|key, _| !key.starts_with("telemetry.sdk."));
        resource
    };
    assert_eq!((own(receive), own(publish)), (of("a"), of("a")));
    for pod in ["a", "b", "c"] {
        assert!(deliver.iter().any(|span| own(span) == of(pod)), "a delivery on {pod}: {deliver:#?}");
    }
}

/// The lines about the message, on each node, carry the ids of the span that they were written in.
fn check_lines(chat: &Chat, trace_id: &str, publish: &Span, deliver: &[&Span], id: &str) {
    let said = |node: &Node, message: &str, span: &Span| {
        let ids = (json!(trace_id), json!(span.span_id));
        let fits =
            |line: &Value| line["message"] == message && (&line["trace_id"], &line["span_id"]) == (&ids.0, &ids.1);
        node.line(fits).unwrap_or_else(|| panic!("no line {message:?} in\n{}", node.log().join("\n")))
    };
    let line = said(&chat.nodes[0], "published", publish);
    assert_eq!((&line["id"], &line["client_id"]), (&json!(id), &json!(publish_client(&chat.nodes[0]))));
    for (node, pod) in chat.nodes.iter().zip(["a", "b", "c"]) {
        let span = deliver.iter().find(|span| span.resource["k8s.pod.name"] == pod).expect("a delivery");
        assert_eq!(said(node, "delivered", span)["members"], 1);
    }
}

/// Whoever connected there.
fn publish_client(node: &Node) -> String {
    let line = node.line(|line| line["message"] == "connected").expect("somebody connected");
    line["client_id"].as_str().expect("an id").to_owned()
}

/// The upgrade request's trace is for every message of the socket that brings none; a REST request's for its one.
#[tokio::test]
async fn upgrades_and_requests_bring_their_trace_too() {
    let collector = Collector::start(Otlp::Http).await;
    let chat = Chat::start_with(Over::Redis, |node| collector.configure(node)).await;
    let ids: Vec<String> = (1..=5).map(|n| format!("{n}").repeat(32)).collect();
    let parent = "00f067aa0ba902b7";
    let offer = Offer::default().header("traceparent", traceparent(&ids[0], parent));
    let mut client = Client::open(chat.nodes[0].public, PATH, offer).await.expect("let in");
    client.joined().await;
    let mut member = chat.client(1, PATH).await;
    client.send(json!({ "payload": "of the upgrade" })).await;
    client.send(json!({ "payload": "its own", "traceparent": traceparent(&ids[1], parent) })).await;
    client.send(json!({ "payload": "typing", "ephemeral": true, "traceparent": traceparent(&ids[2], parent) })).await;
    let in_header = traceparent(&ids[3], parent);
    for body in [
        json!({ "payload": "of the request" }),
        json!({ "payload": "its own", "traceparent": traceparent(&ids[4], parent) }),
    ] {
        let answer = chat.nodes[0].post(MESSAGES, &body.to_string(), &[("traceparent", &in_header)]).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    for _ in 0..5 {
        member.message().await;
    }
    for trace_id in &ids {
        let spans = trace(&collector, trace_id, 4).await;
        let (receive, publish) = (only(&spans, "chat.receive"), only(&spans, "chat.publish"));
        assert_eq!((&*receive.parent_span_id, &publish.parent_span_id), (parent, &receive.span_id));
        let instances: HashSet<_> =
            named(&spans, "chat.deliver").iter().map(|span| span.resource["service.instance.id"].clone()).collect();
        assert_eq!((spans.len(), instances.len()), (4, 2), "{spans:#?}");
        let stored = *trace_id != ids[2];
        assert!(
            spans[1..]
                .iter()
                .all(|span| span.attributes.contains_key("messaging.message.id") == stored
                    || span.name == "chat.receive")
        );
    }

    // The lines about the connection belong to the upgrade's trace.
    let connected = chat.nodes[0].line(|line| line["message"] == "connected" && line["trace_id"] == *ids[0]);
    assert_eq!(connected.expect("a line")["span_id"], parent);
    let offer = Offer::default().header("traceparent", traceparent(&ids[0], parent));
    assert!(Client::open(chat.nodes[0].public, "/api/chat-api/ws/r?after=nonsense", offer).await.is_err());
    let refused = chat.nodes[0].line(|line| line["message"] == "an upgrade was refused").expect("a line");
    assert_eq!((&refused["trace_id"], &refused["code"]), (&json!(ids[0]), &json!("invalid_position")));
}

#[tokio::test]
async fn what_is_not_sampled_makes_no_span() {
    let collector = Collector::start(Otlp::Http).await;
    let chat = Chat::start_with(Over::Redis, |node| {
        collector.configure(node).env("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    })
    .await;
    let mut sender = chat.client(0, PATH).await;
    sender.publish(json!("no parent")).await;
    sender.send(json!({ "payload": "a parent that does not keep it", "traceparent": format!("00-{}-{}-00", "1".repeat(32), "2".repeat(16)) })).await;
    sender.send(json!({ "payload": "not a traceparent", "traceparent": "nonsense" })).await;
    let kept = "3".repeat(32);
    sender
        .send(json!({ "payload": "a parent that keeps it", "traceparent": traceparent(&kept, &"4".repeat(16)) }))
        .await;
    trace(&collector, &kept, 3).await;
    assert!(collector.spans().iter().all(|span| span.trace_id == kept), "{:#?}", collector.spans());
}

/// A share of all traces is one by their ids, so that every service keeps the same ones.
#[tokio::test]
async fn a_share_is_kept_by_trace_id() {
    let collector = Collector::start(Otlp::Http).await;
    let chat = Chat::start_with(Over::Local, |node| {
        collector.configure(node).env("OTEL_TRACES_SAMPLER", "traceidratio").env("OTEL_TRACES_SAMPLER_ARG", "0.25")
    })
    .await;
    let mut client = chat.client(0, PATH).await;
    // The lower half of an id decides, without its lowest bit, as in OpenTelemetry's other implementations.
    let edge = 1_u64 << 62;
    let kept = |low: u64| low < edge;
    let spread = (0..200).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let lows: Vec<u64> = [edge - 2, edge - 1, edge, edge + 1, u64::MAX].into_iter().chain(spread).chain([1]).collect();
    let id = |low: u64| format!("4bf92f3577b34da6{low:016x}");
    for (n, low) in lows.iter().enumerate() {
        let flags = n % 2; // what the parent does is no matter
        client.send(json!({ "payload": n, "traceparent": format!("00-{}-00f067aa0ba902b7-0{flags}", id(*low)) })).await;
    }
    trace(&collector, &id(1), 3).await; // the last one
    let expected: HashSet<String> = lows.iter().filter(|low| kept(**low)).map(|low| id(*low)).collect();
    let found: HashSet<String> = collector.spans().into_iter().map(|span| span.trace_id).collect();
    assert_eq!(found, expected);
    assert!(expected.len() > 30 && expected.len() < 80, "{}", expected.len());
}

/// What fails is an error in its trace, and the line about it names the trace.
#[tokio::test]
async fn a_message_that_is_refused_or_not_stored_is_a_failed_span() {
    let collector = Collector::start(Otlp::Grpc).await;
    let chat = Chat::start_with(Over::Redis, |node| collector.configure(node)).await;
    let mut client = chat.client(0, PATH).await;
    let [refused, lost] = ["1", "2"].map(|digit| digit.repeat(32));
    let send = |room: &str, trace_id: &str| json!({ "room": room, "payload": CANARY, "ref": "x", "traceparent": traceparent(trace_id, "00f067aa0ba902b7") });
    client.send(send("elsewhere", &refused)).await;
    assert_eq!(client.next().await["code"], "not_subscribed");
    let spans = trace(&collector, &refused, 1).await;
    assert!(spans.len() == 1 && spans[0].failed, "{spans:#?}");
    assert_eq!(spans[0].attributes["error.type"], "not_subscribed");

    chat.redis.as_ref().expect("redis").command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    client.send(send("r", &lost)).await;
    assert_eq!(client.next().await["code"], "unavailable");
    let spans = trace(&collector, &lost, 2).await;
    let (receive, publish) = (only(&spans, "chat.receive"), only(&spans, "chat.publish"));
    assert!(receive.failed && publish.failed, "{spans:#?}");
    assert_eq!(receive.attributes["error.type"], "unavailable");
    assert_eq!(publish.attributes["error.type"], "refused");
    for message in ["Redis refused a message", "a message was not stored; its sender is told"] {
        let line = || chat.nodes[0].line(|line| line["message"] == message && line["trace_id"] == *lost);
        eventually(message, || async { line().is_some() }).await;
        let line = line().expect("a line");
        assert_eq!((&line["level"], &line["span_id"]), (&json!("WARN"), &json!(publish.span_id)), "{line}");
    }
}

/// A collector that is away costs spans, never messages; they are counted.
#[tokio::test]
async fn a_dead_collector_costs_no_message() {
    let mut chat = Chat::start_with(Over::Local, |node| {
        node.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9").env("OTEL_BSP_SCHEDULE_DELAY", "50")
    })
    .await;
    let mut client = chat.client(0, PATH).await;
    for n in 0..50 {
        client.publish(json!(n)).await;
    }
    let node = &chat.nodes[0];
    eventually("the spans are counted", || async { node.metric("chat_spans_dropped_total").await > 0.0 }).await;
    chat.nodes[0].signal("TERM");
    assert!(chat.nodes[0].wait(Duration::from_secs(15)).await.success(), "and the end is not held up");
}

/// It takes every export and never answers: the queue fills, what has no room in it is counted, and nobody waits.
async fn a_collector_that_never_answers_costs_spans_only(otlp: Otlp) {
    const QUEUE: usize = 32;
    const COUNT: usize = 100;
    let collector = Collector::silent(otlp).await;
    let mut chat = Chat::start_with(Over::Local, |node| {
        collector
            .configure(node)
            .env("OTEL_BSP_MAX_QUEUE_SIZE", &QUEUE.to_string())
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
            .env("CHAT_DRAIN__FLUSH", "1s")
    })
    .await;
    let mut client = chat.client(0, PATH).await;
    client.publish(json!("first")).await;
    eventually("an export is under way", || async { collector.requests() > 0 }).await;
    for n in 1..COUNT {
        client.publish(json!(n)).await;
    }
    client.leave().await;
    let node = &mut chat.nodes[0];
    node.wait_for_metric("chat_connections", 0.0).await;
    let dropped = node.metric("chat_spans_dropped_total").await as u64;
    let (made, held) = ((COUNT * 3) as u64, (QUEUE * 2) as u64);
    assert!((made - held..made).contains(&dropped), "{dropped} of {made}");

    node.signal("TERM");
    eventually("it is drained", || async { node.line(|line| line["message"] == "drained").is_some() }).await;
    let drained = std::time::Instant::now();
    assert!(node.wait(PATIENCE).await.success());
    // 1 s by `drain.flush`, and what a busy machine adds; far less than the export has.
    assert!(drained.elapsed() < Duration::from_secs(10), "{:?}", drained.elapsed());
    let lost = node.line(|line| line["message"] == "the last spans did not reach the collector in time");
    let lost = lost.expect("it says so")["spans"].as_u64().expect("how many");
    assert_eq!(dropped + lost, made, "every span is accounted for");
}

/// Nothing exports them but the end: the next batch is an hour away.
async fn the_last_spans_arrive_before_the_end(otlp: Otlp) {
    let collector = Collector::start(otlp).await;
    let mut chat =
        Chat::start_with(Over::Redis, |node| collector.configure(node).env("OTEL_BSP_SCHEDULE_DELAY", "3600000")).await;
    let mut sender = chat.client(0, PATH).await;
    let mut member = chat.client(1, PATH).await;
    let trace_id = "6".repeat(32);
    sender.send(json!({ "payload": "last", "traceparent": traceparent(&trace_id, "00f067aa0ba902b7") })).await;
    member.message().await;
    assert!(collector.spans().is_empty(), "{:#?}", collector.spans());
    for node in &mut chat.nodes {
        node.signal("TERM");
        assert!(node.wait(PATIENCE).await.success());
    }
    let spans = collector.spans();
    assert_eq!(spans.iter().filter(|span| span.trace_id == trace_id).count(), 4, "{spans:#?}");
    assert_eq!(named(&spans, "chat.deliver").len(), 2, "one on each node");
}
