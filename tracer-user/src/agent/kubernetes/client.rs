//! The way to the API server: `kube`'s client, in bounds. Of itself that reads whatever is sent until memory ends, and waits for ever.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, SizeHint},
};
use kube::{
    Client, Config,
    client::{Body as KubeBody, ClientBuilder},
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tokio::time::{Sleep, sleep, timeout};
use tower::{BoxError, Layer, Service};

use super::{pods::Pods, settings::Settings};

/// Until there is a connection; until an answer begins; until a list is whole.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
const LIST: Duration = Duration::from_secs(60);
/// Bytes of a list of pods. A pod has some 10 KiB, and etcd takes 1.5 MiB at most (`--max-request-bytes`).
pub const MAX_LIST: u64 = 32 << 20;
/// Bytes of one event of a watch, which is a line.
pub const MAX_EVENT: u64 = 4 << 20;

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no cluster")]
    Cluster(#[from] InClusterError),
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error("no client")]
    Client(#[from] kube::Error),
    #[error("users of {0} execute commands: a token, a file with a token, or a certificate is wanted")]
    Executes(Box<Path>),
}

/// Whether a kubeconfig makes sense and asks for nothing that we do not do: execute commands, which would have our rights.
pub fn check(path: &Path) -> Result<(), String> {
    read(path).map(drop).map_err(|error| format!("kubernetes: {error:#}", error = anyhow::Error::from(error)))
}

fn read(path: &Path) -> Result<Kubeconfig, ClientError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let executes = kubeconfig.auth_infos.iter().filter_map(|user| user.auth_info.as_ref());
    if executes.into_iter().any(|user| user.exec.is_some() || user.auth_provider.is_some()) {
        return Err(ClientError::Executes(path.into()));
    }
    Ok(kubeconfig)
}

/// A client that tells `pods` when it hears anything. Nothing is sent yet.
pub async fn client(settings: &Settings, pods: &Arc<Pods>) -> Result<Client, ClientError> {
    let mut config = match &settings.kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(read(path)?, &KubeConfigOptions::default()).await?,
        None => Config::incluster()?,
    };
    config.connect_timeout = Some(CONNECT);
    // Who watches backs off itself.
    config.default_retry = false;
    // The crates beside ours may bring another library of cryptography: then none is chosen by itself. Chosen before is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(ClientBuilder::try_from(config)?.with_layer(&Bounds(Arc::clone(pods))).build())
}

/// Puts bounds to what is answered.
struct Bounds(Arc<Pods>);

impl<S> Layer<S> for Bounds {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, pods: Arc::clone(&self.0) }
    }
}

struct Bounded<S> {
    inner: S,
    pods: Arc<Pods>,
}

impl<S, B> Service<Request<KubeBody>> for Bounded<S>
where
    S: Service<Request<KubeBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Unpin,
{
    type Response = Response<BoundedBody<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<KubeBody>) -> Self::Future {
        let watches = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        let (answer, pods) = (self.inner.call(request), Arc::clone(&self.pods));
        Box::pin(async move {
            let answer = timeout(ANSWER, answer).await.map_err(|_| too_late(ANSWER))?.map_err(Into::into)?;
            let watched = (watches && answer.status().is_success()).then_some(pods);
            if let Some(pods) = &watched {
                pods.heard(Instant::now());
            }
            Ok(answer.map(|body| BoundedBody::new(body, watched)))
        })
    }
}

fn too_late(limit: Duration) -> BoxError {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limit.as_secs())).into()
}

/// A list that is no larger than it may be and comes in time, or a watch without a line that is too long, however long it lasts.
struct BoundedBody<B> {
    body: B,
    /// Of a list.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Of a watch: who is told that it goes on.
    watched: Option<Arc<Pods>>,
    /// Bytes of the list so far, or of the line.
    bytes: u64,
}

impl<B> BoundedBody<B> {
    fn new(body: B, watched: Option<Arc<Pods>>) -> Self {
        let deadline = watched.is_none().then(|| Box::pin(sleep(LIST)));
        Self { body, deadline, watched, bytes: 0 }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), BoxError> {
        let most = match &self.watched {
            None => {
                self.bytes += data.len() as u64;
                MAX_LIST
            }
            Some(pods) => {
                pods.heard(Instant::now());
                let last = data.iter().rposition(|byte| *byte == b'\n');
                self.bytes = last.map_or(self.bytes, |_| 0) + (data.len() - last.map_or(0, |last| last + 1)) as u64;
                MAX_EVENT
            }
        };
        if self.bytes <= most { Ok(()) } else { Err(TooLong(most).into()) }
    }
}

