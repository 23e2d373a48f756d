//! One target for each parser of bytes that the traced side controls. A target feeds its parser and asks every question that is
//! asked of the result; what must hold of any answer is asserted.

mod binary;
mod maps;
mod planted;
mod recording;
mod snapshot;

/// Targets by name. The committed inputs of each are in `corpus/NAME`.
pub const ALL: [(&str, fn(&[u8])); 8] = [
    ("go_binary", binary::whole),
    ("what_is", binary::what_is),
    ("build_info", binary::build_info),
    ("snapshot", snapshot::read),
    ("records", recording::records),
    ("recording", recording::whole),
    ("maps", maps::all),
    ("planted", planted::fail),
];
