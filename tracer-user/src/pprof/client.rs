//! The questions: one GET at a time, bounded in time and size while the answer comes.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ureq::{Agent, Timeout};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// How long to wait for a whole answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the front page.
pub const BRIEF: Duration = Duration::from_secs(1);
/// Bytes of a front page: Go's has 5,000.
pub const MAX_INDEX: usize = 256 << 10;
/// Characters of an answer that are quoted in an error.
const MAX_QUOTED: usize = 160;

/// Why there is no answer, or none of use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("nobody listens there")]
    Refused,
    #[error("no answer within {0:?}")]
    Slow(Duration),
    #[error("the answer is not over after {0:?}, {1} bytes came")]
    Endless(Duration, usize),
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
    #[error("the answer ends too early, after {0} bytes")]
    Cut(usize),
    #[error("it answers {status}{}", said(.text))]
    Status { status: u16, text: String },
    #[error("it answers {status} and sends us on to {to:?}, where we do not go")]
    Redirect { status: u16, to: String },
    #[error("the answer is packed in a way that was not asked for: {0:?}")]
    Packed(String),
    #[error("the answer is no HTTP: {0}")]
    NoHttp(String),
    #[error("it was broken off, because the recording is over")]
    Stopped,
    #[error("it cannot be asked")]
    Io(#[source] io::Error),
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text:?}") }
}

/// What was asked so far, and what it took.
#[derive(Debug, Default)]
pub struct Spent {
    pub requests: AtomicU64,
    pub bytes: AtomicU64,
    pub took_ns: AtomicU64,
}

/// Asks one server, from one thread.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    stopped: Arc<AtomicBool>,
    spent: Arc<Spent>,
}

impl Default for Client {
    fn default() -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_resolve(Some(CONNECT))
            .accept_encoding("identity")
            .user_agent(concat!("lifetrace/", env!("CARGO_PKG_VERSION")))
            // Half a minute may pass between two questions, and the process should not keep a goroutine for us meanwhile.
            .max_idle_connections(0)
            .build();
        Self { agent: config.new_agent(), stopped: Arc::default(), spent: Arc::default() }
    }
}

impl Client {
    /// The answer to a GET, if it is one with status 200, of at most `limit` bytes, within `patience`.
    pub fn get(&self, url: &str, limit: usize, patience: Duration) -> Result<Vec<u8>, ClientError> {
        let began = Instant::now();
        self.spent.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.ask(url, limit, patience);
        self.spent.took_ns.fetch_add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if self.stopped.load(Ordering::Relaxed) {
            // A connection that was shut down may look like an answer that ended.
            return Err(ClientError::Stopped);
        }
        answer
    }

    /// Breaks off what is under way, and refuses what would come after.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.agent.clone().shutdown();
    }

    /// Requests, bytes and time so far.
    pub fn spent(&self) -> &Spent {
        &self.spent
    }

    fn ask(&self, url: &str, limit: usize, patience: Duration) -> Result<Vec<u8>, ClientError> {
        let request = self.agent.get(url).config().timeout_global(Some(patience)).build();
        let mut response = request.call().map_err(|error| of(error, patience))?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            value.map(|value| first_line(&value))
        };
        if (300..400).contains(&status) {
            return Err(ClientError::Redirect { status, to: header("location").unwrap_or_default() });
        }
        let packed = header("content-encoding").filter(|packed| packed != "identity");
        let reader = response.body_mut().as_reader();
        if status != 200 {
            let mut text = Vec::new();
            // What was read until it failed is what there is to quote.
            let _ = reader.take(4 * MAX_QUOTED as u64).read_to_end(&mut text);
            self.count(text.len());
            return Err(ClientError::Status { status, text: first_line(&String::from_utf8_lossy(&text)) });
        }
        if let Some(packed) = packed {
            return Err(ClientError::Packed(packed));
        }
        let mut bytes = Vec::new();
        let read = reader.take(limit as u64 + 1).read_to_end(&mut bytes);
        self.count(bytes.len());
        match read {
            Ok(_) if bytes.len() > limit => Err(ClientError::TooLong(limit)),
            Ok(_) => Ok(bytes),
            Err(error) => Err(match of(ureq::Error::from(error), patience) {
                ClientError::Slow(patience) => ClientError::Endless(patience, bytes.len()),
                ClientError::NoHttp(_) | ClientError::Io(_) => ClientError::Cut(bytes.len()),
                other => other,
            }),
        }
    }

    fn count(&self, bytes: usize) {
        self.spent.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

fn of(error: ureq::Error, patience: Duration) -> ClientError {
    match error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => ClientError::Slow(CONNECT.min(patience)),
        ureq::Error::Timeout(_) => ClientError::Slow(patience),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => ClientError::Refused,
        ureq::Error::Io(error) => ClientError::Io(error),
        ureq::Error::HostNotFound => ClientError::Io(io::Error::new(io::ErrorKind::NotFound, "there is no such host")),
        other => ClientError::NoHttp(first_line(&other.to_string())),
    }
}

