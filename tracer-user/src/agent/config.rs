//! The agent's file: whom to follow, in which detail, and where to serve. Pure but for reading it.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Deserializer, de::Error as _};

#[cfg(feature = "otlp")]
use super::otlp::settings::{OtlpText, Settings};
use super::{
    doors::tls::{Files, Tls, TlsError},
    kubernetes::{conditions::Conditions, pod::Keep, settings},
    policy::{Action, Kind, Policy, Rule},
    record,
};
use crate::{
    governor::{self, Care},
    kernel::features,
    recording::contract::{MIN_BLOCKS, Tier},
};

/// A larger file is none of ours.
const MAX_BYTES: u64 = 1 << 20;
/// Rules that are read at most.
const MAX_RULES: usize = 1000;
/// The shortest life of a recording, and the longest: what a recording keeps grows with it.
const RENEWALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(86_400)];
/// The shortest time between two looks.
const MIN_LOOK: Duration = Duration::from_millis(250);
/// Letters of a node's name: a DNS name has no more.
const MAX_NODE: usize = 253;
/// A token that is shorter can be guessed.
const MIN_TOKEN: usize = 16;

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path} cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} makes no sense")]
    Toml {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{path}: {what}")]
    Wrong { path: PathBuf, what: String },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[cfg(feature = "segments")]
    #[error("{path}")]
    Segments {
        path: PathBuf,
        #[source]
        source: super::segments::settings::SettingsError,
    },
}

/// What the file says.
#[derive(Debug)]
pub struct Config {
    /// What this host is called in everything that leaves it.
    pub node: String,
    pub listen: SocketAddr,
    /// Who asks must show it, or a certificate. Neither: the doors are on loopback, and open.
    pub token: Option<String>,
    pub tls: Option<Tls>,
    /// What may be followed of a program of which no rule says anything else, and what that may cost it.
    pub care: Care,
    /// What all programs that have a budget may pay together, as a share of all CPUs; `None`: no matter.
    pub node_budget: Option<f64>,
    pub min_block: Option<Duration>,
    pub snapshot_every: Option<Duration>,
    /// How long one recording lasts.
    pub renew: Duration,
    /// Programs, and creation sites of each, that have series of their own.
    pub programs: usize,
    pub sites: usize,
    pub policy: Policy,
    /// `None`: no window is kept.
    pub record: Option<record::Settings>,
    /// How pods are known, and what of them; `None`: they are not.
    pub kubernetes: Option<(settings::Settings, Keep)>,
    #[cfg(feature = "segments")]
    pub segments: Option<super::segments::settings::Settings>,
    /// Where OTLP goes; `None`: nowhere.
    #[cfg(feature = "otlp")]
    pub otlp: Option<Settings>,
}

/// As it stands there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Text {
    node: Option<String>,
    listen: SocketAddr,
    token_file: Option<PathBuf>,
    tls: Option<Files>,
    tier: TierText,
    budget: Percent,
    node_budget: Percent,
    #[serde(deserialize_with = "some_duration")]
    min_block: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    snapshot_every: Duration,
    #[serde(deserialize_with = "duration")]
    renew: Duration,
    programs: usize,
    sites: usize,
    rule: Vec<RuleText>,
    record: Option<record::Text>,
    kubernetes: Option<settings::Text>,
    #[cfg(feature = "segments")]
    segments: Option<super::segments::settings::SettingsText>,
    #[cfg(feature = "otlp")]
    otlp: Option<OtlpText>,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            node: None,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464),
            token_file: None,
            tls: None,
            tier: TierText::T2,
            budget: Percent(Some(0.01)),
            node_budget: Percent(None),
            min_block: None,
            snapshot_every: Duration::from_secs(60),
            renew: Duration::from_secs(3600),
            programs: 200,
            sites: 50,
            rule: Vec::new(),
            record: None,
            kubernetes: None,
            #[cfg(feature = "segments")]
            segments: None,
            #[cfg(feature = "otlp")]
            otlp: None,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
pub(super) enum TierText {
    T1,
    T2,
    T3,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    action: ActionText,
    exe: Option<PathGlob>,
    cgroup: Option<PathGlob>,
    container: Option<ContainerText>,
    #[serde(default)]
    kind: KindText,
    tier: Option<TierText>,
    budget: Option<Percent>,
    namespace: Option<NameGlob>,
    pod: Option<NameGlob>,
    #[serde(default)]
    labels: BTreeMap<String, NameGlob>,
    #[serde(default)]
    annotations: BTreeMap<String, NameGlob>,
}

