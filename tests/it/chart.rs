//! The chart, rendered and checked by real helm. What is checked is in tests/chart/check.py.

use std::process::Command;

use crate::support::{chat_api, repository, run, tool};

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
        run(command.arg("--config").arg(file.path()).arg("config"));
    }
}
