//! The OpenTelemetry Collector, receiving by gRPC and by HTTP, and what it has written of what came.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    deadline::{PATIENCE, wait_for},
    process::Running,
    program,
};

/// Where `cargo xtask test` puts it.
pub const PROGRAM: &str = "otelcol/bin/otelcol";
const SIGNALS: [&str; 4] = ["metrics", "logs", "traces", "profiles"];

/// One that can be stopped and started again at the same addresses, writing into the same files.
pub struct Collector {
    dir: PathBuf,
    /// Of the receivers, as YAML.
    tls: String,
    pub grpc: String,
    pub http: String,
    running: Option<Running>,
}

/// Something that was received: a point, a record, a span.
#[derive(Debug)]
pub struct Item {
    /// As the file has it.
    pub json: Value,
    pub resource: BTreeMap<String, Value>,
    pub attributes: BTreeMap<String, Value>,
}

impl Collector {
    /// Chooses addresses; nobody listens there yet.
    pub fn new(dir: &Path) -> Result<Self> {
        let free = || -> Result<String> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string()) };
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), tls: String::new(), grpc: free()?, http: free()?, running: None })
    }

    /// It shows this certificate, and asks for one that this authority has signed.
    #[must_use]
    pub fn with_tls(mut self, cert: &Path, key: &Path, ca: &Path) -> Self {
        let (cert, key, ca) = (cert.display(), key.display(), ca.display());
        self.tls = format!(", tls: {{cert_file: {cert}, key_file: {key}, client_ca_file: {ca}}}");
        self
    }

    pub fn start(&mut self) -> Result<()> {
        let Self { dir, tls, grpc, http, .. } = &*self;
        let file = dir.join("otelcol.yaml");
        let exporter =
            |signal| format!("  file/{signal}: {{path: {}/{signal}.jsonl, append: true, flush_interval: 50ms}}\n", dir.display());
        let pipeline = |signal| format!("    {signal}: {{receivers: [otlp], exporters: [file/{signal}]}}\n");
        let text = format!(
            "receivers:\n  otlp:\n    protocols:\n      grpc: {{endpoint: \"{grpc}\"{tls}}}\n      http: {{endpoint: \"{http}\"{tls}}}\n\
             exporters:\n{}service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n{}",
            SIGNALS.map(exporter).concat(),
            SIGNALS.map(pipeline).concat()
        );
        fs::write(&file, text)?;
        let mut command = Command::new(program::fetched(PROGRAM));
        command.arg("--feature-gates=service.profilesSupport").arg(format!("--config={}", file.display()));
        let mut running = Running::start(command, None)?;
        wait_for("the collector", PATIENCE, || {
            if running.stderr().contains("Error: ") {
                running.wait_exit()?;
                anyhow::bail!("{}", running.stderr());
            }
            Ok([grpc, http].into_iter().all(|address| TcpStream::connect(address).is_ok()).then_some(()))
        })
        .with_context(|| running.stderr())?;
        self.running = Some(running);
        Ok(())
    }

    /// Ends it as a service manager does: what it has said it took is in its files.
    pub fn stop(&mut self) -> Result<()> {
        let mut running = self.running.take().context("it does not run")?;
        running.signal(Signal::SIGTERM)?;
        ensure!(running.wait_exit()?.success(), "{}", running.stderr());
        Ok(())
    }

    /// It answers nobody from now on, and is still there.
    pub fn suspend(&self) -> Result<()> {
        self.running.as_ref().context("it does not run")?.signal(Signal::SIGSTOP)
    }

    /// It goes on.
    pub fn resume(&self) -> Result<()> {
        self.running.as_ref().context("it does not run")?.signal(Signal::SIGCONT)
    }

    /// All requests of a signal so far, in the order in which they came.
    pub fn requests(&self, signal: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.dir.join(format!("{signal}.jsonl"))).unwrap_or_default();
        // The last line may be on its way.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Everything that was received of a signal.
    pub fn items(&self, signal: &str) -> Result<Vec<Item>> {
        let mut all = Vec::new();
        for request in self.requests(signal)? {
            let (resources, scopes, items) = match signal {
                "metrics" => ("resourceMetrics", "scopeMetrics", "metrics"),
                "logs" => ("resourceLogs", "scopeLogs", "logRecords"),
                "traces" => ("resourceSpans", "scopeSpans", "spans"),
                _ => ("resourceProfiles", "scopeProfiles", "profiles"),
            };
            for of_resource in list(&request, resources) {
                let resource = attributes(&of_resource["resource"]);
                let items = list(of_resource, scopes).flat_map(|scope| list(scope, items));
                for json in items {
                    all.push(Item { json: json.clone(), resource: resource.clone(), attributes: attributes(json) });
                }
            }
        }
        Ok(all)
    }

    /// The numbers of the batches of a signal, in the order in which they came.
    pub fn batches(&self, signal: &str) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = Vec::new();
        for request in self.requests(signal)? {
            let (mut found, strings) = (Vec::new(), &request["dictionary"]["stringTable"]);
            batch_numbers(&request, strings, &mut found);
            found.dedup();
            ensure!(found.len() == 1, "one batch has the numbers {found:?}");
            numbers.extend(found);
        }
        Ok(numbers)
    }
}

/// Numbers of batches anywhere in a request: an attribute, or the only point of a metric. Among profiles keys are in a table.
fn batch_numbers(json: &Value, strings: &Value, found: &mut Vec<u64>) {
    let by_index = || Some(&strings[usize::try_from(json["keyStrindex"].as_u64()?).ok()?]);
    let key = if json["key"].is_string() { Some(&json["key"]) } else { by_index() };
    if key.is_some_and(|key| key == "lifetrace.batch") {
        found.extend(integer(&json["value"]["intValue"]));
    }
    if json["name"] == "lifetrace.batch" {
        found.extend(integer(&json["gauge"]["dataPoints"][0]["asInt"]));
    }
    match json {
        Value::Array(all) => all.iter().for_each(|one| batch_numbers(one, strings, found)),
        Value::Object(all) => all.values().for_each(|one| batch_numbers(one, strings, found)),
        _ => {}
    }
}

fn list<'a>(json: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    json[key].as_array().into_iter().flatten()
}

/// Keys and values, without their types.
#[must_use]
pub fn attributes(json: &Value) -> BTreeMap<String, Value> {
    let pair = |pair: &Value| {
        let value = pair["value"].as_object().and_then(|value| value.values().next().cloned()).unwrap_or_default();
        Some((pair["key"].as_str()?.to_owned(), value))
    };
    list(json, "attributes").filter_map(pair).collect()
}

/// A number of 64 bits, which JSON of protobuf writes as a text.
#[must_use]
pub fn integer(json: &Value) -> Option<u64> {
    json.as_u64().or_else(|| json.as_str()?.parse().ok())
}
