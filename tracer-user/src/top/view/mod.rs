//! Draws a picture: header, one table or a goroutine's story, and a line of keys. It reads nothing but the picture and the state.

use std::cmp::Reverse;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::Paragraph,
};

mod columns;
mod header;
mod help;
mod story;
mod table;

use super::{
    picture::{Picture, Suspicion},
    state::{Level, RowId, State},
};

/// A screen with fewer lines has one line of header alone.
const LOW: u16 = 12;

/// How things stand out.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    pub color: bool,
}

impl Theme {
    fn colored(self, color: Color, otherwise: Modifier) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new().add_modifier(otherwise) }
    }

    fn heading(self) -> Style {
        self.colored(Color::Cyan, Modifier::empty()).add_modifier(Modifier::BOLD)
    }

    fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn bad(self) -> Style {
        self.colored(Color::Red, Modifier::BOLD).add_modifier(Modifier::BOLD)
    }

    fn faint(self) -> Style {
        self.colored(Color::DarkGray, Modifier::DIM)
    }
}

/// What each level is ordered by at first.
pub fn usual_order(state: &mut State) {
    let level = state.level;
    for (at, sort) in [
        (Level::Processes, columns::PROCESSES_SORT),
        (Level::Sites, columns::SITES_SORT),
        (Level::Goroutines, columns::GOROUTINES_SORT),
    ] {
        state.level = at;
        state.listing().sort = sort;
    }
    state.level = level;
}

/// Draws all of it; what of it there was room for stands in the state then.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture, state: &mut State, theme: Theme) {
    let area = frame.area();
    let lines = if area.height < LOW { 1 } else { 3 };
    let header = header::lines(picture, state, area.width, lines, theme);
    let [top, title, middle, bottom] = Layout::vertical([
        Constraint::Length(header.len() as u16),
        Constraint::Length(u16::from(area.height > 4)),
        Constraint::Fill(1),
        Constraint::Length(u16::from(area.height > 2)),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(header), top);
    match state.level {
        Level::Goroutine => story::draw(frame, middle, picture, state, theme),
        _ => tables(frame, middle, picture, state, theme),
    }
    frame.render_widget(Paragraph::new(place(picture, state, theme)), title);
    frame.render_widget(Paragraph::new(keys(state, theme)), bottom);
    if let Some(scroll) = &mut state.help {
        help::draw(frame, area, scroll, theme);
    }
}

fn tables(frame: &mut Frame<'_>, area: Rect, picture: &Picture, state: &mut State, theme: Theme) {
    let (process, system) = (state.process, state.system);
    match state.level {
        Level::Processes => table::draw(
            frame,
            area,
            (picture.processes.iter(), columns::PROCESSES),
            (|row| RowId::Process(row.image), |row| Reverse(u64::from(row.image.0))),
            state.listing(),
            theme,
        ),
        Level::Sites => {
            let rows = picture.sites.iter().filter(|row| process.is_none_or(|process| row.image == process));
            table::draw(
                frame,
                area,
                (rows.filter(|row| system || !row.system), columns::SITES),
                (|row| RowId::Site(row.id), |row| Reverse(u64::from(row.id.0))),
                state.listing(),
                theme,
            );
        }
        Level::Goroutines | Level::Goroutine => table::draw(
            frame,
            area,
            (picture.goroutines.iter(), columns::GOROUTINES),
            (|row| RowId::Goroutine(row.image, row.goid), |row| Reverse(row.goid.0)),
            state.listing(),
            theme,
        ),
    }
}

/// Where one is: the line above the table.
fn place(picture: &Picture, state: &mut State, theme: Theme) -> Line<'static> {
    let process = state.process.and_then(|image| picture.processes.iter().find(|row| row.image == image));
    let site = state.site.and_then(|id| picture.sites.iter().find(|row| row.id == id));
    let nouns = |rows: usize, one: &str, many: &str| format!("{rows} {}", if rows == 1 { one } else { many });
    let rows = state.listing().rows.len();
    let what = match state.level {
        Level::Processes => nouns(rows, "process", "processes"),
        Level::Sites => {
            let of = process.map_or_else(|| "all processes".to_owned(), |row| format!("{} {}", row.tgid, row.command));
            format!("{} of {of}", nouns(rows, "creation site", "creation sites"))
        }
        Level::Goroutines => {
            format!("{} of {}", nouns(rows, "goroutine", "goroutines"), site.map_or("-", |site| &site.name))
        }
        Level::Goroutine => picture.goroutine.as_ref().map_or_else(
            || "this goroutine is gone, and nothing is known of it any more".to_owned(),
            |detail| format!("{}  {}", detail.id, detail.name),
        ),
    };
    let level = state.level;
    let filter = &state.listing().filter;
    let filtered = level != Level::Goroutine && !filter.is_empty();
    let filter = if filtered { format!("  [filter: {filter}]") } else { String::new() };
    Line::styled(format!("{what}{filter}"), theme.heading())
}

/// The keys that are of use now.
fn keys(state: &mut State, theme: Theme) -> Line<'static> {
    if state.editing {
        return Line::from(format!("/{}_   Enter keeps it, Esc drops it", state.listing().filter));
    }
    let text = match state.level {
        Level::Processes => "? help  q quit  Enter sites  / filter  s sort  r reverse  p pause",
        Level::Sites => "? help  q quit  Enter goroutines  Esc processes  / filter  s sort  r reverse  p pause",
        Level::Goroutines => "? help  q quit  Enter story  Esc sites  / filter  s sort  r reverse  p pause",
        Level::Goroutine => "? help  q quit  Esc goroutines  arrows scroll  p pause",
    };
    Line::styled(text, theme.faint())
}

/// How many sites are suspected.
fn suspects(picture: &Picture) -> usize {
    picture.sites.iter().filter(|site| matches!(site.suspicion, Suspicion::Grows(_)) && !site.system).count()
}

#[cfg(test)]
mod tests;
