//! `[otlp]` of the agent's file: where to, by which protocol, what, and how much may wait.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;

use super::{
    super::config::{duration, human},
    wire::Transport,
};

/// A larger file is no certificate, key or secret.
const MAX_FILE: u64 = 1 << 20;
/// How often metrics may be sent at most, and how rarely.
const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];
/// How long an answer may take.
const TIMEOUTS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];
/// What may wait on disk, bytes: less does not hold the largest batch.
const QUEUES: [u64; 2] = [1 << 20, 64 << 30];
/// Headers that are sent at most.
const MAX_HEADERS: usize = 64;
/// Headers that are the protocols' own.
const RESERVED: [&str; 7] =
    ["content-type", "content-length", "content-encoding", "host", "te", "transfer-encoding", "user-agent"];

/// How requests are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    #[serde(rename = "http/protobuf")]
    Http,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compression {
    #[default]
    Gzip,
    None,
}

/// A header's value: as it stands there, or in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum HeaderText {
    Plain(String),
    InFile(InFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InFile {
    file: PathBuf,
}

/// As it stands there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpText {
    endpoint: String,
    protocol: Protocol,
    headers: BTreeMap<String, HeaderText>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    compression: Compression,
    #[serde(deserialize_with = "duration")]
    timeout: Duration,
    #[serde(deserialize_with = "duration")]
    interval: Duration,
    metrics: bool,
    logs: bool,
    traces: bool,
    profiles: bool,
    queue: Option<PathBuf>,
    queue_bytes: u64,
    #[serde(deserialize_with = "duration")]
    span_lived: Duration,
    #[serde(deserialize_with = "duration")]
    span_blocked: Duration,
    max_spans: usize,
}

impl Default for OtlpText {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: Protocol::default(),
            headers: BTreeMap::new(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            compression: Compression::default(),
            timeout: Duration::from_secs(10),
            interval: Duration::from_secs(60),
            metrics: true,
            logs: true,
            traces: true,
            profiles: false,
            queue: None,
            queue_bytes: 256 << 20,
            span_lived: Duration::from_secs(60),
            span_blocked: Duration::from_secs(10),
            max_spans: 200,
        }
    }
}

/// Certificates, in PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who may have signed the receiver's certificate; `None`: whom the system trusts.
    pub ca: Option<Vec<u8>>,
    /// Our own certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    pub metrics: bool,
    pub logs: bool,
    pub traces: bool,
    pub profiles: bool,
}

/// Which goroutines are told as spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Long {
    /// Those that live for so long; `None`: no life.
    pub lived: Option<Duration>,
    /// Waits that last so long; `None`: no wait.
    pub blocked: Option<Duration>,
    /// So many each time at most.
    pub max: usize,
}

/// What `[otlp]` says.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Without a slash at its end.
    pub endpoint: String,
    pub protocol: Protocol,
    /// Names in small letters. Values may be secret.
    pub headers: Vec<(String, String)>,
    pub tls: Tls,
    pub gzip: bool,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Between two batches of metrics.
    pub interval: Duration,
    pub signals: Signals,
    /// Where batches wait; `None`: in memory.
    pub queue: Option<PathBuf>,
    pub queue_bytes: u64,
    pub long: Long,
}

impl Settings {
    /// Whether what is sent can be read on its way to another host.
    pub fn is_in_the_clear(&self) -> bool {
        let Ok(uri) = self.endpoint.parse::<Uri>() else { return false };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        uri.scheme_str() == Some("http") && !here
    }
}

impl TryFrom<OtlpText> for Settings {
    type Error = String;