/// The first line, without what would disturb a terminal, and not all of a long one.
fn first_line(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(MAX_QUOTED).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener, thread};

    use super::*;

    /// A server that says the same to everybody.
    fn saying(answer: impl Into<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.into();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // The question first: closing a connection with something unread in it takes back what was sent.
                let mut question = [0; 4096];
                let _ = stream.read(&mut question).and_then(|_| stream.write_all(&answer));
            }
        });
        format!("http://{address}/debug/pprof/heap")
    }

    fn ask(answer: impl Into<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        Client::default().get(&saying(answer), 10, PATIENCE)
    }

    /// Check that whole answers come as they were sent, in pieces or not, and that each is counted.
    #[test]
    fn whole_answers() {
        let client = Client::default();
        for answer in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"] {
            let url = saying(format!("HTTP/1.1 200 OK\r\n{answer}"));
            assert_eq!(client.get(&url, 5, PATIENCE).unwrap(), b"hello");
        }
        let spent = client.spent();
        assert_eq!((spent.requests.load(Ordering::Relaxed), spent.bytes.load(Ordering::Relaxed)), (2, 10));
        assert!(spent.took_ns.load(Ordering::Relaxed) > 0);
    }

    /// Check that an answer that is cut, too long, packed, in trouble, elsewhere, or no HTTP is an error of its own kind.
    #[test]
    fn bad_answers() {
        let cut = ask("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
        assert!(matches!(cut, Err(ClientError::Cut(_))), "{cut:?}");
        let cut = ask("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
        assert!(matches!(cut, Err(ClientError::Cut(_))), "{cut:?}");
        let long = ask("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello hello");
        assert!(matches!(long, Err(ClientError::TooLong(10))), "{long:?}");
        let packed = ask("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhe");
        assert!(matches!(&packed, Err(ClientError::Packed(how)) if how == "gzip"), "{packed:?}");
        let trouble = ask("HTTP/1.1 503 No\r\nContent-Length: 12\r\n\r\n\nno\x1b[2J way\nx");
        assert!(matches!(&trouble, Err(ClientError::Status { status: 503, text }) if text == "no[2J way"), "{trouble:?}");
        let elsewhere = ask("HTTP/1.1 301 Away\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
        assert!(
            matches!(&elsewhere, Err(ClientError::Redirect { status: 301, to }) if to == "http://127.0.0.1:1/"),
            "{elsewhere:?}"
        );
        let other = ask("SSH-2.0-OpenSSH\r\n");
        assert!(matches!(other, Err(ClientError::NoHttp(_))), "{other:?}");
        let headers = ask(format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(50_000)));
        assert!(headers.is_err(), "headers without end");
    }

    /// Check that nobody there is said so, that patience ends, and that a question can be broken off from elsewhere.
    #[test]
    fn no_answers() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let brief = Duration::from_millis(50);
        assert!(matches!(Client::default().get(&url, 10, brief), Err(ClientError::Slow(patience)) if patience == brief));
        // Of the first question no connection may have come of.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let client = Client::default();
        let asked = {
            let (client, url) = (client.clone(), url.clone());
            thread::spawn(move || client.get(&url, 10, Duration::from_secs(60)))
        };
        // It is being asked once its connection has come.
        let held = silent.accept().unwrap();
        client.stop();
        assert!(matches!(asked.join().unwrap(), Err(ClientError::Stopped)));
        drop((held, silent));
        assert!(matches!(Client::default().get(&url, 10, PATIENCE), Err(ClientError::Refused)));
    }
}
