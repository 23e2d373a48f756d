//! Two threads that the reader never waits for: one numbers batches and puts them into the queue, the other sends what is in it, in order.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    batch::{Batch, Request},
    queue::Queue,
    settings::Settings,
    stats::{Fate, Stats},
    wire::{Answer, Transport},
};

/// Requests between the reader and the queue.
const BETWEEN: usize = 64;
/// Between two looks at what waits, where nobody says that there is something.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// After the first failure, and at most.
const WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// No receiver may silence us for longer.
const LONGEST_TOLD: Duration = Duration::from_secs(600);
/// How long the end may take: what is not sent by then stays in the queue.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What both threads share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stats: Arc<Stats>,
}

struct State {
    queue: Queue,
    /// When whoever sends must be done, once that is asked.
    end_by: Option<Instant>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out, for who has something to send.
pub struct Sender {
    requests: Option<SyncSender<Request>>,
    shared: Arc<Shared>,
    queueing: Option<JoinHandle<()>>,
}

impl Sender {
    /// Opens the queue and starts both threads.
    pub fn start(transport: Transport, settings: &Settings, stats: Arc<Stats>) -> anyhow::Result<Self> {
        let queue = Queue::open(settings.queue.as_deref(), settings.queue_bytes, &stats);
        let state = Mutex::new(State { queue, end_by: None, ended: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), stats });
        let (requests, coming) = sync_channel(BETWEEN);
        let queueing = spawn("otlp-queue", &shared, move |shared| take_in(&coming, &shared))?;
        // It may hang in an attempt when all else has ended: nobody waits for it for longer than the end may take.
        drop(spawn("otlp-send", &shared, move |shared| send_all(&shared, transport))?);
        Ok(Self { requests: Some(requests), shared, queueing: Some(queueing) })
    }

    /// Hands a request on; where both threads are far behind it is counted and gone.
    pub fn send(&self, request: Request) {
        let signal = request.signal();
        let sent = self.requests.as_ref().is_some_and(|requests| requests.try_send(request).is_ok());
        if !sent {
            self.shared.stats.count(signal, Fate::Behind);
        }
    }

    pub fn is_open(&self) -> bool {
        self.requests.is_some()
    }