    /// Reads the files that it names; what is wrong with it is said with the key.
    fn try_from(text: OtlpText) -> Result<Self, String> {
        let endpoint = endpoint(&text.endpoint, text.protocol)?;
        if text.headers.len() > MAX_HEADERS {
            return Err(format!("otlp.headers: at most {MAX_HEADERS}"));
        }
        within("otlp.timeout", text.timeout, TIMEOUTS)?;
        within("otlp.interval", text.interval, INTERVALS)?;
        if !(QUEUES[0]..=QUEUES[1]).contains(&text.queue_bytes) {
            return Err(format!("otlp.queue_bytes: from {} to {}", QUEUES[0], QUEUES[1]));
        }
        if text.queue.as_ref().is_some_and(|queue| !queue.is_absolute()) {
            return Err("otlp.queue: a path that begins with /".to_owned());
        }
        if !(1..=10_000).contains(&text.max_spans) {
            return Err("otlp.max_spans: from 1 to 10000".to_owned());
        }
        let identity = match (&text.cert_file, &text.key_file) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            (None, None) => None,
            _ => return Err("otlp.cert_file and otlp.key_file: give both, or none".to_owned()),
        };
        let tls = Tls { ca: text.ca_file.as_deref().map(read).transpose()?, identity };
        if tls != Tls::default() && endpoint.starts_with("http://") {
            return Err("otlp.endpoint: certificates mean nothing to http://: write https://".to_owned());
        }
        let some = |time: Duration| Some(time).filter(|time| !time.is_zero());
        let settings = Self {
            endpoint,
            protocol: text.protocol,
            headers: text.headers.into_iter().map(header).collect::<Result<_, _>>()?,
            tls,
            gzip: text.compression == Compression::Gzip,
            timeout: text.timeout,
            interval: text.interval,
            signals: Signals { metrics: text.metrics, logs: text.logs, traces: text.traces, profiles: text.profiles },
            queue: text.queue.or_else(state_directory),
            queue_bytes: text.queue_bytes,
            long: Long { lived: some(text.span_lived), blocked: some(text.span_blocked), max: text.max_spans },
        };
        // Certificates are understood there.
        Transport::new(&settings).map_err(|error| format!("otlp: {error:#}"))?;
        Ok(settings)
    }
}

fn within(key: &str, time: Duration, [shortest, longest]: [Duration; 2]) -> Result<(), String> {
    let fits = (shortest..=longest).contains(&time);
    if fits { Ok(()) } else { Err(format!("{key}: from {} to {}", human(shortest), human(longest))) }
}

