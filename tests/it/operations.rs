//! What operators meet: probes, metrics, configuration, the API document.

use std::{
    collections::HashMap,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::support::{Chat, Node, Over, Redis, chat_api, redis, repository, run, token};

#[tokio::test]
async fn probes_answer_on_the_management_port_only() {
    let node = Node::builder().start().await;
    for path in ["/livez", "/readyz", "/startupz"] {
        let answer = node.manage(path).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("ok")), "{path}");
        let outside = node.get(path).await;
        assert_eq!((outside.status, outside.header("content-type")), (404, "application/problem+json"));
    }
    assert_eq!(node.get("/metrics").await.status, 404);
}

#[tokio::test]
async fn metrics_pass_promtool_and_count() {
    let chat = Chat::start(Over::Redis).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let _member = chat.client(0, "/api/chat-api/ws/r").await;
    sender.publish(json!("hi")).await;
    sender.send_text("nonsense").await;
    while sender.next().await["type"] != "error" {}
    let node = &chat.nodes[0];
    for (series, value) in [
        ("chat_connections", 2.0),
        ("chat_connections_opened_total", 2.0),
        ("chat_rooms", 2.0),
        ("chat_messages_delivered_total", 2.0),
        ("chat_messages_received_total", 4.0), // two pings, a message, and nonsense
        ("chat_subscriptions", 4.0),           // each is in the lobby too
        ("chat_deliver_duration_seconds_count", 1.0),
        ("chat_delivery_latency_seconds_count", 1.0),
        (r#"chat_redis_command_duration_seconds_count{command="publish"}"#, 1.0),
        (r#"chat_redis_command_failures_total{command="publish"}"#, 0.0),
        (r#"chat_repairs_total{cause="hole"}"#, 0.0),
        ("chat_ready", 1.0),
        (r#"chat_refusals_total{code="invalid_json"}"#, 1.0),
        ("chat_redis_up", 1.0),
        ("chat_draining", 0.0),
        (&format!(r#"chat_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        node.wait_for_metric(series, value).await;
    }
    for series in ["process_resident_memory_bytes", "chat_tokio_workers", "chat_tokio_busy_seconds_total"] {
        assert!(node.metric(series).await > 0.0, "{series}");
    }
    let (received, delivered) =
        (node.metric("chat_received_bytes_total").await, node.metric("chat_delivered_bytes_total").await);
    assert!(received > 50.0 && delivered > 2.0 * 150.0, "{received} came, {delivered} went");
    sender.leave().await;
    node.wait_for_metric("chat_connection_duration_seconds_count", 1.0).await;
    node.wait_for_metric("chat_subscriptions", 2.0).await;
    let answer = node.manage("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
    // Prometheus' own collector names `process_open_fds` and the like without units' full words, so only ours are judged.
    let mut promtool = Command::new("promtool");
    let promtool =
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool is installed: run `make tools`");
    child.stdin.take().expect("piped").write_all(answer.body.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What `preflight` finds, by what it looked at: the verdict and the words; and whether it succeeds.
fn preflight(command: &mut Command) -> (bool, HashMap<String, (String, String)>) {
    let output = command.args(["preflight", "--json"]).output().expect("it runs");
    let findings: Vec<HashMap<String, String>> = serde_json::from_slice(&output.stdout).expect("JSON");
    let of = |finding: &HashMap<String, String>| {
        (finding["what"].clone(), (finding["verdict"].clone(), finding["found"].clone()))
    };
    (output.status.success(), findings.iter().map(of).collect())
}

#[tokio::test]
async fn preflight_says_what_is_right_and_wrong() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (succeeds, found) = preflight(chat_api().env("REDIS_URL", &url));
    let verdicts = ["redis", "functions", "durability", "history", "clock", "files", "drain"]
        .map(|what| (what, found[what].0.as_str()));
    assert!(succeeds && verdicts.iter().all(|(_, verdict)| *verdict == "good"), "{found:?}");
    assert_eq!(found["auth"].0, "warning", "anybody may connect");
    assert!(found["redis"].1.contains(&redis.info("redis_version").await), "{found:?}");
    assert!(found["functions"].1.starts_with("chat_"), "{found:?}");

    let (succeeds, found) = preflight(
        chat_api()
            .env("REDIS_URL", format!("redis://127.0.0.1:{}", redis::free_port()))
            .env("AUTH_ENABLED", "true")
            .env("CHAT_AUTH__SECRET", token::SECRET)
            .env("CHAT_KUBERNETES__GRACE_PERIOD", "20s")
            .env("CHAT_LIMITS__CONNECTIONS", "10000000")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", redis::free_port())),
    );
    assert!(!succeeds);
    for (what, verdict) in
        [("redis", "bad"), ("auth", "good"), ("drain", "bad"), ("files", "bad"), ("traces", "warning")]
    {
        assert_eq!(found[what].0, verdict, "{what}: {found:?}");
    }
    assert!(found["drain"].1.contains("terminationGracePeriodSeconds"), "{found:?}");

    let replica = Redis::start().await;
    replica.follow(&redis).await;
    let (succeeds, found) = preflight(chat_api().env("REDIS_URL", replica.url()));
    assert!(!succeeds && found["redis"].1.contains("it is a replica"), "{found:?}");
}

#[test]
fn every_mistake_is_listed_at_once() {
    let mut command = chat_api();
    command.env("REDIS_URL", "http://:hunter2hunter2@example").env("PORT", "99999").env("AUTH_ENABLED", "perhaps");
    let output = command.env("CHAT_LIMITS__TYPO", "1").env("CHAT_DRAIN__WINDOW", "soon").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for mistake in
        ["REDIS_URL", "PORT", "AUTH_ENABLED", "CHAT_LIMITS__TYPO", "CHAT_DRAIN__WINDOW", "99999", "perhaps", "soon"]
    {
        assert!(text.contains(mistake), "{mistake} is not in\n{text}");
    }
    assert!(!text.contains("hunter2"), "secrets are masked:\n{text}");
}

#[test]
fn an_invalid_redis_url_stops_the_start() {
    let output = chat_api().env("REDIS_URL", "not a url").output().expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("REDIS_URL"));
}

#[test]
fn config_prints_what_is_in_force() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "[history]\nmessages = 7\n[drain]\nwindow = \"3s\"\n").expect("written");
    let mut command = chat_api();
    command.arg("--config").arg(file.path()).arg("config");
    let text = run(command
        .env("CHAT_DRAIN__WINDOW", "4s")
        .env("REDIS_URL", "redis://:hunter2@example:6379")
        .env("PORT", "81"));
    for line in ["messages = 7", "window = \"4s\"", "address = \"[::]:81\"", "delay = \"5s\""] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("hunter2") && text.contains("redis://:***@example:6379"), "{text}");
    let empty = run(chat_api().arg("config").env("REDIS_URL", ""));
    assert!(!empty.contains("url ="), "an empty REDIS_URL is none:\n{empty}");
}

#[tokio::test]
async fn the_openapi_document_is_the_committed_one() {
    let printed = run(chat_api().arg("openapi"));
    let committed = std::fs::read_to_string(repository("docs/openapi.json")).unwrap_or_default();
    assert!(printed == committed, "run `make generated` and commit docs/openapi.json");
    let document: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((&document["openapi"], &document["tags"][0]["name"]), (&json!("3.1.0"), &json!("WebSocket")));
    for path in ["/api/chat-api/ws", "/api/chat-api/ws/{room}"] {
        let operation = &document["paths"][path]["get"];
        assert_eq!(operation["tags"], json!(["WebSocket"]));
        assert!(operation["responses"]["101"].is_object() && operation["responses"]["401"].is_object(), "{path}");
    }
    let parameters = &document["paths"]["/api/chat-api/ws/{room}"]["get"]["parameters"];
    let room = parameters.as_array().expect("parameters").iter().find(|parameter| parameter["name"] == "room");
    assert_eq!(room.map(|room| (&room["in"], &room["required"])), Some((&json!("path"), &json!(true))));
    let node = Node::builder().start().await;
    assert_eq!(node.get("/api/chat-api/openapi.json").await.json(), document);
}

/// Every key and its default stand in docs/configuration.md.
#[test]
fn the_configuration_reference_is_complete() {
    let reference = std::fs::read_to_string(repository("docs/configuration.md")).expect("the reference");
    let printed = run(chat_api().arg("config"));
    let mut section = String::new();
    for line in printed.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            continue;
        }
        let (key, default) = line.split_once(" = ").expect("key = value");
        let row = reference.lines().find(|row| row.starts_with(&format!("| `{section}.{key}` |")));
        let row = row.unwrap_or_else(|| panic!("{section}.{key} is not in docs/configuration.md"));
        assert!(row.contains(&format!("`{default}`")), "default {default} of {section}.{key} is not in: {row}");
    }
}

/// The closed tables of the documents are those of the code.
#[test]
fn the_references_have_the_tables_of_the_code() {
    let documents = ["docs/protocol.md", "docs/operations.md"].map(|document| {
        let path = repository(document);
        let committed = std::fs::read_to_string(&path).expect("the reference");
        assert!(run(chat_api().arg("tables").arg(&path)) == committed, "run `make generated` and commit {document}");
        committed
    });
    let [committed, _] = documents;
    let without = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(without.path(), committed.replace("<!-- closes: end -->", "")).expect("written");
    let output = chat_api().arg("tables").arg(without.path()).output().expect("it runs");
    assert!(!output.status.success(), "a table that has no place is not left out in silence");
}