/// In one at all, or in one that is called so.
#[derive(Deserialize)]
#[serde(untagged, expecting = "true, false, or a pattern of a container's name is wanted")]
enum ContainerText {
    Any(bool),
    Named(NameGlob),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActionText {
    Follow,
    Ignore,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindText {
    #[default]
    Go,
    Any,
}

/// `*` stays within a folder, `**` does not.
struct PathGlob(GlobMatcher);

impl<'de> Deserialize<'de> for PathGlob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let glob = GlobBuilder::new(&text).literal_separator(true).build().map_err(D::Error::custom)?;
        Ok(Self(glob.compile_matcher()))
    }
}

/// `*` is any number of any letters.
struct NameGlob(GlobMatcher);

impl<'de> Deserialize<'de> for NameGlob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        GlobBuilder::new(&text).build().map(|glob| Self(glob.compile_matcher())).map_err(D::Error::custom)
    }
}

/// `none` is no limit.
pub(super) struct Percent(pub(super) Option<f64>);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "none" {
            return Ok(Self(None));
        }
        let wanted = "a percentage above 0 % and up to 100 % is wanted, such as \"1%\", or \"none\" for no limit";
        governor::share(&text).map(|share| Self(Some(share))).ok_or_else(|| D::Error::custom(wanted))
    }
}

/// Such as `"10s"`; `"0"` has no unit.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(&text).map_err(D::Error::custom) }
}

pub(super) fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(|time| Some(time).filter(|time| !time.is_zero()))
}

impl Config {
    /// The most that may ever be followed of anybody.
    pub fn most(&self) -> Tier {
        let most = self.most_at_first();
        self.record.as_ref().map_or(most, |record| most.max(record.tier))
    }

    /// And while no window is kept.
    fn most_at_first(&self) -> Tier {
        let by_pod = self.kubernetes.as_ref().is_some_and(|(settings, _)| settings.annotations) && self.min_block.is_none();
        if by_pod { Tier::T3 } else { self.policy.most() }
    }

