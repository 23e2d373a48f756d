//! Registers by the names that assemblers give them.

/// For which processor an object is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
    /// Its arguments are not understood.
    Other,
}

/// A general register, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// x86-64: as instructions number them (0 rax, 3 rbx, 4 rsp, … 15 r15), and [`Register::RIP`]. AArch64: 0 to 30, and
    /// [`Register::SP`].
    pub number: u8,
    /// How many bits the name speaks of.
    pub bits: u8,
    /// From which bit on: 8 for `%ah` and its like.
    pub from_bit: u8,
}

/// What a register's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    General(Register),
    /// A vector, floating-point, segment or mask register: the kernel saves none of them where BPF programs could read it.
    Special,
}

impl Register {
    /// The instruction pointer of x86-64.
    pub const RIP: u8 = 16;
    /// The stack pointer of AArch64.
    pub const SP: u8 = 31;

    const fn new(number: u8, bits: u8) -> Self {
        Self { number, bits, from_bit: 0 }
    }
}

/// The eight old registers of x86 without the letters for their width, by number.
const OLD: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
const LOW_BYTES: [&str; 8] = ["al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"];
const HIGH_BYTES: [&str; 4] = ["ah", "ch", "dh", "bh"];

/// A register of x86-64, without the `%`.
pub fn x86_64(name: &str) -> Option<Name> {
    let place = |names: &[&str], name: &str| names.iter().position(|known| *known == name).map(|at| at as u8);
    let general = |number, bits| Some(Name::General(Register::new(number, bits)));
    if name == "rip" {
        return general(Register::RIP, 64);
    }
    if let Some(number) = place(&LOW_BYTES, name) {
        return general(number, 8);
    }
    if let Some(number) = place(&HIGH_BYTES, name) {
        return Some(Name::General(Register { number, bits: 8, from_bit: 8 }));
    }
    if let Some(number) = place(&OLD, name) {
        return general(number, 16);
    }
    for (letter, bits) in [("r", 64), ("e", 32)] {
        if let Some(number) = name.strip_prefix(letter).and_then(|rest| place(&OLD, rest)) {
            return general(number, bits);
        }
    }
    if let Some(rest) = name.strip_prefix('r') {
        let digits = rest.trim_end_matches(['d', 'w', 'b', 'l']);
        let bits = match &rest[digits.len()..] {
            "" => 64,
            "d" => 32,
            "w" => 16,
            "b" | "l" => 8,
            _ => return None,
        };
        return number(digits).filter(|number| (8..16).contains(number)).and_then(|number| general(number, bits));
    }
    let special = ["xmm", "ymm", "zmm", "mm", "st", "k", "cr", "dr"];
    let numbered = special.iter().any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| number(rest).is_some()));
    let segment = ["cs", "ds", "es", "fs", "gs", "ss", "st", "eip", "ip"].contains(&name);
    (numbered || segment).then_some(Name::Special)
}

/// A register of AArch64.
pub fn aarch64(name: &str) -> Option<Name> {
    let general = |number, bits| Some(Name::General(Register::new(number, bits)));
    match name {
        "sp" => return general(Register::SP, 64),
        "wsp" => return general(Register::SP, 32),
        "fp" => return general(29, 64),
        "lr" => return general(30, 64),
        _ => {}
    }
    let (letter, digits) = name.split_at_checked(1)?;
    let number = number(digits).filter(|number| *number < 32)?;
    match letter {
        "x" if number < 31 => general(number, 64),
        "w" if number < 31 => general(number, 32),
        "b" | "h" | "s" | "d" | "q" | "v" => Some(Name::Special),
        _ => None,
    }
}

/// A register's number: one or two digits.
fn number(digits: &str) -> Option<u8> {
    let plain = matches!(digits.len(), 1 | 2) && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check every width of old and new registers of x86-64, and what is no register.
    #[test]
    fn of_x86_64() {
        let general = |number, bits, from_bit| Some(Name::General(Register { number, bits, from_bit }));
        for (name, expected) in [
            ("rax", general(0, 64, 0)),
            ("eax", general(0, 32, 0)),
            ("ax", general(0, 16, 0)),
            ("al", general(0, 8, 0)),
            ("ah", general(0, 8, 8)),
            ("bh", general(3, 8, 8)),
            ("rbx", general(3, 64, 0)),
            ("rsp", general(4, 64, 0)),
            ("ebp", general(5, 32, 0)),
            ("sil", general(6, 8, 0)),
            ("di", general(7, 16, 0)),
            ("r8", general(8, 64, 0)),
            ("r8d", general(8, 32, 0)),
            ("r10w", general(10, 16, 0)),
            ("r15b", general(15, 8, 0)),
            ("r15l", general(15, 8, 0)),
            ("rip", general(Register::RIP, 64, 0)),
            ("xmm0", Some(Name::Special)),
            ("xmm15", Some(Name::Special)),
            ("fs", Some(Name::Special)),
            ("r16", None),
            ("r7", None),
            ("r8q", None),
            ("r8dd", None),
            ("rxx", None),
            ("r", None),
            ("", None),
            ("é", None),
        ] {
            assert_eq!(x86_64(name), expected, "{name}");
        }
    }

    /// Check AArch64's names.
    #[test]
    fn of_aarch64() {
        let general = |number, bits| Some(Name::General(Register { number, bits, from_bit: 0 }));
        for (name, expected) in [
            ("x0", general(0, 64)),
            ("w3", general(3, 32)),
            ("x30", general(30, 64)),
            ("sp", general(Register::SP, 64)),
            ("d8", Some(Name::Special)),
            ("x31", None),
            ("x", None),
            ("y1", None),
            ("é1", None),
        ] {
            assert_eq!(aarch64(name), expected, "{name}");
        }
    }
}
