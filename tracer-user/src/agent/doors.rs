//! The agent's own HTTP doors: health, readiness, metrics, its own profile. Loopback, or a token, or a certificate.
//!
//! What is asked is bounded: the size of a request's head, the time that it and a handshake may take to come, how many connections there are
//! at once. Nothing of a request but its method, path, token and what it accepts is looked at.

pub mod accept;
pub mod profile;
pub mod tls;
mod windows;

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use tls::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, oneshot},
    time::{sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

pub use accept::Form;
pub use windows::Wished;

/// Connections at once.
const MAX_CONNECTIONS: usize = 32;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// How long a head may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long one connection lasts at most: a question and its answer, without what the question itself has it wait for.
const CONNECTION_LASTS: Duration = Duration::from_secs(30);
/// How long who follows may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Questions that wait.
const MAX_QUESTIONS: usize = 8;
/// Who follows has not been seen at work for so long: it hangs.
const ALIVE_WITHIN: Duration = Duration::from_secs(60);

const PLAIN: &str = "text/plain; charset=utf-8";
const PATHS: [&str; 5] = ["/metrics", "/v1/record", "/debug/pprof/profile", "/healthz", "/readyz"];

/// Somebody wants the metrics.
pub struct Question {
    pub form: Form,
    answer: oneshot::Sender<Bytes>,
}

impl Question {
    /// Who asked may be gone.
    pub fn answer(self, metrics: impl Into<Bytes>) {
        let _ = self.answer.send(metrics.into());
    }

    pub fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }
}

/// Shows that somebody is at work.
#[derive(Clone)]
pub struct Pulse {
    began: Instant,
    /// Seconds after that.
    last: Arc<AtomicU64>,
}

impl Pulse {
    fn new() -> Self {
        Self { began: Instant::now(), last: Arc::default() }
    }

    pub fn beat(&self) {
        self.last.store(self.began.elapsed().as_secs(), Ordering::Relaxed);
    }

    fn is_there(&self) -> bool {
        let last = Duration::from_secs(self.last.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last) < ALIVE_WITHIN
    }
}

/// What the doors and who follows tell each other.
pub struct Hall {
    pub questions: Receiver<Question>,
    pub wishes: Receiver<Wished>,
    /// Whether programs are being followed.
    pub ready: Arc<AtomicBool>,
    pub pulse: Pulse,
    pub address: SocketAddr,
    /// Whether there is TLS, and whether certificates open the doors.
    mutual: Option<bool>,
    acceptor: Arc<RwLock<Option<TlsAcceptor>>>,
}

impl Hall {
    /// From here on connections are taken with these certificates. False: the doors were not opened so, and stay as they are.
    pub fn renew(&self, tls: Option<&Tls>) -> bool {
        if tls.map(Tls::is_mutual) != self.mutual {
            return false;
        }
        // Nobody panics who holds it.
        if let Ok(mut acceptor) = self.acceptor.write() {
            *acceptor = tls.map(|tls| Arc::clone(&tls.server).into());
        }
        true
    }
}

/// What a request is answered from.
struct Door {
    token: Option<[u8; 32]>,
    /// Who shows a certificate needs no token; who shows neither is not let in.
    mutual: bool,
    profiler: profile::Profiler,
    ready: Arc<AtomicBool>,
    pulse: Pulse,
    questions: SyncSender<Question>,
    wishes: SyncSender<Wished>,
}

