//! Which test programs the emulated machines run.

/// A test program, and how long it may take.
pub struct Program {
    pub name: String,
    /// Only tests whose name holds one of these words; empty: all.
    pub filter: String,
    pub seconds: u32,
}

/// Programs that no emulated machine runs, and why: everything else that is in `tests/tests` does.
const LEFT_OUT: [(&str, &str); 26] = [
    ("matrix", "builds its programs with every toolchain"),
    ("offsets", "builds its programs with a toolchain"),
    ("real_programs", "needs programs that are fetched"),
    ("outputs", "is about files, not about kernels"),
    ("guide", "is about files, not about kernels"),
    ("html", "wants a browser, and is about files"),
    ("parquet", "wants a database, and is about files"),
    ("perfetto", "wants a schema, and is about files"),
    ("otlp", "wants a collector, and is about what leaves the agent"),
    ("clock", "wants a collector, and is about the calendar"),
    ("soak", "wants a collector, and measures"),
    ("segments", "wants databases, and is about files"),
    ("image", "wants a container runtime, and is about what is in the image"),
    ("deploy", "is about files, and the rights of the host's own kernel"),
    ("top", "draws what `attach` records, which runs"),
    ("pprof", "is about HTTP, not about kernels"),
    ("bad_input", "is about files and arguments, not about kernels"),
    ("ledger", "measures, and wants a database"),
    ("unharmed", "measures, and an emulated machine's times mean nothing"),
    ("hostile", "wants more memory than these machines have"),
    ("snapshot", "reads memory, which every kernel gives alike"),
    ("labels", "reads memory, which every kernel gives alike"),
    ("memory", "reads memory, which every kernel gives alike"),
    ("leaks", "judges recordings, whatever kernel they are of"),
    ("loss", "counts what gets lost at a real machine's pace"),
    ("faults", "counts what gets lost at a real machine's pace"),
];

/// What `cargo xtask test` runs on the kernel whose turn it is: each kind of probe once, in a few minutes.
const SLICE: [(&str, &str); 10] = [
    ("kernel", ""),
    ("asleep", ""),
    ("births", "children_of_children"),
    ("cgroups", "out_of_memory"),
    ("kprobes", ""),
    ("parks", "ping_pong_on_one_cpu"),
    ("process_life", "family"),
    ("processes", "descendants killed_by_sigkill"),
    ("threads", "what_threads_did"),
    ("usdt", "jobs_without_wakes"),
];

/// All that can be told where lifetrace refuses to run.
const REFUSED: &str = "kernel";

/// How much of it.
pub enum Choice<'a> {
    /// Everything that makes sense in an emulated machine.
    Whole,
    Slice,
    /// Each `NAME` or `NAME:FILTER`.
    Only(&'a [String]),
    /// What makes sense on a kernel that is too old.
    Refused,
}

/// Chooses among the programs that there are.
pub fn choose(choice: &Choice<'_>, there_are: &[String]) -> Vec<Program> {
    let slice = |name: &str| SLICE.iter().find(|(own, _)| *own == name).map(|(_, filter)| (*filter).to_owned());
    let filter = |name: &str| match choice {
        Choice::Whole => (!LEFT_OUT.iter().any(|(own, _)| *own == name)).then(String::new),
        Choice::Slice => slice(name),
        Choice::Only(wishes) => wishes.iter().find_map(|wish| {
            let (own, filter) = wish.split_once(':').unwrap_or((wish, ""));
            (own == name).then(|| filter.to_owned())
        }),
        Choice::Refused => (name == REFUSED).then(String::new),
    };
    let seconds = if matches!(choice, Choice::Slice) { 240 } else { 600 };
    let program = |name: &String| Some(Program { name: name.clone(), filter: filter(name)?, seconds });
    there_are.iter().filter_map(program).collect()
}
