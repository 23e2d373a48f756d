//! Go executables: version, symbols, runtime layout, and where to probe.
//!
//! Owns everything that is read out of a Go binary on disk. Does not read running processes, and attaches nothing: it hands
//! out link-time addresses and file offsets. The file belongs to whoever is traced, so every parser here is bounded in time
//! and memory and answers damage with an error or an empty result, never a panic.
//!
//! ```text
//! elf (on its shelf) → buildinfo, pclntab → moduledata → symbol (inline)
//!                          ↘ flow → sites (hook, transition) ← offsets ← debug_info
//!                               → allgs             ↘ snapshot_layout, tls
//! ```

mod allgs;
mod buildinfo;
mod debug_info;
mod elf;
mod flow;
mod hook;
mod identify;
mod inline;
mod moduledata;
mod offsets;
mod pclntab;
#[cfg(test)]
mod seed_tests;
mod semaphores;
mod shelf;
mod sites;
mod snapshot_layout;
mod stw_reasons;
mod symbol;
mod tls;
#[cfg(test)]
mod toolchain_tests;
mod transition;
mod version;

use std::{
    fs::File,
    io::{self, Read},
    sync::{Mutex, OnceLock, PoisonError},
    time::Instant,
};

use rustc_hash::FxHashMap;

use tracer_common::config::GoLayout;

pub use self::{
    allgs::AllGoroutines,
    hook::{Hook, HookSite, MissingHook, Plan},
    identify::{is_x86_64, looks_like_go, what_is, what_is_file},
    offsets::Offsets,
    semaphores::REASONS as SEMAPHORE_REASONS,
    snapshot_layout::{Saved, SnapshotLayout, Sudog},
    version::GoVersion,
};
use self::{
    buildinfo::BuildInfo,
    elf::Elf,
    moduledata::ModuleData,
    pclntab::{Header, Pclntab},
    shelf::{Seen, Shelf, Source},
};
use crate::recording::contract::{CodeUse, Frame, OffsetsSource, Tier};

/// The largest file that is read.
pub const MAX_FILE_BYTES: u64 = 2 << 30;

/// `runtime.allgadd` has some 500 bytes.
const MAX_ALLGADD: usize = 16 << 10;

/// Places of which answers are kept.
const MAX_PLACES: usize = 1 << 16;

/// Why a file cannot be used as a Go executable.
#[derive(Debug, thiserror::Error)]
pub enum GolangError {
    /// `what` tells a person what it is instead: "a shell script run by /bin/sh".
    #[error("not a Go executable for x86-64: {what}")]
    NotGo { what: String },
    #[error(
        "built by {version}, whose runtime lifetrace does not know (it knows Go {known}), and without debug information that \
         would tell: its processes can be followed (T0), its goroutines cannot"
    )]
    Unsupported { version: String, known: String },
    #[error("a Go executable that cannot be read: {0}")]
    Malformed(String),
    #[error("the file has {bytes} bytes, more than the {MAX_FILE_BYTES} that are read")]
    TooLarge { bytes: u64 },
    #[error("the file cannot be read")]
    Io(#[from] io::Error),
}

/// A Go executable, taken apart. Addresses are link-time: without the load bias of a position-independent one.
pub struct GoBinary {
    shelf: Shelf,
    /// What each look at its processes asks, of the places where their goroutines wait.
    places: Mutex<FxHashMap<u64, Place>>,
    all_goroutines: OnceLock<Option<AllGoroutines>>,
    header: Header,
    /// Where functions' entry offsets count from.
    text: u64,
    /// Where inline trees are; `None` leaves inlined calls unexpanded.
    gofunc: Option<u64>,
    version: GoVersion,
    module: String,
    package: String,
    build_id: Option<String>,
    /// `None`: nobody knows its runtime's structures.
    runtime: Option<offsets::Runtime>,
}

/// A code address.
#[derive(Clone, Copy)]
struct Place {
    frame_bytes: Option<u64>,
    in_gopark: bool,
}

impl std::fmt::Debug for GoBinary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut this = f.debug_struct("GoBinary");
        this.field("version", &self.version.raw()).field("module", &self.module).finish_non_exhaustive()
    }
}

