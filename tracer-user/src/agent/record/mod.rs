//! Windows that are kept: recordings of a while, cut out of the one under way when somebody asks or something is the matter.

use std::{
    mem,
    path::PathBuf,
    sync::{Arc, mpsc::Sender},
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    flight::{Fate, Flight, Limits, Place},
    folder::Folder,
    ledger::Ledger,
};
use crate::{
    clock::ClockTie,
    governor::Care,
    id::BinaryId,
    recording::contract::{LoadAt, Meta},
    target::Order,
    top::model::Model,
};

mod settings;
mod thin;
mod trigger;

pub use settings::{Settings, Text};
pub use trigger::{Cause, Why};

use trigger::Triggers;

/// So long a window may take to be written once its recording is over.
const LAST_BLOCKS: Duration = Duration::from_secs(2);

/// What became of windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub kept: u64,
    pub failed: u64,
}

/// A window that somebody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// What is to be followed in more detail; `None`: nothing is.
    pub program: Option<String>,
    /// How long it goes on; `None`: as the file says.
    pub after: Option<Duration>,
}

/// Why none is begun.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("the agent's file has no [record]: nothing is kept")]
    Off,
    #[error("one is being recorded; ask again when that is over")]
    Busy,
    #[error("nobody runs that program, or it is not followed")]
    NoProgram,
    #[error("{0}")]
    Folder(String),
}

/// All windows of an agent.
#[derive(Default)]
pub struct Windows {
    settings: Option<Settings>,
    node: String,
    triggers: Triggers,
    /// That of a window under way: why, and what is followed in more detail for it.
    current: Option<(Why, Vec<BinaryId>)>,
    /// One of a recording that is over, while it is being written.
    late: Option<(Why, Flight)>,
    /// When a trigger began one.
    triggered: Option<Instant>,
    counts: [Count; Why::ALL.len()],
}

impl Windows {
    pub fn new(settings: Option<Settings>, node: String) -> Self {
        Self { settings, node, ..Self::default() }
    }

    /// The same with another file; what was counted stays.
    pub fn reload(&mut self, settings: Option<Settings>, node: String) {
        let triggers = mem::take(&mut self.triggers);
        // In another folder it stands in nobody's way, however long it takes.
        let dir = |settings: &Option<Settings>| settings.as_ref().map(|settings| settings.dir.clone());
        let late = self.late.take().filter(|_| dir(&self.settings) == dir(&settings));
        *self = Self { counts: self.counts, triggered: self.triggered, triggers, late, ..Self::new(settings, node) };
    }

    /// The flight recorder of a recording that begins.
    pub fn flight(&mut self, meta: &Meta) -> Option<Flight> {
        // Orders were to one that is over.
        self.current = None;
        let Settings { before, memory_bytes, .. } = *self.settings.as_ref()?;
        Some(Flight::new(meta.clone(), Limits { before, bytes: memory_bytes }))
    }

    /// Takes what cgroups had to bear.
    pub fn bear(&mut self, load: &LoadAt) {
        if let Some(settings) = &self.settings {
            self.triggers.bear(&settings.when, load);
        }
    }

    /// Looks whether there is a cause.
    pub fn look(&mut self, flight: &Flight, ledger: &Ledger, model: &Model, orders: &Sender<Order>) {
        let Some(settings) = &self.settings else { return };
        let rests = self.triggered.is_some_and(|at| at.elapsed() < settings.cooldown);
        let may_begin = !rests && self.current.is_none() && self.late.is_none();
        let of = |tgid| model.program_of_process(tgid);
        let Some(cause) = self.triggers.look(&settings.when, (ledger, model.now()), may_begin, of) else { return };
        self.triggered = Some(Instant::now());
        if let Err(refusal) = self.begin(&cause, None, flight, model, orders) {
            self.count(&cause.why, false);
            tracing::warn!("no recording ({}): {refusal}", cause.why);
        }
    }

    /// Begins one that somebody asked for; what it will be called.
    pub fn wish(
        &mut self,
        wish: Wish,
        flight: Option<&Flight>,
        model: &Model,
        orders: &Sender<Order>,
    ) -> Result<PathBuf, Refusal> {
        let flight = flight.ok_or(Refusal::Off)?;
        let cause = Cause { why: Why::Asked, program: wish.program.map(Arc::from) };
        self.begin(&cause, wish.after, flight, model, orders)
    }