    /// Lets what is on its way reach the queue, and the receiver if it takes it soon; nothing is sent any more.
    pub fn end(&mut self) {
        drop(self.requests.take());
        let Some(queueing) = self.queueing.take() else { return };
        let _ = queueing.join();
        let end_by = Instant::now() + END_WITHIN;
        let mut state = self.shared.lock();
        state.end_by = Some(end_by);
        self.shared.changed.notify_all();
        while !state.ended {
            let left = end_by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        // Who opens the folder next must find it free.
        state.queue.close();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(name: &str, shared: &Arc<Shared>, run: impl FnOnce(Arc<Shared>) + Send + 'static) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name(name.to_owned()).spawn(move || run(shared))
}

fn take_in(coming: &Receiver<Request>, shared: &Shared) {
    for request in coming {
        let signal = request.signal();
        let mut state = shared.lock();
        state.queue.push(signal, |number| request.encode(number), &shared.stats);
        shared.changed.notify_all();
    }
}

/// Sends until the end; then until the queue is empty, an attempt fails, or the time is over.
fn send_all(shared: &Shared, mut transport: Transport) {
    let mut backoff = Backoff::default();
    while let Some(batch) = next(shared) {
        let answer = transport.send(&batch);
        if let Some(wait) = take_answer(shared, &batch, answer, &mut backoff)
            && !sleep(shared, wait)
        {
            break;
        }
    }
    shared.lock().ended = true;
    shared.changed.notify_all();
}

/// The oldest batch, as soon as there is one; `None`: it is over.
fn next(shared: &Shared) -> Option<Batch> {
    let mut state = shared.lock();
    loop {
        if state.end_by.is_some_and(|end_by| Instant::now() >= end_by) {
            return None;
        }
        if let Some(batch) = state.queue.front(&shared.stats) {
            return Some(batch);
        }
        if state.end_by.is_some() {
            return None;
        }
        // What waits and cannot be read now may be read later.
        state = shared.changed.wait_timeout(state, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// How long to wait before the next attempt, if this one failed.
fn take_answer(shared: &Shared, batch: &Batch, answer: Answer, backoff: &mut Backoff) -> Option<Duration> {
    let Batch { number, signal, .. } = *batch;
    let fate = match answer {
        Answer::Later { after, why } => {
            shared.stats.retry();
            if backoff.failures == 0 {
                tracing::warn!("OTLP is not taken, what is to be sent waits: {why}");
            }
            return Some(backoff.next(after));
        }
        Answer::Taken { rejected, said } => {
            if rejected > 0 || !said.is_empty() {
                shared.stats.reject(signal, rejected);
                tracing::debug!(number, signal = signal.name(), rejected, said, "a batch was taken with a word");
            }
            Fate::Sent
        }
        Answer::Refused(why) => {
            // Each reason once: they come again and again.
            if backoff.refused.as_ref() != Some(&why) {
                tracing::warn!("OTLP {} are refused: {why}", signal.name());
                backoff.refused = Some(why);
            }
            Fate::Refused
        }
    };
    if backoff.failures > 0 {
        tracing::info!("OTLP is taken again, after {} attempts", backoff.failures);
    }
    backoff.failures = 0;
    shared.stats.count(signal, fate);
    shared.lock().queue.done(number, &shared.stats);
    None
}

/// False: it is over.
fn sleep(shared: &Shared, wait: Duration) -> bool {
    let until = Instant::now() + wait;
    let mut state = shared.lock();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || state.end_by.is_some() {
            return state.end_by.is_none();
        }
        state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// How long to wait: twice as long after each failure, and never all agents at once.
#[derive(Default)]
struct Backoff {
    failures: u32,
    refused: Option<String>,
    dice: RandomState,
}

impl Backoff {
    /// `told`: the receiver asked for so much.
    fn next(&mut self, told: Option<Duration>) -> Duration {
        let [first, longest] = WAITS;
        let doubled = first.saturating_mul(1u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let share = (self.dice.hash_one(self.failures) % 1000) as f64 / 1000.0;
        let wait = doubled.mul_f64(0.5 + share / 2.0);
        told.map_or(wait, |told| told.min(LONGEST_TOLD) + wait.mul_f64(0.1))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        sync::mpsc,
    };

    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::any_value::Value,
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost014::Message;

    use super::{
        super::{batch::Signal, settings::OtlpText},
        *,
    };

    /// A receiver that answers by heart, one request a connection, and tells which batch each was.
    fn by_heart(answers: &'static [&'static str]) -> (String, mpsc::Receiver<i64>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (told, heard) = mpsc::channel();
        thread::spawn(move || {
            for answer in answers {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                let (mut length, mut line) = (0, String::new());
                while stream.read_line(&mut line).unwrap() > 2 {
                    let header = std::mem::take(&mut line).to_ascii_lowercase();
                    assert!(!header.starts_with("post") || header.starts_with("post /v1/logs "), "{header}");
                    length = header.strip_prefix("content-length: ").map_or(length, |value| value.trim().parse().unwrap());
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                let request = ExportLogsServiceRequest::decode(&body[..]).unwrap();
                let attribute = &request.resource_logs[0].scope_logs[0].log_records[0].attributes[0];
                let Some(Value::IntValue(number)) = attribute.value.clone().unwrap().value else { panic!("{attribute:?}") };
                told.send(number).unwrap();
                let more = "Content-Length: 0\r\nConnection: close\r\n\r\n";
                stream.get_mut().write_all(format!("HTTP/1.1 {answer}\r\n{more}").as_bytes()).unwrap();
            }
        });
        (endpoint, heard)
    }

    fn record() -> Request {
        let scope_logs = vec![ScopeLogs { log_records: vec![LogRecord::default()], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        Request::Logs(ExportLogsServiceRequest { resource_logs })
    }

    /// Check that batches go one after the other, that one for which there is no time is sent again, that one that is refused is not, and
    /// that all of that is counted.
    #[test]
    fn in_order() {
        let (endpoint, heard) = by_heart(&["503 Busy\r\nRetry-After: 0", "200 OK", "400 Bad", "429 Busy", "200 OK"]);
        let text = format!("endpoint = \"{endpoint}\"\nprotocol = \"http/protobuf\"\ncompression = \"none\"");
        let text: OtlpText = toml::from_str(&text).unwrap();
        let stats = Arc::new(Stats::default());
        let settings = Settings::try_from(text).unwrap();
        let sender = Sender::start(Transport::new(&settings).unwrap(), &settings, Arc::clone(&stats)).unwrap();
        (0..3).for_each(|_| sender.send(record()));
        let numbers: Vec<i64> = (0..5).map(|_| heard.recv_timeout(Duration::from_secs(30)).unwrap()).collect();
        assert_eq!(numbers, [1, 1, 2, 3, 3]);
        drop(sender);
        assert_eq!([Fate::Sent, Fate::Refused, Fate::Full].map(|fate| stats.of(Signal::Logs, fate)), [2, 1, 0]);
    }

    /// Check that waits grow up to a bound, that they vary, and that the receiver's wish is heard.
    #[test]
    fn backoff() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next(None)).collect();
        assert!(waits[0] >= WAITS[0] / 2 && waits[0] <= WAITS[0], "{waits:?}");
        assert!(waits[10..].iter().all(|wait| *wait >= WAITS[1] / 2 && *wait <= WAITS[1]), "{waits:?}");
        assert!(waits[10..].iter().any(|wait| *wait != waits[10]), "all the same");
        let told = backoff.next(Some(Duration::from_secs(100)));
        assert!(told >= Duration::from_secs(100) && told <= Duration::from_secs(103), "{told:?}");
        assert!(backoff.next(Some(Duration::MAX)) <= LONGEST_TOLD + WAITS[1]);
    }
}
