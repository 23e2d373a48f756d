//! A recording as one page: what a report, a timeline, flamegraphs and verdicts tell, in a file that needs nothing else.
//!
//! [`sections`] writes what is read as plain HTML; [`drawing`] ([`goroutines`] and [`others`]) and [`flames`] gather what the
//! page's script draws, [`merging`] where it is too much, [`packing`] and [`columns`] pack it.
//! The script and its style stand beside, and are put into the page as they are.

use std::io::{self, Write};

use rustc_hash::FxHashSet;

use super::{leaks::LeaksOut, report::Report, tally::Tally};
use crate::{
    correlate::{Both, replay::Replayed},
    id::{Goid, Tgid},
    leak::tally::LeakTally,
    timeline::{Collector, Timeline},
};

mod columns;
mod drawing;
mod flames;
mod goroutines;
mod merging;
mod others;
mod packing;
mod sections;

pub use flames::Flames;

/// What listens while a recording is replayed for a page.
pub type Gathered = Both<Both<Tally, LeakTally>, Both<Collector, Flames>>;

/// What a page is asked for: that section comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    Report,
    Timeline,
    Leaks,
}

/// Everything that a page tells.
pub struct Page<'a> {
    pub replayed: &'a Replayed,
    pub report: &'a Report,
    pub leaks: &'a LeaksOut,
    pub timeline: &'a Timeline<'a>,
    pub flames: &'a Flames,
    /// Goroutines that deserve a lane of their own before others.
    pub leaking: &'a FxHashSet<(Tgid, Goid)>,
    pub first: First,
}

/// Writes a page.
pub fn write(page: &Page<'_>, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let packed = packing::packed(page)?;
    out.write_all(sections::page(page, &packed).into_string().as_bytes())
}
