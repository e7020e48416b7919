//! A program for Node that plays a part, and asks for what happens to it meanwhile: lines `? <what>` on its output, each answered by a
//! line of JSON. Its last line is `passed`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use super::repository;

/// Longest between two lines.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Script {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
    output: Vec<String>,
}

impl Script {
    /// Starts this file of the repository.
    pub fn start(file: &str, arguments: impl IntoIterator<Item = String>) -> Self {
        let mut command = Command::new("node");
        command.arg(repository(file)).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node is installed: run `make tools`");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Self { child, stdin, lines, output: Vec::new() }
    }

    /// What it asks for next; `None`: it has passed.
    pub async fn asks(&mut self) -> Option<String> {
        loop {
            let line = timeout(PATIENCE, self.lines.recv()).await;
            let Some(line) = line.unwrap_or_else(|_| panic!("it waits:\n{}", self.output.join("\n"))) else { break };
            if let Some(what) = line.strip_prefix("? ") {
                return Some(what.to_owned());
            }
            self.output.push(line);
        }
        let (status, output) = (self.child.wait().expect("a child"), self.output.join("\n"));
        assert!(status.success() && self.output.last().is_some_and(|line| line == "passed"), "{status}\n{output}");
        println!("{output}");
        None
    }

    /// It is done.
    pub fn answer(&mut self, answer: &Value) {
        writeln!(self.stdin, "{answer}").expect("it listens");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
