//! Screens of a made-up recording, and keys.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::*;
use crate::top::{
    state::Wish,
    tests::{Made, service},
};

/// Somebody at a terminal.
struct Viewer {
    made: Made,
    state: State,
    terminal: Terminal<TestBackend>,
}

impl Viewer {
    fn new(width: u16, height: u16) -> Self {
        let mut state = State::new(Level::Sites);
        usual_order(&mut state);
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut viewer = Self { made: service(), state, terminal };
        viewer.draw();
        viewer
    }

    fn draw(&mut self) -> String {
        let picture = self.made.model.picture(&self.state.focus());
        self.terminal.draw(|frame| draw(frame, &picture, &mut self.state, Theme { color: false })).unwrap();
        let backend = self.terminal.backend();
        // One without a line cannot be written out.
        if backend.buffer().area.is_empty() { String::new() } else { backend.to_string() }
    }

    fn press(&mut self, keys: &str) -> String {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                key => KeyCode::Char(key),
            };
            self.state.key(KeyEvent::new(code, KeyModifiers::NONE));
            self.draw();
        }
        self.draw()
    }
}

/// Check the screens at three sizes.
#[test]
fn screens() {
    for (width, height) in [(80, 24), (120, 40), (40, 10)] {
        let mut viewer = Viewer::new(width, height);
        let name = |level: &str| format!("{level}_{width}x{height}");
        insta::assert_snapshot!(name("sites"), viewer.draw());
        insta::assert_snapshot!(name("goroutines"), viewer.press("\n"));
        insta::assert_snapshot!(name("story"), viewer.press("\n"));
        insta::assert_snapshot!(name("processes"), viewer.press("\x1b\x1b\x1b"));
        insta::assert_snapshot!(name("help"), viewer.press("?"));
    }
}

/// Check that the rows are ordered and filtered as asked, and that the selected one stays selected wherever it goes.
#[test]
fn order_and_filter() {
    let mut viewer = Viewer::new(120, 20);
    let row = |screen: &str, name: &str| screen.lines().position(|line| line.contains(name));
    let screen = viewer.draw();
    assert!(row(&screen, "remind") < row(&screen, "main.serve"), "{screen}");
    let selected = viewer.state.listing().selected;
    let screen = viewer.press("r");
    assert!(row(&screen, "main.serve") < row(&screen, "remind") && screen.contains("ALIVE^"), "{screen}");
    assert_eq!((viewer.state.listing().selected, viewer.state.listing().index), (selected, 1));
    let screen = viewer.press("s");
    assert!(screen.contains("BORN/s*"), "{screen}");
    assert!(viewer.press("S").contains("ALIVE*"));
    let screen = viewer.press("/Serve");
    assert!(screen.contains("/Serve_") && row(&screen, "remind").is_none(), "{screen}");
    let screen = viewer.press("\n");
    assert!(screen.contains("[filter: Serve]") && row(&screen, "main.serve").is_some(), "{screen}");
    let screen = viewer.press("\x1b");
    assert!(row(&screen, "remind").is_some() && viewer.state.level == Level::Sites, "{screen}");
    assert!(viewer.press("/nothing has this name\n").contains("0 creation sites"));
}

/// Check that one can walk through a table that is longer than the screen, and not out of it.
#[test]
fn walk() {
    let mut viewer = Viewer::new(80, 14);
    viewer.press("\n");
    assert_eq!(viewer.state.listing().rows.len(), 24);
    let press = |viewer: &mut Viewer, code| {
        viewer.state.key(KeyEvent::new(code, KeyModifiers::NONE));
        viewer.draw();
        (viewer.state.listing().index, viewer.state.listing().offset)
    };
    let page = viewer.state.listing().page;
    assert_eq!(press(&mut viewer, KeyCode::Up), (0, 0));
    assert_eq!(press(&mut viewer, KeyCode::Down), (1, 0));
    assert_eq!(press(&mut viewer, KeyCode::PageDown), (1 + page, 2));
    assert_eq!(press(&mut viewer, KeyCode::End), (23, 24 - page));
    assert_eq!(press(&mut viewer, KeyCode::Down), (23, 24 - page));
    assert_eq!(press(&mut viewer, KeyCode::Home), (0, 0));
}

