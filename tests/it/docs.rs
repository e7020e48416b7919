//! What the documents tell people to do works: tests/docs/run.py does it, block by block. Here is which documents, and how much may be left out.

use std::{collections::HashSet, path::PathBuf, process::Command};

use crate::support::{repository, run, tool};

/// Blocks that no test looks at, each with its reason beside it.
const SKIPPED: &str = "3 skipped";

fn documents() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(repository("docs")).expect("a folder").map(|entry| entry.expect("a file").path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    docs.chain(["README.md", "docs/examples/README.md", "charts/chat-api/README.md"].map(repository)).collect()
}

fn python(script: &str) -> Command {
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(repository(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[test]
fn every_block_does_what_it_says() {
    let mut command = python("tests/docs/run.py");
    command.args(["--server", env!("CARGO_BIN_EXE_chat-api")]).args(documents());
    let output = run(&mut command);
    assert!(output.trim_end().ends_with(&format!("{SKIPPED}, 0 failed")), "{output}");
}

#[test]
fn the_runner_notices_what_is_wrong() {
    run(python("tests/docs/test_run.py").env("SERVER", env!("CARGO_BIN_EXE_chat-api")));
}

#[test]
fn links_between_documents_lead_somewhere() {
    run(python("tests/docs/links.py").args(documents()).arg(repository("CHANGELOG.md")));
}

/// Options, methods, events and fields of the types are all in the reference.
#[test]
fn the_clients_reference_is_complete() {
    let types = std::fs::read_to_string(repository("src/http/client/client.d.ts")).expect("a file");
    let reference = std::fs::read_to_string(repository("docs/client.md")).expect("a file");
    let members = types.lines().filter_map(|line| line.strip_prefix("  ")).filter_map(|line| {
        let line = line.strip_prefix("readonly ").unwrap_or(line);
        let end = line.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
        let (name, rest) = line.split_at(end);
        (!matches!(name, "" | "constructor") && rest.starts_with(['?', ':', '(', '<'])).then_some(name)
    });
    let codes = types.split_once("  code:\n").and_then(|(_, rest)| rest.split_once(';')).expect("the codes").0;
    let own = codes.split_once("\"invalid_json\"").expect("the server's come last").0.split('"').skip(1).step_by(2);
    let names: Vec<_> = members.chain(own).collect();
    assert!(names.len() > 60, "{names:?}");
    let code = reference.split('`').skip(1).step_by(2).collect::<Vec<_>>().join(" ");
    let code: HashSet<_> = code.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    let missing: Vec<_> = names.iter().filter(|name| !code.contains(*name)).collect();
    assert!(missing.is_empty(), "not in docs/client.md: {missing:?}");
}