/// Opens the doors, on a thread of their own, for as long as the program runs.
pub fn open(listener: TcpListener, token: Option<&str>, tls: Option<&Tls>) -> io::Result<Hall> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (questions, asked) = sync_channel(MAX_QUESTIONS);
    let (wishes, wished) = sync_channel(1);
    let ready = Arc::new(AtomicBool::new(false));
    let pulse = Pulse::new();
    let door = Arc::new(Door {
        token: token.map(digest),
        mutual: tls.is_some_and(Tls::is_mutual),
        profiler: profile::Profiler::default(),
        ready: Arc::clone(&ready),
        pulse: pulse.clone(),
        questions,
        wishes,
    });
    let acceptor = Arc::new(RwLock::new(tls.map(|tls| TlsAcceptor::from(Arc::clone(&tls.server)))));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serving = serve(listener, door, Arc::clone(&acceptor));
    thread::Builder::new().name("doors".into()).spawn(move || runtime.block_on(serving))?;
    Ok(Hall { questions: asked, wishes: wished, ready, pulse, address, mutual: tls.map(Tls::is_mutual), acceptor })
}

async fn serve(listener: TcpListener, door: Arc<Door>, acceptor: Arc<RwLock<Option<TlsAcceptor>>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Who comes when all are taken waits in the kernel's queue.
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, for one: that passes.
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let door = Arc::clone(&door);
        let acceptor = acceptor.read().ok().and_then(|acceptor| acceptor.clone());
        tokio::spawn(async move {
            match acceptor {
                None => answer_on(stream, door, false).await,
                Some(acceptor) => match timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let identified = stream.get_ref().1.peer_certificates().is_some();
                        answer_on(stream, door, identified).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                    Err(_) => tracing::debug!("a handshake took too long"),
                },
            }
            drop(permit);
        });
    }
}

/// Answers the one request of a connection. `identified`: its other end showed a certificate that opens the doors.
async fn answer_on(stream: impl AsyncRead + AsyncWrite + Unpin, door: Arc<Door>, identified: bool) {
    // Seconds for which an answer has to be waited for, by the request itself.
    let waits = Arc::new(AtomicU64::new(0));
    let asked = Arc::clone(&waits);
    let service = service_fn(move |request| {
        let (door, asked) = (Arc::clone(&door), Arc::clone(&asked));
        async move { Ok::<_, Infallible>(door.answer(&request, identified, &asked).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(MAX_HEAD).keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let mut end = tokio::time::Instant::now() + CONNECTION_LASTS;
    loop {
        tokio::select! {
            served = &mut served => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = sleep_until(end) => match waits.swap(0, Ordering::Relaxed) {
                0 => return,
                seconds => end += Duration::from_secs(seconds),
            }
        }
    }
}

impl Door {
    async fn answer(&self, request: &Request<Incoming>, identified: bool, waits: &AtomicU64) -> Response<Full<Bytes>> {
        // Who only asks whether we live and work learns nothing else: an orchestrator's probes have no token, and no certificate.
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/readyz") && !identified && !self.lets_in(request.headers().get(AUTHORIZATION)) {
            return self.refusal();
        }
        if !PATHS.contains(&path) {
            return reply(StatusCode::NOT_FOUND, PLAIN, format!("there are {}\n", PATHS.join(", ")));
        }
        let (allowed, only) = if path == "/v1/record" {
            (*request.method() == Method::POST, "POST")
        } else {
            (matches!(*request.method(), Method::GET | Method::HEAD), "GET, HEAD")
        };
        if !allowed {
            let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, format!("only {only}\n"));
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static(only));
            return refused;
        }
        match path {
            "/healthz" if self.pulse.is_there() => reply(StatusCode::OK, PLAIN, "ok\n"),
            "/healthz" => reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "who follows has not been seen for a minute\n"),
            "/readyz" if self.ready.load(Ordering::Relaxed) => reply(StatusCode::OK, PLAIN, "following\n"),
            "/readyz" => reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "nobody is followed yet\n"),
            "/v1/record" => self.record(request).await,
            "/debug/pprof/profile" => self.profiler.answer(request.uri().query(), waits).await,
            _ => self.metrics(Form::wanted(request.headers().get_all(ACCEPT))).await,
        }
    }

    fn refusal(&self) -> Response<Full<Bytes>> {
        if self.token.is_none() {
            return reply(
                StatusCode::UNAUTHORIZED,
                PLAIN,
                "a certificate is wanted, of the authority that the agent's file names\n",
            );
        }
        let mut refused = reply(StatusCode::UNAUTHORIZED, PLAIN, "a token is wanted: Authorization: Bearer …\n");
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        refused
    }

    /// In the same time whatever is wrong with it.
    fn lets_in(&self, shown: Option<&HeaderValue>) -> bool {
        let Some(token) = &self.token else { return !self.mutual };
        let shown = shown.and_then(|shown| shown.as_bytes().strip_prefix(b"Bearer ")).map(digest);
        // Digests: where two begin to differ tells nothing of the token.
        shown.as_ref() == Some(token)
    }

    async fn metrics(&self, form: Form) -> Response<Full<Bytes>> {
        let (answer, answered) = oneshot::channel();
        if self.questions.try_send(Question { form, answer }).is_err() {
            return reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "too many ask at once\n");
        }
        match timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(metrics)) => reply(StatusCode::OK, form.name(), metrics),
            _ => reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the agent begins or ends; ask again\n"),
        }
    }
}

