//! OTLP/gRPC. Batches are protobuf already, so they go as bytes, whatever their signal.

use std::{str::FromStr, time::Duration};

use anyhow::Context;
use prost014::{
    Message,
    bytes::{Buf, BufMut, Bytes},
};
use tokio::{runtime::Runtime, time::timeout};
use tonic::{
    Code, Request, Status,
    client::Grpc as Client,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{Answer, MAX_ANSWER, http::certificates, said};
use crate::agent::otlp::{batch::Batch, settings::Settings};

/// What says how long to wait, among the details of a status.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// A client with a runtime of its own: the thread that sends waits for it.
pub struct Grpc {
    runtime: Runtime,
    channel: Channel,
    headers: MetadataMap,
    gzip: bool,
    timeout: Duration,
}

impl Grpc {
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut endpoint = Endpoint::from_shared(settings.endpoint.clone())?
            .user_agent(concat!("lifetrace/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(settings.timeout)
            .timeout(settings.timeout);
        if settings.endpoint.starts_with("https://") {
            let mut tls = match &settings.tls.ca {
                Some(pem) => {
                    // An empty file would mean that nobody is trusted, and nobody would be told why.
                    certificates(pem).context("otlp.ca_file")?;
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
                }
                None => ClientTlsConfig::new().with_native_roots(),
            };
            if let Some((cert, key)) = &settings.tls.identity {
                tls = tls.identity(Identity::from_pem(cert, key));
            }
            endpoint = endpoint.tls_config(tls)?;
        }
        let mut headers = MetadataMap::new();
        for (name, value) in &settings.headers {
            headers.insert(MetadataKey::from_str(name)?, MetadataValue::try_from(value.as_str())?);
        }
        // Its tasks belong to the runtime in which it is made.
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok(Self { runtime, channel, headers, gzip: settings.gzip, timeout: settings.timeout })
    }

    pub fn send(&self, batch: &Batch) -> Answer {
        let client = Client::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        // A receiver may answer as it was asked.
        let mut client = client.accept_compressed(CompressionEncoding::Gzip);
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = Request::new(Bytes::copy_from_slice(&batch.request));
        *request.metadata_mut() = self.headers.clone();
        let method = PathAndQuery::from_static(batch.signal.method());
        let called = async {
            client.ready().await.map_err(|error| Status::from_error(error.into()))?;
            client.unary(request, method, Whole).await
        };
        match self.runtime.block_on(async { timeout(self.timeout, called).await }) {
            Ok(Ok(response)) => Answer::of_response(response.get_ref()),
            Ok(Err(status)) => of_status(&status),
            Err(_) => Answer::Later { after: None, why: format!("no answer within {:?}", self.timeout) },
        }
    }
}

fn of_status(status: &Status) -> Answer {
    let after = retry_delay(status.details());
    let later = match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => true,
        // Only if the receiver says that it recovers.
        Code::ResourceExhausted => after.is_some(),
        // What never reached the receiver comes as this.
        Code::Unknown => std::error::Error::source(status).is_some(),
        _ => false,
    };
    let mut why = format!("{:?}: {}", status.code(), status.message());
    if let Some(cause) = std::error::Error::source(status) {
        why = format!("{why}: {cause}");
    }
    if later { Answer::Later { after, why: said(&why) } } else { Answer::Refused(said(&why)) }
}

/// `google.rpc.Status` of the header `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "::prost014")]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "::prost014")]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "::prost014")]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "::prost014")]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.retry_delay.unwrap_or_default();
    Some(Duration::new(
        u64::try_from(delay.seconds).unwrap_or_default(),
        u32::try_from(delay.nanos).unwrap_or_default().min(999_999_999),
    ))
}

/// Messages as bytes, whole.
#[derive(Clone, Copy)]
struct Whole;

impl Codec for Whole {
    type Encode = Bytes;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Whole {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Whole {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(seconds: i64, nanos: i32) -> Bytes {
        let value = RetryInfo { retry_delay: Some(Delay { seconds, nanos }) }.encode_to_vec();
        let detail = Detail { type_url: RETRY_INFO.to_owned(), value };
        RpcStatus { details: vec![detail] }.encode_to_vec().into()
    }

    /// Check which statuses mean later, which never, and that a wait that is asked for is heard.
    #[test]
    fn statuses() {
        let plain = |code| of_status(&Status::new(code, "no"));
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Aborted, Code::Cancelled, Code::OutOfRange, Code::DataLoss]
        {
            assert!(matches!(plain(code), Answer::Later { after: None, .. }), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented, Code::ResourceExhausted, Code::Unknown] {
            assert!(matches!(plain(code), Answer::Refused(_)), "{code:?}");
        }
        let told = |code| of_status(&Status::with_details(code, "wait", details(3, 500_000_000)));
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let Answer::Later { after, .. } = told(code) else { panic!("{code:?}") };
            assert_eq!(after, Some(Duration::from_millis(3500)), "{code:?}");
        }
        assert_eq!(retry_delay(&details(-1, -1)), Some(Duration::ZERO));
        assert_eq!(retry_delay(b"\xff\xff"), None);
    }
}