/// Check that each line of the help can be got at on a screen that is too small for it, by the keys that move in tables, that it says so,
/// and that any other key closes it.
#[test]
fn help() {
    let mut viewer = Viewer::new(80, 6);
    let press = |viewer: &mut Viewer, code| {
        viewer.state.key(KeyEvent::new(code, KeyModifiers::NONE));
        viewer.draw()
    };
    let whole: Vec<String> = Viewer::new(80, 24).press("?").lines().take(21).map(str::to_owned).collect();
    let selected = viewer.state.listing().index;
    let screen = viewer.press("?");
    assert!(screen.contains("arrows PgUp PgDn scroll  1-5 of 21"), "{screen}");
    for (code, first) in [
        (KeyCode::Up, 0),
        (KeyCode::Down, 1),
        (KeyCode::Char('j'), 2),
        (KeyCode::Char('k'), 1),
        (KeyCode::PageDown, 6),
        (KeyCode::PageUp, 1),
        (KeyCode::End, 16),
        (KeyCode::PageDown, 16),
        (KeyCode::Home, 0),
        (KeyCode::Char('G'), 16),
        (KeyCode::Char('g'), 0),
    ] {
        let screen = press(&mut viewer, code);
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!(lines[..5], whole[first..first + 5], "{code:?}: {screen}");
        assert!(lines[5].contains(&format!("{}-{} of 21", first + 1, first + 5)), "{code:?}: {screen}");
    }
    assert_eq!(viewer.state.listing().index, selected, "the table below stays where it is");
    press(&mut viewer, KeyCode::Esc);
    assert!(viewer.state.help.is_none() && viewer.state.level == Level::Sites);
    press(&mut viewer, KeyCode::End);
    let screen = viewer.press("?");
    assert!(screen.contains("1-5 of 21"), "it begins at its beginning again: {screen}");
    viewer.terminal.backend_mut().resize(80, 21);
    assert_eq!(viewer.draw().lines().collect::<Vec<_>>(), whole, "all fits");
}

/// Check that no screen is too small, whatever is on it.
#[test]
fn any_size() {
    let mut viewer = Viewer::new(80, 24);
    for keys in ["", "\n", "\n", "?", "x\x1b\x1b\x1b"] {
        viewer.press(keys);
        for (width, height) in (0..30).flat_map(|n| [(n, 30 - n), (n, n), (n * 9, 3)]) {
            viewer.terminal.backend_mut().resize(width, height);
            viewer.draw();
        }
    }
}

/// Check what the keys ask for.
#[test]
fn wishes() {
    let mut state = State::new(Level::Sites);
    let mut press = |code, modifiers| state.key(KeyEvent::new(code, modifiers));
    assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Wish::Quit);
    assert_eq!(press(KeyCode::Char('z'), KeyModifiers::CONTROL), Wish::None);
    assert_eq!(press(KeyCode::Char('q'), KeyModifiers::NONE), Wish::Quit);
    assert_eq!(press(KeyCode::Char('p'), KeyModifiers::NONE), Wish::Draw);
    assert_eq!(press(KeyCode::Char('/'), KeyModifiers::NONE), Wish::Draw);
    // In a filter it is a letter.
    assert_eq!(press(KeyCode::Char('q'), KeyModifiers::NONE), Wish::Draw);
    assert!(state.paused);
    assert_eq!(state.listing().filter, "q");
}

/// Check that without colour nothing is coloured, and what is bad stands out all the same.
#[test]
fn colors() {
    let picture = service().model.picture(&crate::top::picture::Focus::default());
    let cells = |color| {
        let mut terminal = Terminal::new(TestBackend::new(120, 20)).unwrap();
        terminal.draw(|frame| draw(frame, &picture, &mut State::new(Level::Sites), Theme { color })).unwrap();
        terminal.backend().buffer().content().to_vec()
    };
    assert!(cells(false).iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
    assert!(cells(true).iter().any(|cell| cell.fg == Color::Red));
    assert!(cells(false).iter().any(|cell| cell.modifier.contains(Modifier::BOLD)));
}
