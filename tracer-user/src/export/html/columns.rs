//! The numbers of lanes and spans, a column each: alike stands beside alike, and packs well. data.js reads them back.

/// Whole numbers, small ones in a byte (LEB128).
#[derive(Default)]
struct Varints {
    bytes: Vec<u8>,
    last: u64,
}

impl Varints {
    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// By how much it differs from the one before.
    fn push_difference(&mut self, value: u64) {
        let difference = value.wrapping_sub(self.last).cast_signed();
        self.last = value;
        self.push(zigzag(difference));
    }
}

/// Small numbers of either sign as small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// A time in sixteen bits, cut to its eleven most significant: within a thousandth, and exact below 2048 ns.
fn short(ns: u64) -> u16 {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(11);
    // The highest of the eleven is always set where there is a shift, and is part of what tells it.
    (shift as u16) * 1024 + (ns >> shift) as u16
}

/// What [`short`] keeps.
fn long(code: u16) -> u64 {
    let shift = (code >> 10).saturating_sub(1);
    u64::from(code - shift * 1024) << shift
}

/// A goroutine, a thread, or whatever else has a line of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane {
    /// Its number; 0 where it has a name instead.
    pub id: u64,
    /// Since the recording's zero.
    pub since_ns: u64,
    pub flags: u8,
    /// The goroutine that made it; 0: none that is known.
    pub parent: u64,
    /// 0: none; else one more than the number of the newest set of labels.
    pub labels: u64,
    /// 0: none; else one more than the number of where it was made and what it runs.
    pub site: u64,
}

/// A stretch of a lane.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub start_ns: u64,
    pub end_ns: u64,
    /// What it is.
    pub detail: u32,
    pub more: More,
}

/// What else is told of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    Nothing,
    /// A part of the runtime ended it: a number of `data.js`, at most [`KINDS`].
    Part(u64),
    /// This goroutine ended it.
    Goroutine(u64),
    /// So many are drawn as one.
    Many(u64),
}

/// How far a lane has come.
struct Drawn {
    /// Where the page will be; never ahead of `end_ns`.
    now: u64,
    /// Where the last span ended.
    end_ns: u64,
}

/// Parts of the runtime that end waits, as numbers from 1.
pub const KINDS: u64 = 5;

/// All lanes.
#[derive(Default)]
pub struct Columns {
    id: Varints,
    since: Varints,
    spans: Varints,
    flags: Vec<u8>,
    parent: Varints,
    labels: Varints,
    site: Varints,
    /// How long spans lasted ([`short`]): the high bytes, then the low ones.
    lasted: [Vec<u8>; 2],
    detail: Varints,
    more: Varints,
}

impl Columns {
    /// Adds a lane with its spans, by time. `gap` is the detail of what lies between them.
    pub fn lane(&mut self, lane: Lane, spans: impl Iterator<Item = Span>, gap: u32) {
        self.id.push_difference(lane.id);
        self.since.push_difference(lane.since_ns);
        self.flags.push(lane.flags);
        self.parent.push(lane.parent);
        self.labels.push(lane.labels);
        self.site.push(lane.site);
        let mut drawn = Drawn { now: lane.since_ns, end_ns: lane.since_ns };
        let mut count = 0;
        for span in spans {
            if drawn.end_ns < span.start_ns {
                self.lasted(&mut drawn, span.start_ns);
                self.said(gap, 0);
                count += 1;
            }
            self.lasted(&mut drawn, span.end_ns);
            let more = match span.more {
                More::Nothing => 0,
                More::Part(kind) => kind,
                More::Goroutine(goid) => zigzag(goid.wrapping_sub(lane.id).cast_signed()).saturating_add(KINDS + 1),
                More::Many(count) => count,
            };
            self.said(span.detail, more);
            count += 1;
        }
        self.spans.push(count);
    }

    /// How long what ends then has lasted. What was cut from those before is made up for where it cannot be seen: errors do not add up, and a
    /// short span behind a long one stays short.
    fn lasted(&mut self, drawn: &mut Drawn, end_ns: u64) {
        let ns = end_ns.saturating_sub(drawn.end_ns);
        drawn.end_ns = drawn.end_ns.max(end_ns);
        let behind = drawn.end_ns.saturating_sub(drawn.now).saturating_sub(ns);
        let code = short(ns + behind.min(ns / 1024));
        let [high, low] = code.to_be_bytes();
        self.lasted[0].push(high);
        self.lasted[1].push(low);
        drawn.now += long(code);
    }

    fn said(&mut self, detail: u32, more: u64) {
        self.detail.push(u64::from(detail));
        self.more.push(more);
    }

    /// By name, in the order in which they are packed.
    pub fn named(&self) -> [(&'static str, &[u8]); 11] {
        [
            ("id", &self.id.bytes),
            ("since", &self.since.bytes),
            ("spans", &self.spans.bytes),
            ("flags", &self.flags),
            ("parent", &self.parent.bytes),
            ("labels", &self.labels.bytes),
            ("site", &self.site.bytes),
            ("lastedHigh", &self.lasted[0]),
            ("lastedLow", &self.lasted[1]),
            ("detail", &self.detail.bytes),
            ("more", &self.more.bytes),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a short time is within a thousandth of what it stands for, never more than it, and exact where it is small.
    #[test]
    fn short_times() {
        for exponent in 0..64 {
            for ns in [1_u64 << exponent, (1 << exponent) - 1, (1 << exponent) + (1 << exponent >> 1)] {
                let kept = long(short(ns));
                assert!(kept <= ns && ns - kept <= ns / 1024, "{ns} became {kept}");
                assert!(ns >= 2048 || kept == ns);
            }
        }
        assert_eq!(long(short(u64::MAX)), 2047 << 53);
    }

    fn lengths(columns: &Columns) -> Vec<u64> {
        let lasted = columns.lasted[0].iter().zip(&columns.lasted[1]);
        lasted.map(|(high, low)| long(u16::from_be_bytes([*high, *low]))).collect()
    }

    fn span(start_ns: u64, end_ns: u64) -> Span {
        Span { start_ns, end_ns, detail: 1, more: More::Nothing }
    }

    /// Check that what is cut from spans is made up for, and that what lies between two has a span of its own.
    #[test]
    fn errors_do_not_add_up() {
        let mut columns = Columns::default();
        let place = |index: u64| 1_000_000 + index * 10_000_001;
        columns.lane(Lane::default(), (0..1000).map(|index| span(place(index), place(index + 1))), 0);
        let (sum, end): (u64, u64) = (lengths(&columns).iter().sum(), place(1000));
        assert!(sum <= end && end - sum < 20_000, "{sum} of {end}");
        // A thousand of them are 1001.
        assert_eq!(columns.spans.bytes, [0xe9, 7]);
        assert_eq!(columns.detail.bytes.iter().filter(|detail| **detail == 0).count(), 1);
    }

    /// Check that a short span behind a long one is as short as it was, and an instant is one.
    #[test]
    fn short_behind_long() {
        let mut columns = Columns::default();
        let spans = [span(0, 59_999_999_999), span(59_999_999_999, 60_000_001_000), span(60_000_001_000, 60_000_001_000)];
        columns.lane(Lane::default(), spans.into_iter(), 0);
        let lengths = lengths(&columns);
        assert!(lengths[0] <= 59_999_999_999 && lengths[0] > 59_900_000_000, "{lengths:?}");
        assert_eq!(lengths[1..], [1001, 0]);
    }
}