impl GoBinary {
    /// Reads a Go executable from the file's start, whatever its position. Up to [`MAX_FILE_BYTES`].
    pub fn open(file: &File) -> Result<Self, GolangError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(GolangError::NotGo { what: "not a regular file".to_owned() });
        }
        let bytes = metadata.len();
        if bytes > MAX_FILE_BYTES {
            return Err(GolangError::TooLarge { bytes });
        }
        if !looks_like_go(file)? {
            return Err(GolangError::NotGo { what: what_is_file(file)? });
        }
        let mut contents = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        PositionedReader { file, at: 0 }.take(MAX_FILE_BYTES).read_to_end(&mut contents)?;
        Self::from_bytes(contents)
    }

    /// The same of one that is followed for long: its bytes may be put away ([`Self::tidy`]), and are read again when somebody asks. Where
    /// the file has been changed meanwhile, what is not known already stays unknown. One whose processes are held against it at every look
    /// keeps its bytes, as does one on a network's file system.
    pub fn open_to_keep(file: &File) -> Result<Self, GolangError> {
        let seen = Seen::of(&file.metadata()?);
        let this = Self::open(file)?;
        if !this.needs_self_check()
            && let Some(source) = Source::of(file, seen)?
        {
            this.shelf.lean_on(source);
        }
        Ok(this)
    }

    /// The same from a file's contents.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GolangError> {
        if !identify::is_x86_64(&bytes) {
            return Err(GolangError::NotGo { what: what_is(&bytes) });
        }
        let what = what_is(bytes.get(..64 << 10).unwrap_or(&bytes));
        // Both lie behind what is loaded, which is all that is kept.
        let structures = debug_info::structures(&bytes, offsets::STRUCTURES);
        let reasons_at = debug_info::symbol(&bytes, offsets::WAIT_REASONS_SYMBOL);
        let elf = Elf::parse(bytes)?;
        let info = BuildInfo::read(&elf);
        let header = match Header::find(&elf) {
            Err(GolangError::Malformed(_)) if info.is_none() => return Err(GolangError::NotGo { what }),
            header => header?,
        };
        let module = ModuleData::find(&elf, &header);
        let text = module.map(|m| m.text).or((header.text_start != 0).then_some(header.text_start));
        let text = text.ok_or_else(|| GolangError::Malformed("its module data was not found".to_owned()))?;
        let stated = info.as_ref().and_then(|info| GoVersion::parse(&info.version));
        let version = match stated.or_else(|| version_from_code(&elf, &header, text)) {
            Some(version) => version,
            None if info.is_some() => {
                return Err(unsupported(info.map(|info| info.version).unwrap_or_default()));
            }
            None => return Err(GolangError::Malformed("it does not tell its Go version".to_owned())),
        };
        let minor = version.release().1;
        Ok(Self {
            build_id: buildinfo::build_id(&elf),
            module: info.as_ref().map(|info| info.module.clone()).unwrap_or_default(),
            package: info.as_ref().map(|info| info.package.clone()).unwrap_or_default(),
            gofunc: module.and_then(|module| module.gofunc(&elf, header.format, minor)),
            runtime: offsets::Runtime::choose(&version, &structures, &elf, reasons_at),
            version,
            header,
            text,
            shelf: Shelf::new(elf),
            places: Mutex::default(),
            all_goroutines: OnceLock::new(),
        })
    }

    /// Puts its bytes away if nobody has asked for a while.
    pub fn tidy(&self, now: Instant) {
        self.shelf.tidy(now);
    }

    /// Its file was read anew, and is the same but for the time of writing.
    pub fn stays(&self, fresh: &Self) {
        self.shelf.lean_as(&fresh.shelf);
    }

    /// Nobody follows it any more: its file is given back.
    pub fn let_go(&self) {
        self.shelf.let_go();
    }

    pub fn version(&self) -> &GoVersion {
        &self.version
    }

    /// Whether it is a part of the Go toolchain itself: the go command, a compiler, a linker.
    pub fn is_toolchain(&self) -> bool {
        self.package.starts_with("cmd/")
    }

    /// Path of the main module, "" if the binary names none.
    pub fn module(&self) -> &str {
        &self.module
    }

    /// Go's build id, else the GNU one in hex.
    pub fn build_id(&self) -> Option<&str> {
        self.build_id.as_deref()
    }

    /// Whether it is loaded at an address of the kernel's choice.
    pub fn is_pie(&self) -> bool {
        self.shelf.outline().is_position_independent()
    }

    /// Offsets into its runtime's structures. `Unsupported` for a version nothing is known of.
    pub fn layout(&self) -> Result<GoLayout, GolangError> {
        let layout = self.runtime().map(|runtime| runtime.offsets.go_layout())?;
        let g_tls = self.code_of("runtime.morestack").and_then(|code| tls::g_offset(&code)).unwrap_or(0);
        Ok(GoLayout { g_tls, semaphore_reasons: self.semaphore_reasons(), ..layout })
    }

    /// Wait reasons, by bit, of those that wait for a semaphore that can be told; 0: none can.
    fn semaphore_reasons(&self) -> u64 {
        let parks: Vec<u64> = ["runtime.gopark", "runtime.mcall"].into_iter().filter_map(|name| self.function(name)).collect();
        // Before Go 1.21 gopark has a frame of its own where the probe is.
        let told = self.version.release() >= (1, 21)
            && self.code_of("runtime.semacquire1").is_some_and(|code| semaphores::keeps_address(&code, &parks));
        let reasons = self.wait_reasons().iter().enumerate().take(64).filter(|(_, name)| semaphores::REASONS.contains(name));
        reasons.filter(|_| told).fold(0, |mask, (number, _)| mask | 1 << number)
    }

    /// Whether parks tell which semaphore they wait for ([`semaphores`]).
    pub fn tells_semaphores(&self) -> bool {
        self.semaphore_reasons() != 0
    }

    /// The same, every one that is known.
    pub fn offsets(&self) -> Result<&Offsets, GolangError> {
        self.runtime().map(|runtime| &runtime.offsets)
    }

    /// Where these offsets come from.
    pub fn offsets_source(&self) -> Result<&OffsetsSource, GolangError> {
        self.runtime().map(|runtime| &runtime.source)
    }

    /// Whether they may be used only where the process itself bears them out ([`crate::snapshot::self_check`]).
    pub fn needs_self_check(&self) -> bool {
        self.runtime.as_ref().is_some_and(|runtime| runtime.needs_self_check)
    }

    /// Names of its wait reasons by number; empty for a version nothing is known of.
    pub fn wait_reasons(&self) -> &'static [&'static str] {
        self.runtime.as_ref().map_or(&[], |runtime| runtime.wait_reasons)
    }

    /// Names of its reasons to stop the world by number; empty for a version nobody read.
    pub fn stw_reasons(&self) -> &'static [&'static str] {
        self.runtime.as_ref().map_or(&[], |_| stw_reasons::stw_reasons(self.version.release().1))
    }

    /// Offset of `lock` in `runtime.hchan`.
    pub fn hchan_lock(&self) -> Option<u64> {
        self.runtime.as_ref().map(|runtime| u64::from(runtime.offsets.hchan_lock))
    }

    /// Where a snapshot finds things in its goroutines. `Unsupported` for a version nothing is known of.
    pub fn snapshot_layout(&self) -> Result<&SnapshotLayout, GolangError> {
        self.runtime().map(|runtime| &runtime.snapshot)
    }

    /// Where its runtime keeps the list of all goroutines.
    pub fn all_goroutines(&self) -> Result<AllGoroutines, GolangError> {
        let find = || self.code_of("runtime.allgadd").and_then(|code| allgs::find(&code));
        self.all_goroutines
            .get_or_init(find)
            .ok_or_else(|| GolangError::Malformed("its list of goroutines was not found".to_owned()))
    }

    /// How far it was moved when loaded, told by one mapping of the file: its address and its offset in the file.
    pub fn load_bias(&self, mapped_at: u64, file_offset: u64) -> Option<u64> {
        if !self.is_pie() {
            return Some(0);
        }
        let page = |value: u64| value & !0xfff;
        let segment = self.shelf.outline().loads().iter().find(|segment| page(segment.offset) == file_offset)?;
        Some(mapped_at.wrapping_sub(page(segment.address)))
    }

    /// Whether the address lies in a function.
    pub fn in_code(&self, address: u64) -> bool {
        self.shelf.elf().is_some_and(|elf| self.table(&elf).and_then(|table| table.lookup(address)).is_some())
    }

    /// Whether a function begins at this address.
    pub fn is_entry(&self, address: u64) -> bool {
        let starts =
            |elf: &Elf| self.table(elf).and_then(|table| table.lookup(address)).is_some_and(|function| function.start == address);
        self.shelf.elf().is_some_and(|elf| starts(&elf))
    }

    /// How many bytes lie between the stack pointer and the return address at this code address (`_func.pcsp`,
    /// `runtime/symtab.go`); `None` outside of known code.
    pub fn frame_bytes(&self, address: u64) -> Option<u64> {
        self.place(address)?.frame_bytes
    }

    /// Whether a call returns to this address in `runtime.gopark`, whatever was inlined into it.
    pub fn returns_to_gopark(&self, address: u64) -> bool {
        self.place(address).is_some_and(|place| place.in_gopark)
    }

    /// What is asked about an address again and again; `None` where the file cannot be asked.
    fn place(&self, address: u64) -> Option<Place> {
        let known = || self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known().get(&address) {
            return Some(*place);
        }
        let elf = self.shelf.elf()?;
        let table = self.table(&elf)?;
        let frame_bytes = table.lookup(address).and_then(|function| {
            let bytes = table.frame_bytes(function, u32::try_from(address - function.start).ok()?)?;
            u64::try_from(bytes).ok()
        });
        let around = table.lookup(address.wrapping_sub(1));
        let place = Place { frame_bytes, in_gopark: around.is_some_and(|function| table.is_named(function, "runtime.gopark")) };
        let mut known = known();
        if known.len() >= MAX_PLACES {
            known.clear();
        }
        known.insert(address, place);
        Some(place)
    }

    /// Where to probe for a tier, and what of it could not be found.
    pub fn plan(&self, tier: Tier) -> Plan {
        let elf = self.shelf.elf();
        let Some((elf, table)) = elf.as_ref().and_then(|elf| Some((elf, self.table(elf)?))) else {
            return Plan::nothing("the table of functions is gone");
        };
        let minor = self.version.release().1;
        let program = sites::Program { elf, table, gofunc: self.gofunc, minor, runtime: self.runtime.as_ref() };
        sites::plan(&program, tier)
    }

    /// Frames of a code address, innermost first, inlined calls expanded. Empty when unknown.
    pub fn symbolize(&self, address: u64, use_as: CodeUse) -> Vec<Frame> {
        let address = match use_as {
            CodeUse::Return => address.wrapping_sub(1),
            CodeUse::Entry => address,
        };
        let Some(elf) = self.shelf.elf() else { return Vec::new() };
        self.table(&elf).map(|table| symbol::frames(&elf, table, self.gofunc, address)).unwrap_or_default()
    }

    /// Entry of the function of this name (`main.main`); the largest, where an assembly wrapper shares it.
    pub fn function(&self, name: &str) -> Option<u64> {
        let elf = self.shelf.elf()?;
        function(self.table(&elf)?, name).map(|function| function.start)
    }

    /// Hands over every function's entry and name.
    pub fn each_function(&self, mut take: impl FnMut(u64, &str)) {
        let Some(elf) = self.shelf.elf() else { return };
        let Some(table) = self.table(&elf) else { return };
        table.functions().for_each(|function| take(function.start, &table.name(function)));
    }

    /// The code of the function of this name, if it is no longer than any that is asked for here.
    fn code_of(&self, name: &str) -> Option<flow::Code> {
        let elf = self.shelf.elf()?;
        let function = function(self.table(&elf)?, name)?;
        let length = usize::try_from(function.end.checked_sub(function.start)?).ok().filter(|length| *length <= MAX_ALLGADD)?;
        Some(flow::Code::decode(function.start, elf.read(function.start, length)?))
    }

    fn runtime(&self) -> Result<&offsets::Runtime, GolangError> {
        self.runtime.as_ref().ok_or_else(|| unsupported(self.version.to_string()))
    }

    fn table<'a>(&'a self, elf: &'a Elf) -> Option<Pclntab<'a>> {
        table(elf, &self.header, self.text)
    }
}

