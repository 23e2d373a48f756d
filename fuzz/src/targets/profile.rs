//! Profiles that a target gave.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use tracer_user::export::profile_flame::parser::parse;

/// A `profile.proto`, packed as the target would: no fuzzer finds a checksum by chance.
pub fn heap(input: &[u8]) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = gzip.write_all(input).and_then(|()| gzip.finish());
    if let Ok(parsed) = packed.map(|bytes| parse(&bytes, "inuse_space"))
        && let Ok(parsed) = parsed
    {
        for sample in &parsed.samples {
            assert!(sample.stack.iter().all(|id| (*id as usize) < parsed.frames.len()));
            assert!((sample.labels as usize) < parsed.labels.len());
        }
    }
    let _ = parse(input, "inuse_space");
}
