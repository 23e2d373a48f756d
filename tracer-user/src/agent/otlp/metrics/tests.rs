use opentelemetry_proto::tonic::common::v1::any_value;

use super::*;
use crate::agent::{
    kubernetes::Places,
    ledger::{Ledger, Limits, Program, Site},
    metrics::{self, Own},
};

fn ledger(programs: usize, sites: usize) -> Ledger {
    let mut ledger = Ledger::new(Limits { programs: 1000, sites: 1000 });
    for program in 0..programs {
        let mut all = Program::default();
        for site in 0..sites {
            all.sites.insert(format!("site {site}").into(), Site { born: 7, ended: 2, alive: 5, grows: None });
        }
        all.pauses.counts[3] = 2;
        all.pauses.sum_ns = 500_000;
        ledger.programs.insert(format!("/srv/app{program}").as_str().into(), all);
    }
    ledger
}

fn round(ledger: &Ledger, starts: &mut Starts, now: u64) -> Vec<ExportMetricsServiceRequest> {
    let families = metrics::families(ledger, &Own::default());
    let of = |request| match request {
        Request::Metrics(request) => request,
        _ => panic!("no metrics"),
    };
    requests(&families, &Host::new("n1", Places::default()), starts, WallTime(now)).into_iter().map(of).collect()
}

fn find(requests: &[ExportMetricsServiceRequest], name: &str) -> Vec<Data> {
    let resources = requests.iter().flat_map(|request| &request.resource_metrics);
    let metrics = resources.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
    metrics.filter(|metric| metric.name == name).filter_map(|metric| metric.data.clone()).collect()
}

fn sums(requests: &[ExportMetricsServiceRequest], name: &str) -> Vec<NumberDataPoint> {
    let points = |data| match data {
        Data::Sum(sum) if sum.is_monotonic && sum.aggregation_temporality == 2 => sum.data_points,
        Data::Gauge(gauge) => gauge.data_points,
        other => panic!("{other:?}"),
    };
    find(requests, name).into_iter().flat_map(points).collect()
}

/// Check names, kinds, units and resources of the agent's figures.
#[test]
fn as_otlp() {
    let mut starts = Starts::new(WallTime(100));
    let [request] = &round(&ledger(1, 1), &mut starts, 200)[..] else { panic!("one is enough") };
    let all = std::slice::from_ref(request);
    let born = &sums(all, "lifetrace.goroutines_born")[0];
    assert_eq!(born.value, Some(number_data_point::Value::AsInt(7)));
    assert_eq!((born.start_time_unix_nano, born.time_unix_nano), (100, 200));
    let keys: Vec<&str> = born.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(keys, ["program", "site"]);
    assert_eq!(sums(all, "lifetrace.goroutines")[0].start_time_unix_nano, 0, "a gauge");
    let [Data::Histogram(pauses)] = &find(all, "lifetrace.gc_pause")[..] else { panic!("no histogram") };
    let point = &pauses.data_points[0];
    assert_eq!((point.count, point.sum, point.bucket_counts[3]), (2, Some(0.0005), 2));
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    let units: Vec<&str> =
        request.resource_metrics[0].scope_metrics[0].metrics.iter().map(|metric| metric.unit.as_str()).collect();
    assert!(units.contains(&"s"), "{units:?}");
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    let service = resource.attributes.iter().find(|pair| pair.key == "service.name").and_then(|pair| pair.value.clone()?.value);
    assert_eq!(service, Some(any_value::Value::StringValue("app0".into())));
    assert!(find(all, "lifetrace.agent_recordings").len() == 1, "the agent's own");
}

/// Check that a sum that fell, or is new, begins after the last round, and that a clock that is set back makes no series end before its
/// beginning.
#[test]
fn starts() {
    let mut starts = Starts::new(WallTime(100));
    let mut ledger = ledger(1, 1);
    let start = |requests: &[ExportMetricsServiceRequest]| {
        sums(requests, "lifetrace.goroutines_born")
            .iter()
            .map(|point| (point.start_time_unix_nano, point.time_unix_nano))
            .collect::<Vec<_>>()
    };
    assert_eq!(start(&round(&ledger, &mut starts, 200)), [(100, 200)]);
    assert_eq!(start(&round(&ledger, &mut starts, 300)), [(100, 300)]);
    let program = ledger.programs.values_mut().next().unwrap();
    program.sites.get_mut("site 0").unwrap().born = 1;
    program.sites.insert("site 1".into(), Site { born: 1, ..Site::default() });
    assert_eq!(start(&round(&ledger, &mut starts, 400)), [(300, 400), (300, 400)]);
    assert_eq!(start(&round(&ledger, &mut starts, 50)), [(50, 50), (50, 50)]);
    assert_eq!(starts.of.len(), 8, "no more than there are series");
}

/// Check that many series go in several requests, each bounded, none twice and none missing.
#[test]
fn parts() {
    for (programs, sites) in [(3, 900), (1, 1000), (40, 45), (1, 499)] {
        let mut starts = Starts::new(WallTime(1));
        let requests = round(&ledger(programs, sites), &mut starts, 2);
        let count = |request: &ExportMetricsServiceRequest| -> usize {
            let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            scopes.flat_map(|scope| &scope.metrics).map(points).sum()
        };
        assert!(requests.iter().all(|request| (1..=MAX_POINTS).contains(&count(request))), "{programs} {sites}");
        let per_name = |name| sums(&requests, name).len();
        assert_eq!(per_name("lifetrace.goroutines"), programs * sites);
        assert_eq!(per_name("lifetrace.goroutines_ended"), programs * sites);
        let empty = requests
            .iter()
            .flat_map(|request| &request.resource_metrics)
            .any(|resource| resource.scope_metrics[0].metrics.is_empty());
        assert!(!empty);
    }
}
