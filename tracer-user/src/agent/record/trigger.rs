//! What begins a recording of itself. Pure: what was seen and the time are handed in, a cause comes out.

use std::{collections::BTreeMap, fmt, mem, sync::Arc, time::Duration};

use super::settings::When;
use crate::{
    agent::{kubernetes::subject::Subject, ledger::Ledger},
    clock::KtimeNs,
    id::Tgid,
    recording::contract::{LoadAt, Throttling},
};

/// So many goroutines must have waited for a CPU before one in a hundred says anything, and so many periods must have passed.
const TELLING_DELAYS: u64 = 1000;
const TELLING_PERIODS: u64 = 50;
/// What has not been found to grow for so long does not any more.
const LASTS_NS: u64 = 300_000_000_000;
/// Cgroups whose accounts are remembered.
const MAX_CGROUPS: usize = 4096;

/// Why a window is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    Grows,
    Delay,
    Throttled,
    Asked,
}

impl Why {
    pub const ALL: [Self; 4] = [Self::Grows, Self::Delay, Self::Throttled, Self::Asked];
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grows => "grows",
            Self::Delay => "delay",
            Self::Throttled => "throttled",
            Self::Asked => "asked",
        })
    }
}

/// A window is to be kept, of this program if it is of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub why: Why,
    pub program: Option<Arc<str>>,
}

/// Since when something grows, and when that was found last.
struct Growth {
    since: KtimeNs,
    found: KtimeNs,
}

/// Waits for a CPU, and those that were longer than a time.
#[derive(Clone, Copy, Default)]
struct Delays {
    all: u64,
    longer: u64,
}

/// Looks for causes.
#[derive(Default)]
pub struct Triggers {
    /// Since when a creation site of each program grows.
    growing: BTreeMap<Subject, Growth>,
    delays: BTreeMap<Subject, Delays>,
    /// How long a wait must be to count among them, ns.
    delay_wanted: Option<u64>,
    cpu: BTreeMap<String, Throttling>,
    /// Somebody in a cgroup that was throttled.
    throttled: Option<Tgid>,
}

impl Triggers {
    /// Takes what the ledger says now. `of`: which program a process runs. Without `may_begin` there is no cause, and what grows or is
    /// throttled stays one.
    pub fn look(
        &mut self,
        when: &When,
        (ledger, now): (&Ledger, KtimeNs),
        may_begin: bool,
        of: impl Fn(Tgid) -> Option<Arc<str>>,
    ) -> Option<Cause> {
        self.follow_growth(ledger, now);
        let delay = self.delay(when.delay_p99, ledger).map(|program| Cause { why: Why::Delay, program: Some(program) });
        if !may_begin {
            return None;
        }
        let grows = self.grows(when.grows_for, now).map(|program| Cause { why: Why::Grows, program: Some(program) });
        let throttled = || self.throttled.take().map(|tgid| Cause { why: Why::Throttled, program: of(tgid) });
        grows.or(delay).or_else(throttled)
    }

    /// A verdict is found again a while after a recording has begun: until then the last one's holds.
    fn follow_growth(&mut self, ledger: &Ledger, now: KtimeNs) {
        for (name, program) in &ledger.programs {
            if program.sites.values().chain([&program.others]).any(|site| site.grows.is_some()) {
                self.growing.entry(name.clone()).or_insert(Growth { since: now, found: now }).found = now;
            }
        }
        self.growing.retain(|_, growth| now.since(growth.found) < LASTS_NS);
    }

    fn grows(&mut self, wanted: Option<Duration>, now: KtimeNs) -> Option<Arc<str>> {
        let wanted = u64::try_from(wanted?.as_nanos()).unwrap_or(u64::MAX);
        let long = |growth: &Growth| growth.found == now && now.since(growth.since) >= wanted;
        let (name, growth) = self.growing.iter_mut().find(|(_, growth)| long(growth))?;
        // It has to grow for as long again.
        growth.since = now;
        Some(Arc::clone(&name.program))
    }

    fn delay(&mut self, wanted: Option<Duration>, ledger: &Ledger) -> Option<Arc<str>> {
        let wanted = wanted.map(|wanted| u64::try_from(wanted.as_nanos()).unwrap_or(u64::MAX));
        // What was before anybody asked for it, or for another time, is not counted.
        let begins = mem::replace(&mut self.delay_wanted, wanted) != wanted;
        let Some(wanted) = wanted else {
            self.delays.clear();
            return None;
        };
        self.delays.retain(|name, _| ledger.programs.contains_key(name));
        let mut cause = None;
        for (name, program) in &ledger.programs {
            let delays = Delays { all: program.delays.count(), longer: program.delays.exponential.longer_than(wanted) };
            let before = self.delays.entry(name.clone()).or_default();
            if begins {
                *before = delays;
            }
            let all = delays.all.saturating_sub(before.all);
            if all < TELLING_DELAYS {
                continue;
            }
            let longer = delays.longer.saturating_sub(before.longer);
            *before = delays;
            if longer.saturating_mul(100) >= all {
                cause = Some(Arc::clone(&name.program));
            }
        }
        cause
    }

