//! The families of the agent's metrics as OTLP: sums since a start, gauges, histograms. A program is a resource.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    mem,
    sync::Arc,
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
        Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prometheus_client::registry::Unit;
use rustc_hash::{FxHashMap, FxHasher};

use super::{
    attributes::{scope, text},
    batch::Request,
    resource::Host,
};
use crate::{
    agent::{
        kubernetes::subject::Subject,
        ledger::{BOUNDS, Times},
        metrics::{Families, Family, Labels, Value},
    },
    clock::WallTime,
};

/// Points of one request: with the longest names that is less than the 4 MB that a receiver takes.
const MAX_POINTS: usize = 2000;

/// Since when each sum is counted.
pub struct Starts {
    began: WallTime,
    /// When the last points were made.
    last: WallTime,
    of: FxHashMap<u64, Start>,
}

#[derive(Clone, Copy)]
struct Start {
    at: WallTime,
    value: f64,
    /// It was there in the newest round.
    seen: bool,
}

impl Starts {
    pub fn new(began: WallTime) -> Self {
        Self { began, last: began, of: FxHashMap::default() }
    }

    /// A series that is new, or has fallen because it made room for another meanwhile, began after the last round.
    fn of(&mut self, name: &str, labels: &Labels, value: f64) -> WallTime {
        let mut hasher = FxHasher::default();
        (name, labels).hash(&mut hasher);
        let start = self.of.entry(hasher.finish()).or_insert(Start { at: self.last, value, seen: true });
        if value < start.value {
            start.at = self.last;
        }
        (start.value, start.seen) = (value, true);
        start.at
    }

    /// A round is over.
    fn end(&mut self, now: WallTime) {
        self.last = now.max(self.began);
        self.of.retain(|_, start| mem::take(&mut start.seen));
    }
}

/// What a program, or the agent itself (`None`), has to tell.
type Group = (Option<Subject>, Vec<Metric>);

/// As many requests as it takes.
pub fn requests(families: &Families, host: &Host, starts: &mut Starts, now: WallTime) -> Vec<Request> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: FxHashMap<[&str; 4], usize> = FxHashMap::default();
    for family in &families.0 {
        for (labels, value) in &family.rows {
            let of = |wanted| labels.iter().find(|(key, _)| *key == wanted).map_or("", |(_, value)| value.as_str());
            let names = ["program", "namespace", "pod", "container"].map(of);
            let place = *places.entry(names).or_insert_with(|| {
                let [program, namespace, pod, container] = names.map(Arc::from);
                let subject = Subject { program, namespace, pod, container };
                groups.push(((!subject.program.is_empty()).then_some(subject), Vec::new()));
                groups.len() - 1
            });
            let metrics = &mut groups[place].1;
            let name = name(family.name);
            // Rows of a family come one behind the other, but those of several programs take turns.
            if metrics.last().is_none_or(|last| last.name != name) {
                metrics.push(metric(family, name));
            }
            if let Some(metric) = metrics.last_mut() {
                push(metric, family, labels, value, starts, now);
            }
        }
    }
    starts.end(now);
    split(groups, host)
}

/// `lifetrace_goroutines_born` is `lifetrace.goroutines_born`; of what is not ours alone, the conventional name.
fn name(name: &str) -> String {
    match name {
        "process_resident_memory" => "process.memory.usage".to_owned(),
        "process_cpu" => "process.cpu.time".to_owned(),
        "process_open_fds" => "process.unix.file_descriptor.count".to_owned(),
        _ => name.replacen('_', ".", 1),
    }
}

fn metric(family: &Family, name: String) -> Metric {
    let unit = match family.unit {
        Some(Unit::Seconds) => "s",
        Some(Unit::Bytes) => "By",
        _ => "",
    };
    Metric { name, description: family.help.to_owned(), unit: unit.to_owned(), ..Metric::default() }
}

