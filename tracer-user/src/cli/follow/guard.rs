//! Asking the target itself how it fares (`--guard-url`).
//!
//! Owns the thread that asks; what the answers mean is [`crate::governor::vitals`]' business.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Follower;
use crate::{
    governor::vitals::{Answer, Vitals},
    pprof::client::{Client, ClientError},
    recording::contract::{Tier, Why},
};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait for an answer, at least and at most.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
const MOST_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;
/// A target that has not told so far how it usually fares is followed all the same.
const WAITED_FOR: Duration = Duration::from_secs(10);

/// Asks, and remembers.
pub(super) struct Guard {
    client: Client,
    answers: Receiver<(Instant, Answer)>,
    patience_ns: Arc<AtomicU64>,
    vitals: Vitals,
    /// It was said that it guards nothing.
    said_blind: bool,
    began: Instant,
    /// Since when the probes are as they are: set, or not.
    probed: (bool, Instant),
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    fn start(url: String) -> io::Result<Self> {
        let client = Client::default();
        let patience_ns = Arc::new(AtomicU64::new(0));
        let (sender, answers) = sync_channel(64);
        let (asking, patience) = (client.clone(), Arc::clone(&patience_ns));
        let ask = move || {
            loop {
                let began = Instant::now();
                let patience = Duration::from_nanos(patience.load(Ordering::Relaxed)).clamp(LEAST_PATIENCE, MOST_PATIENCE);
                let answer = match asking.get(&url, MAX_ANSWER, patience) {
                    Ok(bytes) => number(&bytes).map_or_else(|| Answer::After(began.elapsed().as_nanos() as u64), Answer::Number),
                    Err(ClientError::Stopped) => return,
                    Err(ClientError::Slow(_) | ClientError::Endless(..)) => Answer::GivenUp,
                    Err(_) => Answer::Failed,
                };
                if sender.send((began, answer)).is_err() {
                    return;
                }
                thread::sleep(PAUSE);
            }
        };
        let thread = Some(thread::Builder::new().name("guard".to_owned()).spawn(ask)?);
        let began = Instant::now();
        Ok(Self {
            client,
            answers,
            patience_ns,
            vitals: Vitals::default(),
            said_blind: false,
            began,
            probed: (false, began),
            thread,
        })
    }

    /// Whether probes may be set.
    fn allows(&self) -> bool {
        self.vitals.is_known() || self.began.elapsed() >= WAITED_FOR
    }

    /// Whether it turns out just now that nothing is to be learned there.
    fn is_blind(&self) -> bool {
        !self.said_blind && self.began.elapsed() >= WAITED_FOR && (!self.vitals.is_known() || self.vitals.fails_anyhow())
    }

    /// Takes what was answered; whether the probes, if there are any, must go.
    fn look(&mut self, probed: bool) -> bool {
        if probed != self.probed.0 {
            self.probed = (probed, Instant::now());
        }
        let mut alarm = false;
        loop {
            match self.answers.try_recv() {
                // A question that was asked before the probes came or went says nothing of either.
                Ok((asked, answer)) if asked > self.probed.1 => alarm |= self.vitals.hear(answer, probed),
                Ok(_) => {}
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let patience = self.vitals.patience_ns().unwrap_or(MOST_PATIENCE.as_nanos() as f64);
        self.patience_ns.store(patience as u64, Ordering::Relaxed);
        alarm
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.client.stop();
        // Whoever waits for room to hand an answer over must not wait for us.
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            let _ = self.answers.try_recv();
            thread::sleep(Duration::from_millis(1));
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What an answer says that is a number and nothing else.
fn number(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes.get(..64).unwrap_or(bytes)).ok()?.trim();
    text.parse().ok().filter(|number: &f64| number.is_finite() && bytes.len() <= 64)
}

impl Follower {
    /// From now on the target is asked how it fares.
    pub fn guard(&mut self, url: Option<&str>) -> io::Result<()> {
        self.guard = url.map(|url| Guard::start(url.to_owned())).transpose()?;
        Ok(())
    }

    /// Looks at how the target fares: probes go that hurt it. False: none may be set yet.
    pub fn heed_guard(&mut self) -> bool {
        let probed = self.is_probed_now() || self.session.is_letting_go();
        let Some(guard) = &mut self.guard else { return true };
        if guard.look(probed) {
            self.warn("the target fares worse than without probes: they are taken away for a while".to_owned());
            self.alarm(Why::Guard);
        }
        if let Some(guard) = &mut self.guard
            && guard.is_blind()
        {
            guard.said_blind = true;
            self.warn("the URL of the guard tells nothing: it answers too seldom, or fails without probes too".to_owned());
        }
        self.guard.as_ref().is_none_or(Guard::allows)
    }

    fn is_probed_now(&self) -> bool {
        self.governed().any(|tier| tier > Tier::T0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check which answers are numbers.
    #[test]
    fn numbers() {
        assert_eq!(number(b"1234.5\n"), Some(1234.5));
        for other in ["", "ok", "{\"rate\": 3}", "12 34", "inf", "nan"] {
            assert_eq!(number(other.as_bytes()), None, "{other}");
        }
        assert_eq!(number(&[b'1'; 65]), None);
    }
}
