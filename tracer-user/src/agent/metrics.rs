//! The ledger as families of rows, and these as OpenMetrics and as Prometheus's messages (`otlp::metrics` sends the same). What a target named (paths, functions) is
//! escaped by the encoder, and has no control characters since before.

use std::fmt::Error;

use hyper::body::Bytes;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NativeHistogram, NativeHistogramBuckets, prometheus_protobuf::encode_to_vec, text::encode},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};

use super::{
    doors::{Form, Question},
    exponential::SCALE,
    kubernetes::pods::{Status, Trouble},
    ledger::{BOUNDS, Ledger, OTHER, Site, Times},
    record::Count,
};
use crate::recording::contract::Tier;

/// What the agent says of itself.
#[derive(Clone, Debug, Default)]
pub struct Own {
    pub budget: Option<f64>,
    /// Files that were read again and taken, and refused.
    pub reloads: [u64; 2],
    /// Windows that were kept and that were not, by why they were begun.
    pub windows: Vec<(String, Count)>,
    /// Memory and CPU time of ours.
    pub rss_bytes: Option<u64>,
    pub cpu_ns: Option<u64>,
    pub descriptors: Option<u64>,
    /// Of the pods; `None`: they are not asked for.
    pub pods: Option<Status>,
    #[cfg(feature = "segments")]
    pub segments: Option<super::segments::queue::Counts>,
    /// What its parts say of themselves.
    pub more: Vec<More>,
}

/// A row of a part of the agent.
#[derive(Clone, Debug)]
pub struct More {
    /// Without `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MoreKind,
    pub labels: Labels,
    pub value: f64,
}

/// Whether a row only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoreKind {
    Count,
    Gauge,
}

/// Tells everybody who asked, in the form that each one wants.
pub fn answer(questions: impl Iterator<Item = Question>, ledger: &Ledger, own: &Own) {
    let (mut in_text, mut in_messages) = (None::<Bytes>, None::<Bytes>);
    for question in questions {
        let told = match question.form {
            Form::Text => in_text.get_or_insert_with(|| text(ledger, own).into()),
            Form::Protobuf => in_messages.get_or_insert_with(|| messages(ledger, own).into()),
        };
        question.answer(told.clone());
    }
}

/// Everything as messages of io.prometheus.client, each behind its length.
pub fn messages(ledger: &Ledger, own: &Own) -> Vec<u8> {
    // Nothing fails that writes into memory.
    encode_to_vec(&registry(ledger, own)).unwrap_or_default()
}

fn registry(ledger: &Ledger, own: &Own) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(families(ledger, own)));
    registry
}

/// Everything as text, up to `# EOF`.
pub fn text(ledger: &Ledger, own: &Own) -> String {
    let mut text = String::new();
    // Nothing fails that writes into a string.
    let _ = encode(&mut text, &registry(ledger, own));
    text
}

/// What is no longer than this, in seconds, took no time: less than a nanosecond.
const NO_TIME: f64 = 1e-10;

