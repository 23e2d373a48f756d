//! What a note says of a probe's arguments: `N@OP`, where OP is an operand as the assembler writes it.
//!
//! Text of the traced side: bounded, and whatever it says there is an answer. An operand that is not understood, or that nobody could
//! fetch, is [`Operand::Unsupported`] with the reason, so that the arguments beside it stay what they are.

use super::registers::{Machine, Name, Register, aarch64, x86_64};

/// Arguments that a probe can have (`sys/sdt.h`, STAP_PROBE12), and the length of their text that is looked at.
pub const MAX_ARGUMENTS: usize = 12;
const MAX_TEXT: usize = 4096;

/// One argument of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// As it stands in the note.
    pub text: String,
    /// 1, 2, 4 or 8.
    pub bytes: u8,
    pub signed: bool,
    pub operand: Operand,
}

/// Where an argument is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    Register(Register),
    Constant(i64),
    Memory(Memory),
    /// Why it cannot be fetched.
    Unsupported(&'static str),
}

/// A place in memory: the sum of what there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub base: Option<Register>,
    /// A register, and by how many bits it is shifted to the left.
    pub index: Option<(Register, u8)>,
    pub displacement: i64,
    /// A symbol of the object, relative to the instruction pointer in [`Self::base`].
    pub symbol: Option<String>,
}

const NOT_UNDERSTOOD: &str = "not understood";
const VECTOR: &str = "a vector or special register, which BPF programs cannot read";
const FLOAT: &str = "a floating-point number, which BPF programs cannot read";
const SEGMENT: &str = "memory of the thread (a segment register)";
const WRITE_BACK: &str = "an address that changes its register";
const MACHINE: &str = "of a processor whose registers are not known";

/// The arguments of a probe, in order. Text that ends within one yields one that is not understood.
pub fn parse(text: &str, machine: Machine) -> Vec<Argument> {
    let mut rest = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text).trim_start();
    let mut arguments = Vec::new();
    while !rest.is_empty() && arguments.len() < MAX_ARGUMENTS {
        let (one, behind) = split(rest);
        arguments.push(argument(one, machine));
        rest = behind.trim_start();
    }
    arguments
}

/// The first argument, and what follows it: blanks within brackets are its own.
fn split(text: &str) -> (&str, &str) {
    let mut depth = 0u32;
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            c if c.is_ascii_whitespace() && depth == 0 => return text.split_at(at),
            _ => {}
        }
    }
    (text, "")
}

fn argument(text: &str, machine: Machine) -> Argument {
    let whole = |operand| Argument { text: text.to_owned(), bytes: 8, signed: true, operand };
    let (size, operand) = match text.split_once('@') {
        Some((size, operand)) => (Some(size), operand),
        // Before it was written down, every argument was a word.
        None => (None, text),
    };
    let Some((bytes, signed, float)) = size.map_or(Some((8, true, false)), size_of) else {
        return whole(Operand::Unsupported(NOT_UNDERSTOOD));
    };
    let operand = match machine {
        _ if float => Operand::Unsupported(FLOAT),
        Machine::X86_64 => operand_x86_64(operand),
        Machine::Aarch64 => operand_aarch64(operand),
        Machine::Other => Operand::Unsupported(MACHINE),
    };
    Argument { bytes, signed, ..whole(operand) }
}

/// Bytes, whether it is signed, and whether it is a floating-point number: `-4`, `8`, `8f`.
fn size_of(text: &str) -> Option<(u8, bool, bool)> {
    let (digits, signed) = text.strip_prefix('-').map_or((text, false), |digits| (digits, true));
    let (digits, float) = digits.strip_suffix('f').map_or((digits, false), |digits| (digits, true));
    let bytes = match digits {
        "1" => 1,
        "2" => 2,
        "4" => 4,
        "8" => 8,
        _ => return None,
    };
    Some((bytes, signed, float))
}

/// `%reg`, `$const`, or `segment:symbol+disp(base,index,scale)`, of which each part may be missing.
fn operand_x86_64(text: &str) -> Operand {
    let text = text.trim();
    if let Some(name) = text.strip_prefix('%') {
        if name.contains(':') {
            return Operand::Unsupported(SEGMENT);
        }
        if !name.contains('(') {
            return match x86_64(name) {
                Some(Name::General(register)) => Operand::Register(register),
                Some(Name::Special) => Operand::Unsupported(VECTOR),
                None => Operand::Unsupported(NOT_UNDERSTOOD),
            };
        }
    }
    if let Some(constant) = text.strip_prefix('$') {
        return number(constant).map_or(Operand::Unsupported("the address of a symbol"), Operand::Constant);
    }
    memory_x86_64(text).unwrap_or_else(Operand::Unsupported)
}

