//! Arguments as compilers write them, and as nobody does.

use proptest::prelude::*;

use super::*;

const RBP: Register = Register { number: 5, bits: 64, from_bit: 0 };
const RAX: Register = Register { number: 0, bits: 64, from_bit: 0 };
const RIP: Register = Register { number: Register::RIP, bits: 64, from_bit: 0 };

fn one(text: &str, machine: Machine) -> Argument {
    let all = parse(text, machine);
    assert_eq!(all.len(), 1, "{text}: {all:?}");
    all.into_iter().next().unwrap()
}

fn x86(text: &str) -> Operand {
    one(text, Machine::X86_64).operand
}

fn arm(text: &str) -> Operand {
    one(text, Machine::Aarch64).operand
}

fn memory(base: Option<Register>, index: Option<(Register, u8)>, displacement: i64) -> Operand {
    Operand::Memory(Memory { base, index, displacement, symbol: None })
}

fn is_refused(operand: &Operand) -> bool {
    matches!(operand, Operand::Unsupported(_))
}

/// Check sizes and signs.
#[test]
fn sizes() {
    for (text, bytes, signed) in [
        ("1@%al", 1, false),
        ("-1@%al", 1, true),
        ("2@%ax", 2, false),
        ("-2@%ax", 2, true),
        ("4@%eax", 4, false),
        ("-4@%eax", 4, true),
        ("8@%rax", 8, false),
        ("-8@%rax", 8, true),
        ("%rax", 8, true),
    ] {
        let argument = one(text, Machine::X86_64);
        assert_eq!((argument.bytes, argument.signed, argument.text.as_str()), (bytes, signed, text));
        assert!(matches!(argument.operand, Operand::Register(register) if register.number == 0), "{text}");
    }
    for text in ["3@%rax", "16@%rax", "@%rax", "--4@%rax", "4x@%rax", "@", "8@", "8@%", "8@$", "é@%rax"] {
        assert!(is_refused(&x86(text)), "{text}");
    }
}

/// Check every form of an operand of x86-64.
#[test]
fn operands_of_x86_64() {
    assert_eq!(x86("1@%ah"), Operand::Register(Register { number: 0, bits: 8, from_bit: 8 }));
    assert_eq!(x86("4@%r8d"), Operand::Register(Register { number: 8, bits: 32, from_bit: 0 }));
    assert_eq!(x86("1@%r15b"), Operand::Register(Register { number: 15, bits: 8, from_bit: 0 }));
    assert_eq!(x86("-4@$-5"), Operand::Constant(-5));
    assert_eq!(x86("8@$0x10"), Operand::Constant(16));
    assert_eq!(x86("8@$18446744073709551615"), Operand::Constant(-1));
    assert_eq!(x86("-4@-60(%rbp)"), memory(Some(RBP), None, -60));
    assert_eq!(x86("8@(%rax)"), memory(Some(RAX), None, 0));
    assert_eq!(x86("8@0x20(%rbp)"), memory(Some(RBP), None, 32));
    assert_eq!(x86("8@-8(%rbp,%rax,8)"), memory(Some(RBP), Some((RAX, 3)), -8));
    assert_eq!(x86("8@-8(%rbp, %rax, 4)"), memory(Some(RBP), Some((RAX, 2)), -8));
    assert_eq!(x86("8@(%rbp,%rax)"), memory(Some(RBP), Some((RAX, 0)), 0));
    assert_eq!(x86("8@16(,%rax,2)"), memory(None, Some((RAX, 1)), 16));
    assert_eq!(x86("8@16(%rip)"), memory(Some(RIP), None, 16));
    assert_eq!(x86("8@4096"), memory(None, None, 4096));
    for (text, displacement) in
        [("8@count(%rip)", 0), ("8@count+16(%rip)", 16), ("8@count-8(%rip)", -8), ("8@16+count(%rip)", 16)]
    {
        let symbol = Some("count".to_owned());
        assert_eq!(x86(text), Operand::Memory(Memory { base: Some(RIP), index: None, displacement, symbol }), "{text}");
    }
    let dotted = x86("4@.LC0.a$1+4(%rip)");
    assert!(matches!(dotted, Operand::Memory(Memory { symbol: Some(name), displacement: 4, .. }) if name == ".LC0.a$1"));
}

