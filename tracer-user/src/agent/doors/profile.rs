//! The agent's own CPU profile, for who wonders what it is doing: `go tool pprof http://…/debug/pprof/profile?seconds=5`.
//!
//! `setitimer(ITIMER_PROF)` has the kernel interrupt whichever thread uses the CPU (SIGPROF), and the signal's handler, of the crate `pprof`,
//! notes its stack. Between profiles there is no timer and no handler.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::{Response, StatusCode, body::Bytes};
use pprof::{ProfilerGuard, ProfilerGuardBuilder, protos::Message};
use tokio::{sync::Semaphore, task::spawn_blocking, time::sleep};

use super::{PLAIN, reply};

/// Samples for a second of CPU time; no divisor of what others do a hundred times a second.
const HZ: i32 = 199;
/// What Go's own server measures for if it is not told.
const USUAL: u64 = 30;
const LONGEST: u64 = 60;
/// How long naming what was seen may take.
const NAMED_WITHIN: u64 = 60;
/// Code that must not be unwound from: the unwinder itself, the loader that it asks, and what the kernel puts there.
const NOT_WITHIN: [&str; 3] = ["libgcc", "ld-linux", "vdso"];
const PROFILE: &str = "application/octet-stream";

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
enum ProfileError {
    #[error("no profile can be taken")]
    Profiler(#[from] pprof::Error),
    #[error("the profile cannot be packed")]
    Pack(#[from] io::Error),
    #[error("whoever names what was seen has panicked (a bug of lifetrace's)")]
    Naming(#[from] tokio::task::JoinError),
}

/// One profile at a time: there is one timer of a process.
pub struct Profiler(Arc<Semaphore>);

impl Default for Profiler {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Profiler {
    /// Takes a profile for as long as the query says. `waits`: by how much longer than others this answer takes.
    pub async fn answer(&self, query: Option<&str>, waits: &AtomicU64) -> Response<Full<Bytes>> {
        let Some(seconds) = seconds(query) else {
            return reply(StatusCode::BAD_REQUEST, PLAIN, format!("seconds: from 1 to {LONGEST}\n"));
        };
        let Ok(_one) = self.0.try_acquire() else {
            return reply(StatusCode::TOO_MANY_REQUESTS, PLAIN, "a profile is being taken; ask again\n");
        };
        waits.store(seconds + NAMED_WITHIN, Ordering::Relaxed);
        match take(Duration::from_secs(seconds)).await {
            Ok(profile) => reply(StatusCode::OK, PROFILE, profile),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{:#}\n", anyhow::Error::from(error))),
        }
    }
}

/// `None`: no number, or none that is allowed.
fn seconds(query: Option<&str>) -> Option<u64> {
    let asked = query.unwrap_or_default().split('&').find_map(|part| part.strip_prefix("seconds="));
    let seconds = asked.map_or(Some(USUAL), |text| text.parse().ok());
    seconds.filter(|seconds| (1..=LONGEST).contains(seconds))
}

/// Whoever asked and goes away ends it.
async fn take(time: Duration) -> Result<Vec<u8>, ProfileError> {
    let guard = ProfilerGuardBuilder::default().frequency(HZ).blocklist(&NOT_WITHIN).build()?;
    sleep(time).await;
    spawn_blocking(move || packed(&guard)).await?
}

/// As the format wants it: gzip (github.com/google/pprof, proto/profile.proto).
fn packed(guard: &ProfilerGuard<'_>) -> Result<Vec<u8>, ProfileError> {
    let profile = guard.report().build()?.pprof()?.encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&profile)?;
    Ok(gzip.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check what may be asked for.
    #[test]
    fn asked() {
        for (query, expected) in [
            (None, Some(30)),
            (Some("seconds=5"), Some(5)),
            (Some("debug=1&seconds=60"), Some(60)),
            (Some("seconds=0"), None),
            (Some("seconds=61"), None),
            (Some("seconds=-1"), None),
            (Some("seconds=18446744073709551616"), None),
            (Some("seconds="), None),
        ] {
            assert_eq!(seconds(query), expected, "{query:?}");
        }
    }
}
