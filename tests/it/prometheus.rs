//! The chart's alerts and dashboard, by promtool and over a real Prometheus that watches real nodes through a load and its troubles.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use chat_api::protocol::ProblemCode;
use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Client, Node, PATIENCE, Redis, client::Offer, eventually, prometheus::Prometheus, repository, run, tool,
};

/// The alert that the loss of Redis is about.
const REDIS: &str = "ChatRedisUnavailable";
const CLIENTS: usize = 12;
/// Longer than the test takes.
const ALL_OF_IT: u64 = 120;

#[test]
fn every_alert_fires_and_stays_quiet_and_the_dashboard_can_be_drawn() {
    let output = python("check.py", &[]);
    assert!(output.contains(" 0 failed"), "{output}");
}

fn python(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(repository("tests/prometheus").join(script)).args(arguments);
    run(command.env("HELM", tool("bin/helm")).env("PYTHONDONTWRITEBYTECODE", "1"))
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_show_a_load_and_its_troubles() {
    let shipped = Shipped::render();
    let mut redis = Redis::start().await;
    let node = || Node::builder().env("REDIS_URL", &redis.url());
    let (patient, hasty) = (node().start().await, node().env("CHAT_READINESS__REDIS_GRACE", "1s").start().await);
    let mut leaving = node().env("CHAT_DRAIN__WINDOW", "3s").start().await;
    let nodes = [("patient", &patient), ("hasty", &hasty), ("leaving", &leaving)];
    let prometheus = Prometheus::start(&shipped.alerts, &nodes).await;

    let mut load = JoinSet::new();
    let addresses = [patient.public, hasty.public, leaving.public];
    (0..CLIENTS).for_each(|n| drop(load.spawn(chatter(n, addresses))));
    eventually("messages flow everywhere", async || {
        prometheus.value(r"count(rate(chat_messages_delivered_total[5s]) > 5)").await == Some(3.0)
    })
    .await;
    assert_eq!(firing(&prometheus).await, BTreeSet::new(), "all is well");
    let begun = Instant::now();

    be_slow(&patient).await;
    leaving.signal("TERM");
    assert!(leaving.wait(PATIENCE).await.success());
    lose_redis(&mut redis, &prometheus).await;
    eventually("messages flow again", async || {
        prometheus.value(r"count(rate(chat_messages_delivered_total[5s]) > 5)").await == Some(2.0)
    })
    .await;
    assert!(load.try_join_next().is_none(), "a client has ended");

    let down = prometheus.alerts().await.into_iter().find(|alert| alert["labels"]["alertname"] == "ChatTargetDown");
    let down = down.expect("the node that has gone is missed");
    assert_eq!((&down["labels"]["instance"], &down["state"]), (&json!("leaving"), &json!("pending")), "in 5 minutes");
    shipped.rules_evaluate(&prometheus).await;
    shipped.dashboard_shows(&prometheus).await;
    shipped.buckets_are_there(&prometheus).await;
    if let Some(file) = std::env::var_os("DASHBOARD_PICTURE") {
        sleep(Duration::from_secs(5)).await; // a time without trouble, for the eye
        let (address, seconds) = (prometheus.address.to_string(), begun.elapsed().as_secs().to_string());
        python("picture.py", &[&address, &seconds, &file.to_string_lossy()]);
    }
}

/// What the chart ships.
struct Shipped {
    alerts: Value,
    queries: Value,
}

impl Shipped {
    /// With less time to wait for the loss of Redis.
    fn render() -> Self {
        let set = format!("metrics.prometheusRule.enabled=true,metrics.prometheusRule.for.{REDIS}=2s");
        let shipped: Value = serde_json::from_str(&python("chart.py", &["--set", &set])).expect("JSON");
        Self { alerts: shipped["alerts"].clone(), queries: shipped["queries"].clone() }
    }

    /// Every rule was evaluated, over metrics that the nodes have.
    async fn rules_evaluate(&self, prometheus: &Prometheus) {
        let data = prometheus.api("rules", &[]).await;
        let groups = data["groups"].as_array().expect("groups");
        let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
        let shipped = self.alerts["groups"].as_array().expect("groups").iter();
        let shipped: usize = shipped.map(|group| group["rules"].as_array().expect("rules").len()).sum();
        assert_eq!(rules.len(), shipped);
        let names = prometheus.api("label/__name__/values", &[]).await;
        for rule in rules {
            assert_eq!(rule["health"], "ok", "{rule}");
            let query = rule["query"].as_str().expect("a query");
            for name in own_metrics(query) {
                assert!(
                    names.as_array().expect("names").iter().any(|known| known == name),
                    "{name} of {}",
                    rule["name"]
                );
            }
        }
        let ours = ProblemCode::OF_UPGRADES.into_iter().filter(|code| code.status() >= 500).map(ProblemCode::as_str);
        let ours = format!("reason=~\"{}\"", ours.collect::<Vec<_>>().join("|"));
        let burn = self.alerts.to_string().replace("\\\"", "\"");
        assert!(burn.contains(&ours), "refusals by our fault are {ours}");
    }

    /// Each query about our own metrics has had values.
    async fn dashboard_shows(&self, prometheus: &Prometheus) {
        let mut empty = Vec::new();
        for query in self.queries.as_array().expect("queries").iter().filter(|query| query["cluster"] == false) {
            let expression = query["expression"].as_str().expect("an expression");
            let series = prometheus.lately(expression, ALL_OF_IT).await;
            if !series.iter().any(|(_, values)| values.iter().any(|value| value.is_finite())) {
                empty.push(format!("{}: {expression}", query["title"]));
            }
        }
        assert!(empty.is_empty(), "panels that show nothing:\n{}", empty.join("\n"));
    }

    /// What can be called late is a bucket: of the values, and of the dashboard.
    async fn buckets_are_there(&self, prometheus: &Prometheus) {
        let matching = [("match[]", "chat_delivery_latency_seconds_bucket")];
        let buckets = prometheus.api("label/le/values", &matching).await;
        let buckets: Vec<f64> =
            buckets.as_array().expect("values").iter().filter_map(|le| le.as_str()?.parse().ok()).collect();
        let read = |path: &str| -> Value {
            let text = std::fs::read_to_string(repository("charts/chat-api").join(path)).expect("a file of the chart");
            serde_json::from_str(&text).expect("JSON")
        };
        let schema = read("values.schema.json");
        let thresholds = "/properties/metrics/properties/prometheusRule/properties/thresholds/properties";
        let choices = schema.pointer(&format!("{thresholds}/deliverySeconds/enum")).expect("choices").clone();
        let dashboard = read("dashboards/chat-api.json");
        let variables = dashboard["templating"]["list"].as_array().expect("variables");
        let late = variables.iter().find(|variable| variable["name"] == "late").expect("a variable");
        let choices = choices.as_array().expect("a list").iter().filter_map(Value::as_f64);
        let choices =
            choices.chain(late["query"].as_str().expect("text").split(',').filter_map(|choice| choice.parse().ok()));
        let choices: Vec<f64> = choices.collect();
        assert!(
            choices.len() > 10 && choices.iter().all(|choice| buckets.contains(choice)),
            "{choices:?} of {buckets:?}"
        );
    }
}

/// The names of our metrics in an expression.
fn own_metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("chat_") || word.starts_with("process_"))
}

