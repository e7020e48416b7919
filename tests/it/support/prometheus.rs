//! A Prometheus server of its own, which looks every second.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Node, PATIENCE, eventually, http};

/// The job that the chart's ServiceMonitor makes of its release `chat`.
const JOB: &str = "chat-chat-api-management";

pub struct Prometheus {
    _folder: TempDir,
    process: Child,
    pub address: SocketAddr,
}

impl Prometheus {
    /// Scrapes nodes under the labels that the chart's ServiceMonitor gives them in the namespace `chat`, and evaluates rules.
    pub async fn start(rules: &Value, nodes: &[(&str, &Node)]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let target = |(name, node): &(&str, &Node)| json!({ "targets": [node.management], "labels": { "namespace": "chat", "instance": name } });
        let targets: Vec<Value> = nodes.iter().map(target).collect();
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": ["rules.json"],
            "scrape_configs": [{ "job_name": JOB, "static_configs": targets }],
        });
        // Each JSON document is a YAML one.
        for (file, content) in [("rules.json", rules), ("prometheus.json", &config)] {
            std::fs::write(folder.path().join(file), content.to_string()).expect("the folder can be written");
        }
        let mut command = Command::new("prometheus");
        command.current_dir(folder.path()).args(["--config.file=prometheus.json", "--storage.tsdb.path=data"]);
        command.args(["--web.listen-address=127.0.0.1:0", "--log.format=json"]).stdout(Stdio::null());
        let mut process = command.stderr(Stdio::piped()).spawn().expect("prometheus is installed: run `make tools`");
        let address = listening(&mut process);
        let prometheus = Self { _folder: folder, process, address };
        eventually("Prometheus is ready", || async { http::get(address, "/-/ready", &[]).await.status == 200 }).await;
        prometheus
    }

    /// What its API answers.
    pub async fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let parameters: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let answer = http::get(self.address, &format!("/api/v1/{path}?{}", parameters.join("&")), &[]).await;
        let body = answer.json();
        assert_eq!(body["status"], "success", "{path} {parameters:?}: {body}");
        body["data"].clone()
    }

    /// The series that an expression has now, with their values.
    pub async fn now(&self, expression: &str) -> Vec<(Value, f64)> {
        let data = self.api("query", &[("query", expression)]).await;
        let series = data["result"].as_array().expect("series");
        series.iter().map(|series| (series["metric"].clone(), number(&series["value"][1]))).collect()
    }

    /// The value of an expression that has one series; `None`: it has none.
    pub async fn value(&self, expression: &str) -> Option<f64> {
        let series = self.now(expression).await;
        assert!(series.len() <= 1, "{expression}: {series:?}");
        series.first().map(|(_, value)| *value)
    }

    /// The series that an expression had within these last seconds, with the values of each second.
    pub async fn lately(&self, expression: &str, seconds: u64) -> Vec<(Value, Vec<f64>)> {
        let end = self.value("vector(time())").await.expect("a time");
        let (from, to) = ((end - seconds as f64).to_string(), end.to_string());
        let data =
            self.api("query_range", &[("query", expression), ("start", &from), ("end", &to), ("step", "1")]).await;
        let values = |series: &Value| {
            let values = series["values"].as_array().expect("values");
            values.iter().map(|value| number(&value[1])).collect()
        };
        let series = data["result"].as_array().expect("series");
        series.iter().map(|series| (series["metric"].clone(), values(series))).collect()
    }

    /// The alerts that are pending or firing.
    pub async fn alerts(&self) -> Vec<Value> {
        self.api("alerts", &[]).await["alerts"].as_array().expect("alerts").clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where it has come to listen. What it says after that is read too, lest it waits for somebody to do so.
fn listening(process: &mut Child) -> SocketAddr {
    let lines = BufReader::new(process.stderr.take().expect("piped")).lines();
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if line["msg"] == "Listening on" {
                let _ = found.send(line["address"].as_str().and_then(|address| address.parse().ok()));
            }
        }
    });
    address.recv_timeout(PATIENCE).ok().flatten().expect("Prometheus listens")
}

fn number(value: &Value) -> f64 {
    value.as_str().and_then(|value| value.parse().ok()).expect("a number")
}

/// For a query string.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