pub type Labels = Vec<(&'static str, String)>;

/// A row's value.
#[derive(Debug)]
pub enum Value {
    Count(u64),
    Seconds(f64),
    Gauge(f64),
    Times(Box<Times>),
}

/// All rows of one name.
#[derive(Debug)]
pub struct Family {
    /// Without the unit, and without `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub unit: Option<Unit>,
    pub kind: MetricType,
    pub rows: Vec<(Labels, Value)>,
}

/// Everything, for whichever encoder.
#[derive(Debug)]
pub struct Families(pub Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let none = None::<&Exemplar<Labels, f64>>;
        for family in self.0.iter().filter(|family| !family.rows.is_empty()) {
            let mut metric = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
            for (labels, value) in &family.rows {
                let mut row = metric.encode_family(labels)?;
                match value {
                    Value::Count(count) => row.encode_counter(count, none)?,
                    Value::Seconds(seconds) => row.encode_counter(seconds, none)?,
                    Value::Gauge(gauge) => row.encode_gauge(gauge)?,
                    Value::Times(times) => {
                        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
                        let buckets: Vec<(f64, u64)> = bounds.zip(times.counts).collect();
                        let count = times.counts.iter().sum();
                        let sparse = times.exponential.sparse();
                        let native = NativeHistogram {
                            schema: SCALE,
                            zero_threshold: NO_TIME,
                            zero_count: times.exponential.zero,
                            negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
                            positive: NativeHistogramBuckets { spans: &sparse.spans, deltas: &sparse.deltas },
                            created: None,
                        };
                        row.encode_histogram_with_native::<Labels>(times.sum_ns as f64 / 1e9, count, &buckets, None, native)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is known and told, by name.
pub fn families(ledger: &Ledger, own: &Own) -> Families {
    let mut all = Gathered::default();
    for (subject, program) in &ledger.programs {
        let of = |more: &[(&'static str, &str)]| -> Labels {
            let labels = subject.labels().chain(more.iter().copied());
            labels.map(|(key, value)| (key, value.to_owned())).collect()
        };
        let others = (program.others != Site::default()).then_some((OTHER, &program.others));
        for (site, counts) in program.sites.iter().map(|(site, counts)| (&**site, counts)).chain(others) {
            let labels = || of(&[("site", site)]);
            all.gauge("lifetrace_goroutines", "Goroutines that live, by creation site", labels(), counts.alive as f64);
            all.count("lifetrace_goroutines_born", "Goroutines made, as far as births were followed", labels(), counts.born);
            all.count("lifetrace_goroutines_ended", "Goroutines that exited or were found to be gone", labels(), counts.ended);
            if let Some(rate) = counts.grows {
                let help = "By so many an hour the goroutines of a creation site grow without bound: the sign of a leak";
                all.gauge("lifetrace_goroutines_growth_per_hour", help, labels(), rate);
            }
        }
        for (state, count) in &program.states {
            let help = "Goroutines by what they do; awake: not blocked, no more is known (T2)";
            all.gauge("lifetrace_goroutines_by_state", help, of(&[("state", state)]), *count as f64);
        }
        for (reason, ns) in &program.blocked_ns {
            all.seconds("lifetrace_blocked", "Time that goroutines waited, counted as waits end", of(&[("reason", reason)]), *ns);
        }
        all.times("lifetrace_runnable_delay", "From being able to run to running (T3)", of(&[]), &program.delays);
        all.times("lifetrace_gc_pause", "Pauses in which the Go runtime stopped the world", of(&[]), &program.pauses);
        for (tier, count) in &program.tiers {
            let tier = tier.map_or("none", tier_name);
            all.gauge("lifetrace_processes", "Go processes that are followed, by tier", of(&[("tier", tier)]), *count as f64);
        }
        if let Some(kin) = program.kin {
            all.gauge("lifetrace_threads", "Threads of Go processes that are followed", of(&[]), kin.threads as f64);
            if let Some(zombies) = kin.zombies {
                let help = "Children of Go processes that are followed: they have ended, and their parent has not asked how";
                all.gauge("lifetrace_zombies", help, of(&[]), zombies as f64);
            }
        }
        for (how, count) in &program.exits {
            all.count("lifetrace_process_exits", "Processes that ended, by how", of(&[("how", how)]), *count);
        }
        if program.cpu_ns() > 0 {
            let help = "What probes cost the program: hits, at what a hit costs on this machine";
            all.seconds("lifetrace_probe_cost", help, of(&[]), program.paid_ns());
            all.seconds("lifetrace_followed_cpu", "CPU time of the program while it was followed", of(&[]), program.cpu_ns());
        }
    }
    for (kind, count) in ledger.lost() {
        all.count("lifetrace_lost_events", "Events that were lost, by kind", vec![("kind", kind.to_owned())], count);
    }
    all.own(ledger, own);
    Families(all.families)
}

fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::T0 => "T0",
        Tier::T1 => "T1",
        Tier::T2 => "T2",
        Tier::T3 => "T3",
    }
}

/// Rows, by the family that they belong to.
#[derive(Default)]
struct Gathered {
    families: Vec<Family>,
}

impl Gathered {
    fn row(&mut self, name: &'static str, help: &'static str, of: (Option<Unit>, MetricType), labels: Labels, value: Value) {
        let (unit, kind) = of;
        match self.families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.rows.push((labels, value)),
            None => self.families.push(Family { name, help, unit, kind, rows: vec![(labels, value)] }),
        }
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels, value: f64) {
        self.row(name, help, (None, MetricType::Gauge), labels, Value::Gauge(value));
    }

    fn count(&mut self, name: &'static str, help: &'static str, labels: Labels, value: u64) {
        self.row(name, help, (None, MetricType::Counter), labels, Value::Count(value));
    }

    fn seconds(&mut self, name: &'static str, help: &'static str, labels: Labels, ns: u64) {
        self.row(name, help, (Some(Unit::Seconds), MetricType::Counter), labels, Value::Seconds(ns as f64 / 1e9));
    }

    /// Where there are any.
    fn times(&mut self, name: &'static str, help: &'static str, labels: Labels, times: &Times) {
        if *times != Times::default() {
            self.row(name, help, (Some(Unit::Seconds), MetricType::Histogram), labels, Value::Times(Box::new(times.clone())));
        }
    }

    fn own(&mut self, ledger: &Ledger, own: &Own) {
        if let Some(budget) = own.budget {
            self.gauge("lifetrace_budget_ratio", "The most that probes may cost a program, of its CPU time", Vec::new(), budget);
        }
        self.count("lifetrace_agent_recordings", "Times that the following was begun anew", Vec::new(), ledger.recordings);
        for (result, count) in ["taken", "refused"].into_iter().zip(own.reloads) {
            let help = "Times that the file was read again, by what became of it";
            self.count("lifetrace_agent_reloads", help, vec![("result", result.to_owned())], count);
        }
        for (why, Count { kept, failed }) in &own.windows {
            for (result, count) in [("kept", *kept), ("failed", *failed)] {
                let labels = vec![("why", why.clone()), ("result", result.to_owned())];
                self.count("lifetrace_agent_windows", "Windows kept as recordings, by why they were begun", labels, count);
            }
        }
        if let Some(bytes) = own.rss_bytes {
            let of = (Some(Unit::Bytes), MetricType::Gauge);
            self.row("process_resident_memory", "The agent's memory", of, Vec::new(), Value::Gauge(bytes as f64));
        }
        if let Some(ns) = own.cpu_ns {
            self.seconds("process_cpu", "The agent's CPU time", Vec::new(), ns);
        }
        if let Some(descriptors) = own.descriptors {
            self.gauge("process_open_fds", "The agent's descriptors", Vec::new(), descriptors as f64);
        }
        own.pods.iter().for_each(|pods| self.pods(pods));
        #[cfg(feature = "segments")]
        if let Some(counts) = &own.segments {
            self.segments(counts);
        }
        for More { name, help, kind, labels, value } in own.more.iter().cloned() {
            match kind {
                MoreKind::Count => self.count(name, help, labels, value as u64),
                MoreKind::Gauge => self.gauge(name, help, labels, value),
            }
        }
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.gauge("lifetrace_agent_info", "Which lifetrace this is", version, 1.0);
    }

    #[cfg(feature = "segments")]
    fn segments(&mut self, counts: &super::segments::queue::Counts) {
        let results =
            [("written", counts.written), ("uploaded", counts.uploaded), ("dropped", counts.dropped), ("failed", counts.failed)];
        for (result, count) in results {
            let help = "Segments, by what became of them: dropped while they waited, failed to be made";
            self.count("lifetrace_agent_segments", help, vec![("result", result.to_owned())], count);
        }
        let (bytes, counter) = (Some(Unit::Bytes), MetricType::Counter);
        let help = "Bytes of segments that arrived";
        let sent = Value::Count(counts.uploaded_bytes);
        self.row("lifetrace_agent_segments_uploaded", help, (bytes.clone(), counter), Vec::new(), sent);
        let help = "Times that the store did not take a file; each is tried again";
        self.count("lifetrace_agent_segment_upload_failures", help, Vec::new(), counts.refused);
        for (cut, count) in &counts.cut {
            let help = "Recordings of which the spool has only the beginning, by why";
            self.count("lifetrace_agent_spool_cut", help, vec![("reason", cut.name().to_owned())], *count);
        }
        let waiting = Value::Gauge(counts.waiting_bytes as f64);
        self.row("lifetrace_agent_spool", "Recordings that wait in the spool", (bytes, MetricType::Gauge), Vec::new(), waiting);
        let help = "How many recordings wait in the spool";
        self.gauge("lifetrace_agent_spool_recordings", help, Vec::new(), counts.waiting as f64);
    }
}

impl Gathered {
    fn pods(&mut self, pods: &Status) {
        let up = if pods.up { 1.0 } else { 0.0 };
        self.gauge("lifetrace_kubernetes_up", "Whether the API server answered when it was last asked for pods", Vec::new(), up);
        if let Some(heard) = pods.heard {
            let (help, of) = ("Since anything was heard of pods: they are no older", (Some(Unit::Seconds), MetricType::Gauge));
            self.row("lifetrace_kubernetes_age", help, of, Vec::new(), Value::Gauge(heard.as_secs_f64()));
        }
        self.gauge("lifetrace_kubernetes_pods", "Pods of this node that are known", Vec::new(), pods.pods as f64);
        for ((_, kind), count) in Trouble::ALL.into_iter().zip(pods.errors) {
            let help = "What went wrong with the API server, by kind";
            self.count("lifetrace_kubernetes_errors", help, vec![("kind", kind.to_owned())], count);
        }
        for (what, count) in [("nonsense", pods.nonsense), ("no_room", pods.left_out)] {
            let help = "Pods, containers and annotations of pods that were left out, by why";
            self.count("lifetrace_kubernetes_left_out", help, vec![("why", what.to_owned())], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ledger::{Limits, Program};

    /// Check that whatever a program calls its files and functions stays inside its label.
    #[test]
    fn hostile_names() {
        let mut ledger = Ledger::new(Limits { programs: 10, sites: 10 });
        let mut program = Program::default();
        let site = Site { born: 3, ended: 1, alive: 2, grows: Some(7.5) };
        program.sites.insert("a\"} 1\nevil{x=\"\\".into(), site);
        program.exits.insert("exit 1".into(), 2);
        ledger.programs.insert("/tmp/\"\\</script>".into(), program);
        let text = text(&ledger, &Own { budget: Some(0.01), ..Own::default() });
        let expected = "lifetrace_goroutines{program=\"/tmp/\\\"\\\\</script>\",site=\"a\\\"} 1\\nevil{x=\\\"\\\\\"} 2.0\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("lifetrace_")), "{text}");
        assert!(text.contains("lifetrace_process_exits_total{program=\"/tmp/\\\"\\\\</script>\",how=\"exit 1\"} 2\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    /// Check that a histogram's classes add up, and that what never was has no row.
    #[test]
    fn times() {
        let mut ledger = Ledger::new(Limits { programs: 10, sites: 10 });
        let mut program = Program::default();
        program.pauses.counts[0] = 2;
        program.pauses.counts[16] = 1;
        program.pauses.sum_ns = 1_500_000_000;
        ledger.programs.insert("/a".into(), program);
        let text = text(&ledger, &Own::default());
        for row in [
            "lifetrace_gc_pause_seconds_sum{program=\"/a\"} 1.5\n",
            "lifetrace_gc_pause_seconds_count{program=\"/a\"} 3\n",
            "lifetrace_gc_pause_seconds_bucket{le=\"1.0\",program=\"/a\"} 2\n",
            "lifetrace_gc_pause_seconds_bucket{le=\"+Inf\",program=\"/a\"} 3\n",
        ] {
            assert!(text.contains(row), "{row}{text}");
        }
        assert!(!text.contains("runnable_delay") && !text.contains("lost_events"), "{text}");
    }
}
