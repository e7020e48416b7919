//! The closed tables of the protocol's reference, printed from the code.

use anyhow::Context as _;

use crate::protocol::{Close, ErrorCode, ProblemCode, RESERVED_TYPES};

/// The document with each table between its marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
pub(super) fn fill(document: &str) -> anyhow::Result<String> {
    let tables = [("types", types()), ("errors", errors()), ("closes", closes()), ("problems", problems())];
    tables.into_iter().try_fold(document.to_owned(), |document, (name, table)| {
        let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
        let marks = || format!("`{begin}` and `{end}` are not in the document");
        let (before, rest) = document.split_once(&begin).with_context(marks)?;
        let (_, after) = rest.split_once(&end).with_context(marks)?;
        Ok(format!("{before}{begin}\n{table}{end}{after}"))
    })
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
