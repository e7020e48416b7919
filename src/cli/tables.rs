//! The closed tables of the reference documents, printed from the code.

use anyhow::Context as _;

use crate::{
    metrics::Metrics,
    protocol::{Close, ErrorCode, ProblemCode, RESERVED_TYPES},
};

/// How a mark ends that a table follows.
const BEGIN: &str = ": begin -->";

/// The document with each of its tables between their marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
pub(super) fn fill(document: &str) -> anyhow::Result<String> {
    let (mut filled, mut rest) = (String::new(), document);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let start = before.rfind("<!-- ").context("a mark does not begin with `<!-- `")?;
        let name = before.get(start + "<!-- ".len()..).unwrap_or_default();
        let end = format!("<!-- {name}: end -->");
        let (_, behind) = after.split_once(&end).with_context(|| format!("`{end}` is not in the document"))?;
        filled += &format!("{before}{BEGIN}\n{}{end}", named(name)?);
        rest = behind;
    }
    anyhow::ensure!(!filled.is_empty(), "the document has no tables: `<!-- NAME{BEGIN}` begins one");
    Ok(filled + rest)
}

fn named(name: &str) -> anyhow::Result<String> {
    match name {
        "types" => Ok(types()),
        "errors" => Ok(errors()),
        "closes" => Ok(closes()),
        "problems" => Ok(problems()),
        "metrics" => metrics(),
        _ => anyhow::bail!("there is no table named {name:?}"),
    }
}

fn metrics() -> anyhow::Result<String> {
    let metrics = Metrics::new()?;
    let rows = metrics.described().iter().map(|metric| {
        let help = metric.help.trim_end_matches('.').to_owned();
        [format!("`{}`", metric.name), metric.kind.to_owned(), help, metric.question.to_owned()]
    });
    Ok(table(["metric", "type", "what is counted", "the question it answers"], rows))
}

fn types() -> String {
    let types = RESERVED_TYPES.map(|kind| format!("`{kind}`"));
    format!("{}, and all that begin with `chat_`\n", types.join(", "))
}

fn errors() -> String {
    let rows = ErrorCode::ALL
        .map(|code| [format!("`{}`", code.as_str()), yes_no(code.retryable()).to_owned(), code.meaning().to_owned()]);
    table(["code", "retryable", "meaning"], rows)
}

fn closes() -> String {
    let rows = Close::ALL
        .map(|close| [close.code().to_string(), yes_no(close.may_reconnect()).to_owned(), close.meaning().to_owned()]);
    table(["code", "come back", "meaning"], rows)
}

fn problems() -> String {
    let operations = [
        ("socket", &ProblemCode::OF_UPGRADES[..]),
        ("publish", &ProblemCode::OF_PUBLISHES),
        ("read", &ProblemCode::OF_READS),
        ("presence", &ProblemCode::OF_PRESENCE),
        ("revoke", &ProblemCode::OF_REVOCATIONS),
    ];
    let rows = ProblemCode::ALL.map(|code| {
        let of = operations.iter().filter(|(_, codes)| codes.contains(&code)).map(|(name, _)| *name);
        let of = if ProblemCode::OF_ANY.contains(&code) { vec!["any"] } else { of.collect() };
        [code.status().to_string(), format!("`{}`", code.as_str()), of.join(", "), code.meaning().to_owned()]
    });
    table(["status", "code", "operation", "meaning"], rows)
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head = line(&head.map(str::to_owned)) + &line(&["---"; COLUMNS].map(str::to_owned));
    rows.into_iter().fold(head, |table, row| table + &line(&row))
}