fn reply(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn digest(token: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(token.as_ref()).into()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    pub(super) fn anywhere() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    pub(super) fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // A refusal may come with a reset.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    pub(super) fn get(address: SocketAddr, path: &str, more: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n"))
    }

    /// Check what is answered on loopback, without a token.
    #[test]
    fn answers() {
        let hall = open(anywhere(), None, None).unwrap();
        assert!(get(hall.address, "/healthz", "").starts_with("HTTP/1.1 200"));
        assert!(get(hall.address, "/readyz", "").starts_with("HTTP/1.1 503"));
        hall.ready.store(true, Ordering::Relaxed);
        assert!(get(hall.address, "/readyz", "").starts_with("HTTP/1.1 200"));
        assert!(get(hall.address, "/", "").starts_with("HTTP/1.1 404"));
        let posted = ask(hall.address, "POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
        assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
        let answering = thread::spawn(move || hall.questions.recv().unwrap().answer("# EOF\n"));
        let metrics = get(hall.address, "/metrics", "");
        assert!(metrics.contains("application/openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
        answering.join().unwrap();
        assert!(get(hall.address, "/metrics", "").starts_with("HTTP/1.1 503"), "nobody answers any more");
    }

    /// Check that a token is asked for, that only the right one opens, and that whether we live and work is told to all.
    #[test]
    fn tokens() {
        let hall = open(anywhere(), Some("0123456789abcdef"), None).unwrap();
        hall.ready.store(true, Ordering::Relaxed);
        for path in ["/healthz", "/readyz"] {
            assert!(get(hall.address, path, "").starts_with("HTTP/1.1 200"));
        }
        for wrong in
            ["", "Authorization: Bearer 0123456789abcdeF\r\n", "Authorization: Bearer\r\n", "Authorization: 0123456789abcdef\r\n"]
        {
            assert!(get(hall.address, "/metrics", wrong).starts_with("HTTP/1.1 401"), "{wrong}");
        }
        let answering = thread::spawn(move || hall.questions.recv().unwrap().answer("# EOF\n"));
        assert!(get(hall.address, "/metrics", "Authorization: Bearer 0123456789abcdef\r\n").starts_with("HTTP/1.1 200"));
        answering.join().unwrap();
    }

    /// Check that a head without end is cut off, and that the doors stay open for others.
    #[test]
    fn endless_head() {
        let hall = open(anywhere(), None, None).unwrap();
        let mut stream = TcpStream::connect(hall.address).unwrap();
        let line = format!("X: {}\r\n", "a".repeat(1000));
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\n");
        let refused = (0..10_000).find(|_| stream.write_all(line.as_bytes()).is_err());
        assert!(refused.is_some(), "10 MB of a head were taken");
        assert!(get(hall.address, "/healthz", "").starts_with("HTTP/1.1 200"));
    }
}
