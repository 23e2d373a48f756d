//! One target for each parser of bytes that the traced side controls. A target feeds its parser and asks every question that is
//! asked of the result; what must hold of any answer is asserted.

mod binary;
mod maps;
mod native;
mod planted;
mod pprof;
mod profile;
mod recording;
mod snapshot;
mod usdt;

/// Feeds one input to a parser; panics where something does not hold.
pub type Target = fn(&[u8]);

/// Targets by name. The committed inputs of each are in `corpus/NAME`.
pub const ALL: [(&str, Target); 17] = [
    ("go_binary", binary::whole),
    ("what_is", binary::what_is),
    ("build_info", binary::build_info),
    ("snapshot", snapshot::read),
    ("go_tests", snapshot::tests),
    ("records", recording::records),
    ("recording", recording::whole),
    ("maps", maps::all),
    ("native_symbols", native::symbols),
    ("native_maps", native::maps),
    ("pprof_goroutines", pprof::goroutines),
    ("pprof_pages", pprof::pages),
    ("pprof_packed", pprof::packed),
    ("profile", profile::heap),
    ("usdt_object", usdt::object),
    ("usdt_arguments", usdt::arguments),
    ("planted", planted::fail),
];
