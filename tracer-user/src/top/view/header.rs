//! The lines on top: what is followed, how much can be believed of it, and what it costs.

use ratatui::text::{Line, Span};

use super::{Theme, columns::percent, suspects};
use crate::{
    timeline::human::{count, duration},
    top::{
        picture::{Header, Picture},
        state::State,
    },
};

/// Between two parts of a line.
const GAP: &str = "  ";

/// As many lines as are needed and allowed, the most important first.
pub fn lines(picture: &Picture, state: &State, width: u16, most: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut lines: Vec<(usize, Vec<Span<'static>>)> = vec![(0, Vec::new())];
    for part in parts(picture, state, theme) {
        let wanted = part.width() + GAP.len();
        let last = lines.len() - 1;
        if lines[last].0 > 0 && lines[last].0 + wanted > usize::from(width) {
            if lines.len() == most {
                // A shorter one may still find its place.
                continue;
            }
            lines.push((0, Vec::new()));
        }
        if let Some((used, line)) = lines.last_mut() {
            *used += wanted;
            line.extend([part, Span::raw(GAP)]);
        }
    }
    lines.into_iter().map(|(_, spans)| Line::from(spans)).collect()
}

fn parts(picture: &Picture, state: &State, theme: Theme) -> Vec<Span<'static>> {
    let header = &picture.header;
    let mut parts = vec![Span::styled("lifetrace top", theme.heading())];
    parts.extend(header.over.as_ref().map(|over| Span::styled(format!("[{}]", over.to_uppercase()), theme.bad())));
    if state.paused {
        parts.push(Span::styled("[PAUSED]", theme.bad()));
    }
    parts.push(loss(header, theme));
    parts.push(Span::raw(format!("goroutines {}", count(header.alive))));
    parts.push(price(header, theme));
    parts.push(Span::raw(format!("tier {}", tiers(header))));
    let suspects = suspects(picture);
    if suspects > 0 {
        let noun = if suspects == 1 { "site grows" } else { "sites grow" };
        parts.push(Span::styled(format!("{suspects} {noun}"), theme.bad()));
    }
    if header.lost > 0 {
        parts.push(Span::raw(format!("({} lost)", header.lost_kinds)));
    }
    let events = header.events_per_s.map_or_else(|| "-".to_owned(), |rate| count(rate.round() as u64));
    parts.push(Span::raw(format!("events {events}/s")));
    parts.push(Span::raw(format!("processes {}", header.processes)));
    parts.push(Span::raw(format!("for {}", duration(header.now_ns / 1_000_000_000 * 1_000_000_000))));
    if !header.target.is_empty() {
        parts.push(Span::raw(header.target.clone()));
    }
    parts
}

fn loss(header: &Header, theme: Theme) -> Span<'static> {
    match header.lost {
        0 => Span::raw("lost none"),
        lost => Span::styled(format!("lost {}", count(lost)), theme.bad()),
    }
}

fn price(header: &Header, theme: Theme) -> Span<'static> {
    let budget = header.budget.map_or(String::new(), |budget| format!(" of {}", percent(Some(budget))));
    let now = header.price_now.map_or(String::new(), |now| format!(", now {}", percent(Some(now))));
    let text = format!("price {}{budget}{now}", percent(header.price));
    let dear = header.budget.zip(header.price).is_some_and(|(budget, price)| price > budget);
    if dear { Span::styled(text, theme.bad()) } else { Span::raw(text) }
}

/// `T2`, or `T0 3, T2 1` where processes differ.
fn tiers(header: &Header) -> String {
    match header.tiers.iter().collect::<Vec<_>>().as_slice() {
        [] => "-".to_owned(),
        [(tier, _)] => format!("{tier:?}"),
        all => all.iter().map(|(tier, count)| format!("{tier:?} {count}")).collect::<Vec<_>>().join(", "),
    }
}
