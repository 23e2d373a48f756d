//! `lifetrace usdt list`: which USDT probes a program or a process has, and what they mean to us.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::{
    Failure,
    args::{ListFormat, UsdtListArgs, UsdtTableArg},
    write_output,
};
use crate::{
    id::Tgid,
    recording::contract::{UnitEvent, UnitId, UsdtMeaning},
    target::{
        libraries::Root,
        mappings,
        usdt::{Place, of_process, of_program, read},
    },
    timeline::human::plain,
    usdt::{Probe, Table, UsdtObject},
};

/// The files of a target that have probes (`--format json`; docs/json.md).
#[derive(Serialize)]
pub struct Listing {
    schema: &'static str,
    pub files: Vec<FileOut>,
}

#[derive(Serialize)]
pub struct FileOut {
    path: String,
    pub probes: Vec<ProbeOut>,
}

#[derive(Serialize)]
pub struct ProbeOut {
    provider: String,
    name: String,
    /// Link-time address, and where that is in the file.
    address: u64,
    file_offset: u64,
    /// As the note has them.
    arguments: Vec<String>,
    /// Why some of them cannot be fetched.
    unsupported: Vec<String>,
    semaphore: Option<u64>,
    /// What the table says that it means.
    pub meaning: Option<UsdtMeaning>,
    /// Why it cannot mean that here.
    problem: Option<String>,
    /// What must be done for it to fire; empty if nothing that we know.
    pub needs: String,
}

impl ProbeOut {
    /// `provider:name`.
    pub fn full_name(&self) -> String {
        format!("{}:{}", self.provider, self.name)
    }
}

/// The table that is built in, with what a person added.
pub fn table(arg: &UsdtTableArg) -> Result<Table, Failure> {
    let mut table = Table::built_in();
    for path in &arg.usdt_table {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display())).map_err(Failure::usage)?;
        table.add(&text).with_context(|| format!("{}", path.display())).map_err(Failure::usage)?;
    }
    Ok(table)
}

/// Lists the probes.
pub fn list(args: &UsdtListArgs) -> Result<(), Failure> {
    let table = table(&args.table)?;
    let listing = match (&args.target.exe, args.target.pid) {
        (Some(path), _) => of_exe(path, &table)?,
        (None, Some(pid)) => of_pid(Tgid(pid), &table)?,
        (None, None) => return Err(Failure::usage(anyhow!("give --pid or --exe"))),
    };
    write_output(args.output.output.as_deref(), |mut out| match args.format {
        ListFormat::Text => text(&listing, &mut out),
        ListFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &listing)?;
            out.write_all(b"\n")
        }
    })
}

/// The probes of a program, and of the libraries that it needs.
pub fn of_exe(path: &Path, table: &Table) -> Result<Listing, Failure> {
    let cannot = |error: io::Error| Failure::usage(anyhow::Error::from(error).context(format!("cannot read {}", path.display())));
    let real = fs::canonicalize(path).map_err(cannot)?;
    if !fs::metadata(&real).map_err(cannot)?.is_file() {
        return Err(Failure::usage(anyhow!("{} is not a regular file", path.display())));
    }
    let file = File::open(&real).map_err(cannot)?;
    read(&file).with_context(|| format!("{}", path.display())).map_err(Failure::usage)?;
    let root = Root::ours().map_err(cannot)?;
    Ok(listing(of_program(&root, Place { file, path: real }), table))
}

/// The probes of what a process has mapped.
pub fn of_pid(tgid: Tgid, table: &Table) -> Result<Listing, Failure> {
    let cannot = |error: io::Error| {
        let gone = error.kind() == io::ErrorKind::NotFound;
        let error = anyhow::Error::from(error).context(format!("cannot look at process {tgid}"));
        if gone { Failure::usage(error) } else { Failure::environment(error) }
    };
    let mut places = of_process(tgid).map_err(cannot)?;
    // A program first, then its libraries.
    let program = mappings::program(tgid).map(PathBuf::from).unwrap_or_default();
    places.sort_by_key(|place| place.path != program);
    Ok(listing(places, table))
}