/// A URL that names a host, and for gRPC nothing behind it.
fn endpoint(text: &str, protocol: Protocol) -> Result<String, String> {
    let wanted = "otlp.endpoint: a URL is wanted, such as \"http://127.0.0.1:4317\" (gRPC) or \"https://collector:4318\" (HTTP)";
    let uri: Uri = text.parse().map_err(|_| wanted.to_owned())?;
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if !matches!(uri.scheme_str(), Some("http" | "https")) || !has_host || uri.query().is_some() {
        return Err(wanted.to_owned());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("otlp.endpoint: a name and a password belong into otlp.headers".to_owned());
    }
    if protocol == Protocol::Grpc && !matches!(uri.path(), "" | "/") {
        return Err("otlp.endpoint: gRPC takes no path".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn header((name, value): (String, HeaderText)) -> Result<(String, String), String> {
    let value = match value {
        HeaderText::Plain(value) => value,
        HeaderText::InFile(InFile { file }) => {
            String::from_utf8(read(&file)?).map_err(|_| format!("{} is no text", file.display()))?.trim().to_owned()
        }
    };
    let name = name.to_ascii_lowercase();
    let is_ours = RESERVED.contains(&name.as_str()) || name.starts_with("grpc-") || name.ends_with("-bin");
    let fits = |value: &str| HeaderValue::from_str(value).is_ok() && value.is_ascii();
    if is_ours || HeaderName::from_bytes(name.as_bytes()).is_err() || !fits(&value) {
        // The value may be secret.
        return Err(format!("otlp.headers: {name:?} cannot be sent"));
    }
    Ok((name, value))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = |bytes: &mut Vec<u8>| -> io::Result<usize> { fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(bytes) };
    match read(&mut bytes) {
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        Ok(_) if bytes.len() as u64 > MAX_FILE => Err(format!("{} is larger than {MAX_FILE} bytes", path.display())),
        Ok(_) => Ok(bytes),
    }
}

/// The folder that a service manager gives (systemd.exec(5), `StateDirectory=`), and one of ours in it.
fn state_directory() -> Option<PathBuf> {
    let given = env::var_os("STATE_DIRECTORY")?;
    let first = env::split_paths(&given).next()?;
    first.is_absolute().then(|| first.join("otlp"))
}

/// Without what may be secret.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signals { metrics, logs, traces, profiles } = self.signals;
        let all = [(metrics, "metrics"), (logs, "logs"), (traces, "traces"), (profiles, "profiles")];
        let signals: Vec<&str> = all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        let protocol = match self.protocol {
            Protocol::Grpc => "gRPC",
            Protocol::Http => "HTTP",
        };
        let clear = if self.is_in_the_clear() { ", in the clear" } else { "" };
        write!(f, "{} by {protocol}{clear}: {} every {}; ", self.endpoint, signals.join(", "), human(self.interval))?;
        match &self.queue {
            Some(queue) => write!(f, "up to {} bytes wait in {}", self.queue_bytes, queue.display()),
            None => write!(f, "what waits is kept in memory alone"),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        let text: OtlpText = toml::from_str(text).map_err(|error| error.to_string())?;
        Settings::try_from(text)
    }

    /// Check what is sent where if nothing but a receiver is named, and that secrets come out of files and are not told.
    #[test]
    fn understood() {
        let settings = parse("endpoint = \"http://127.0.0.1:4317/\"").unwrap();
        assert_eq!((settings.endpoint.as_str(), settings.protocol), ("http://127.0.0.1:4317", Protocol::Grpc));
        let signals = Signals { metrics: true, logs: true, traces: true, profiles: false };
        assert_eq!((settings.signals, settings.gzip, settings.is_in_the_clear()), (signals, true, false));
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "Bearer hush\n").unwrap();
        let text = format!(
            "endpoint = \"http://collector:4318/otlp\"\nprotocol = \"http/protobuf\"\nqueue = \"/var/lib/q\"\nspan_lived = \"0\"\n\
             profiles = true\n[headers]\nX-Scope = \"shop\"\nauthorization = {{ file = {secret:?} }}\n"
        );
        let settings = parse(&text).unwrap();
        assert!(settings.headers.contains(&("authorization".into(), "Bearer hush".into())), "{:?}", settings.headers);
        assert!(settings.headers.contains(&("x-scope".into(), "shop".into())), "{:?}", settings.headers);
        assert_eq!(settings.long, Long { lived: None, blocked: Some(Duration::from_secs(10)), max: 200 });
        let said = format!("{settings} {settings:?}");
        assert!(said.contains("by HTTP, in the clear: metrics, logs, traces, profiles every 1m"), "{said}");
        assert!(said.contains("wait in /var/lib/q") && !said.contains("hush"), "{said}");
    }

    /// Check that what makes no sense is refused, with its key, and that no secret is quoted.
    #[test]
    fn refusals() {
        let to = "endpoint = \"http://a:1\"\n";
        for (text, part) in [
            (String::new(), "a URL is wanted"),
            ("endpoint = \"collector:4317\"".into(), "a URL is wanted"),
            ("endpoint = \"ftp://collector\"".into(), "a URL is wanted"),
            ("endpoint = \"http://a:b@c\"".into(), "belong into otlp.headers"),
            ("endpoint = \"http://a:1/b\"".into(), "gRPC takes no path"),
            (format!("{to}protocol = \"http/json\""), "unknown variant"),
            (format!("{to}colour = 1"), "unknown field"),
            (format!("{to}interval = \"1ms\""), "otlp.interval: from 1s"),
            (format!("{to}timeout = \"2m\""), "otlp.timeout"),
            (format!("{to}queue_bytes = 5"), "otlp.queue_bytes"),
            (format!("{to}queue = \"here\""), "begins with /"),
            (format!("{to}max_spans = 0"), "otlp.max_spans"),
            (format!("{to}cert_file = \"/a\""), "give both"),
            (format!("{to}ca_file = \"/nowhere\""), "/nowhere cannot be read"),
            (format!("{to}ca_file = \"/dev/null\""), "write https://"),
            ("endpoint = \"https://a:1\"\nca_file = \"/dev/null\"".into(), "otlp: "),
            ("endpoint = \"https://a:1\"\nprotocol = \"http/protobuf\"\nca_file = \"/dev/null\"".into(), "no certificate"),
            (format!("{to}headers = {{ host = \"hush\" }}"), "\"host\" cannot be sent"),
            (format!("{to}headers = {{ a = \"hush\\nb: c\" }}"), "\"a\" cannot be sent"),
            (format!("{to}headers = {{ a = {{ file = \"/nowhere\" }} }}"), "/nowhere cannot be read"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(part) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
