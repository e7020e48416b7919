//! The chart, rendered and checked by real helm. What is checked is in tests/chart/check.py.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Node, chat_api, eventually, redis::free_port, repository, run, tool};

#[test]
fn the_chart_renders_lints_and_refuses() {
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(repository("tests/chart/check.py")).env("HELM", tool("bin/helm")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = run(&mut command);
    assert!(output.contains(" 0 failed"), "{output}");
}

/// The configuration that each values file renders is one that the server takes.
#[test]
fn the_server_takes_the_configuration_that_the_chart_renders() {
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(repository("tests/chart/configs.py")).env("HELM", tool("bin/helm")).env("PYTHONDONTWRITEBYTECODE", "1");
    let configs: Vec<String> = serde_json::from_str(&run(&mut command)).expect("a list of TOML texts");
    assert!(!configs.is_empty());
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "an example secret of more than 32 bytes").expect("written");
    for config in configs {
        let file = tempfile::NamedTempFile::new().expect("a file");
        // The key's file is there only in a pod.
        let in_pod =
            |line: &str| line.starts_with("secret_file = ").then(|| format!("secret_file = {:?}", secret.path()));
        let config: Vec<String> = config.lines().map(|line| in_pod(line).unwrap_or_else(|| line.to_owned())).collect();
        let config = config.join("\n");
        std::fs::write(file.path(), &config).expect("written");
        let mut command = chat_api();
        command.env("CHAT_KUBERNETES__NAMESPACE", "chat").env("CHAT_KUBERNETES__POD_NAME", "chat-0"); // as the downward API does
        command.env("REDIS_URL", "redis://redis"); // as the Deployment does
        run(command.arg("--config").arg(file.path()).arg("config"));
    }
}

/// Redis as the chart starts it, with the users that it gives it: what it has acknowledged is there after a restart.
#[tokio::test]
async fn the_bundled_redis_reads_its_log_again() {
    const PASSWORD: &str = "redis-redis-redis";
    let mut render = Command::new(tool("venv/bin/python"));
    render.arg(repository("tests/chart/objects.py")).env("HELM", tool("bin/helm")).env("PYTHONDONTWRITEBYTECODE", "1");
    let objects: Vec<Value> = serde_json::from_str(&run(&mut render)).expect("a list of objects");
    let redis = objects.iter().find(|object| object["kind"] == "StatefulSet").expect("the bundled Redis");
    let args = redis["spec"]["template"]["spec"]["containers"][0]["args"].as_array().expect("a list");
    let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
    let args: Vec<String> = args
        .iter()
        .map(|arg| match arg.as_str().expect("text") {
            "/data" => folder.path().display().to_string(),
            arg => arg.replace("$(REDIS_PASSWORD)", PASSWORD),
        })
        .collect();
    let start = || {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string()]).args(&args).stdout(Stdio::null());
        Process(command.spawn().expect("redis-server is installed: run `make tools`"))
    };
    let first = start();
    let node = Node::builder().env("REDIS_URL", &format!("redis://chat:{PASSWORD}@127.0.0.1:{port}"));
    let node = node.env("CHAT_READINESS__REDIS_GRACE", "200ms").start().await;
    let mut client = node.client("/api/chat-api/ws/r").await;
    let ids = [client.publish(json!(1)).await, client.publish(json!(2)).await];
    run(Command::new("kill").arg(first.0.id().to_string())); // as the end of its pod does
    eventually("Redis is gone", || async { node.manage("/readyz").await.status == 503 }).await;
    drop(first);
    let _second = start();
    eventually("Redis is back", || async { node.manage("/readyz").await.status == 200 }).await;
    let mut reader = node.connect("/api/chat-api/ws/r?after=0-0").await;
    for id in ids {
        assert_eq!(reader.message().await["id"], id.as_str());
    }
    let stranger = run_failing(&["-p", &port.to_string(), "--pass", PASSWORD, "-e", "ping"]);
    assert!(stranger.contains("WRONGPASS"), "{stranger}");
}

/// What redis-cli says as it fails.
fn run_failing(arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(arguments).output().expect("redis-cli is installed: run `make tools`");
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
