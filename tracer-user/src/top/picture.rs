//! What there is to see at one moment, as plain data: the view draws it, and tests read it.

use std::{collections::BTreeMap, sync::Arc};

use super::names::SiteId;
use crate::{
    correlate::{SpanState, process::ImageId},
    id::{Goid, Tgid},
    recording::contract::Tier,
};

/// What is wanted besides processes and sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Focus {
    /// The goroutines of this one.
    pub site: Option<SiteId>,
    /// This one's whole story.
    pub goroutine: Option<(ImageId, Goid)>,
}

/// All that is shown.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub header: Header,
    pub processes: Vec<ProcessRow>,
    pub sites: Vec<SiteRow>,
    /// Those of the site in focus.
    pub goroutines: Vec<GoroutineRow>,
    /// The goroutine in focus; `None`: nothing is known of it any more.
    pub goroutine: Option<Detail>,
}

/// What holds for all.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// What is followed, or the command that was.
    pub target: String,
    /// Since the recording began.
    pub now_ns: u64,
    /// Go processes that run.
    pub processes: usize,
    /// Their goroutines, without the runtime's own.
    pub alive: u64,
    pub events_per_s: Option<f64>,
    /// How many of the processes are followed at each tier.
    pub tiers: BTreeMap<Tier, usize>,
    /// What may be paid, as a share of a program's CPU time.
    pub budget: Option<f64>,
    /// What was paid so far, as a share of the CPU time of those who paid; and in the newest seconds.
    pub price: Option<f64>,
    pub price_now: Option<f64>,
    pub lost: u64,
    /// `goroutine_park 12, …`; empty where nothing is lost.
    pub lost_kinds: String,
    /// Why nothing new will come.
    pub over: Option<String>,
}

/// A time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lasting {
    pub ns: u64,
    /// It is known to be no less, and may be more.
    pub at_least: bool,
}

/// What goroutines do.
#[derive(Clone, Debug, Default)]
pub struct States {
    pub running: u64,
    pub runnable: u64,
    pub syscall: u64,
    /// Running, runnable or in a system call: T2 does not tell which.
    pub awake: u64,
    pub blocked: u64,
    pub unknown: u64,
    /// The longest wait that goes on.
    pub longest: Option<Lasting>,
    /// By reason, the most frequent first.
    pub reasons: Vec<(Arc<str>, u64)>,
}

impl States {
    /// How many there are.
    pub fn alive(&self) -> u64 {
        self.running + self.runnable + self.syscall + self.awake + self.blocked + self.unknown
    }

    /// How many do not wait.
    pub fn not_blocked(&self) -> u64 {
        self.running + self.runnable + self.syscall + self.awake
    }
}

/// Whether a site's goroutines grow in number without bound.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Suspicion {
    /// Nobody can say yet.
    #[default]
    Unknown,
    None,
    /// By so many an hour.
    Grows(f64),
}

/// A Go process.
#[derive(Clone, Debug)]
pub struct ProcessRow {
    pub image: ImageId,
    pub tgid: Tgid,
    /// How it ended, if it has.
    pub ended: Option<String>,
    pub go_version: String,
    /// `None`: no probe tells of it.
    pub tier: Option<Tier>,
    pub alive: u64,
    pub born_per_s: Option<f64>,
    pub ended_per_s: Option<f64>,
    pub states: States,
    /// What its program's processes paid, as a share of their CPU time.
    pub price: Option<f64>,
    pub command: String,
}

/// The goroutines of a creation site.
#[derive(Clone, Debug)]
pub struct SiteRow {
    pub id: SiteId,
    pub image: ImageId,
    pub tgid: Tgid,
    pub name: String,
    /// The runtime's own.
    pub system: bool,
    /// What is told of it now; `None`: nothing, or its process has ended.
    pub tier: Option<Tier>,
    /// Alive now, or when the process ended.
    pub alive: u64,
    pub born_per_s: Option<f64>,
    pub ended_per_s: Option<f64>,
    /// `None`: the process has ended, or nothing tells.
    pub states: Option<States>,
    /// Median and 99th percentile of the newest delays between being able to run and running.
    pub delay_ns: Option<(u64, u64)>,
    pub suspicion: Suspicion,
}

/// A goroutine that lives.
#[derive(Clone, Debug)]
pub struct GoroutineRow {
    pub image: ImageId,
    pub goid: Goid,
    /// `None`: nothing tells.
    pub state: Option<SpanState>,
    pub since: Lasting,
    pub reason: Option<Arc<str>>,
    /// `None`: it lived before anybody looked.
    pub age: Option<Lasting>,
    pub parent: Option<Goid>,
    pub labels: Arc<str>,
}

/// All about a goroutine.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// `go:17@4711`.
    pub id: String,
    pub name: String,
    /// In order, what is known of it: a word, and what it says.
    pub facts: Vec<(&'static str, String)>,
    /// Where it is, innermost first.
    pub stack: Vec<String>,
    /// Where it was made.
    pub creation: Vec<String>,
    /// What it did, in order of time; the last one goes on.
    pub spans: Vec<SpanRow>,
}

/// A stretch of its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRow {
    /// Since the recording began.
    pub start_ns: u64,
    pub ns: u64,
    pub state: &'static str,
    pub what: String,
}
