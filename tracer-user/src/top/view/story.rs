//! One goroutine: what is known of it, where it is, where it was made, and what it did, the newest on top.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
    widgets::Paragraph,
};

use super::Theme;
use crate::{
    timeline::human::{duration, instant},
    top::{
        picture::{Detail, Picture},
        state::State,
    },
};

/// From this width on, what it did stands beside where it is.
const WIDE: u16 = 110;

/// Draws it; a part, where there is more than there is room for.
pub fn draw(frame: &mut Frame<'_>, area: Rect, picture: &Picture, state: &mut State, theme: Theme) {
    let Some(detail) = &picture.goroutine else { return };
    let (place, deeds) = (place(detail, theme), deeds(detail, theme));
    // What has no room on the left could not be scrolled to.
    let beside = area.width >= WIDE && place.len() <= usize::from(area.height);
    let (all, left) = match beside {
        true => (deeds, Some(place)),
        false => (place.into_iter().chain([Line::default()]).chain(deeds).collect(), None),
    };
    let range = state.story.show(all.len(), usize::from(area.height));
    let shown: Vec<Line<'_>> = all.into_iter().skip(range.start).take(range.len()).collect();
    let rest = match left {
        Some(left) => {
            let [one, other] = Layout::horizontal([Constraint::Percentage(45), Constraint::Fill(1)]).spacing(2).areas(area);
            frame.render_widget(Paragraph::new(left), one);
            other
        }
        None => area,
    };
    frame.render_widget(Paragraph::new(shown), rest);
}

fn place(detail: &Detail, theme: Theme) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = detail.facts.iter().map(|(word, what)| Line::raw(format!("{word:<8} {what}"))).collect();
    for (title, frames) in [("stack", &detail.stack), ("made at", &detail.creation)] {
        lines.push(Line::styled(title, theme.heading()));
        if frames.is_empty() {
            lines.push(Line::raw("  - (nothing tells)"));
        }
        lines.extend(frames.iter().map(|frame| Line::raw(format!("  {frame}"))));
    }
    lines
}

fn deeds(detail: &Detail, theme: Theme) -> Vec<Line<'static>> {
    let title = Line::styled(format!("{:>15}  {:>11}  {:<8}  {}", "SINCE", "LASTED", "STATE", "WHAT"), theme.heading());
    let line = |span: &crate::top::picture::SpanRow| {
        Line::raw(format!("{:>15}  {:>11}  {:<8}  {}", instant(span.start_ns), duration(span.ns), span.state, span.what))
    };
    [title].into_iter().chain(detail.spans.iter().rev().map(line)).collect()
}