    /// Reads a file, and the token that it names.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let toml = |source| ConfigError::Toml { path: path.into(), source: Box::new(source) };
        #[cfg_attr(not(feature = "segments"), expect(unused_mut, reason = "segments may renew sooner"))]
        let mut text: Text = toml::from_str(text).map_err(toml)?;
        let wrong = |what: String| Err(ConfigError::Wrong { path: path.into(), what });
        let [shortest, longest] = RENEWALS;
        if !(shortest..=longest).contains(&text.renew) {
            return wrong(format!("renew: from {} to {}", human(shortest), human(longest)));
        }
        if !text.snapshot_every.is_zero() && text.snapshot_every < MIN_LOOK {
            return wrong(format!("snapshot_every: at most every {}, or \"0\" for never", human(MIN_LOOK)));
        }
        if text.min_block.is_some_and(|time| !(MIN_BLOCKS[0]..=MIN_BLOCKS[1]).contains(&time)) {
            return wrong("min_block: from 1us to 1s".to_owned());
        }
        if text.rule.len() > MAX_RULES {
            return wrong(format!("{} rules: at most {MAX_RULES}", text.rule.len()));
        }
        let care = Care { tier: text.tier.into(), budget: text.budget.0 };
        let policy = Policy::new(text.rule.into_iter().map(Rule::from).collect(), care);
        let record = match text.record.map(record::Settings::understand).transpose() {
            Ok(record) => record,
            Err(what) => return wrong(what),
        };
        let most = record.as_ref().map_or(policy.most(), |record| policy.most().max(record.tier));
        if text.min_block.is_some() && most == Tier::T3 {
            return wrong("tier T3 tells every change of state, and min_block sums waits: give one of them (rules and [record] have a tier as well)".to_owned());
        }
        if !(1..=10_000).contains(&text.programs) || !(1..=1000).contains(&text.sites) {
            return wrong("programs: from 1 to 10000; sites: from 1 to 1000".to_owned());
        }
        let token = text.token_file.as_deref().map(read_token).transpose()?;
        let tls = text.tls.map(Tls::read).transpose()?;
        let guarded = token.is_some() || tls.as_ref().is_some_and(Tls::is_mutual);
        if !guarded && !text.listen.ip().is_loopback() {
            return wrong(format!(
                "listen: {} can be reached from outside: name a token_file or [tls] client_ca_file, or listen on 127.0.0.1",
                text.listen
            ));
        }
        let Some(node) = text.node.or_else(own_node).filter(|node| is_name(node)) else {
            return wrong(format!("node: letters, digits, dots, dashes and underscores, at most {MAX_NODE}"));
        };
        let settings = settings::Settings::of(text.kubernetes).or_else(|what| wrong(what).map(|_| None))?;
        if settings.is_none() && policy.asks_for_pods() {
            return wrong(
                "rule: namespace, pod, labels, annotations and the name of a container want a section [kubernetes]".to_owned(),
            );
        }
        let keep = |settings: &settings::Settings| Keep {
            node: node.as_str().into(),
            annotations: policy.annotations(),
            wishes: settings.annotations,
        };
        let kubernetes = settings.map(|settings| (settings.clone(), keep(&settings)));
        #[cfg(feature = "segments")]
        let segments = {
            let wrong = |source| ConfigError::Segments { path: path.into(), source };
            text.segments.map(|text| text.understood().map_err(wrong)).transpose()?
        };
        #[cfg(feature = "segments")]
        if let Some(every) = segments.as_ref().and_then(|segments| segments.every) {
            if !(shortest..=longest).contains(&every) {
                return wrong(format!("segments.every: from {} to {}", human(shortest), human(longest)));
            }
            text.renew = text.renew.min(every);
        }
        #[cfg(feature = "otlp")]
        let otlp = match text.otlp.map(Settings::try_from).transpose() {
            Ok(otlp) => otlp,
            Err(what) => return wrong(what),
        };
        Ok(Self {
            node,
            listen: text.listen,
            token,
            tls,
            care,
            node_budget: text.node_budget.0,
            min_block: text.min_block,
            snapshot_every: Some(text.snapshot_every).filter(|every| !every.is_zero()),
            renew: text.renew,
            programs: text.programs,
            sites: text.sites,
            policy,
            record,
            kubernetes,
            #[cfg(feature = "segments")]
            segments,
            #[cfg(feature = "otlp")]
            otlp,
        })
    }
}

impl From<RuleText> for Rule {
    fn from(text: RuleText) -> Self {
        let (in_container, container) = match text.container {
            Some(ContainerText::Any(wanted)) => (Some(wanted), None),
            Some(ContainerText::Named(glob)) => (None, Some(glob.0)),
            None => (None, None),
        };
        Self {
            action: match text.action {
                ActionText::Follow => Action::Follow,
                ActionText::Ignore => Action::Ignore,
            },
            exe: text.exe.map(|glob| glob.0),
            cgroup: text.cgroup.map(|glob| glob.0),
            container: in_container,
            kind: match text.kind {
                KindText::Go => Kind::Go,
                KindText::Any => Kind::Any,
            },
            tier: text.tier.map(Tier::from),
            budget: text.budget.map(|budget| budget.0),
            pods: Conditions {
                namespace: text.namespace.map(|glob| glob.0),
                pod: text.pod.map(|glob| glob.0),
                container,
                labels: globs(text.labels),
                annotations: globs(text.annotations),
            },
        }
    }
}

impl From<TierText> for Tier {
    fn from(text: TierText) -> Self {
        match text {
            TierText::T1 => Self::T1,
            TierText::T2 => Self::T2,
            TierText::T3 => Self::T3,
        }
    }
}

fn globs(all: BTreeMap<String, NameGlob>) -> BTreeMap<String, GlobMatcher> {
    all.into_iter().map(|(key, glob)| (key, glob.0)).collect()
}

impl Config {
    /// What who asks has to show, and how.
    fn guard(&self) -> String {
        let encrypted = if self.tls.is_some() { ", by TLS" } else { "" };
        let shown = match (self.token.is_some(), self.tls.as_ref().is_some_and(Tls::is_mutual)) {
            (false, false) => "",
            (true, false) => ", with a token",
            (false, true) => ", with a certificate",
            (true, true) => ", with a certificate or a token",
        };
        format!("{encrypted}{shown}")
    }
}