/// Check that what nobody can fetch is named.
#[test]
fn refused_of_x86_64() {
    for (text, reason) in [
        ("8f@%xmm0", FLOAT),
        ("8@%xmm0", VECTOR),
        ("-4f@-8(%rbp)", FLOAT),
        ("8@%fs:0", SEGMENT),
        ("8@%fs:-8(%rax)", SEGMENT),
        ("8@$count", "the address of a symbol"),
        ("8@count", "a symbol at a fixed address"),
        ("8@count(%rax)", "a symbol at a fixed address"),
        ("8@count@GOTPCREL(%rip)", NOT_UNDERSTOOD),
        ("8@8(%eax)", "an address in a part of a register"),
        ("8@8(%rbp,%rax,3)", NOT_UNDERSTOOD),
        ("8@8(%rbp,%rax,2,1)", NOT_UNDERSTOOD),
        ("8@8(%rbp", NOT_UNDERSTOOD),
        ("8@%nothing", NOT_UNDERSTOOD),
        ("8@--8(%rbp)", NOT_UNDERSTOOD),
    ] {
        assert_eq!(x86(text), Operand::Unsupported(reason), "{text}");
    }
}

/// Check AArch64's operands, as text.
#[test]
fn operands_of_aarch64() {
    let x = |number| Register { number, bits: 64, from_bit: 0 };
    let sp = x(Register::SP);
    assert_eq!(arm("8@x0"), Operand::Register(x(0)));
    assert_eq!(arm("-4@w3"), Operand::Register(Register { number: 3, bits: 32, from_bit: 0 }));
    assert_eq!(arm("-4@1"), Operand::Constant(1));
    assert_eq!(arm("-4@-17"), Operand::Constant(-17));
    assert_eq!(arm("8@[sp, 8]"), memory(Some(sp), None, 8));
    assert_eq!(arm("8@[sp,#-8]"), memory(Some(sp), None, -8));
    assert_eq!(arm("8@[x0]"), memory(Some(x(0)), None, 0));
    assert_eq!(arm("8@[x0, x1]"), memory(Some(x(0)), Some((x(1), 0)), 0));
    assert_eq!(arm("8@[x0, x1, lsl 2]"), memory(Some(x(0)), Some((x(1), 2)), 0));
    for text in
        ["8@[x0, w1, sxtw 2]", "8@[x0, x1, lsl 9]", "8@[sp, 8]!", "8@[sp", "8@d0", "8@[w0]", "8@[x0, 8, 8]", "8@[]", "8@x31"]
    {
        assert!(is_refused(&arm(text)), "{text}");
    }
    assert_eq!(one("8@x0", Machine::Other).operand, Operand::Unsupported(MACHINE));
}

/// Check lines of several arguments, blanks within brackets among them, and that one that is not understood spoils no other.
#[test]
fn lines() {
    let hotspot = parse("8@%r13 -4@-60(%rbp) -8@-56(%rbp) 8@%r15 1@%al", Machine::X86_64);
    assert_eq!(hotspot.iter().map(|argument| argument.bytes).collect::<Vec<_>>(), [8, 4, 8, 8, 1]);
    assert!(!hotspot.iter().any(|argument| is_refused(&argument.operand)));
    let arm = parse("-4@[sp, 12] 8@x0  4@[x0, x1, lsl 2]", Machine::Aarch64);
    assert_eq!(
        arm.iter().map(|argument| argument.text.as_str()).collect::<Vec<_>>(),
        ["-4@[sp, 12]", "8@x0", "4@[x0, x1, lsl 2]"]
    );
    let mixed = parse("  8@%rax ?? 4@%ebx ", Machine::X86_64);
    assert_eq!(mixed.iter().map(|argument| is_refused(&argument.operand)).collect::<Vec<_>>(), [false, true, false]);
    assert!(parse("", Machine::X86_64).is_empty());
    assert_eq!(parse(&"8@%rax ".repeat(100), Machine::X86_64).len(), MAX_ARGUMENTS);
}

proptest! {
    /// Any text has an answer, of a bounded number of arguments.
    #[test]
    fn any_text(text in "\\PC{0,200}") {
        for machine in [Machine::X86_64, Machine::Aarch64, Machine::Other] {
            prop_assert!(parse(&text, machine).len() <= MAX_ARGUMENTS);
        }
    }

    /// So has text that looks like arguments.
    #[test]
    fn likely_text(text in "([-+]?[1248]f?@|[%$#(),+:@ -]|r?[abcd]x|[0-9]{1,20}|0x|sym|rip|\\[|\\]|lsl|x[0-9]|sp|é){0,40}") {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            for argument in parse(&text, machine) {
                prop_assert!(matches!(argument.bytes, 1 | 2 | 4 | 8));
            }
        }
    }

    /// Memory of any displacement and registers comes back as it was written.
    #[test]
    fn memory_round_trip(displacement in any::<i32>(), base in 8u8..16, index in proptest::option::of((8u8..16, 0u8..4))) {
        let inside = index.map_or(String::new(), |(number, shift)| format!(",%r{number},{}", 1 << shift));
        let wide = |number| Register { number, bits: 64, from_bit: 0 };
        let expected = memory(Some(wide(base)), index.map(|(number, shift)| (wide(number), shift)), displacement.into());
        prop_assert_eq!(x86(&format!("-8@{displacement}(%r{base}{inside})")), expected);
    }
}