fn memory_x86_64(text: &str) -> Result<Operand, &'static str> {
    let (front, inside) = match text.split_once('(') {
        Some((front, inside)) => (front.trim(), Some(inside.strip_suffix(')').ok_or(NOT_UNDERSTOOD)?)),
        None => (text, None),
    };
    let (symbol, displacement) = symbol_and_number(front).ok_or(NOT_UNDERSTOOD)?;
    let mut memory = Memory { displacement, symbol, ..Memory::default() };
    if let Some(inside) = inside {
        let mut parts = inside.split(',').map(str::trim);
        memory.base = address_register(parts.next().unwrap_or_default())?;
        if let Some(index) = parts.next() {
            let scale = parts.next().unwrap_or("1");
            let shift = ["1", "2", "4", "8"].iter().position(|known| *known == scale).ok_or(NOT_UNDERSTOOD)? as u8;
            memory.index = address_register(index)?.map(|index| (index, shift));
        }
        if parts.next().is_some() {
            return Err(NOT_UNDERSTOOD);
        }
    }
    let by_rip = memory.base.is_some_and(|base| base.number == Register::RIP);
    match (&memory.symbol, by_rip) {
        (Some(_), false) => Err("a symbol at a fixed address"),
        // No register at all: an absolute address is fine where it is a number.
        (None, _) if inside.is_none() && front.is_empty() => Err(NOT_UNDERSTOOD),
        _ => Ok(Operand::Memory(memory)),
    }
}

/// A register within the brackets of an address; nothing between the commas means none.
fn address_register(text: &str) -> Result<Option<Register>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.strip_prefix('%').and_then(x86_64) {
        Some(Name::General(register)) if register.bits == 64 => Ok(Some(register)),
        Some(_) => Err("an address in a part of a register"),
        None => Err(NOT_UNDERSTOOD),
    }
}

/// `symbol`, `symbol+8`, `symbol-8`, `8+symbol`, `16`, `-16`, or nothing.
fn symbol_and_number(text: &str) -> Option<(Option<String>, i64)> {
    if text.is_empty() {
        return Some((None, 0));
    }
    if let Some(number) = number(text) {
        return Some((None, number));
    }
    // A sign that ends a symbol's name begins the number behind it.
    if let Some(at) = text.rfind(['+', '-']).filter(|at| *at > 0)
        && let Some(offset) = number(text[at..].strip_prefix('+').unwrap_or(&text[at..]))
    {
        return symbol(&text[..at]).map(|name| (Some(name), offset));
    }
    if let Some((offset, name)) = text.split_once('+')
        && let Some(offset) = number(offset)
    {
        return symbol(name).map(|name| (Some(name), offset));
    }
    symbol(text).map(|name| (Some(name), 0))
}

fn symbol(text: &str) -> Option<String> {
    let first = text.chars().next().filter(|c| !c.is_ascii_digit());
    let plain = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '@'));
    // With `@` comes how the linker is to find it (`@GOTPCREL`), which is another place.
    first.filter(|_| plain && !text.contains('@')).map(|_| text.to_owned())
}

/// A whole number in decimal or hexadecimal.
fn number(text: &str) -> Option<i64> {
    let (digits, negative) = text.strip_prefix('-').map_or((text, false), |digits| (digits, true));
    let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |digits| (digits, 16));
    if digits.starts_with(['+', '-']) {
        return None;
    }
    // Constants above the largest signed number are written without a sign.
    let value = u64::from_str_radix(digits, radix).ok()?;
    Some(if negative { value.wrapping_neg().cast_signed() } else { value.cast_signed() })
}

/// `x0`, `17`, `[sp, 8]`, `[x0, x1]`, `[x0, x1, lsl 2]`.
fn operand_aarch64(text: &str) -> Operand {
    let text = text.trim();
    if let Some(inside) = text.strip_prefix('[') {
        let Some(inside) = inside.strip_suffix(']') else {
            return Operand::Unsupported(if inside.contains(']') { WRITE_BACK } else { NOT_UNDERSTOOD });
        };
        return memory_aarch64(inside).unwrap_or_else(Operand::Unsupported);
    }
    match aarch64(text) {
        Some(Name::General(register)) => Operand::Register(register),
        Some(Name::Special) => Operand::Unsupported(VECTOR),
        None => number(text.strip_prefix('#').unwrap_or(text)).map_or(Operand::Unsupported(NOT_UNDERSTOOD), Operand::Constant),
    }
}

fn memory_aarch64(inside: &str) -> Result<Operand, &'static str> {
    let mut parts = inside.split(',').map(str::trim);
    let register = |name: &str| match aarch64(name) {
        Some(Name::General(register)) => Some(register),
        _ => None,
    };
    let base = register(parts.next().unwrap_or_default()).filter(|base| base.bits == 64).ok_or(NOT_UNDERSTOOD)?;
    let mut memory = Memory { base: Some(base), ..Memory::default() };
    match parts.next() {
        None => {}
        Some(second) => match (register(second), number(second.strip_prefix('#').unwrap_or(second))) {
            (Some(index), _) => {
                let shift = parts.next().map_or(Ok(0), shift_aarch64)?;
                memory.index = Some((index, shift)).filter(|(index, _)| index.bits == 64);
                if memory.index.is_none() {
                    return Err("an index that is extended");
                }
            }
            (None, Some(displacement)) => memory.displacement = displacement,
            (None, None) => return Err(NOT_UNDERSTOOD),
        },
    }
    if parts.next().is_some() { Err(NOT_UNDERSTOOD) } else { Ok(Operand::Memory(memory)) }
}

fn shift_aarch64(text: &str) -> Result<u8, &'static str> {
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("lsl"), Some(by), None) => number(by.strip_prefix('#').unwrap_or(by))
            .and_then(|by| u8::try_from(by).ok())
            .filter(|by| *by <= 4)
            .ok_or(NOT_UNDERSTOOD),
        (Some("sxtw" | "uxtw" | "sxtx"), _, None) => Err("an index that is extended"),
        _ => Err(NOT_UNDERSTOOD),
    }
}

#[cfg(test)]
mod tests;