/// What it comes to, in a line each.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looks = self.snapshot_every.map_or_else(|| "never".to_owned(), |every| format!("every {}", human(every)));
        writeln!(f, "is called       {}", self.node)?;
        writeln!(f, "listens on      {}{}", self.listen, self.guard())?;
        if self.token.is_some() && self.tls.is_none() && !self.listen.ip().is_loopback() {
            writeln!(f, "                the token goes over the network in clear: name [tls] cert_file and key_file")?;
        }
        writeln!(f, "follows         {}", self.policy)?;
        let Care { tier, budget } = self.care;
        match budget.map(governor::percent) {
            Some(budget) => writeln!(f, "in detail       {tier:?} at most, for {budget} % of a program's CPU time")?,
            None => writeln!(f, "in detail       {tier:?}, whatever that costs a program")?,
        }
        if let Some(budget) = self.node_budget.map(governor::percent) {
            writeln!(f, "all together    for {budget} % of all CPUs")?;
        }
        if let Some(short) = self.min_block {
            writeln!(f, "sums            waits and lives below {}", human(short))?;
        }
        writeln!(f, "reads memory    {looks}")?;
        writeln!(f, "begins anew     every {}", human(self.renew))?;
        #[cfg(feature = "segments")]
        if let Some(segments) = &self.segments {
            writeln!(f, "segments        {segments}")?;
        }
        if let Some(record) = &self.record {
            writeln!(f, "keeps           {record}")?;
            if record.when.delay_p99.is_some() && self.most_at_first() < Tier::T3 {
                writeln!(
                    f,
                    "                waits for a CPU are known at T3 alone, which nothing here allows: delay_p99 finds none"
                )?;
            }
        }
        #[cfg(feature = "otlp")]
        if let Some(otlp) = &self.otlp {
            writeln!(f, "sends OTLP to   {otlp}")?;
        }
        writeln!(f, "series          of {} programs, of {} creation sites each", self.programs, self.sites)?;
        self.kubernetes.as_ref().map_or(Ok(()), |(settings, _)| writeln!(f, "asks for pods   {settings}"))
    }
}

pub(super) fn human(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// What Kubernetes calls the node, where the manifest hands that on; else what the host calls itself.
fn own_node() -> Option<String> {
    let told = env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    told.or_else(|| Some(features::hostname()))
}

/// It becomes part of labels, paths and addresses: nothing in it means anything there.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=MAX_NODE).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.into(), source };
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::Wrong { path: path.into(), what: format!("it is larger than {MAX_BYTES} bytes") });
    }
    Ok(text)
}

