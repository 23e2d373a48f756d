//! A Kubernetes API server as far as pods of a node are concerned: list and watch as the API's conventions have them, and every way to be
//! of no use.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What whoever asks must show.
pub const TOKEN: &str = "lifetrace-test-token";
/// How often a thread looks whether the server is still there.
const BEAT: Duration = Duration::from_millis(20);

/// A server on loopback; gone when it is dropped.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepts: Option<JoinHandle<()>>,
}

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    /// With a status such as 403, and an object that says so.
    Refuses(u16),
    /// With what is no JSON.
    Babbles,
    /// Lists are without an end, and so is the first line of a watch.
    Endless,
}

/// A pod for it to know.
#[derive(Clone, Debug, Default)]
pub struct PodOf {
    pub namespace: &'static str,
    pub name: &'static str,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Name and id.
    pub containers: Vec<(&'static str, String)>,
}

#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    version: u64,
    pods: BTreeMap<String, Value>,
    /// What happened, by version.
    events: Vec<(u64, String)>,
    /// Versions before this one are not remembered.
    oldest: u64,
    mood: Mood,
    /// Connections of another age are cut.
    age: u64,
    stopped: bool,
    requests: Vec<String>,
}

impl PodOf {
    #[must_use]
    pub fn new(namespace: &'static str, name: &'static str) -> Self {
        Self { namespace, name, uid: uid(name), ..Self::default() }
    }

    #[must_use]
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    #[must_use]
    pub fn with(mut self, container: &'static str, id: &str) -> Self {
        self.containers.push((container, id.to_owned()));
        self
    }

    /// As the API has it (`v1.Pod`), with some of what nobody asks for.
    fn object(&self, version: u64) -> Value {
        let statuses: Vec<Value> = self
            .containers
            .iter()
            .map(
                |(name, id)| json!({"name": name, "containerID": format!("containerd://{id}"), "ready": true, "restartCount": 0}),
            )
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "uid": self.uid,
                "resourceVersion": version.to_string(),
                "labels": self.labels,
                "annotations": self.annotations,
                "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}],
            },
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "containerStatuses": statuses},
        })
    }
}

/// One that looks like one, and is the same for the same name.
fn uid(name: &str) -> String {
    let sum = name.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("{:08x}-1b3e-4c8d-9f00-aa11bb22cc33", sum & 0xffff_ffff)
}

impl ApiServer {
    /// Begins to serve on a free port.
    pub fn start() -> Result<Self> {
        let mut server = Self::nowhere()?;
        server.begin()?;
        Ok(server)
    }

