//! Spans that are too short to be told apart, where there are too many of them.

use super::columns::{More, Span};
use crate::timeline::Timeline;

/// How short spans must be to be drawn as one with their neighbours, ns: the least power of two that leaves few enough. 0: none.
pub fn merged_below(timeline: &Timeline<'_>, most_spans: usize) -> u64 {
    let goroutines = timeline.goroutines.iter().flat_map(|line| line.spans.iter().map(|span| (span.start, span.end)));
    let threads = timeline.threads.iter().flat_map(|line| line.spans.iter().map(|span| (span.start, span.end)));
    let units = timeline.units.iter().flat_map(|line| line.spans.iter().map(|span| (span.start, span.end)));
    let runtimes = timeline.tracks.iter().flat_map(|(_, track)| {
        let pauses = track.pauses.iter().map(|pause| (pause.start, pause.end));
        pauses.chain(track.cycles.iter().map(|cycle| (cycle.start, cycle.end)))
    });
    // By how many bits a time has.
    let mut by_size = [0_usize; 65];
    let all = goroutines.chain(threads).chain(units).chain(runtimes).map(|(start, end)| end.since(start));
    all.for_each(|ns| by_size[(u64::BITS - ns.leading_zeros()) as usize] += 1);
    let mut longer: usize = by_size.iter().sum();
    if longer <= most_spans {
        return 0;
    }
    for (bits, count) in by_size.into_iter().enumerate() {
        longer -= count;
        // Between two of them there may be a run of shorter ones.
        if longer <= most_spans / 2 {
            return 1_u64.checked_shl(bits as u32).unwrap_or(u64::MAX);
        }
    }
    u64::MAX
}

/// Runs of spans that are all shorter than that, as one each.
pub fn merged(spans: impl Iterator<Item = Span>, below_ns: u64, many: u32) -> impl Iterator<Item = Span> {
    let mut spans = spans.peekable();
    let is_short = move |span: &Span| span.end_ns - span.start_ns < below_ns;
    std::iter::from_fn(move || {
        let first = spans.next()?;
        if !is_short(&first) {
            return Some(first);
        }
        let (mut run, mut count) = (first, 1);
        while let Some(next) = spans.next_if(|next| is_short(next) && next.start_ns <= run.end_ns) {
            run.end_ns = run.end_ns.max(next.end_ns);
            count += 1;
        }
        Some(if count == 1 { first } else { Span { detail: many, more: More::Many(count), ..run } })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that runs of short spans become one that tells how many they are, and that long ones and gaps end a run.
    #[test]
    fn runs() {
        let span = |start_ns, end_ns| Span { start_ns, end_ns, detail: 1, more: More::Nothing };
        let spans = [span(0, 5), span(5, 9), span(9, 100), span(100, 101), span(200, 201), span(201, 203)];
        let told: Vec<(u64, u64, u32, More)> =
            merged(spans.into_iter(), 10, 7).map(|span| (span.start_ns, span.end_ns, span.detail, span.more)).collect();
        let expected =
            [(0, 9, 7, More::Many(2)), (9, 100, 1, More::Nothing), (100, 101, 1, More::Nothing), (200, 203, 7, More::Many(2))];
        assert_eq!(told, expected);
    }
}
