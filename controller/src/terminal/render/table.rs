//! Columns that are as wide as their widest cell.

use unicode_width::UnicodeWidthStr;

use crate::terminal::{
    Style,
    style::{Paint, clean},
};

/// A cell and its colour.
pub(super) type Cell = (Option<Paint>, String);

/// Longer cells push the rest of their line to the right instead of every line.
const WIDEST: usize = 40;

/// Lines of cells, with a heading unless it is empty. The last column is not filled.
pub(super) fn table(heading: &[&str], rows: &[Vec<Cell>], style: Style) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0).max(heading.len());
    let widths: Vec<usize> = (0..columns).map(|column| width(column, heading, rows)).collect();
    let heading: Vec<Cell> = heading.iter().map(|&text| (Some(Paint::Dim), text.to_owned())).collect();
    let head = Some(&heading).filter(|heading| !heading.is_empty());
    head.into_iter().chain(rows).map(|row| line(row, &widths, style)).collect()
}

/// Names and values, one on each line, without those that have no value.
pub(super) fn facts(facts: impl IntoIterator<Item = (&'static str, String)>, width: usize, style: Style) -> String {
    let known = facts.into_iter().filter(|(_, value)| !value.is_empty());
    let line =
        |(name, value): (&str, String)| format!("  {}  {}\n", style.cell(Some(Paint::Dim), name, width), clean(&value));
    known.map(line).collect()
}

fn width(column: usize, heading: &[&str], rows: &[Vec<Cell>]) -> usize {
    let cells = rows.iter().filter_map(|row| row.get(column)).map(|(_, text)| text.width());
    cells.chain(heading.get(column).map(|text| text.width())).max().unwrap_or(0).min(WIDEST)
}

fn line(row: &[Cell], widths: &[usize], style: Style) -> String {
    // Empty cells at the end of a line would only leave blanks behind.
    let last = row.iter().rposition(|(_, text)| !text.is_empty()).map_or(0, |last| last + 1);
    let cells: Vec<_> = row[..last]
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(column, ((paint, text), width))| style.cell(*paint, text, if column + 1 == last { 0 } else { *width }))
        .collect();
    format!("{}\n", cells.join("  "))
}
