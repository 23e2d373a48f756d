//! A batch: one request of one signal, with a number.
//!
//! Numbers count all batches of an agent, whatever their signal, and go on when it is started again: who receives them sees that none is
//! missing. They are attributes of records and spans, and a metric of their own among metrics, for an attribute of the scope or the
//! resource would make another series of every point.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        profiles::v1development::ExportProfilesServiceRequest, trace::v1::ExportTraceServiceRequest,
    },
    metrics::v1::{Gauge, Metric, NumberDataPoint, metric, number_data_point},
};
use prost014::Message;

use super::attributes::number;

/// What the number of its batch is called.
pub const BATCH: &str = "lifetrace.batch";

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Signal {
    Metrics,
    Logs,
    Traces,
    Profiles,
}

impl Signal {
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Logs, Self::Traces, Self::Profiles];

    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Profiles => "profiles",
        }
    }

    /// Behind the endpoint (OTLP/HTTP).
    pub fn path(self) -> &'static str {
        match self {
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
            Self::Traces => "/v1/traces",
            Self::Profiles => "/v1development/profiles",
        }
    }

    /// What is called (OTLP/gRPC).
    pub fn method(self) -> &'static str {
        match self {
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Profiles => "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        }
    }
}

/// A batch as it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub number: u64,
    pub signal: Signal,
    /// As protobuf has it.
    pub request: Vec<u8>,
}

/// A request without its number.
#[derive(Clone, Debug)]
pub enum Request {
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Profiles(ExportProfilesServiceRequest),
}

impl Request {
    pub fn signal(&self) -> Signal {
        match self {
            Self::Metrics(_) => Signal::Metrics,
            Self::Logs(_) => Signal::Logs,
            Self::Traces(_) => Signal::Traces,
            Self::Profiles(_) => Signal::Profiles,
        }
    }

    /// As protobuf has it, with its number.
    pub fn encode(mut self, batch: u64) -> Vec<u8> {
        let of_batch = || number(BATCH, i64::try_from(batch).unwrap_or(i64::MAX));
        match &mut self {
            Self::Metrics(request) => {
                let points = request.resource_metrics.first_mut().and_then(|resource| resource.scope_metrics.first_mut());
                points.into_iter().for_each(|scope| scope.metrics.push(gauge(batch, time_of(&scope.metrics))));
                request.encode_to_vec()
            }
            Self::Logs(request) => {
                let scopes = request.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs);
                scopes.flat_map(|scope| &mut scope.log_records).for_each(|record| record.attributes.push(of_batch()));
                request.encode_to_vec()
            }
            Self::Traces(request) => {
                let scopes = request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
                scopes.flat_map(|scope| &mut scope.spans).for_each(|span| span.attributes.push(of_batch()));
                request.encode_to_vec()
            }
            Self::Profiles(request) => {
                let scopes = request.resource_profiles.iter_mut().flat_map(|resource| &mut resource.scope_profiles);
                scopes.filter_map(|scope| scope.scope.as_mut()).for_each(|scope| scope.attributes.push(of_batch()));
                request.encode_to_vec()
            }
        }
    }
}

fn gauge(batch: u64, time_unix_nano: u64) -> Metric {
    let value = number_data_point::Value::AsInt(i64::try_from(batch).unwrap_or(i64::MAX));
    let point = NumberDataPoint { time_unix_nano, value: Some(value), ..NumberDataPoint::default() };
    Metric {
        name: BATCH.to_owned(),
        description: "The number of this batch".to_owned(),
        data: Some(metric::Data::Gauge(Gauge { data_points: vec![point] })),
        ..Metric::default()
    }
}

/// All points of a request are of one moment.
fn time_of(metrics: &[Metric]) -> u64 {
    let of = |metric: &Metric| match metric.data.as_ref()? {
        metric::Data::Gauge(gauge) => gauge.data_points.first().map(|point| point.time_unix_nano),
        metric::Data::Sum(sum) => sum.data_points.first().map(|point| point.time_unix_nano),
        metric::Data::Histogram(histogram) => histogram.data_points.first().map(|point| point.time_unix_nano),
        _ => None,
    };
    metrics.iter().find_map(of).unwrap_or_default()
}
