//! What is drawn, packed: a head as JSON and the columns behind it, gzipped, in base64. data.js unpacks it.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;

use super::{
    Page,
    drawing::{Detail, Drawing, Group, LeftOut, Process},
    flames::FlameOut,
};
use crate::{clock::KtimeNs, recording::contract::Frame};

/// Spans that are packed at most, about: they are what a page's size comes from.
const MOST_SPANS: usize = 700_000;
/// Bytes that they may take, packed; if they take more, fewer are told apart.
const MOST_BYTES: usize = 4_500_000;
/// How often that is tried.
const TRIES: u32 = 4;

/// The head of what is packed: everything but the columns.
#[derive(Serialize)]
struct Head<'h> {
    duration_ns: u64,
    zero_unix_ns: u64,
    /// Spans that are shorter are drawn as one with their neighbours.
    merged_below_ns: u64,
    left_out: LeftOut,
    states: &'h [&'static str],
    words: &'h [String],
    frames: &'h [Frame],
    stacks: &'h [Vec<u32>],
    details: &'h [Detail],
    labels: &'h [Vec<(String, String)>],
    /// What goroutines run, and the `go` statement.
    sites: &'h [(String, String)],
    processes: &'h [Process],
    groups: &'h [Group],
    /// From when to when events are missing, and of which CPUs.
    lost: Vec<(u64, u64, &'h [u16])>,
    flames: Vec<FlameOut>,
    /// Names and sizes.
    columns: Vec<(&'static str, usize)>,
}

/// Everything that is drawn, packed: gzip in base64. Within: the head's size in four bytes, the head as JSON, the columns.
pub fn packed(page: &Page<'_>) -> io::Result<String> {
    let mut packed = String::new();
    for half in 0..TRIES {
        packed = packed_with(page, MOST_SPANS >> half)?;
        if packed.len() <= MOST_BYTES {
            break;
        }
    }
    Ok(packed)
}

fn packed_with(page: &Page<'_>, most_spans: usize) -> io::Result<String> {
    let mut drawing = Drawing::new(page.timeline, most_spans);
    drawing.everything(page);
    let flames = page.flames.named(page.replayed, &mut drawing.frames);
    let replayed = page.replayed;
    let since = |at: KtimeNs| replayed.since_zero(at);
    let columns = drawing.columns.named();
    let head = Head {
        duration_ns: replayed.duration_ns(),
        zero_unix_ns: replayed.meta.clock.wall_ns.0,
        merged_below_ns: drawing.merged_below_ns,
        left_out: drawing.left_out,
        states: drawing.states.all(),
        words: drawing.words.all(),
        frames: drawing.frames.all(),
        stacks: drawing.stacks.all(),
        details: drawing.details.all(),
        labels: drawing.labels.all(),
        sites: drawing.sites.all(),
        processes: &drawing.processes,
        groups: &drawing.groups,
        lost: page.timeline.lost().iter().map(|lost| (since(lost.from), since(lost.to), &lost.cpus[..])).collect(),
        flames,
        columns: columns.iter().map(|(name, bytes)| (*name, bytes.len())).collect(),
    };
    let head = serde_json::to_vec(&head)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&u32::try_from(head.len()).map_err(io::Error::other)?.to_le_bytes())?;
    gzip.write_all(&head)?;
    columns.iter().try_for_each(|(_, bytes)| gzip.write_all(bytes))?;
    Ok(STANDARD.encode(gzip.finish()?))
}
