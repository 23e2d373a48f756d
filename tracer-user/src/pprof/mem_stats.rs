//! `runtime.MemStats`, from the comments below a heap profile as text: `/debug/pprof/heap?debug=1`.
//!
//! Source: `runtime/pprof/pprof.go` (`writeHeapInternal`).

use super::AnswerError;
use crate::recording::contract::GoHeap;

const HEADLINE: &str = "# runtime.MemStats\n";
/// Lines below the headline that are looked at: there are some 30.
const MAX_LINES: usize = 256;

/// Finds the numbers. All of them must be there.
pub fn parse(text: &str) -> Result<GoHeap, AnswerError> {
    let comments = text.rfind(HEADLINE).map(|at| &text[at + HEADLINE.len()..]).ok_or(AnswerError::Lacks("runtime.MemStats"))?;
    let lines = || comments.split_inclusive('\n').take(MAX_LINES).filter_map(|line| line.strip_suffix('\n'));
    let number = |name: &'static str| {
        let mut values = lines().filter_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(" = "));
        // `# Stack = 1 / 2`: in use, and from the system.
        let value = values.next().and_then(|value| value.split(' ').next()?.parse().ok());
        value.ok_or(AnswerError::Lacks(name))
    };
    Ok(GoHeap {
        alloc_bytes: number("HeapAlloc")?,
        inuse_bytes: number("HeapInuse")?,
        idle_bytes: number("HeapIdle")?,
        released_bytes: number("HeapReleased")?,
        stack_bytes: number("Stack")?,
        sys_bytes: number("Sys")?,
        goal_bytes: number("NextGC")?,
        gc_cycles: number("NumGC")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "heap profile: 1: 2 [3: 4] @ heap/1048576\n1: 2 [3: 4] @ 0x1\n\n# runtime.MemStats\n# Alloc = 1\n# Sys = 2\n\
                        # HeapAlloc = 3\n# HeapSys = 4\n# HeapIdle = 5\n# HeapInuse = 6\n# HeapReleased = 7\n# HeapObjects = 8\n\
                        # Stack = 9 / 10\n# OtherSys = 11\n# NextGC = 12\n# NumGC = 13\n# DebugGC = false\n";

    /// Check that each number comes from its own line.
    #[test]
    fn numbers() {
        let expected = GoHeap {
            alloc_bytes: 3,
            inuse_bytes: 6,
            idle_bytes: 5,
            released_bytes: 7,
            stack_bytes: 9,
            sys_bytes: 2,
            goal_bytes: 12,
            gc_cycles: 13,
        };
        assert_eq!(parse(TEXT), Ok(expected));
    }

    /// Check that what is missing, or cut in the middle of a number, is missed.
    #[test]
    fn missing() {
        let end = TEXT.find("13").unwrap();
        for cut in 0..=end + 2 {
            assert!(matches!(parse(&TEXT[..cut]), Err(AnswerError::Lacks(_))), "cut at {cut}");
        }
        assert_eq!(parse(&TEXT.replace("NextGC", "Next")), Err(AnswerError::Lacks("NextGC")));
    }
}
