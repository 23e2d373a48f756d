//! Events: a creation site begins to leak or does not any more, a process has ended.

use std::{collections::BTreeMap, sync::Arc};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::KeyValue,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use rustc_hash::FxHashSet;

use super::{
    Instant,
    attributes::{number, real, scope, text, value},
    batch::{Request, Signal},
    resource::Host,
    stats::Stats,
};
use crate::{
    agent::{
        kubernetes::subject::Subject,
        ledger::{Ledger, OTHER, Program, Site},
    },
    clock::KtimeNs,
    correlate::process::{Process, ProcessId},
    signal,
    timeline::human::{count, duration},
    top::model::Model,
};

/// Records that are sent at once.
const MAX_RECORDS: usize = 1000;
/// Verdicts that are open at once.
const MAX_OPEN: usize = 1000;
/// A verdict ends once a site has not been found to grow for so long. A recording that begins takes a while to find it again.
const LASTS_NS: u64 = 600_000_000_000;

/// What was told of leaks.
#[derive(Default)]
pub struct Verdicts {
    open: BTreeMap<(Subject, Arc<str>), Open>,
}

/// A verdict that holds.
struct Open {
    since: KtimeNs,
    confirmed: KtimeNs,
}

/// A record, and who it is about.
type Told = (About, LogRecord);

#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Program(Subject),
    Process(ProcessId),
}

impl Verdicts {
    /// What has changed.
    fn renew(&mut self, ledger: &Ledger, now: &Instant) -> Vec<Told> {
        let mut told = Vec::new();
        for (program, name, site, rate) in growing(ledger) {
            let key = (program.clone(), Arc::clone(&name));
            if let Some(open) = self.open.get_mut(&key) {
                open.confirmed = now.at;
                continue;
            }
            if self.open.len() >= MAX_OPEN {
                continue;
            }
            told.push((About::Program(program.clone()), began(&name, site, rate, now)));
            self.open.insert(key, Open { since: now.at, confirmed: now.at });
        }
        self.open.retain(|(program, name), open| {
            let Some(why) = open.over(ledger.programs.get(program), name, now) else { return true };
            told.push((About::Program(program.clone()), ended(name, open, why, now)));
            false
        });
        told
    }
}

impl Open {
    /// Why it does not hold any more, if it does not.
    fn over(&self, program: Option<&Program>, name: &Arc<str>, now: &Instant) -> Option<&'static str> {
        let Some(program) = program.filter(|program| program.processes() > 0) else { return Some("no process runs it") };
        let site = if &**name == OTHER { Some(&program.others) } else { program.sites.get(name) };
        if site.is_none_or(|site| site.alive == 0) {
            return Some("none is left, or others are told in its place");
        }
        (now.at.since(self.confirmed) >= LASTS_NS).then_some("it does not grow any more")
    }
}

fn growing(ledger: &Ledger) -> impl Iterator<Item = (&Subject, Arc<str>, &Site, f64)> {
    ledger.programs.iter().flat_map(|(program, all)| {
        let others = std::iter::once((Arc::from(OTHER), &all.others));
        let named = all.sites.iter().map(|(name, site)| (Arc::clone(name), site));
        named.chain(others).filter_map(move |(name, site)| Some((program, name, site, site.grows?)))
    })
}

fn began(name: &str, site: &Site, rate: f64, now: &Instant) -> LogRecord {
    let body =
        format!("{} goroutines made by {name}, {} more an hour: they grow without bound", count(site.alive), count(rate as u64));
    let attributes = vec![
        text("lifetrace.site", name),
        number("lifetrace.goroutines", i64::try_from(site.alive).unwrap_or(i64::MAX)),
        real("lifetrace.goroutines_growth_per_hour", rate),
    ];
    record(now, now.at, "lifetrace.leak.begin", SeverityNumber::Warn, body, attributes)
}

fn ended(name: &str, open: &Open, why: &str, now: &Instant) -> LogRecord {
    let lasted_ns = now.at.since(open.since);
    let body = format!("goroutines made by {name} have grown for {}: {why}", duration(lasted_ns));
    let attributes =
        vec![text("lifetrace.site", name), text("lifetrace.why", why), real("lifetrace.lasted", lasted_ns as f64 / 1e9)];
    record(now, now.at, "lifetrace.leak.end", SeverityNumber::Info, body, attributes)
}

/// Processes of this recording whose end was told.
#[derive(Default)]
pub struct Exits {
    told: FxHashSet<ProcessId>,
}

impl Exits {
    /// A recording begins: its processes have other numbers.
    pub fn begin(&mut self) {
        self.told.clear();
    }

    fn fresh(&mut self, model: &Model, now: &Instant) -> Vec<Told> {
        let processes = model.replaying().engine().processes();
        let ended = processes.processes().filter_map(|(id, process)| Some((id, process, process.ended?)));
        let fresh = ended.filter(|(id, ..)| self.told.insert(*id));
        fresh.map(|(id, process, (at, status))| (About::Process(id), exit(process, at, status, model, now))).collect()
    }
}