    /// One that is not there yet, at an address that it will have.
    pub fn nowhere() -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Self { address, shared: Arc::default(), accepts: None })
    }

    /// It is there (again), with what it knew.
    pub fn begin(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).with_context(|| format!("{} again", self.address))?;
        listener.set_nonblocking(true)?;
        self.shared.change(|known| known.stopped = false);
        let shared = Arc::clone(&self.shared);
        self.accepts = Some(thread::spawn(move || shared.accept(&listener)));
        Ok(())
    }

    /// It is not there any more: connections are cut, and others refused.
    pub fn stop(&mut self) {
        self.shared.change(|known| known.stopped = true);
        self.cut();
        let _ = self.accepts.take().map(JoinHandle::join);
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.change(|known| known.age += 1);
    }

    /// Cuts every connection, and does not remember afterwards what happened up to then; nor that a pod has gone meanwhile.
    pub fn forget(&self, gone: &PodOf) {
        self.shared.change(|known| {
            known.pods.remove(&gone.uid);
            known.version += 1;
            known.oldest = known.version;
            known.events.clear();
            known.age += 1;
        });
    }

    pub fn answer(&self, mood: Mood) {
        self.shared.change(|known| known.mood = mood);
        self.cut();
    }

    /// A pod is there, or is not as it was.
    pub fn apply(&self, pod: &PodOf) {
        self.shared.change(|known| {
            known.version += 1;
            let (version, object) = (known.version, pod.object(known.version));
            let before = known.pods.insert(pod.uid.clone(), object.clone());
            let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
            known.events.push((version, json!({"type": kind, "object": object}).to_string()));
        });
    }

    pub fn delete(&self, pod: &PodOf) {
        self.shared.change(|known| {
            known.version += 1;
            known.pods.remove(&pod.uid);
            let event = json!({"type": "DELETED", "object": pod.object(known.version)});
            known.events.push((known.version, event.to_string()));
        });
    }

    /// A line that whoever watches gets.
    pub fn say(&self, line: &str) {
        self.shared.change(|known| {
            known.version += 1;
            known.events.push((known.version, line.to_owned()));
        });
    }

    /// What was asked for so far, watches or lists.
    #[must_use]
    pub fn asked(&self, watches: bool) -> Vec<String> {
        self.shared.known().requests.iter().filter(|path| path.contains("watch=true") == watches).cloned().collect()
    }

    /// Writes a kubeconfig that leads here.
    pub fn kubeconfig(&self, path: &Path) -> Result<()> {
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
        });
        fs::write(path, text.to_string()).with_context(|| path.display().to_string())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known());
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while !self.known().stopped {
            match listener.accept() {
                Ok((stream, _)) => {
                    let shared = Arc::clone(self);
                    // Who asks may go at any time, and is not missed.
                    thread::spawn(move || drop(shared.serve(&stream)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(BEAT),
                Err(_) => return,
            }
        }
    }

    /// Answers one question, and closes.
    fn serve(&self, stream: &TcpStream) -> Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let age = self.known().age;
        let mut lines = BufReader::new(stream).lines();
        let asked = lines.next().context("no question")??;
        let path = asked.split(' ').nth(1).context("no path")?.to_owned();
        let mut authorized = false;
        for line in lines {
            let line = line?;
            authorized |= line.eq_ignore_ascii_case(&format!("authorization: bearer {TOKEN}"));
            if line.is_empty() {
                break;
            }
        }
        let mood = {
            let mut known = self.known();
            known.requests.push(path.clone());
            if authorized { known.mood } else { Mood::Refuses(401) }
        };
        let done = match mood {
            Mood::Refuses(code) => answer(stream, code, &refusal(code).to_string()),
            Mood::Babbles => answer(stream, 200, "{\"kind\": \"PodList\", \"items\": [{]}\n"),
            Mood::Endless => self.endless(stream, age),
            Mood::Well if path.starts_with("/api/v1/pods?") && of_node(&path) => match parameter(&path, "watch") {
                Some("true") => self.watch(stream, &path, age),
                _ => answer(stream, 200, &self.list().to_string()),
            },
            Mood::Well => answer(stream, 404, &refusal(404).to_string()),
        };
        let _ = stream.shutdown(Shutdown::Both);
        done
    }

    fn list(&self) -> Value {
        let known = self.known();
        json!({
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": known.version.to_string()},
            "items": known.pods.values().collect::<Vec<_>>(),
        })
    }

    /// One line an event, from a version on, until it is over.
    fn watch(&self, mut stream: &TcpStream, path: &str, age: u64) -> Result<()> {
        begin(stream, 200)?;
        let mut told: u64 = parameter(path, "resourceVersion").context("no version")?.parse()?;
        let seconds: u64 = parameter(path, "timeoutSeconds").context("it would never end")?.parse()?;
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let known = self.known();
            let gone = told < known.oldest;
            let new: Vec<(u64, String)> = known.events.iter().filter(|(version, _)| *version > told).cloned().collect();
            if known.age != age {
                return Ok(());
            }
            if gone {
                drop(known);
                writeln!(stream, "{}", json!({"type": "ERROR", "object": refusal(410)}))?;
                return Ok(());
            }
            if new.is_empty() {
                // Spurious or not: it is looked at again.
                drop(self.changed.wait_timeout(known, BEAT * 5));
                continue;
            }
            drop(known);
            for (version, line) in new {
                writeln!(stream, "{line}")?;
                told = version;
            }
        }
        Ok(())
    }

    fn endless(&self, mut stream: &TcpStream, age: u64) -> Result<()> {
        begin(stream, 200)?;
        stream.write_all(b"{\"kind\": \"PodList\", \"items\": [\"")?;
        while self.known().age == age {
            stream.write_all(&[b'x'; 1 << 16])?;
        }
        Ok(())
    }
}

fn of_node(path: &str) -> bool {
    parameter(path, "fieldSelector").is_some_and(|selector| selector == "spec.nodeName%3Dn1" || selector == "spec.nodeName=n1")
}

fn parameter<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('='))
}

/// `metav1.Status`.
fn refusal(code: u16) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code})
}

fn begin(mut stream: &TcpStream, code: u16) -> Result<()> {
    write!(stream, "HTTP/1.1 {code} Answer\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")?;
    Ok(())
}

fn answer(mut stream: &TcpStream, code: u16, body: &str) -> Result<()> {
    begin(stream, code)?;
    stream.write_all(body.as_bytes())?;
    Ok(())
}
