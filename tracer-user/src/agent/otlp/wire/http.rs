//! OTLP/HTTP with protobuf.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};
use flate2::{Compression, write::GzEncoder};
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem},
};

use super::{Answer, MAX_ANSWER, said};
use crate::agent::otlp::{
    batch::Batch,
    settings::{Settings, Tls},
};

/// What an error's body is read for.
const MAX_ERROR: u64 = 4096;

/// A client that keeps its connection.
pub struct Http {
    agent: Agent,
    endpoint: String,
    headers: Vec<(String, String)>,
    gzip: bool,
}

impl Http {
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let mut config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(settings.timeout))
            .accept_encoding("identity")
            .user_agent(concat!("lifetrace/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(1);
        if settings.endpoint.starts_with("https://") {
            config = config.tls_config(tls(&settings.tls)?);
        }
        Ok(Self {
            agent: config.build().new_agent(),
            endpoint: settings.endpoint.clone(),
            headers: settings.headers.clone(),
            gzip: settings.gzip,
        })
    }

    pub fn send(&self, batch: &Batch) -> Answer {
        let mut request = self.agent.post(format!("{}{}", self.endpoint, batch.signal.path()));
        request = request.header("content-type", "application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let sent = match self.gzip.then(|| packed(&batch.request)) {
            Some(packed) => request.header("content-encoding", "gzip").send(&packed[..]),
            None => request.send(&batch.request[..]),
        };
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return Answer::later(&error),
        };
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?));
        let mut body = Vec::new();
        let limit = if status == 200 { MAX_ANSWER as u64 } else { MAX_ERROR };
        // What a failed read leaves is an answer all the same: the status has come.
        let _ = response.body_mut().as_reader().take(limit).read_to_end(&mut body);
        of_status(status, after, &body)
    }
}

fn of_status(status: u16, after: Option<Duration>, body: &[u8]) -> Answer {
    let why = || said(&format!("status {status} {}", String::from_utf8_lossy(body)));
    match status {
        200..=299 => Answer::of_response(body),
        429 | 502..=504 => Answer::Later { after, why: why() },
        _ => Answer::Refused(why()),
    }
}

/// Seconds, or a date (RFC 9110, 10.2.3); of dates nothing is taken, for the clocks of two hosts are two.
fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Nothing fails that writes into memory.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn tls(tls: &Tls) -> anyhow::Result<TlsConfig> {
    let roots = match &tls.ca {
        Some(pem) => certificates(pem).context("otlp.ca_file")?,
        None => rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect(),
    };
    let mut config = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots));
    if let Some((cert, key)) = &tls.identity {
        let chain = certificates(cert).context("otlp.cert_file")?;
        let key = PrivateKey::from_pem(key).context("otlp.key_file")?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(config.build())
}

/// What a file in PEM holds.
pub fn certificates(pem: &[u8]) -> anyhow::Result<Vec<Certificate<'static>>> {
    let mut all = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item? {
            all.push(certificate);
        }
    }
    if all.is_empty() { Err(anyhow!("it holds no certificate")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check which answers mean later, which never, and that a wait that is asked for is heard.
    #[test]
    fn statuses() {
        for (status, later) in
            [(429, true), (502, true), (503, true), (504, true), (400, false), (404, false), (500, false), (302, false)]
        {
            let answer = of_status(status, retry_after(" 7 "), b"no\r\n");
            match answer {
                Answer::Later { after, .. } => assert!(later && after == Some(Duration::from_secs(7)), "{status}"),
                Answer::Refused(why) => assert!(!later && why.contains(&status.to_string()) && !why.contains('\n'), "{why}"),
                Answer::Taken { .. } => panic!("{status}"),
            }
        }
        assert_eq!(of_status(200, None, b""), Answer::Taken { rejected: 0, said: String::new() });
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert!(certificates(b"nothing").is_err());
    }
}
