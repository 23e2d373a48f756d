//! What is looked at, and how: keys change it.

use std::ops::Range;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{SiteId, picture::Focus};
use crate::{correlate::process::ImageId, id::Goid};

/// Characters of a filter.
const MAX_FILTER: usize = 100;

/// How deep one has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Processes,
    Sites,
    Goroutines,
    Goroutine,
}

/// Which row it is, whatever its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowId {
    Process(ImageId),
    Site(SiteId),
    Goroutine(ImageId, Goid),
}

/// How a table is looked at.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The column it is ordered by, and whether in the other direction than usual.
    pub sort: usize,
    pub reverse: bool,
    /// Rows that do not contain it are left out.
    pub filter: String,
    pub selected: Option<RowId>,
    /// Where that was when it was drawn last, and the first row that was.
    pub index: usize,
    pub offset: usize,
    /// What was drawn: all rows in order, the columns there was room for, and how many rows there was room for.
    pub rows: Vec<RowId>,
    pub columns: Vec<usize>,
    pub page: usize,
}

impl Listing {
    /// Takes note of the rows there are now, and keeps the selected one selected; another in its place if it is gone.
    pub fn show(&mut self, rows: Vec<RowId>, columns: Vec<usize>, page: usize) {
        let at = self.selected.and_then(|selected| rows.iter().position(|row| *row == selected));
        self.index = at.unwrap_or(self.index).min(rows.len().saturating_sub(1));
        self.selected = rows.get(self.index).copied();
        self.offset = self.offset.min(self.index).max((self.index + 1).saturating_sub(page.max(1)));
        self.offset = self.offset.min(rows.len().saturating_sub(page));
        (self.rows, self.columns, self.page) = (rows, columns, page);
    }

    /// Takes a key that moves; false: it is none.
    fn walk(&mut self, code: KeyCode) -> bool {
        let to = walked(code, self.index, self.page);
        to.into_iter().for_each(|to| self.go(to));
        to.is_some()
    }

    fn go(&mut self, index: usize) {
        self.index = index.min(self.rows.len().saturating_sub(1));
        self.selected = self.rows.get(self.index).copied();
    }

    /// Orders by the next column that is shown, or the one before.
    fn turn(&mut self, forward: bool) {
        let (count, reverse) = (self.columns.len(), false);
        if let Some(at) = self.columns.iter().position(|column| *column == self.sort) {
            let next = if forward { at + 1 } else { at + count - 1 };
            (self.sort, self.reverse) = (self.columns[next % count], reverse);
        } else if let Some(first) = self.columns.first() {
            (self.sort, self.reverse) = (*first, reverse);
        }
    }
}

/// A text that the screen may be too small for.
#[derive(Clone, Debug, Default)]
pub struct Scroll {
    /// Lines above the screen, and how many there was room for.
    above: usize,
    page: usize,
}

impl Scroll {
    /// Takes note of how many lines there are now, and how many there is room for; those that are to be shown.
    pub fn show(&mut self, lines: usize, page: usize) -> Range<usize> {
        (self.above, self.page) = (self.above.min(lines.saturating_sub(page)), page);
        self.above..lines.min(self.above + page)
    }

    /// Takes a key that moves; false: it is none.
    fn walk(&mut self, code: KeyCode) -> bool {
        let to = walked(code, self.above, self.page);
        self.above = to.unwrap_or(self.above);
        to.is_some()
    }
}

/// Where a key leads from a row or line; `None`: it does not move.
fn walked(code: KeyCode, at: usize, page: usize) -> Option<usize> {
    Some(match code {
        KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => at.saturating_add(1),
        KeyCode::PageUp => at.saturating_sub(page.max(1)),
        KeyCode::PageDown => at.saturating_add(page.max(1)),
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => usize::MAX,
        _ => return None,
    })
}

/// What a key asks of whoever runs the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    None,
    /// Draw again; another picture may be wanted.
    Draw,
    Quit,
}

