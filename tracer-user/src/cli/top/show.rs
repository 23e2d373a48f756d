//! The loop of the view: steps of the recording, keys, pictures.

use std::{
    io,
    sync::mpsc::RecvTimeoutError,
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    crossterm::{
        event::{self, Event},
        style::force_color_output,
    },
    layout::Size,
};

use super::super::Failure;
use crate::{
    correlate::feed::{Steps, feed},
    recording::reader::{Recording, Source},
    top::{
        model::Model,
        picture::{Focus, Picture},
        state::{Level, State, Wish},
        terminal::{Came, Screen, Waits},
        view::{Theme, draw, usual_order},
    },
};

/// How long keys may wait.
const BEAT: Duration = Duration::from_millis(50);
/// How often a new picture is taken.
const PICTURE_EVERY: Duration = Duration::from_millis(500);

/// Shows a recording as it was at its end.
pub fn recorded(recording: Recording<impl Source + Send>, color: bool) -> Result<(), Failure> {
    show(recording, Level::Sites, color, &|| false)
}

/// Shows what is being recorded.
#[cfg(feature = "live")]
pub fn live(
    recording: Recording<impl Source + Send>,
    level: Level,
    color: bool,
    stop: &super::super::attach::Stop,
) -> Result<(), Failure> {
    let shown = show(recording, level, color, &|| stop.asked());
    stop.ask();
    shown
}

fn show(recording: Recording<impl Source + Send>, level: Level, color: bool, over: &dyn Fn() -> bool) -> Result<(), Failure> {
    let model = Model::begin(recording.meta().clone());
    force_color_output(color);
    // Before there are threads: they are to leave signals alone.
    let waits = Waits::begin().map_err(Failure::environment)?;
    thread::scope(|scope| {
        let steps = feed(scope, recording, None).map_err(Failure::environment)?;
        // Dropped with the loop: who reads and records may take its time to end, the terminal must not wait for that.
        let screen = Screen::open().map_err(Failure::environment)?;
        Show::new(model, level, Theme { color }, waits).run(steps, screen, over).map_err(Failure::environment)
    })
}

/// The view on its way.
struct Show {
    model: Model,
    state: State,
    theme: Theme,
    waits: Waits,
    picture: Picture,
    /// What the picture was taken for.
    focus: Option<Focus>,
    drawn: Option<(Instant, Size)>,
}

impl Show {
    fn new(model: Model, level: Level, theme: Theme, waits: Waits) -> Self {
        let mut state = State::new(level);
        usual_order(&mut state);
        Self { model, state, theme, waits, picture: Picture::default(), focus: None, drawn: None }
    }

    /// Until somebody quits, or `over` says so.
    fn run(mut self, mut steps: Steps, mut screen: Screen, over: &dyn Fn() -> bool) -> io::Result<()> {
        let mut more = true;
        while !over() {
            let mut wish = self.keys(Duration::ZERO)?;
            if more {
                more = self.steps(&mut steps);
            } else if wish == Wish::None {
                wish = self.keys(BEAT)?;
            }
            match wish {
                Wish::Quit => break,
                Wish::Draw => self.draw(&mut screen)?,
                Wish::None if self.is_due(screen.terminal.size()?) => self.draw(&mut screen)?,
                Wish::None => {}
            }
        }
        Ok(())
    }

    /// Takes the keys that have come, or come within that time.
    fn keys(&mut self, wait: Duration) -> io::Result<Wish> {
        let (mut wish, mut wait) = (Wish::None, wait);
        loop {
            match self.waits.within(wait)? {
                Came::Nothing => return Ok(wish),
                Came::End => return Ok(Wish::Quit),
                Came::Keys => wait = Duration::ZERO,
            }
            while event::poll(Duration::ZERO)? {
                match event::read()? {
                    Event::Key(key) => match self.state.key(key) {
                        Wish::None => {}
                        Wish::Quit => return Ok(Wish::Quit),
                        Wish::Draw => wish = Wish::Draw,
                    },
                    Event::Resize(..) => wish = Wish::Draw,
                    _ => {}
                }
            }
        }
    }

    /// Takes steps for a beat; false: there are no more.
    fn steps(&mut self, steps: &mut Steps) -> bool {
        let end = Instant::now() + BEAT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let goes_on = match steps.within(left) {
                Ok(step) => self.model.step(step),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => {
                    self.model.cut_off();
                    false
                }
            };
            if !goes_on {
                break;
            }
        }
        self.drawn = None;
        false
    }

    fn is_due(&self, size: Size) -> bool {
        self.drawn.is_none_or(|(at, drawn)| at.elapsed() >= PICTURE_EVERY || drawn != size)
    }

    /// While it is paused the picture stays as it is, but for what is gone into.
    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        let focus = self.state.focus();
        if !self.state.paused || self.focus != Some(focus) {
            self.picture = self.model.picture(&focus);
            self.focus = Some(focus);
        }
        screen.terminal.draw(|frame| draw(frame, &self.picture, &mut self.state, self.theme))?;
        self.drawn = Some((Instant::now(), screen.terminal.size()?));
        Ok(())
    }
}
