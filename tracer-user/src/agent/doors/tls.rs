//! TLS at the doors: a certificate of ours, and an authority whose certificates open them (mTLS).
//!
//! Who shows none may still ask whether we live and work, as an orchestrator's probes do; who shows one that is not the authority's, or is
//! over, does not get as far as asking.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
};
use serde::Deserialize;

/// A larger file is none of ours.
const MAX_BYTES: u64 = 1 << 20;

/// `[tls]` of the agent's file: paths of PEM files.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Our certificate, and those between it and its authority.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Authorities whose certificates open the doors.
    pub client_ca_file: Option<PathBuf>,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has no {what} in PEM")]
    Empty { path: PathBuf, what: &'static str },
    #[error("{path} makes no sense: {source}")]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{path} is no certificate of an authority: {source}")]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("[tls]: certificate and key do not make a server: {0}")]
    Server(rustls::Error),
    #[error("[tls]: no certificate can be checked against client_ca_file: {0}")]
    Verifier(VerifierBuilderError),
}

/// Files that were read, and what they mean.
#[derive(Clone, Debug)]
pub struct Tls {
    pub files: Files,
    pub server: Arc<ServerConfig>,
}

impl Tls {
    pub fn read(files: Files) -> Result<Self, TlsError> {
        let server = Arc::new(server(&files)?);
        Ok(Self { files, server })
    }

    /// Certificates open the doors.
    pub fn is_mutual(&self) -> bool {
        self.files.client_ca_file.is_some()
    }
}

fn server(files: &Files) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.cert_file)?;
    let key = pem(&files.key_file, "private key", PrivateKeyDer::from_pem_slice)?;
    let provider = Arc::new(ring::default_provider());
    let versions = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = versions.map_err(TlsError::Server)?;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path)?), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().map_err(TlsError::Verifier)?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(TlsError::Server)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each connection is checked against what the files say by then.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { path: path.into(), source })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = pem(path, "certificate", |text| CertificateDer::pem_slice_iter(text).collect())?;
    if all.is_empty() { Err(TlsError::Empty { path: path.into(), what: "certificate" }) } else { Ok(all) }
}

fn pem<T>(
    path: &Path,
    what: &'static str,
    parse: impl FnOnce(&[u8]) -> Result<T, rustls::pki_types::pem::Error>,
) -> Result<T, TlsError> {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    read.map_err(|source| TlsError::Unreadable { path: path.into(), source })?;
    parse(&text).map_err(|source| match source {
        rustls::pki_types::pem::Error::NoItemsFound => TlsError::Empty { path: path.into(), what },
        source => TlsError::Pem { path: path.into(), source },
    })
}