fn listing(places: Vec<Place>, table: &Table) -> Listing {
    let files = places.into_iter().filter_map(|place| {
        let object = read(&place.file).ok().filter(|object| !object.probes.is_empty())?;
        let probes = object.probes.iter().map(|probe| probe_out(&object, probe, table)).collect();
        Some(FileOut { path: place.path.display().to_string(), probes })
    });
    Listing { schema: "lifetrace.usdt/1", files: files.collect() }
}

fn probe_out(object: &UsdtObject, probe: &Probe, table: &Table) -> ProbeOut {
    let unsupported = probe.arguments.iter().filter_map(|argument| {
        let reason = match &argument.operand {
            crate::usdt::Operand::Unsupported(reason) => *reason,
            _ if !object.is_fetchable(argument) => "its symbol is not in the file, or it is not of this machine",
            _ => return None,
        };
        Some(format!("{}: {reason}", argument.text))
    });
    let (meaning, problem) = match table.meaning(object, probe) {
        None => (None, None),
        Some(Ok(meaning)) => (Some(meaning), None),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    ProbeOut {
        provider: probe.provider.clone(),
        name: probe.name.clone(),
        address: probe.address,
        file_offset: probe.file_offset,
        arguments: probe.arguments.iter().map(|argument| argument.text.clone()).collect(),
        unsupported: unsupported.collect(),
        semaphore: probe.semaphore.map(|semaphore| semaphore.address),
        needs: table.mapping(&probe.provider, &probe.name).map(|mapping| mapping.needs.clone()).unwrap_or_default(),
        meaning,
        problem,
    }
}

fn text(listing: &Listing, out: &mut impl Write) -> io::Result<()> {
    if listing.files.is_empty() {
        return writeln!(out, "no USDT probes");
    }
    for file in &listing.files {
        let known = file.probes.iter().filter(|probe| probe.meaning.is_some()).count();
        writeln!(out, "{}: {} probes, {known} of which mean something", plain(&file.path), file.probes.len())?;
        let name = |probe: &ProbeOut| plain(&probe.full_name());
        let wide = file.probes.iter().map(|probe| name(probe).chars().count()).max().unwrap_or(0);
        for probe in &file.probes {
            let arguments = plain(&probe.arguments.join(" "));
            let semaphore = probe.semaphore.map_or(String::new(), |address| format!("  semaphore {address:#x}"));
            let line = format!("  {:<wide$}  {:#010x}  {arguments}{semaphore}", name(probe), probe.address);
            writeln!(out, "{}", line.trim_end())?;
            if let Some(meaning) = &probe.meaning {
                let needs = if probe.needs.is_empty() { String::new() } else { format!("; needs {}", plain(&probe.needs)) };
                writeln!(out, "  {:<wide$}  → {}{needs}", "", in_words(meaning))?;
            }
            for problem in probe.problem.iter().chain(&probe.unsupported) {
                writeln!(out, "  {:<wide$}  ! {}", "", plain(problem))?;
            }
        }
    }
    Ok(())
}

/// `block of java:(its thread), reason "park", object argument 1`
fn in_words(meaning: &UsdtMeaning) -> String {
    let mut words = match meaning.id {
        UnitId::Argument(at) => format!("{} of {}:(argument {})", meaning.event, meaning.runtime, at + 1),
        UnitId::Thread => format!("{} of {}:(the thread's)", meaning.event, meaning.runtime),
    };
    let text = meaning.text.map(|at| format!("argument {}", at + 1));
    let reason = meaning.reason.as_ref().map(|reason| format!("{reason:?}"));
    if meaning.event == UnitEvent::Start {
        words += &text.map_or(String::new(), |text| format!(", name {text}"));
    } else if let Some(reason) = text.or(reason) {
        words += &format!(", reason {reason}");
    }
    if let Some(at) = meaning.object {
        words += &format!(", object argument {}", at + 1);
    }
    if meaning.event == UnitEvent::Block && !meaning.wakes_are_seen {
        words += ", until the next event";
    }
    words
}