fn exit(process: &Process, at: KtimeNs, status: Option<u32>, model: &Model, now: &Instant) -> LogRecord {
    let program = process.images.last().map_or_else(|| "?".into(), |image| model.program(*image));
    let tgid = process.tgid;
    let (severity, how, more) = match status {
        None => (SeverityNumber::Info, "ended".to_owned(), None),
        Some(status) if status & 0x7f != 0 => {
            let name = signal::name(status & 0x7f);
            (SeverityNumber::Error, format!("was killed by {name}"), Some(text("lifetrace.process.signal", name)))
        }
        Some(status) => {
            let code = status >> 8 & 0xff;
            let severity = if code == 0 { SeverityNumber::Info } else { SeverityNumber::Warn };
            (severity, format!("exited with code {code}"), Some(number("process.exit.code", i64::from(code))))
        }
    };
    let mut attributes = vec![number("process.pid", i64::from(tgid.0))];
    attributes.extend(process.parent.map(|parent| number("process.parent_pid", i64::from(parent.0))));
    attributes.extend(more);
    if let Some(at) = process.forked_at {
        attributes.push(text("process.creation.time", now.rfc3339(at)));
    }
    record(now, at, "lifetrace.process.exit", severity, format!("{program} ({tgid}) {how}"), attributes)
}

fn record(
    now: &Instant,
    at: KtimeNs,
    event: &str,
    severity: SeverityNumber,
    body: String,
    attributes: Vec<KeyValue>,
) -> LogRecord {
    let severity_text = match severity {
        SeverityNumber::Error => "ERROR",
        SeverityNumber::Warn => "WARN",
        _ => "INFO",
    };
    LogRecord {
        time_unix_nano: now.wall(at),
        observed_time_unix_nano: now.wall(now.at),
        severity_number: severity as i32,
        severity_text: severity_text.to_owned(),
        body: Some(value(body)),
        attributes,
        event_name: event.to_owned(),
        ..LogRecord::default()
    }
}

/// What has happened since it was last asked.
pub fn request(
    verdicts: &mut Verdicts,
    exits: &mut Exits,
    (ledger, model): (&Ledger, &Model),
    host: &Host,
    now: &Instant,
    stats: &Stats,
) -> Option<Request> {
    let mut told = verdicts.renew(ledger, now);
    told.extend(exits.fresh(model, now));
    stats.leave_out(Signal::Logs, told.len().saturating_sub(MAX_RECORDS) as u64);
    told.truncate(MAX_RECORDS);
    let mut resource_logs: Vec<(About, ResourceLogs)> = Vec::new();
    for (subject, record) in told {
        match resource_logs.last_mut().filter(|(known, _)| *known == subject) {
            Some((_, logs)) => logs.scope_logs[0].log_records.push(record),
            None => {
                let resource = match &subject {
                    About::Program(subject) => host.program(subject),
                    About::Process(id) => host.process(*id, model),
                };
                resource_logs.push((subject, of_resource(resource, record)));
            }
        }
    }
    let resource_logs: Vec<ResourceLogs> = resource_logs.into_iter().map(|(_, logs)| logs).collect();
    (!resource_logs.is_empty()).then_some(Request::Logs(ExportLogsServiceRequest { resource_logs }))
}

fn of_resource(resource: Resource, record: LogRecord) -> ResourceLogs {
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records: vec![record], ..ScopeLogs::default() }];
    ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::ledger::Limits,
        clock::{ClockTie, WallTime},
        recording::contract::Tier,
    };

    fn at(seconds: u64) -> Instant {
        let at = KtimeNs(seconds * 1_000_000_000);
        Instant { at, tie: ClockTie { ktime_ns: KtimeNs(0), wall_ns: WallTime(1_000_000_000), error_ns: 0 } }
    }

    fn ledger(site: Site) -> Ledger {
        let mut ledger = Ledger::new(Limits { programs: 10, sites: 10 });
        let mut program = Program::default();
        program.tiers.insert(Some(Tier::T1), 1);
        program.sites.insert("main.leak".into(), site);
        ledger.programs.insert("/app".into(), program);
        ledger
    }

    fn names(told: &[Told]) -> Vec<&str> {
        told.iter().map(|(_, record)| record.event_name.as_str()).collect()
    }

    /// Check that a verdict is told when it begins and when it ends, and not in between, though a new recording does not know it yet.
    #[test]
    fn begin_and_end() {
        let mut verdicts = Verdicts::default();
        let grows = ledger(Site { alive: 900, grows: Some(50.0), ..Site::default() });
        let unsure = ledger(Site { alive: 900, ..Site::default() });
        let begun = verdicts.renew(&grows, &at(10));
        assert_eq!(names(&begun), ["lifetrace.leak.begin"]);
        assert_eq!((begun[0].1.time_unix_nano, begun[0].1.severity_text.as_str()), (11_000_000_000, "WARN"));
        for second in [20, 30, 600] {
            assert!(verdicts.renew(if second == 30 { &grows } else { &unsure }, &at(second)).is_empty(), "{second}");
        }
        let over = verdicts.renew(&unsure, &at(630));
        assert_eq!(names(&over), ["lifetrace.leak.end"]);
        assert!(format!("{:?}", over[0].1.body).contains("for 10 min 20 s: it does not grow"), "{over:?}");
        assert!(verdicts.renew(&unsure, &at(640)).is_empty());
    }

    /// Check that a verdict ends at once where nobody runs the program any more, or no goroutine of the site lives.
    #[test]
    fn nobody_left() {
        let grows = ledger(Site { alive: 900, grows: Some(50.0), ..Site::default() });
        let mut gone = ledger(Site { alive: 900, ..Site::default() });
        gone.programs.values_mut().for_each(|program| program.tiers.clear());
        let none = Ledger::new(Limits { programs: 10, sites: 10 });
        for after in [gone, none, ledger(Site::default())] {
            let mut verdicts = Verdicts::default();
            verdicts.renew(&grows, &at(10));
            assert_eq!(names(&verdicts.renew(&after, &at(11))), ["lifetrace.leak.end"]);
        }
    }
}
