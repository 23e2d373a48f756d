//! `[record]` of the agent's file: whether windows are kept as recordings, where, and what for.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::super::config::{Percent, TierText, duration, human, some_duration};
use crate::{governor, recording::contract::Tier};

const BEFORE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(600)];
const AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];
const MIB: u64 = 1 << 20;

/// What the section says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub dir: PathBuf,
    /// How far a recording reaches back, and how long it goes on.
    pub before: Duration,
    pub after: Duration,
    /// Of the flight recorder, in memory.
    pub memory_bytes: usize,
    /// Of all recordings in the folder: the oldest go.
    pub keep_bytes: u64,
    /// What may be followed meanwhile of the program that is meant, and for how much of its CPU time.
    pub tier: Tier,
    pub budget: Option<f64>,
    /// At least so long after one that a trigger began, no trigger begins another.
    pub cooldown: Duration,
    pub when: When,
}

/// What begins a recording of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct When {
    /// A creation site is called a leak for so long.
    pub grows_for: Option<Duration>,
    /// One in a hundred goroutines that could run waits that long for it.
    pub delay_p99: Option<Duration>,
    /// In so many of its periods a cgroup ran out of its CPU quota.
    pub throttled: Option<f64>,
}

/// As it stands there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    dir: PathBuf,
    #[serde(default = "minute", deserialize_with = "duration")]
    before: Duration,
    #[serde(default = "minute", deserialize_with = "duration")]
    after: Duration,
    #[serde(default = "memory")]
    memory_mib: u64,
    #[serde(default = "keep")]
    keep_mib: u64,
    #[serde(default = "everything")]
    tier: TierText,
    budget: Option<Percent>,
    #[serde(default = "cooldown", deserialize_with = "duration")]
    cooldown: Duration,
    #[serde(default)]
    when: WhenText,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WhenText {
    #[serde(deserialize_with = "some_duration")]
    grows_for: Option<Duration>,
    #[serde(deserialize_with = "some_duration")]
    delay_p99: Option<Duration>,
    throttled: Option<Percent>,
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn memory() -> u64 {
    32
}

fn keep() -> u64 {
    1024
}

fn everything() -> TierText {
    TierText::T3
}

fn cooldown() -> Duration {
    Duration::from_secs(600)
}

impl Settings {
    /// What is wrong with it, if anything is.
    pub fn understand(text: Text) -> Result<Self, String> {
        let within = |what: &str, time: Duration, [least, most]: [Duration; 2]| {
            let fits = (least..=most).contains(&time);
            fits.then_some(()).ok_or_else(|| format!("record.{what}: from {} to {}", human(least), human(most)))
        };
        within("before", text.before, BEFORE)?;
        within("after", text.after, AFTER)?;
        if !text.dir.is_absolute() {
            return Err(format!("record.dir: {} is not a whole path", text.dir.display()));
        }
        if !(1..=1024).contains(&text.memory_mib) || !(1..=1 << 20).contains(&text.keep_mib) {
            return Err("record.memory_mib: from 1 to 1024; record.keep_mib: from 1 to 1048576".to_owned());
        }
        if matches!(text.budget, Some(Percent(None))) {
            return Err("record.budget: a percentage, or nothing for what is allowed anyway".to_owned());
        }
        let WhenText { grows_for, delay_p99, throttled } = text.when;
        Ok(Self {
            dir: text.dir,
            before: text.before,
            after: text.after,
            memory_bytes: usize::try_from(text.memory_mib * MIB).unwrap_or(usize::MAX),
            keep_bytes: text.keep_mib * MIB,
            tier: text.tier.into(),
            budget: text.budget.and_then(|budget| budget.0),
            cooldown: text.cooldown,
            when: When { grows_for, delay_p99, throttled: throttled.and_then(|share| share.0) },
        })
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} before and {} after", human(self.before), human(self.after))?;
        write!(f, " in {}, at {:?}", self.dir.display(), self.tier)?;
        if let Some(budget) = self.budget {
            write!(f, " for {} %", governor::percent(budget))?;
        }
        write!(f, "; when asked for")?;
        if let Some(time) = self.when.grows_for {
            write!(f, ", when goroutines grow for {}", human(time))?;
        }
        if let Some(time) = self.when.delay_p99 {
            write!(f, ", when 1 % wait {} for a CPU", human(time))?;
        }
        if let Some(share) = self.when.throttled {
            write!(f, ", when {} % of periods are throttled", governor::percent(share))?;
        }
        Ok(())
    }
}
