//! How a batch gets to the receiver, and what its answer means (OTLP's specification, "Failures" of gRPC and of HTTP).

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost014::Message;

use super::{
    batch::Batch,
    settings::{Protocol, Settings},
};

mod grpc;
mod http;

/// An answer that is longer is none.
const MAX_ANSWER: usize = 1 << 20;
/// Letters of what a receiver says that are told.
const MAX_SAID: usize = 200;

/// What the receiver said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has the batch; so many points, records or spans of it it does not take.
    Taken { rejected: u64, said: String },
    /// It will never take it.
    Refused(String),
    /// It may take it later, and may have told when.
    Later { after: Option<Duration>, why: String },
}

impl Answer {
    /// All four kinds of responses look alike: field 1 is a message of which field 1 is the number of those rejected, and field 2 why.
    fn of_response(bytes: &[u8]) -> Self {
        let partial = ExportLogsServiceResponse::decode(bytes).unwrap_or_default().partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_log_records).unwrap_or_default();
        Self::Taken { rejected, said: said(&partial.error_message) }
    }

    fn later(why: &dyn std::error::Error) -> Self {
        let mut text = why.to_string();
        let mut source = why.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Later { after: None, why: said(&text) }
    }
}

/// As much of a stranger's words as may be told, without control characters.
fn said(text: &str) -> String {
    crate::timeline::human::plain(text).chars().take(MAX_SAID).collect()
}

/// The way there.
pub enum Transport {
    Grpc(Box<grpc::Grpc>),
    Http(Box<http::Http>),
}

impl Transport {
    /// Connects to nobody yet. What is wrong with the certificates is said.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        Ok(match settings.protocol {
            Protocol::Grpc => Self::Grpc(Box::new(grpc::Grpc::new(settings)?)),
            Protocol::Http => Self::Http(Box::new(http::Http::new(settings)?)),
        })
    }

    /// One attempt, within the timeout.
    pub fn send(&mut self, batch: &Batch) -> Answer {
        match self {
            Self::Grpc(grpc) => grpc.send(batch),
            Self::Http(http) => http.send(batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};

    use super::*;

    /// Check that what was rejected is read whatever the signal, and that an empty answer means that all was taken.
    #[test]
    fn partial_success() {
        let partial_success = Some(ExportMetricsPartialSuccess { rejected_data_points: 3, error_message: "too\nold".into() });
        let bytes = ExportMetricsServiceResponse { partial_success }.encode_to_vec();
        let Answer::Taken { rejected: 3, said } = Answer::of_response(&bytes) else { panic!("{bytes:?}") };
        assert!(said.contains("old") && !said.contains('\n'), "{said}");
        assert_eq!(Answer::of_response(b""), Answer::Taken { rejected: 0, said: String::new() });
    }
}