/// More was sent at once than makes sense.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes at once")]
pub struct TooLong(u64);

impl<B> Body for BoundedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Some(Err(too_late(LIST))));
        }
        let frame = match std::task::ready!(Pin::new(&mut this.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let taken = frame.data_ref().map_or(Ok(()), |data| this.take(data));
        Poll::Ready(Some(taken.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead, Write},
    };

    use kube::{Api, api::ListParams};

    use super::{super::object::Object, *};

    fn kubeconfig(user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: \"http://127.0.0.1:1\"}}}}]\n\
             users: [{{name: u, user: {user}}}]\n"
        )
    }

    /// Check that a kubeconfig is taken unless it makes no sense, or would have us execute something.
    #[test]
    fn kubeconfigs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        let check = |text: &str| {
            fs::write(&file, text).unwrap();
            check(&file)
        };
        check(&kubeconfig("{token: abc}")).unwrap();
        let executes = check(&kubeconfig("{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh}}")).unwrap_err();
        assert!(executes.contains("execute commands"), "{executes}");
        assert!(check("[").unwrap_err().contains("kubeconfig"));
        assert!(super::check(Path::new("/nowhere/kubeconfig")).unwrap_err().contains("/nowhere/kubeconfig"));
    }

    /// Check that a list has an end, and that of a watch a line has, while the whole has none.
    #[test]
    fn lengths() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let mut list = BoundedBody::new((), None);
        assert!(list.take(&vec![b'\n'; MAX_LIST as usize]).is_ok() && list.take(b"x").is_err());
        let pods = Arc::new(Pods::default());
        let mut watch = BoundedBody::new((), Some(Arc::clone(&pods)));
        for _ in 0..10 {
            watch.take(&vec![b'x'; MAX_EVENT as usize - 1]).unwrap();
            watch.take(b"\n").unwrap();
        }
        watch.take(&vec![b'x'; MAX_EVENT as usize]).unwrap();
        assert!(watch.take(b"x").is_err());
        assert!(pods.status(Instant::now()).up);
    }

    /// A server with a certificate of its own that answers one question with an empty list; what it was asked, if anybody believed it.
    fn serve_once(own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> (std::net::SocketAddr, std::thread::JoinHandle<String>) {
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move || {
            let (stream, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = io::BufReader::new(rustls::StreamOwned::new(connection, stream));
            let mut asked = String::new();
            while !asked.ends_with("\r\n\r\n") {
                if stream.read_line(&mut asked).unwrap_or(0) == 0 {
                    return asked;
                }
            }
            let list =
                r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}"#;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{list}", list.len());
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            asked
        };
        (address, std::thread::spawn(serve))
    }

    /// Check that a server whose certificate the kubeconfig knows is asked, and shown the token; and that another one is not.
    #[test]
    fn over_tls() {
        let make = || rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let (own, other) = (make(), make());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        fs::write(dir.path().join("ca.pem"), own.cert.pem()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let list = |address| {
            let cluster = format!("{{certificate-authority: ca.pem, server: \"https://{address}\"}}");
            fs::write(&file, kubeconfig("{token: abc}").replace("{server: \"http://127.0.0.1:1\"}", &cluster)).unwrap();
            let settings = Settings { kubeconfig: Some(file.clone()), annotations: true };
            runtime.block_on(async {
                let client = client(&settings, &Arc::default()).await.unwrap();
                Api::<Object>::all(client).list(&ListParams::default()).await
            })
        };
        let (address, server) = serve_once(&own);
        let listed = list(address).unwrap();
        assert_eq!(listed.items.len(), 1);
        let asked = server.join().unwrap();
        assert!(asked.starts_with("GET /api/v1/pods") && asked.to_lowercase().contains("authorization: bearer abc"), "{asked}");
        let (address, server) = serve_once(&other);
        assert!(list(address).is_err());
        assert_eq!(server.join().unwrap(), "");
    }
}
