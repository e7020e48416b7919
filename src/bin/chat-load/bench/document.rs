//! The published figures: tables between marks in benchmarks.md, and the plots beside it.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};

use super::report::Report;
use crate::report::say;

/// Writes what was measured; sections that were not keep what they have. Nothing at all if a part of it could not be told.
pub(super) fn write(folder: &Path, report: &Report) -> anyhow::Result<()> {
    let busy = report.busy().count();
    if busy > 0 {
        return say(format_args!("{} stays as it is: {busy} figures could not be told", folder.display()));
    }
    let path = folder.join("benchmarks.md");
    let mut document = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let tables = super::SECTIONS.iter().filter_map(|(name, _)| Some((*name, report.table(name)?)));
    for (name, text) in tables.chain([("machine", report.machine.to_string() + ".")]) {
        document = filled(&document, name, &text).with_context(|| path.display().to_string())?;
    }
    fs::write(&path, document).with_context(|| path.display().to_string())?;
    for (name, svg) in report.charts.files() {
        let path = folder.join(name);
        fs::write(&path, svg).with_context(|| path.display().to_string())?;
    }
    say(format_args!("written: {} and its plots", path.display()))
}

/// The document with this text between its marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
fn filled(document: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let [begin, end] = ["begin", "end"].map(|edge| format!("<!-- {name}: {edge} -->"));
    let (before, rest) = document.split_once(&begin).with_context(|| format!("`{begin}` is missing"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("`{end}` is missing behind `{begin}`"))?;
    ensure!(!after.contains(&begin), "`{begin}` is there twice");
    Ok(format!("{before}{begin}\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_between_its_marks() {
        let document = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb";
        let new = filled(document, "x", "new").unwrap();
        assert_eq!(new, "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb");
        assert_eq!(filled(&new, "x", "new").unwrap(), new);
        assert!(filled(document, "y", "new").is_err());
        assert!(filled("<!-- x: begin -->", "x", "new").is_err());
    }
}