/// The state of the view.
#[derive(Clone, Debug)]
pub struct State {
    pub level: Level,
    /// Whose sites are shown; `None`: all processes'.
    pub process: Option<ImageId>,
    pub site: Option<SiteId>,
    pub goroutine: Option<(ImageId, Goid)>,
    listings: [Listing; 3],
    /// Of a goroutine's story.
    pub story: Scroll,
    pub paused: bool,
    /// `None`: it is not shown.
    pub help: Option<Scroll>,
    /// The filter is being written.
    pub editing: bool,
    /// The runtime's own goroutines are shown too.
    pub system: bool,
}

impl State {
    /// Begins with processes, or with all their sites.
    pub fn new(level: Level) -> Self {
        Self {
            level,
            process: None,
            site: None,
            goroutine: None,
            listings: Default::default(),
            story: Scroll::default(),
            paused: false,
            help: None,
            editing: false,
            system: false,
        }
    }

    /// What a picture must show.
    pub fn focus(&self) -> Focus {
        Focus {
            site: self.site.filter(|_| self.level >= Level::Goroutines),
            goroutine: self.goroutine.filter(|_| self.level == Level::Goroutine),
        }
    }

    /// How the table of this level is looked at; of a goroutine's story, the one it was chosen from.
    pub fn listing(&mut self) -> &mut Listing {
        &mut self.listings[(self.level as usize).min(2)]
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Wish::Quit } else { Wish::None };
        }
        if let Some(help) = &mut self.help {
            if !help.walk(key.code) {
                self.help = None;
            }
            return Wish::Draw;
        }
        if self.editing {
            self.edit(key.code);
            return Wish::Draw;
        }
        self.command(key.code)
    }

    fn edit(&mut self, code: KeyCode) {
        let filter = &mut self.listing().filter;
        match code {
            KeyCode::Char(c) if filter.chars().count() < MAX_FILTER => filter.push(c),
            KeyCode::Backspace => _ = filter.pop(),
            KeyCode::Esc => {
                filter.clear();
                self.editing = false;
            }
            KeyCode::Enter => self.editing = false,
            _ => {}
        }
    }

    fn command(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = Some(Scroll::default()),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('t') => self.system = !self.system,
            KeyCode::Enter | KeyCode::Right => self.enter(),
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.leave(),
            KeyCode::Char('/') if self.level < Level::Goroutine => self.editing = true,
            KeyCode::Char('s' | '>') => self.listing().turn(true),
            KeyCode::Char('S' | '<') => self.listing().turn(false),
            KeyCode::Char('r') => {
                let listing = self.listing();
                listing.reverse = !listing.reverse;
            }
            _ => return self.walk(code),
        }
        Wish::Draw
    }

    fn walk(&mut self, code: KeyCode) -> Wish {
        let moved = if self.level == Level::Goroutine { self.story.walk(code) } else { self.listing().walk(code) };
        if moved { Wish::Draw } else { Wish::None }
    }

    /// Goes into the selected row.
    fn enter(&mut self) {
        match self.listing().selected.filter(|_| self.level != Level::Goroutine) {
            Some(RowId::Process(image)) => (self.process, self.level) = (Some(image), Level::Sites),
            Some(RowId::Site(site)) => (self.site, self.level) = (Some(site), Level::Goroutines),
            Some(RowId::Goroutine(image, goid)) => {
                (self.goroutine, self.level, self.story) = (Some((image, goid)), Level::Goroutine, Scroll::default());
                return;
            }
            None => return,
        }
        let listing = self.listing();
        (listing.selected, listing.index, listing.offset) = (None, 0, 0);
        listing.filter.clear();
    }

    /// Drops the filter, or goes back to where it came from.
    fn leave(&mut self) {
        if self.level != Level::Goroutine && !self.listing().filter.is_empty() {
            self.listing().filter.clear();
            return;
        }
        self.level = match self.level {
            Level::Goroutine => Level::Goroutines,
            Level::Goroutines => Level::Sites,
            Level::Sites | Level::Processes => {
                self.process = None;
                Level::Processes
            }
        };
    }
}