/// Redis goes: the alert fires, in words, and the nodes stay ready for as long as they should. It comes back, and all of that ends.
async fn lose_redis(redis: &mut Redis, prometheus: &Prometheus) {
    let gauge = async |name: &str, node: &str| prometheus.value(&format!("{name}{{instance=\"{node}\"}}")).await;
    redis.kill();
    eventually("the alert fires", async || firing(prometheus).await.contains(REDIS)).await;
    let pending = format!("ALERTS{{alertname=\"{REDIS}\",alertstate=\"pending\"}}");
    assert!(!prometheus.lately(&pending, ALL_OF_IT).await.is_empty(), "not at once");
    eventually("every node has noticed", async || {
        let alerts = prometheus.alerts().await;
        let alert = alerts.iter().find(|alert| alert["labels"]["alertname"] == REDIS).expect("it fires");
        let texts = &alert["annotations"];
        assert_eq!(texts["runbook_url"], "docs/operations.md#chatredisunavailable");
        assert_eq!(alert["labels"], json!({ "alertname": REDIS, "severity": "critical", "namespace": "chat", "job": "chat-chat-api-management" }));
        texts["description"] == "Pods that do not reach Redis: 2."
    })
    .await;
    eventually("the hasty node is not ready", async || gauge("chat_ready", "hasty").await == Some(0.0)).await;
    assert_eq!(gauge("chat_ready", "patient").await, Some(1.0), "for 60 s");
    for node in ["patient", "hasty"] {
        assert_eq!(gauge("chat_redis_up", node).await, Some(0.0));
    }
    redis.restart().await;
    eventually("the alert has ended", async || !firing(prometheus).await.contains(REDIS)).await;
    for node in ["patient", "hasty"] {
        eventually("the node is ready", async || gauge("chat_ready", node).await == Some(1.0)).await;
        assert_eq!(gauge("chat_redis_up", node).await, Some(1.0));
    }
}

/// The alerts that fire.
async fn firing(prometheus: &Prometheus) -> BTreeSet<String> {
    let alerts = prometheus.alerts().await.into_iter().filter(|alert| alert["state"] == "firing");
    alerts.map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned()).collect()
}

/// A socket of a loud room that is not read from is closed.
async fn be_slow(node: &Node) {
    let _slow = node.client("/api/chat-api/ws/loud").await;
    let mut loud = node.connect("/api/chat-api/ws/loud").await;
    let slow_closes = async || node.metric("chat_slow_close_bytes_count").await;
    let long = "x".repeat(30_000);
    while slow_closes().await < 1.0 {
        loud.publish(json!(long)).await;
    }
}

/// Talks in one of three rooms for ever, and comes back elsewhere with its position when its node sends it away.
async fn chatter(n: usize, nodes: [SocketAddr; 3]) {
    let mut after = String::new();
    let mut turn = interval(Duration::from_millis(100));
    for node in nodes.iter().cycle().skip(n) {
        turn.tick().await;
        let path = format!("/api/chat-api/ws/room-{}{after}", n % 3);
        let Ok(mut client) = Client::try_open(*node, &path, Offer::default(), PATIENCE).await else { continue };
        loop {
            tokio::select! {
                _ = turn.tick() => {
                    let sent = client.socket.send(Message::text(json!({ "payload": "hi" }).to_string())).await;
                    if sent.is_err() {
                        break;
                    }
                }
                event = client.next_or_close() => {
                    let Ok(event) = event else { break };
                    if let Some(id) = event["id"].as_str() {
                        after = format!("?after={id}");
                    }
                }
            }
        }
    }
}
