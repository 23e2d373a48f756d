//! What `?` shows.

use ratatui::{
    Frame,
    layout::Rect,
    text::Line,
    widgets::{Clear, Paragraph},
};

use super::Theme;
use crate::top::state::Scroll;

/// A line that begins with `#` is a heading. None is longer than 78 characters.
const TEXT: &str = "\
#Keys
 Up Down j k PgUp PgDn Home End  move    Enter  go into a row    Esc  back
 s S  order by next, previous column     r  reverse              /    filter
 p Space  pause (recording goes on)      t  the runtime's own goroutines too
 ? h  this help (other keys close it)    q Ctrl-C  quit
#Columns   * ordered by, ^ reversed; - not known; > at least
 ALIVE           live now; if the process has ended: when it did
 BORN/s ENDED/s  over the newest 5 whole seconds, as far as covered (T1)
 BLOCKED AWAKE   waiting, and not waiting (T2)
 RUN READY       on a CPU or in a system call; waiting for a CPU (T3)
 LONGEST         the longest wait that goes on
 DELAY p50 p99   from ready to running, newest 10 to 20 s (T3)
 LEAK?           +N/h: the test of growth of `lifetrace leaks` over what was
                 watched so far: births that stay are spread to the end and
                 are older than those that ended became. A sign, no proof
#Header
 lost            events that were lost: numbers may be too small, and some
                 that have ended seem to live on until snapshots miss them
 price           what the probes cost, as a share of the target's CPU time,
                 of the budget; now: in the newest 5 s
 tier            T0 snapshots alone, T1 births and ends, T2 waits, T3 all";

/// Draws it; a part, and how to get at the others, where there is more than there is room for.
pub fn draw(frame: &mut Frame<'_>, area: Rect, scroll: &mut Scroll, theme: Theme) {
    let (count, height) = (TEXT.lines().count(), usize::from(area.height));
    // A screen of one line has no room for anything beside the text.
    let parts = height > 1 && count > height;
    let shown = scroll.show(count, height - usize::from(parts));
    let lines = TEXT.lines().skip(shown.start).take(shown.len()).map(|line| match line.strip_prefix('#') {
        Some(heading) => Line::styled(heading, theme.heading()),
        None => Line::raw(line),
    });
    let place = || format!("arrows PgUp PgDn scroll  {}-{} of {count}", shown.start + 1, shown.end);
    let place = parts.then(|| Line::styled(place(), theme.faint()));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines.chain(place).collect::<Vec<_>>()), area);
}