    fn begin(
        &mut self,
        cause: &Cause,
        after: Option<Duration>,
        flight: &Flight,
        model: &Model,
        orders: &Sender<Order>,
    ) -> Result<PathBuf, Refusal> {
        let settings = self.settings.as_ref().ok_or(Refusal::Off)?;
        if self.late.is_some() {
            return Err(Refusal::Busy);
        }
        let binaries = cause.program.as_ref().map_or_else(Vec::new, |program| model.binaries_of(program));
        if cause.why == Why::Asked && cause.program.is_some() && binaries.is_empty() {
            return Err(Refusal::NoProgram);
        }
        let refused = |error: anyhow::Error| Refusal::Folder(format!("{error:#}"));
        let folder = Folder::open(&settings.dir).map_err(|error| refused(error.into()))?;
        let path = settings.dir.join(self.name(cause));
        let keep_bytes = settings.keep_bytes;
        let first = Box::new(move || {
            if let Err(error) = thin::thin(&folder, keep_bytes) {
                tracing::warn!(%error, "older recordings cannot be removed");
            }
        });
        let place = Place { path: path.clone(), most_bytes: keep_bytes, first };
        let kept = flight.cut(place, after.unwrap_or(settings.after), ClockTie::now()).ok_or(Refusal::Busy)?;
        let care = Some(Care { tier: settings.tier, budget: settings.budget });
        for &binary in &binaries {
            // Who would obey may just have ended.
            let _ = orders.send(Order { binary, care });
        }
        tracing::info!(
            "recording {} from {} before now ({})",
            path.display(),
            super::config::human(whole(kept.before)),
            cause.why
        );
        self.current = Some((cause.why.clone(), binaries));
        Ok(path)
    }

    /// Ends what was begun for a window once that is over, whatever the disk still does.
    pub fn tick(&mut self, flight: Option<&Flight>, orders: &Sender<Order>) {
        if let Some((why, flight)) = self.late.take() {
            match flight.over() {
                Some(fate) => self.conclude(&why, fate),
                None => self.late = Some((why, flight)),
            }
        }
        let Some(flight) = flight else { return };
        if let Some((_, binaries)) = &mut self.current
            && !flight.goes_on()
        {
            for binary in mem::take(binaries) {
                let _ = orders.send(Order { binary, care: None });
            }
        }
        let Some(fate) = flight.over() else { return };
        let Some((why, _)) = self.current.take() else { return };
        self.conclude(&why, fate);
    }

    fn conclude(&mut self, why: &Why, fate: Fate) {
        self.count(why, fate.written.is_ok());
        match fate.written {
            Ok(bytes) if fate.whole => tracing::info!("{} is there: {bytes} bytes", fate.path.display()),
            Ok(_) => tracing::warn!("{} is there, but for its end: the disk was too slow", fate.path.display()),
            Err(error) => tracing::warn!("a recording is lost: {:#}", anyhow::Error::from(error)),
        }
    }

    /// The recording is over, and a window with it: gives it a moment to be written. One that takes longer goes on beside the next recording.
    pub fn end(&mut self, flight: &Flight, orders: &Sender<Order>) {
        let end = Instant::now() + LAST_BLOCKS;
        while self.current.is_some() && Instant::now() < end {
            self.tick(Some(flight), orders);
            thread::sleep(Duration::from_millis(10));
        }
        if let Some((why, _)) = self.current.take() {
            tracing::warn!("a recording ({why}) is not written yet {} after its end", super::config::human(LAST_BLOCKS));
            self.late = Some((why, flight.clone()));
        }
    }

    /// What became of them, by why they were begun.
    pub fn counts(&self) -> impl Iterator<Item = (Why, Count)> {
        Why::ALL.into_iter().zip(self.counts)
    }

    fn count(&mut self, why: &Why, kept: bool) {
        let Some(place) = Why::ALL.iter().position(|other| other == why) else { return };
        let Count { kept: ok, failed } = &mut self.counts[place];
        *(if kept { ok } else { failed }) += 1;
    }

    /// `n1-2026-11-29T20-15-00Z-grows-app.lifetrace`: whatever a program is called, nothing in it means anything to a file system.
    fn name(&self, cause: &Cause) -> String {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(':', "-");
        let plain = |letter: char| if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_') { letter } else { '-' };
        let of = cause.program.as_ref().and_then(|program| program.rsplit('/').next());
        let of: String = of.map_or_else(String::new, |name| format!("-{}", name.chars().take(40).map(plain).collect::<String>()));
        format!("{}-{time}-{}{of}.{}", self.node, cause.why, thin::ENDING)
    }
}

fn whole(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}
