//! Notes of ELF files, what they say of arguments, and tables.

use tracer_common::usdt::MAX_ARGS;
use tracer_user::{
    target::mappings,
    usdt::{
        Table, UsdtObject,
        argument::{self, MAX_ARGUMENTS},
        registers::Machine,
        spec,
    },
};

/// A whole file, with what would be done about it.
pub fn object(input: &[u8]) {
    let Ok(object) = UsdtObject::read(input) else { return };
    let table = Table::built_in();
    for probe in &object.probes {
        assert!(probe.file_offset < input.len() as u64 && probe.arguments.len() <= MAX_ARGUMENTS);
        let meaning = table.meaning(&object, probe).and_then(Result::ok);
        let text = meaning.and_then(|meaning| Some((meaning.text?.into(), meaning.text_len.map(usize::from))));
        let spec = spec::spec(&probe.arguments, probe.address, &|name| object.symbol(name), text);
        assert!(usize::from(spec.text) < MAX_ARGS || spec.text == u8::MAX);
    }
}

/// What a note says of arguments; and `/proc/PID/maps`.
pub fn arguments(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for machine in [Machine::X86_64, Machine::Aarch64, Machine::Other] {
        let arguments = argument::parse(&text, machine);
        assert!(arguments.len() <= MAX_ARGUMENTS);
        for argument in &arguments {
            assert!(matches!(argument.bytes, 1 | 2 | 4 | 8));
        }
        let _ = spec::spec(&arguments, 0x1000, &|_| Some(0x2000), Some((0, Some(1))));
    }
    for file in mappings::parse(&text) {
        assert!(file.inode != 0 && file.path.starts_with('/') && !file.range.contains('/'));
    }
}