fn read_token(path: &Path) -> Result<String, ConfigError> {
    let text = read_text(path)?;
    let token = text.trim();
    if token.len() < MIN_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!("a token is a line of {MIN_TOKEN} letters, digits and signs or more");
        return Err(ConfigError::Wrong { path: path.into(), what });
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml")).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    /// Check that an empty file means every Go program, on loopback, for 1 %.
    #[test]
    fn defaults() {
        let config = parse("node = \"n1.shop\"").unwrap();
        assert_eq!(
            config.to_string(),
            "is called       n1.shop\n\
             listens on      127.0.0.1:9464\n\
             follows         every Go program\n\
             in detail       T2 at most, for 1 % of a program's CPU time\n\
             reads memory    every 1m\n\
             begins anew     every 1h\n\
             series          of 200 programs, of 50 creation sites each\n"
        );
    }

    /// Check that everything that can be said is understood.
    #[test]
    fn everything() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        fs::write(&token, "0123456789abcdef\n").unwrap();
        let text = format!(
            "listen = \"0.0.0.0:9000\"\ntoken_file = {token:?}\ntier = \"T1\"\nbudget = \"0.5 %\"\nnode_budget = \"0.25%\"\nmin_block = \"1ms\"\n\
             snapshot_every = \"0\"\nrenew = \"10m\"\nprograms = 3\nsites = 2\n\
             [[rule]]\naction = \"ignore\"\nexe = \"/usr/bin/*\"\n\
             [[rule]]\naction = \"follow\"\ncgroup = \"/kubepods.slice/**\"\ncontainer = true\nkind = \"any\"\n\
             tier = \"T2\"\nbudget = \"none\"\n"
        );
        let config = parse(&text).unwrap();
        assert_eq!(config.token.as_deref(), Some("0123456789abcdef"));
        assert!(config.care.budget.is_some_and(|budget| (budget - 0.005).abs() < 1e-9));
        assert!(parse("budget = \"none\"").unwrap().to_string().contains("whatever that costs"));
        let said = config.to_string();
        for part in [
            "0.0.0.0:9000, with a token",
            "together    for 0.25 % of all CPUs",
            "T1 at most, for 0.5 %",
            "below 1ms",
            "memory    never",
            "every 10m",
            "of 3 programs",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(
            said.contains("not /usr/bin/* (Go); any program in a container of /kubepods.slice/** at T2 whatever that costs"),
            "{said}"
        );
    }

    /// Check that a trigger which nothing can set off is told of.
    #[test]
    fn delays_take_detail() {
        let said = |more: &str| {
            let record = "[record]\ndir = \"/a\"\nwhen = { delay_p99 = \"100ms\" }\n";
            parse(&format!("{more}\n{record}")).unwrap().to_string().contains("delay_p99 finds none")
        };
        assert!(said("") && said("tier = \"T1\""));
        assert!(!said("tier = \"T3\""));
    }

    /// Check that what makes no sense is refused, with the place and the way out.
    #[test]
    fn refusals() {
        for (text, part) in [
            ("listen = \"0.0.0.0:9464\"", "name a token_file"),
            ("[tls]\ncert_file = \"/nowhere/cert.pem\"", "missing field `key_file`"),
            ("[tls]\ncert_file = \"/nowhere/cert.pem\"\nkey_file = \"/nowhere/key.pem\"", "/nowhere/cert.pem cannot be read"),
            ("[tls]\ncert_file = \"/dev/null\"\nkey_file = \"/dev/null\"", "/dev/null has no certificate"),
            ("listen = \"localhost\"", "line 1"),
            ("node = \"a/b\"", "node: letters, digits"),
            ("node = \"..\"", "node: letters, digits"),
            ("colour = \"red\"", "unknown field `colour`"),
            ("budget = \"0%\"", "above 0 %"),
            ("budget = \"1\"", "above 0 %"),
            ("tier = \"T0\"", "unknown variant `T0`"),
            ("tier = \"T3\"\nmin_block = \"1ms\"", "give one of them"),
            ("min_block = \"1ms\"\n[[rule]]\naction = \"follow\"\ntier = \"T3\"", "give one of them"),
            ("[[rule]]\naction = \"follow\"\ncontainer = \"app\"", "want a section [kubernetes]"),
            ("[[rule]]\naction = \"follow\"\ncontainer = 1", "true, false, or a pattern"),
            ("[record]\ndir = \"a\"", "not a whole path"),
            ("[record]\ndir = \"/a\"\nbefore = \"1h\"", "record.before: from 1s to 10m"),
            ("min_block = \"1ms\"\n[record]\ndir = \"/a\"", "[record] have a tier"),
            ("renew = \"100ms\"", "from 1s to 1day"),
            ("min_block = \"1h\"", "from 1us to 1s"),
            ("snapshot_every = \"1ms\"", "at most every 250ms"),
            ("sites = 0", "from 1 to 1000"),
            ("[[rule]]\nexe = \"/a\"", "missing field `action`"),
            ("[[rule]]\naction = \"follow\"\nexe = \"/a[\"", "unclosed"),
            ("token_file = \"/nowhere/token\"", "/nowhere/token cannot be read"),
            ("[[rule]]\naction = \"follow\"\nnamespace = \"shop\"", "want a section [kubernetes]"),
            ("[kubernetes]\nkubeconfig = \"/nowhere/kubeconfig\"", "/nowhere/kubeconfig"),
            ("[kubernetes]\ncolour = \"red\"", "unknown field `colour`"),
            ("[kubernetes]\n[[rule]]\naction = \"follow\"\nlabels = { app = \"[\" }", "unclosed"),
            ("[[rule]", "line 1"),
            #[cfg(feature = "segments")]
            ("[segments]\nstore = \"s3://b\"\nkeep_for = \"1d\"", "lifecycle rules"),
            #[cfg(feature = "segments")]
            ("[segments]\nstore = \"s3://b\"\nevery = \"100ms\"", "every: from 1s to 1day"),
            #[cfg(feature = "otlp")]
            ("[otlp]\nendpoint = \"collector\"", "otlp.endpoint: a URL is wanted"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
