//! A table of which the screen shows a part: rows filtered and ordered, columns as there is room.

use std::cmp::Reverse;

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::{Line, Text},
    widgets::{Cell, Row, Table},
};

use super::{Theme, columns::Column};
use crate::top::state::{Listing, RowId};

/// The column that takes what is left gets two fifths, and no less than the first of these nor more than the second.
const REST: [u16; 2] = [24, 60];
/// Blanks between two columns.
const SPACING: u16 = 1;

/// The columns there is room for, in their order.
fn fitting<R>(columns: &[Column<R>], width: u16) -> Vec<usize> {
    let mut by_rank: Vec<usize> = (0..columns.len()).collect();
    by_rank.sort_by_key(|index| columns[*index].rank);
    let rest = (width / 5 * 2).clamp(REST[0], REST[1]).min(width / 2);
    let mut left = width - rest;
    let mut fits: Vec<usize> = Vec::new();
    for index in by_rank {
        let wanted = columns[index].width + SPACING;
        if columns[index].width == 0 {
            fits.push(index);
        } else if wanted <= left {
            left -= wanted;
            fits.push(index);
        } else if columns[index].rank > 0 {
            // What is less wanted must not stand where this does not.
            break;
        }
    }
    fits.sort_unstable();
    fits
}

/// Rows that contain the filter, in order.
fn chosen<'r, R>(rows: impl Iterator<Item = &'r R>, columns: &[Column<R>], listing: &Listing) -> Vec<&'r R> {
    let wanted = listing.filter.to_lowercase();
    let contains = |row: &&R| columns.iter().any(|column| (column.cell)(row).to_lowercase().contains(&wanted));
    let mut rows: Vec<&R> = rows.filter(|row| wanted.is_empty() || contains(row)).collect();
    if let Some(column) = columns.get(listing.sort) {
        rows.sort_by(|a, b| if listing.reverse { (column.order)(b, a) } else { (column.order)(a, b) });
    }
    rows
}

/// Which row it is, and which comes first of two that are otherwise alike.
type Identity<R> = (fn(&R) -> RowId, fn(&R) -> Reverse<u64>);

/// Draws the part that is to be seen, and notes in `listing` what there is.
pub fn draw<'r, R: 'r>(
    frame: &mut Frame<'_>,
    area: Rect,
    (rows, columns): (impl Iterator<Item = &'r R>, &[Column<R>]),
    (id, tie): Identity<R>,
    listing: &mut Listing,
    theme: Theme,
) {
    let mut all: Vec<&R> = rows.collect();
    // Where the chosen order says nothing, rows keep their places from picture to picture.
    all.sort_by_key(|row| tie(row));
    let rows = chosen(all.into_iter(), columns, listing);
    let fits = fitting(columns, area.width);
    let page = usize::from(area.height.saturating_sub(1));
    listing.show(rows.iter().map(|row| id(row)).collect(), fits.clone(), page);
    let title = |index: &usize| {
        let column = &columns[*index];
        let mark = if *index == listing.sort { if listing.reverse { "^" } else { "*" } } else { "" };
        aligned(format!("{}{mark}", column.title), column.right)
    };
    let header = Row::new(fits.iter().map(title)).style(theme.heading());
    let shown = rows.iter().enumerate().skip(listing.offset).take(page).map(|(at, row)| {
        let cells = fits.iter().map(|index| aligned((columns[*index].cell)(row), columns[*index].right));
        let line = Row::new(cells);
        if at == listing.index { line.style(theme.selected()) } else { line }
    });
    let width = |index: &usize| match columns[*index].width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(width),
    };
    frame.render_widget(Table::new(shown, fits.iter().map(width)).header(header).column_spacing(SPACING), area);
}

fn aligned(text: String, right: bool) -> Cell<'static> {
    let line = Line::from(text);
    Cell::from(Text::from(if right { line.right_aligned() } else { line }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::columns::SITES;

    /// Check that the narrower a screen is the fewer columns are shown, never too wide, the name always.
    #[test]
    fn columns_fit() {
        let mut before = usize::MAX;
        for width in (0..250).rev() {
            let fits = fitting(SITES, width);
            let taken: u16 = fits.iter().map(|index| SITES[*index].width + SPACING).sum();
            assert!(fits.len() <= before && fits.contains(&(SITES.len() - 1)), "{width}: {fits:?}");
            assert!(taken <= width.max(1) + SPACING, "{width}: {fits:?}");
            before = fits.len();
        }
        assert_eq!(fitting(SITES, 250).len(), SITES.len());
        assert_eq!(before, 1);
    }
}
