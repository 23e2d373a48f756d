//! Waits and lives that are too short to be told one by one: what the BPF side keeps of each goroutine, and sums of what it does not
//! tell (docs/summing.md).

use crate::assert_size;

/// Where sums are counted: two an octave, from 1 ns on.
pub const BUCKETS: usize = 64;

/// The bucket of a time. The last one holds all that is longer than 3 s.
#[inline(always)]
pub fn bucket(ns: u64) -> usize {
    let octave = 63 - (ns | 1).leading_zeros() as u64;
    let upper_half = (ns << 1) >> octave & 1;
    let index = octave << 1 | upper_half;
    if index < BUCKETS as u64 { index as usize } else { BUCKETS - 1 }
}

/// The middle of a bucket, ns: at most a quarter away from what is in it.
pub fn middle_ns(bucket: usize) -> u64 {
    let (octave, upper_half) = (bucket as u32 >> 1 & 31, bucket as u64 & 1);
    (1u64 << octave) + (((1u64 << octave) * (1 + 2 * upper_half)) >> 2)
}

/// What a sum is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct SumKey {
    pub tgid: u32,
    pub binary: u16,
    /// 1: lives, from birth to exit. 0: waits.
    pub lives: u8,
    /// Of waits: an index into the Go version's own table.
    pub wait_reason: u8,
    /// The creation site, as in [`crate::goroutine::GoroutineBirth`].
    pub gopc: u64,
    pub startpc: u64,
    /// The blocking stack; of lives, the creator's. 0 where it could not be walked.
    pub stack_id: u64,
}
assert_size!(SumKey, 32);

/// How many there were, and how long they took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Sum {
    pub count: u64,
    pub total_ns: u64,
    /// How many fell into each [`bucket`]; wraps.
    pub buckets: [u32; BUCKETS],
}
assert_size!(Sum, 272);

/// What is kept of a goroutine while it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Kept {
    /// 0: it lived before the probes were set.
    pub born_at: u64,
    pub parent_goid: u64,
    pub gopc: u64,
    pub startpc: u64,
    /// The creator's.
    pub birth_stack_id: u64,
    /// 0: it does not wait.
    pub parked_at: u64,
    pub park_stack_id: u64,
    pub lock: u64,
    /// The thread it ran on until then.
    pub park_tid: u32,
    pub binary: u16,
    pub wait_reason: u8,
    /// 1: its birth was told.
    pub told: u8,
}
assert_size!(Kept, 72);

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the middle of a bucket falls into it, and is at most a quarter away from all that does.
    #[test]
    fn buckets() {
        assert_eq!((bucket(0), bucket(1), bucket(u64::MAX)), (0, 0, BUCKETS - 1));
        let mut ns = 1u64;
        while ns < 3_000_000_000 {
            let middle = middle_ns(bucket(ns));
            if ns >= 8 {
                assert_eq!(bucket(middle), bucket(ns), "{ns}");
            }
            assert!(middle.abs_diff(ns) * 4 <= ns.max(4), "{ns}: {middle}");
            ns += ns / 7 + 1;
        }
    }
}
