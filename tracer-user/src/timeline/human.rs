//! Numbers as people read them.

use crate::clock::WallTime;

/// A duration with three significant digits: `850 ns`, `12.3 µs`, `4.56 s`, `2 h 5 min`.
pub fn duration(ns: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns")];
    if ns >= 3600 * UNITS[0].0 {
        return format!("{} h {} min", ns / (3600 * UNITS[0].0), ns / (60 * UNITS[0].0) % 60);
    }
    if ns >= 120 * UNITS[0].0 {
        return format!("{} min {} s", ns / (60 * UNITS[0].0), ns / UNITS[0].0 % 60);
    }
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| ns >= *unit).unwrap_or((1, "ns"));
    let value = ns as f64 / unit as f64;
    let digits = match value {
        _ if ns.is_multiple_of(unit) => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {name}")
}

/// An instant of a recording, in milliseconds to the microsecond: columns of them line up and can be compared.
pub fn instant(ns: u64) -> String {
    format!("{}.{:03} ms", count(ns / 1_000_000), ns / 1_000 % 1_000)
}

/// A count with its thousands apart.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// An amount of memory with three significant digits: `850 B`, `1.20 KiB`, `34.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 5] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit).unwrap_or((1, "B"));
    let value = bytes as f64 / unit as f64;
    let digits = match value {
        _ if bytes.is_multiple_of(unit) => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {name}")
}

/// A calendar time: `2026-03-01 12:00:00 UTC`.
pub fn wall(at: WallTime) -> String {
    let seconds = at.0 / 1_000_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March, so that a leap day ends one (H. Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Text that came from the traced side, for a terminal: control characters are shown, not sent.
pub fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check durations over the whole range.
    #[test]
    fn durations() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1 µs"),
            (1_234, "1.23 µs"),
            (45_678_000, "45.7 ms"),
            (456_780_000, "457 ms"),
            (2_500_000_000, "2.50 s"),
            (125_000_000_000, "2 min 5 s"),
            (7_500_000_000_000, "2 h 5 min"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(ns), text);
        }
    }

    /// Check counts, instants and calendar times, a leap day among them.
    #[test]
    fn numbers() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!(instant(1_234_567_890), "1,234.567 ms");
        assert_eq!(wall(WallTime(0)), "1970-01-01 00:00:00 UTC");
        assert_eq!(wall(WallTime(1_709_210_096_000_000_000)), "2024-02-29 12:34:56 UTC");
        assert_eq!(plain("a\u{1b}[2J\tb"), "a\\u{1b}[2J\\tb");
    }
}
