//! Goroutines by stack: `/debug/pprof/goroutine?debug=1` and `goroutineleak?debug=1`.
//!
//! Source: `runtime/pprof/pprof.go` (`printCountProfile`, `printStackRecord`).

use super::{AnswerError, quoted::quoted};

const MAX_RECORDS: usize = 1 << 20;
/// Addresses, frames and labels of all of them.
const MAX_PARTS: usize = 4 << 20;

/// A profile of counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Counted<'t> {
    /// `goroutine`, `goroutineleak`.
    pub name: &'t str,
    pub total: u64,
    pub records: Vec<Record<'t>>,
}

/// Goroutines that have a stack and labels in common.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record<'t> {
    pub count: u64,
    /// Return addresses, innermost first.
    pub pcs: Vec<u64>,
    pub labels: Vec<(String, String)>,
    /// Innermost first, inlined calls included.
    pub frames: Vec<Frame<'t>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'t> {
    pub pc: u64,
    pub function: &'t str,
    pub file: &'t str,
    pub line: u32,
}

/// Reads a profile of counts.
pub fn parse(text: &str) -> Result<Counted<'_>, AnswerError> {
    let mut lines = text.split_inclusive('\n');
    let head = lines.next().and_then(|line| line.strip_suffix('\n')).ok_or(AnswerError::NoDump)?;
    let (name, total) = head.split_once(" profile: total ").ok_or(AnswerError::NoDump)?;
    let total = total.parse().map_err(|_| AnswerError::NoDump)?;
    let mut this = Counted { name, total, records: Vec::new() };
    let mut parts = 0;
    for line in lines {
        let line = line.strip_suffix('\n').ok_or(AnswerError::Cut)?;
        if line.is_empty() {
            continue;
        }
        parts += add(line, &mut this.records).ok_or(AnswerError::NoDump)?;
        if this.records.len() > MAX_RECORDS || parts > MAX_PARTS {
            return Err(AnswerError::TooMany("goroutines"));
        }
    }
    let counted: u64 = this.records.iter().fold(0, |sum, record| sum.saturating_add(record.count));
    if counted < total { Err(AnswerError::Cut) } else { Ok(this) }
}

/// Adds a line to the record it belongs to. Returns how much that was.
fn add<'t>(line: &'t str, records: &mut Vec<Record<'t>>) -> Option<usize> {
    if let Some(labels) = line.strip_prefix("# labels: {") {
        let record = records.last_mut()?;
        record.labels = self::labels(labels)?;
        return Some(record.labels.len());
    }
    if line.starts_with('#') {
        records.last_mut()?.frames.extend(frame(line));
        return Some(1);
    }
    let (count, pcs) = line.split_once(" @")?;
    let pcs: Vec<u64> = pcs.split_ascii_whitespace().map(address).collect::<Option<_>>()?;
    let parts = pcs.len();
    records.push(Record { count: count.parse().ok()?, pcs, ..Record::default() });
    Some(parts)
}

/// `"k":"v", "k":"v"}`
fn labels(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    loop {
        let (key, rest) = quoted(text)?;
        let (value, rest) = quoted(rest.strip_prefix(':')?)?;
        labels.push((key, value));
        if rest == "}" {
            return Some(labels);
        }
        text = rest.strip_prefix(", ")?;
    }
}

/// `# 0x47e1ae main.work+0x2e /src/main.go:51`, with as many tabs between them as make columns. Code that is not Go's has an address alone.
fn frame(line: &str) -> Option<Frame<'_>> {
    let mut columns = line.split('\t').filter(|column| !column.is_empty() && *column != "#");
    let pc = address(columns.next()?)?;
    let (function, _) = columns.next()?.rsplit_once("+0x")?;
    let (file, line) = columns.next()?.rsplit_once(':')?;
    Some(Frame { pc, function, file, line: line.parse().ok()? })
}

fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that counts, addresses, labels and frames are read, and that the columns' tabs do not matter.
    #[test]
    fn whole() {
        let text = "goroutineleak profile: total 3\n2 @ 0x43e0ee 0x47e1ae\n# labels: {\"a\":\"b, \\\"c\\\"\", \"x\":\"\"}\n\
                    #\t0x47e1ad\tmain.work[...]+0x2e\t\t/src/a b.go:51\n#\t0x99\n\n1 @\n\n";
        let counted = parse(text).unwrap();
        assert_eq!((counted.name, counted.total), ("goroutineleak", 3));
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let first = Record {
            count: 2,
            pcs: vec![0x43_e0ee, 0x47_e1ae],
            labels: vec![label("a", "b, \"c\""), label("x", "")],
            frames: vec![Frame { pc: 0x47_e1ad, function: "main.work[...]", file: "/src/a b.go", line: 51 }],
        };
        assert_eq!(counted.records, [first, Record { count: 1, ..Record::default() }]);
    }

    /// Check that a profile cut anywhere is called cut or none, never taken for whole.
    #[test]
    fn cuts() {
        let text =
            "goroutine profile: total 3\n2 @ 0x43 0x47\n# labels: {\"a\":\"b\"}\n#\t0x46\tmain.f+0x2\t/m.go:5\n\n1 @ 0x5\n";
        for end in 0..text.len() {
            assert!(matches!(parse(&text[..end]), Err(AnswerError::Cut | AnswerError::NoDump)), "cut at {end}");
        }
        assert_eq!(parse(text).unwrap().records.len(), 2);
    }
}