    /// Takes what cgroups had to bear.
    pub fn bear(&mut self, when: &When, load: &LoadAt) {
        let Some(wanted) = when.throttled else { return };
        if self.cpu.len() > MAX_CGROUPS {
            self.cpu.clear();
        }
        for cgroup in &load.cgroups {
            let (Some(path), Some(now)) = (&cgroup.cpu_path, cgroup.cpu) else { continue };
            let before = self.cpu.entry(path.clone()).or_insert(now);
            let periods = now.periods.saturating_sub(before.periods);
            if periods < TELLING_PERIODS {
                continue;
            }
            let throttled = now.throttled_periods.saturating_sub(before.throttled_periods);
            *before = now;
            if throttled as f64 >= wanted * periods as f64 && throttled > 0 {
                self.throttled = cgroup.tgids.first().copied();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::ledger::{Limits, Program, Site},
        recording::contract::CgroupLoad,
    };

    const S: u64 = 1_000_000_000;

    fn ledger(program: Program) -> Ledger {
        let mut ledger = Ledger::new(Limits { programs: 10, sites: 10 });
        ledger.programs.insert("/app".into(), program);
        ledger
    }

    fn look(triggers: &mut Triggers, when: When, ledger: &Ledger, s: u64) -> Option<Cause> {
        triggers.look(&when, (ledger, KtimeNs(s * S)), true, |tgid| (tgid == Tgid(7)).then(|| "/seven".into()))
    }

    /// Check that what grows for long enough is a cause once, though it is not found for a while in between, and that what was not found
    /// for long begins anew.
    #[test]
    fn growth() {
        let when = When { grows_for: Some(Duration::from_secs(600)), ..When::default() };
        let grown = |grows| {
            let mut program = Program::default();
            program.sites.insert("a".into(), Site { grows, ..Site::default() });
            ledger(program)
        };
        let mut triggers = Triggers::default();
        let cause = Some(Cause { why: Why::Grows, program: Some("/app".into()) });
        for (s, grows, expected) in [
            (0, Some(5.0), None),
            (590, Some(5.0), None),
            (600, Some(5.0), cause.clone()),
            (610, Some(5.0), None),
            (900, Some(5.0), None),
            (1190, None, None),
            (1200, Some(5.0), cause.clone()),
            (1490, None, None),
            (1501, Some(5.0), None),
            (1801, None, None),
            (1802, Some(5.0), None),
            (2101, Some(5.0), None),
            (2402, Some(5.0), cause),
        ] {
            assert_eq!(look(&mut triggers, when, &grown(grows), s), expected, "{s}");
        }
        assert_eq!(look(&mut Triggers::default(), When::default(), &grown(Some(5.0)), 9999), None);
    }

    /// Check that one in a hundred that waited long is a cause, once for each thousand, and that fewer are none.
    #[test]
    fn delays() {
        let when = When { delay_p99: Some(Duration::from_millis(10)), ..When::default() };
        let waited = |short: u64, long: u64| {
            let mut program = Program::default();
            (0..short).for_each(|_| program.delays.record(9_000_000));
            (0..long).for_each(|_| program.delays.record(12_000_000));
            ledger(program)
        };
        let mut triggers = Triggers::default();
        assert_eq!(look(&mut triggers, when, &ledger(Program::default()), 0), None, "nothing");
        assert_eq!(look(&mut triggers, when, &waited(100, 100), 0), None, "too few");
        assert_eq!(look(&mut triggers, when, &waited(10_000, 99), 1), None, "one in a hundred and two");
        let cause = Some(Cause { why: Why::Delay, program: Some("/app".into()) });
        assert_eq!(look(&mut triggers, when, &waited(19_900, 199), 2), cause);
        assert_eq!(look(&mut triggers, when, &waited(19_900, 199), 3), None, "nothing since");
        // What was before it was asked for is not counted, whatever was asked for before.
        for when in [When::default(), when, When { delay_p99: Some(Duration::from_millis(8)), ..when }] {
            assert_eq!(look(&mut triggers, when, &waited(30_000, 3000), 4), None, "{when:?}");
        }
    }

    /// Check that a cgroup that runs out of its quota in enough periods is a cause, of the program that somebody in it runs.
    #[test]
    fn throttling() {
        let when = When { throttled: Some(0.25), ..When::default() };
        let at = |periods, throttled_periods| {
            let cpu = Throttling { periods, throttled_periods, ..Throttling::default() };
            let cgroup =
                CgroupLoad { cpu_path: Some("/a".into()), cpu: Some(cpu), tgids: vec![Tgid(7)], ..CgroupLoad::default() };
            LoadAt { at: KtimeNs(0), cgroups: vec![cgroup] }
        };
        let (mut triggers, nobody) = (Triggers::default(), ledger(Program::default()));
        for (periods, throttled, expected) in [
            (1000, 900, None),
            (1040, 905, None),
            (1100, 920, None),
            (1200, 944, None),
            (1300, 969, Some(Cause { why: Why::Throttled, program: Some("/seven".into()) })),
        ] {
            triggers.bear(&when, &at(periods, throttled));
            assert_eq!(look(&mut triggers, when, &nobody, 0), expected, "{periods}");
        }
    }
}