fn table<'a>(elf: &'a Elf, header: &'a Header, text: u64) -> Option<Pclntab<'a>> {
    Some(Pclntab { header, bytes: elf.from(header.address)?, text })
}

fn function(table: Pclntab<'_>, name: &str) -> Option<pclntab::Function> {
    let same = table.functions().filter(|function| table.is_named(*function, name));
    same.max_by_key(|function| function.end - function.start)
}

fn version_from_code(elf: &Elf, header: &Header, text: u64) -> Option<GoVersion> {
    let schedinit = function(table(elf, header, text)?, "runtime.schedinit")?;
    version::from_schedinit(elf, schedinit).filter(|version| buildinfo::is_plain(version.raw()))
}

fn unsupported(version: String) -> GolangError {
    let known: Vec<String> = offsets::known_minors().iter().map(|minor| format!("1.{minor}")).collect();
    GolangError::Unsupported { version, known: known.join(", ") }
}

/// The Go version and main module that a file's build info names.
#[cfg(feature = "fuzz")]
pub fn build_info(file: Vec<u8>) -> Option<(String, String)> {
    let info = BuildInfo::read(&Elf::parse(file).ok()?)?;
    Some((info.version, info.module))
}

/// Reads by offset, so that the position of a file others share stays where it is.
struct PositionedReader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for PositionedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
