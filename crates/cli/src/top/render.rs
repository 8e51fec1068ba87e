//! A view as text, as wide and as high as a terminal. Pure.

use super::view::{Look, Row, Table, View};
use crate::plain::plain;

/// Space between columns.
const GAP: &str = "  ";
/// A column is no wider than this, but for the last.
const WIDEST: usize = 48;
/// Rows of a table that are shown wherever there are any and the screen has room for a head: one, and how many more there are.
const LEAST: usize = 2;

/// What can be done, on the last line.
const KEYS: &str = "q quit   up/down service   left/right workers   n namespace";

/// How large a frame may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: usize,
    /// `None` for as many lines as there are.
    pub(super) height: Option<usize>,
}

/// Whether keys can be pressed: nobody reads a last line about them otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hands {
    On,
    Off,
}

/// A line and how it looks.
pub(super) type Line = (Look, String);

/// The view as plain text: what a script reads.
pub(super) fn render(view: &View, size: Size) -> String {
    let lines = lines(view, size, Hands::Off);
    lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

/// The lines of a frame, none wider and not more than there is room for.
pub(super) fn lines(view: &View, size: Size, hands: Hands) -> Vec<Line> {
    let mut lines: Vec<Line> = vec![(Look::Head, view.title.clone()), (Look::Plain, view.summary.clone())];
    let last = match (&view.problem, hands) {
        (Some(problem), _) => Some((Look::Warning, problem.clone())),
        (None, Hands::On) => Some((Look::Dim, KEYS.to_owned())),
        (None, Hands::Off) => None,
    };
    // Each table has an empty line and a head before its rows.
    let heads = 2 * view.tables.len();
    let fixed = lines.len() + heads + usize::from(last.is_some());
    let needs: Vec<usize> = view.tables.iter().map(|table| table.rows.len().max(1)).collect();
    let shares = match size.height {
        None => needs,
        Some(height) => shares(&needs, height.saturating_sub(fixed)),
    };
    for (table, share) in view.tables.iter().zip(shares) {
        lines.push((Look::Plain, String::new()));
        lines.extend(of_table(table, share));
    }
    if let Some(height) = size.height {
        let room = height.saturating_sub(usize::from(last.is_some()));
        lines.truncate(room);
        if last.is_some() {
            lines.resize_with(room, Line::default);
        }
    }
    lines.extend(last);
    if let Some(height) = size.height {
        lines.truncate(height);
    }
    // Anybody who may write an object's message or an Event writes here: all of it passes by this, and is as wide as before.
    lines.into_iter().map(|(look, line)| (look, plain(cut(&line, size.width).trim_end()))).collect()
}

/// How many rows each table gets of so many: what it needs, if that is no more than its part; what others leave is shared by the rest.
fn shares(needs: &[usize], rows: usize) -> Vec<usize> {
    let mut shares: Vec<usize> = needs.iter().map(|need| (*need).min(LEAST)).collect();
    let mut left = rows.saturating_sub(shares.iter().sum());
    loop {
        let wanting: Vec<usize> = (0..needs.len()).filter(|n| shares[*n] < needs[*n]).collect();
        if left == 0 || wanting.is_empty() {
            return shares;
        }
        for n in wanting {
            if left > 0 {
                shares[n] += 1;
                left -= 1;
            }
        }
    }
}

fn of_table(table: &Table, rows: usize) -> Vec<Line> {
    let columns = table.head.len();
    let widths: Vec<usize> = (0..columns)
        .map(|n| {
            let cells = table.rows.iter().filter_map(|row| row.cells.get(n)).map(|cell| cell.chars().count());
            let widest = cells.chain([table.head[n].chars().count()]).max().unwrap_or(0);
            if n + 1 == columns { widest } else { widest.min(WIDEST) }
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).map(|(cell, width)| format!("{:<width$}", cut(cell, *width), width = *width));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let mut lines = vec![(Look::Head, line(&mut table.head.iter().copied()))];
    if table.rows.is_empty() {
        if rows > 0 {
            lines.push((Look::Dim, table.empty.to_owned()));
        }
        return lines;
    }
    let text = |row: &Row| (row.look, line(&mut row.cells.iter().map(String::as_str)));
    if table.rows.len() <= rows {
        lines.extend(table.rows.iter().map(text));
        return lines;
    }
    // One line says how many are out of sight.
    let fits = rows.saturating_sub(1);
    let from = table.scroll.min(table.rows.len() - fits);
    let shown = &table.rows[from..];
    lines.extend(shown.iter().take(fits).map(text));
    let (above, below) = (from, shown.len().saturating_sub(fits));
    let hidden = [(above, "above"), (below, "more")].into_iter().filter(|(n, _)| *n > 0);
    let hidden: Vec<String> = hidden.map(|(n, word)| format!("{n} {word}")).collect();
    if rows > 0 {
        lines.push((Look::Dim, format!("... {}", hidden.join(", "))));
    }
    lines
}

/// At most so many characters; a cut shows.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        kept.push('~');
    }
    kept
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