fn push(metric: &mut Metric, family: &Family, labels: &Labels, value: &Value, starts: &mut Starts, now: WallTime) {
    let attributes: Vec<KeyValue> = labels.iter().map(|(key, value)| text(key, value.clone())).collect();
    // A clock that was set back must not make a series end before it began.
    let mut since = |value: f64| starts.of(family.name, labels, value).min(now).0;
    let number = |start, value| NumberDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: start,
        time_unix_nano: now.0,
        value: Some(value),
        ..NumberDataPoint::default()
    };
    match value {
        Value::Gauge(gauge) => {
            let data = metric.data.get_or_insert_with(|| Data::Gauge(Gauge::default()));
            let Data::Gauge(Gauge { data_points }) = data else { return };
            data_points.push(number(0, number_data_point::Value::AsDouble(*gauge)));
        }
        Value::Count(_) | Value::Seconds(_) => {
            let (size, value) = match value {
                Value::Seconds(seconds) => (*seconds, number_data_point::Value::AsDouble(*seconds)),
                Value::Count(count) => {
                    (*count as f64, number_data_point::Value::AsInt(i64::try_from(*count).unwrap_or(i64::MAX)))
                }
                Value::Gauge(_) | Value::Times(_) => return,
            };
            let temporality = AggregationTemporality::Cumulative as i32;
            let sum = Sum { aggregation_temporality: temporality, is_monotonic: true, ..Sum::default() };
            let data = metric.data.get_or_insert(Data::Sum(sum));
            let Data::Sum(Sum { data_points, .. }) = data else { return };
            data_points.push(number(since(size), value));
        }
        Value::Times(times) => {
            let temporality = AggregationTemporality::Cumulative as i32;
            let histogram = Histogram { aggregation_temporality: temporality, ..Histogram::default() };
            let data = metric.data.get_or_insert(Data::Histogram(histogram));
            let Data::Histogram(Histogram { data_points, .. }) = data else { return };
            let Times { counts, sum_ns, .. } = &**times;
            let count = counts.iter().sum::<u64>();
            data_points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: since(count as f64),
                time_unix_nano: now.0,
                count,
                sum: Some(*sum_ns as f64 / 1e9),
                bucket_counts: counts.to_vec(),
                explicit_bounds: BOUNDS.to_vec(),
                ..HistogramDataPoint::default()
            });
        }
    }
}

/// Requests of at most so many points; a metric that has more is told in parts.
fn split(groups: Vec<Group>, host: &Host) -> Vec<Request> {
    let (mut requests, mut open, mut room) = (Vec::new(), Vec::new(), MAX_POINTS);
    for (program, metrics) in groups {
        let resource = program.map_or_else(|| host.agent(), |subject| host.program(&subject));
        let mut rest: VecDeque<Metric> = metrics.into();
        while !rest.is_empty() {
            let mut fitting = Vec::new();
            while room > 0
                && let Some(mut metric) = rest.pop_front()
            {
                cut(&mut metric, room).into_iter().for_each(|more| rest.push_front(more));
                room -= points(&metric);
                fitting.push(metric);
            }
            open.push(of_resource(resource.clone(), fitting));
            if room == 0 {
                requests.push(request(mem::take(&mut open)));
                room = MAX_POINTS;
            }
        }
    }
    if !open.is_empty() {
        requests.push(request(open));
    }
    requests
}

fn of_resource(resource: Resource, metrics: Vec<Metric>) -> ResourceMetrics {
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }
}

fn request(resource_metrics: Vec<ResourceMetrics>) -> Request {
    Request::Metrics(ExportMetricsServiceRequest { resource_metrics })
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    }
}

/// Leaves so many points in it; the others, if there are any, are a metric of the same name.
fn cut(metric: &mut Metric, room: usize) -> Option<Metric> {
    if points(metric) <= room {
        return None;
    }
    let mut rest = metric.clone();
    match (&mut metric.data, &mut rest.data) {
        (Some(Data::Gauge(kept)), Some(Data::Gauge(rest))) => rest.data_points = kept.data_points.split_off(room),
        (Some(Data::Sum(kept)), Some(Data::Sum(rest))) => rest.data_points = kept.data_points.split_off(room),
        (Some(Data::Histogram(kept)), Some(Data::Histogram(rest))) => rest.data_points = kept.data_points.split_off(room),
        _ => return None,
    }
    Some(rest)
}

#[cfg(test)]
mod tests;
