//! OTLP: what the agent knows goes to a receiver, as metrics, log records, spans and (experimental) profiles (docs/agent.md).
//!
//! ```text
//! ledger, model → metrics, logs, spans, profiles → sender (queue on disk → wire) → receiver
//! ```
//! The thread that follows makes requests and hands them on; whatever becomes of them, it never waits.

use std::{
    sync::Arc,
    time::{self, Duration},
};

use super::{
    ledger::Ledger,
    metrics::{More, Own, families},
};
use crate::{
    agent::kubernetes::Places,
    clock::{ClockTie, KtimeNs},
    top::model::Model,
};

mod attributes;
mod batch;
pub mod heard;
mod logs;
mod metrics;
mod profiles;
mod queue;
pub mod resource;
mod sender;
pub mod settings;
mod spans;
mod stats;
mod wire;

use batch::Request;
use heard::Heard;
use resource::Host;
use sender::Sender;
use settings::Settings;
use stats::Stats;
use wire::Transport;

/// Events and spans are told so soon, even if metrics are told less often.
const SOON: Duration = Duration::from_secs(10);

/// One moment on both clocks.
struct Instant {
    at: KtimeNs,
    tie: ClockTie,
}

impl Instant {
    /// What the calendar says of it, ns since the Unix epoch, by what the clock says now.
    fn wall(&self, at: KtimeNs) -> u64 {
        let ClockTie { ktime_ns, wall_ns, .. } = self.tie;
        if at >= ktime_ns { wall_ns.0.saturating_add(at.since(ktime_ns)) } else { wall_ns.0.saturating_sub(ktime_ns.since(at)) }
    }

    fn rfc3339(&self, at: KtimeNs) -> String {
        let since = Duration::from_nanos(self.wall(at));
        humantime::format_rfc3339_millis(time::UNIX_EPOCH + since).to_string()
    }
}

/// The export of one agent.
pub struct Otlp {
    settings: Settings,
    host: Host,
    stats: Arc<Stats>,
    sender: Sender,
    starts: metrics::Starts,
    verdicts: logs::Verdicts,
    exits: logs::Exits,
    goroutines: spans::Goroutines,
    /// When metrics are due, and all else.
    metrics_due: time::Instant,
    due: time::Instant,
}

impl Otlp {
    /// Opens the queue and starts the threads. The receiver need not be there.
    pub fn start(node: &str, settings: &Settings, places: Places) -> anyhow::Result<Self> {
        let transport = transport(settings)?;
        let stats = Arc::new(Stats::default());
        let now = time::Instant::now();
        Ok(Self {
            sender: Sender::start(transport, settings, Arc::clone(&stats))?,
            host: Host::new(node, places),
            stats,
            starts: metrics::Starts::new(ClockTie::now().wall_ns),
            verdicts: logs::Verdicts::default(),
            exits: logs::Exits::default(),
            goroutines: spans::Goroutines::default(),
            metrics_due: now + settings.interval,
            due: now,
            settings: settings.clone(),
        })
    }

    /// Goes on by other settings: what is counted is counted on. What is wrong with them is an error, and what was before stays.
    pub fn renew(&mut self, settings: &Settings) -> anyhow::Result<()> {
        if *settings == self.settings && self.sender.is_open() {
            return Ok(());
        }
        let new = transport(settings)?;
        // The queue's folder is held by one at a time.
        self.sender.end();
        let start = |transport, settings| Sender::start(transport, settings, Arc::clone(&self.stats));
        match start(new, settings) {
            Ok(sender) => self.sender = sender,
            Err(error) => {
                self.sender = start(transport(&self.settings)?, &self.settings)?;
                return Err(error);
            }
        }
        if settings.endpoint != self.settings.endpoint {
            // Another receiver has not been told yet.
            self.verdicts = logs::Verdicts::default();
        }
        self.metrics_due = time::Instant::now() + settings.interval;
        self.settings = settings.clone();
        Ok(())
    }

    /// What listens to a recording that begins.
    pub fn listen(&mut self) -> Heard {
        self.exits.begin();
        if self.settings.signals.traces { Heard::new(&self.settings.long) } else { Heard::default() }
    }

    pub fn is_due(&self) -> bool {
        time::Instant::now() >= self.due
    }

    /// Tells what there is to tell.
    pub fn gather(&mut self, heard: &mut Heard, ledger: &Ledger, model: &mut Model, own: &Own) {
        let (began, signals) = (time::Instant::now(), self.settings.signals);
        self.due = began + self.settings.interval.min(SOON);
        let now = Instant { at: model.replaying().now(), tie: ClockTie::now() };
        let mut requests: Vec<Option<Request>> = Vec::new();
        if signals.logs {
            let from = (ledger, &*model);
            requests.push(logs::request(&mut self.verdicts, &mut self.exits, from, &self.host, &now, &self.stats));
        }
        if signals.traces {
            let limits = &self.settings.long;
            let spans = self.goroutines.requests(heard, model, limits, &self.host, &now, &self.stats);
            requests.extend(spans.into_iter().map(Some));
        }
        if began >= self.metrics_due {
            self.metrics_due = began + self.settings.interval;
            if signals.metrics {
                let all = metrics::requests(&families(ledger, own), &self.host, &mut self.starts, now.tie.wall_ns);
                requests.extend(all.into_iter().map(Some));
            }
            if signals.profiles {
                let interval = self.settings.interval;
                requests.push(profiles::request(model, &self.host, &now, interval, &self.stats));
            }
        }
        requests.into_iter().flatten().for_each(|request| self.sender.send(request));
    }

    /// A recording is over: notes what holds on in the next one.
    pub fn end(&mut self, model: &Model) {
        self.goroutines.carry(model);
    }

    pub fn rows(&self) -> Vec<More> {
        self.stats.rows()
    }
}

/// The way to the receiver, which need not be there.
fn transport(settings: &Settings) -> anyhow::Result<Transport> {
    if settings.is_in_the_clear() {
        tracing::warn!("OTLP goes to {} in the clear: who is on the way can read it", settings.endpoint);
    }
    Transport::new(settings)
}

#[cfg(test)]
mod tests {
    use super::{
        batch::Signal,
        settings::{OtlpText, Tls},
        stats::Fate,
        *,
    };

    /// Check that settings that cannot work leave those before at work, and that what was counted by others is counted on.
    #[test]
    fn renewed() {
        let settings = |more: &str| {
            let text = format!("endpoint = \"https://127.0.0.1:9\"\nprotocol = \"http/protobuf\"\n{more}");
            Settings::try_from(toml::from_str::<OtlpText>(&text).unwrap()).unwrap()
        };
        let first = settings("");
        let mut otlp = Otlp::start("n1", &first, Places::default()).unwrap();
        let behind = |otlp: &Otlp| {
            otlp.sender.send(Request::Logs(Default::default()));
            otlp.stats.of(Signal::Logs, Fate::Behind)
        };
        let wrong = Settings { tls: Tls { ca: Some(b"no certificate".to_vec()), ..Tls::default() }, ..first.clone() };
        assert!(otlp.renew(&wrong).is_err());
        assert!(otlp.settings == first && behind(&otlp) == 0);
        otlp.stats.count(Signal::Logs, Fate::Full);
        otlp.renew(&settings("interval = \"7s\"")).unwrap();
        assert_eq!((otlp.settings.interval, behind(&otlp)), (Duration::from_secs(7), 0));
        assert_eq!(otlp.stats.of(Signal::Logs, Fate::Full), 1);
    }
}
